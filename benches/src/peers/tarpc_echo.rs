//! tarpc over a Unix socket: `echo(String) -> String`.
//!
//! Chosen: one thread on each side (two cost a hand-over for every call, and four times the latency), postcard under
//! tarpc's own framing (its own choice, bincode, has ended; JSON takes twenty times as long for 64 KiB), the handler run where
//! the request was read, buffers that hold all that is in flight.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::{Deserializer, Serializer};
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, context, serde_transport, server as tarpc_server};
use tokio::net::UnixStream;

use super::server::{self, Server};
use super::{InFlight, OneByOne, rate_of_futures};

/// The peer's name for its answering side.
pub(super) const NAME: &str = "tarpc";

/// Requests and responses that wait on either side: as many as are ever in flight.
const BUFFERED: usize = 256;

#[tarpc::service]
trait Echo {
    async fn echo(text: String) -> String;
}

#[derive(Clone, Debug)]
struct Mirror;

impl Echo for Mirror {
    async fn echo(self, _: context::Context, text: String) -> String {
        text
    }
}

/// postcard as tarpc wants its codecs.
#[derive(Debug)]
struct Postcard;

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = std::io::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> Result<Bytes, Self::Error> {
        postcard::to_stdvec(item).map(Bytes::from).map_err(std::io::Error::other)
    }
}

impl<T: DeserializeOwned> Deserializer<T> for Postcard {
    type Error = std::io::Error;

    fn deserialize(self: Pin<&mut Self>, from: &BytesMut) -> Result<T, Self::Error> {
        postcard::from_bytes(from).map_err(std::io::Error::other)
    }
}

/// A client whose dispatch runs in this runtime.
#[derive(Debug)]
pub(super) struct Tarpc {
    client: EchoClient,
    text: String,
    _server: Server,
}

impl Tarpc {
    /// Call inside a tokio runtime.
    pub(super) fn start(bytes: usize, core: usize) -> anyhow::Result<Self> {
        let (server, socket) = Server::start(NAME, core, &[])?;
        socket.set_nonblocking(true)?;
        let framed = LengthDelimitedCodec::builder().new_framed(UnixStream::from_std(socket)?);
        let mut config = client::Config::default();
        config.pending_request_buffer = BUFFERED;
        let client = EchoClient::new(config, serde_transport::new(framed, Postcard)).spawn();
        Ok(Self { client, text: "x".repeat(bytes), _server: server })
    }

    async fn call(&self) -> anyhow::Result<()> {
        let answer = self.client.echo(context::current(), self.text.clone()).await?;
        anyhow::ensure!(answer.len() == self.text.len(), "tarpc answered something else");
        Ok(())
    }
}

impl OneByOne for Tarpc {
    fn one_by_one(&mut self, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<Vec<Duration>>> {
        async move {
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let start = Instant::now();
                self.call().await?;
                times.push(start.elapsed());
            }
            Ok(times)
        }
        .boxed_local()
    }
}

impl InFlight for Tarpc {
    fn rate(&mut self, in_flight: usize, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<f64>> {
        rate_of_futures(|| self.call(), in_flight, time).boxed_local()
    }
}

pub(super) fn serve() -> anyhow::Result<()> {
    let socket = StdUnixStream::from(server::stdin()?);
    socket.set_nonblocking(true)?;
    server::runtime()?.block_on(async {
        let framed = LengthDelimitedCodec::builder().new_framed(UnixStream::from_std(socket)?);
        let config = tarpc_server::Config { pending_response_buffer: BUFFERED };
        let requests =
            BaseChannel::new(config, serde_transport::new(framed, Postcard)).execute(Mirror.serve());
        // An echo never waits, and all of its answers fit into the buffer.
        requests.for_each(|response| response).await;
        Ok(())
    })
}
