//! Methods whose arguments or result the fast codec does not take.

use extension_sdk::Fault;

#[extension_sdk::message]
pub struct Slow {
    pub value: u8,
}

#[extension_sdk::interface]
pub trait Wrong {
    #[method(fast)]
    fn argument(&self, request: Slow) -> Result<(), Fault>;

    #[method(fast)]
    fn result(&self, number: u8) -> Result<Vec<Slow>, Fault>;
}

fn main() {}
