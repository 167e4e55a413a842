//! tonic, gRPC over a Unix socket: what plug-in systems speak that let their authors choose the language.
//!
//! Chosen: one thread on each side (two take three times as long), a codec that hands the bytes through (no protobuf around
//! them), the service alone without a router, windows and frames that hold the largest message whole, as many streams
//! as calls.

use std::convert::Infallible;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, ready};
use futures_util::stream;
use http::uri::PathAndQuery;
use tokio::net::UnixListener;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Server as TonicServer};
use tonic::{Request, Response, Status};
use tower::service_fn;

use super::server::{self, Server};
use super::{InFlight, OneByOne, rate_of_futures};

/// The peer's name for its answering side.
pub(super) const NAME: &str = "tonic";

const METHOD: &str = "/peer.Echo/Echo";
/// A frame of HTTP/2: the largest message, and what gRPC puts before it.
const FRAME: u32 = 128 * 1024;
/// Bytes that may be under way in one stream, and in all of them.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// Streams at once: all calls in flight, and those whose end is still being told.
const STREAMS: u32 = 1_024;

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(message.len());
        to.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A channel whose connection runs in this runtime.
#[derive(Debug)]
pub(super) struct Tonic {
    channel: Channel,
    message: Bytes,
    _server: Server,
}

impl Tonic {
    /// Call inside a tokio runtime.
    pub(super) async fn start(bytes: usize, core: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("socket");
        let server = Server::start_with(NAME, core, &[], StdUnixListener::bind(&path)?.into())?;
        let channel = Endpoint::from_shared(format!("unix:{}", path.display()))?
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .connect()
            .await?;
        Ok(Self { channel, message: vec![7; bytes].into(), _server: server })
    }

    async fn call(&self) -> anyhow::Result<()> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.context("the connection of tonic has ended")?;
        let request = Request::new(self.message.clone());
        let answer = client.unary(request, PathAndQuery::from_static(METHOD), Plain).await?;
        anyhow::ensure!(answer.get_ref().len() == self.message.len(), "tonic answered something else");
        Ok(())
    }
}

impl OneByOne for Tonic {
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

impl InFlight for Tonic {
    fn rate(&mut self, in_flight: usize, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<f64>> {
        rate_of_futures(|| self.call(), in_flight, time).boxed_local()
    }
}

pub(super) fn serve() -> anyhow::Result<()> {
    let listener = StdUnixListener::from(server::stdin()?);
    listener.set_nonblocking(true)?;
    server::runtime()?.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(socket, _)| socket);
            Some((accepted, listener))
        });
        let echo = service_fn(|request: http::Request<tonic::body::Body>| async {
            let unary = service_fn(|request: Request<Bytes>| {
                ready(Ok::<_, Status>(Response::new(request.into_inner())))
            });
            Ok::<_, Infallible>(tonic::server::Grpc::new(Plain).unary(unary, request).await)
        });
        TonicServer::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_concurrent_streams(STREAMS)
            .serve_with_incoming(echo, incoming)
            .await?;
        Ok(())
    })
}
