//! Extensions that ask the conductor: each other, for their state, for artifacts. The SDK's example `asks`, under two names.

use std::process::Command;

use crate::support::{Ended, Place, repository, target_folder};

/// `a`, which may call `b` and use artifacts, and `b`, which may nothing.
fn place() -> Place {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository()).args(["build", "--quiet", "--package=extension-sdk", "--example=asks"]);
    let built = cargo.arg("--target-dir").arg(target_folder()).status().expect("cargo runs");
    assert!(built.success(), "the example is built");
    let place = Place::new();
    for (name, permissions) in [("a", "calls = [\"b\"]\nartifacts = \"read-write\"\n"), ("b", "")] {
        let manifest = format!(
            "name = \"{name}\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"asks\"]\n\
             environment = {{ ASKS_NAME = \"{name}\" }}\n[permissions]\n{permissions}"
        );
        place.write(&format!("here/{name}/extension.toml"), &manifest);
        let program = place.path(&format!("here/{name}/asks"));
        std::fs::copy(target_folder().join("debug/examples/asks"), program).expect("it can be copied");
    }
    place
}

fn conductor(place: &Place, arguments: &[&str]) -> Ended {
    let mut command = place.conductor(arguments);
    command.env("SYMPHONY_EXTENSION_DIRS", place.path("here"));
    Ended::of(command.output().expect("the conductor runs"))
}

#[test]
fn what_an_extension_asks_for_it_gets_as_far_as_its_manifest_permits() {
    let place = place();
    let ask = |method: &str, arguments: &str| conductor(&place, &["call", method, arguments]);
    for count in 1..=3 {
        let counted = ask("a.count", "{}").with_code(0);
        assert_eq!(counted.stdout, format!("{count}\n"), "over runs of the conductor");
    }
    let passed = ask("a.pass_on", "{\"path\": [\"b\"], \"text\": \"hello\"}").with_code(0);
    assert_eq!(passed.stdout, "\"hello\"\n");
    let denied = ask("b.pass_on", "{\"path\": [\"a\"], \"text\": \"hello\"}");
    assert_ne!(denied.code, Some(0));
    assert!(
        denied.stderr.contains("extension `b` may not call `a`: name it in `permissions.calls`"),
        "{denied:?}"
    );

    ask("a.fill", "{\"bytes\": 200000, \"name\": \"table\"}").with_code(0);
    let summed = ask("a.sum", "{\"artifact\": \"table\"}").with_code(0);
    assert_eq!(summed.stdout, "600000\n");
    let stored = conductor(&place, &["artifacts", "get", "extensions/a/table"]).with_code(0);
    assert_eq!((stored.stdout.len(), stored.stdout.bytes().all(|byte| byte == 3)), (200_000, true));
    let denied = ask("b.sum", "{\"artifact\": \"table\"}");
    assert!(denied.stderr.contains("extension `b` may not read artifacts"), "{denied:?}");
    conductor(&place, &["artifacts", "verify"]).with_code(0);
}
