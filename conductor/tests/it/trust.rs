//! What is found without being named: only what this user or root put there is run and obeyed, the nearest
//! extension is the one that is meant, and a file that is no configuration is not read for ever.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use serde_json::json;

use crate::support::{Ended, Place, by_a_shell, skip};

/// Somebody who is neither root nor runs these tests.
const SOMEBODY: u32 = 65534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is this user's");
}

/// An extension `hello` in `folder` whose program only leaves the file `ran` beside itself.
fn hello(place: &Place, folder: &str) {
    let manifest = "name = \"hello\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"x.sh\"]\n";
    place.write(&format!("{folder}/extension.toml"), manifest);
    let program = place.write(&format!("{folder}/x.sh"), "#!/bin/sh\n: > \"${0%/*}/ran\"\nexit 1\n");
    set_mode(&program, 0o755);
}

/// Runs the conductor in `folder`.
fn run_in(place: &Place, folder: &str, arguments: &[&str]) -> Ended {
    fs::create_dir_all(place.path(folder)).expect("the folder is made");
    let output = place.conductor(arguments).current_dir(place.path(folder)).output();
    Ended::of(output.expect("the conductor runs"))
}

fn is_listed(ended: &Ended) -> bool {
    ended.document().as_array().expect("a list").iter().any(|entry| entry["name"] == "hello")
}

#[test]
fn an_extension_that_others_could_have_put_above_is_neither_listed_nor_run() {
    for open in ["extensions", "extensions/hello", "extensions/hello/extension.toml", "extensions/hello/x.sh"]
    {
        let place = Place::new();
        hello(&place, "shared/extensions/hello");
        let open = place.path("shared").join(open);
        let mode = fs::metadata(&open).unwrap().permissions().mode();
        set_mode(&open, 0o777);
        let ended = run_in(&place, "shared/mine", &["call", "hello.greet", "{}"]).with_code(2);
        let warning = format!("warning: {} is ignored: everybody may write to it", open.display());
        assert_eq!(ended.stderr.matches(&warning).count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("name it with --extensions DIR"), "{}", ended.stderr);
        let ended = run_in(&place, "shared/mine", &["extensions", "list", "--json"]).with_code(0);
        assert!(!is_listed(&ended) && ended.stderr.contains(&warning), "{ended:?}");
        assert!(!place.path("shared/extensions/hello/ran").exists());

        let named = ["extensions", "list", "--json", "--extensions", "../extensions"];
        let ended = run_in(&place, "shared/mine", &named).with_code(0);
        assert!(is_listed(&ended) && !ended.stderr.contains("warning"), "what is named is meant: {ended:?}");
        set_mode(&open, mode & 0o7777);
        run_in(&place, "shared/mine", &["call", "hello.greet", "{}"]).with_code(1);
        assert!(place.path("shared/extensions/hello/ran").exists(), "one's own is run");
    }
}

#[test]
fn what_belongs_to_another_user_is_neither_run_nor_obeyed() {
    let place = Place::new();
    hello(&place, "shared/extensions/hello");
    let file = place.write("shared/conductor.toml", "cores = 3\n");
    let of_somebody = [file, place.path("shared/extensions")];
    for path in &of_somebody {
        if let Err(error) = chown(path, Some(SOMEBODY), None) {
            return skip("what_belongs_to_another_user_is_neither_run_nor_obeyed", &error.to_string());
        }
    }
    set_mode(&place.path("shared"), 0o1777);
    let ended = run_in(&place, "shared/mine", &["call", "hello.greet", "{}"]).with_code(2);
    for path in of_somebody {
        let warning =
            format!("warning: {} is ignored: it belongs to another user ({SOMEBODY})", path.display());
        assert_eq!(ended.stderr.matches(&warning).count(), 1, "{}", ended.stderr);
    }
    assert!(!place.path("shared/extensions/hello/ran").exists());
}

#[test]
fn a_configuration_that_others_could_have_put_above_is_passed_over_and_shown_as_ignored() {
    let place = Place::new();
    let farther = place.write("conductor.toml", "cores = 2\n");
    let file = place.write("shared/conductor.toml", "cores = 3\n");
    set_mode(&file, 0o666);
    let ended = run_in(&place, "shared/mine", &["config", "show", "--json"]).with_code(0);
    let document = ended.document();
    assert_eq!(document["settings"]["cores"]["value"], 2, "{document}");
    let files = document["files"].as_array().unwrap();
    let of = |path: &Path| files.iter().find(|found| found["file"] == json!(path)).unwrap();
    assert_eq!((&of(&farther)["read"], &of(&file)["read"]), (&json!(true), &json!(false)), "{document}");
    assert_eq!(of(&file)["ignored"], "everybody may write to it", "{document}");
    let told = run_in(&place, "shared/mine", &["config", "show"]).with_code(0);
    assert!(told.stdout.contains(&format!("ignored: {}", file.display())), "{}", told.stdout);
    assert_eq!(told.stderr.matches("warning: ").count(), 1, "{}", told.stderr);
    let named = run_in(&place, "shared/mine", &["config", "show", "--json", "--config", "../conductor.toml"]);
    let named = named.with_code(0);
    assert_eq!(named.document()["settings"]["cores"]["value"], 3, "{named:?}");
    assert_eq!(named.stderr, "");
}

#[test]
fn whoever_stands_in_an_extensions_folder_means_that_one_and_is_told_of_the_other() {
    let place = Place::new();
    hello(&place, "extensions/hello");
    hello(&place, "mine/hello");
    let inside = "mine/hello/src";
    let listed = run_in(&place, inside, &["extensions", "list", "--json"]).with_code(0).document();
    let entry = listed.as_array().unwrap().iter().find(|entry| entry["name"] == "hello").unwrap();
    assert_eq!(entry["manifest"], json!(place.path("mine/hello/extension.toml")), "{listed}");
    let ended = run_in(&place, inside, &["call", "hello.greet", "{}"]).with_code(1);
    assert!(place.path("mine/hello/ran").exists() && !place.path("extensions/hello/ran").exists());
    let (used, hidden) = (place.path("mine/hello"), place.path("extensions/hello"));
    let warning = format!(
        "warning: `hello` is {}/extension.toml, found before {}/extension.toml",
        used.display(),
        hidden.display()
    );
    assert_eq!(ended.stderr.matches(&warning).count(), 1, "{}", ended.stderr);
    let ended = run_in(&place, inside, &["call", "echo.echo", "{\"text\": \"x\"}"]).with_code(0);
    assert!(!ended.stderr.contains("warning"), "what is not called is not told: {}", ended.stderr);
}

#[test]
fn a_configuration_that_is_a_pipe_or_has_no_end_is_refused_at_once() {
    let place = Place::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for (file, why) in
        [("pipe", "it is a pipe"), (".", "directory"), ("/dev/zero", "it has more than 1048576 bytes")]
    {
        // Should it be read for ever, it is to end before the machine's memory does.
        let conductor = place.conductor(["config", "show", "--config", file]);
        let mut limited = by_a_shell(&[], "ulimit -v 4000000; exec \"$@\"", &conductor);
        let told = Ended::of(limited.output().unwrap()).with_code(2).stderr;
        assert!(told.contains(why), "{file}: {told}");
    }
    place.run(["config", "show", "--config", "/dev/null"]).with_code(0);
    place.write("large.toml", &format!("# {}\n", "x".repeat(1 << 20)));
    let told = place.run(["config", "show", "--config", "large.toml"]).with_code(2).stderr;
    assert!(told.contains("it has more than 1048576 bytes"), "{told}");
}
