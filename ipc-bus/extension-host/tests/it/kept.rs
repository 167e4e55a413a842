//! What a route keeps of calls that are not over: bounded, and freed with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use extension_host::{InstanceState, Route};
use ipc_protocol::Codec;
use ipc_transport::{CallError, Caller, Encoded, Payload, Reply, Request};
use tokio::runtime::RuntimeFlavor;

use crate::support::{BOUND, call, host, on_both_runtimes, options, register, snapshot, until, until_state};

const MIB: usize = 1 << 20;

/// Memory that tells when it is freed.
struct Tells(Vec<u8>, Arc<AtomicU32>);

impl AsRef<[u8]> for Tells {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Tells {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Calls with arguments of `length` bytes, whose memory counts in `alive`.
fn start(route: &Route, method: &str, length: usize, alive: &Arc<AtomicU32>, reject: bool) -> Reply {
    alive.fetch_add(1, Ordering::SeqCst);
    // A bin value with a length of four bytes.
    let length = u32::try_from(length - 5).expect("it is short");
    let mut value = vec![0xc6];
    value.extend(length.to_be_bytes());
    value.resize(length as usize + 5, 0);
    let bytes = Bytes::from_owner(Tells(value, Arc::clone(alive)));
    let request = Request::new(method, Payload::Encoded(Encoded { codec: Codec::MessagePack, bytes }), BOUND);
    route.call(if reject { request.or_reject() } else { request })
}

#[test]
fn a_rejected_call_and_one_that_is_given_up_keep_nothing() {
    on_both_runtimes(async || {
        let host = host(options());
        let alive = Arc::default();
        let route = register(&host, "x", "stall", "[limits]\nin-flight = 1\n");
        // One waits for the start, and is given up.
        drop(start(&route, "echo", MIB, &alive, false));
        let kept = || (alive.load(Ordering::SeqCst), snapshot(&host, "x").kept_bytes);
        if tokio::runtime::Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            assert_eq!(kept(), (0, 0), "freed at once");
        }
        // On several threads the start may have come before the drop, and the call may be on its way.
        let give_up = std::time::Instant::now() + BOUND;
        while kept() != (0, 0) {
            assert!(std::time::Instant::now() < give_up, "{:?}", kept());
            tokio::task::yield_now().await;
        }

        call(&route, "echo", "up").await.expect("it is answered");
        let stalls = start(&route, "misbehave", 2_000, &alive, false);
        // Nobody looks at their replies.
        let rejected: Vec<_> = (0..10).map(|_| start(&route, "echo", MIB, &alive, true)).collect();
        assert_eq!((alive.load(Ordering::SeqCst), snapshot(&host, "x").kept_bytes), (1, 2_000));
        for reply in rejected {
            let error = reply.await.expect_err("there is no room");
            assert!(matches!(error, CallError::Rejected { retry_after: Some(_), .. }), "{error:?}");
        }
        drop(stalls);
        assert_eq!((alive.load(Ordering::SeqCst), snapshot(&host, "x").kept_bytes), (0, 0));
        host.shutdown(std::time::Duration::ZERO).await;
    });
}

#[test]
fn calls_that_wait_for_a_start_are_bounded_in_bytes() {
    on_both_runtimes(async || {
        let host = host(options());
        let alive = Arc::default();
        let route = register(&host, "x", "no-hello", "");
        // 64 MiB are kept.
        let waiting: Vec<_> = (0..8).map(|_| start(&route, "echo", 8 * MIB, &alive, false)).collect();
        let error = start(&route, "echo", MIB, &alive, false).await.expect_err("there is no room");
        let CallError::Rejected { reason, .. } = &error else { panic!("{error:?}") };
        assert_eq!(reason, "67108864 bytes of arguments are kept already for calls of extension `x`");
        assert_eq!(alive.load(Ordering::SeqCst), 8);
        drop(waiting);
        // One may be longer, if it is alone.
        let long = start(&route, "echo", 65 * MIB, &alive, false);
        assert_eq!((alive.load(Ordering::SeqCst), snapshot(&host, "x").kept_bytes), (1, 65 << 20));
        drop(long);
        host.shutdown(std::time::Duration::ZERO).await;
        assert_eq!((alive.load(Ordering::SeqCst), snapshot(&host, "x").kept_bytes), (0, 0));
    });
}

#[test]
fn a_call_for_which_there_is_no_room_is_made_once_and_answered() {
    on_both_runtimes(async || {
        let host = host(options());
        let alive = Arc::default();
        let route = register(&host, "x", "stall", "");
        call(&route, "echo", "up").await.expect("it is answered");
        until_state(&host, "x", InstanceState::Ready).await;
        let all = start(&route, "misbehave", 64 * MIB, &alive, false);
        until(&host, "x", |x| x.connection.is_some_and(|c| c.bytes_queued == 0)).await;
        let more = start(&route, "echo", MIB, &alive, false);
        assert_eq!(snapshot(&host, "x").kept_bytes, 64 << 20, "the second is not kept");
        let answer = more.await.expect("it is answered all the same").into_encoded().expect("encoded");
        assert_eq!((answer.bytes.len(), alive.load(Ordering::SeqCst)), (MIB, 1));
        drop(all);
        assert_eq!(snapshot(&host, "x").kept_bytes, 0);
        host.shutdown(std::time::Duration::ZERO).await;
    });
}
