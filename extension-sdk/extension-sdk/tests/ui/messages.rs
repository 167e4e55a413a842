//! Types that cannot be sent.

use extension_sdk::Fault;

pub struct Plain;

#[extension_sdk::interface]
pub trait Wrong {
    fn argument(&self, request: Plain) -> Result<(), Fault>;
}

fn main() {}
