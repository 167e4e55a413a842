//! Messages that do not own their data, and what is no type at all.

#[extension_sdk::message]
pub struct Borrowed<'a> {
    pub text: &'a str,
}

#[extension_sdk::message]
fn function() {}

fn main() {}
