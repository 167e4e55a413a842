//! Why a template has no value: with its step and its place in the file, as people are told it.
//!
//! This file must not know how templates are evaluated.

use ipc_protocol::limits::MESSAGE_BYTES_MAX;

use super::object::NotAValue;
use super::value::ItemsError;

/// A template has no value now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` of step `{step}` has no value ({at})")]
pub struct EvaluationError {
    /// The step's id.
    pub step: String,
    /// Which of its values: `with.rows[2]`, `for-each`, `when`.
    pub key: String,
    /// File, line and column of the template.
    pub at: String,
    /// Why.
    #[source]
    pub cause: EvaluationCause,
}

/// Why a template has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationCause {
    /// A step that it reads was skipped or failed.
    #[error("step `{0}` has no output")]
    NoOutput(String),
    /// The value that it reads has no such field or element.
    #[error("`{0}` is not there")]
    Missing(String),
    /// It reads `item`, and none was given.
    #[error("there is no item")]
    NoItem,
    /// minijinja says what is wrong.
    #[error("the expression failed: {0}")]
    Expression(String),
    /// What it yields is no value.
    #[error(transparent)]
    NotAValue(#[from] NotAValue),
    /// What a fan-out is to go over is no array.
    #[error(transparent)]
    Items(#[from] ItemsError),
    /// All arguments together are more than a message may hold.
    #[error("the arguments have {0} bytes, at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge(u64),
}
