//! The in-process tier: it keeps what every tier keeps, and no handler's fault is more than its own call's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use extension_abi::Table;
use extension_host::in_process::{InProcess, Library, StartError, StartOptions};
use extension_sdk::{Context, Fault, FaultCode, Setup};
use ipc_protocol::control::Progress;
use ipc_testkit::conformance::Tier;
use ipc_testkit::conformance_tests;
use ipc_transport::{CallError, Caller, Cause, Encoded, Payload, ProgressSink, Request};
use parking_lot::Mutex;

use crate::reference_table;
use crate::support::BOUND;

struct Loaded;

impl Tier for Loaded {
    async fn start(&self, in_flight_max: u32) -> Arc<dyn Caller> {
        let library = Library::of_table(&reference_table::TABLE).expect("it is a table");
        let options = StartOptions { in_flight_max, ..StartOptions::new() };
        Arc::new(InProcess::start(&library, options).await.expect("it starts"))
    }

    fn leaves_out(&self) -> &'static [(&'static str, &'static str)] {
        const WHY: &str = "a library dies with its host only: there is nobody left to end its calls";
        &[("death_ends_all_calls", WHY), ("an_answer_sent_before_death_is_delivered", WHY)]
    }
}

conformance_tests!(Loaded);

#[test]
fn what_is_no_table_of_this_version_is_told_what_is_expected() {
    static LATER: Table = reference_table::table("reference", 2);
    static SHORT: Table = Table { size: 40, ..reference_table::table("reference", 1) };
    static NONE: Table = Table { magic: 7, ..reference_table::table("reference", 1) };
    static OTHER: Table = reference_table::table("other", 1);
    let error = |table| Library::of_table(table).expect_err("it cannot be used").to_string();
    assert_eq!(
        error(&LATER),
        "its table has version 2, where version 1 is expected: build it with this version's extension-sdk"
    );
    assert!(
        error(&SHORT).starts_with("its table has 40 bytes, where version 1 has at least "),
        "{}",
        error(&SHORT)
    );
    assert!(error(&NONE).contains("begins with 0x0000000000000007"), "{}", error(&NONE));
    assert_eq!(error(&OTHER), "it is the extension `reference`, where `other` is expected");
}

// ---- a table made by the SDK -------------------------------------------------------------------------------

#[extension_sdk::message]
struct Settings {
    #[serde(default)]
    refuses: bool,
    #[serde(default)]
    panics: bool,
    #[serde(default)]
    waits: bool,
}

struct Subject {
    before_panic: AtomicU64,
}

#[extension_sdk::interface]
trait Subjects {
    /// Adds one.
    #[method(idempotent)]
    fn next(&self, number: u64) -> Result<u64, Fault>;
    /// Panics.
    fn panic(&self) -> Result<(), Fault>;
    /// Returns when it is cancelled, after it said how far it is.
    fn hold(&self, cx: &Context) -> Result<(), Fault>;
    /// Never returns.
    fn stick(&self) -> Result<(), Fault>;
    /// Comes back later.
    async fn later(&self, number: u64) -> Result<u64, Fault>;
    /// The name of the thread that runs it.
    fn thread(&self) -> Result<String, Fault>;
}

impl Subject {
    fn start(setup: &Setup<Settings>) -> Result<Self, Fault> {
        let Settings { refuses, panics, waits } = *setup.config();
        if waits {
            loop {
                std::thread::park();
            }
        }
        assert!(!panics, "as it was told");
        if refuses {
            Err(Fault::new(FaultCode::Failed, "not today"))
        } else {
            Ok(Self { before_panic: AtomicU64::new(0) })
        }
    }
}

impl Subjects for Subject {
    fn next(&self, number: u64) -> Result<u64, Fault> {
        Ok(number + 1)
    }

    fn panic(&self) -> Result<(), Fault> {
        panic!("as often as {}", self.before_panic.fetch_add(1, Ordering::Relaxed));
    }

    fn hold(&self, cx: &Context) -> Result<(), Fault> {
        cx.progress(1, Some(2), "holding");
        while !cx.is_cancelled() {
            std::thread::yield_now();
        }
        HOLDS_ENDED.fetch_add(1, Ordering::Relaxed);
        cx.check()
    }

    fn stick(&self) -> Result<(), Fault> {
        STICKS.fetch_add(1, Ordering::Relaxed);
        loop {
            std::thread::park();
        }
    }

    async fn later(&self, number: u64) -> Result<u64, Fault> {
        let mut is_woken = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut is_woken, true) {
                return std::task::Poll::Ready(());
            }
            let waker = cx.waker().clone();
            std::thread::spawn(move || waker.wake());
            std::task::Poll::Pending
        })
        .await;
        Ok(number)
    }

    fn thread(&self) -> Result<String, Fault> {
        Ok(std::thread::current().name().unwrap_or_default().to_owned())
    }
}

static HOLDS_ENDED: AtomicU64 = AtomicU64::new(0);
static STICKS: AtomicU64 = AtomicU64::new(0);

mod exported {
    use super::{Subject, Subjects};
    extension_sdk::export!(Subject as Subjects, start = Subject::start);
    const _: fn() -> std::process::ExitCode = main;
}

static SUBJECT: Table =
    extension_sdk::__private::table::<Subject>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));

fn options(config: &[(&str, bool)]) -> StartOptions {
    let config: std::collections::BTreeMap<_, _> = config.iter().copied().collect();
    let config = Encoded::from_value(&config).expect("it can be encoded").bytes.to_vec();
    StartOptions { config, ..StartOptions::new() }
}

async fn subject(options: StartOptions) -> (InProcess, SubjectsClient) {
    let library = Library::of_table(&SUBJECT).expect("it is a table");
    let instance = InProcess::start(&library, options).await.expect("it starts");
    let client = SubjectsClient::new(instance.clone()).with_timeout(BOUND);
    (instance, client)
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let so = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, so).await.unwrap_or_else(|_| panic!("it never is so: {what}"));
}

#[tokio::test]
async fn a_method_that_has_proven_fast_runs_on_its_callers_thread() {
    let (_, client) = subject(options(&[])).await;
    let own = std::thread::current().name().expect("a test's thread has a name").to_owned();
    assert_eq!(client.thread().await.expect("it answers"), "worker", "nobody knows yet that it is fast");
    // On a busy machine a call may look slow now and then.
    let here = async { while client.thread().await.expect("it answers") != own {} };
    tokio::time::timeout(BOUND, here).await.expect("it proves fast at some time");
}

#[tokio::test]
async fn a_panic_is_a_fault_of_its_own_call() {
    let (instance, client) = subject(options(&[])).await;
    // Also of those that run on this thread.
    for time in 0..40 {
        let Err(CallError::Fault(fault)) = client.panic().await else { panic!("it panics") };
        assert_eq!(fault.code, FaultCode::Panicked);
        assert!(fault.message.ends_with(&format!("as often as {time}")), "{}", fault.message);
    }
    assert_eq!(client.next(1).await.expect("it lives"), 2);
    assert!(instance.stop(&Cause::Closed("over".into()), BOUND).await);
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_never_returns_and_its_instance_is_left_alone() {
    let (instance, client) = subject(options(&[])).await;
    // On a busy machine one may be too late to be begun at all.
    while STICKS.load(Ordering::Relaxed) == 0 {
        let sticks = client.clone().with_timeout(Duration::from_millis(50)).stick().await;
        assert!(matches!(sticks, Err(CallError::Unknown(Cause::Deadline))), "{sticks:?}");
    }
    assert_eq!(client.next(1).await.expect("others are answered"), 2);
    eventually("the others are answered", || instance.in_flight() == 1).await;
    assert!(instance.oldest_unanswered().is_some());
    let sticks = client.stick();
    assert!(!instance.clone().stop(&Cause::Closed("over".into()), Duration::from_millis(20)).await);
    let sticks = sticks.await;
    assert!(matches!(&sticks, Err(CallError::Unknown(Cause::Closed(why))) if why == "over"), "{sticks:?}");
    let after = client.next(1).await;
    assert!(matches!(after, Err(CallError::NotDelivered(Cause::Closed(_)))), "{after:?}");
}

#[tokio::test]
async fn a_cancel_reaches_the_handler_and_progress_its_caller() {
    let (instance, _) = subject(options(&[])).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let sink =
        ProgressSink::new(move |progress: Progress| hears.lock().push((progress.done, progress.total)));
    let nothing = Encoded::from_value(&[(); 0]).expect("it can be encoded");
    let request = Request::new("hold", Payload::Encoded(nothing), BOUND).with_progress(sink);
    let held = instance.call(request);
    eventually("progress is heard", || *heard.lock() == [(1, Some(2))]).await;
    let ended = HOLDS_ENDED.load(Ordering::Relaxed);
    drop(held);
    eventually("the handler hears of it", || HOLDS_ENDED.load(Ordering::Relaxed) > ended).await;
    eventually("its place is free", || instance.in_flight() == 0).await;
    assert_eq!((instance.statistics().late, instance.statistics().cancelled), (1, 1));
}

#[tokio::test]
async fn an_async_method_and_many_at_once_are_answered_each() {
    let (_, client) = subject(options(&[])).await;
    let calls: Vec<_> = (0..500).map(|number| client.later(number)).collect();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.expect("it comes back"), number);
    }
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_one_that_never_returns_is_left_alone() {
    let library = Library::of_table(&SUBJECT).expect("it is a table");
    let refused = InProcess::start(&library, options(&[("refuses", true)])).await;
    assert!(
        matches!(&refused, Err(StartError::Refused(fault)) if fault.message == "not today"),
        "{refused:?}"
    );
    let panicked = InProcess::start(&library, options(&[("panics", true)])).await;
    assert!(
        matches!(&panicked, Err(StartError::Refused(fault)) if fault.code == FaultCode::Panicked),
        "{panicked:?}"
    );
    let silent = StartOptions { ready_timeout: Duration::from_millis(20), ..options(&[("waits", true)]) };
    let silent = InProcess::start(&library, silent).await;
    assert!(matches!(silent, Err(StartError::Silent { .. })), "{silent:?}");
    let (_, client) = subject(options(&[])).await;
    assert_eq!(client.next(1).await.expect("the library still works"), 2);
}

#[tokio::test]
async fn a_library_starts_again_after_it_was_stopped_and_old_handles_do_nothing() {
    let library = Library::of_table(&SUBJECT).expect("it is a table");
    let mut before: Option<InProcess> = None;
    for _ in 0..20 {
        let instance = InProcess::start(&library, options(&[])).await.expect("it starts");
        let client = SubjectsClient::new(instance.clone()).with_timeout(BOUND);
        assert_eq!(client.next(1).await.expect("it answers"), 2);
        if let Some(before) = before.replace(instance.clone()) {
            let old = SubjectsClient::new(before).next(1).await;
            assert!(matches!(old, Err(CallError::NotDelivered(Cause::Closed(_)))), "{old:?}");
        }
        instance.drain();
        let late = client.next(1).await;
        assert!(matches!(late, Err(CallError::NotDelivered(Cause::Closed(_)))), "{late:?}");
        instance.idle().await;
        assert!(instance.stop(&Cause::Closed("over".into()), BOUND).await);
    }
}
