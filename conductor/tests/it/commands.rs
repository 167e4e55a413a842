//! `call`, `melody check`, `extensions ...` and `artifacts ...`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use artifact_store::{Expected, Store, StoreOptions};
use serde_json::{Value, json};

use crate::support::{Place, many_files, package_with_a_mistake, repository};

fn echo_only(place: &Place) {
    place.run(["extensions", "build", "echo"]).with_code(0);
}

#[test]
fn call_prints_the_answer_and_tells_a_fault() {
    let place = Place::new();
    let ended = place.run(["call", "echo.echo", r#"{"text": "hello \u00fc"}"#]).with_code(0);
    assert_eq!(ended.document(), json!("hello \u{fc}"));
    let told = place.run(["call", "file-explorer.list", r#"{"path": "/nowhere"}"#]);
    let told = told.with_code(1).stderr;
    assert!(
        told.contains("error: the call of file-explorer.list failed") && told.contains("try again: never"),
        "{told}"
    );
    let told = place.run(["call", "echo.nothing"]).with_code(2).stderr;
    assert!(told.contains("nothing"), "{told}");
    place.run(["call", "echo.echo", "{}", "--timeout", "soon"]).with_code(2);
}

#[test]
fn wrong_arguments_of_a_call_are_named_before_anything_is_started() {
    let place = Place::new();
    echo_only(&place);
    let told = place.run(["call", "echo.echo", r#"{"txt": "x"}"#, "--log", "info"]).with_code(2).stderr;
    assert!(told.contains("`echo` takes no argument `txt` (did you mean `text`?)"), "{told}");
    assert!(told.contains("`echo` needs the argument `text`"), "{told}");
    assert!(told.contains("conductor extensions show echo") && !told.contains("starts"), "{told}");
    let document = place.run(["call", "echo.echo", r#"{"text": 1}"#, "--json"]).with_code(2).document();
    assert_eq!(document["error"]["message"], "`text` must be a string, not an integer");
    assert_eq!(document["error"]["origin"], "caller");
}

#[test]
fn what_an_extension_says_of_its_progress_is_in_its_log_only() {
    let place = Place::new();
    // It says something every few hundred files.
    many_files(&place.path("tree"), 600);
    place.run(["extensions", "build", "file-explorer"]).with_code(0);
    let call = ["call", "file-explorer.list", r#"{"path": "tree"}"#];
    assert_eq!(place.run(call).with_code(0).stderr, "");
    let told = place.run(call.iter().chain(&["--log", "warn,extension=debug"])).with_code(0).stderr;
    assert!(told.contains("files found") && told.contains("progress=file-explorer.list"), "{told}");
    place.write(
        "m.toml",
        "name = \"m\"\n[[steps]]\nid = \"look\"\ncall = \"file-explorer.list\"\nwith = { path = \"tree\" }\n",
    );
    let told = place.run(["run", "m.toml", "--log", "warn,extension=debug"]).with_code(0).stderr;
    assert!(told.contains("files found") && told.contains("progress=look"), "{told}");
}

#[test]
fn extensions_are_listed_shown_and_described_only_after_a_build() {
    let place = Place::new();
    let state = |place: &Place| {
        let list = place.run(["extensions", "list", "--json"]).with_code(0).document();
        let list: Vec<Value> = serde_json::from_value(list).unwrap();
        list.iter().find(|entry| entry["name"] == "echo").expect("echo is listed")["state"].clone()
    };
    assert_eq!(state(&place), "not built");
    let told = place.run(["extensions", "show", "echo"]).with_code(0).stdout;
    assert!(told.contains("conductor extensions build echo"), "{told}");
    echo_only(&place);
    assert_eq!(state(&place), "built");
    let told = place.run(["extensions", "show", "echo"]).with_code(0).stdout;
    assert!(told.contains("echo.echo("), "{told}");
    let document = place.run(["extensions", "show", "echo", "--json"]).with_code(0).document();
    let method = &document["interfaces"][0]["methods"][0];
    assert_eq!(method["name"], "echo");
    assert_eq!(method["arguments"]["type"], "object", "{method}");
    let told = place.run(["extensions", "show", "ecco"]).with_code(2).stderr;
    assert!(told.contains("did you mean `echo`?"), "{told}");
}

#[test]
fn manifests_are_checked_with_their_places() {
    let place = Place::new();
    let told = place.run(["extensions", "check"]).with_code(0);
    assert!(told.stdout.contains("no mistakes"), "{} {}", told.stdout, told.stderr);
    let manifest =
        "name = \"wrong\"\nversion = \"0.1.0\"\nteir = \"process\"\n[run]\ncommand = [\"wrong\"]\n";
    place.write("mine/wrong/extension.toml", manifest);
    let told = place.run(["extensions", "check", "mine"]).with_code(2).stderr;
    assert!(told.contains("extension.toml:3:1") && told.contains("did you mean `tier`?"), "{told}");
    let document = place.run(["extensions", "check", "mine", "--json"]).with_code(2).document();
    assert_eq!(
        (&document["findings"][0]["line"], &document["findings"][0]["column"]),
        (&json!(3), &json!(1))
    );
    // A broken manifest spoils its own extension only.
    place.run(["extensions", "list", "--extensions", "mine"]).with_code(0);
    place.run(["extensions", "check", "nowhere"]).with_code(2);
}

#[test]
fn a_program_that_cannot_be_executed_is_found_by_the_check() {
    let place = Place::new();
    let manifest = "name = \"mine\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"program\"]\n";
    place.write("mine/extension.toml", manifest);
    let check = |code| place.run(["extensions", "check", "mine"]).with_code(code).stderr;
    assert!(check(2).contains("program is missing"));
    let program = place.path("mine/program");
    fs::create_dir(&program).unwrap();
    assert!(check(2).contains("is no file"));
    fs::remove_dir(&program).unwrap();
    for (text, mode, expected) in [
        ("#!/bin/sh\n", 0o644, Some("chmod +x")),
        ("#!/bin/sh\n", 0o755, None),
        ("#! /bin/sh -e\n", 0o755, None),
        ("#!/no/such/interpreter -x\n", 0o755, Some("/no/such/interpreter is missing")),
        ("#!/bin/sh\r\n", 0o755, Some("carriage return")),
        ("#!", 0o755, None),
        ("", 0o755, None),
    ] {
        place.write("mine/program", text);
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        match expected {
            Some(expected) => {
                let told = check(2);
                assert!(told.contains(expected), "{text:?}: {told}");
            }
            None => assert_eq!(check(0), "", "{text:?}"),
        }
    }
}

#[test]
fn a_call_is_told_which_bound_ended_it_and_what_keeps_its_extension_from_starting() {
    let place = Place::new();
    let manifest =
        "name = \"mine\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"program\"]\n[limits]\ncall = \"1s\"\n";
    place.write("mine/extension.toml", manifest);
    let sleeps = "#!/bin/sh\n[ \"$1\" = --describe ] && exit 1\nexec sleep 100\n";
    let program = place.path("mine/program");
    for (text, mode, message, help) in [
        (
            sleeps,
            0o755,
            "the deadline passed while `mine` was starting",
            "`limits.call` = 1s in the extension.toml",
        ),
        (sleeps, 0o644, "make it executable with chmod +x", "correct"),
        ("#!/no/such/interpreter\n", 0o755, "the interpreter of its `#!` line", "correct"),
    ] {
        place.write("mine/program", text);
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let arguments = ["call", "mine.x", "{}", "--json", "--timeout", "60s", "--extensions", "mine"];
        let ended = place.run(arguments).with_code(1);
        let error = &ended.document()["error"];
        let contains = |key: &str, text| error[key].as_str().is_some_and(|told| told.contains(text));
        assert!(contains("message", message) && contains("help", help), "{error}");
        assert_eq!((&error["origin"], &error["extension"]), (&json!("extension"), &json!("mine")), "{error}");
    }
}

#[test]
fn a_manifest_that_is_no_file_is_told_and_not_waited_for() {
    let place = Place::new();
    fs::create_dir_all(place.path("mine/piped")).unwrap();
    let pipe = place.path("mine/piped/extension.toml");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let told = place.run(["extensions", "check", "mine"]).with_code(2).stderr;
    assert!(told.contains("it is a pipe") && told.contains("piped/extension.toml"), "{told}");
    let listed = place.run(["extensions", "list", "--extensions", "mine"]).with_code(0).stdout;
    assert!(listed.contains("piped") && listed.contains("broken manifest"), "{listed}");
}

#[test]
fn a_build_that_fails_shows_what_the_compiler_says() {
    let place = Place::new();
    package_with_a_mistake(&place);
    let told = place.run(["extensions", "build", "bad", "--extensions", "mine"]).with_code(1).stderr;
    assert!(told.contains("mismatched types") && told.contains("the build of bad failed"), "{told}");
    assert!(told.contains("(at fault: the extension `bad`)"), "{told}");
    let ended = place.run(["call", "bad.x", "--extensions", "mine", "--json"]).with_code(1);
    let error = &ended.document()["error"];
    assert_eq!((error["origin"].as_str(), error["extension"].as_str()), (Some("extension"), Some("bad")));
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains("error[E0308]: mismatched types, at ") && message.contains("main.rs:1:"),
        "{error}"
    );
    place.write("mine/bad/src/main.rs", "fn main() {}\n");
    let told = place.run(["extensions", "build", "bad", "--extensions", "mine"]).with_code(1).stderr;
    assert!(told.contains("does not describe itself"), "{told}");
}

#[test]
fn a_build_is_remembered_and_not_asked_for_again() {
    let place = Place::new();
    let first = place.run(["call", "echo.echo", r#"{"text": "x"}"#]).with_code(0);
    assert!(first.stderr.contains("building echo"), "{}", first.stderr);
    let second = place.run(["call", "echo.echo", r#"{"text": "x"}"#]).with_code(0);
    assert_eq!(second.stderr, "");
}

#[test]
fn melodies_are_checked_without_running_anything() {
    let place = Place::new();
    place.write(
        "good.toml",
        "name = \"good\"\n[[steps]]\nid = \"a\"\ncall = \"echo.echo\"\nwith = { text = \"x\" }\n",
    );
    let told = place.run(["melody", "check", "good.toml"]).with_code(3).stderr;
    assert!(told.contains("conductor extensions build echo"), "{told}");
    echo_only(&place);
    let told = place.run(["melody", "check", "good.toml"]).with_code(0).stdout;
    assert!(told.contains("1 step, no mistakes"), "{told}");
    place.write(
        "bad.toml",
        "name = \"bad\"\n[[steps]]\nid = \"a\"\ncall = \"echo.ecco\"\nwith = { text = \"x\" }\n",
    );
    let told = place.run(["melody", "check", "bad.toml"]).with_code(2).stderr;
    assert!(told.contains("bad.toml:4:"), "{told}");
    let document = place.run(["melody", "check", "bad.toml", "--json"]).with_code(2).document();
    assert_eq!(document["mistakes"][0]["line"], 4);
}

#[test]
fn artifacts_are_listed_fetched_and_verified() {
    let place = Place::new();
    place.write(
        "melody.toml",
        "name = \"m\"\n[[steps]]\nid = \"a\"\ncall = \"echo.echo\"\nwith = { text = \"some text\" }\n\
         output = { artifact = \"text.txt\" }\n",
    );
    let document = place.run(["run", "melody.toml", "--json"]).with_code(0).document();
    let name = format!("{}/text.txt", document["run"].as_str().unwrap());
    let digest = document["outputs"]["text.txt"]["digest"].as_str().unwrap().to_owned();

    let list = place.run(["artifacts", "list", "--json"]).with_code(0).document();
    assert_eq!(list, json!([{ "names": [name], "digest": digest, "bytes": 9 }]));
    assert!(place.run(["artifacts", "list"]).with_code(0).stdout.contains(&name));
    assert_eq!(place.run(["artifacts", "get", &name]).with_code(0).stdout, "some text");
    place.run(["artifacts", "get", &digest, "-o", "copy.txt"]).with_code(0);
    assert_eq!(fs::read_to_string(place.path("copy.txt")).unwrap(), "some text");
    place.run(["artifacts", "get", &digest, "-o", "copy.txt"]).with_code(1);
    let told = place.run(["artifacts", "get", "no/such"]).with_code(1).stderr;
    assert!(told.contains("no artifact named `no/such`"), "{told}");
    place.run(["artifacts", "verify"]).with_code(0);

    let object = document["outputs"]["text.txt"]["path"].as_str().unwrap();
    fs::remove_file(object).unwrap();
    fs::write(object, "other text").unwrap();
    let told = place.run(["artifacts", "verify"]).with_code(1).stdout;
    assert!(told.contains("1 damaged or missing"), "{told}");
    assert_eq!(place.run(["artifacts", "get", &name]).with_code(1).stdout, "");
}

#[test]
fn a_damaged_pack_is_seen_and_what_is_whole_in_it_is_not_missed() {
    let place = Place::new();
    let items = ["one", "two, which is cut off"];
    let digests = {
        let store = Store::open(&place.path("data/artifacts"), StoreOptions::default()).unwrap();
        let stored = store.put_batch(&items).unwrap();
        for (name, stored) in ["mine/one", "mine/two"].iter().zip(&stored) {
            store.set_name(name, &stored.digest, Expected::Absent).unwrap();
        }
        [0, 1].map(|at| stored[at].digest.to_string())
    };
    let pack = fs::read_dir(place.path("data/artifacts/packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();
    bytes[70] ^= 1;
    fs::write(&pack, &bytes[..bytes.len() - 1]).unwrap();
    // Whoever looks first mends it; whoever looks later is told the same.
    for command in ["list", "verify", "list", "verify"] {
        let rows = place.run(["artifacts", command, "--json"]).with_code(1).document();
        let rows = rows.as_array().unwrap();
        let row = |at: usize| rows.iter().find(|row| row["digest"] == digests[at].as_str()).unwrap();
        assert_eq!(rows.len(), 2, "{command}: {rows:?}");
        assert_eq!(
            (&row(0)["names"], &row(0)["bytes"], row(0).get("error")),
            (&json!(["mine/one"]), &json!(3), None)
        );
        assert_eq!(row(1)["names"], json!(["mine/two"]), "{command}");
        assert!(row(1)["error"].as_str().unwrap().contains("damaged"), "{command}: {rows:?}");
    }
    let told = place.run(["artifacts", "verify"]).with_code(1).stdout;
    assert!(
        told.contains("mine/two: artifact") && told.contains("1 sound (3 B), 1 damaged or missing"),
        "{told}"
    );
    assert_eq!(place.run(["artifacts", "get", "mine/one"]).with_code(0).stdout, "one");
    place.run(["artifacts", "get", "mine/two"]).with_code(1);
    place.run(["artifacts", "collect", "--dry-run"]).with_code(0);

    // Nothing is left of another one: that something is lost is told, and by which names.
    let pack = fs::read_dir(place.path("data/artifacts/packs")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, "").unwrap();
    for command in ["list", "verify"] {
        let rows = place.run(["artifacts", command, "--json"]).with_code(1).document();
        let text = rows.to_string();
        assert!(text.contains("a damaged pack has lost") && text.contains("mine/one"), "{command}: {text}");
    }
}

#[test]
fn the_extensions_beside_a_melody_are_found_without_a_flag() {
    let place = Place::new();
    let melody = repository().join("melodies/folder-report.toml");
    place.write("tree/a", "a");
    let mut command =
        place.conductor(["run".as_ref(), melody.as_os_str(), "-i".as_ref(), "path=tree".as_ref()]);
    let output = command.env_remove("SYMPHONY_EXTENSION_DIRS").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
