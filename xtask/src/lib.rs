//! The project's own checks, as a library: what `cargo xtask NAME` runs, and what the tests run over a broken copy.
//!
//! A rule is a function over a [`Workspace`]: the text files of a tree, and what cargo says of it. It changes nothing
//! and asks nobody, so that a test can copy the tree, break one thing and see one rule fail.
//!
//! ```text
//! Workspace::load: walk the tree, ask cargo --> RULES: each a function --> failures: file, line, rule, remedy
//! ```
//!
//! Reading order: [`workspace`] and [`source`] (what is looked at), [`rules`] (the list), then one file per rule. It
//! must not know what the project does: only how its tree is kept.

pub mod workspace;
pub mod source;
mod tokens;
pub mod cargo;
pub mod rules;
mod layers;
mod code_map;
mod manifests;
mod files;
mod lints;
mod ordering;
mod marks;
mod words;
pub mod budget;
mod deny;
pub mod protocol;
mod links;
mod promises;
pub mod book;
pub mod models;

/// The tasks that `cargo xtask` has.
pub const TASKS: &[&str] = &["tidy", "models", "book"];

pub use rules::{Broken, Failure, RULES, check};
pub use workspace::Workspace;
