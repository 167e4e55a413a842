//! The model of a melody as it is written: what its keys mean, before any string is looked into.
//!
//! This file must not know TOML's grammar, extensions or templates.

use std::ops::Range;
use std::time::Duration;

use ipc_protocol::FaultCode;
use ipc_transport::{CallError, Cause};
use toml::Spanned;

use super::input::InputValue;

/// A melody as it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) on_failure: OnFailure,
    pub(super) inputs: Vec<InputDeclaration>,
    pub(super) models: Vec<ModelDeclaration>,
    pub(super) steps: Vec<StepText>,
}

/// A step as it is written.
#[derive(Clone, Debug)]
pub(super) struct StepText {
    pub(super) id: Spanned<String>,
    /// Extension and method, where they could be read, each with its place.
    pub(super) call: Option<(Spanned<String>, Spanned<String>)>,
    pub(super) with: Vec<(Spanned<String>, Argument)>,
    pub(super) with_span: Range<usize>,
    pub(super) for_each: Option<Spanned<String>>,
    pub(super) when: Option<Spanned<String>>,
    pub(super) claims: Vec<(Range<usize>, Claim)>,
    pub(super) leases: Vec<(Range<usize>, Lease)>,
    pub(super) priority: Option<u8>,
    pub(super) retry: Option<RetryRule>,
    pub(super) timeout: Option<Duration>,
    pub(super) artifact: Option<String>,
    pub(super) after: Vec<Spanned<String>>,
}

/// A value of `with`.
#[derive(Clone, Debug)]
pub(super) struct Argument {
    pub(super) span: Range<usize>,
    pub(super) value: ArgumentValue,
}

/// See [`Argument`].
#[derive(Clone, Debug)]
pub(super) enum ArgumentValue {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    /// JSON has it, a melody does not.
    Nil,
    Array(Vec<Argument>),
    Table(Vec<(Spanned<String>, Argument)>),
}

/// What a run does when a step fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Cancels what runs and starts nothing more.
    #[default]
    FailFast,
    /// Goes on with whatever does not depend on the failed step.
    CarryOn,
}

/// The type of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputType {
    /// Text.
    String,
    /// A path, made absolute; need not be UTF-8.
    Path,
    /// `true` or `false`.
    Boolean,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Number,
}

impl InputType {
    pub(super) const ALL: [(&'static str, Self); 5] = [
        ("string", Self::String),
        ("path", Self::Path),
        ("boolean", Self::Boolean),
        ("integer", Self::Integer),
        ("number", Self::Number),
    ];

    /// The type's name in a melody.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, this)| *this == self).map_or("string", |(name, _)| name)
    }
}

/// An input that the melody declares.
#[derive(Clone, Debug)]
pub struct InputDeclaration {
    /// Its name.
    pub name: String,
    /// Its type.
    pub input_type: InputType,
    /// What it is when nobody gives it; without one it must be given.
    pub default: Option<InputValue>,
    /// What it is for.
    pub description: String,
}

/// A model that the melody itself declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDeclaration {
    /// Its name.
    pub name: String,
    /// Leases at the same time.
    pub capacity: u32,
}

/// An amount of a resource that a step needs while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The resource's name.
    pub resource: String,
    /// How much of it.
    pub amount: u64,
}

/// A model that a step leases while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The extension that declares it; `None`: the melody itself.
    pub extension: Option<String>,
    /// Its name.
    pub model: String,
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.extension {
            Some(extension) => write!(f, "{extension}/{}", self.model),
            None => f.write_str(&self.model),
        }
    }
}

/// Why a call that failed may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCause {
    /// The extension's process ended.
    Crashed,
    /// The deadline passed.
    Timeout,
    /// The extension was too busy.
    Rejected,
    /// The extension said that it failed.
    Fault,
    /// The extension broke the protocol.
    ProtocolViolation,
    /// The connection was closed from this side.
    Closed,
}

impl RetryCause {
    pub(super) const ALL: [(&'static str, Self); 6] = [
        ("crashed", Self::Crashed),
        ("timeout", Self::Timeout),
        ("rejected", Self::Rejected),
        ("fault", Self::Fault),
        ("protocol-violation", Self::ProtocolViolation),
        ("closed", Self::Closed),
    ];

    /// The cause's name in a melody.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, this)| *this == self).map_or("fault", |(name, _)| name)
    }

    /// What a melody calls this failure; `None` for one that no retry mends.
    #[must_use]
    pub fn of(error: &CallError) -> Option<Self> {
        match error {
            // An extension that keeps its deadline ends the call itself.
            CallError::Fault(fault) if fault.code == FaultCode::DeadlineExceeded => Some(Self::Timeout),
            CallError::Fault(_) => Some(Self::Fault),
            CallError::Rejected { .. } => Some(Self::Rejected),
            CallError::NotDelivered(cause) | CallError::Unknown(cause) => match cause {
                Cause::Deadline | Cause::DeadlineAtStart(_) => Some(Self::Timeout),
                // One that hung was ended: its process is gone either way.
                Cause::Died(_) | Cause::Hung(_) => Some(Self::Crashed),
                Cause::ProtocolViolation(_) => Some(Self::ProtocolViolation),
                Cause::Closed(_) => Some(Self::Closed),
                // Its program cannot be executed.
                Cause::Broken { retry_after: None, .. } => None,
                Cause::Broken { .. } => Some(Self::Rejected),
                _ => None,
            },
            CallError::Cancelled | CallError::Encode(_) | CallError::Decode(_) => None,
        }
    }
}

/// When and how often a failed call is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryRule {
    /// Attempts after the first one.
    pub times: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff_first: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Which failures are tried again.
    pub on: Vec<RetryCause>,
}
