//! The handshake and the calls, as an honest extension would do them, with the places where a mode steps in.
#![expect(clippy::print_stderr, reason = "stderr is its log")]

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::exit;

use crate::misbehave::misbehave;
use crate::system;
use crate::wire::{self, FLAG_MORE, Hello, Writer, frame, kind, read_frame, read_hello, send};

/// Names and idempotence, in the order of the table that the welcome brings.
const METHODS: [(&str, bool); 5] =
    [("echo", true), ("once", false), ("hold", true), ("hold-once", false), ("misbehave", false)];

/// One call, whole.
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) arguments: Vec<u8>,
}

pub(crate) fn serve(mode: &str) -> ! {
    // Descriptor 0 is the channel, whatever the standard library calls it.
    let channel = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(channel) => UnixStream::from(channel),
        Err(_) => exit(2),
    };
    match run(mode, channel) {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("hostile: the channel failed: {error}");
            exit(1)
        }
    }
}

fn run(mode: &str, channel: UnixStream) -> std::io::Result<()> {
    let mut reading = channel.try_clone()?;
    let Some(first) = read_frame(&mut reading)? else { return Ok(()) };
    let Some(hello) = (first.kind == kind::HELLO).then(|| read_hello(&first)).flatten() else {
        eprintln!("hostile: the host said no hello");
        exit(2);
    };
    send(&channel, &frame(kind::WELCOME, hello.epoch, 0, &welcome(mode, &hello)))?;
    match mode {
        "exit-before-ready" => {
            eprintln!("hostile: exiting before it is ready, as told");
            exit(4);
        }
        "never-ready" => system::sleep_for_ever(),
        "refuse-start" => {
            send(&channel, &frame(kind::READY, hello.epoch, 0, &refusal()))?;
            exit(5);
        }
        "ignore-stop" => system::ignore_terminate(),
        _ => {}
    }
    send(&channel, &frame(kind::READY, hello.epoch, 0, &Writer::default().map(0).0))?;

    let mut partial: HashMap<u64, Vec<u8>> = HashMap::new();
    while let Some(came) = read_frame(&mut reading)? {
        match came.kind {
            kind::CALL => {
                let mut arguments = partial.remove(&came.id).unwrap_or_default();
                arguments.extend(came.body);
                if came.flags & FLAG_MORE != 0 {
                    partial.insert(came.id, arguments);
                    continue;
                }
                call(mode, &channel, &hello, came.method, &Call { id: came.id, arguments })?;
            }
            kind::GOODBYE if mode == "ignore-stop" => system::sleep_for_ever(),
            kind::GOODBYE => return Ok(()),
            // A call that is held when it is cancelled is never answered: that, too, is hostile.
            kind::CANCEL => {}
            _ => {}
        }
    }
    if mode == "ignore-stop" {
        system::sleep_for_ever();
    }
    Ok(())
}

fn call(mode: &str, channel: &UnixStream, hello: &Hello, method: u32, call: &Call) -> std::io::Result<()> {
    match METHODS.get(method as usize).map(|(name, _)| *name) {
        Some("hold" | "hold-once") if hello.epoch == 1 => Ok(()),
        Some("misbehave") => misbehave(mode, channel, hello, call),
        _ => answer(channel, hello.epoch, call),
    }
}

/// The honest answer.
pub(crate) fn answer(channel: &UnixStream, epoch: u32, call: &Call) -> std::io::Result<()> {
    // LIMIT: of one frame's body; a longer answer comes in several, the first ones marked.
    const BODY_BYTES_MAX: usize = 1 << 20;
    let mut pieces = call.arguments.chunks(BODY_BYTES_MAX).peekable();
    while let Some(piece) = pieces.next() {
        let mut bytes = frame(kind::REPLY, epoch, call.id, piece);
        if pieces.peek().is_some() {
            bytes[6] = FLAG_MORE;
        }
        send(channel, &bytes)?;
    }
    Ok(())
}

fn welcome(mode: &str, hello: &Hello) -> Vec<u8> {
    let version = if mode == "wrong-version" { 99 } else { 1 };
    let name = if mode == "wrong-name" { "somebody-else" } else { hello.extension.as_str() };
    let mut body = Writer::default().map(7).text("version").number(version);
    body = body.text("features");
    body = if mode.starts_with("ask-") { body.list(1).text("host-calls") } else { body.list(0) };
    body = body.text("extension").text(name);
    body = body.text("extension_version").text("0.1.0").text("epoch").number(hello.epoch.into());
    body =
        body.text("nonce").number(hello.nonce).text("methods").list(u8::try_from(METHODS.len()).unwrap_or(0));
    for (name, idempotent) in METHODS {
        body = body.map(3).text("name").text(name).text("schema_hash").number(0);
        body = body.text("idempotent").boolean(idempotent);
    }
    body.0
}

fn refusal() -> Vec<u8> {
    let fault = Writer::default().map(1).text("fault").map(4).text("code").number(1).text("origin");
    let fault = fault.text("extension").text("retry").text("never").text("message");
    fault.text("no start today, as told").0
}

/// A log record's body.
pub(crate) fn record(message: &str) -> Vec<u8> {
    let body = Writer::default().map(3).text("level").number(3).text("target").text("hostile");
    body.text("message").text(message).0
}

/// A frame of the honest answer, for those who spoil it.
pub(crate) fn reply_bytes(epoch: u32, call: &Call) -> Vec<u8> {
    wire::frame(kind::REPLY, epoch, call.id, &call.arguments)
}
