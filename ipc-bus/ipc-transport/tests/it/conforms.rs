//! The socket and shared memory keep what every tier must keep.

use std::sync::Arc;

use ipc_protocol::handshake::Hello;
use ipc_testkit::conformance::Tier;
use ipc_testkit::conformance_tests;
use ipc_testkit::peer::Peer;
use ipc_testkit::reference;
use ipc_transport::connection::{ConnectOptions, Connection, connect};
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

async fn start(in_flight_max: u32, configure: impl FnOnce(&mut ConnectOptions)) -> Connection {
    let (socket, _) = Peer::run(reference::serve);
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
