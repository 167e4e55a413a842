//! The system's calls, each tried once: those that are needed, and those that a sandbox is made of.

use std::fs;
use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope,
};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::Check;

/// Bytes of a file of `/proc` or `/sys` that are shown.
const SHOWN_CHARS_MAX: usize = 120;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::works("kernel", line_of("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned())),
        Check::tried("proc", fs::metadata("/proc/self/exe").map(drop), "no extension can be started: mount /proc")
            .needed(),
        Check::tried("urandom", fs::File::open("/dev/urandom").map(drop), "runs cannot be named").needed(),
        Check::tried(
            "pidfd_open",
            pidfd_open(getpid(), PidfdFlags::empty()).map(drop),
            "no extension can be watched: Linux 5.4 or newer is needed, and a sandbox around this must allow it",
        )
        .needed(),
        Check::tried(
            "openat2",
            rustix::fs::openat2(CWD, ".", OFlags::PATH, Mode::empty(), ResolveFlags::NO_SYMLINKS).map(drop),
            "nothing today: this release does not use it",
        ),
        Check::tried("memfd seals", seal(), "nothing today: this release does not use it"),
    ]
}

/// A memory file that can no longer shrink.
fn seal() -> rustix::io::Result<()> {
    let file = rustix::fs::memfd_create("doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)
}

/// What a sandbox needs of the kernel.
pub(super) fn confinement() -> Vec<Check> {
    let landlock = match landlock_abi() {
        Some(abi) => Check::works("landlock", format!("version {abi} of its interface, or newer")),
        None => Check::missing(
            "landlock",
            "the kernel has none, or it is not enabled (lsm=landlock)",
            "the files that an extension may open cannot be restricted here",
        ),
    };
    let seccomp = match line_of("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) => Check::works("seccomp", actions),
        Err(error) => Check::missing(
            "seccomp",
            error.to_string(),
            "the system's calls that an extension may make cannot be restricted here",
        ),
    };
    vec![landlock, seccomp]
}

/// The newest version of Landlock's interface of which a rule set can be made. Restricts nothing: that would be
/// a call of its own.
fn landlock_abi() -> Option<u32> {
    const VERSIONS: [(u32, ABI); 6] =
        [(6, ABI::V6), (5, ABI::V5), (4, ABI::V4), (3, ABI::V3), (2, ABI::V2), (1, ABI::V1)];
    let can_make = |abi: ABI| {
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        // Version 4 added ports, version 6 scopes, and neither anything to files.
        let (ports, scopes) = (AccessNet::from_all(abi), Scope::from_all(abi));
        let rules = rules.handle_access(AccessFs::from_all(abi));
        let rules =
            rules.and_then(|rules| if ports.is_empty() { Ok(rules) } else { rules.handle_access(ports) });
        let rules = rules.and_then(|rules| if scopes.is_empty() { Ok(rules) } else { rules.scope(scopes) });
        rules.and_then(Ruleset::create).is_ok()
    };
    VERSIONS.iter().find(|(_, abi)| can_make(*abi)).map(|(number, _)| *number)
}

/// The text of a small file, as one short line.
pub(super) fn line_of(path: &str) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(words.join(" ").chars().take(SHOWN_CHARS_MAX).collect())
}
