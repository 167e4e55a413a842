//! The answering side of a peer: this program once more, on a core of its own, with its socket as standard input.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

use super::{iceoryx2_echo, sockets, tarpc_echo, tonic_echo};

/// The argument with which a program starts itself as an answering side. The peer's name, the core and what else the
/// peer wants to know follow.
const ANSWER_ARGUMENT: &str = "--answer-for-a-peer";

/// LIMIT: how long a side that was told to end may take, and how often that is looked at.
const END_MAX: Duration = Duration::from_secs(5);
const END_LOOK: Duration = Duration::from_millis(2);

/// An answering process.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    process: Pid,
}

impl Server {
    /// Starts the answering side of the peer `name` on `core`, and returns this side's end of the socket between them.
    pub(super) fn start(name: &str, core: usize, more: &[String]) -> anyhow::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::start_with(name, core, more, theirs.into())?, ours))
    }

    /// The same with a descriptor of the peer's choice.
    pub(super) fn start_with(
        name: &str,
        core: usize,
        more: &[String],
        stdin: OwnedFd,
    ) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args([ANSWER_ARGUMENT, name, &core.to_string()])
            .args(more)
            .stdin(Stdio::from(stdin))
            .spawn()?;
        let process = Pid::from_child(&child);
        Ok(Self { child, process })
    }

    /// Holds a side that spins, so that it takes no core from the others until it is awake again.
    pub(super) fn hold(&self) -> anyhow::Result<()> {
        rustix::process::kill_process(self.process, Signal::STOP).context("a peer could not be held")
    }

    /// Lets a held side go on until the guard is dropped.
    pub(super) fn awake(&self) -> anyhow::Result<Awake<'_>> {
        self.resume()?;
        Ok(Awake(self))
    }

    /// Lets a held side go on for good.
    pub(super) fn resume(&self) -> anyhow::Result<()> {
        rustix::process::kill_process(self.process, Signal::CONT).context("a peer could not be woken")
    }

    /// Waits for the end of a side that was told to end, though not for ever.
    pub(super) fn wait(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < END_MAX && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(END_LOOK);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Held or in the middle of something: there is nothing in it to be kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A side that spins, while it may.
#[derive(Debug)]
pub(super) struct Awake<'a>(&'a Server);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        // One that is gone needs no holding; whoever calls it next will see.
        let _ = self.0.hold();
    }
}

/// Answers for a peer if this program was started to do so; `None` otherwise. The first line of `main`.
#[must_use]
pub fn serve_if_asked() -> Option<anyhow::Result<()>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != ANSWER_ARGUMENT).skip(1);
    let name = arguments.next()?;
    Some(serve(&name, &arguments.collect::<Vec<_>>()))
}

fn serve(name: &str, arguments: &[String]) -> anyhow::Result<()> {
    // A spinning side must not outlive a bench that was killed.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let (core, more) = arguments.split_first().context("no core is named")?;
    crate::pin_to(core.parse()?)?;
    match name {
        iceoryx2_echo::NAME => iceoryx2_echo::serve(more),
        sockets::COALESCED => sockets::serve_coalesced(),
        sockets::HOT => sockets::serve_hot(more),
        tarpc_echo::NAME => tarpc_echo::serve(),
        tonic_echo::NAME => tonic_echo::serve(),
        other => anyhow::bail!("there is no peer `{other}`"),
    }
}

/// What the answering side was given as its standard input.
pub(super) fn stdin() -> anyhow::Result<OwnedFd> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?)
}

/// The runtime of an answering side: one thread, as an echo has nothing to hand over.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
