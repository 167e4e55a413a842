//! Failures that are no faults.

use extension_sdk::Fault;

#[extension_sdk::interface]
pub trait Wrong {
    fn read(&self) -> Result<String, std::io::Error>;
}

#[extension_sdk::interface]
pub trait Reader {
    fn read(&self) -> Result<String, Fault>;
}

struct Careless;

impl Reader for Careless {
    fn read(&self) -> Result<String, Fault> {
        Ok(std::fs::read_to_string("text")?)
    }
}

fn main() {}
