//! The tracker from outside: single behaviours, random histories against a reference, and size.

#![cfg(not(loom))]

mod coverage;
mod features;
mod random;
mod reference;
mod scale;
mod scenarios;
