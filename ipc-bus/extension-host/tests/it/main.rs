//! The host with real processes: the launcher, and `hostile`, which misbehaves as told.

mod programs;
mod support;

mod calls;
mod hangs;
mod hostile;
mod kept;
mod logs;
mod orphans;
mod starts;
mod stops;
mod supervised;
