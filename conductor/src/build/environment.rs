//! With which cargo and in which environment extensions are built. Pure, over the environment given.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Variables that `cargo run` and `cargo test` set for their child. A build script that asks for one would
/// be rebuilt because of it; what people set themselves (`CARGO_HOME`, `CARGO_NET_OFFLINE`, `RUSTFLAGS`,
/// `RUSTUP_*`, `CARGO_TARGET_DIR`, profiles) stays, so that the build is the one that they would make.
fn is_of_an_outer_cargo(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_MAKEFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_LINKS",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
    ];
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_BIN_EXE_", "CARGO_CFG_"];
    NAMES.contains(&name)
        || matches!(name, "OUT_DIR" | "RUST_RECURSION_COUNT")
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The environment of cargo: `variables` without what an outer cargo left, a relative target folder made
/// absolute because cargo runs in the workspace's folder.
#[must_use]
pub fn cargo_environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    current: &Path,
) -> Vec<(OsString, OsString)> {
    let kept = variables.into_iter().filter(|(name, _)| !name.to_str().is_some_and(is_of_an_outer_cargo));
    kept.map(|(name, value)| {
        let is_folder = name == "CARGO_TARGET_DIR" || name == "CARGO_BUILD_TARGET_DIR";
        let value = if is_folder { current.join(value).into_os_string() } else { value };
        (name, value)
    })
    .collect()
}

/// The cargo that an outer cargo names in `$CARGO`, else the first one on `$PATH`.
#[must_use]
pub fn find_cargo(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let outer = get("CARGO").map(PathBuf::from).filter(|cargo| cargo.is_absolute() && cargo.is_file());
    outer.or_else(|| {
        let path = get("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("cargo")).find(|cargo| cargo.is_file())
    })
}

/// What decides which build a record belongs to, beside the manifest and the profile.
#[must_use]
pub fn build_variables(environment: &[(OsString, OsString)]) -> Vec<&(OsString, OsString)> {
    const NAMES: [&str; 6] = [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
    ];
    let mut variables: Vec<_> =
        environment.iter().filter(|(name, _)| NAMES.iter().any(|known| OsStr::new(known) == name)).collect();
    variables.sort();
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_outer_cargo_set_is_dropped_and_what_people_set_is_kept() {
        let variables = [
            ("CARGO", "/x/cargo"),
            ("CARGO_PKG_NAME", "conductor"),
            ("CARGO_MANIFEST_DIR", "/x"),
            ("CARGO_HOME", "/home/x/.cargo"),
            ("CARGO_TARGET_DIR", "target"),
            ("CARGO_NET_OFFLINE", "true"),
            ("RUSTUP_TOOLCHAIN", "stable"),
            ("RUSTFLAGS", "-Cdebuginfo=0"),
            ("PATH", "/bin"),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let kept = cargo_environment(variables, Path::new("/home/x"));
        let names: Vec<_> = kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        let expected =
            ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "PATH"];
        assert_eq!(names, expected);
        assert_eq!(kept[1].1, "/home/x/target");
        assert_eq!(build_variables(&kept).len(), 3);
    }

    #[test]
    fn cargo_is_found_on_the_path_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::join_paths([Path::new("/nonexistent"), folder.path()]).unwrap();
        let find = || find_cargo(|name| (name == "PATH").then(|| path.clone()));
        assert_eq!(find(), None);
        std::fs::write(folder.path().join("cargo"), "").unwrap();
        assert_eq!(find(), Some(folder.path().join("cargo")));
        assert_eq!(find_cargo(|_| None), None);
    }
}
