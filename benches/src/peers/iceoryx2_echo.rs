//! iceoryx2's request-response: shared memory without a lock, both sides polling.
//!
//! Chosen: busy polling (waiting for its event costs a wake-up of the core, as for everybody), slices that have their
//! final length from the start, the request written into loaned memory and the answer read where it lies: only the
//! answering side copies, since a request's memory is the client's. It does not give up a message for a newer one.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use iceoryx2::config::Config;
use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::prelude::{SignalHandlingMode, ipc};
use iceoryx2::service::port_factory::request_response::PortFactory;
use tempfile::TempDir;

use super::server::{self, Server};
use super::{InFlight, OneByOne, SPINS_MAX};

/// The peer's name for its answering side.
pub(super) const NAME: &str = "iceoryx2";

/// LIMIT: requests of one client that wait for their answer. The most that was asked of it.
pub(super) const IN_FLIGHT_MAX: usize = 64;

type Service = PortFactory<ipc::Service, [u8], (), [u8], ()>;
type Pending = PendingResponse<ipc::Service, [u8], (), [u8], ()>;

/// What the answering side makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The same bytes.
    Echo,
    /// One byte, after all of them were copied out: what handing over a large payload costs.
    ReadAll,
}

/// The polling client.
#[derive(Debug)]
pub(super) struct Iceoryx2 {
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    message: Vec<u8>,
    answered: usize,
    server: Server,
    _node: Node<ipc::Service>,
    // Last: all others have their files in it.
    _folder: TempDir,
}

impl Iceoryx2 {
    pub(super) fn start(bytes: usize, core: usize, answer: Answer) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = node(folder.path())?;
        let service = service(&node)?;
        let path = folder.path().to_str().context("the folder's name is no text")?;
        let echoes = (answer == Answer::Echo).to_string();
        let more = [path.to_owned(), bytes.to_string(), echoes];
        let (server, mut ready) = Server::start(NAME, core, &more)?;
        ready.read_exact(&mut [0])?;
        let client = service.client_builder().initial_max_slice_len(bytes).create()?;
        let answered = if answer == Answer::Echo { bytes } else { 1 };
        let started =
            Self { client, message: vec![7; bytes], answered, server, _node: node, _folder: folder };
        started.await_answer(&started.send(&started.message)?)?;
        started.server.hold()?;
        Ok(started)
    }

    fn send(&self, message: &[u8]) -> anyhow::Result<Pending> {
        let pending = self.client.loan_slice_uninit(message.len())?.write_from_slice(message).send()?;
        anyhow::ensure!(pending.number_of_server_connections() == 1, "the answering side is not connected");
        Ok(pending)
    }

    fn await_answer(&self, pending: &Pending) -> anyhow::Result<()> {
        for _ in 0..SPINS_MAX {
            if let Some(answer) = pending.receive()? {
                let read = std::hint::black_box(answer.payload());
                let is_echo = read.len() == self.answered && read.last() == self.message.last();
                anyhow::ensure!(is_echo, "iceoryx2 answered something else");
                return Ok(());
            }
            std::hint::spin_loop();
        }
        anyhow::bail!("nothing came in {SPINS_MAX} spins")
    }
}

impl Drop for Iceoryx2 {
    fn drop(&mut self) {
        // An empty request asks the answering side to end, so that it takes its shared memory along. One that cannot be
        // asked is killed by its owner.
        if self.server.resume().is_ok() && self.send(&[]).is_ok() {
            self.server.wait();
        }
    }
}

impl OneByOne for Iceoryx2 {
    fn one_by_one(&mut self, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<Vec<Duration>>> {
        async move {
            let _awake = self.server.awake()?;
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let start = Instant::now();
                self.await_answer(&self.send(&self.message)?)?;
                times.push(start.elapsed());
            }
            Ok(times)
        }
        .boxed_local()
    }
}

impl InFlight for Iceoryx2 {
    fn rate(&mut self, in_flight: usize, time: Duration) -> LocalBoxFuture<'_, anyhow::Result<f64>> {
        async move {
            let _awake = self.server.awake()?;
            let mut flying = VecDeque::new();
            for _ in 0..in_flight {
                flying.push_back(self.send(&self.message)?);
            }
            let (begun, mut answered) = (Instant::now(), 0_u32);
            while begun.elapsed() < time {
                self.await_answer(&flying.pop_front().context("nothing is in flight")?)?;
                flying.push_back(self.send(&self.message)?);
                answered += 1;
            }
            let rate = f64::from(answered) / begun.elapsed().as_secs_f64();
            for last in flying {
                self.await_answer(&last)?;
            }
            Ok(rate)
        }
        .boxed_local()
    }
}

pub(super) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [folder, bytes, echoes] = arguments else {
        anyhow::bail!("a folder, a length and an answer are needed")
    };
    let (bytes, echoes) = (bytes.parse()?, echoes.parse::<bool>()?);
    let node = node(Path::new(folder))?;
    let server = service(&node)?.server_builder().initial_max_slice_len(bytes).create()?;
    UnixStream::from(server::stdin()?).write_all(&[1])?;
    let mut out = vec![0; bytes];
    loop {
        let Some(request) = server.receive()? else {
            std::hint::spin_loop();
            continue;
        };
        let payload = request.payload();
        if payload.is_empty() {
            return Ok(());
        }
        if echoes {
            request.loan_slice_uninit(payload.len())?.write_from_slice(payload).send()?;
        } else {
            std::hint::black_box(&mut out).copy_from_slice(payload);
            request.loan_slice_uninit(1)?.write_from_slice(&out[..1]).send()?;
        }
    }
}

/// A node whose files lie in `folder` alone.
fn node(folder: &Path) -> anyhow::Result<Node<ipc::Service>> {
    let mut config = Config::default();
    let path = folder.to_str().context("the folder's name is no text")?;
    config.global.set_root_path(&path.try_into().ok().context("the folder's name is too long")?);
    let builder = NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled);
    Ok(builder.create::<ipc::Service>()?)
}

fn service(node: &Node<ipc::Service>) -> anyhow::Result<Service> {
    let service = node
        .service_builder(&"echo".try_into()?)
        .request_response::<[u8], [u8]>()
        .enable_safe_overflow_for_requests(false)
        .enable_safe_overflow_for_responses(false)
        .max_active_requests_per_client(IN_FLIGHT_MAX)
        .max_loaned_requests(IN_FLIGHT_MAX)
        .max_clients(1)
        .max_servers(1)
        .open_or_create()?;
    Ok(service)
}
