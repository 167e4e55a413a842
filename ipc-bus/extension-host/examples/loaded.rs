//! An extension as a library alone, whose methods show what a host must bear of one in its own process. The tests of
//! the in-process tier load it.

use std::cell::RefCell;

use extension_sdk::{Context, Fault, FaultCode, Setup};

/// The manifest's `[config]` table.
#[extension_sdk::message]
struct Settings {
    /// What `greet` says.
    greeting: String,
}

struct Guest {
    greeting: String,
}

/// What a library can do to its host.
#[extension_sdk::interface]
pub trait Loaded {
    /// Greets as it was configured.
    #[method(idempotent)]
    fn greet(&self) -> Result<String, Fault>;
    /// Logs `text`, with a field.
    fn log(&self, text: String) -> Result<(), Fault>;
    /// Panics.
    fn panic(&self, text: String) -> Result<(), Fault>;
    /// Never returns.
    fn stick(&self) -> Result<(), Fault>;
    /// Leaves something to the thread that runs it, which drops it when it ends.
    fn leave(&self, file: String) -> Result<(), Fault>;
    /// Asks for another extension.
    fn ask(&self, cx: &Context) -> Result<(), Fault>;
    /// Where the library's code lies: another number for each time that it was loaded.
    fn place(&self) -> Result<u64, Fault>;
}

/// Writes its file when it is dropped.
struct Left(String);

impl Drop for Left {
    fn drop(&mut self) {
        // The test waits for the file.
        let _ = std::fs::write(&self.0, "dropped");
    }
}

thread_local! {
    static LEFT: RefCell<Vec<Left>> = const { RefCell::new(Vec::new()) };
}

impl Guest {
    fn start(setup: &Setup<Settings>) -> Result<Self, Fault> {
        let greeting = setup.config().greeting.clone();
        if greeting.is_empty() {
            return Err(Fault::new(FaultCode::InvalidArgument, "there is nothing to say"));
        }
        Ok(Self { greeting })
    }
}

impl Loaded for Guest {
    fn greet(&self) -> Result<String, Fault> {
        Ok(self.greeting.clone())
    }

    fn log(&self, text: String) -> Result<(), Fault> {
        extension_sdk::tracing::info!(answer = 42, "{text}");
        Ok(())
    }

    fn panic(&self, text: String) -> Result<(), Fault> {
        panic!("{text}");
    }

    fn stick(&self) -> Result<(), Fault> {
        loop {
            std::thread::park();
        }
    }

    fn leave(&self, file: String) -> Result<(), Fault> {
        LEFT.with_borrow_mut(|left| left.push(Left(file)));
        Ok(())
    }

    fn ask(&self, cx: &Context) -> Result<(), Fault> {
        cx.extension("other").map(drop)
    }

    fn place(&self) -> Result<u64, Fault> {
        Ok(std::ptr::from_ref(&LEFT).addr() as u64)
    }
}

extension_sdk::export!(Guest as Loaded, start = Guest::start);
