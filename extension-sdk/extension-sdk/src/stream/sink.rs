//! The writing end of a stream.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use ipc_protocol::{Fault, FaultCode};

use super::Writer;
use crate::interface::Sendable;

/// Where the items of a [`Stream`](super::Stream) are written to.
///
/// End it with [`Self::end`] or [`Self::fail`]: one that is dropped before ends with a fault, so that no reader takes a
/// part for all.
///
/// # Concurrency
///
/// It may go to another thread, which is where it is written from most often.
pub struct Sink<T> {
    /// `None`: it has ended.
    writer: Option<Arc<dyn Writer>>,
    items: PhantomData<fn(T)>,
}

impl<T> fmt::Debug for Sink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl<T> Sink<T> {
    pub(super) fn new(writer: Arc<dyn Writer>) -> Self {
        Self { writer: Some(writer), items: PhantomData }
    }

    /// Whether nobody reads any longer: for one who waits for something before the next item.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.is_given_up())
    }

    /// Nothing follows, and all is well.
    pub fn end(mut self) {
        self.finish(Ok(()));
    }

    /// Nothing follows, because of `fault`.
    pub fn fail(mut self, fault: Fault) {
        self.finish(Err(fault));
    }

    fn finish(&mut self, how: Result<(), Fault>) {
        if let Some(writer) = self.writer.take() {
            writer.end(how);
        }
    }
}

impl<T: Sendable> Sink<T> {
    /// Sends one item. Waits while the reader does not take more.
    ///
    /// # Errors
    ///
    /// [`FaultCode::Cancelled`]: nobody reads any longer, or the host is gone: stop. [`FaultCode::TooLarge`]: the item is
    /// above 1 MiB: send it in parts, or make it an artifact. [`FaultCode::Busy`]: the method itself writes more than is kept until its answer is
    /// out; write from a thread of its own. [`FaultCode::Failed`]: the item's `Serialize` failed.
    pub fn send(&mut self, item: &T) -> Result<(), Fault> {
        let Some(writer) = &self.writer else { return Err(given_up()) };
        let mut bytes = Vec::new();
        ipc_transport::payload::encode_into(item, &mut bytes).map_err(|error| {
            Fault::new(FaultCode::Failed, format!("an item could not be encoded: {}", error.0))
        })?;
        writer.send(bytes)
    }
}

impl<T> Drop for Sink<T> {
    fn drop(&mut self) {
        let fault = if std::thread::panicking() {
            Fault::new(FaultCode::Panicked, "whoever wrote the stream panicked")
        } else {
            Fault::new(FaultCode::Failed, "the stream was given up before its end")
        };
        self.finish(Err(fault));
    }
}

pub(crate) fn given_up() -> Fault {
    Fault::new(FaultCode::Cancelled, "nobody reads the stream any longer")
}
