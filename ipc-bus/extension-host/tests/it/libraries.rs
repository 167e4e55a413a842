//! Libraries that are loaded, with a host around them: what its routes, its snapshot and its log make of one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use extension_host::manifest::Tier;
use extension_host::{
    EventKind, HangLimits, HostOptions, InstanceState, Library, LibrarySource, Manifest, Route,
};
use ipc_protocol::FaultCode;
use ipc_transport::{CallError, Caller, Encoded, Payload, Request};

use crate::programs::programs;
use crate::support::{
    BOUND, Collected, call, death, event, host, on_both_runtimes, options, snapshot, until, until_state,
};

const NAME: &str = env!("CARGO_PKG_NAME");

fn manifest(rest: &str) -> Manifest {
    let text = format!(
        "name = \"{NAME}\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"x\"]\n[config]\ngreeting = \"hello\"\n{rest}"
    );
    Manifest::parse(&text, Path::new("extension.toml")).unwrap_or_else(|found| panic!("{found}"))
}

fn loaded() -> LibrarySource {
    LibrarySource::File(programs().loaded.clone())
}

async fn ask<T: ipc_transport::Message>(
    route: &Route,
    method: &str,
    arguments: &impl serde::Serialize,
) -> Result<T, CallError> {
    let arguments = Payload::Encoded(Encoded::from_value(arguments).expect("arguments can be encoded"));
    Ok(route.call(Request::new(method, arguments, BOUND)).await?.decode()?)
}

const NOTHING: [(); 0] = [];

fn text(text: &str) -> std::collections::BTreeMap<&str, &str> {
    [("text", text)].into()
}

#[test]
fn a_library_is_called_through_a_route_like_a_process() {
    on_both_runtimes(async || {
        let host = host(options());
        host.register_in_process(manifest(""), loaded()).expect("the name is free");
        let route = host.extension(NAME).expect("it is registered");
        assert_eq!(snapshot(&host, NAME).state, InstanceState::Stopped, "it is lazy");
        let greeting: String = ask(&route, "greet", &NOTHING).await.expect("it answers");
        assert_eq!(greeting, "hello");
        // It is called as soon as it can be, which is a moment before it is told.
        let seen = until_state(&host, NAME, InstanceState::Ready).await;
        assert_eq!(
            (seen.tier, seen.state, seen.pid, seen.starts),
            (Tier::InProcess, InstanceState::Ready, None, 1)
        );
        assert_eq!((seen.calls, seen.totals.answers), (1, 1));
        host.stop(NAME, "the test wants it").await.expect("it is registered");
        let stopped = until_state(&host, NAME, InstanceState::Stopped).await;
        assert_eq!(stopped.past_ends[0].report.class.to_string(), "the host stopped it: the test wants it");
        let greeting: String = ask(&route, "greet", &NOTHING).await.expect("it starts again");
        assert_eq!((greeting.as_str(), snapshot(&host, NAME).starts), ("hello", 2));
        host.shutdown(BOUND).await;
    });
}

#[tokio::test]
async fn what_runs_in_its_hosts_process_cannot_ask_it_and_is_told_so() {
    let host = host(options());
    let asking = manifest("[permissions]\ncalls = [\"other\"]\nartifacts = \"read\"\n");
    assert_eq!(
        asking.unenforced_in_process(),
        ["permissions.calls (it cannot ask its host)", "permissions.artifacts (it cannot ask its host)"]
    );
    host.register_in_process(asking, loaded()).expect("the name is free");
    let route = host.extension(NAME).expect("it is registered");
    let error = ask::<()>(&route, "ask", &NOTHING).await.expect_err("it cannot ask");
    assert!(
        matches!(&error, CallError::Fault(fault) if fault.code == FaultCode::Unsupported
            && fault.message.contains("it runs in the host's own process")),
        "{error:?}"
    );
    host.shutdown(BOUND).await;
}

#[tokio::test]
async fn echo_runs_in_either_tier_as_its_operator_says() {
    let text = "name = \"echo\"\nversion = \"0.1.0\"\ntier = \"in-process\"\n[run]\ncommand = [\"echo\"]\n";
    let manifest = Manifest::parse(text, Path::new("extension.toml")).expect("it is right");
    let own = host(options());
    // Whatever the manifest wishes: it alone brings no code into this process.
    own.register(manifest.clone(), programs().echo.with_file_name("echo")).expect("the name is free");
    let other = host(options());
    other
        .register_in_process(manifest, LibrarySource::File(programs().echo.clone()))
        .expect("the name is free");
    for (host, tier) in [(&own, Tier::Process), (&other, Tier::InProcess)] {
        let route = host.extension("echo").expect("it is registered");
        let arguments = std::collections::BTreeMap::from([("text", "hello")]);
        let answer: String = ask(&route, "echo", &arguments).await.expect("it answers");
        let seen = snapshot(host, "echo");
        assert_eq!((answer.as_str(), seen.tier, seen.pid.is_some()), ("hello", tier, tier == Tier::Process));
        host.shutdown(BOUND).await;
    }
}

#[tokio::test]
async fn what_it_logs_is_in_the_hosts_log_and_its_panics_are_faults() {
    let log = Arc::new(Collected::default());
    let host = host(HostOptions { log: Arc::clone(&log) as _, ..options() });
    host.register_in_process(manifest(""), loaded()).expect("the name is free");
    let route = host.extension(NAME).expect("it is registered");
    // The last library that was loaded is this one: it has a subscriber of its own.
    ask::<()>(&route, "log", &text("look here")).await.expect("it answers");
    let lines: Vec<_> = log.lines.lock().iter().cloned().collect();
    let expected = format!("{NAME} instance:0@1 Record {{ level: 3, target: \"loaded\" }}");
    assert_eq!(lines, [(expected, "look here answer=42".to_owned())]);
    let Err(CallError::Fault(fault)) = ask::<()>(&route, "panic", &text("oh no")).await else {
        panic!("it panics")
    };
    assert!(
        fault.message.starts_with("the method panicked at ") && fault.message.ends_with(": oh no"),
        "{fault}"
    );
    host.shutdown(BOUND).await;
}

#[tokio::test]
async fn a_call_that_never_returns_has_its_instance_replaced() {
    let hang_limits = HangLimits { unanswered: Duration::from_millis(50), silent: BOUND };
    let mut stop_times = options().stop_times;
    (stop_times.goodbye, stop_times.terminate) = (Duration::from_millis(10), Duration::from_millis(10));
    let host = host(HostOptions { hang_limits, stop_times, ..options() });
    let mut events = host.subscribe();
    host.register_in_process(manifest("[restart]\nbackoff = [\"1ms\", \"1ms\"]\n"), loaded())
        .expect("the name is free");
    let route = host.extension(NAME).expect("it is registered");
    ask::<String>(&route, "greet", &NOTHING).await.expect("it runs");
    // On a busy machine one may be too late to be begun at all, and is then answered.
    let stick = async {
        loop {
            let arguments = Payload::Encoded(Encoded::message_pack(vec![0x80]));
            let stuck = route.call(Request::new("stick", arguments, Duration::from_millis(50))).await;
            assert!(!matches!(stuck, Ok(_) | Err(CallError::Fault(_))), "{stuck:?}");
        }
    };
    let (class, clause) = tokio::select! {
        never = stick => never,
        death = death(&mut events, NAME) => death,
    };
    assert_eq!(class, "hang", "{clause}");
    let greeting: String = ask(&route, "greet", &NOTHING).await.expect("another one answers");
    assert_eq!((greeting.as_str(), snapshot(&host, NAME).starts), ("hello", 2));
    host.shutdown(BOUND).await;
}

#[test]
fn what_it_leaves_to_a_thread_of_the_host_is_dropped_after_its_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dropped");
    let (of_thread, at) = (file.clone(), folder.path().to_path_buf());
    // A thread with destructors of the library's code, which ends after the instance does.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let host = host(options());
            host.register_in_process(manifest(""), loaded()).expect("the name is free");
            let route = host.extension(NAME).expect("it is registered");
            // Until it has proven fast, so that it ran on this thread.
            for number in 0..200 {
                let file = if number == 199 { of_thread.clone() } else { at.join(number.to_string()) };
                let arguments = std::collections::BTreeMap::from([("file", file)]);
                ask::<()>(&route, "leave", &arguments).await.expect("it answers");
            }
            host.shutdown(BOUND).await;
            drop(host);
        });
    });
    thread.join().expect("it ends in order, destructors and all");
    // Those of its own threads end when they like; nobody waits for them.
    let give_up = std::time::Instant::now() + BOUND;
    while std::fs::read_dir(folder.path()).expect("it is there").next().is_none() {
        assert!(std::time::Instant::now() < give_up, "what was left to a thread is dropped with it");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_library_is_a_private_copy_and_is_loaded_again_beside_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("library.so");
    std::fs::copy(&programs().loaded, &file).expect("it can be copied");
    let mut places = Vec::new();
    for _ in 0..2 {
        let host = host(options());
        host.register_in_process(manifest(""), LibrarySource::File(file.clone())).expect("the name is free");
        let route = host.extension(NAME).expect("it is registered");
        places.push(ask::<u64>(&route, "place", &NOTHING).await.expect("it answers"));
        // The file is overwritten in place: who had it mapped would run this.
        std::fs::write(&file, vec![0; 1 << 20]).expect("it can be written");
        assert_eq!(
            ask::<u64>(&route, "place", &NOTHING).await.expect("it answers"),
            places[places.len() - 1]
        );
        std::fs::copy(&programs().loaded, &file).expect("it can be copied");
        host.shutdown(BOUND).await;
    }
    assert_ne!(places[0], places[1], "two copies are two libraries");
}

/// Compiles a library of one line.
fn library(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (from, to) = (folder.join(format!("{name}.rs")), folder.join(format!("{name}.so")));
    std::fs::write(&from, source).expect("it can be written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc.args(["--edition=2024", "--crate-type=cdylib", "-o"]).arg(&to).arg(&from);
    assert!(rustc.status().expect("rustc runs").success());
    to
}

#[tokio::test]
async fn what_is_no_library_of_this_version_is_refused_with_what_was_expected() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let export = "#[unsafe(export_name = \"symphony_extension_v1\")] pub static T:";
    let text = at.join("text.so");
    std::fs::write(&text, "no library").expect("it can be written");
    let magic = u64::from_be_bytes(*b"symphony");
    for (file, expected) in [
        (at.join("missing.so"), vec!["missing.so cannot be read: No such file"]),
        (at.to_path_buf(), vec!["cannot be read: it is no file"]),
        (text, vec!["text.so cannot be loaded", "file too short"]),
        (
            library(at, "none", "pub static X: u8 = 1;"),
            vec!["exports no `symphony_extension_v1`", "as a cdylib?"],
        ),
        (
            library(at, "other", &format!("{export} [u64; 12] = [7; 12];")),
            vec!["begins with 0x0000000000000007, where a table begins with 0x"],
        ),
        (
            library(
                at,
                "later",
                &format!("{export} [u64; 12] = [{magic}, 3 << 32 | 2, 0,0,0,0,0,0,0,0,0,0];"),
            ),
            vec!["its table has version 2, where version 1 is expected"],
        ),
        (
            library(
                at,
                "short",
                &format!("{export} [u64; 12] = [{magic}, 24 << 32 | 1, 0,0,0,0,0,0,0,0,0,0];"),
            ),
            vec!["its table has 24 bytes, where version 1 has at least 96"],
        ),
        (programs().echo.clone(), vec!["it is the extension `echo`, where `extension-host` is expected"]),
    ] {
        let host = host(options());
        host.register_in_process(manifest(""), LibrarySource::File(file)).expect("the name is free");
        let route = host.extension(NAME).expect("it is registered");
        let refused = call(&route, "greet", "").await.expect_err("it cannot be loaded").to_string();
        for expected in expected {
            assert!(refused.contains(expected), "{expected:?} in {refused}");
        }
        assert_eq!(snapshot(&host, NAME).state, InstanceState::Broken, "trying again is pointless");
        host.shutdown(BOUND).await;
    }
    let refused = Library::load(&at.join("missing.so")).expect_err("it is not there");
    assert!(refused.to_string().ends_with("missing.so cannot be read"), "{refused}");
}

#[tokio::test]
async fn a_start_that_is_refused_says_so_in_the_extensions_words() {
    let host = host(options());
    let mut events = host.subscribe();
    let text = format!(
        "name = \"{NAME}\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"x\"]\n[config]\ngreeting = \"\"\n"
    );
    let manifest = Manifest::parse(&text, Path::new("extension.toml")).expect("it is right");
    host.register_in_process(manifest, loaded()).expect("the name is free");
    let route = host.extension(NAME).expect("it is registered");
    let pending =
        route.call(Request::new("greet", Payload::Encoded(Encoded::message_pack(vec![0x80])), BOUND));
    let (class, clause) = death(&mut events, NAME).await;
    assert_eq!((class, clause.as_str()), ("start-refused", "it refused to start: there is nothing to say"));
    drop(pending);
    host.shutdown(BOUND).await;
}

#[tokio::test]
async fn an_idle_library_is_stopped() {
    let host = host(options());
    let mut events = host.subscribe();
    host.register_in_process(manifest("[activation]\nidle-timeout = \"20ms\"\n"), loaded())
        .expect("the name is free");
    let route = host.extension(NAME).expect("it is registered");
    for starts in 1..=3 {
        let greeting: String = ask(&route, "greet", &NOTHING).await.expect("it answers");
        assert_eq!(greeting, "hello");
        event(&mut events, NAME, |kind| matches!(kind, EventKind::Stopped).then_some(())).await;
        until(&host, NAME, |seen| seen.starts >= starts && seen.state == InstanceState::Stopped).await;
    }
    host.shutdown(BOUND).await;
}

#[test]
fn keys_that_mean_nothing_in_the_hosts_process_are_named() {
    let text = "name = \"x\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"x\", \"--fast\"]\nnice = 3\n\
                environment = { A = \"1\" }\n[limits]\nopen-files = 99\n[permissions]\nenvironment = [\"HOME\"]\n";
    let manifest = Manifest::parse(text, Path::new("extension.toml")).expect("it is right");
    assert_eq!(
        manifest.unenforced_in_process(),
        [
            "run.command (its arguments)",
            "run.environment",
            "run.nice",
            "limits.open-files",
            "permissions.environment (the whole environment can be read)",
        ]
    );
    assert!(self::manifest("").unenforced_in_process().is_empty());
}
