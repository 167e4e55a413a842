//! An extension's value with its method table: one object that answers calls, whatever carries them.
//!
//! Here panics end. This module must not know frames or threads.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use ipc_protocol::handshake::MethodEntry;
use ipc_protocol::limits::{METHODS_MAX, NAME_BYTES_MAX};
use ipc_protocol::{Codec, Fault, FaultCode};

use crate::context::Context;
use crate::definition::Definition;
use crate::interface::{Run, RunFast};

/// What is known of a method without running it.
#[derive(Clone, Debug)]
pub(crate) struct MethodTraits {
    pub(crate) entry: MethodEntry,
    pub(crate) is_async: bool,
    /// Whether it takes the fast codec.
    pub(crate) is_fast: bool,
}

/// The method table of a definition, in the order of the handshake.
///
/// # Errors
///
/// [`FaultCode::Failed`]: two methods of the same name, or more than the wire can name. The author's fault.
pub(crate) fn method_table<T>(definition: &Definition<T>) -> Result<Vec<MethodTraits>, Fault> {
    let mut table: Vec<MethodTraits> = Vec::new();
    for interface in &definition.interfaces {
        for method in &interface.methods {
            if table.iter().any(|other| other.entry.name == method.name) {
                return Err(Fault::new(
                    FaultCode::Failed,
                    format!(
                        "two interfaces of extension `{}` have a method `{}`; method names are unique in an \
                         extension, so rename one of them",
                        definition.name, method.name
                    ),
                ));
            }
            debug_assert!(method.name.len() <= NAME_BYTES_MAX, "the macro checks names");
            let schemas = (method.schemas)();
            let mut entry = MethodEntry::new(method.name, schemas.hash());
            entry.streams = schemas.result_has_streams();
            entry.idempotent = method.is_idempotent;
            entry.pure = method.is_pure;
            table.push(MethodTraits { entry, is_async: method.is_async, is_fast: method.fast.is_some() });
        }
    }
    if table.len() > METHODS_MAX {
        return Err(Fault::new(
            FaultCode::Failed,
            format!("extension `{}` has more than {METHODS_MAX} methods", definition.name),
        ));
    }
    Ok(table)
}

/// A started extension.
pub(crate) trait Service: Send + Sync {
    /// Runs method number `method` of the table and appends the encoded result to `out`, which is left as it
    /// was where the call failed.
    fn run(&self, method: usize, cx: &Context, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault>;

    /// As [`Self::run`], in the fast codec, which [`MethodTraits::is_fast`] says that the method takes. Returns
    /// the result's codec: another if it would be longer than `bytes_max` in this one, or does not fit it.
    fn run_fast(
        &self,
        method: usize,
        cx: &Context,
        body: &[u8],
        bytes_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<Codec, Fault> {
        let _ = (cx, body, bytes_max, out);
        Err(unknown_method(method))
    }
}

struct Started<T> {
    extension: T,
    methods: Vec<(Run<T>, Option<RunFast<T>>)>,
}

impl<T: Send + Sync> Service for Started<T> {
    fn run(&self, method: usize, cx: &Context, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        whole(out, |out| match self.methods.get(method) {
            Some((run, _)) => caught(|| run(&self.extension, cx, body, out)),
            None => Err(unknown_method(method)),
        })
    }

    fn run_fast(
        &self,
        method: usize,
        cx: &Context,
        body: &[u8],
        bytes_max: u64,
        out: &mut Vec<u8>,
    ) -> Result<Codec, Fault> {
        whole(out, |out| match self.methods.get(method) {
            Some((_, Some(run))) => caught(|| run(&self.extension, cx, body, bytes_max, out)),
            Some((_, None)) | None => Err(unknown_method(method)),
        })
    }
}

/// Leaves `out` as it was where the call fails.
///
/// A handler that panics may leave its own value in any state; it is the author's to make that good. Nothing of
/// ours is touched inside.
fn whole<R>(out: &mut Vec<u8>, run: impl FnOnce(&mut Vec<u8>) -> Result<R, Fault>) -> Result<R, Fault> {
    let before = out.len();
    let result = run(out);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

pub(crate) fn unknown_method(method: usize) -> Fault {
    Fault::new(FaultCode::UnknownMethod, format!("the extension's table has no method number {method}"))
}

/// Runs an extension's start.
///
/// # Errors
///
/// The start's own fault, that of a wrong configuration, or [`FaultCode::Panicked`].
pub(crate) fn start<T: Send + Sync + 'static>(
    definition: Definition<T>,
    config: &[u8],
) -> Result<Box<dyn Service>, Fault> {
    keep_panic_locations();
    let methods = definition
        .interfaces
        .iter()
        .flat_map(|interface| &interface.methods)
        .map(|m| (m.run, m.fast))
        .collect();
    let start = definition.start.run;
    let extension = caught(|| start(config))?;
    Ok(Box::new(Started { extension, methods }))
}

thread_local! {
    /// Where this thread panicked last.
    static PANIC_LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this thread is a guest in another's process, whose stderr is not for what the author does.
    static IS_GUEST: Cell<bool> = const { Cell::new(false) };
}

/// Runs `run` without a word on stderr where it panics: in a host's own process the fault says it all.
pub(crate) fn as_guest<R>(run: impl FnOnce() -> R) -> R {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            IS_GUEST.set(self.0);
        }
    }
    let _leave = Leave(IS_GUEST.replace(true));
    run()
}

/// The place of a panic is known to the hook alone; the hook that was there still runs.
fn keep_panic_locations() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string);
            PANIC_LOCATION.with(|kept| {
                if let Ok(mut kept) = kept.try_borrow_mut() {
                    *kept = location;
                }
            });
            if !IS_GUEST.get() {
                previous(info);
            }
        }));
    });
}

/// Runs the author's code; its panic becomes a fault.
fn caught<R>(run: impl FnOnce() -> Result<R, Fault>) -> Result<R, Fault> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(panic_fault(payload)))
}

fn panic_fault(payload: Box<dyn Any + Send>) -> Fault {
    let message = match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&str>() {
            Ok(text) => (*text).to_owned(),
            Err(payload) => {
                // It is the author's value, and its `drop` may panic in its turn, outside of any catch. What
                // panics with something else than text is rare enough to be leaked.
                std::mem::forget(payload);
                "a value that is not text".to_owned()
            }
        },
    };
    let location = PANIC_LOCATION.with(RefCell::take);
    let place = location.map(|location| format!(" at {location}")).unwrap_or_default();
    Fault::new(FaultCode::Panicked, format!("the method panicked{place}: {message}"))
}
