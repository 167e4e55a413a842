//! `kill -9`: of an extension in the middle, and of the conductor while it runs and while it builds.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::processes::{Process, descendants};
use crate::support::{Place, Running, main_job_arguments, many_files, skip};

#[test]
fn a_killed_extension_is_started_again_and_the_melody_finishes() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    many_files(&tree, 10_000);
    // Built and described before: the process that is killed is the instance, not one that describes itself.
    place.run(["extensions", "build", "file-explorer", "operators"]).with_code(0);
    let running = place.start(main_job_arguments(&tree, []));
    running.descendant("operators").kill();
    let ended = running.wait().with_code(0);
    assert_eq!(ended.rows().len(), 10_000);
    let document = ended.document();
    let operators = &document["extensions"][1];
    assert_eq!(operators["name"], "operators");
    assert!(operators["restarts"].as_u64() >= Some(1), "{operators}");
    assert!(operators["causes"][0].as_str().unwrap().contains("SIGKILL"), "{operators}");
}

/// What the product promises: so long after a `kill -9` of the conductor nothing of it is left.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Kills of a conductor in the middle of a run.
const KILLS_IN_A_RUN: usize = 6;

/// Kills of a conductor in the middle of a build.
const KILLS_IN_A_BUILD: usize = 4;

/// Kills the conductor and holds the promise against every process that it had, known by pid and start time.
#[track_caller]
fn kill_and_find_nothing(running: Running, processes: &[Process]) {
    assert!(processes.len() >= 2, "{processes:?}");
    running.signal(Signal::KILL);
    let killed = Instant::now();
    assert_eq!(running.wait().code, None);
    while processes.iter().any(Process::is_alive) && killed.elapsed() < GONE_WITHIN {
        std::thread::sleep(Duration::from_millis(5));
    }
    let left: Vec<_> = processes.iter().filter(|process| process.is_alive()).collect();
    assert!(left.is_empty(), "a second after the kill: {left:?}");
}

#[test]
fn a_conductor_killed_in_a_run_leaves_nothing_after_a_second() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    many_files(&tree, 20_000);
    for kill in 0..KILLS_IN_A_RUN {
        let running = place.start(main_job_arguments(&tree, []));
        // Now while the first extension starts, now in the middle of the fan-out.
        running.descendant(if kill % 2 == 0 { "file-explorer" } else { "operators" });
        let processes = descendants(running.pid());
        kill_and_find_nothing(running, &processes);
    }
}

#[test]
fn a_conductor_killed_in_a_build_leaves_no_cargo_and_no_rustc_after_a_second() {
    let place = Place::new();
    let Some(package) = slow_package(&place) else {
        return skip(
            "a_conductor_killed_in_a_build_leaves_no_cargo_and_no_rustc_after_a_second",
            "there is no cargo",
        );
    };
    // A constant that is never done: rustc itself is what runs.
    fs::remove_file(package.join("build.rs")).unwrap();
    place.write(
        "slow/src/main.rs",
        "#![allow(long_running_const_eval)]\nconst NEVER: () = loop {};\nfn main() { NEVER }\n",
    );
    for _ in 0..KILLS_IN_A_BUILD {
        let running = place.start(["call", "slow.method", "--extensions", package.to_str().unwrap()]);
        running.descendant("rustc");
        let processes = descendants(running.pid());
        let names: Vec<&str> = processes.iter().map(|process| process.name.as_str()).collect();
        assert!(names.contains(&"cargo") && names.contains(&"rustc"), "{names:?}");
        kill_and_find_nothing(running, &processes);
    }
}

/// An extension whose build takes longer than any test: its build script waits for its own end.
pub(crate) fn slow_package(place: &Place) -> Option<PathBuf> {
    std::process::Command::new("cargo").arg("--version").output().ok()?;
    place.write(
        "slow/extension.toml",
        "name = \"slow\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"slow\"]\n[build]\ncargo-package = \"slow\"\n",
    );
    let package = "[package]\nname = \"slow\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    place.write("slow/Cargo.toml", package);
    place.write("slow/src/main.rs", "fn main() {}\n");
    place.write("slow/build.rs", "fn main() { loop { std::thread::park(); } }\n");
    Some(place.path("slow"))
}
