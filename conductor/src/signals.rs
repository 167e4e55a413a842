//! Ctrl-C, SIGTERM and SIGHUP: the first asks for a clean end, the second ends the process at once.
//!
//! ```text
//! Running --signal--> Cancelling(signal) --signal--> the process exits
//! ```
//!
//! Signals are received on a thread of their own, so that the second one works even while the main thread
//! computes. Nothing is left behind by an exit: every process of ours runs under a launcher that ends when
//! the conductor does. A third one, SIGUSR1, only asks what the run is doing. This file must not know what is
//! cancelled or told.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Exit;

/// Whether this process was started with SIGHUP ignored.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 stands for signal 1.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

async fn received(signals: &mut Option<Signal>) -> Option<()> {
    match signals {
        Some(signals) => signals.recv().await,
        None => std::future::pending().await,
    }
}

/// Lets a write beyond `ulimit -f` fail like any other for want of room: unhandled, its signal would end the
/// process. What is started gets the default back, because a handler does not outlive an exec.
///
/// # Errors
///
/// The system gives no descriptors; the program cannot run then.
pub fn survive_file_size_limit() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    // The handler stays when its receiver goes.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// SIGUSR1: somebody wants to know what the run is doing.
#[derive(Debug)]
pub struct Question(Signal);

impl Question {
    /// Takes the signal from now on; unhandled it would end the process.
    ///
    /// # Errors
    ///
    /// The system gives no descriptors; the program cannot run then.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::user_defined1()).map(Self)
    }

    /// Waits for the signal.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; several before one look count as one.
    pub async fn wait(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime is ending.
            std::future::pending().await
        }
    }
}

/// What asked for the end, if anything did.
#[derive(Clone, Debug)]
pub struct Cancellation(watch::Receiver<Option<Exit>>);

impl Cancellation {
    /// Starts to listen for signals.
    ///
    /// # Errors
    ///
    /// The system gives no thread or no descriptors; the program cannot run then.
    pub fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupts, mut terminations, mut hangups) = {
            let _inside = runtime.enter();
            // Under nohup a closed terminal is nobody's wish to end.
            let hangups = if ignores_hangups() { None } else { Some(signal(SignalKind::hangup())?) };
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hangups)
        };
        let listen = async move {
            loop {
                let exit = tokio::select! {
                    Some(()) = interrupts.recv() => Exit::Interrupted,
                    Some(()) = terminations.recv() => Exit::Terminated,
                    Some(()) = received(&mut hangups) => Exit::HungUp,
                    else => return,
                };
                let is_second = sender.borrow().is_some();
                if is_second {
                    std::process::exit(exit as i32);
                }
                sender.send_replace(Some(exit));
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen))?;
        Ok(Self(receiver))
    }

    /// The exit code of the signal that came, if one did.
    #[must_use]
    pub fn requested(&self) -> Option<Exit> {
        *self.0.borrow()
    }

    /// Waits for a signal.
    ///
    /// # Cancel safety
    ///
    /// A signal is never lost: it is a level, not an edge.
    pub async fn wait(&mut self) -> Exit {
        match self.0.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The listener only ends with the process.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}
