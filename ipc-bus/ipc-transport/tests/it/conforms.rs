//! The socket tier keeps what every tier must keep.

use std::sync::Arc;

use ipc_protocol::handshake::Hello;
use ipc_testkit::conformance::Tier;
use ipc_testkit::conformance_tests;
use ipc_testkit::peer::Peer;
use ipc_testkit::reference;
use ipc_transport::connection::{ConnectOptions, connect};
use ipc_transport::{Caller, Cause};

struct Socket;

impl Tier for Socket {
    async fn start(&self, in_flight_max: u32) -> Arc<dyn Caller> {
        let (socket, _) = Peer::run(reference::serve);
        let options = ConnectOptions { in_flight_max, ..ConnectOptions::new(Hello::new("test", 3, 99)) };
        let connection = connect(socket, options, Arc::new(())).await.expect("the reference accepts");
        // What the host does: wait for the end, find out how it came, say so.
        let watched = connection.clone();
        tokio::spawn(async move {
            watched.closed().await;
            watched.fail_all(Cause::Died("it ended as it was told".to_owned()));
        });
        Arc::new(connection)
    }
}

conformance_tests!(Socket);
