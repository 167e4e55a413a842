//! A listening socket, for those that the host did not start: the command line, programs that call.
//!
//! In a folder that is its owner's alone, through the crate `interprocess`, so that another system needs only another
//! name for it. Who connects is of this user or root, and knows the token that lies beside the socket; what follows its
//! [`preamble`] is the handshake of any other channel, in which it is the host and this side the extension. This module
//! must not know what is served.

mod folder;
pub mod preamble;

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use interprocess::local_socket::traits::{Listener as _, Stream as _};
use interprocess::local_socket::{GenericFilePath, Listener, ListenerOptions, Stream, ToFsName};
use rustix::net::sockopt::socket_peercred;

use preamble::{ANSWER_BYTES, PREAMBLE_BYTES, Role, Status, Token};

/// LIMIT: how long whoever connects may take to say who it is.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(2);

/// LIMIT: how long whoever listens may take to answer that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nobody can listen, or be reached, in a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RendezvousError {
    /// Another process listens there. Talk to it, or end it.
    #[error("{} is in use{}", .folder.display(), .pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Who it is, if it said so.
        pid: Option<u32>,
    },
    /// Others could get at the folder. Make it your own, of mode 700, or remove it.
    #[error("{} cannot be trusted: {what}", .folder.display())]
    Exposed {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The address of a socket has no room for the path. Choose a shorter folder.
    #[error("the path {} has more than {bytes_max} bytes", .path.display())]
    TooLong {
        /// The socket's path.
        path: PathBuf,
        /// What fits.
        bytes_max: usize,
    },
    /// The system refuses.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What it says.
        #[source]
        source: io::Error,
    },
    /// Whoever listens there does not let this process in.
    #[error("whoever listens in {} refuses: {}", .folder.display(), refusal(*.status))]
    Refused {
        /// The folder.
        folder: PathBuf,
        /// What it answered.
        status: Status,
    },
}

fn refusal(status: Status) -> &'static str {
    match status {
        Status::Welcome => "no reason is given",
        Status::Version => "it speaks another version",
        Status::Token => "the token is another one's; it may have been started anew, try again",
        Status::Role => "it does not take such peers",
        Status::Full => "as many are connected as may be, try again later",
    }
}

/// Somebody who connected, and may.
#[derive(Debug)]
pub struct Arrival {
    /// What it wants to be.
    pub role: Role,
    /// The channel, on which the handshake comes next.
    pub channel: UnixStream,
    /// Its process, if the kernel tells.
    pub pid: Option<u32>,
}

/// Somebody who connected and did not say yet who he is. It may be kept waiting by him: not on the thread that accepts.
#[derive(Debug)]
pub struct Knock {
    channel: UnixStream,
    token: Token,
}

/// A socket that listens. The folder is this process's as long as this lives.
#[derive(Debug)]
pub struct Rendezvous {
    folder: PathBuf,
    socket: PathBuf,
    held: folder::Held,
    listener: Listener,
    is_closed: Arc<AtomicBool>,
}

/// Ends a [`Rendezvous`] from another thread.
#[derive(Clone, Debug)]
pub struct Closer {
    socket: PathBuf,
    is_closed: Arc<AtomicBool>,
}

impl Rendezvous {
    /// Listens in `folder`, which is made if it is not there; the one above it must be.
    ///
    /// # Errors
    ///
    /// [`RendezvousError`]; nothing listens then.
    pub fn open(folder: &Path) -> Result<Self, RendezvousError> {
        let socket = folder::socket(folder)?;
        let held = folder::hold(folder)?;
        let failed = |source| RendezvousError::Io { doing: "listen at", path: socket.clone(), source };
        let name = socket.as_path().to_fs_name::<GenericFilePath>().map_err(failed)?;
        let listener = ListenerOptions::new().name(name).reclaim_name(false).create_sync().map_err(failed)?;
        let is_closed = Arc::default();
        Ok(Self { folder: folder.to_owned(), socket, held, listener, is_closed })
    }

    /// What ends it.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer { socket: self.socket.clone(), is_closed: Arc::clone(&self.is_closed) }
    }

    /// Waits for the next one who connects. `None`: it was closed.
    ///
    /// # Errors
    ///
    /// That of the system: no descriptor is left, for example. It may be tried again after a while.
    pub fn accept(&self) -> io::Result<Option<Knock>> {
        let accepted = self.listener.accept();
        // ORDERING(rendezvous): Acquire, pairs with the store of whoever closes and then connects.
        if self.is_closed.load(Ordering::Acquire) {
            return Ok(None);
        }
        let channel = unix_stream(accepted?)?;
        Ok(Some(Knock { channel, token: self.held.token.clone() }))
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        // Before the lock is given back: after that they are somebody else's.
        folder::clear(&self.folder);
    }
}

impl Closer {
    /// Nobody is let in any more; whoever waits in [`Rendezvous::accept`] comes back.
    pub fn close(&self) {
        // ORDERING(rendezvous): Release, see `accept`.
        self.is_closed.store(true, Ordering::Release);
        // Wakes it; if nobody listens any longer that is as good.
        let _ = UnixStream::connect(&self.socket);
    }
}

impl Knock {
    /// Hears who it is, and lets it in if `admit` has a place for it. Waits for it for two seconds at most.
    ///
    /// The place is taken before it is welcomed and given back (dropped) if it is gone by then, so that whoever is
    /// welcomed has one.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people; it was told so, as far as it could be, and is gone.
    pub fn hear<P>(mut self, admit: impl FnOnce(&UnixStream) -> Option<P>) -> Result<(Arrival, P), String> {
        let who = socket_peercred(&self.channel).map_err(|error| error.to_string())?;
        let own = rustix::process::geteuid();
        if who.uid != own && !who.uid.is_root() {
            return Err(format!("user {} is neither {} nor root", who.uid.as_raw(), own.as_raw()));
        }
        let mut preamble = [0; PREAMBLE_BYTES];
        read_within(&mut self.channel, &mut preamble, PREAMBLE_TIMEOUT)
            .map_err(|error| format!("it did not say who it is: {error}"))?;
        let admitted = preamble::decode(&preamble, &self.token)
            .and_then(|role| Ok((role, admit(&self.channel).ok_or(Status::Full)?)));
        let status = admitted.as_ref().err().copied().unwrap_or(Status::Welcome);
        let settled = self
            .channel
            .write_all(&preamble::encode_answer(status))
            .and_then(|()| self.channel.set_read_timeout(None));
        let (role, place) = admitted.map_err(|status| format!("it was refused: {}", refusal(status)))?;
        settled.map_err(|error| error.to_string())?;
        let pid = u32::try_from(who.pid.as_raw_nonzero().get()).ok();
        Ok((Arrival { role, channel: self.channel, pid }, place))
    }
}

/// Connects to whoever listens in `folder`, which is this user's, or for root anybody's. `None`: nobody does.
///
/// # Errors
///
/// [`RendezvousError`].
pub fn meet(folder: &Path, role: Role) -> Result<Option<UnixStream>, RendezvousError> {
    let Some(folder::Found { token, owner }) = folder::find(folder)? else { return Ok(None) };
    let socket = folder::socket(folder)?;
    let failed = |doing| {
        let path = socket.clone();
        move |source| RendezvousError::Io { doing, path, source }
    };
    let name = socket.as_path().to_fs_name::<GenericFilePath>().map_err(failed("connect to"))?;
    let mut channel = match Stream::connect(name).and_then(unix_stream) {
        Ok(channel) => channel,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed("connect to")(error)),
    };
    // Before the token is shown to it.
    let who = socket_peercred(&channel).map_err(|error| failed("look at")(error.into()))?;
    if who.uid.as_raw() != owner && !who.uid.is_root() {
        let what = format!("user {} listens there, and it belongs to user {owner}", who.uid.as_raw());
        return Err(RendezvousError::Exposed { folder: folder.to_owned(), what });
    }
    channel.write_all(&preamble::encode(role, &token)).map_err(failed("write to"))?;
    let mut answer = [0; ANSWER_BYTES];
    read_within(&mut channel, &mut answer, ANSWER_TIMEOUT).map_err(failed("hear from"))?;
    match preamble::decode_answer(answer) {
        Some(Status::Welcome) => {
            channel.set_read_timeout(None).map_err(failed("use"))?;
            Ok(Some(channel))
        }
        Some(status) => Err(RendezvousError::Refused { folder: folder.to_owned(), status }),
        None => Err(RendezvousError::Refused { folder: folder.to_owned(), status: Status::Version }),
    }
}

fn unix_stream(stream: Stream) -> io::Result<UnixStream> {
    match stream {
        Stream::UdSocket(stream) => Ok(UnixStream::from(OwnedFd::from(stream))),
    }
}

/// Reads all of `bytes`, however slowly they come, within a time.
fn read_within(channel: &mut UnixStream, mut bytes: &mut [u8], time: Duration) -> io::Result<()> {
    let until = Instant::now() + time;
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        channel.set_read_timeout(Some(left))?;
        match channel.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
