//! Interfaces and messages that callers and implementers share.
//!
//! What a method means is said here, on its trait; how it is done is the extension's own business. This crate
//! must not know any implementation.

pub mod conductor;
pub mod echo;
pub mod file_explorer;
pub mod operators;

pub use conductor::{
    Called, Conductor, ConductorClient, Explanation, ExtensionState, Happening, LoggedLine, PastEnd,
};
pub use echo::{Echo, EchoClient};
pub use file_explorer::{Entry, FileExplorer, FileExplorerClient, Listing, Problem, Tree};
pub use operators::{LanguageTotals, Operators, OperatorsClient, Ranking, Row, Totals, Unread};
