//! Who are you: both sides of the first three frames, with a time limit on each step.
//!
//! The extension's side is blocking and needs no runtime; the host's side is a part of
//! [`crate::connection::connect`]. This module must not know how a peer was started, and what its methods do.
//!
//! ```text
//! host        connect:  Hello sent -> awaits Welcome -> awaits Ready (logs and events may come) -> open
//! extension   accept:   awaits Hello -> welcome() sent -> own start -> ready() sent -> serves
//! ```

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ipc_protocol::control::Goodbye;
use ipc_protocol::handshake::{Hello, MethodEntry, Ready, Welcome};
#[cfg(feature = "tokio")]
use ipc_protocol::limits::{FEATURES_MAX, METHODS_MAX, NAME_BYTES_MAX};
use ipc_protocol::{Fault, Header, Kind, PROTOCOL_VERSION};
use serde::Serialize;

use crate::framing::{Frame, FrameBuffer, Violation, append_message};

/// LIMIT: bytes of a wrong peer's output that an error shows.
const SHOWN_BYTES_MAX: usize = 64;

/// Why two sides did not come together. Nothing was called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Reading or writing failed. The peer is most likely dead.
    #[error("the channel failed where the {peer}'s {expected:?} frame was expected")]
    Io {
        /// `extension` or `host`.
        peer: &'static str,
        /// What was awaited, or answered.
        expected: Kind,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The time limit of a step passed.
    #[error("the {peer} sent no {expected:?} frame within {waited_ms} ms{came}")]
    Silent {
        /// `extension` or `host`.
        peer: &'static str,
        /// What was awaited.
        expected: Kind,
        /// How long.
        waited_ms: u64,
        /// What came instead, as a clause; empty if nothing did.
        came: String,
    },
    /// The peer closed the channel: it ended, or is no extension at all.
    #[error("the {peer} closed the channel before its {expected:?} frame{came}")]
    Ended {
        /// `extension` or `host`.
        peer: &'static str,
        /// What was awaited.
        expected: Kind,
        /// What came instead, as a clause; empty if nothing did.
        came: String,
    },
    /// The peer speaks something else.
    #[error("the {peer} sent something else than the expected {expected:?} frame{came}")]
    NotProtocol {
        /// `extension` or `host`.
        peer: &'static str,
        /// What was awaited.
        expected: Kind,
        /// Its first bytes, as a clause.
        came: String,
        /// What is wrong with them.
        #[source]
        violation: Violation,
    },
    /// The peer sent another frame.
    #[error("the {peer} sent a {came:?} frame where {expected:?} was expected")]
    Unexpected {
        /// `extension` or `host`.
        peer: &'static str,
        /// What was awaited.
        expected: Kind,
        /// What came.
        came: Kind,
    },
    /// The frame says something else than it must: another version, name, epoch.
    #[error("the {peer}'s {field} is {came}, where {expected} was expected")]
    Mismatch {
        /// `extension` or `host`.
        peer: &'static str,
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        came: String,
    },
    /// The peer said goodbye.
    #[error("the {peer} said goodbye where its {expected:?} frame was expected: {reason}")]
    Refused {
        /// `extension` or `host`.
        peer: &'static str,
        /// What was awaited.
        expected: Kind,
        /// Why, in its words.
        reason: String,
    },
    /// The extension's own start failed.
    #[error("the extension could not start")]
    Start(#[source] Fault),
}

fn clause(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if shown.len() < bytes.len() { " ..." } else { "" };
    format!("; it sent \"{}\"{more}", shown.escape_ascii())
}

/// Cuts the next frame out of `frames`, as far as it was read; `Goodbye` and bytes that are no frames are
/// errors.
pub(crate) fn next_frame(
    frames: &mut FrameBuffer,
    peer: &'static str,
    expected: Kind,
) -> Result<Option<Frame>, HandshakeError> {
    let frame = frames.next_frame().map_err(|violation| HandshakeError::NotProtocol {
        peer,
        expected,
        came: clause(frames.unread()),
        violation,
    })?;
    match frame {
        Some(frame) if frame.header.kind == Kind::Goodbye => {
            let goodbye: Goodbye = decode(&frame, peer, expected)?;
            Err(HandshakeError::Refused { peer, expected, reason: goodbye.reason })
        }
        other => Ok(other),
    }
}

/// Decodes a frame of the handshake.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(
    frame: &Frame,
    peer: &'static str,
    expected: Kind,
) -> Result<T, HandshakeError> {
    frame.decode().map_err(|violation| HandshakeError::NotProtocol {
        peer,
        expected,
        came: clause(&frame.body),
        violation,
    })
}

pub(crate) fn silent(
    frames: &FrameBuffer,
    peer: &'static str,
    expected: Kind,
    waited: Duration,
) -> HandshakeError {
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    HandshakeError::Silent { peer, expected, waited_ms, came: clause(frames.unread()) }
}

pub(crate) fn ended(frames: &FrameBuffer, peer: &'static str, expected: Kind) -> HandshakeError {
    HandshakeError::Ended { peer, expected, came: clause(frames.unread()) }
}

fn mismatch<T>(
    peer: &'static str,
    field: &'static str,
    expected: impl ToString,
    came: impl ToString,
) -> Result<T, HandshakeError> {
    Err(HandshakeError::Mismatch { peer, field, expected: expected.to_string(), came: came.to_string() })
}

#[cfg(feature = "tokio")]
/// Whether `welcome` answers `hello`, and stays within the limits.
pub(crate) fn check_welcome(hello: &Hello, welcome: &Welcome) -> Result<(), HandshakeError> {
    let peer = "extension";
    if !hello.versions.contains(&welcome.version) {
        return mismatch(
            peer,
            "protocol version",
            format_args!("one of {:?}", hello.versions),
            welcome.version,
        );
    }
    if welcome.extension != hello.extension {
        let came = welcome.extension.chars().take(NAME_BYTES_MAX).collect::<String>();
        return mismatch(peer, "name", format_args!("{:?}", hello.extension), format_args!("{came:?}"));
    }
    if welcome.epoch != hello.epoch {
        return mismatch(peer, "epoch", hello.epoch, welcome.epoch);
    }
    if welcome.nonce != hello.nonce {
        return mismatch(peer, "nonce", hello.nonce, welcome.nonce);
    }
    if welcome.methods.len() > METHODS_MAX {
        let expected = format_args!("at most {METHODS_MAX}").to_string();
        return mismatch(peer, "number of methods", expected, welcome.methods.len());
    }
    if welcome.features.len() > FEATURES_MAX {
        let expected = format_args!("at most {FEATURES_MAX}").to_string();
        return mismatch(peer, "number of features", expected, welcome.features.len());
    }
    let mut names: Vec<&str> = welcome.methods.iter().map(|method| method.name.as_str()).collect();
    for name in names.iter().copied().chain(welcome.features.iter().map(String::as_str)) {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let expected = format_args!("1 to {NAME_BYTES_MAX} bytes").to_string();
            return mismatch(peer, "method or feature name's length", expected, name.len());
        }
    }
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return mismatch(peer, "method table", "one entry per name", format_args!("two {:?}", twice[0]));
    }
    Ok(())
}

/// What the extension knows after the host's `Hello`.
#[derive(Debug)]
pub struct Accepted {
    /// The host's frame.
    pub hello: Hello,
    /// The version that both speak.
    pub version: u16,
    /// What reads on from here.
    pub frames: FrameBuffer,
    /// Features that the extension has, for [`Self::welcome`]: none unless it says so.
    pub features: Vec<String>,
}

/// The extension's side: reads the host's `Hello` from the inherited channel and checks it. Blocks for at
/// most `timeout`. The host is told why before an error is returned, as far as that is possible.
///
/// # Errors
///
/// [`HandshakeError`]: nothing that speaks this protocol is on the other end. Print it and exit with a
/// failure; most often somebody started the extension by hand.
pub fn accept(socket: &UnixStream, extension: &str, timeout: Duration) -> Result<Accepted, HandshakeError> {
    let peer = "host";
    let expected = Kind::Hello;
    let mut frames = FrameBuffer::new(u64::MAX);
    let frame = read_frame(socket, &mut frames, timeout)?;
    if frame.header.kind != expected {
        return Err(HandshakeError::Unexpected { peer, expected, came: frame.header.kind });
    }
    let hello: Hello = decode(&frame, peer, expected)?;
    let checked = if !hello.versions.contains(&PROTOCOL_VERSION) {
        mismatch(
            peer,
            "list of protocol versions",
            format_args!("one with {PROTOCOL_VERSION}"),
            format_args!("{:?}", hello.versions),
        )
    } else if hello.extension != extension {
        mismatch(
            peer,
            "name for this extension",
            format_args!("{extension:?}"),
            format_args!("{:?}", hello.extension),
        )
    } else {
        Ok(())
    };
    if let Err(error) = checked {
        // The error itself matters more than whether the host could still be told.
        let _ = send(socket, Kind::Goodbye, hello.epoch, &Goodbye::new(error.to_string()));
        return Err(error);
    }
    frames.set_message_bytes_max(hello.message_bytes_max);
    Ok(Accepted { hello, version: PROTOCOL_VERSION, frames, features: Vec::new() })
}

impl Accepted {
    /// Whether a feature is in use: both sides have it.
    #[must_use]
    pub fn is_agreed(&self, feature: &str) -> bool {
        let has = |features: &[String]| features.iter().any(|other| other == feature);
        has(&self.hello.features) && has(&self.features)
    }

    /// Answers with the method table. A call names a method by its index in `methods`.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Io`]: the host is gone; exit.
    pub fn welcome(
        &self,
        socket: &UnixStream,
        extension_version: &str,
        methods: Vec<MethodEntry>,
    ) -> Result<(), HandshakeError> {
        let Hello { extension, .. } = &self.hello;
        let mut welcome =
            Welcome::answering(&self.hello, self.version, extension, extension_version, methods);
        welcome.features.clone_from(&self.features);
        send(socket, Kind::Welcome, self.hello.epoch, &welcome)
    }

    /// Says that the extension's own start is over, and how it went.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Io`]: the host is gone; exit.
    pub fn ready(&self, socket: &UnixStream, ready: &Ready) -> Result<(), HandshakeError> {
        send(socket, Kind::Ready, self.hello.epoch, ready)
    }
}

fn send<T: Serialize>(
    mut socket: &UnixStream,
    kind: Kind,
    epoch: u32,
    message: &T,
) -> Result<(), HandshakeError> {
    let mut bytes = Vec::new();
    append_message(&mut bytes, Header::new(kind, epoch, 0), message)
        .map_err(io::Error::other)
        .and_then(|()| socket.write_all(&bytes))
        .map_err(|source| HandshakeError::Io { peer: "host", expected: kind, source })
}

fn read_frame(
    mut socket: &UnixStream,
    frames: &mut FrameBuffer,
    timeout: Duration,
) -> Result<Frame, HandshakeError> {
    let peer = "host";
    let expected = Kind::Hello;
    let io_error = |source| HandshakeError::Io { peer, expected, source };
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(frame) = next_frame(frames, peer, expected)? {
            socket.set_read_timeout(None).map_err(io_error)?;
            return Ok(frame);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(silent(frames, peer, expected, timeout));
        }
        socket.set_read_timeout(Some(left)).map_err(io_error)?;
        match frames.read_from(|room| io::Read::read(&mut socket, room)) {
            Ok(0) => return Err(ended(frames, peer, expected)),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(ended(frames, peer, expected));
            }
            Err(error) => return Err(io_error(error)),
        }
    }
}
