//! The configuration with its layers, the look at the machine, completions and manual pages.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::{Ended, Place, skip};

#[test]
fn every_setting_is_shown_with_its_origin_and_the_stronger_layer_wins() {
    let place = Place::new();
    place.write("config/symphony/conductor.toml", "cores = 2\nbuild-profile = \"mine\"\nlog = \"error\"\n");
    place.write("project/conductor.toml", "# the project\ncores = 3\nextension-dirs = [\"more\"]\n");
    fs::create_dir_all(place.path("project/deep")).unwrap();
    let show = |arguments: &[&str]| {
        let arguments = ["config", "show", "--log", "debug"].iter().chain(arguments);
        let mut command = place.conductor(arguments);
        command.current_dir(place.path("project/deep")).env("SYMPHONY_STOP_TIMEOUT", "1500ms");
        command.env_remove("SYMPHONY_BUILD_PROFILE");
        Ended::of(command.output().unwrap()).with_code(0)
    };
    let document = show(&["--json", "--extensions", "own"]).document();
    let setting = |name: &str| {
        (document["settings"][name]["value"].clone(), document["settings"][name]["from"][0].clone())
    };
    let file = |name: &str, line: u32| json!({ "kind": "file", "file": place.path(name), "line": line });
    assert_eq!(setting("cores"), (json!(3), file("project/conductor.toml", 2)));
    assert_eq!(setting("build-profile"), (json!("mine"), file("config/symphony/conductor.toml", 2)));
    assert_eq!(setting("log"), (json!("debug"), json!({ "kind": "flag", "name": "--log" })));
    let variable = json!({ "kind": "variable", "name": "SYMPHONY_STOP_TIMEOUT" });
    assert_eq!(setting("stop-timeout"), (json!("1500ms"), variable));
    assert_eq!(setting("step-timeout"), (json!("30s"), json!({ "kind": "default" })));
    let folders = document["settings"]["extension-dirs"].clone();
    assert_eq!((&folders["value"][0], &folders["from"][0]["name"]), (&json!("own"), &json!("--extensions")));
    assert_eq!(folders["from"].as_array().unwrap().len(), 3, "{folders}");
    assert_eq!(folders["value"][2], json!(place.path("project/more")));
    assert_eq!(
        document["files"][0],
        json!({
            "file": place.path("config/symphony/conductor.toml"), "whose": "user", "read": true
        })
    );

    let told = show(&[]).stdout;
    assert!(told.contains("the user's file: ") && !told.contains("not there"), "{told}");
    for words in [["cores", "3", "conductor.toml:2"], ["step-timeout", "30s", "default"]] {
        let line = told.lines().find(|line| line.starts_with(words[0])).unwrap_or_else(|| panic!("{told}"));
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
}

#[test]
fn a_mistake_in_the_users_own_file_is_told_with_its_place() {
    let place = Place::new();
    place.write("config/symphony/conductor.toml", "cores = 2\ncoers = 3\n");
    let told = place.run(["config", "show"]).with_code(2).stderr;
    assert!(told.contains("config/symphony/conductor.toml:2:1"), "{told}");
    assert!(told.contains("did you mean `cores`?"), "{told}");
}

#[test]
fn the_doctor_says_what_works_and_what_follows_from_the_rest() {
    let place = Place::new();
    let document = place.run(["doctor", "--json"]).with_code(0).document();
    assert_eq!(document["fit"], true, "{document}");
    let checks = document["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in [
        "kernel",
        "pidfd_open",
        "launcher",
        "data folder",
        "disk space",
        "cargo",
        "landlock",
        "control groups",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for check in checks {
        let is_explained = check["follows"].as_str().is_some_and(|follows| !follows.is_empty());
        assert!(is_explained || check["state"] != "missing", "{check}");
    }
    let told = place.run(["doctor"]).with_code(0).stdout;
    assert!(told.contains("melodies can be run here"), "{told}");
    // It looks, and leaves nothing.
    assert!(!place.path("data").exists());
}

#[test]
fn the_doctor_exits_with_3_where_something_needed_is_missing() {
    let place = Place::new();
    place.write("data", "a file where the data folder should be");
    let document = place.run(["doctor", "--json"]).with_code(3).document();
    assert_eq!(document["fit"], false);
    let told = place.run(["doctor"]).with_code(3).stdout;
    assert!(told.contains("data folder (needed): name another one with --data DIR"), "{told}");
    let place = Place::new();
    let mut without = place.conductor(["doctor", "--json"]);
    let output = without.env("PATH", place.path(".")).env_remove("CARGO").output().unwrap();
    let document = Ended::of(output).with_code(0).document();
    let cargo = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == "cargo").unwrap();
    assert_eq!((&cargo["state"], &cargo["needed"]), (&json!("missing"), &json!(false)), "{cargo}");
    assert!(cargo["found"].as_str().unwrap().starts_with("program cargo cannot be executed"), "{cargo}");
}

#[test]
fn the_doctor_reports_what_is_wrong_with_the_settings_and_the_rest_as_well() {
    let place = Place::new();
    let doctor = |arguments: &[&str], variables: &[(&str, &str)], without: &[&str]| {
        let mut command = place.conductor(["doctor"].iter().chain(arguments));
        for name in without {
            command.env_remove(name);
        }
        Ended::of(command.envs(variables.iter().copied()).output().unwrap()).with_code(3)
    };
    let no_home = ["SYMPHONY_DATA_DIR", "XDG_DATA_HOME", "HOME"];
    place.write("wrong.toml", "cores = \n");
    for (ended, found) in [
        (doctor(&["--json"], &[], &no_home), "no data folder"),
        (doctor(&["--json"], &[("SYMPHONY_CORES", "many")], &[]), "$SYMPHONY_CORES has a wrong value"),
        (doctor(&["--json", "--config", "wrong.toml"], &[], &[]), "wrong.toml:1:"),
    ] {
        let document = ended.document();
        let checks = document["checks"].as_array().unwrap();
        let row = checks.iter().find(|check| check["name"] == "configuration").unwrap();
        assert_eq!((&document["fit"], &row["needed"]), (&json!(false), &json!(true)), "{document}");
        assert!(row["found"].as_str().unwrap().contains(found), "{found} in {row}");
        assert!(checks.iter().any(|check| check["name"] == "cargo"), "{document}");
    }
    let told = doctor(&[], &[], &no_home).stdout;
    assert!(told.contains("configuration (needed): name a folder with --data DIR"), "{told}");
}

#[test]
fn completions_and_manual_pages_are_had_whatever_the_configuration_says() {
    let place = Place::new();
    place.write("conductor.toml", "nonsense = 1\n");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.run(["completions", shell]).with_code(0).stdout;
        assert!(script.contains("conductor") && script.contains("artifacts"), "{shell}: {script}");
        if shell == "bash" {
            place.write("script", &script);
        }
    }
    place.run(["completions", "dos"]).with_code(2);
    match Command::new("bash").arg("-n").arg(place.path("script")).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => {
            skip("completions_and_manual_pages_are_had_whatever_the_configuration_says", &error.to_string())
        }
    }

    place.run(["man", "pages"]).with_code(0);
    let page = |name: &str| fs::read_to_string(place.path("pages").join(name)).unwrap();
    assert!(page("conductor.1").contains(".SH \"EXIT CODES\""), "{}", page("conductor.1"));
    assert!(page("conductor-melody-graph.1").contains("mermaid"), "{}", page("conductor-melody-graph.1"));
    let run = page("conductor-run.1");
    let (synopsis, rest) = run.split_once(".SH DESCRIPTION").unwrap();
    assert!(synopsis.contains("[OPTIONS] <MELODY>"), "{synopsis}");
    let (options, arguments) = rest.split_once(".SH ARGUMENTS").unwrap();
    assert!(options.contains("input") && !options.contains("<\\fIMELODY"), "{options}");
    assert!(arguments.contains("MELODY"), "{arguments}");
    assert_eq!(place.run(["man"]).with_code(0).stdout, page("conductor.1"));
    place.write("file", "");
    place.run(["man", "file"]).with_code(1);
}
