//! Extensions in the conductor's own process: only where its configuration says so.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::support::{Place, target_folder};

/// An `echo` whose program describes itself and does nothing else, beside its library: it answers in-process only.
fn place() -> (Place, PathBuf) {
    let place = Place::new();
    place.run(["extensions", "build", "echo"]).with_code(0);
    let built = target_folder().join("debug");
    let program = format!(
        "#!/bin/sh\n[ \"$1\" = --describe ] && exec {} --describe\nexit 9\n",
        built.join("echo").display()
    );
    let program = place.write("here/echo/echo", &program);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .expect("it is made executable");
    std::fs::copy(built.join("libecho.so"), place.path("here/echo/libecho.so")).expect("it can be copied");
    place.write(
        "here/echo/extension.toml",
        "name = \"echo\"\nversion = \"0.1.0\"\ntier = \"in-process\"\n[run]\ncommand = [\"echo\"]\nnice = 1\n\
         [restart]\npolicy = \"never\"\n",
    );
    let here = place.path("here");
    (place, here)
}

#[test]
fn a_manifest_alone_brings_no_code_into_the_conductors_process() {
    let (place, here) = place();
    let mut command = place.conductor(["call", "echo.echo", "{\"text\": \"hello\"}"]);
    let output = command.env("SYMPHONY_EXTENSION_DIRS", &here).output().expect("the conductor runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("exited with code 9"), "{said}");
    let mut command = place.conductor(["extensions", "show", "echo"]);
    let output = command.env("SYMPHONY_EXTENSION_DIRS", &here).output().expect("the conductor runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("tier      process (its manifest wishes in-process"), "{told}");
    let mut command = place.conductor(["extensions", "check"]);
    let output = command.arg(&here).output().expect("the conductor runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("`tier = \"in-process\"` is a wish"), "{told}");
}

#[test]
fn the_operator_moves_an_extension_into_the_conductor_with_one_line() {
    let (place, here) = place();
    place.write("conductor.toml", "in-process = [\"echo\"]\n");
    let mut command = place.conductor(["call", "echo.echo", "{\"text\": \"hello\"}"]);
    let output = command.env("SYMPHONY_EXTENSION_DIRS", &here).output().expect("the conductor runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\"hello\"\n");
    assert!(said.contains("these keys of its manifest mean nothing: run.nice"), "{said}");
    let mut command = place.conductor(["extensions", "show", "echo"]);
    let output = command.env("SYMPHONY_EXTENSION_DIRS", &here).output().expect("the conductor runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("tier      in-process\n") && told.contains("libecho.so"), "{told}");
    // The project's own extension, which is built: program and library.
    let mut command = place.conductor(["call", "echo.echo", "{\"text\": \"built\"}"]);
    let output = command.output().expect("the conductor runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\"built\"\n");
}

#[test]
fn what_has_no_library_is_refused_with_what_to_do() {
    let (place, here) = place();
    std::fs::remove_file(here.join("echo/libecho.so")).expect("it is removed");
    let mut command = place.conductor(["call", "echo.echo", "{\"text\": \"hello\"}"]);
    command.env("SYMPHONY_EXTENSION_DIRS", &here).env("SYMPHONY_IN_PROCESS", "echo");
    let output = command.output().expect("the conductor runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is to run in the conductor's process") && said.contains("lib<NAME>.so"), "{said}");
    let mut command = place.conductor(["extensions", "build", "file-explorer"]);
    let output = command.env("SYMPHONY_IN_PROCESS", "file-explorer").output().expect("the conductor runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("its package `file-explorer` makes no library") && said.contains("cdylib"),
        "{said}"
    );
    let mut command = place.conductor(["config", "show"]);
    let output = command.env("SYMPHONY_IN_PROCESS", "Not A Name").output().expect("the conductor runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("$SYMPHONY_IN_PROCESS has a wrong value"), "{said}");
}
