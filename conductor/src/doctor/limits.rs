//! What this process may use, as its parent has left it.

use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::progress::human_bytes;

/// Descriptors below which a conductor with a few extensions comes to its limit.
const OPEN_FILES_MIN: u64 = 256;
/// Processes and threads of the user, likewise.
const PROCESSES_MIN: u64 = 256;

pub(super) fn checks() -> Vec<Check> {
    let limit = |resource| getrlimit(resource).current;
    vec![
        least(
            "open files",
            limit(Resource::Nofile),
            OPEN_FILES_MIN,
            "several extensions and large fan-outs may find no descriptor: raise it (ulimit -n)",
        ),
        least(
            "processes",
            limit(Resource::Nproc),
            PROCESSES_MIN,
            "builds and extensions may not start: raise it (ulimit -u)",
        ),
        unlimited(
            "file size",
            limit(Resource::Fsize),
            "larger artifacts cannot be stored: raise it (ulimit -f)",
        ),
        unlimited(
            "address space",
            limit(Resource::As),
            "large artifacts may not be readable: raise it (ulimit -v)",
        ),
    ]
}

fn least(name: &'static str, limit: Option<u64>, min: u64, follows: &str) -> Check {
    match limit {
        None => Check::works(name, "unlimited"),
        Some(limit) if limit >= min => Check::works(name, format!("at most {limit}")),
        Some(limit) => Check::limited(name, format!("at most {limit}"), follows),
    }
}

fn unlimited(name: &'static str, limit: Option<u64>, follows: &str) -> Check {
    match limit {
        None => Check::works(name, "unlimited"),
        Some(limit) => Check::limited(name, format!("at most {}", human_bytes(limit)), follows),
    }
}
