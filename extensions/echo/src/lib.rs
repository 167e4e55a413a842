//! Answers what it is told: the smallest extension.
use extension_sdk::Fault;
use interfaces::Echo;

#[derive(Default)]
struct Parrot;

impl Echo for Parrot {
    fn echo(&self, text: String) -> Result<String, Fault> {
        Ok(text)
    }
}

extension_sdk::export!(Parrot as Echo);
