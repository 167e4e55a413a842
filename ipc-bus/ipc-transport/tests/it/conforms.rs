//! The socket, shared memory and the listening socket keep what every tier must keep.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc_protocol::handshake::Hello;
use ipc_testkit::conformance::Tier;
use ipc_testkit::conformance_tests;
use ipc_testkit::peer::Peer;
use ipc_testkit::reference;
use ipc_transport::connection::{ConnectOptions, Connection, connect};
use ipc_transport::rendezvous::preamble::Role;
use ipc_transport::rendezvous::{Rendezvous, meet};
use ipc_transport::ring::Latency;
use ipc_transport::{Caller, Cause};

/// The socket alone.
struct Socket;

/// Shared memory, with each setting of how long to poll.
struct SharedMemory(Latency);

impl Tier for Socket {
    async fn start(&self, in_flight_max: u32) -> Arc<dyn Caller> {
        let caller = start(in_flight_max, |options| options.offers_rings = false).await;
        assert!(!caller.uses_rings());
        Arc::new(caller)
    }
}

impl Tier for SharedMemory {
    async fn start(&self, in_flight_max: u32) -> Arc<dyn Caller> {
        let caller = start(in_flight_max, |options| options.latency = self.0).await;
        assert!(caller.uses_rings());
        Arc::new(caller)
    }
}

/// Through a listening socket, to one who listens in this process.
struct Listening;

impl Tier for Listening {
    async fn start(&self, in_flight_max: u32) -> Arc<dyn Caller> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rendezvous = Rendezvous::open(&folder.path().join("serve")).expect("nobody else is there");
        let server = std::thread::spawn(move || {
            let knock = rendezvous.accept().expect("it listens").expect("it is not closed");
            reference::serve(Peer::new(knock.hear(|_| Some(())).expect("it may come in").0.channel));
        });
        let met = meet(&folder.path().join("serve"), Role::Client).expect("it can be reached");
        let connection = start_over(met.expect("somebody listens"), in_flight_max, |_| {}).await;
        assert!(connection.uses_rings());
        // It ends with its peer; the folder may go before.
        drop((server, folder));
        Arc::new(connection)
    }
}

async fn start(in_flight_max: u32, configure: impl FnOnce(&mut ConnectOptions)) -> Connection {
    let (socket, _) = Peer::run(reference::serve);
    start_over(socket, in_flight_max, configure).await
}

async fn start_over(
    socket: UnixStream,
    in_flight_max: u32,
    configure: impl FnOnce(&mut ConnectOptions),
) -> Connection {
    let mut options = ConnectOptions { in_flight_max, ..ConnectOptions::new(Hello::new("test", 3, 99)) };
    configure(&mut options);
    let connection = connect(socket, options, Arc::new(())).await.expect("the reference accepts");
    // What the host does: wait for the end, find out how it came, say so.
    let watched = connection.clone();
    tokio::spawn(async move {
        watched.closed().await;
        watched.fail_all(Cause::Died("it ended as it was told".to_owned()));
    });
    connection
}

mod socket {
    use super::*;
    conformance_tests!(Socket);
}

mod listening {
    use super::*;
    conformance_tests!(Listening);
}

mod shared_memory_balanced {
    use super::*;
    conformance_tests!(SharedMemory(Latency::Balanced));
}

mod shared_memory_low {
    use super::*;
    conformance_tests!(SharedMemory(Latency::Low));
}

mod shared_memory_efficient {
    use super::*;
    conformance_tests!(SharedMemory(Latency::Efficient));
}
