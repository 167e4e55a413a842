//! Who uses more than he may: held to it, ended with the right cause, and nobody else notices.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use extension_host::{HeldBy, Host, HostOptions, InstanceState, Route};
use ipc_transport::{CallError, Caller as _, Encoded, Payload, Request};

use crate::hostile::keep_calling;
use crate::support::{
    BOUND, call, death, host, is_running, on_both_runtimes, options, register, snapshot, until_state,
};

const AT_ONCE: &str = "[restart]\nbackoff = [\"1ms\", \"1ms\"]\nlimit = { count = 64, within = \"5m\" }\n";

/// A host of each kind that this machine has.
fn hosts() -> Vec<Arc<Host>> {
    [true, false]
        .into_iter()
        .map(|uses_control_groups| host(HostOptions { uses_control_groups, ..options() }))
        .collect()
}

/// Whether the kernel holds the limits of `name`.
fn is_held(host: &Host, name: &str) -> bool {
    match snapshot(host, name).held_by {
        HeldBy::Groups(_) => true,
        HeldBy::Sampling => false,
        HeldBy::Nobody => panic!("it has limits"),
    }
}

async fn bomb(route: &Route) -> Result<u64, CallError> {
    let arguments = Payload::Encoded(Encoded::from_value("go off").expect("text can be encoded"));
    Ok(route.call(Request::new("misbehave", arguments, BOUND)).await?.decode()?)
}

#[test]
fn memory_that_is_used_up_ends_its_instance_and_nobody_else_notices() {
    on_both_runtimes(async || {
        for host in hosts() {
            let mut events = host.subscribe();
            let rest = format!("[limits]\nmemory = \"64MiB\"\n{AT_ONCE}");
            let bombed = register(&host, "bombed", "bomb-heap", &rest);
            let bystander = register(&host, "bystander", "echo", "[limits]\nmemory = \"64MiB\"\n");
            let (stop, beside) = keep_calling(bystander);
            for generation in 1..=2 {
                assert_eq!(call(&bombed, "echo", "up").await.expect("it is up"), "up");
                let up = until_state(&host, "bombed", InstanceState::Ready).await;
                let used = up.usage.expect("it runs");
                assert!(used.memory_bytes < 64 << 20 && used.tasks >= 2, "{used:?}");
                let error = bomb(&bombed).await.expect_err("it is not allowed as much");
                assert!(error.to_string().contains("it passed its limit of memory"), "{error}");
                let (class, clause) = death(&mut events, "bombed").await;
                assert_eq!(class, "out-of-memory", "{generation}: {clause}");
                for pid in [up.pid, up.launcher_pid] {
                    assert!(!is_running(pid.expect("it ran")));
                }
            }
            assert_eq!(call(&bombed, "echo", "again").await.expect("it is started again"), "again");
            stop.store(true, Ordering::SeqCst);
            assert!(beside.await.expect("nothing happened to the bystander") > 0);
            assert_eq!(snapshot(&host, "bystander").starts, 1);
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn memory_that_nobody_maps_counts_where_the_kernel_holds_it() {
    on_both_runtimes(async || {
        let host = host(options());
        let mut events = host.subscribe();
        let rest = format!("[limits]\nmemory = \"64MiB\"\n{AT_ONCE}");
        let bombed = register(&host, "bombed", "bomb-shared", &rest);
        if !is_held(&host, "bombed") {
            println!("skipped: memory_that_nobody_maps_counts: no control groups here");
            return;
        }
        let error = bomb(&bombed).await.expect_err("it is not allowed as much");
        assert!(matches!(error, CallError::Unknown(_)), "{error}");
        assert_eq!(death(&mut events, "bombed").await.0, "out-of-memory");
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn processes_and_threads_are_refused_or_end_their_instance() {
    on_both_runtimes(async || {
        for host in hosts() {
            let mut events = host.subscribe();
            for mode in ["bomb-fork", "bomb-threads"] {
                let bombed = register(&host, mode, mode, &format!("[limits]\nprocesses = 20\n{AT_ONCE}"));
                call(&bombed, "echo", "up").await.expect("it is up");
                let up = until_state(&host, mode, InstanceState::Ready).await;
                let outcome = bomb(&bombed).await;
                if is_held(&host, mode) {
                    let got = outcome.expect("it goes on with what it gets");
                    assert!((5..20).contains(&got), "{mode}: {got}");
                    let used = snapshot(&host, mode).usage.expect("it runs");
                    assert!(used.tasks <= 21, "{mode}: {used:?}");
                    assert_eq!(call(&bombed, "echo", "on").await.expect("it lives on"), "on");
                    host.stop(mode, "the test is over").await.expect("it is registered");
                } else {
                    // It may have had its answer before it was seen.
                    drop(outcome);
                    let (class, clause) = death(&mut events, mode).await;
                    assert_eq!(class, "process-limit", "{mode}: {clause}");
                }
                assert!(!is_running(up.pid.expect("it ran")));
            }
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn who_must_stop_at_a_limit_is_left_alone_until_it_is_reset() {
    on_both_runtimes(async || {
        for host in hosts() {
            let rest = "[limits]\nmemory = \"64MiB\"\non-memory = \"stop\"\n";
            let bombed = register(&host, "bombed", "bomb-heap", rest);
            bomb(&bombed).await.expect_err("it is not allowed as much");
            let broken = until_state(&host, "bombed", InstanceState::Broken).await;
            let why = broken.broken.expect("it says why");
            assert!(why.starts_with("it passed its limit of memory: it used"), "{why}");
            let refused = call(&bombed, "echo", "x").await.expect_err("it is left alone");
            assert!(refused.to_string().contains("its limit of memory"), "{refused}");
            host.reset("bombed").await.expect("it is registered");
            assert_eq!(call(&bombed, "echo", "x").await.expect("it is tried again"), "x");
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn a_share_of_the_processor_is_held_and_who_always_wants_more_can_be_ended() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for host in hosts() {
            let mut events = host.subscribe();
            let rest = format!("[limits]\ncpu = \"20%\"\non-cpu = \"restart\"\n{AT_ONCE}");
            let bombed = register(&host, "bombed", "bomb-cpu", &rest);
            assert_eq!(bomb(&bombed).await.expect("it answers and goes on"), 2);
            let used = |host: &Host| snapshot(host, "bombed").usage.expect("it runs").processor;
            let (began, before) = (Instant::now(), used(&host));
            if is_held(&host, "bombed") {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let share = (used(&host) - before).as_secs_f64() / began.elapsed().as_secs_f64();
                // Two threads that compute would have 2, or what the machine has left.
                assert!(share < 0.3, "{share}");
                assert_eq!(call(&bombed, "echo", "x").await.expect("it is slow, and lives"), "x");
            }
            let (class, clause) = death(&mut events, "bombed").await;
            assert_eq!(class, "cpu-limit", "{clause}");
            assert!(clause.contains("more than its 20 % of a core for 10 s"), "{clause}");
            host.shutdown(Duration::ZERO).await;
        }
    });
}

#[test]
fn descriptors_are_refused_beyond_the_limit() {
    on_both_runtimes(async || {
        let host = host(options());
        let bombed = register(&host, "bombed", "bomb-files", "[limits]\nopen-files = 64\n");
        let got = bomb(&bombed).await.expect("it goes on with what it gets");
        assert!((32..64).contains(&got), "{got}");
        assert_eq!(snapshot(&host, "bombed").held_by, HeldBy::Nobody, "the launcher sets it, once");
        host.shutdown(Duration::ZERO).await;
    });
}

/// Whether there is a group of this name.
fn is_there(name: &str) -> bool {
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        if folder.ends_with(name) {
            return true;
        }
        let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    false
}

#[test]
fn a_group_is_gone_with_its_instance() {
    on_both_runtimes(async || {
        let host = host(options());
        let route = register(&host, "grouped", "echo", "[limits]\nprocesses = 50\n");
        call(&route, "echo", "up").await.expect("it is up");
        if !is_held(&host, "grouped") {
            println!("skipped: a_group_is_gone_with_its_instance: no control groups here");
            return;
        }
        let pid = until_state(&host, "grouped", InstanceState::Ready).await.pid.expect("it runs");
        let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it is there");
        let line = own.lines().find(|line| line.contains("/symphony-")).expect("it is in a group of its own");
        assert!(line.ends_with("/grouped-1"), "{line}");
        let folder = line.rsplit('/').nth(1).expect("the host's folder").to_owned();
        assert!(is_there(&folder));
        host.shutdown(Duration::from_secs(5)).await;
        drop((route, host));
        let give_up = Instant::now() + BOUND;
        while is_there(&folder) {
            assert!(Instant::now() < give_up, "{folder} is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn groups_of_a_host_that_was_killed_are_swept_up_by_the_next() {
    on_both_runtimes(async || {
        let first = host(options());
        let route = register(&first, "grouped", "echo", "[limits]\nprocesses = 50\n");
        call(&route, "echo", "up").await.expect("it is up");
        if !is_held(&first, "grouped") {
            println!("skipped: groups_of_a_host_that_was_killed: no control groups here");
            return;
        }
        let pid = until_state(&first, "grouped", InstanceState::Ready).await.pid.expect("it runs");
        let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it is there");
        // As one leaves them whose process is gone: pid 4194304 is above what there can be.
        let (stale, mut left) = ("symphony-4194304-1-0", Vec::new());
        for line in own.lines().filter(|line| line.contains("/symphony-")) {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next().expect("controllers"), parts.next().expect("a path"));
            let above = PathBuf::from(path).ancestors().nth(2).expect("the host's own").to_owned();
            let hierarchy = PathBuf::from("/sys/fs/cgroup").join(controllers);
            let folder = hierarchy.join(above.strip_prefix("/").expect("it begins there")).join(stale);
            std::fs::create_dir_all(folder.join("x-1")).expect("it can be made: the host can");
            left.push(folder);
        }
        let mut orphan = std::process::Command::new("sleep").arg("600").spawn().expect("it starts");
        std::fs::write(left[0].join("x-1/cgroup.procs"), orphan.id().to_string()).expect("it is let in");
        let second = host(options());
        register(&second, "other", "echo", "[limits]\nprocesses = 50\n");
        assert!(left.iter().all(|folder| !folder.exists()), "{left:?}");
        assert!(!orphan.wait().expect("it is ours").success(), "whoever was in it is killed");
        assert_eq!(call(&route, "echo", "on").await.expect("others are left alone"), "on");
        first.shutdown(Duration::ZERO).await;
        second.shutdown(Duration::ZERO).await;
    });
}
