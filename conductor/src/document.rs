//! The result of a run as a document: what `conductor run --json` prints, and what people's summary is
//! made from.
//!
//! Fields are only ever added. This file must not know how a run is executed.

use std::path::PathBuf;

use serde::Serialize;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct RunDocument {
    /// The run's name; its artifacts are `RUN/NAME`.
    pub run: String,
    /// How it ended: `succeeded`, `failed` or `cancelled`.
    pub state: RunState,
    /// Every step, in the order of the melody.
    pub steps: Vec<StepReport>,
    /// The artifacts of its `output` lines, by name.
    pub outputs: std::collections::BTreeMap<String, OutputReport>,
    /// Every extension that was used.
    pub extensions: Vec<ExtensionReport>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Every step succeeded or was skipped.
    Succeeded,
    /// A step failed.
    Failed,
    /// It was cancelled from outside.
    Cancelled,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The step's id in the melody.
    pub id: String,
    /// Its state: `succeeded`, `failed`, `skipped`, `cancelled`, `blocked` ...
    pub state: String,
    /// Attempts made, retries by the host included; of a fan-out, of all its items.
    pub attempts: u64,
    /// From its first attempt's start to its end.
    pub duration_ms: f64,
    /// Why attempts failed, one entry each, oldest first; at most [`CAUSES_MAX`].
    pub causes: Vec<String>,
    /// Items of a fan-out; absent for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// Why it was skipped, blocked or cancelled; absent for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// LIMIT: causes kept per step.
pub const CAUSES_MAX: usize = 64;

/// One stored output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutputReport {
    /// BLAKE3 of the bytes, as hexadecimal digits.
    pub digest: String,
    /// How many bytes.
    pub bytes: u64,
    /// The file that holds them; as text, bytes that are not UTF-8 as `\xNN`.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
}

/// One extension that the run used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExtensionReport {
    /// Its name.
    pub name: String,
    /// How often an instance of it was started.
    pub starts: u64,
    /// How many of these starts replaced one that had ended.
    pub restarts: u64,
    /// Why instances ended, oldest first.
    pub causes: Vec<String>,
}

/// Why a run did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The whole chain of clauses.
    pub message: String,
    /// The step, if one is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The item of its fan-out, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<u64>,
    /// That item itself, as JSON that may be shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_value: Option<String>,
    /// The extension, if one was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension: Option<String>,
    /// Whose fault it is: `extension`, `host`, `transport`, `melody`, `conductor`, `caller`, `environment` (this
    /// machine: a full disk, a program that is missing).
    pub origin: String,
    /// Whether running again may succeed: `never`, `now`, `after 500 ms`.
    pub retry: String,
    /// What to do.
    pub help: String,
}

impl ErrorReport {
    /// A signal came before the end; nobody is to blame, and nothing has to be corrected.
    #[must_use]
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            step: None,
            item: None,
            item_value: None,
            extension: None,
            origin: "caller".to_owned(),
            retry: "now".to_owned(),
            help: "run again".to_owned(),
        }
    }
}

/// A path need not be UTF-8, and a document must be written whole all the same.
fn as_text<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    use std::os::unix::ffi::OsStrExt as _;
    serializer.serialize_str(&crate::melody::json::escaped(path.as_os_str().as_bytes()))
}
