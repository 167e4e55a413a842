//! The wire does not change: golden files, the document, round trips.

mod bincode;
mod document;
mod golden;
mod properties;
