//! Interfaces served by a program that is no extension: over a channel that it has, on the thread that asks.
//!
//! The same server as in an extension's process, with two differences. The value is there already, and so is everything
//! else in the program: what goes wrong ends the channel, and not the process.

use std::error::Error;
use std::fmt;
use std::os::unix::net::UnixStream;

use crate::definition::{Definition, Setup, Start, definition};
use crate::interface::Interface;
use crate::serve::{self, Embedding};

/// Why serving ended before the caller was done.
#[derive(Debug)]
pub struct ServeError(serve::ServeError);

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Serves `definition` to whoever is the host at the other end of `channel`, until he is done or gone. Calls that run
/// then are cancelled, and end on threads of their own.
///
/// `in_flight_max` bounds the calls at once, whatever the other side announces; more are answered as busy.
///
/// # Errors
///
/// [`ServeError`]: the handshake failed, the other side broke the protocol, or the system gives no threads. The channel
/// is closed.
pub fn serve<T: Send + Sync + 'static>(
    channel: UnixStream,
    definition: Definition<T>,
    in_flight_max: u32,
) -> Result<(), ServeError> {
    let embedding = Embedding::Program { in_flight_max };
    serve::serve(channel, definition, embedding, |_| {}).map(drop).map_err(ServeError)
}

/// What [`crate::define!`] expands to.
#[doc(hidden)]
pub fn definition_of<T: Send + Sync + 'static>(
    name: &'static str,
    version: &'static str,
    value: T,
    interfaces: Vec<Interface<T>>,
) -> Definition<T> {
    definition(name, version, Start::new(|_: &Setup| Ok(value)), interfaces)
}

/// The [`Definition`] of a value that is there already: `define!(NAME, VALUE => TYPE as INTERFACE, ..)`.
///
/// ```
/// use extension_sdk::Fault;
///
/// #[extension_sdk::interface]
/// trait Greeter {
///     /// Greets.
///     fn greet(&self, name: String) -> Result<String, Fault>;
/// }
///
/// struct Polite;
///
/// impl Greeter for Polite {
///     fn greet(&self, name: String) -> Result<String, Fault> {
///         Ok(format!("Good day, {name}."))
///     }
/// }
///
/// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
/// let definition = extension_sdk::define!("greeter", Polite => Polite as Greeter);
/// let server = std::thread::spawn(move || extension_sdk::embedded::serve(theirs, definition, 8));
/// drop(ours);
/// assert!(server.join().expect("it ends").is_err(), "nobody said hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[macro_export]
macro_rules! define {
    ($name:expr, $value:expr => $kind:ty as $($interface:path),+ $(,)?) => {
        $crate::embedded::definition_of::<$kind>(
            $name,
            ::core::env!("CARGO_PKG_VERSION"),
            $value,
            ::std::vec![$(<$kind as $interface>::__interface()),+],
        )
    };
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use ipc_protocol::handshake::Hello;
    use ipc_protocol::{Codec, FaultCode, Header, Kind};
    use ipc_transport::framing::{FrameBuffer, append_frame, append_message};

    use super::*;
    use crate::{Context, Fault};

    #[crate::interface]
    trait Waiter {
        /// Waits until nobody wants it to.
        fn wait(&self, cx: &Context) -> Result<(), Fault>;
    }

    struct Patient(mpsc::Sender<()>);

    impl Waiter for Patient {
        fn wait(&self, cx: &Context) -> Result<(), Fault> {
            while !cx.is_cancelled() {
                thread::sleep(Duration::from_millis(1));
            }
            self.0.send(()).map_err(|_| Fault::new(FaultCode::Failed, "nobody listens"))
        }
    }

    fn say(channel: &UnixStream, header: Header) {
        let mut wire = Vec::new();
        append_frame(&mut wire, header, &[]);
        std::io::Write::write_all(&mut &*channel, &wire).expect("it is read");
    }

    /// The next frame that is no heartbeat.
    fn hear(channel: &UnixStream, frames: &mut FrameBuffer) -> Header {
        loop {
            match frames.next_frame().expect("it keeps the protocol") {
                Some(frame) if frame.header.kind == Kind::Heartbeat => {}
                Some(frame) => return frame.header,
                None => {
                    let read = frames.read_from(|room| std::io::Read::read(&mut &*channel, room));
                    assert!(read.expect("it is there") > 0, "it has ended");
                }
            }
        }
    }

    #[test]
    fn calls_of_one_who_goes_are_cancelled_and_no_more_are_taken_than_the_program_allows() {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let (told, cancelled) = mpsc::channel();
        let definition = crate::define!("waiter", Patient(told) => Patient as Waiter);
        let server = thread::spawn(move || serve(theirs, definition, 1));
        let mut hello = Vec::new();
        let header = Header { codec: Codec::MessagePack, ..Header::new(Kind::Hello, 7, 0) };
        // Far more than the program allows.
        let mut says = Hello::new("waiter", 7, 1);
        says.in_flight_max = 10_000;
        append_message(&mut hello, header, &says).expect("it is encoded");
        std::io::Write::write_all(&mut &ours, &hello).expect("it is read");
        let mut frames = FrameBuffer::new(1 << 20);
        assert_eq!(hear(&ours, &mut frames).kind, Kind::Welcome);
        assert_eq!(hear(&ours, &mut frames).kind, Kind::Ready);
        // One for each thread comes on top of the limit: see `Calls`.
        let count = 1 + 64;
        for id in 1..=count {
            say(&ours, Header::new(Kind::Call, 7, id));
        }
        let refused = hear(&ours, &mut frames);
        assert_eq!((refused.kind, refused.aux), (Kind::Fault, 10), "busy, and when to try again");
        drop(ours);
        cancelled.recv_timeout(Duration::from_secs(60)).expect("it is cancelled");
        server.join().expect("it ends").expect("the other side just went");
    }
}
