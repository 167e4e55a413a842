//! Parts that the fast codec does not take: types that are no fast messages.

#[extension_sdk::message]
pub struct Slow {
    pub value: u8,
}

#[extension_sdk::message(fast)]
pub struct Holder {
    pub good: Vec<(u8, String)>,
    pub slow: Vec<Slow>,
    pub wide: u128,
}

fn main() {}
