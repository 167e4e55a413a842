//! Two exports, where one names all interfaces.

use extension_sdk::Fault;

#[extension_sdk::interface]
pub trait First {
    fn first(&self) -> Result<(), Fault>;
}

#[extension_sdk::interface]
pub trait Second {
    fn second(&self) -> Result<(), Fault>;
}

#[derive(Default)]
struct Both;

impl First for Both {
    fn first(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl Second for Both {
    fn second(&self) -> Result<(), Fault> {
        Ok(())
    }
}

extension_sdk::export!(Both as First);
extension_sdk::export!(Both as Second);
