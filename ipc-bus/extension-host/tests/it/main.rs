//! The host with real processes: the launcher, `hostile`, which misbehaves as told, and the SDK's example `points`,
//! whose methods take the fast codec; and with libraries.

mod programs;
mod reference_table;
mod support;

mod artifacts;
mod calls;
mod fast;
mod hangs;
mod host_calls;
mod hostile;
mod in_process;
mod kept;
mod libraries;
mod limits;
mod logs;
mod orphans;
mod starts;
mod stops;
mod supervised;
