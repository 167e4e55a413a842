//! The lines of a file, sent as they are read.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use extension_sdk::stream::{Sink, Stream};
use extension_sdk::{Blob, Context, Fault, FaultCode};

use crate::root::explain;

/// LIMIT: bytes of a line in one piece.
const LINE_BYTES_MAX: u64 = 512 << 10;

/// How often a file that is followed is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The flag of `open` with which a pipe that nobody writes to is not waited for.
const O_NONBLOCK: i32 = 0o4000;

/// Starts to send the lines of the file at `path`.
///
/// # Errors
///
/// A fault that says what is wrong with the path, and what to do.
pub(crate) fn lines(cx: &Context, path: &[u8], follow: bool) -> Result<Stream<Blob>, Fault> {
    let path = Path::new(OsStr::from_bytes(path));
    let open = || {
        let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path)?;
        let is_file = file.metadata()?.is_file();
        Ok((file, is_file))
    };
    let (file, is_file) = open().map_err(|error: io::Error| explain(path, "file", &error))?;
    if !is_file {
        let message = format!("`{}` is no regular file", path.display());
        return Err(Fault::new(FaultCode::InvalidArgument, message));
    }
    let (mut sink, stream) = cx.stream()?;
    let shown = path.display().to_string();
    let read = move || match send(BufReader::new(file), follow, &mut sink) {
        Ok(()) => sink.end(),
        Err(Ended::Reader(fault)) => sink.fail(fault),
        Err(Ended::File(error)) => {
            sink.fail(Fault::new(FaultCode::Io, format!("`{shown}` cannot be read: {error}")));
        }
    };
    let started = thread::Builder::new().name("lines".to_owned()).spawn(read);
    started.map_err(|error| Fault::new(FaultCode::Io, format!("no thread to read with: {error}")))?;
    Ok(stream)
}

/// Why not everything was sent.
enum Ended {
    Reader(Fault),
    File(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

fn send(mut file: BufReader<File>, follow: bool, sink: &mut Sink<Blob>) -> Result<(), Ended> {
    let mut line = Vec::new();
    loop {
        let room = LINE_BYTES_MAX - line.len() as u64;
        let count = file.by_ref().take(room).read_until(b'\n', &mut line)?;
        if line.ends_with(b"\n") {
            line.pop();
        } else if count > 0 && (line.len() as u64) < LINE_BYTES_MAX {
            // The end of the file, or of what is there by now.
            continue;
        } else if count == 0 {
            if !follow {
                if line.is_empty() {
                    return Ok(());
                }
            } else if sink.is_given_up() {
                return Ok(());
            } else {
                thread::sleep(LOOK_INTERVAL);
                let at = file.stream_position()?;
                if file.get_ref().metadata()?.len() < at {
                    file.seek(SeekFrom::Start(0))?;
                    line.clear();
                }
                continue;
            }
        }
        sink.send(&Blob(std::mem::take(&mut line))).map_err(Ended::Reader)?;
    }
}
