//! What a library says to the host that loads it, and what the host gives it: two tables of C functions.
//!
//! Layouts, numbers and rules only; no dependencies, not even the standard library. This crate must not know how
//! a library is loaded, nor how its calls are run. What is said through the tables is what a process says over
//! its channel: the same description, faults and encodings.
//!
//! ```text
//! host                                              library
//!   | finds SYMBOL, checks magic, version, size        |
//!   | start(Host, config) ---------------------------->|  an instance, or a fault
//!   | call(instance, Call) --------------------------->|  returns soon; runs it here or on a thread of its own
//!   |<-------------------------- complete(call, ...) --|  once for each call, from any thread, also from within
//!   | cancel(instance, id), drain(instance) ---------->|
//!   | stop(instance) --------------------------------->|  the instance is not named any more
//! ```
//!
//! # Rules
//!
//! - **Append-only.** Fields are added at the end and nothing else changes; `size` says how many there are. What
//!   can be said only otherwise gets another [`VERSION`], and with it another [`SYMBOL`].
//! - **Nobody unwinds.** Each function catches what panics inside of it. One that unwinds all the same aborts the
//!   process: `extern "C"` sees to it.
//! - **Bytes are lent.** A [`Bytes`] is read until the function that was given it returns, and by nobody later.
//!   Nothing that one side allocated is freed by the other.
//! - **A library is never unloaded**, and what the host gives lives as long as the process: a thread of the
//!   library that comes late writes to nobody, and not into freed memory.
//! - **No function blocks** but `start` and `stop`, which the host calls on threads of their own.
//! - **All functions may be called from several threads at once**, but for `start` and `stop` with each other.

#![no_std]

mod tables;

pub use tables::{
    Bytes, Call, FAULT, Host, MAGIC, OK, PANICKED, REFUSED, RESULT, SYMBOL, Sink, Table, VERSION,
};
