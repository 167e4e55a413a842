//! The host with real processes: the launcher, `hostile`, which misbehaves as told, and the SDK's example `points`,
//! whose methods take the fast codec.

mod programs;
mod support;

mod calls;
mod fast;
mod hangs;
mod hostile;
mod kept;
mod logs;
mod orphans;
mod starts;
mod stops;
mod supervised;
