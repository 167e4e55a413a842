//! The C functions of an extension that is loaded into its host's process. Here pointers become values, and
//! whatever panics on this side of the host ends.
//!
//! An instance is an `Arc<Instance>` as a pointer: made by `start`, given up by `stop`, borrowed by the rest.

#![expect(unsafe_code, reason = "the functions of a C table take pointers")]

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use extension_abi::{Bytes, Call, Host, MAGIC, OK, PANICKED, REFUSED, Sink, Table, VERSION};
use ipc_protocol::{Fault, FaultCode};

use super::host::HostRef;
use super::{Given, Instance};
use crate::definition::Extension;
use crate::service;

/// The table of the extension `T`: what [`crate::export!`] exports beside `main`.
#[doc(hidden)]
#[must_use]
pub const fn table<T: Extension>(name: &'static str, version: &'static str) -> Table {
    assert!(size_of::<Table>() <= u32::MAX as usize, "the size of a table fits");
    Table {
        magic: MAGIC,
        version: VERSION,
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        size: size_of::<Table>() as u32,
        name: Bytes::of(name.as_bytes()),
        extension_version: Bytes::of(version.as_bytes()),
        describe: describe::<T>,
        start: start::<T>,
        call,
        cancel,
        drain,
        stop,
    }
}

/// Runs one function of the table; what unwinds out of it becomes a status.
fn caught(run: impl FnOnce() -> u32) -> u32 {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        // It may panic again while it is dropped.
        std::mem::forget(payload);
        PANICKED
    })
}

fn append(sink: Sink, bytes: &[u8]) {
    // SAFETY: the sink is the host's and valid until the function returns that was given it, which waits for this.
    unsafe { (sink.append)(sink.data, Bytes::of(bytes)) };
}

// SAFETY: (of these functions) the host keeps the rules of `extension_abi::Table`.
unsafe extern "C" fn describe<T: Extension>(out: Sink) -> u32 {
    caught(|| {
        let definition = T::definition();
        let described = service::method_table(&definition).and_then(|_| {
            serde_json::to_vec(&definition.describe())
                .map_err(|error| Fault::new(FaultCode::Failed, error.to_string()))
        });
        match described {
            Ok(document) => {
                append(out, &document);
                OK
            }
            Err(fault) => {
                append(out, fault.message.as_bytes());
                REFUSED
            }
        }
    })
}

// SAFETY: as of `describe`.
unsafe extern "C" fn start<T: Extension>(
    host: *const Host,
    config: Bytes,
    instance: *mut *mut c_void,
    fault: Sink,
) -> u32 {
    caught(|| {
        // SAFETY: the host lent it for the time of this function.
        let config = unsafe { config.read() };
        // SAFETY: it is what the host gives to `start`.
        let host = unsafe { HostRef::new(host) };
        let no_host = || Fault::new(FaultCode::ProtocolViolation, "the host gave no table of its own");
        match host.ok_or_else(no_host).and_then(|host| Instance::start(T::definition(), config, host)) {
            Ok(started) => {
                let started = Arc::into_raw(started).cast::<c_void>().cast_mut();
                // SAFETY: the host gives room for one word, and waits for this function.
                unsafe { instance.write(started) };
                OK
            }
            Err(refused) => {
                let mut body = Vec::new();
                // A struct of numbers and strings cannot fail to be encoded.
                let _ = ipc_transport::payload::encode_into(&refused, &mut body);
                append(fault, &body);
                REFUSED
            }
        }
    })
}

/// Borrows the instance that `pointer` names.
///
/// # Safety
///
/// `start` put it out, and `stop` was not given it yet.
// SAFETY: as its documentation says.
unsafe fn borrow(pointer: *mut c_void) -> ManuallyDrop<Arc<Instance>> {
    // SAFETY: it is what `Arc::into_raw` gave in `start`, whose count is given up in `stop` alone; it is not here.
    ManuallyDrop::new(unsafe { Arc::from_raw(pointer.cast::<Instance>().cast_const()) })
}

// SAFETY: as of `describe`.
unsafe extern "C" fn call(instance: *mut c_void, call: *const Call) -> u32 {
    caught(|| {
        // SAFETY: the host names only an instance that was started and is not stopped.
        let instance = unsafe { borrow(instance) };
        // SAFETY: the host lent it for the time of this function.
        let call = unsafe { &*call };
        // SAFETY: the word lives as long as the process, and is written atomically only.
        let cancelled = unsafe { call.cancelled.as_ref() };
        // SAFETY: the host lent them for the time of this function.
        let arguments = unsafe { call.arguments.read() };
        instance.take(&Given {
            id: call.id,
            method: call.method as usize,
            left: Duration::from_nanos(call.left_ns),
            cancelled,
            codec: call.codec,
            arguments,
        });
        OK
    })
}

// SAFETY: as of `describe`.
unsafe extern "C" fn cancel(instance: *mut c_void, call: u64) -> u32 {
    caught(|| {
        // SAFETY: the host names only an instance that was started and is not stopped.
        unsafe { borrow(instance) }.cancel(call);
        OK
    })
}

// SAFETY: as of `describe`.
unsafe extern "C" fn drain(instance: *mut c_void) -> u32 {
    caught(|| {
        // SAFETY: as in `cancel`.
        unsafe { borrow(instance) }.drain();
        OK
    })
}

// SAFETY: as of `describe`.
unsafe extern "C" fn stop(instance: *mut c_void) -> u32 {
    caught(|| {
        // SAFETY: as in `cancel`; the host names it no more after this, so that the count is given up once.
        let instance = ManuallyDrop::into_inner(unsafe { borrow(instance) });
        instance.stop();
        // The author's value is dropped here, or by the last thread that is in a handler of it.
        service::as_guest(|| drop(instance));
        OK
    })
}
