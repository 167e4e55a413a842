//! The host with real processes: the launcher, and `hostile`, which misbehaves as told; and with libraries.

mod programs;
mod reference_table;
mod support;

mod calls;
mod hangs;
mod hostile;
mod in_process;
mod kept;
mod libraries;
mod logs;
mod orphans;
mod starts;
mod stops;
mod supervised;
