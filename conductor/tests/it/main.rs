//! The conductor as people and programs meet it: the real binary, real extensions, real signals.

mod commands;
mod disk_full;
mod edges;
mod failures;
mod idle;
mod kills;
mod main_job;
mod signals;
mod support;
mod usage;
