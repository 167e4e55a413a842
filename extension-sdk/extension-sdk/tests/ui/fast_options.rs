//! Fast messages whose attributes, form or parts contradict the codec.

#[extension_sdk::message(fast)]
pub struct Options {
    #[serde(skip)]
    pub skipped: u8,
    #[serde(rename = "other", skip_serializing_if = "Option::is_none")]
    pub missing: Option<u8>,
    #[serde(alias = "old", with = "somewhere")]
    pub converted: u8,
    #[wincode(skip)]
    pub left_out: u8,
}

#[extension_sdk::message(fast)]
#[serde(untagged)]
pub enum Untagged {
    #[serde(skip_deserializing)]
    One(u8),
    Two(u16),
}

#[extension_sdk::message(fast)]
pub struct Parameter<T> {
    pub value: T,
}

#[extension_sdk::message(fast)]
pub struct Tree {
    pub children: Vec<Tree>,
    pub parent: Option<Box<Self>>,
}

#[extension_sdk::message(quick)]
pub struct Misspelt {
    pub value: u8,
}

#[extension_sdk::interface]
pub trait Wrong {
    #[method(quick)]
    fn quick(&self) -> Result<(), extension_sdk::Fault>;
}

fn main() {}
