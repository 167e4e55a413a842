//! Where the conductor meets others: words that would steer a terminal, programs that are asked for their
//! description, readers of stdout that are gone.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::support::{Ended, Place, melody_that_stores};

/// An extension that is a script: not one that can be called, but one that is started and says something.
fn script(place: &Place, manifest: &str, text: &str) {
    let head = "name = \"script\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"script\"]\n";
    place.write("mine/script/extension.toml", &format!("{head}{manifest}"));
    let program = place.write("mine/script/script", &format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("it is made executable");
}

#[track_caller]
fn assert_printable(text: &str) {
    let control = text.chars().find(|&text| text.is_control() && text != '\n' && text != '\t');
    assert_eq!(control, None, "{text:?}");
}

#[test]
fn an_extension_cannot_steer_the_terminal() {
    let place = Place::new();
    script(&place, "", r"printf 'a\033]0;title\007\033[2Jz\r\302\2331m\n' >&2; exit 1");
    let told = place.run(["extensions", "build", "script", "--extensions", "mine"]).with_code(1).stderr;
    assert_printable(&told);
    assert!(told.contains(r"a\u{1b}]0;title"), "{told}");
    let told = place.run(["call", "script.x", "--extensions", "mine", "--log", "info"]).with_code(1).stderr;
    assert_printable(&told);
    assert!(told.contains("]0;title"), "{told}");
    // A fault that names a key of the caller's.
    let told = place.run(["call", "echo.echo", r#"{"text": "x", "a\u001b[2J": 1}"#]);
    assert_printable(&told.stderr);
}

#[test]
fn a_program_is_described_under_the_restrictions_of_an_instance() {
    let place = Place::new();
    let restrictions = "environment = { GIVEN = \"given\" }\nnice = 7\n\
        [limits]\nopen-files = 64\n[permissions]\nenvironment = [\"PERMITTED\"]\n";
    let text = r#"status=$(/bin/cat /proc/self/status)
set -- ${status##*NoNewPrivs:}
echo "GIVEN=$GIVEN PERMITTED=$PERMITTED HIDDEN=$HIDDEN nice=$(/usr/bin/nice) files=$(ulimit -n) privileges=$1" >&2
exit 1"#;
    script(&place, restrictions, text);
    let mut command = place.conductor(["extensions", "build", "script", "--extensions", "mine"]);
    let output = command.env("PERMITTED", "permitted").env("HIDDEN", "hidden").output();
    let own_nice = fs::read_to_string("/proc/self/stat").expect("/proc");
    let own_nice: i32 =
        own_nice.rsplit_once(") ").expect("a name").1.split(' ').nth(16).expect("a field").parse().unwrap();
    let told = Ended::of(output.expect("the conductor runs")).with_code(1).stderr;
    let nice = (own_nice + 7).min(19);
    let expected = format!("GIVEN=given PERMITTED=permitted HIDDEN= nice={nice} files=64 privileges=1");
    assert!(told.contains(&expected), "{told}");
}

#[test]
fn an_extension_without_a_description_is_said_to_have_none_and_why() {
    let place = Place::new();
    script(&place, "", "echo 'nothing to say' >&2; exit 3");
    place.write("m.toml", "name = \"m\"\n[[steps]]\nid = \"a\"\ncall = \"script.x\"\n");
    for (command, code) in [(["melody", "check"].as_slice(), 3), (&["run"], 2)] {
        let arguments = command.iter().chain(&["m.toml", "--extensions", "mine"]);
        let told = place.run(arguments).with_code(code).stderr;
        assert!(told.contains("conductor extensions build script"), "{told}");
        assert!(!told.contains("there is no extension") && !told.contains("did you mean"), "{told}");
        assert!(code == 3 || told.contains("nothing to say"), "{told}");
    }
}

#[test]
fn an_unknown_method_is_told_with_the_nearest_and_all() {
    let place = Place::new();
    let told = place.run(["call", "operators.measur"]).with_code(2).stderr;
    assert!(told.contains("has no method `measur`") && told.contains("did you mean `measure`?"), "{told}");
    assert!(told.contains("its methods: ") && told.contains("rank"), "{told}");
    assert!(!told.contains("extensions build"), "{told}");
}

#[test]
fn a_stdout_that_is_gone_or_full_is_an_exit_code_and_no_panic() {
    let place = Place::new();
    let text = "x".repeat(1 << 20);
    melody_that_stores(&place, &text[..200_000]);
    let document = place.run(["run", "m.toml", "--json"]).with_code(0).document();
    let digest = document["outputs"]["text"]["digest"].as_str().expect("a digest");
    let argument = format!("{{\"text\": \"{}\"}}", &text[..100_000]);
    for arguments in [
        vec!["call", "echo.echo", &argument],
        vec!["run", "m.toml"],
        vec!["run", "m.toml", "--json"],
        vec!["artifacts", "get", digest],
        vec!["artifacts", "list"],
        vec!["artifacts", "verify"],
        vec!["extensions", "show", "echo"],
        vec!["melody", "check", "m.toml"],
        vec!["melody", "graph", "m.toml", "--format", "svg"],
        vec!["config", "show"],
        vec!["doctor"],
        vec!["completions", "bash"],
        vec!["man"],
        vec!["--help"],
    ] {
        let what = arguments[..2.min(arguments.len())].join(" ");
        // Its reader takes one byte and goes; what is shorter than a pipe may be written all the same.
        let mut command = place.conductor(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut [0]).expect("one byte");
        drop(stdout);
        let ended = Ended::of(child.wait_with_output().expect("it ends"));
        assert!(matches!(ended.code, Some(0 | 1)), "{what}: {:?}: {}", ended.code, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{what}: {:?}: {}", ended.code, ended.stderr);

        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let ended = Ended::of(place.conductor(&arguments).stdout(full).output().expect("it runs"));
        assert_eq!(ended.code, Some(3), "{what}: {}", ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{what}: {}", ended.stderr);

        // Where nothing can be written at all, the standard library takes what is written for written.
        let read_only = File::open("/dev/null").expect("/dev/null");
        let ended = Ended::of(place.conductor(&arguments).stdout(read_only).output().expect("it runs"));
        assert!(matches!(ended.code, Some(0 | 3)), "{what}: {:?}: {}", ended.code, ended.stderr);
    }
}
