//! A conductor that stays up: what others reach through its listening socket.
//!
//! Knocks are heard, and clients served, each on a thread of its own, so that one who is slow or silent holds up nobody.
//! What they are served is the interface [`interfaces::Conductor`], by the server that every extension has. This module
//! must not know the command line.

mod logbook;
mod service;

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use interfaces::Conductor;
use ipc_transport::rendezvous::{Closer, Knock, Rendezvous};
use parking_lot::Mutex;

pub use logbook::Logbook;
pub use service::ConductorService;

/// LIMIT: clients at once.
const CLIENTS_MAX: usize = 32;

/// LIMIT: those who knock and have not said yet who they are; more are turned away unheard.
const KNOCKS_MAX: usize = 16;

/// LIMIT: calls of one client at once.
const CALLS_OF_CLIENT_MAX: u32 = 64;

/// How long nobody is let in after the system could not let somebody in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The folder of the listening socket within a data folder.
#[must_use]
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("serve")
}

/// The open door. Ends with [`Self::close`].
#[derive(Debug)]
pub struct Door {
    closer: Closer,
    clients: Arc<Clients>,
    doorkeeper: JoinHandle<()>,
}

/// Who is inside.
#[derive(Debug, Default)]
struct Clients {
    threads: AtomicUsize,
    channels: Mutex<Channels>,
}

#[derive(Debug, Default)]
struct Channels {
    next: u64,
    /// For ending them; `None` when the door is closed.
    open: Vec<(u64, UnixStream)>,
    is_closed: bool,
}

impl Clients {
    /// A place for the one at the other end of `channel`; `None` if there is none.
    fn enter(&self, channel: &UnixStream) -> Option<Place<'_>> {
        let end = channel.try_clone().ok()?;
        let mut channels = self.channels.lock();
        if channels.is_closed || channels.open.len() >= CLIENTS_MAX {
            return None;
        }
        channels.next += 1;
        let number = channels.next;
        channels.open.push((number, end));
        Some(Place { clients: self, number })
    }
}

/// One who is inside, until this is dropped.
struct Place<'a> {
    clients: &'a Clients,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.clients.channels.lock().open.retain(|(other, _)| *other != self.number);
    }
}

impl Door {
    /// Lets in whoever comes to `rendezvous`, and serves him `service`.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn open(rendezvous: Rendezvous, service: ConductorService) -> io::Result<Self> {
        let (closer, clients) = (rendezvous.closer(), Arc::new(Clients::default()));
        let inside = Arc::clone(&clients);
        let doorkeeper = thread::Builder::new()
            .name("doorkeeper".to_owned())
            .spawn(move || keep(&rendezvous, &service, &inside))?;
        Ok(Self { closer, clients, doorkeeper })
    }

    /// Lets nobody in any more, and ends those who are inside: what they asked for and was not answered is lost to them.
    pub fn close(self) {
        self.closer.close();
        // It has nothing to tell, and a panic of its own it has told.
        let _is_over = self.doorkeeper.join().is_ok();
        let mut channels = self.clients.channels.lock();
        channels.is_closed = true;
        for (_, channel) in channels.open.drain(..) {
            // One who is gone is as good.
            let _ = channel.shutdown(Shutdown::Both);
        }
    }
}

fn keep(rendezvous: &Rendezvous, service: &ConductorService, clients: &Arc<Clients>) {
    loop {
        match rendezvous.accept() {
            Ok(None) => return,
            Ok(Some(knock)) => answer(knock, service, clients),
            Err(error) => {
                tracing::warn!("nobody can be let in at the moment: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn answer(knock: Knock, service: &ConductorService, clients: &Arc<Clients>) {
    // ORDERING(threads): Relaxed, a count that guards no other data.
    if clients.threads.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX + KNOCKS_MAX {
        // ORDERING(threads): Relaxed, as above.
        clients.threads.fetch_sub(1, Ordering::Relaxed);
        tracing::debug!("somebody knocked beside too many others");
        return;
    }
    let counted = Counted(Arc::clone(clients));
    let service = service.clone();
    let started = thread::Builder::new().name("client".to_owned()).spawn(move || {
        match knock.hear(|channel| counted.0.enter(channel)) {
            Ok((arrival, _place)) => {
                let pid = arrival.pid;
                if let Err(error) = serve(arrival.channel, service) {
                    tracing::debug!(pid, "a client ended: {error}");
                }
            }
            Err(what) => tracing::debug!("somebody was not let in: {what}"),
        }
    });
    if let Err(error) = started {
        tracing::warn!("a client was not let in: {error}");
    }
}

/// A thread that is counted until it ends, however it does.
struct Counted(Arc<Clients>);

impl Drop for Counted {
    fn drop(&mut self) {
        // ORDERING(threads): Relaxed, a count that guards no other data.
        self.0.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(channel: UnixStream, service: ConductorService) -> Result<(), String> {
    let definition = extension_sdk::define!("conductor", service => ConductorService as Conductor);
    let served = extension_sdk::embedded::serve(channel, definition, CALLS_OF_CLIENT_MAX);
    served.map_err(|error| crate::exit::chain(&error))
}
