//! Who may know whom. Adding a row or an arrow is an architecture change: say why in `docs/adr/`.

use crate::cargo::Member;
use crate::rules::Failure;
use crate::workspace::Workspace;

/// A crate and the crates of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    // L0: std, or serde at most.
    ("pit-core", &[]),
    ("ipc-protocol", &[]),
    ("extension-abi", &[]),
    // L1.
    ("pool-manager", &["pit-core"]),
    ("dag-tracker", &["pit-core"]),
    ("artifact-store", &["pit-core"]),
    ("arbitration", &["pit-core"]),
    ("stale-manager", &["pit-core"]),
    ("ipc-transport", &["ipc-protocol", "pit-core"]),
    ("extension-launcher", &[]),
    // L2.
    ("extension-host", &["ipc-protocol", "ipc-transport", "pit-core", "extension-launcher", "extension-abi"]),
    ("extension-sdk", &["ipc-protocol", "ipc-transport", "extension-sdk-macros", "extension-abi"]),
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
            "interfaces",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that may use everything: they measure it.
const FREE: &[&str] = &["benches"];

/// What crates of others a crate may know.
enum Diet {
    /// None but these.
    Only(&'static [&'static str]),
    /// Any but these. A name that ends in `-` stands for all names that begin so.
    Not(&'static [&'static str]),
}

/// What has a meaning of its own outside of the process: a form of data, a socket, a runtime.
const FORMS_AND_RUNTIMES: &[&str] =
    &["serde", "serde_", "serde-", "rmp", "rmp-", "toml", "bytes", "tokio", "tokio-", "mio", "hyper", "axum"];

/// A crate, or a folder of crates, and what it may know. Each row that fits counts.
const DIETS: &[(&str, Diet)] = &[
    ("pit/pit-core", Diet::Only(&["loom"])),
    ("pit/", Diet::Not(FORMS_AND_RUNTIMES)),
    ("ipc-bus/ipc-protocol", Diet::Only(&["serde", "serde_bytes", "thiserror"])),
    ("ipc-bus/extension-launcher", Diet::Not(FORMS_AND_RUNTIMES)),
    ("extension-sdk/", Diet::Not(&["tokio", "tokio-", "mio", "anyhow"])),
    ("extension-sdk/extension-abi", Diet::Only(&[])),
    ("extensions/hostile", Diet::Only(&[])),
    // `anyhow` is for programs. A library says what can go wrong.
    ("pit/", Diet::Not(&["anyhow"])),
    ("ipc-bus/", Diet::Not(&["anyhow"])),
];

const TABLE: &str = "xtask/src/layers.rs";

fn manifest(member: &Member) -> String {
    format!("{}/Cargo.toml", member.folder)
}

/// Every arrow that the table does not allow, and every crate that it does not name.
pub(crate) fn arrows(workspace: &Workspace) -> Vec<Failure> {
    let members = &workspace.cargo.members;
    let mut failures = Vec::new();
    for member in members.iter().filter(|member| !FREE.contains(&member.name.as_str())) {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member.name) else {
            let what = format!("`{}` is not in the table of arrows", member.name);
            failures.push(Failure::of(
                manifest(member),
                what,
                "give it a row in xtask/src/layers.rs, and an ADR",
            ));
            continue;
        };
        for arrow in member.arrows.iter().filter(|arrow| !allowed.contains(&arrow.as_str())) {
            failures.push(Failure::of(
                manifest(member),
                format!("`{}` may not know `{arrow}`", member.name),
                "declare a trait here and let the conductor connect the two, or change the table with an ADR",
            ));
        }
    }
    for (name, _) in ARROWS {
        if !members.iter().any(|member| member.name == *name) {
            let what = format!("`{name}` is in the table of arrows, but not in the workspace");
            failures.push(Failure::of(TABLE, what, "remove its row"));
        }
    }
    failures
}

/// Every crate of others where it may not be.
pub(crate) fn outside(workspace: &Workspace) -> Vec<Failure> {
    let mut failures = Vec::new();
    for member in &workspace.cargo.members {
        let diets = DIETS.iter().filter(|(place, _)| {
            if place.ends_with('/') { member.folder.starts_with(place) } else { member.folder == *place }
        });
        for (_, diet) in diets {
            for other in member.outside.iter().filter(|other| !diet.allows(other)) {
                failures.push(Failure::of(
                    manifest(member),
                    format!("`{}` may not know `{other}`", member.name),
                    "do without it here, or change the table of xtask/src/layers.rs with an ADR",
                ));
            }
        }
    }
    failures
}

impl Diet {
    fn allows(&self, other: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(&other),
            Self::Not(names) => !names
                .iter()
                .any(|name| *name == other || (name.ends_with(['-', '_']) && other.starts_with(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diet_names_crates_and_families() {
        let not = Diet::Not(FORMS_AND_RUNTIMES);
        assert!(!not.allows("serde") && !not.allows("serde_json") && !not.allows("tokio-util"));
        assert!(not.allows("event-listener") && not.allows("bytesize"));
        let only = Diet::Only(&["loom"]);
        assert!(only.allows("loom") && !only.allows("parking_lot"));
    }

    #[test]
    fn arrows_of_the_table_form_no_circle() {
        // Each crate stands below those that it knows, which a circle cannot do.
        for (place, (name, allowed)) in ARROWS.iter().enumerate() {
            for arrow in *allowed {
                let there = ARROWS.iter().position(|(other, _)| other == arrow);
                let is_macros = *arrow == "extension-sdk-macros";
                assert!(there.is_some_and(|there| there < place || is_macros), "{name} knows {arrow}");
            }
        }
    }
}
