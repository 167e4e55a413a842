//! The `main` of an extension: what kind of run this is, and its exit code.
//!
//! ```text
//! --describe             print what the extension is, as JSON          0
//! a channel as stdin     serve until the host is done                  0, or 1 with the reason on stderr
//! anything else          say what this program is                      2
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::definition::{Definition, Extension};
use crate::{logging, serve, service};

/// Started by hand, or with arguments that it does not know.
const EXIT_USAGE: u8 = 2;

/// Runs the extension `T` as this process: what [`crate::export!`] makes `main` do.
#[must_use]
pub fn run<T: Extension>() -> ExitCode {
    let definition = T::definition();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [only] if only == "--describe" => describe(&definition),
        [] => match take_channel() {
            Ok(Some(channel)) => {
                serve::serve(channel, definition, serve::Embedding::Process, logging::install)
                    .map(drop)
                    .map_err(Into::into)
            }
            Ok(None) => return explain(&definition),
            Err(error) => Err(error.into()),
        },
        _ => return explain(&definition),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{}: {}\n", T::definition().name, chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn describe<T>(definition: &Definition<T>) -> Result<(), Box<dyn Error>> {
    service::method_table(definition)?;
    let mut text = serde_json::to_string_pretty(&definition.describe())?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// The channel is this process's stdin, if that is a Unix stream socket. It moves out of the way, so that
/// nothing that the author starts or reads gets at it.
fn take_channel() -> io::Result<Option<UnixStream>> {
    let stdin = io::stdin();
    let is_channel = sockopt::socket_domain(stdin.as_fd()) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(stdin.as_fd()) == Ok(SocketType::STREAM);
    if !is_channel {
        return Ok(None);
    }
    let channel: OwnedFd = rustix::io::fcntl_dupfd_cloexec(stdin.as_fd(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(Some(UnixStream::from(channel)))
}

fn explain<T>(definition: &Definition<T>) -> ExitCode {
    let Definition { name, version, interfaces, .. } = definition;
    let interfaces: Vec<_> = interfaces.iter().map(|interface| interface.name).collect();
    say(&format!(
        "{name} {version} is an extension of Symphony ({}).\n\
         It is started by a conductor, which talks to it over a socket as its standard input; there is none here.\n\
         \n  {name} --describe                        prints its methods and their schemas as JSON\n  \
         conductor call {name}.METHOD JSON    calls one of them\n",
        interfaces.join(", ")
    ));
    ExitCode::from(EXIT_USAGE)
}

/// The error and what caused it, as one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn say(text: &str) {
    // Nowhere is left to say that even this failed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
