//! The host with real processes: the launcher, and `hostile`, which misbehaves as told.

mod programs;
mod support;

mod calls;
mod hostile;
mod logs;
mod orphans;
mod starts;
mod stops;
mod supervised;
