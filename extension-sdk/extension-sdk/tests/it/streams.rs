//! Streams as author and caller have them: over a channel with credit, and as lists where nothing carries them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use extension_sdk::stream::Stream;
use extension_sdk::{CallError, Caller, Context, Fault, FaultCode, testing};
use ipc_protocol::handshake::Hello;
use ipc_transport::connection::{ConnectOptions, Connection, connect};
use ipc_transport::{Encoded, Payload, Request};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two streams and something else.
#[extension_sdk::message]
struct Both {
    name: String,
    even: Stream<u64>,
    odd: Vec<Stream<u64>>,
}

#[extension_sdk::interface]
trait Numbers {
    /// Counts.
    fn count(&self, cx: &Context, to: u64) -> Result<Stream<u64>, Fault>;

    /// Counts, taking turns.
    fn turns(&self, cx: &Context, to: u64) -> Result<Both, Fault>;

    /// Items of so many bytes, without end.
    fn flood(&self, cx: &Context, bytes: usize) -> Result<Stream<String>, Fault>;

    /// One item, and then this fault, a panic, or nothing more.
    fn breaks(&self, cx: &Context, how: String) -> Result<Stream<u8>, Fault>;

    /// Writes so many bytes before it answers, or fails.
    fn early(&self, cx: &Context, bytes: usize, fails: bool) -> Result<Stream<String>, Fault>;

    /// How many items `flood` has written.
    fn written(&self) -> Result<u64, Fault>;

    /// How many floods are under way.
    fn floods(&self) -> Result<u64, Fault>;
}

#[derive(Default)]
struct Counter {
    written: Arc<AtomicU64>,
    floods: Arc<AtomicU64>,
}

impl Numbers for Counter {
    fn count(&self, cx: &Context, to: u64) -> Result<Stream<u64>, Fault> {
        cx.stream_of((0..to).map(Ok))
    }

    fn turns(&self, cx: &Context, to: u64) -> Result<Both, Fault> {
        let ((mut evens, even), (mut odds, odd)) = (cx.stream()?, cx.stream()?);
        thread::spawn(move || {
            for number in 0..to {
                let sink = if number % 2 == 0 { &mut evens } else { &mut odds };
                if sink.send(&number).is_err() {
                    return;
                }
            }
            evens.end();
            odds.end();
        });
        Ok(Both { name: "both".to_owned(), even, odd: vec![odd] })
    }

    fn flood(&self, cx: &Context, bytes: usize) -> Result<Stream<String>, Fault> {
        let (mut sink, stream) = cx.stream()?;
        let (written, floods) = (Arc::clone(&self.written), Arc::clone(&self.floods));
        floods.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || {
            while sink.send(&"x".repeat(bytes)).is_ok() {
                written.fetch_add(1, Ordering::SeqCst);
            }
            assert!(sink.is_given_up());
            floods.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(stream)
    }

    fn breaks(&self, cx: &Context, how: String) -> Result<Stream<u8>, Fault> {
        let (mut sink, stream) = cx.stream()?;
        thread::spawn(move || {
            assert!(sink.send(&1).is_ok());
            match how.as_str() {
                "fault" => sink.fail(Fault::new(FaultCode::NotFound, "no more")),
                "panic" => panic!("in the middle"),
                "exit" => std::process::abort(),
                _ => drop(sink),
            }
        });
        Ok(stream)
    }

    fn early(&self, cx: &Context, bytes: usize, fails: bool) -> Result<Stream<String>, Fault> {
        let (mut sink, stream) = cx.stream()?;
        for _ in 0..bytes / 1000 {
            sink.send(&"x".repeat(1000))?;
        }
        sink.end();
        if fails { Err(Fault::new(FaultCode::Failed, "after all")) } else { Ok(stream) }
    }

    fn written(&self) -> Result<u64, Fault> {
        Ok(self.written.load(Ordering::SeqCst))
    }

    fn floods(&self) -> Result<u64, Fault> {
        Ok(self.floods.load(Ordering::SeqCst))
    }
}

mod exported {
    use super::{Counter, Numbers};
    extension_sdk::export!(Counter as Numbers);
    const _: fn() -> std::process::ExitCode = main;
}

/// An extension behind a channel, and what serves it.
struct Served {
    connection: Connection,
    serves: JoinHandle<()>,
}

async fn serve(has_rings: bool) -> Served {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let serves = thread::spawn(|| {
        let definition = extension_sdk::define!("numbers", Counter::default() => Counter as Numbers);
        extension_sdk::embedded::serve(theirs, definition, 100).expect("it is served to its end");
    });
    let mut options = ConnectOptions::new(Hello::new("numbers", 1, 7));
    options.offers_rings = has_rings;
    let connection = connect(ours, options, Arc::new(())).await.expect("it greets");
    Served { connection, serves }
}

impl Served {
    fn client(&self) -> NumbersClient {
        NumbersClient::new(self.connection.clone()).with_timeout(PATIENCE)
    }

    async fn until(&self, what: &str, mut is_so: impl AsyncFnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self).await {
            assert!(Instant::now() < until, "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn end(self) {
        drop(self.connection);
        self.serves.join().expect("it ends");
    }
}

async fn all<T: extension_sdk::__private::Sendable>(mut stream: Stream<T>) -> Result<Vec<T>, CallError> {
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        items.push(item?);
    }
    assert!(stream.next().await.is_none(), "nothing follows the end");
    Ok(items)
}

#[tokio::test(flavor = "multi_thread")]
async fn items_come_one_after_the_other_through_either_transport() {
    for has_rings in [false, true] {
        let served = serve(has_rings).await;
        assert_eq!(served.connection.uses_rings(), has_rings);
        for count in [0, 1, 100_000] {
            let stream = served.client().count(count).await.expect("it answers");
            assert!(all(stream).await.expect("it ends well").into_iter().eq(0..count), "{count}");
        }
        let Both { name, even, mut odd } = served.client().turns(10_000).await.expect("it answers");
        let odd = odd.pop().expect("one");
        let (even, odd) = tokio::join!(all(even), all(odd));
        assert_eq!(
            (name.as_str(), even.expect("well").len(), odd.expect("well").len()),
            ("both", 5000, 5000)
        );
        assert_eq!(served.connection.open_streams(), 0);
        served.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_waits_for_its_reader_and_stops_when_nobody_reads() {
    for has_rings in [false, true] {
        let served = serve(has_rings).await;
        let mut flood = served.client().flood(10_000).await.expect("it answers");
        assert!(flood.next().await.expect("an item").is_ok());
        // Until it has used up its credit and what it may keep: then it must stand still.
        let mut before = 0;
        served
            .until("it stands still", async |served| {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let written = served.client().written().await.expect("it answers beside it");
                written > 10 && std::mem::replace(&mut before, written) == written
            })
            .await;
        // A window, what is kept, and the items on the edge of both.
        assert!(before * 10_000 < (256 << 10) + (64 << 10) + 4 * 10_000, "{before}");
        for _ in 0..100 {
            assert!(flood.next().await.expect("an item").is_ok());
        }
        let read = served.client().written().await.expect("it answers");
        assert!(read >= before + 30, "it goes on as it is read: {before} {read}");
        drop(flood);
        served
            .until("it stops", async |served| served.client().floods().await.expect("it answers") == 0)
            .await;
        // One of which the result itself is not wanted: given up before, or after it has come.
        for wait in [0, 20] {
            let call = served.client().flood(10);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            drop(call);
        }
        served
            .until("it stops", async |served| served.client().floods().await.expect("it answers") == 0)
            .await;
        served.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_end_well_says_so() {
    let served = serve(true).await;
    for (how, code) in
        [("fault", FaultCode::NotFound), ("panic", FaultCode::Panicked), ("drop", FaultCode::Failed)]
    {
        let mut stream = served.client().breaks(how.to_owned()).await.expect("it answers");
        assert_eq!(stream.next().await.expect("an item").expect("a good one"), 1);
        match stream.next().await {
            Some(Err(CallError::Fault(fault))) => assert_eq!(fault.code, code, "{how}"),
            other => panic!("{how}: {other:?}"),
        }
        assert!(stream.next().await.is_none());
    }
    // The other side goes while it is read.
    let mut stream = served.client().flood(10).await.expect("it answers");
    assert!(stream.next().await.expect("an item").is_ok());
    served.connection.close("enough");
    let mut items = 0_u64;
    loop {
        match stream.next().await {
            Some(Ok(_)) => items += 1,
            Some(Err(CallError::Unknown(_))) => break,
            other => panic!("after {items}: {other:?}"),
        }
    }
    drop(stream);
    served.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_may_write_a_little_before_it_answers_and_is_refused_more() {
    let served = serve(true).await;
    let stream = served.client().early(60_000, false).await.expect("it answers");
    assert_eq!(all(stream).await.expect("it ends well").len(), 60);
    let refused = served.client().early(200_000, false).await.expect_err("that is too much");
    assert!(matches!(&refused, CallError::Fault(fault) if fault.code == FaultCode::Busy), "{refused}");
    assert!(refused.to_string().contains("from a thread of its own"), "{refused}");
    let failed = served.client().early(1000, true).await.expect_err("it fails");
    assert!(matches!(&failed, CallError::Fault(fault) if fault.message == "after all"), "{failed}");
    // What such calls began is over: as many streams as may be can still be open.
    let mut floods = Vec::new();
    for _ in 0..256 {
        floods.push(served.client().flood(1000).await.expect("there is room"));
    }
    let refused = served.client().flood(10).await.expect_err("there is no more room");
    assert!(matches!(&refused, CallError::Fault(fault) if fault.code == FaultCode::Busy), "{refused}");
    drop(floods);
    served.until("all stop", async |served| served.client().floods().await.expect("it answers") == 0).await;
    served.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_streams_and_who_takes_them_whole_gets_lists() {
    let served = serve(true).await;
    let stream = served.client().count(50_000).await.expect("it answers");
    served.connection.drain();
    assert_eq!(all(stream).await.expect("it is written to its end").len(), 50_000);
    served.connection.idle().await;
    served.end();

    let served = serve(false).await;
    let arguments = Encoded::from_value(&std::collections::BTreeMap::from([("to", 6)])).expect("encoded");
    let request = Request::new("turns", Payload::Encoded(arguments), PATIENCE);
    let deadline = request.deadline;
    let whole = ipc_transport::stream::whole(served.connection.call(request), deadline).await;
    let both: Both = whole.expect("it ends well").decode().expect("it is what the method gives");
    assert_eq!(all(both.even).await.expect("a list ends well"), [0, 2, 4]);
    let endless = Encoded::from_value(&std::collections::BTreeMap::from([("bytes", 10)])).expect("encoded");
    let request = Request::new("flood", Payload::Encoded(endless), Duration::from_millis(300));
    let deadline = request.deadline;
    let late = ipc_transport::stream::whole(served.connection.call(request), deadline).await;
    assert!(matches!(late, Err(CallError::Unknown(_))), "{late:?}");
    served.until("it stops", async |served| served.client().floods().await.expect("it answers") == 0).await;
    served.end();
}

#[test]
fn where_nothing_carries_streams_they_are_lists() {
    let callers: [Arc<dyn Caller>; 2] = [
        Arc::new(testing::in_process::<Counter>().expect("it starts")),
        Arc::new(testing::over_socket::<Counter>().expect("it starts")),
    ];
    for caller in callers {
        let client = NumbersClient::new(caller);
        let mut numbers = client.count(3).wait().expect("it answers");
        let items: Vec<u64> = std::iter::from_fn(|| numbers.wait()).map(|item| item.expect("good")).collect();
        assert_eq!(items, [0, 1, 2]);
        let broken = client.breaks("fault".to_owned()).wait().expect_err("it does not end well");
        assert!(broken.to_string().contains("no more"), "{broken}");
    }
}
