//! What the host gives, as safe functions. Nothing else of the library calls the host.

#![expect(unsafe_code, reason = "the host's functions take pointers")]

use extension_abi::{Bytes, FAULT, Host, RESULT};
use ipc_protocol::control::{LogRecord, Progress};
use ipc_protocol::{Codec, Fault};
use parking_lot::Mutex;

use crate::logging::Records;

/// The host, for as long as the process lives.
#[derive(Clone, Copy)]
pub(super) struct HostRef(&'static Host);

/// The host of the last start. Records have no instance: they come from any thread of the library, at any time.
static LAST: Mutex<Option<HostRef>> = Mutex::new(None);

impl HostRef {
    /// # Safety
    ///
    /// `host` came from [`extension_abi::Table::start`]: it lives as long as the process, and so does what it
    /// points to.
    // SAFETY: as its documentation says.
    pub(super) unsafe fn new(host: *const Host) -> Option<Self> {
        // SAFETY: the caller says that it lives as long as the process; nobody writes to it.
        unsafe { host.as_ref() }.map(Self)
    }

    pub(super) fn remember(self) {
        *LAST.lock() = Some(self);
    }

    pub(super) fn result(self, call: u64, body: &[u8]) {
        self.complete(call, RESULT, body);
    }

    pub(super) fn fault(self, call: u64, fault: &Fault) {
        let mut body = Vec::new();
        // A struct of numbers and strings cannot fail to be encoded; the host would say that the body is none.
        let _ = ipc_transport::payload::encode_into(fault, &mut body);
        self.complete(call, FAULT, &body);
    }

    fn complete(self, call: u64, status: u32, body: &[u8]) {
        let codec = u32::from(Codec::MessagePack.to_wire());
        // SAFETY: `data` is the host's own, and the bytes are lent until it returns, as the function asks.
        unsafe { (self.0.complete)(self.0.data, call, status, codec, Bytes::of(body)) };
    }

    pub(super) fn progress(self, call: u64, progress: &Progress) {
        let mut body = Vec::new();
        // As above.
        let _ = ipc_transport::payload::encode_into(progress, &mut body);
        // SAFETY: as in `complete`.
        unsafe { (self.0.progress)(self.0.data, call, Bytes::of(&body)) };
    }
}

/// Passes records on to the host.
pub(super) struct Log;

impl Records for Log {
    fn log(&self, record: &LogRecord) {
        let Some(HostRef(host)) = *LAST.lock() else { return };
        let (target, message) = (Bytes::of(record.target.as_bytes()), Bytes::of(record.message.as_bytes()));
        // SAFETY: as in `HostRef::complete`.
        unsafe { (host.log)(host.data, record.level.into(), target, message) };
    }
}
