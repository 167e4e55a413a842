//! What cargo says, asked of a broken tree: the other tests only change what it said.

use std::collections::BTreeSet;

use xtask::cargo::Cargo;

use crate::copy::Copy;

#[test]
fn arrows_and_crates_of_others_are_seen_through_cargo() {
    let mut copy = Copy::new();
    let sdk = "extension-sdk/extension-sdk/Cargo.toml";
    copy.replace(sdk, "[dependencies]\n", "[dependencies]\nextension-host.workspace = true\n");
    copy.replace(
        "pit/dag-tracker/Cargo.toml",
        "[dependencies]\n",
        "[dependencies]\nserde.workspace = true\n",
    );
    copy.cargo = Cargo::ask(copy.root()).expect("cargo understands the tree");
    let broken = copy.newly_broken();
    let shown: Vec<_> = broken.iter().map(ToString::to_string).collect();
    for expected in [
        "`extension-sdk` may not know `extension-host`",
        "`dag-tracker` may not know `serde`",
        "`echo` builds `tokio`, a runtime",
    ] {
        assert!(shown.iter().any(|line| line.contains(expected)), "{expected}: {shown:#?}");
    }
    let rules: BTreeSet<_> = broken.iter().map(|broken| broken.rule).collect();
    assert!(
        rules.contains("layers") && rules.contains("outside") && rules.contains("sdk-budget"),
        "{rules:?}"
    );
}

#[test]
fn a_tree_that_cargo_does_not_understand_is_an_error_in_its_words() {
    let mut copy = Copy::new();
    copy.replace("pit/dag-tracker/Cargo.toml", "[package]", "[package");
    let error = Cargo::ask(copy.root()).expect_err("cargo does not understand it");
    assert!(error.to_string().contains("dag-tracker"), "{error}");
}
