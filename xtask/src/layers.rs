//! Who may know whom. Adding a row or an arrow is an architecture change: say why in `docs/adr/`.

use crate::workspace::Workspace;

/// A crate and the crates of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    // L0: std, or serde at most.
    ("pit-core", &[]),
    ("ipc-protocol", &[]),
    // L1.
    ("pool-manager", &["pit-core"]),
    ("dag-tracker", &["pit-core"]),
    ("artifact-store", &[]),
    ("arbitration", &["pit-core"]),
    ("stale-manager", &["pit-core"]),
    ("ipc-transport", &["ipc-protocol"]),
    ("extension-launcher", &[]),
    // L2.
    ("extension-host", &["ipc-protocol", "ipc-transport", "pit-core", "extension-launcher"]),
    ("extension-sdk", &["ipc-protocol", "ipc-transport", "extension-sdk-macros"]),
    ("extension-sdk-macros", &[]),
    ("ipc-testkit", &["ipc-protocol", "ipc-transport"]),
    // L3 and L4.
    ("interfaces", &["extension-sdk"]),
    ("echo", &["extension-sdk", "interfaces"]),
    ("file-explorer", &["extension-sdk", "interfaces"]),
    ("operators", &["extension-sdk", "interfaces"]),
    ("hostile", &[]),
    (
        "conductor",
        &[
            "pit-core",
            "pool-manager",
            "dag-tracker",
            "artifact-store",
            "arbitration",
            "stale-manager",
            "ipc-protocol",
            "ipc-transport",
            "extension-host",
            "extension-launcher",
            "extension-sdk",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that may use everything: they measure it.
const FREE: &[&str] = &["benches"];

/// What the Pit must never know, directly.
const NOT_IN_THE_PIT: &[&str] = &["serde", "serde_json", "rmp-serde", "tokio", "mio", "bytes"];

/// Every arrow that the table does not allow, and every crate that it does not name.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let mut broken = Vec::new();
    for member in &workspace.crates {
        if FREE.contains(&member.name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member.name) else {
            broken.push(format!("{}: not in the table of layers (xtask/src/layers.rs)", member.name));
            continue;
        };
        for arrow in member.arrows.iter().filter(|arrow| !allowed.contains(&arrow.as_str())) {
            broken.push(format!("{} may not know {arrow}", member.name));
        }
        if member.folder.parent().is_some_and(|folder| folder.ends_with("pit")) {
            for other in member.others.iter().filter(|other| NOT_IN_THE_PIT.contains(&other.as_str())) {
                broken.push(format!("{} is of the Pit and may not know {other}", member.name));
            }
        }
        if member.name == "hostile" && !member.others.is_empty() {
            broken.push("hostile is std only".into());
        }
    }
    for (name, _) in ARROWS {
        if !workspace.crates.iter().any(|member| member.name == *name) {
            broken.push(format!("{name}: in the table of layers, but not in the workspace"));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Crate;

    fn member(name: &str, folder: &str, arrows: &[&str], others: &[&str]) -> Crate {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Crate { name: name.into(), folder: folder.into(), arrows: owned(arrows), others: owned(others) }
    }

    #[track_caller]
    fn breaks(member: Crate, expected: &str) {
        let broken = check(&Workspace { root: "/w".into(), crates: vec![member] });
        assert!(broken.iter().any(|line| line == expected), "{broken:#?}");
    }

    #[test]
    fn an_arrow_outside_the_table_is_reported() {
        breaks(
            member("extension-sdk", "/w/extension-sdk/extension-sdk", &["extension-host"], &[]),
            "extension-sdk may not know extension-host",
        );
    }

    #[test]
    fn serde_in_the_pit_is_reported() {
        breaks(
            member("dag-tracker", "/w/pit/dag-tracker", &[], &["serde"]),
            "dag-tracker is of the Pit and may not know serde",
        );
    }

    #[test]
    fn an_unknown_crate_is_reported() {
        breaks(
            member("novelty", "/w/novelty", &[], &[]),
            "novelty: not in the table of layers (xtask/src/layers.rs)",
        );
    }

    #[test]
    fn a_missing_crate_is_reported() {
        breaks(
            member("xtask", "/w/xtask", &[], &[]),
            "pit-core: in the table of layers, but not in the workspace",
        );
    }

    #[test]
    fn a_dependency_of_hostile_is_reported() {
        breaks(member("hostile", "/w/extensions/hostile", &[], &["libc"]), "hostile is std only");
    }
}
