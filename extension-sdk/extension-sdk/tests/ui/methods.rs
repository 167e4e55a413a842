//! Methods that no caller in another process could call.

#[allow(unused_imports)]
use extension_sdk::{Context, Fault};

#[extension_sdk::interface]
pub trait Wrong {
    fn no_result(&self);
    fn other_result(&self) -> String;
    fn generic<T>(&self, value: T) -> Result<(), Fault>;
    fn exclusive(&mut self) -> Result<(), Fault>;
    fn no_self(text: String) -> Result<(), Fault>;
    fn borrowed(&self, text: &str) -> Result<(), Fault>;
    fn nested(&self, names: Vec<Option<&'static str>>) -> Result<(), Fault>;
    fn borrowed_result(&self) -> Result<&str, Fault>;
    fn pattern(&self, (a, b): (u8, u8)) -> Result<(), Fault>;
    fn opaque(&self, cx: &Context, value: impl Copy) -> Result<(), Fault>;
    fn body(&self) -> Result<(), Fault> {
        Ok(())
    }
    #[method(idempotant)]
    fn misspelt(&self) -> Result<(), Fault>;
    fn twice(&self) -> Result<(), Fault>;
    fn twice(&self, text: String) -> Result<(), Fault>;
    fn new(&self) -> Result<(), Fault>;
    fn __interface(&self) -> Result<(), Fault>;
}

#[extension_sdk::interface]
pub trait Generic<T> {}

fn main() {}
