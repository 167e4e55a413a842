//! What the smallest extension builds: every author pays for it, at every first build.

use std::collections::BTreeSet;

use crate::cargo::SMALLEST_EXTENSION;
use crate::rules::Failure;
use crate::workspace::Workspace;

/// LIMIT: crates of others that the smallest extension builds.
pub const CRATES_MAX: usize = 40;

/// LIMIT: the same with the SDK's feature `fast`.
pub const FAST_CRATES_MAX: usize = 55;

/// Runtimes: an extension answers on threads of its own.
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "async-executor", "mio", "futures-executor"];

/// Crates that run another language's compiler, or look for what it made.
const COMPILERS: &[&str] = &["cc", "cmake", "bindgen", "pkg-config", "vcpkg", "nasm-rs", "autotools"];

const MANIFEST: &str = "extension-sdk/extension-sdk/Cargo.toml";

/// Too many crates, a runtime, or C.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    let (plain, others): (Vec<&str>, Vec<&str>) =
        (workspace.cargo.extension_outside().collect(), workspace.cargo.fast_extension_outside().collect());
    for (count, most, how) in
        [(plain.len(), CRATES_MAX, ""), (others.len(), FAST_CRATES_MAX, " with the feature `fast`")]
    {
        if count > most {
            let what = format!("`{SMALLEST_EXTENSION}`{how} builds {count} crates of others, above {most}");
            failures.push(Failure::of(
                MANIFEST,
                what,
                "do without the newest one, or put it behind a feature",
            ));
        }
    }
    let others: BTreeSet<&str> = plain.into_iter().chain(others).collect();
    for (unwanted, why) in [(RUNTIMES, "a runtime"), (COMPILERS, "a builder of C")] {
        for name in others.iter().filter(|name| unwanted.contains(name)) {
            let what = format!("`{SMALLEST_EXTENSION}` builds `{name}`, {why}");
            let remedy = "`cargo tree -p echo -e normal,build -i NAME` says who wants it; do without, or choose its features";
            failures.push(Failure::of(MANIFEST, what, remedy));
        }
    }
    failures
}
