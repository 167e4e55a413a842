//! A melody: the file in which a person says which calls make up a job, and how values flow between them.
//!
//! This module turns the file into a [`Plan`] and evaluates the plan's templates during a run. It must not
//! know how a step is carried out: no extension, process, socket, clock or task appears here, and nothing
//! here changes the state of a run. What it is given comes from people (the file, `-i key=value`) and from
//! extensions (results, as MessagePack); neither can make it panic.
//!
//! # The way of a file
//!
//! ```text
//! text --Draft::parse--> Draft --Draft::check(catalog)--> Plan --with a Scope--> arguments, items, conditions
//!                          |                                                        ^
//!                          +-- extensions(): what must be built or described first  +-- InputValues, outputs
//! ```
//!
//! A [`Draft`] is what could be read of the file together with every mistake found so far, so that one pass
//! over the file and the [`Catalog`] of extensions reports all mistakes at once. Only a plan without
//! mistakes comes out of [`Draft::check`].
//!
//! # The way of a value
//!
//! Values are MessagePack bytes and stay so. A reference like `{{ steps.list.output.entries }}` copies the
//! bytes it names into the arguments; anything else is an expression of minijinja over objects that read
//! the bytes lazily. The results of a fan-out are kept in one growing buffer ([`ItemOutputs`]).
//!
//! # Memory of a run
//!
//! An output lives in the [`Scope`] until [`Scope::release`]. [`PlanStep::consumers`] names the steps that
//! read it: once the arguments (of a fan-out: of all items) of the last of them are built, it can go.
//!
//! Reading order: `problem` and `table` (mistakes with their place), [`model`], [`mod@file`] and `step_file` (what a
//! file says, and its parser), [`message_pack`] (bytes that nobody trusts yet), [`value`] (outputs and items),
//! `object` (bytes as minijinja sees them), [`json`] (bytes as people see them), `evaluation`, `reference` and
//! `template` (strings of the melody), [`input`] and [`scope`] (what templates are evaluated against), [`plan`] and
//! `compile`, [`graph`] (the edges alone), then `schema`, [`arguments`] and [`check`] (the plan against what the
//! extensions say of themselves).

mod problem;
mod table;

pub mod model;

pub mod file;
mod step_file;
pub mod message_pack;
pub mod value;

mod object;

pub mod json;
mod evaluation;
mod reference;
mod template;

pub mod input;
pub mod scope;

pub mod plan;

mod compile;
pub mod graph;
mod schema;

pub mod arguments;
pub mod check;

pub use check::Catalog;
pub use evaluation::{EvaluationCause, EvaluationError};
pub use file::Draft;
pub use input::{InputError, InputValues};
pub use message_pack::Malformed;
pub use model::{
    Claim, InputDeclaration, InputType, Lease, ModelDeclaration, OnFailure, RetryCause, RetryRule,
};
pub use object::NotAValue;
pub use plan::{Arguments, Plan, PlanStep};
pub use scope::Scope;
pub use value::{ItemOutputs, Items, StepOutput};

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod testing;
