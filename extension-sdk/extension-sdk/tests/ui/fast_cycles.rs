//! Fast messages that contain themselves by way of each other.

#[extension_sdk::message(fast)]
pub struct Hen {
    pub eggs: Vec<Egg>,
}

#[extension_sdk::message(fast)]
pub struct Egg {
    pub hens: Vec<Hen>,
}

fn main() {}
