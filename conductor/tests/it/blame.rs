//! Whom the error document of a call blames, and whether it says that trying again helps: the same as people
//! are told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::{Ended, Place};

/// The error document of a call that fails, which must say what stderr says.
#[track_caller]
fn error_of(ended: &Ended) -> Value {
    let error = ended.document()["error"].clone();
    let (origin, retry) = blame(&error);
    let told = format!("(at fault: {origin}; try again: {retry})");
    assert!(ended.stderr.contains(&told), "{told} in {}", ended.stderr);
    error
}

fn blame(error: &Value) -> (&str, &str) {
    let word = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("{name} in {error}"));
    (word("origin"), word("retry"))
}

#[test]
fn the_document_of_a_call_blames_whom_stderr_blames() {
    let place = Place::new();
    let ended = place.run(["call", "file-explorer.list", "{\"path\": \"/nowhere\"}", "--json"]).with_code(1);
    let error = error_of(&ended);
    assert_eq!(blame(&error), ("caller", "never"), "{error}");
    assert_eq!(error["extension"], "file-explorer", "{error}");
    for (mode, method, expected) in [
        ("crash-abort", "misbehave", ("extension", "never")),
        ("stall", "misbehave", ("extension", "never")),
        ("garbage", "misbehave", ("extension", "never")),
    ] {
        let call = format!("hostile.{method}");
        let mut command = place.conductor(["call", &call, "{}", "--timeout", "3s", "--json"]);
        let ended = Ended::of(command.env("HOSTILE_MODE", mode).output().unwrap()).with_code(1);
        let error = error_of(&ended);
        assert_eq!(blame(&error), expected, "{mode}: {error}");
    }
}

#[test]
fn an_extension_that_cannot_be_started_is_to_be_corrected_and_not_waited_for() {
    let place = Place::new();
    let manifest = "name = \"mine\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"x.sh\"]\n";
    place.write("extensions/mine/extension.toml", manifest);
    let program = place.write("extensions/mine/x.sh", "#!/bin/sh\nexit 7\n");
    for mode in [0o644, 0o755] {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let ended = place.run(["call", "mine.greet", "{}", "--json"]).with_code(1);
        let error = error_of(&ended);
        assert_eq!(blame(&error), ("extension", "never"), "{mode:o}: {error}");
        let help = error["help"].as_str().unwrap();
        assert!(help.contains("correct") && !help.contains("--log"), "{mode:o}: {error}");
    }
}

#[test]
fn a_missing_tool_is_the_matter_of_the_machine() {
    let place = Place::new();
    let mut command = place.conductor(["call", "echo.echo", "{\"text\": \"x\"}", "--json"]);
    command.env("CARGO_TARGET_DIR", place.path("target")).env("PATH", place.path(".")).env_remove("CARGO");
    let ended = Ended::of(command.output().unwrap()).with_code(3);
    let error = ended.document()["error"].clone();
    assert_eq!(blame(&error), ("environment", "never"), "{error}");
}

#[test]
fn a_manifest_that_names_no_binary_of_its_package_is_refused_with_those_there_are() {
    let place = Place::new();
    let manifest = |command: &str| {
        format!(
            "name = \"bad\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"{command}\"]\n[build]\ncargo-package = \"bad\"\n"
        )
    };
    place.write("extensions/bad/extension.toml", &manifest("bd"));
    let package = "[package]\nname = \"bad\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    place.write("extensions/bad/Cargo.toml", package);
    place.write("extensions/bad/src/main.rs", "fn main() { std::process::exit(7) }\n");
    place.write("extensions/bad/src/bin/other.rs", "fn main() { std::process::exit(7) }\n");
    let told = place.run(["extensions", "build", "bad"]).with_code(1).stderr;
    assert!(told.contains("the package `bad` has no binary `bd`"), "{told}");
    assert!(told.contains("run.command names the package's binary: bad or other"), "{told}");
    // Also where a program of this manifest was built before.
    place.write("extensions/bad/extension.toml", &manifest("bad"));
    let told = place.run(["extensions", "build", "bad"]).with_code(1).stderr;
    assert!(told.contains("does not describe itself"), "{told}");
    place.write("extensions/bad/extension.toml", &manifest("bd"));
    let told = place.run(["call", "bad.x", "{}"]).with_code(1).stderr;
    assert!(told.contains("the package `bad` has no binary `bd`"), "{told}");
}
