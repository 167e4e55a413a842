//! The handshake: each side meets a peer that says anything, and ends as the protocol's page has it.
//!
//! ```text
//! whose side is real, form | raw bytes, or one step for each frame of the other side
//! ```

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ipc_protocol::control::{Event, Goodbye, Heartbeat, LogRecord};
use ipc_protocol::handshake::{Hello, MethodEntry, Ready, Welcome};
use ipc_protocol::limits::{
    CONTROL_BYTES_MAX, EARLY_BYTES_MAX, EARLY_FRAMES_MAX, FEATURES_MAX, METHODS_MAX, NAME_BYTES_MAX,
};
use ipc_protocol::{Codec, Fault, FaultCode, Flags, Header, Kind};
use ipc_transport::connection::{ConnectOptions, connect};
use ipc_transport::framing::{Frame, append_frame, append_message};
use ipc_transport::handshake::{HandshakeError, accept};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::input::Input;
use super::slow_frames::{HEADER, Heard, hear};
use crate::peer::PATIENCE;

/// LIMIT: bytes that one input becomes.
const WIRE_BYTES_MAX: usize = 5 << 20;

/// As in the golden files, so that these are good on their own.
const NAME: &str = "greeter";
const EPOCH: u32 = 7;
const NONCE: u64 = 0x0123_4567_89ab_cdef;

/// The target.
///
/// # Panics
///
/// When a side ends the handshake in another way than it must, or says what it must not.
pub fn handshake(data: &[u8]) {
    let mut input = Input::new(data);
    let what = input.byte();
    let says = |input: &mut Input<'_>, step: fn(&mut Input<'_>, &mut Vec<u8>)| {
        if what & 2 != 0 {
            return input.rest().to_vec();
        }
        let mut wire = Vec::new();
        while !input.is_empty() && wire.len() < WIRE_BYTES_MAX {
            step(input, &mut wire);
        }
        wire
    };
    if what & 1 == 0 {
        host(&says(&mut input, extension_step));
    } else {
        extension(&says(&mut input, host_step));
    }
}

/// How a handshake ended, as far as it is told.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Open,
    Ended,
    NotProtocol,
    Unexpected(Kind),
    Mismatch(&'static str),
    Refused,
    Start,
}

impl From<HandshakeError> for Ending {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Ended { .. } => Self::Ended,
            HandshakeError::NotProtocol { .. } => Self::NotProtocol,
            HandshakeError::Unexpected { came, .. } => Self::Unexpected(came),
            HandshakeError::Mismatch { field, .. } => Self::Mismatch(field),
            HandshakeError::Refused { .. } => Self::Refused,
            HandshakeError::Start(_) => Self::Start,
            error => panic!("nothing that was said brings {error:?}"),
        }
    }
}

fn decode<T: DeserializeOwned>((header, body): &(Header, Vec<u8>)) -> Result<T, Ending> {
    let frame = Frame { header: *header, body: body.clone().into() };
    frame.decode().map_err(|_| Ending::NotProtocol)
}

/// The next message, which is no goodbye.
fn next(heard: &Heard, at: usize) -> Result<&(Header, Vec<u8>), Ending> {
    match heard.messages.get(at) {
        None if heard.violation.is_some() => Err(Ending::NotProtocol),
        None => Err(Ending::Ended),
        Some(message) if message.0.kind == Kind::Goodbye => {
            decode::<Goodbye>(message)?;
            Err(Ending::Refused)
        }
        Some(message) => Ok(message),
    }
}

// ---- the host is real -----------------------------------------------------------------------------------

fn host(wire: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair is to be had");
    let mut options = ConnectOptions::new(Hello::new(NAME, EPOCH, NONCE));
    (options.welcome_timeout, options.ready_timeout) = (PATIENCE, PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ending = runtime.expect("a runtime is to be had").block_on(async {
        theirs.set_nonblocking(true).expect("a socket takes it");
        let theirs = tokio::net::UnixStream::from_std(theirs).expect("it can be registered");
        let speaker = tokio::spawn(speak(theirs, wire.to_vec()));
        let ending = match connect(ours, options, Arc::new(())).await {
            Ok(connection) => {
                for method in &connection.welcome().methods {
                    assert_eq!(connection.method(&method.name), Some(method));
                }
                Ending::Open
            }
            Err(error) => Ending::from(error),
        };
        speaker.abort();
        ending
    });
    let expected = match greeted(&hear(wire, CONTROL_BYTES_MAX.into(), |_| true)) {
        Ok(()) => Ending::Open,
        Err(ending) => ending,
    };
    assert_eq!(ending, expected);
}

/// Says everything, and then the end. Whoever hears it may leave before.
async fn speak(channel: tokio::net::UnixStream, wire: Vec<u8>) {
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        if channel.writable().await.is_err() {
            return;
        }
        match channel.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    let channel = channel.into_std().expect("it can be taken back");
    // It fails where the host has left.
    let _ = channel.shutdown(Shutdown::Write);
    // What the host says is not read, and the channel stays: a reset would be another end.
    let (_keep, never) = (channel, std::future::pending::<()>());
    never.await;
}

/// What a host must make of it.
fn greeted(heard: &Heard) -> Result<(), Ending> {
    let this_epoch = |header: &Header| match header.epoch {
        EPOCH => Ok(()),
        _ => Err(Ending::Mismatch("epoch")),
    };
    let first = next(heard, 0)?;
    if first.0.kind != Kind::Welcome {
        return Err(Ending::Unexpected(first.0.kind));
    }
    this_epoch(&first.0)?;
    let welcome: Welcome = decode(first)?;
    if let Some(field) = wrong_field(&welcome) {
        return Err(Ending::Mismatch(field));
    }
    let (mut frames, mut bytes) = (0, 0);
    for at in 1.. {
        let message = next(heard, at)?;
        let header = &message.0;
        let events = [Kind::Log, Kind::Event, Kind::Heartbeat];
        if !events.contains(&header.kind) {
            if header.kind != Kind::Ready {
                return Err(Ending::Unexpected(header.kind));
            }
            this_epoch(header)?;
            return decode::<Ready>(message)?.fault.map_or(Ok(()), |_| Err(Ending::Start));
        }
        this_epoch(header)?;
        frames += 1;
        bytes += (HEADER + message.1.len()) as u64;
        let is_plain = header.flags == Flags::NONE && header.descriptors == 0;
        if frames > EARLY_FRAMES_MAX || bytes > EARLY_BYTES_MAX || !is_plain {
            return Err(Ending::NotProtocol);
        }
        match header.kind {
            Kind::Log => decode::<LogRecord>(message).map(drop)?,
            Kind::Event => decode::<Event>(message).map(drop)?,
            _ => decode::<Heartbeat>(message).map(|_| ())?,
        }
    }
    Ok(())
}

/// The first field that does not answer the hello, or passes a limit.
fn wrong_field(welcome: &Welcome) -> Option<&'static str> {
    let names: Vec<&String> = welcome.methods.iter().map(|method| &method.name).collect();
    let is_name = |name: &&String| (1..=NAME_BYTES_MAX).contains(&name.len());
    let rows = [
        ("protocol version", welcome.version == 1),
        ("name", welcome.extension == NAME),
        ("epoch", welcome.epoch == EPOCH),
        ("nonce", welcome.nonce == NONCE),
        ("number of methods", names.len() <= METHODS_MAX),
        ("number of features", welcome.features.len() <= FEATURES_MAX),
        (
            "method or feature name's length",
            names.iter().copied().chain(&welcome.features).all(|n| is_name(&n)),
        ),
        ("method table", names.iter().collect::<HashSet<_>>().len() == names.len()),
    ];
    rows.iter().find(|(_, is_right)| !is_right).map(|(field, _)| *field)
}

fn say<T: Serialize>(wire: &mut Vec<u8>, header: Header, message: &T) {
    append_message(wire, header, message).expect("the message is encoded");
}

/// One frame of an extension.
fn extension_step(input: &mut Input<'_>, wire: &mut Vec<u8>) {
    let what = input.byte();
    match what % 8 {
        0 => {
            let header = header(input, Kind::Welcome);
            say(wire, header, &any_welcome(input));
        }
        1 => {
            let ready = match input.byte() % 4 {
                0 => Ready::failed(Fault::new(FaultCode::Failed, "no")),
                _ => Ready::default(),
            };
            let header = header(input, Kind::Ready);
            say(wire, header, &ready);
        }
        2 => say(wire, Header::new(Kind::Log, EPOCH, 0), &LogRecord::new(3, "here", "there")),
        3 => {
            let mut event = Vec::new();
            let size = usize::from(input.u16()) * 8 % (CONTROL_BYTES_MAX as usize - 100);
            say(&mut event, Header::new(Kind::Event, EPOCH, 0), &Event::new("often", vec![0; size]));
            let times = usize::from(input.u16()).min(WIRE_BYTES_MAX / event.len());
            wire.extend(event.repeat(times));
        }
        4 => {
            let header = header(input, Kind::Heartbeat);
            say(wire, header, &Heartbeat::new(1, 1));
        }
        5 => {
            let header = header(input, Kind::Goodbye);
            say(wire, header, &Goodbye::new("enough"));
        }
        _ => any_frame(input, wire),
    }
}

/// A header that is most often right.
fn header(input: &mut Input<'_>, kind: Kind) -> Header {
    let mut header = Header::new(kind, EPOCH, 0);
    match input.byte() {
        0xf0 => header.epoch = input.u32(),
        0xf1 => header.flags = Flags::from_wire(input.byte() & 7).unwrap_or_default(),
        0xf2 => header.descriptors = input.byte(),
        0xf3 => header.id = input.u64(),
        _ => {}
    }
    header
}

/// Any kind, with bytes of the input as its body.
fn any_frame(input: &mut Input<'_>, wire: &mut Vec<u8>) {
    let kind = input.pick(Kind::ALL);
    let codec = if input.byte() < 0xf0 { Codec::MessagePack } else { Codec::Wincode };
    let header = Header { codec, ..header(input, kind) };
    let length = usize::from(input.byte());
    append_frame(wire, header, input.bytes(length));
}

/// An answer to the hello in which one thing may be wrong.
fn any_welcome(input: &mut Input<'_>) -> Welcome {
    let hello = Hello::new(NAME, EPOCH, NONCE);
    let method = |index: usize| MethodEntry::new(format!("method-{index}"), 0);
    let mut welcome = Welcome::answering(&hello, 1, NAME, "1", vec![method(0), method(1)]);
    let name = |input: &mut Input<'_>| "n".repeat(usize::from(input.byte()));
    match input.byte() {
        0 => welcome.version = input.u16(),
        1 => welcome.extension = name(input),
        2 => welcome.epoch = input.u32(),
        3 => welcome.nonce = input.u64(),
        4 => welcome.methods = (0..usize::from(input.u16()) % (METHODS_MAX + 5)).map(method).collect(),
        5 => welcome.methods[0].name = name(input),
        6 => welcome.methods.push(method(usize::from(input.byte()))),
        7 => welcome.features = vec!["f".into(); input.byte().into()],
        8 => welcome.features = vec![name(input)],
        _ => {}
    }
    welcome
}

// ---- the extension is real ------------------------------------------------------------------------------

fn extension(wire: &[u8]) {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair is to be had");
    // One thread does both: what does not fit the channel is not said.
    ours.set_nonblocking(true).expect("a socket takes it");
    let mut said = 0;
    while let Ok(count) = ours.write(&wire[said..]) {
        said += count;
        if said == wire.len() {
            break;
        }
    }
    ours.shutdown(Shutdown::Write).expect("it is open");
    let heard = hear(&wire[..said], u64::MAX, |_| true);
    let expected = accepted(&heard);
    let methods = vec![MethodEntry::new("greet", 1)];
    let ending = match accept(&theirs, NAME, PATIENCE) {
        Ok(mut accepted) => {
            accepted.welcome(&theirs, "1.0.0", methods).expect("there is room");
            accepted.ready(&theirs, &Ready::default()).expect("there is room");
            // What came after the hello is held to the hello's own limit.
            while let Ok(Some(frame)) = accepted.frames.next_frame() {
                let is_payload = frame.header.kind.carries_payload();
                assert!(!is_payload || frame.body.len() as u64 <= accepted.hello.message_bytes_max);
            }
            Ending::Open
        }
        Err(error) => Ending::from(error),
    };
    drop(theirs);
    let mut answer = Vec::new();
    // A reset, if what was said was not all read, comes after what was answered.
    let _ = ours.read_to_end(&mut answer);
    let answered = hear(&answer, u64::MAX, |_| true);
    assert_eq!((&answered.violation, answered.is_mid_message), (&None, false));
    let kinds: Vec<_> = answered.messages.iter().map(|(header, _)| (header.kind, header.epoch)).collect();
    match expected {
        Ok(hello) => {
            assert_eq!(ending, Ending::Open);
            assert_eq!(kinds, [(Kind::Welcome, hello.epoch), (Kind::Ready, hello.epoch)]);
            let welcome: Welcome = decode(&answered.messages[0]).expect("it is a welcome");
            assert_eq!((welcome.version, welcome.epoch, welcome.nonce), (1, hello.epoch, hello.nonce));
            assert_eq!((&*welcome.extension, welcome.methods.len()), (NAME, 1));
        }
        Err((expected, epoch)) => {
            assert_eq!(ending, expected);
            // Only a host that said hello is told.
            assert_eq!(kinds, epoch.map(|epoch| (Kind::Goodbye, epoch)).into_iter().collect::<Vec<_>>());
        }
    }
}

/// What an extension must make of it, and with which epoch the host is told that it is refused.
fn accepted(heard: &Heard) -> Result<Hello, (Ending, Option<u32>)> {
    let untold = |ending| (ending, None);
    let first = next(heard, 0).map_err(untold)?;
    if first.0.kind != Kind::Hello {
        return Err(untold(Ending::Unexpected(first.0.kind)));
    }
    let hello: Hello = decode(first).map_err(untold)?;
    let told = |field| Err((Ending::Mismatch(field), Some(hello.epoch)));
    if !hello.versions.contains(&1) {
        return told("list of protocol versions");
    }
    if hello.extension != NAME {
        return told("name for this extension");
    }
    Ok(hello)
}

/// One frame of a host.
fn host_step(input: &mut Input<'_>, wire: &mut Vec<u8>) {
    let what = input.byte();
    if what >= 0xc0 {
        return any_frame(input, wire);
    }
    let mut hello = Hello::new(NAME, EPOCH, NONCE);
    match what % 8 {
        0 => hello.versions = vec![input.u16(); input.byte().into()],
        1 => hello.extension = "n".repeat(input.byte().into()),
        2 => hello.epoch = input.u32(),
        3 => hello.message_bytes_max = input.u64(),
        4 => hello.config = vec![0; usize::from(input.u16()) * 4],
        5 => hello.versions.extend([input.u16(), input.u16()]),
        _ => {}
    }
    let header = header(input, Kind::Hello);
    say(wire, header, &hello);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_sides_come_together() {
        let said = |script: &[u8], step: fn(&mut Input<'_>, &mut Vec<u8>)| {
            let mut input = Input::new(script);
            let mut wire = Vec::new();
            while !input.is_empty() {
                step(&mut input, &mut wire);
            }
            hear(&wire, u64::MAX, |_| true)
        };
        assert_eq!(greeted(&said(&[0, 9, 9, 2, 1, 1, 1], extension_step)), Ok(()));
        assert!(accepted(&said(&[7, 0], host_step)).is_ok());
    }
}
