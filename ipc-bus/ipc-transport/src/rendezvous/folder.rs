//! The folder of a listening socket: nobody else's, and one conductor's at a time.
//!
//! ```text
//! FOLDER/        0700, its owner's alone
//!   lock         held as long as somebody listens; says who
//!   token        0600, 64 hexadecimal digits, another one at each start
//!   socket
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::RendezvousError;
use super::preamble::{TOKEN_BYTES, Token};

const LOCK: &str = "lock";
const TOKEN: &str = "token";
/// The token until it is whole.
const TOKEN_WRITTEN: &str = "token.new";
const SOCKET: &str = "socket";

/// LIMIT: bytes of a path that the address of a socket has room for, its end included.
const SOCKET_PATH_MAX: usize = 108;

/// The folder while it is this process's.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) token: Token,
    /// Held as long as this lives.
    _lock: File,
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RendezvousError + use<'a> {
    move |source| RendezvousError::Io { doing, path: path.to_owned(), source }
}

/// Where the socket is.
pub(super) fn socket(folder: &Path) -> Result<PathBuf, RendezvousError> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() >= SOCKET_PATH_MAX {
        return Err(RendezvousError::TooLong { path, bytes_max: SOCKET_PATH_MAX - 1 });
    }
    Ok(path)
}

/// Who looks at a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// It must be its own.
    Listener,
    /// It must be its own too, unless it is root, who may ask anybody's conductor.
    Client,
}

/// Nobody but its owner may write into the folder, or look into it: who can replace the socket is talked to in its
/// stead. Returns who that is.
fn check(folder: &Path, side: Side) -> Result<u32, RendezvousError> {
    let found = std::fs::symlink_metadata(folder).map_err(failed("look at", folder))?;
    let wrong = |what: String| RendezvousError::Exposed { folder: folder.to_owned(), what };
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() {
        return Err(wrong("it is no folder of its own (a link is not followed)".to_owned()));
    }
    let is_root_asking = side == Side::Client && own == 0;
    if found.uid() != own && !is_root_asking {
        return Err(wrong(format!("it belongs to user {}, not to {own}", found.uid())));
    }
    if found.mode() & 0o077 != 0 {
        return Err(wrong(format!("its mode is {:o}, where 700 was expected", found.mode() & 0o777)));
    }
    Ok(found.uid())
}

/// Makes the folder if it is not there, and takes it for this process.
pub(super) fn hold(folder: &Path) -> Result<Held, RendezvousError> {
    match DirBuilder::new().recursive(false).mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make", folder)(error));
        }
        _ => {}
    }
    check(folder, Side::Listener)?;
    let path = folder.join(LOCK);
    let mut options = options_not_misled();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(&path).map_err(failed("open", &path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut who = [0; 20];
            let count = lock.read(&mut who).unwrap_or(0);
            let pid = std::str::from_utf8(&who[..count]).ok().and_then(|text| text.trim().parse().ok());
            return Err(RendezvousError::Held { folder: folder.to_owned(), pid });
        }
        Err(error) => return Err(failed("lock", &path)(error.into())),
    }
    let sign = |lock: &mut File| {
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    sign(&mut lock).map_err(failed("write", &path))?;
    // Of one that was killed: the lock says that it is gone.
    for name in [SOCKET, TOKEN, TOKEN_WRITTEN] {
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &folder.join(name))(error));
            }
            _ => {}
        }
    }
    let token = new_token().map_err(failed("read", Path::new("/dev/urandom")))?;
    let digits: String = token.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let (written, path) = (folder.join(TOKEN_WRITTEN), folder.join(TOKEN));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&written)?;
        file.write_all(digits.as_bytes())?;
        // Whoever finds it finds all of it.
        std::fs::rename(&written, &path)
    };
    write().map_err(failed("write", &path))?;
    Ok(Held { token, _lock: lock })
}

fn new_token() -> io::Result<Token> {
    let mut token = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut token)?;
    Ok(Token(token))
}

/// For a file that is opened where it ought to be: no link is followed, and nobody is waited for.
fn options_not_misled() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

/// What a client finds in a folder.
pub(super) struct Found {
    pub(super) token: Token,
    /// The user whose folder it is: nobody else but root listens there.
    pub(super) owner: u32,
}

/// The token of whoever listens there. `None`: nobody does.
pub(super) fn find(folder: &Path) -> Result<Option<Found>, RendezvousError> {
    // First: whoever can replace the token could have it talk to himself.
    let owner = match check(folder, Side::Client) {
        Ok(owner) => owner,
        Err(RendezvousError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let path = folder.join(TOKEN);
    let file = match options_not_misled().read(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let mut digits = [0; 2 * TOKEN_BYTES];
    file.read_exact_at(&mut digits, 0).map_err(failed("read", &path))?;
    let mut token = [0; TOKEN_BYTES];
    for (byte, pair) in token.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it is not made of hexadecimal digits");
            return Err(failed("read", &path)(error));
        };
        *byte = high << 4 | low;
    }
    Ok(Some(Found { token: Token(token), owner }))
}

/// Removes what connects, so that nobody tries any more.
pub(super) fn clear(folder: &Path) {
    for name in [TOKEN, TOKEN_WRITTEN, SOCKET] {
        // What is gone already is as good.
        let _ = std::fs::remove_file(folder.join(name));
    }
}
