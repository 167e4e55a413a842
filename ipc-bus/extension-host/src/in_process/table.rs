//! A library's table as safe functions: each pointer that crosses is made or read here, and in `callbacks`.
//!
//! Whoever calls must keep the table's order: a started instance is named until it is stopped, and not after.
//! [`super::Shared`] does, by its books.

#![expect(unsafe_code, reason = "the functions of a C table take pointers")]

use std::ffi::c_void;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use extension_abi::{Bytes, Call, Host, MAGIC, OK, PANICKED, SYMBOL, Sink, Table, VERSION};
use ipc_protocol::describe::Description;
use ipc_protocol::{Codec, Fault};

use super::callbacks::append;

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It is no table.
    #[error("what it exports as `{}` begins with {found:#018x}, where a table begins with {MAGIC:#018x}", SYMBOL.to_string_lossy())]
    Magic {
        /// What it begins with.
        found: u64,
    },
    /// It is of another version.
    #[error(
        "its table has version {found}, where version {VERSION} is expected: build it with this version's extension-sdk"
    )]
    Version {
        /// The version that it has.
        found: u32,
    },
    /// It lacks what the version has.
    #[error("its table has {found} bytes, where version {VERSION} has at least {}: build it with this version's extension-sdk", size_of::<Table>())]
    Size {
        /// The bytes that it has.
        found: u32,
    },
    /// It does not say what it is.
    #[error("it does not describe itself: {reason}")]
    Description {
        /// Why.
        reason: String,
    },
    /// It is another extension.
    #[error("it is the extension `{found}`, where `{expected}` is expected")]
    Name {
        /// The name that it has.
        found: String,
        /// The one that the manifest has.
        expected: String,
    },
}

/// What a table of any version begins with.
#[repr(C)]
struct Head {
    magic: u64,
    version: u32,
    size: u32,
}

/// A table that was looked over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked(&'static Table);

/// An instance of a library, from its start to its stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instance(*mut c_void);

// SAFETY: it is an opaque word of the library's, whose functions may be called from any thread.
unsafe impl Send for Instance {}

// SAFETY: as above.
unsafe impl Sync for Instance {}

/// Looks a table's head over, field by field, before anything else of it is looked at.
///
/// # Safety
///
/// `table` is what a library exports under [`SYMBOL`]: a static that begins with magic, version and size, and is as
/// long as it says there, if the magic is right.
// SAFETY: as its documentation says.
pub(super) unsafe fn check(table: *const Table) -> Result<Checked, TableError> {
    // SAFETY: the caller says that at least the head is there, wherever it lies.
    let Head { magic, version, size } = unsafe { table.cast::<Head>().read_unaligned() };
    if magic != MAGIC || !table.is_aligned() {
        return Err(TableError::Magic { found: magic });
    }
    if version != VERSION {
        return Err(TableError::Version { found: version });
    }
    if (size as usize) < size_of::<Table>() {
        return Err(TableError::Size { found: size });
    }
    // SAFETY: it is aligned, as long as a table, and static; its functions are not null, or it is none by the rules
    // of this version, which it says it keeps.
    Ok(Checked(unsafe { &*table }))
}

fn sink(into: &mut Vec<u8>) -> Sink {
    Sink { data: (&raw mut *into).cast(), append }
}

/// How a start ended, if not with an instance.
#[derive(Debug)]
pub(super) enum Refusal {
    Fault(Fault),
    Panicked,
}

impl Checked {
    pub(super) fn of_static(table: &'static Table) -> Result<Self, TableError> {
        // SAFETY: a reference to a table is one, and static.
        unsafe { check(table) }
    }

    pub(super) fn name(self) -> String {
        // SAFETY: the table's texts are static.
        String::from_utf8_lossy(unsafe { self.0.name.read() }).into_owned()
    }

    pub(super) fn version(self) -> String {
        // SAFETY: as above.
        String::from_utf8_lossy(unsafe { self.0.extension_version.read() }).into_owned()
    }

    pub(super) fn describe(self) -> Result<Description, TableError> {
        let mut document = Vec::new();
        // SAFETY: the sink is valid until the function returns.
        let status = unsafe { (self.0.describe)(sink(&mut document)) };
        let wrong = |reason: String| TableError::Description { reason };
        match status {
            OK => serde_json::from_slice(&document).map_err(|error| wrong(error.to_string())),
            PANICKED => Err(wrong("it panicked".to_owned())),
            _ => Err(wrong(String::from_utf8_lossy(&document).into_owned())),
        }
    }

    /// Runs the extension's start. May take its time.
    pub(super) fn start(self, host: &'static Host, config: &[u8]) -> Result<Instance, Refusal> {
        let (mut instance, mut fault) = (std::ptr::null_mut(), Vec::new());
        // SAFETY: `host` is static, and so is what it points to; the rest is valid until the function returns.
        let status = unsafe { (self.0.start)(host, Bytes::of(config), &raw mut instance, sink(&mut fault)) };
        match status {
            OK => Ok(Instance(instance)),
            PANICKED => Err(Refusal::Panicked),
            _ => Err(Refusal::Fault(rmp_serde::from_slice(&fault).unwrap_or_else(|_| {
                Fault::new(ipc_protocol::FaultCode::Failed, "it refused to start and did not say why")
            }))),
        }
    }

    /// Hands a call over. Returns whether it was taken, and is completed or will be.
    pub(super) fn call(
        self,
        instance: Instance,
        id: u64,
        method: u32,
        left: Duration,
        cancelled: &'static AtomicU64,
        arguments: &[u8],
    ) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "it has some dozens of bytes")]
        let call = Call {
            size: size_of::<Call>() as u32,
            method,
            id,
            left_ns: u64::try_from(left.as_nanos()).unwrap_or(u64::MAX),
            cancelled,
            codec: Codec::MessagePack.to_wire().into(),
            reserved: 0,
            arguments: Bytes::of(arguments),
        };
        // SAFETY: the instance is started and not stopped; the call is valid until the function returns.
        let status = unsafe { (self.0.call)(instance.0, &raw const call) };
        status == OK
    }

    pub(super) fn cancel(self, instance: Instance, id: u64) {
        // SAFETY: the instance is started and not stopped. A status says only that it panicked: nothing is lost.
        let _ = unsafe { (self.0.cancel)(instance.0, id) };
    }

    pub(super) fn drain(self, instance: Instance) {
        // SAFETY: as above.
        let _ = unsafe { (self.0.drain)(instance.0) };
    }

    /// Stops the instance, which must not be named any more. May take its time.
    pub(super) fn stop(self, instance: Instance) {
        // SAFETY: the instance is started, and the caller names it no more.
        let _ = unsafe { (self.0.stop)(instance.0) };
    }
}
