//! SIGUSR1: a run tells what it is doing, and goes on.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, eventually, target_folder};

#[test]
fn a_run_that_is_asked_tells_what_waits_for_what_and_goes_on() {
    let place = Place::new();
    place.run(["extensions", "build", "hostile"]).with_code(0);
    // The project's program, in an extension folder of the test's own: it has nothing that expires by itself.
    let program = target_folder().join("debug/hostile");
    let manifest = format!(
        "name = \"hostile\"\nversion = \"0.1.0\"\n[run]\ncommand = [{program:?}]\n\
         [permissions]\nenvironment = [\"HOSTILE_MODE\"]\n[activation]\nidle-timeout = \"1h\"\n"
    );
    place.write("own/hostile/extension.toml", &manifest);
    place.write(
        "m.toml",
        "name = \"m\"\n[models.printer]\ncapacity = 1\n\
         [[steps]]\nid = \"one\"\ncall = \"hostile.hold\"\nlease = [\"printer\"]\nclaims = { cpu = 1 }\n\
         [[steps]]\nid = \"other\"\ncall = \"hostile.hold\"\nlease = [\"printer\"]\n\
         [[steps]]\nid = \"last\"\ncall = \"hostile.hold\"\nafter = [\"one\", \"other\"]\n",
    );
    let told = place.path("told");
    let mut command = place.conductor(["run", "m.toml", "--log", "info"]);
    command
        .env("HOSTILE_MODE", "hold")
        .env("SYMPHONY_EXTENSION_DIRS", place.path("own"))
        .stdout(Stdio::null());
    let mut child = command
        .stderr(fs::File::create(&told).expect("the file is made"))
        .spawn()
        .expect("the conductor starts");
    let pid = Pid::from_child(&child);
    let told = || fs::read_to_string(&told).expect("what it says is kept");
    eventually("the extension", || told().contains("is ready"));
    // Twice, because a run that was asked goes on; what the first answer says is known when it has all its lines.
    for times in 1..=2 {
        kill_process(pid, Signal::USR1).expect("it runs");
        eventually("an answer", || told().matches(", if nobody uses it\n").count() == times);
    }
    kill_process(pid, Signal::INT).expect("it runs still");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{}", told());
    let told = told();
    let answer = &told[told.find("the run: ").expect("an answer")..];
    for line in [
        "the run: 0 of 3 steps ended\n",
        "  `last` waits for `one`, `other`\n",
        "  printer: 1 of 1 leased, 1 waiting\n",
        "claims: ",
        "  cpu: ",
        "artifacts: 0 open\n",
        "expiring: 1 watched, 0 expired\n",
        "  extension hostile instance:0@1 in ",
    ] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
}
