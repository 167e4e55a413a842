//! Exports of what is no extension.

use extension_sdk::Fault;

#[extension_sdk::interface]
pub trait Useful {
    fn use_it(&self) -> Result<(), Fault>;
}

#[derive(Default)]
struct Idle;

mod without_the_implementation {
    use super::{Idle, Useful};
    extension_sdk::export!(Idle as Useful);
}

struct Busy;

impl Useful for Busy {
    fn use_it(&self) -> Result<(), Fault> {
        Ok(())
    }
}

mod without_a_start {
    use super::{Busy, Useful};
    extension_sdk::export!(Busy as Useful);
}

fn main() {}
