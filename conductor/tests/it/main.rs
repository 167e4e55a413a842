//! The conductor as people and programs meet it: the real binary, real extensions, real signals.

mod asking;
mod blame;
mod commands;
mod disk_full;
mod documents;
mod edges;
mod failures;
mod graph;
mod idle;
mod in_process;
mod kills;
mod main_job;
mod new_extension;
mod priorities;
mod processes;
mod python_peer;
mod questions;
mod removal;
mod serve;
mod signals;
mod support;
mod surroundings;
mod terminal;
mod trust;
mod usage;
