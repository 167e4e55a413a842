//! The tables, field by field: who gives what, and how long it lives. The rules of all of them are in the crate's root.

#![expect(
    unsafe_code,
    reason = "C tables consist of pointers, and each side must read what the other one lends"
)]

use core::ffi::{CStr, c_void};
use core::sync::atomic::AtomicU64;

/// Name of the static [`Table`] that a library exports.
pub const SYMBOL: &CStr = c"symphony_extension_v1";

/// What a [`Table`] begins with: `symphony`, in the byte order of the machine.
pub const MAGIC: u64 = u64::from_be_bytes(*b"symphony");

/// The version of these tables. Another one is another symbol, so that a library may have both.
pub const VERSION: u32 = 1;

/// Status of [`Table::start`] and [`Table::describe`]: done.
pub const OK: u32 = 0;

/// Status of [`Table::start`]: the extension cannot start; the sink has its fault. Of [`Table::describe`]: it has
/// no description; the sink has the reason as text.
pub const REFUSED: u32 = 1;

/// Status of any function: it panicked outside of the author's code and caught that. A call is then neither
/// completed nor will it be.
pub const PANICKED: u32 = 2;

/// Status of [`Host::complete`]: the body is the result.
pub const RESULT: u32 = 0;

/// Status of [`Host::complete`]: the body is a fault, as MessagePack.
pub const FAULT: u32 = 1;

/// Bytes that are lent for the time of one call of a function.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// The first one. Anything but null, where `length` is 0.
    pub data: *const u8,
    /// How many.
    pub length: usize,
}

impl Bytes {
    /// Lends `bytes`.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }

    /// The bytes; none, where null was given against the rules.
    ///
    /// # Safety
    ///
    /// They were lent by the other side, as [`Bytes`] says, and `'a` ends before the function returns that was
    /// given them.
    #[must_use]
    // SAFETY: as its documentation says.
    pub const unsafe fn read<'a>(self) -> &'a [u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: whoever lent them says that `length` bytes can be read there and do not change until the function
        // returns, which `'a` does not outlive.
        unsafe { core::slice::from_raw_parts(self.data, self.length) }
    }
}

/// Takes bytes, in as many pieces as are given.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sink {
    /// Whose sink. Belongs to whoever made it; valid until the function returns that was given the sink.
    pub data: *mut c_void,
    /// Copies the bytes behind those that it has.
    // SAFETY: `data` is the sink's own; the bytes are lent until it returns.
    pub append: unsafe extern "C" fn(data: *mut c_void, bytes: Bytes),
}

/// One call, valid until [`Table::call`] returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Bytes of this struct, as the host knows it.
    pub size: u32,
    /// Index of the method: its place among the methods of all interfaces of the description, in their order.
    pub method: u32,
    /// The call's name, for [`Host::complete`]: never 0, and not used again by this host.
    pub id: u64,
    /// Nanoseconds until the caller stops waiting, from when [`Table::call`] is called.
    pub left_ns: u64,
    /// While it holds the call's `id`, the call is cancelled: its caller is gone, or its deadline passed. The host
    /// writes it, the library reads it, atomically both. Lives as long as the process; names other calls later.
    pub cancelled: *const AtomicU64,
    /// How the arguments are encoded: a codec of the wire protocol, by its number there.
    pub codec: u32,
    /// Zero.
    pub reserved: u32,
    /// The arguments, lent until [`Table::call`] returns: copied by whoever needs them longer.
    pub arguments: Bytes,
}

/// What the host gives to a library. It lives as long as the process, and so does what `data` points to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Bytes of this struct, as the host knows it.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// The host's own, to be given back with each call of the functions below.
    pub data: *const c_void,
    /// The outcome of a call: [`RESULT`] or [`FAULT`], the codec's number, and the body, which is copied. Once for
    /// each call. The host ignores a second one, and one whose caller no longer wants it. May be called before
    /// [`Table::call`] returns.
    // SAFETY: `data` is the host's own; the body is lent until it returns.
    pub complete: unsafe extern "C" fn(data: *const c_void, call: u64, status: u32, codec: u32, body: Bytes),
    /// How far a call is: a progress message of the wire protocol, as MessagePack. Copied, or dropped where it
    /// comes too fast.
    // SAFETY: as of `complete`.
    pub progress: unsafe extern "C" fn(data: *const c_void, call: u64, body: Bytes),
    /// A log record: level (1 error to 5 trace), target and message in UTF-8. Copied, or dropped where records come
    /// too fast. May also be called after the instance was stopped.
    // SAFETY: as of `complete`.
    pub log: unsafe extern "C" fn(data: *const c_void, level: u32, target: Bytes, message: Bytes),
}

/// What a library exports under [`SYMBOL`]. Static: it lives, as all that it points to, as long as the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of this struct, as the library knows it.
    pub size: u32,
    /// The extension's name in UTF-8; static.
    pub name: Bytes,
    /// Its version in UTF-8; static.
    pub extension_version: Bytes,
    /// Writes the JSON document of `--describe`. [`OK`], [`REFUSED`] or [`PANICKED`].
    // SAFETY: the sink is valid until it returns.
    pub describe: unsafe extern "C" fn(out: Sink) -> u32,
    /// Starts the extension with its configuration, a MessagePack map or nothing, and puts the instance into
    /// `instance`, an opaque word that belongs to the library. [`OK`]; [`REFUSED`], with the fault as MessagePack in
    /// `fault`; or [`PANICKED`]. May take its time.
    // SAFETY: `host` lives as long as the process; the rest is valid until it returns.
    pub start: unsafe extern "C" fn(
        host: *const Host,
        config: Bytes,
        instance: *mut *mut c_void,
        fault: Sink,
    ) -> u32,
    /// Takes a call on: completes it before it returns, or from another thread later. It must return soon, for it
    /// is called on its caller's thread. [`OK`], or [`PANICKED`].
    // SAFETY: the instance is started and not stopped; the call is valid until it returns.
    pub call: unsafe extern "C" fn(instance: *mut c_void, call: *const Call) -> u32,
    /// Nobody waits for this call any longer; it is still to be completed. [`OK`], also where the call is over, or
    /// [`PANICKED`].
    // SAFETY: the instance is started and not stopped.
    pub cancel: unsafe extern "C" fn(instance: *mut c_void, call: u64) -> u32,
    /// No more calls will come. [`OK`] or [`PANICKED`].
    // SAFETY: as of `cancel`.
    pub drain: unsafe extern "C" fn(instance: *mut c_void) -> u32,
    /// The host names the instance no more. What still runs may complete later: nobody waits for it. [`OK`] or
    /// [`PANICKED`]. May take its time.
    // SAFETY: as of `cancel`, and nobody names the instance any more.
    pub stop: unsafe extern "C" fn(instance: *mut c_void) -> u32,
}

// SAFETY: a table is constant, and what it points to is static and constant, too. Its functions may be called from
// any thread.
unsafe impl Sync for Table {}

// SAFETY: as above.
unsafe impl Send for Table {}

// SAFETY: the host's functions may be called from any thread, and `data` is only ever given back to them.
unsafe impl Sync for Host {}

// SAFETY: as above.
unsafe impl Send for Host {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_of_version_1_stay_as_they_are() {
        const POINTER: usize = size_of::<usize>();
        // Appending a field makes a struct longer: that row is then added, and no other changes.
        assert_eq!(core::mem::offset_of!(Table, magic), 0);
        assert_eq!(core::mem::offset_of!(Table, version), 8);
        assert_eq!(core::mem::offset_of!(Table, size), 12);
        let of_table = [
            core::mem::offset_of!(Table, name),
            core::mem::offset_of!(Table, extension_version),
            core::mem::offset_of!(Table, describe),
            core::mem::offset_of!(Table, start),
            core::mem::offset_of!(Table, call),
            core::mem::offset_of!(Table, cancel),
            core::mem::offset_of!(Table, drain),
            core::mem::offset_of!(Table, stop),
            size_of::<Table>(),
        ];
        assert_eq!(of_table, [0, 2, 4, 5, 6, 7, 8, 9, 10].map(|words| 16 + words * POINTER));
        let of_host = [
            core::mem::offset_of!(Host, data),
            core::mem::offset_of!(Host, complete),
            core::mem::offset_of!(Host, progress),
            core::mem::offset_of!(Host, log),
            size_of::<Host>(),
        ];
        assert_eq!(of_host, [0, 1, 2, 3, 4].map(|words| 8 + words * POINTER));
        let of_call = [
            core::mem::offset_of!(Call, method),
            core::mem::offset_of!(Call, id),
            core::mem::offset_of!(Call, left_ns),
            core::mem::offset_of!(Call, cancelled),
        ];
        assert_eq!(of_call, [4, 8, 16, 24]);
        let behind =
            [core::mem::offset_of!(Call, codec), core::mem::offset_of!(Call, arguments), size_of::<Call>()];
        assert_eq!(behind, [24 + POINTER, 32 + POINTER, 32 + 3 * POINTER]);
    }

    #[test]
    fn null_is_no_bytes() {
        let nothing = Bytes { data: core::ptr::null(), length: 7 };
        // SAFETY: null is what is asked about.
        let nothing = unsafe { nothing.read() };
        assert!(nothing.is_empty());
        let lent = Bytes::of(b"abc");
        // SAFETY: they are static.
        let lent = unsafe { lent.read() };
        assert_eq!(lent, b"abc");
    }
}
