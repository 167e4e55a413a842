//! What the tests share: hosts, extensions, calls, and waiting for what must happen, with a bound.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use extension_host::{
    EventKind, EventReader, ExtensionSnapshot, Host, HostEvent, HostOptions, InstanceState, LauncherProgram,
    LogLine, LogSink, Manifest, Read, Route,
};
use ipc_transport::{CallError, Caller, Encoded, Payload, Request};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

use crate::programs::programs;

/// Anything that must happen at all happens within this time, even on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Runs `test` on both flavours of the runtime.
pub(crate) fn on_both_runtimes(test: impl AsyncFn()) {
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build();
    single.expect("a runtime").block_on(test());
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    several.expect("a runtime").block_on(test());
}

/// Lines, the newest of them.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) lines: Mutex<VecDeque<(String, String)>>,
}

impl LogSink for Collected {
    fn line(&self, line: &LogLine<'_>) {
        let mut lines = self.lines.lock();
        if lines.len() >= 10_000 {
            lines.pop_front();
        }
        lines.push_back((
            format!("{} {} {:?}", line.extension, line.instance, line.origin),
            line.text.to_owned(),
        ));
    }
}

pub(crate) fn options() -> HostOptions {
    let launcher = LauncherProgram::Path(programs().launcher.clone());
    HostOptions { log: Arc::new(Collected::default()), ..HostOptions::new(launcher) }
}

pub(crate) fn host(options: HostOptions) -> Arc<Host> {
    Host::new(options).expect("the test runs in a runtime")
}

/// `hostile` under the name `name` in `mode`; `rest` is appended to its manifest.
pub(crate) fn register(host: &Host, name: &str, mode: &str, rest: &str) -> Route {
    let manifest = manifest(name, mode, rest);
    host.register(manifest, programs().hostile.clone()).expect("the name is free");
    host.extension(name).expect("it is registered")
}

pub(crate) fn manifest(name: &str, mode: &str, rest: &str) -> Manifest {
    let text =
        format!("name = \"{name}\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"hostile\", \"{mode}\"]\n{rest}");
    Manifest::parse(&text, Path::new("extension.toml")).unwrap_or_else(|found| panic!("{found}"))
}

/// Calls and expects text back.
pub(crate) async fn call(route: &Route, method: &str, text: &str) -> Result<String, CallError> {
    call_within(route, method, text, BOUND).await
}

pub(crate) async fn call_within(
    route: &Route,
    method: &str,
    text: &str,
    timeout: Duration,
) -> Result<String, CallError> {
    let arguments = Payload::Encoded(Encoded::from_value(text).expect("text can be encoded"));
    let answer = route.call(Request::new(method, arguments, timeout)).await?;
    Ok(answer.decode()?)
}

pub(crate) fn snapshot(host: &Host, name: &str) -> ExtensionSnapshot {
    host.snapshot().into_iter().find(|extension| extension.name == name).expect("it is registered")
}

/// The next event of `name` that `pick` takes.
pub(crate) async fn event<T>(
    events: &mut EventReader<Arc<HostEvent>>,
    name: &str,
    pick: impl Fn(&EventKind) -> Option<T>,
) -> T {
    let found = async {
        loop {
            match events.wait().await {
                Read::Event(_, event) if &*event.extension == name => {
                    if let Some(found) = pick(&event.kind) {
                        return found;
                    }
                }
                Read::Gap { lost } => panic!("{lost} events were missed"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(BOUND, found).await.unwrap_or_else(|_| panic!("the event of {name} did not come"))
}

/// The class and the clause of the next death of `name`.
pub(crate) async fn death(events: &mut EventReader<Arc<HostEvent>>, name: &str) -> (&'static str, String) {
    let died = |kind: &EventKind| match kind {
        EventKind::Died { report } => Some((report.class.name(), report.to_string())),
        _ => None,
    };
    event(events, name, died).await
}

/// Waits until `name` is as `wanted` has it.
pub(crate) async fn until(
    host: &Host,
    name: &str,
    wanted: impl Fn(&ExtensionSnapshot) -> bool,
) -> ExtensionSnapshot {
    let give_up = tokio::time::Instant::now() + BOUND;
    loop {
        let now = snapshot(host, name);
        if wanted(&now) {
            return now;
        }
        assert!(tokio::time::Instant::now() < give_up, "{name} stays as {now:?}");
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn until_state(host: &Host, name: &str, state: InstanceState) -> ExtensionSnapshot {
    until(host, name, |extension| extension.state == state).await
}

/// Whether the process runs: a zombie has ended.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("the process is below this test");
}
