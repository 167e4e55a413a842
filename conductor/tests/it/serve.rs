//! `serve`, and what is asked of one that stays up: with real processes.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{BOUND, Ended, Place, Running, eventually, target_folder};

#[track_caller]
fn has(ended: &Ended, text: &str) {
    assert!(ended.stderr.contains(text), "{text:?} is not in {}", ended.stderr);
}

/// A conductor that serves `echo`, once it does.
fn serving(place: &Place, more: &[&str]) -> Running {
    let names = ["serve", "echo"].into_iter().chain(more.iter().copied());
    let running = place.start(names);
    eventually("it serves", || place.run(["ps"]).code == Some(0));
    running
}

fn state(place: &Place, name: &str) -> Value {
    let states = place.run(["ps", "--json"]).with_code(0).document();
    let found = states.as_array().expect("a list").iter().find(|state| state["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not among {states}")).clone()
}

#[test]
fn calls_go_through_the_one_that_serves_and_it_tells_of_them() {
    let place = Place::new();
    has(&place.run(["ps"]).with_code(3), "no conductor serves");
    let running = serving(&place, &[]);
    assert_eq!(state(&place, "echo")["state"], "stopped");
    let said = place.run(["call", "echo.echo", r#"{"text": "through"}"#]).with_code(0);
    assert_eq!(said.stdout, "\"through\"\n");
    let first = state(&place, "echo");
    assert_eq!(
        (&first["state"], &first["calls"], &first["generation"]),
        (&json!("ready"), &json!(1), &json!(1))
    );
    // Alone it starts one of its own, of which the other knows nothing.
    place.run(["call", "--alone", "echo.echo", r#"{"text": "alone"}"#]).with_code(0);
    assert_eq!(state(&place, "echo")["calls"], 1);
    // Faults pass with their words.
    has(&place.run(["call", "echo.shout", "{}"]).with_code(1), "has no method \"shout\"");
    has(&place.run(["call", "echo.echo", "{}"]).with_code(1), "missing field `text`");

    let pid = first["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    kill_process(pid.expect("it runs"), Signal::KILL).expect("it is ours");
    eventually("it is started again", || state(&place, "echo")["generation"] == 2);
    let why = place.run(["why", "echo"]).with_code(0);
    assert!(
        why.stdout.contains("instance 1 ended") && why.stdout.contains("SIGKILL ended it"),
        "{}",
        why.stdout
    );
    let why = place.run(["why", "echo", "--json"]).with_code(0).document();
    assert_eq!(why["ends"][0]["generation"], 1, "{why}");
    assert_eq!(why["extension"]["restarts"], 1, "{why}");

    place.run(["stop", "echo"]).with_code(0);
    assert_eq!(state(&place, "echo")["state"], "stopped");
    place.run(["reset", "echo"]).with_code(0);
    place.run(["call", "echo.echo", r#"{"text": "again"}"#]).with_code(0);
    for command in ["why", "stop", "reset"] {
        has(&place.run([command, "nobody"]).with_code(1), "nobody");
    }
    place.run(["stop"]).with_code(0);
    has(&running.wait().with_code(0), "a client asks for the end");
    place.run(["ps"]).with_code(3);
}

#[test]
fn there_is_one_for_a_data_folder_and_a_killed_one_leaves_room_for_the_next() {
    let place = Place::new();
    let first = serving(&place, &[]);
    place.run(["call", "echo.echo", r#"{"text": "x"}"#]).with_code(0);
    let own = first.descendant("echo");
    let second = place.run(["serve", "echo"]).with_code(3);
    has(&second, &format!("in use by process {}", first.pid()));
    first.signal(Signal::KILL);
    first.wait();
    eventually("its extension is gone", || !own.is_alive());
    // What it left behind lets nobody in, and is not in the way.
    has(&place.run(["ps"]).with_code(3), "no conductor serves");
    let third = serving(&place, &[]);
    third.signal(Signal::TERM);
    has(&third.wait().with_code(0), "a signal asks for the end");
}

#[test]
fn clients_that_are_silent_wrong_or_many_disturb_nobody() {
    let place = Place::new();
    let running = serving(&place, &[]);
    let socket = place.path("data/serve/socket");
    let connect = || UnixStream::connect(&socket).expect("it listens");
    let silent: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
    let wrong = connect();
    drop((&wrong).write_all(&[b'x'; 4096]));
    // Those who say nothing are sent away; until then there may be no room.
    eventually("the others are let in again", || {
        place.run(["call", "echo.echo", r#"{"text": "x"}"#]).code == Some(0)
    });
    for mut channel in silent {
        channel.set_read_timeout(Some(BOUND)).expect("it has a socket");
        assert!(matches!(channel.read(&mut [0; 16]), Ok(0) | Err(_)), "nothing is said to one who is silent");
    }
    // One that is let in and then talks nonsense, or nothing at all.
    let token = std::fs::read_to_string(place.path("data/serve/token")).expect("it is there");
    let mut preamble = b"SYMPHONY\x01\x01\0\0\0\0\0\0".to_vec();
    preamble.extend(
        (0..32).map(|place| u8::from_str_radix(&token[2 * place..2 * place + 2], 16).expect("digits")),
    );
    let mut guests: Vec<UnixStream> = (0..8).map(|_| connect()).collect();
    for (place, guest) in guests.iter_mut().enumerate() {
        guest.write_all(&preamble).expect("there is room");
        let mut answer = [0; 4];
        guest.read_exact(&mut answer).expect("it is answered");
        assert_eq!(answer, *b"SY\0\0");
        if place % 2 == 0 {
            guest.write_all(&[0xff; 64]).expect("there is room");
        }
    }
    assert_eq!(place.run(["call", "echo.echo", r#"{"text": "x"}"#]).with_code(0).stdout, "\"x\"\n");
    running.signal(Signal::INT);
    running.wait().with_code(0);
}

#[test]
fn a_client_that_goes_takes_its_call_along() {
    let place = Place::new();
    let running = serving(&place, &["hostile"]);
    // Its first instance never answers, cancelled or not; and only who was told to cancel, and does not, has hung.
    let client = place.start(["call", "hostile.hold", "{}", "--timeout", "5m"]);
    eventually("the call is there", || state(&place, "hostile")["in-flight"] == 1);
    client.signal(Signal::KILL);
    client.wait();
    eventually("it was cancelled, and is found to hang", || {
        state(&place, "hostile")["last-end"].as_str().is_some_and(|end| end.contains("hung"))
    });
    assert_eq!(place.run(["stop"]).with_code(0).stdout, "");
    running.wait().with_code(0);
}

#[test]
fn items_of_a_stream_are_printed_as_they_come_and_stop_with_their_reader() {
    let place = Place::new();
    let file = place.path("log.txt");
    std::fs::write(&file, "one\ntwo\n").expect("a file is written");
    let arguments = |follow: bool| json!({ "path": file.to_str(), "follow": follow }).to_string();
    let words = |more: &[&str], follow: bool| {
        let call = ["call".to_owned(), "file-explorer.lines".to_owned(), arguments(follow)];
        call.into_iter().chain(more.iter().map(ToString::to_string)).collect::<Vec<_>>()
    };
    let printed = place.path("printed.txt");
    let running = place.start(["serve", "file-explorer"]);
    eventually("it serves", || place.run(["ps"]).code == Some(0));
    for more in [&["--alone"][..], &[]] {
        assert_eq!(place.run(words(more, false)).with_code(0).stdout, "\"one\"\n\"two\"\n");
        // One that goes on until its reader has enough.
        std::fs::write(&file, "one\n").expect("a file is written");
        let mut follower = place.conductor(words(more, true));
        follower.stdout(std::fs::File::create(&printed).expect("it is written to"));
        let mut follower = follower.spawn().expect("it starts");
        let is_printed =
            |expected: &str| std::fs::read_to_string(&printed).is_ok_and(|printed| printed == expected);
        let mut expected = "\"one\"\n".to_owned();
        eventually("the first comes", || is_printed(&expected));
        for line in ["two", "three"] {
            let mut appends = std::fs::File::options().append(true).open(&file).expect("it is there");
            appends.write_all(format!("{line}\n").as_bytes()).expect("it is written");
            expected.push_str(&format!("\"{line}\"\n"));
            eventually("what is appended comes", || is_printed(&expected));
        }
        kill_process(Pid::from_child(&follower), Signal::INT).expect("it is ours");
        assert_eq!(follower.wait().expect("it ends").code(), Some(130));
        std::fs::write(&file, "one\ntwo\n").expect("a file is written");
    }
    // Nothing is left that reads.
    eventually("nobody reads it", || state(&place, "file-explorer")["streams"] == 0);
    drop(running);
}

/// Writes a manifest of `hostile` that misbehaves as `mode` says, and builds it; returns the folder of extensions.
fn hostile(place: &Place, mode: &str) -> String {
    place.run(["extensions", "build", "hostile"]).with_code(0);
    let program = target_folder().join("debug/hostile");
    let manifest = format!(
        "name = \"hostile\"\nversion = \"0.1.0\"\n[run]\ncommand = [{program:?}, \"{mode}\"]\n\
         [restart]\nbackoff = [\"1ms\", \"1ms\"]\n"
    );
    place.write("own/hostile/extension.toml", &manifest);
    place.path("own").to_str().expect("it is text").to_owned()
}

#[test]
fn what_happens_and_what_is_said_can_be_followed() {
    let place = Place::new();
    let own = hostile(&place, "crash-exit");
    let running = place.start(["serve", "hostile", "--extensions", &own]);
    eventually("it serves", || place.run(["ps"]).code == Some(0));
    let follow = |arguments: &[&str], name: &str| {
        let file = place.path(name);
        let mut command = place.conductor(arguments);
        command.stdout(std::fs::File::create(&file).expect("it is written to"));
        (command.spawn().expect("it starts"), file)
    };
    let (mut events, told) = follow(&["events", "--past", "--json"], "events");
    let (mut logs, said) = follow(&["logs", "hostile", "--follow"], "logs");
    let read = |file: &std::path::Path| std::fs::read_to_string(file).unwrap_or_default();
    let kinds = || {
        let told = read(&told);
        let kind = |line: &str| {
            let event: Value = serde_json::from_str(line).expect("each line is a document");
            event["kind"].as_str().expect("it has a kind").to_owned()
        };
        told.lines().filter(|_| told.ends_with('\n')).map(kind).collect::<Vec<_>>()
    };
    has(&place.run(["call", "hostile.misbehave", "{}"]).with_code(1), "code 9");
    eventually("it is started again", || kinds().iter().filter(|kind| *kind == "ready").count() == 2);
    assert_eq!(kinds(), ["created", "ready", "died", "restarting", "created", "ready"]);
    eventually("its last words are told", || {
        read(&said).contains("stderr: hostile: exiting with code 9, as told")
    });
    place.run(["call", "hostile.misbehave", "{}"]).with_code(1);
    eventually("what comes later comes too", || read(&said).matches("exiting with code 9").count() == 2);
    for child in [&mut events, &mut logs] {
        kill_process(Pid::from_child(child), Signal::INT).expect("it is ours");
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
    }
    // Without following it ends by itself; of what is not there it says so.
    let kept = place.run(["logs", "--json"]).with_code(0);
    let last: Value = serde_json::from_str(kept.stdout.lines().last().expect("a line")).expect("a document");
    assert_eq!((&last["extension"], &last["origin"]), (&json!("hostile"), &json!("stderr")));
    has(&place.run(["logs", "nobody"]).with_code(1), "nobody");
    place.run(["stop"]).with_code(0);
    running.wait().with_code(0);
}
