//! What a connection costs beside the bare socket: round trips and calls per second, in one run.
//!
//! `cargo run --release -p ipc-transport --features tokio --example round_trip [-- ROUNDS]`
//!
//! The serving side is the same program in a process of its own: a blocking loop that echoes, so that what
//! is measured is the calling side. Raw and connection take turns; medians of all rounds are printed.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people who measure")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ipc_protocol::handshake::{Hello, MethodEntry, Ready};
use ipc_protocol::{Header, Kind};
use ipc_transport::connection::{ConnectOptions, Connection, connect};
use ipc_transport::framing::append_frame;
use ipc_transport::{Caller, Encoded, Payload, Request, handshake};

const PAYLOAD_BYTES: usize = 64;
const LARGE_BYTES: usize = 48 << 20;
const ROUND_TRIPS: usize = 4_000;
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("serve-raw") => serve_raw(),
        Some("serve") => serve(),
        rounds => measure(rounds.map_or(7, |rounds| rounds.parse().unwrap())),
    }
}

fn channel() -> UnixStream {
    use std::os::fd::AsFd;
    std::io::stdin().as_fd().try_clone_to_owned().unwrap().into()
}

fn serve_raw() {
    let mut socket = channel();
    let mut bytes = [0; PAYLOAD_BYTES];
    while socket.read_exact(&mut bytes).is_ok() {
        socket.write_all(&bytes).unwrap();
    }
}

fn serve() {
    let socket = channel();
    let accepted = handshake::accept(&socket, "echo", TIMEOUT).unwrap();
    accepted.welcome(&socket, "0", vec![MethodEntry::new("echo", 0)]).unwrap();
    accepted.ready(&socket, &Ready::default()).unwrap();
    let mut frames = accepted.frames;
    let mut out = Vec::new();
    loop {
        while let Some(frame) = frames.next_frame_ref().unwrap() {
            if frame.header.kind == Kind::Call {
                let header = Header { kind: Kind::Reply, method: 0, aux: 0, ..frame.header };
                append_frame(&mut out, header, frame.body.as_slice());
            }
        }
        (&socket).write_all(&out).unwrap();
        out.clear();
        match frames.read_from(|room| (&socket).read(room)) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn start(mode: &str) -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .arg(mode)
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    (ours, child)
}

fn measure(rounds: usize) {
    let (mut raw, mut raw_child) = start("serve-raw");
    let (ours, mut child) = start("serve");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connection = runtime.block_on(async {
        let options = ConnectOptions::new(Hello::new("echo", 1, 7));
        connect(ours, options, Arc::new(())).await.unwrap()
    });
    let mut raw_times = Vec::new();
    let mut times = Vec::new();
    let mut rates = [(64, Vec::new()), (256, Vec::new())];
    for _ in 0..rounds {
        let mut bytes = [0; PAYLOAD_BYTES];
        for _ in 0..ROUND_TRIPS {
            let start = Instant::now();
            raw.write_all(&bytes).unwrap();
            raw.read_exact(&mut bytes).unwrap();
            raw_times.push(start.elapsed());
        }
        runtime.block_on(async {
            for _ in 0..ROUND_TRIPS {
                let start = Instant::now();
                call(&connection).await;
                times.push(start.elapsed());
            }
            for (in_flight, rates) in &mut rates {
                rates.push(rate(&connection, *in_flight).await);
            }
        });
    }
    let raw_p50 = percentile(&mut raw_times, 50);
    let p50 = percentile(&mut times, 50);
    println!("raw socket     p50 {raw_p50:>10.2?}   p99 {:>10.2?}", percentile(&mut raw_times, 99));
    println!("connection     p50 {p50:>10.2?}   p99 {:>10.2?}", percentile(&mut times, 99));
    println!("ratio          {:.3}", p50.as_secs_f64() / raw_p50.as_secs_f64());
    for (in_flight, rates) in &mut rates {
        rates.sort_by(f64::total_cmp);
        println!("{in_flight:>4} in flight {:>10.0} calls/s", rates[rates.len() / 2]);
    }
    let mut large_times: Vec<Duration> = (0..9).map(|_| runtime.block_on(large(&connection))).collect();
    println!("{} MiB there and back p50 {:.2?}", LARGE_BYTES >> 20, percentile(&mut large_times, 50));
    drop(connection);
    drop(raw);
    drop(runtime);
    child.wait().unwrap();
    raw_child.wait().unwrap();
}

fn payload() -> Payload<'static> {
    static BYTES: [u8; PAYLOAD_BYTES] = {
        let mut bytes = [0; PAYLOAD_BYTES];
        bytes[0] = 0xc4;
        bytes[1] = 62;
        bytes
    };
    Payload::Encoded(Encoded::message_pack(&BYTES[..]))
}

async fn call(connection: &Connection) {
    connection.call(Request::new("echo", payload(), TIMEOUT)).await.unwrap();
}

async fn large(connection: &Connection) -> Duration {
    let payload = Payload::Encoded(Encoded::message_pack(vec![0xc0; LARGE_BYTES]));
    let start = Instant::now();
    connection.call(Request::new("echo", payload, TIMEOUT)).await.unwrap();
    start.elapsed()
}

async fn rate(connection: &Connection, in_flight: usize) -> f64 {
    let calls = 200_000;
    let start = Instant::now();
    let mut running = FuturesUnordered::new();
    for _ in 0..in_flight {
        running.push(connection.call(Request::new("echo", payload(), TIMEOUT)));
    }
    for _ in in_flight..calls {
        running.next().await.unwrap().unwrap();
        running.push(connection.call(Request::new("echo", payload(), TIMEOUT)));
    }
    while let Some(answer) = running.next().await {
        answer.unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    let rate = calls as f64 / start.elapsed().as_secs_f64();
    rate
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}
