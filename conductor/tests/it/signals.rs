//! Ctrl-C once, twice, and SIGTERM: a clean end, an immediate end, and nothing left behind either way.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;

use crate::processes::{Process, all_gone, descendants};
use crate::support::{Ended, Place, eventually, main_job_arguments, many_files, skip};

/// Starts the main job over a tree that keeps it busy for a while, and waits until both extensions work.
fn busy(place: &Place) -> (crate::support::Running, Vec<Process>) {
    let tree = place.path("tree");
    fs::create_dir(&tree).expect("the folder is made");
    many_files(&tree, 20_000);
    // Built and described before: an `operators --describe` is none that works.
    place.run(["extensions", "build", "file-explorer", "operators"]).with_code(0);
    let running = place.start(main_job_arguments(&tree, []));
    running.descendant("operators");
    let processes = descendants(running.pid());
    assert!(processes.len() >= 2, "{processes:?}");
    (running, processes)
}

#[test]
fn one_interrupt_cancels_the_run_and_still_prints_the_document() {
    let place = Place::new();
    let (running, processes) = busy(&place);
    running.signal(Signal::INT);
    let ended = running.wait().with_code(130);
    let document = ended.document();
    assert_eq!(document["state"], "cancelled");
    assert_eq!(document["error"]["origin"], "caller");
    assert_eq!(document["steps"][0]["state"], "succeeded");
    assert_eq!(document["steps"][1]["state"], "cancelled");
    assert_eq!(document["outputs"], serde_json::json!({}));
    // A clean end is over when the conductor is.
    assert!(!processes.iter().any(Process::is_alive), "{processes:?}");
}

#[test]
fn sigterm_and_a_closed_terminal_do_the_same_with_their_own_exit_codes() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::new();
        let (running, processes) = busy(&place);
        running.signal(signal);
        assert_eq!(running.wait().with_code(code).document()["state"], "cancelled");
        assert!(!processes.iter().any(Process::is_alive), "{processes:?}");
    }
}

#[test]
fn two_interrupts_end_at_once_and_leave_nothing() {
    let place = Place::new();
    // An extension that does not answer and refuses to end: the first interrupt alone takes seconds.
    let told = place.path("told");
    let mut command = place.conductor(["call", "hostile.hold", "{}", "--timeout", "100s", "--log", "info"]);
    command.env("SYMPHONY_STOP_TIMEOUT", "20s").env("HOSTILE_MODE", "ignore-stop");
    command.stdout(std::process::Stdio::null()).stderr(fs::File::create(&told).expect("the file is made"));
    let mut child = command.spawn().expect("the conductor starts");
    let pid = child.id();
    let told = || fs::read_to_string(&told).expect("what it says is kept");
    eventually("the hostile extension", || told().contains("is ready"));
    let processes = descendants(pid);
    let own = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(own, Signal::INT).unwrap();
    // The second one may come while the first is still on its way, and then counts as the first.
    let mut code = None;
    eventually("the end of the conductor", || {
        code = child.try_wait().unwrap();
        if code.is_none() {
            let _ = rustix::process::kill_process(own, Signal::INT);
        }
        code.is_some()
    });
    assert_eq!(code.and_then(|status| status.code()), Some(130));
    // What a clean end says at last.
    assert!(!told().lines().any(|line| line == "cancelled"), "{}", told());
    all_gone(&processes);
}

#[test]
fn an_interrupt_while_building_ends_cargo_too() {
    let place = Place::new();
    let Some(package) = crate::kills::slow_package(&place) else {
        return skip("an_interrupt_while_building_ends_cargo_too", "there is no cargo");
    };
    let running = place.start(["call", "slow.method", "--json", "--extensions", package.to_str().unwrap()]);
    running.descendant("build-script-bu");
    let processes = descendants(running.pid());
    running.signal(Signal::INT);
    let error = &running.wait().with_code(130).document()["error"];
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("none of them was called") && error["retry"] == "now", "{error}");
    all_gone(&processes);
}

#[test]
fn a_cancelled_call_says_whether_it_may_have_run() {
    let place = Place::new();
    place.run(["extensions", "build", "hostile"]).with_code(0);
    // Its start hangs, or it never answers.
    for (mode, method, waits_for, message, retry) in [
        ("no-hello", "once", "a process", "cancelled before hostile.once was delivered", "now"),
        ("stall", "misbehave", "is ready", "cancelled while hostile.misbehave ran; it may have run", "never"),
        ("echo", "hold", "is ready", "cancelled while hostile.hold ran; it may have run", "now"),
    ] {
        let told = place.path("told");
        let method = format!("hostile.{method}");
        let mut command =
            place.conductor(["call", &method, "{}", "--json", "--timeout", "100s", "--log", "info"]);
        command.env("SYMPHONY_STOP_TIMEOUT", "100ms").env("HOSTILE_MODE", mode);
        command.stdout(Stdio::piped()).stderr(fs::File::create(&told).expect("the file is made"));
        let child = command.spawn().expect("the conductor starts");
        eventually("the hostile extension", || match waits_for {
            "a process" => descendants(child.id()).len() >= 2,
            said => fs::read_to_string(&told).expect("what it says is kept").contains(said),
        });
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
        let ended = Ended::of(child.wait_with_output().expect("it ends")).with_code(130);
        let error = &ended.document()["error"];
        assert_eq!(
            (error["message"].as_str(), error["retry"].as_str()),
            (Some(message), Some(retry)),
            "{error}"
        );
        assert_eq!((&error["origin"], &error["extension"]), (&"caller".into(), &"hostile".into()));
    }
}

#[test]
fn what_a_cancelled_run_has_stored_stands_in_its_document() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    many_files(&tree, 2_000);
    place.run(["extensions", "build", "file-explorer", "operators"]).with_code(0);
    let named = || fs::read_dir(place.path("data/artifacts/names")).map_or(0, Iterator::count);
    for _ in 0..10 {
        let before = named();
        let running = place.start(main_job_arguments(&tree, []));
        // As soon as anything is on its way into the store.
        eventually("an artifact, or the end", || running.has_ended() || named() > before);
        running.signal_if_alive(Signal::INT);
        let document = running.wait().document();
        let outputs = document["outputs"].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(named() - before, outputs, "{document}");
    }
}
