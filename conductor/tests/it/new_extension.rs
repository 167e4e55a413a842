//! `new extension`, as its author meets it: an empty folder, one command, and everything works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Ended, Place, repository, skip, target_folder};

/// Where extensions of authors are built: their profiles are not the workspace's, so nothing could be shared with it.
/// Binaries lie there by name alone, so every test has names of its own.
pub(crate) fn authors_target() -> PathBuf {
    target_folder().join("authors")
}

/// A command in `folder` of an author who has the conductor on the path and never heard of this repository.
pub(crate) fn authors(place: &Place, folder: &Path, program: &str) -> Command {
    let own = Path::new(env!("CARGO_BIN_EXE_conductor")).parent().expect("a folder").to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path)));
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(std::process::Stdio::null());
    command.env("PATH", path.expect("no colon in a path"));
    command.env("SYMPHONY_DATA_DIR", place.path("data")).env("SYMPHONY_BUILD_PROFILE", "dev");
    command.env("CARGO_TARGET_DIR", authors_target()).env("CARGO_NET_OFFLINE", "true");
    // Nobody builds the same twice here.
    command.env("CARGO_INCREMENTAL", "0");
    for variable in ["SYMPHONY_EXTENSION_DIRS", "SYMPHONY_SDK", "SYMPHONY_LOG", "SYMPHONY_CONFIG"] {
        command.env_remove(variable);
    }
    command
}

fn conductor(place: &Place, folder: &Path, arguments: &[&str]) -> Ended {
    let program = env!("CARGO_BIN_EXE_conductor");
    Ended::of(authors(place, folder, program).args(arguments).output().expect("the conductor runs"))
}

fn new(place: &Place, arguments: &[&str]) -> Ended {
    conductor(place, &place.path(""), &[&["new", "extension"], arguments].concat())
}

/// What is in a folder, by name.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_new_rust_extension_is_found_built_called_and_tested_at_once() {
    let place = Place::new();
    let told = new(&place, &["first-steps"]).with_code(0).stdout;
    assert!(told.contains("cd first-steps") && told.contains("conductor call first-steps.greet"), "{told}");
    let folder = place.path("first-steps");
    let greet = ["call", "first-steps.greet", r#"{"name": "you"}"#];
    let called = conductor(&place, &folder, &greet).with_code(0);
    assert_eq!(called.document(), json!("Hello, you!"));
    assert!(!called.stderr.contains("warning"), "{}", called.stderr);
    // From the folder above, and from one inside, it is the same.
    for from in [place.path(""), folder.join("src")] {
        assert_eq!(conductor(&place, &from, &greet).with_code(0).document(), json!("Hello, you!"));
    }
    let checked = conductor(&place, &folder, &["extensions", "check"]).with_code(0).stdout;
    assert!(checked.contains("1 extension, no mistakes"), "{checked}");
    let primes =
        ["call", "first-steps.count_primes", r#"{"below": 18446744073709551615}"#, "--timeout", "200ms"];
    let late = conductor(&place, &folder, &primes).with_code(1).stderr;
    assert!(late.contains("200 ms") || late.contains("deadline"), "{late}");

    let tested = authors(&place, &folder, "cargo").arg("test").output().expect("cargo runs");
    let tested = Ended::of(tested).with_code(0);
    assert!(tested.stdout.contains("4 passed"), "{}", tested.stdout);
    assert!(!tested.stderr.contains("warning"), "{}", tested.stderr);
}

#[test]
fn a_new_extension_in_a_workspace_is_its_member() {
    let place = Place::new();
    let sdk = toml::Value::from(repository().join("extension-sdk/extension-sdk").to_str().expect("text"));
    let workspace = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"extensions/*\"]\n[workspace.dependencies]\n\
         extension-sdk = {{ path = {sdk} }}\n[workspace.lints.rust]\nmissing_docs = \"deny\"\n"
    );
    place.write("Cargo.toml", &workspace);
    fs::copy(repository().join("Cargo.lock"), place.path("Cargo.lock")).expect("the lock file is copied");
    fs::create_dir(place.path("extensions")).expect("the folder is made");
    let told = new(&place, &["one-of-many"]).with_code(0).stdout;
    assert!(told.contains("cd extensions/one-of-many"), "{told}");
    let files = names_in(&place.path("extensions/one-of-many"));
    assert_eq!(files, ["Cargo.toml", "README.md", "extension.toml", "src"]);
    let called = conductor(&place, &place.path(""), &["call", "one-of-many.greet", r#"{"name": "all"}"#]);
    let called = called.with_code(0);
    assert_eq!(called.document(), json!("Hello, all!"));
    assert!(!called.stderr.contains("warning"), "{}", called.stderr);
    // One that is no member stands beside it and builds on its own.
    new(&place, &["on-its-own", "--path", "./on-its-own"]).with_code(0);
    let metadata = ["metadata", "--offline", "--no-deps", "--format-version", "1"];
    let metadata = authors(&place, &place.path("on-its-own"), "cargo").args(metadata).output();
    let metadata = Ended::of(metadata.expect("cargo runs")).with_code(0).document();
    let names: Vec<_> =
        metadata["packages"].as_array().expect("packages").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["on-its-own"]);
}

#[test]
fn what_cannot_be_made_changes_nothing_and_says_why() {
    let place = Place::new();
    fs::create_dir(place.path("taken")).expect("the folder is made");
    place.write("other/extension.toml", "name = \"known\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"x\"]\n");
    let before = names_in(&place.path(""));
    for (arguments, code, word) in [
        (&["taken"][..], 2, "is there already"),
        (&["Wrong_Name"], 2, "`wrong-name` would do"),
        (&["self"], 2, "`my-self` would do"),
        (&["fault"], 2, "`Fault`"),
        (&["serde"], 2, "the SDK uses a package of this name"),
        (&["known"], 2, "there is an extension `known` already"),
        (&["hello", "--path", "missing/hello"], 2, "there is no folder"),
        (&["hello", "--sdk", "other"], 3, "which --sdk names"),
        (&["hello", "--language", "cobol"], 2, "rust, python"),
        (&[], 2, "NAME"),
    ] {
        let ended = new(&place, arguments).with_code(code);
        assert!(ended.stderr.contains(word), "{arguments:?}: {}", ended.stderr);
        assert_eq!(names_in(&place.path("")), before, "{arguments:?}");
    }
    assert!(names_in(&place.path("taken")).is_empty());
    let mut command = authors(&place, &place.path(""), env!("CARGO_BIN_EXE_conductor"));
    command.args(["new", "extension", "hello"]).env("SYMPHONY_SDK", place.path("other"));
    let ended = Ended::of(command.output().expect("the conductor runs")).with_code(3);
    assert!(ended.stderr.contains("which SYMPHONY_SDK names"), "{}", ended.stderr);
}

#[test]
fn programs_are_told_what_was_made() {
    let place = Place::new();
    let document =
        new(&place, &["told", "--language", "python", "--path", "here", "--json"]).with_code(0).document();
    assert_eq!((&document["extension"], &document["language"]), (&json!("told"), &json!("Python")));
    assert_eq!(document["folder"], json!(place.path("here")));
    let files = document["files"].as_array().expect("a list").iter().filter_map(|file| file.as_str());
    for file in files {
        assert!(place.path("here").join(file).is_file(), "{file}");
    }
}

/// Whether there is a Python; says so if there is none.
pub(crate) fn has_python(test: &str) -> bool {
    match Command::new("python3").arg("--version").output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            skip(test, &format!("python3 ends with {}", output.status));
            false
        }
        Err(error) => {
            skip(test, &format!("python3 cannot be run: {error}"));
            false
        }
    }
}

#[test]
fn a_new_python_extension_is_found_called_and_tested_at_once() {
    if !has_python("a_new_python_extension_is_found_called_and_tested_at_once") {
        return;
    }
    let place = Place::new();
    new(&place, &["snake", "--language", "python"]).with_code(0);
    let folder = place.path("snake");
    let checked = conductor(&place, &folder, &["extensions", "check"]).with_code(0);
    assert!(checked.stdout.contains("no mistakes"), "{} {}", checked.stdout, checked.stderr);
    for from in [&folder, &place.path("")] {
        let called = conductor(&place, from, &["call", "snake.greet", r#"{"name": "you"}"#]).with_code(0);
        assert_eq!(called.document(), json!("Hello, you!"));
        // Nothing was built, and nothing is amiss.
        assert_eq!(called.stderr, "");
    }
    let shown = conductor(&place, &folder, &["extensions", "show", "snake"]).with_code(0).stdout;
    assert!(
        shown.contains("snake.count_primes(below)") && shown.contains("Greets somebody by name."),
        "{shown}"
    );
    let tested =
        authors(&place, &folder, "python3").args(["-m", "unittest"]).output().expect("it was run before");
    let tested = Ended::of(tested).with_code(0);
    assert!(tested.stderr.contains("OK"), "{}", tested.stderr);
}
