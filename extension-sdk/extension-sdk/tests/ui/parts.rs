//! Parts of messages, and arguments among others, that cannot be sent.

use extension_sdk::Fault;

pub struct Plain;

#[extension_sdk::message]
pub struct Outer {
    pub text: String,
    pub plain: Plain,
}

#[extension_sdk::interface]
pub trait Wrong {
    fn several(&self, text: String, plain: Plain) -> Result<(), Fault>;
}

fn main() {}
