//! Implementations that do not fit their interface.

use std::cell::Cell;
use std::rc::Rc;

use extension_sdk::Fault;

#[extension_sdk::interface]
pub trait Counter {
    fn next(&self, step: u64) -> Result<u64, Fault>;
    fn reset(&self) -> Result<(), Fault>;
}

struct Incomplete;

impl Counter for Incomplete {
    fn next(&self, step: u64) -> Result<u64, Fault> {
        Ok(step)
    }
}

struct OtherArgument;

impl Counter for OtherArgument {
    fn next(&self, step: u32) -> Result<u64, Fault> {
        Ok(step.into())
    }

    fn reset(&self) -> Result<(), Fault> {
        Ok(())
    }
}

struct OneThread {
    count: Cell<u64>,
}

impl Counter for OneThread {
    fn next(&self, step: u64) -> Result<u64, Fault> {
        self.count.set(self.count.get() + step);
        Ok(self.count.get())
    }

    fn reset(&self) -> Result<(), Fault> {
        self.count.set(0);
        Ok(())
    }
}

#[extension_sdk::interface]
pub trait Waiter {
    async fn wait(&self) -> Result<(), Fault>;
}

struct KeepsWhatIsNotSend;

impl Waiter for KeepsWhatIsNotSend {
    async fn wait(&self) -> Result<(), Fault> {
        let kept = Rc::new(1);
        std::future::ready(()).await;
        drop(kept);
        Ok(())
    }
}

fn main() {}
