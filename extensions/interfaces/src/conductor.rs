//! What a conductor that stays up can be asked for, over its listening socket.

use extension_sdk::stream::Stream;
use extension_sdk::{Blob, Context, Fault};

/// A conductor: `conductor serve`.
#[extension_sdk::interface]
pub trait Conductor {
    /// What is hosted, and how each is doing, by name.
    #[method(idempotent)]
    fn extensions(&self) -> Result<Vec<ExtensionState>, Fault>;

    /// How one extension is doing, and how its instances ended, oldest first.
    #[method(idempotent)]
    fn why(&self, extension: String) -> Result<Explanation, Fault>;

    /// Calls a method of an extension, which is started if it is not running. `arguments`, the result and its items are
    /// MessagePack; the time that this call has is the time of that one.
    fn call(&self, cx: &Context, extension: String, method: String, arguments: Blob)
    -> Result<Called, Fault>;

    /// What happens to extensions: the last that is kept if `past`, and from then on as it happens.
    #[method(idempotent)]
    fn events(&self, cx: &Context, #[serde(default)] past: bool) -> Result<Stream<Happening>, Fault>;

    /// The last lines of extensions, or of the one that is named, in the order in which they were said; with `follow`, what
    /// they say from then on as well.
    #[method(idempotent)]
    fn logs(
        &self,
        cx: &Context,
        #[serde(default)] extension: Option<String>,
        #[serde(default)] follow: bool,
    ) -> Result<Stream<LoggedLine>, Fault>;

    /// Ends the instance of an extension in order. The next call starts another.
    #[method(idempotent)]
    fn stop(&self, extension: String) -> Result<(), Fault>;

    /// Forgets the failures of an extension, so that one that is broken is started again.
    #[method(idempotent)]
    fn reset(&self, extension: String) -> Result<(), Fault>;

    /// Ends the conductor in order, and every extension with it. It may be over before the answer arrives.
    #[method(idempotent)]
    fn shut_down(&self) -> Result<(), Fault>;
}

/// What a call has given.
#[extension_sdk::message]
#[derive(Debug)]
pub enum Called {
    /// A value. Streams in it are lists.
    Value(Blob),
    /// The result is a stream, and these are its items.
    Items(Stream<Blob>),
}

/// One extension.
#[extension_sdk::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionState {
    /// Its name.
    pub name: String,
    /// Its version, as its manifest has it.
    pub version: String,
    /// Where it runs: `process` or `in-process`.
    pub tier: String,
    /// `stopped`, `starting`, `ready`, `stopping`, `backoff`, `broken` or `closed`.
    pub state: String,
    /// The process of its instance, if it runs and the kernel tells.
    pub pid: Option<u32>,
    /// The how-manieth instance it is; 0 before the first.
    pub generation: u32,
    /// Starts that followed a failure.
    pub restarts: u64,
    /// Calls sent to it.
    pub calls: u64,
    /// Answers that it owes.
    pub in_flight: u32,
    /// Streams that it writes.
    #[serde(default)]
    pub streams: u32,
    /// Who holds its limits: `none`, `control groups, version N` or `sampling`.
    #[serde(default)]
    pub limits: String,
    /// Bytes of memory that its instance uses, if it runs in a process of its own.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Processes and threads of it.
    #[serde(default)]
    pub tasks: u32,
    /// Milliseconds of processor time that it has used.
    #[serde(default)]
    pub processor_ms: u64,
    /// How its last instance ended, if one has.
    pub last_end: Option<String>,
}

/// Something that happened to an extension.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Its number: without holes, but for those that `missed` counts.
    pub number: u64,
    /// Milliseconds since the conductor began.
    pub at_ms: u64,
    /// The extension; empty where only `missed` says something.
    pub extension: String,
    /// Which instance of it.
    pub generation: u32,
    /// `created`, `ready`, `died`, `restarting`, `broken`, `stopped` or `retried`.
    pub kind: String,
    /// What happened, as a clause.
    pub text: String,
    /// How many are gone that were to come before this one: its reader was too slow.
    pub missed: u64,
}

/// A line that an extension said.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedLine {
    /// Milliseconds since the conductor began.
    pub at_ms: u64,
    /// The extension; empty where only `dropped` says something.
    pub extension: String,
    /// Which instance of it.
    pub generation: u32,
    /// `stdout`, `stderr`, or the level of a record: `error`, `warn`, `info`, `debug`, `trace`.
    pub origin: String,
    /// What was said.
    pub text: String,
    /// Lines before it that are gone: it said too much, or its reader was too slow.
    pub dropped: u64,
}

/// How an extension is doing, and why.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// How it is doing.
    pub extension: ExtensionState,
    /// Why it is not started any more, if it is not.
    pub broken: Option<String>,
    /// How its last instances ended, oldest first.
    pub ends: Vec<PastEnd>,
}

/// The end of one instance.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEnd {
    /// The how-manieth it was.
    pub generation: u32,
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// How it ended.
    pub report: String,
}
