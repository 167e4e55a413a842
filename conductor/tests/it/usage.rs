//! Wrong command lines, settings and files: each refused with a clear word and the documented exit code.

use std::process::Stdio;

use serde_json::json;

use crate::support::{Ended, Place, main_job_arguments, repository};

#[test]
fn help_explains_commands_exit_codes_and_settings() {
    let place = Place::new();
    let help = place.run(["--help"]).with_code(0).stdout;
    let commands = ["run", "call", "melody", "extensions", "artifacts", "config", "doctor", "man"];
    let words = ["EXIT CODES", "130", "SYMPHONY_DATA_DIR", "SYMPHONY_CONFIG", "NO_COLOR", "conductor.toml"];
    for word in commands.iter().chain(&words) {
        assert!(help.contains(word), "{word} in {help}");
    }
    place.run(["run", "--help"]).with_code(0);
    assert!(place.run(["--version"]).with_code(0).stdout.starts_with("conductor "));
    place.run(["no-such-command"]).with_code(2);
    place.run::<&str>([]).with_code(2);
}

#[test]
fn a_wrong_configuration_is_shown_with_line_and_column() {
    let place = Place::new();
    place.write("conductor.toml", "step-timeout = \"30s\"\nstep-timout = \"30s\"\n");
    let told = place.run(["extensions", "list"]).with_code(2).stderr;
    assert!(told.contains("conductor.toml:2:1") && told.contains("did you mean `step-timeout`?"), "{told}");
    let told = place.run(["extensions", "list", "--config", "nowhere.toml"]).with_code(2).stderr;
    assert!(told.contains("nowhere.toml"), "{told}");
}

#[test]
fn a_mistake_in_the_declaration_of_an_input_is_told_before_the_input_is_missed() {
    let place = Place::new();
    place.write(
        "wrong.toml",
        "name = \"wrong\"\n[inputs.ns]\ntype = \"numbers\"\n[[steps]]\nid = \"a\"\ncall = \"e.m\"\n",
    );
    let told = place.run(["run", "wrong.toml"]).with_code(2).stderr;
    assert!(told.contains("wrong.toml:3:8") && !told.contains("is missing"), "{told}");
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    let place = Place::new();
    let output = place.conductor(["extensions", "list"]).env("SYMPHONY_CORES", "many").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("$SYMPHONY_CORES has a wrong value, \"many\": it takes a number"), "{told}");
    place.run(["extensions", "list", "--log", "=="]).with_code(2);
}

#[test]
fn without_a_home_the_data_folder_must_be_named() {
    let place = Place::new();
    let mut command = place.conductor(["artifacts", "list"]);
    for variable in ["SYMPHONY_DATA_DIR", "XDG_DATA_HOME", "HOME"] {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("--data"), "{told}");
}

#[test]
fn a_missing_or_wrong_melody_is_refused_with_its_place() {
    let place = Place::new();
    let told = place.run(["run", "nowhere.toml"]).with_code(2).stderr;
    assert!(told.contains("nowhere.toml"), "{told}");
    place.write("bad.toml", "name = \"bad\"\n[[steps]]\nid = \n");
    let told = place.run(["run", "bad.toml"]).with_code(2).stderr;
    assert!(told.contains("bad.toml:3:"), "{told}");
    place.write("unknown.toml", "name = \"u\"\n[[steps]]\nid = \"a\"\ncall = \"file-explorrer.list\"\n");
    let told = place.run(["run", "unknown.toml"]).with_code(2).stderr;
    assert!(told.contains("unknown.toml:4:") && told.contains("file-explorer"), "{told}");
}

#[test]
fn a_wrong_input_is_refused_with_what_is_allowed() {
    let place = Place::new();
    for (input, word) in [("pth=.", "path"), ("all=perhaps", "true"), ("no-equals-sign", "KEY=VALUE")] {
        let ended = place.run(main_job_arguments(&place.path("."), ["-i", input])).with_code(2);
        assert!(ended.stderr.contains(word), "{word} in {}", ended.stderr);
        assert_refused(&ended, word);
    }
}

/// Programs read stdout: what never became a run has its document too.
#[track_caller]
fn assert_refused(ended: &Ended, word: &str) {
    let document = ended.document();
    assert_eq!(document["state"], "failed", "{document}");
    assert_eq!((&document["steps"], &document["outputs"]), (&json!([]), &json!({})), "{document}");
    assert!(document["error"]["message"].as_str().is_some_and(|text| text.contains(word)), "{document}");
}

#[test]
fn a_melody_that_is_refused_gives_a_document_with_its_mistakes() {
    let place = Place::new();
    place.write("bad.toml", "name = \"bad\"\n[[steps]]\nid = \n");
    assert_refused(&place.run(["run", "--json", "bad.toml"]).with_code(2), "bad.toml:3:");
    assert_refused(&place.run(["run", "--json", "nowhere.toml"]).with_code(2), "nowhere.toml");
}

#[test]
fn a_missing_program_or_cargo_is_an_error_of_the_environment() {
    let place = Place::new();
    let manifest = "name = \"lost\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"lost\"]\n";
    place.write("extensions/lost/extension.toml", manifest);
    let told = place.run(["call", "lost.method", "{}"]).with_code(3).stderr;
    assert!(told.contains("extensions/lost/lost") && told.contains("[build]"), "{told}");

    place.write("extensions/lost/extension.toml", &format!("{manifest}[build]\ncargo-package = \"lost\"\n"));
    place.write("extensions/lost/Cargo.toml", "[package]\nname = \"lost\"\n");
    let mut command = place.conductor(["call", "lost.method", "{}"]);
    let output =
        command.env("PATH", place.path(".")).env_remove("CARGO").stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("cargo was not found"), "{told}");
}

#[test]
fn an_unknown_extension_is_named_with_those_that_there_are() {
    let place = Place::new();
    let told = place.run(["call", "nobody.method"]).with_code(2).stderr;
    assert!(told.contains("nobody") && told.contains("echo"), "{told}");
    place.run(["call", "no-dot"]).with_code(2);
    place.run(["call", "echo.echo", "{not json"]).with_code(2);
    assert!(repository().join("extensions/echo/extension.toml").is_file());
}

#[test]
fn with_json_every_failing_command_leaves_one_document() {
    let place = Place::new();
    place.write("wrong.toml", "colour = 1\n");
    for arguments in [
        vec!["extensions", "show", "nosuch", "--json"],
        vec!["artifacts", "get", "nosuch", "--json"],
        vec!["melody", "check", "nowhere.toml", "--json"],
        vec!["call", "nosuch.method", "--json"],
        vec!["extensions", "list", "--json", "--config", "wrong.toml"],
        vec!["frobnicate", "--json"],
    ] {
        let ended = place.run(&arguments);
        assert_ne!(ended.code, Some(0), "{arguments:?}");
        let document = ended.document();
        let is_told = document["error"]["message"].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_told || document.is_array(), "{arguments:?}: {document}");
    }
}
