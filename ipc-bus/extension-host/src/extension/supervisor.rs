//! The owner of an extension's state: one task, from registration to the end of the host.
//!
//! ```text
//! Stopped --wanted, eager--> incarnation --ended on request--> Stopped
//!    ^                          |    ^
//!    |                 failure: v    | delay is over
//!    |              decide_restart --+--> Backoff
//!    |                          |
//!    +---- probe, reset ---- Broken          the host stops: Closed, from anywhere
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::incarnation::{Ended, Incarnation};
use super::ladder::host_closes;
use super::{Broken, Deadlines, Extension, Order, Phase};
use crate::events::EventKind;
use crate::exit::ExitClass;
use crate::random::Random;
use crate::restart::{Decision, End, RestartHistory, RestartWhen, decide_restart};
use crate::snapshot::InstanceState;

/// How long a broken extension is left alone before a call may try it again.
pub(crate) const PROBE_AFTER: Duration = Duration::from_secs(300);

struct Supervisor {
    extension: Arc<Extension>,
    orders: mpsc::Receiver<Order>,
    closing: watch::Receiver<Option<Deadlines>>,
    history: RestartHistory,
    epoch: u32,
    jitter: Random,
}

/// What ends a time of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Start,
    Stopped,
    Close,
}

/// Runs until the host stops.
pub(crate) async fn supervise(extension: Arc<Extension>, orders: mpsc::Receiver<Order>) {
    let closing = extension.host.closing.subscribe();
    let history = RestartHistory::default();
    let mut supervisor =
        Supervisor { extension, orders, closing, history, epoch: 0, jitter: Random::from_system() };
    supervisor.run().await;
    // Orders that came too late are answered by being dropped.
}

/// Whatever ends the supervisor, a panic included, nobody waits for it any longer.
impl Drop for Supervisor {
    fn drop(&mut self) {
        self.extension.shut(self.epoch, false);
        self.publish(InstanceState::Closed, None);
    }
}

impl Supervisor {
    async fn run(&mut self) {
        let mut next =
            if self.extension.manifest.activation.eager { Next::Start } else { self.stopped().await };
        loop {
            next = match next {
                Next::Close => return,
                Next::Stopped => self.stopped().await,
                Next::Start => {
                    self.epoch += 1;
                    let incarnation = Incarnation {
                        extension: &self.extension,
                        epoch: self.epoch,
                        orders: &mut self.orders,
                        closing: &mut self.closing,
                        history: &mut self.history,
                    };
                    let ended = incarnation.live().await;
                    self.after(ended).await
                }
            };
        }
    }

    fn publish(&self, state: InstanceState, broken: Option<Broken>) {
        self.extension.publish(Phase { state, epoch: self.epoch, broken });
    }

    /// Waits until somebody calls.
    async fn stopped(&mut self) -> Next {
        self.extension.memory.lock().last_failure = None;
        self.publish(InstanceState::Stopped, None);
        loop {
            if self.extension.is_wanted() {
                return Next::Start;
            }
            tokio::select! {
                biased;
                () = host_closes(&mut self.closing) => return Next::Close,
                order = self.orders.recv() => if self.obey(order).is_none() { return Next::Close },
                // The notification may be an old one: the queue decides.
                () = self.extension.wanted.notified() => {}
            }
        }
    }

    /// Orders where nothing runs; whether it was a reset, or `None` if the host is gone.
    fn obey(&mut self, order: Option<Order>) -> Option<bool> {
        let (done, is_reset) = match order? {
            Order::Stop { done, .. } => (done, false),
            Order::Reset { done } => {
                self.history.reset();
                self.extension.memory.lock().last_failure = None;
                // Before it is answered: whoever calls then must not find it broken any more.
                if self.extension.watch_phase().borrow().state == InstanceState::Broken {
                    self.publish(InstanceState::Stopped, None);
                }
                (done, true)
            }
        };
        let _ = done.send(());
        Some(is_reset)
    }

    async fn after(&mut self, ended: Ended) -> Next {
        if self.closing.borrow().is_some() {
            return Next::Close;
        }
        let report = &ended.report;
        if ended.on_request {
            self.extension.tell(self.epoch, EventKind::Stopped);
            return Next::Stopped;
        }
        let now = self.extension.host.since_began();
        self.history.record(End { at: now, failed: report.class.is_failure(), ready_for: report.ready_for });
        let policy = &self.extension.manifest.restart;
        let decision = match decide_restart(policy, &self.history, now, self.jitter.next()) {
            Decision::After(_) if report.class.is_permanent() => Decision::Broken,
            decision => decision,
        };
        match decision {
            Decision::Stop => {
                self.extension.tell(self.epoch, EventKind::Stopped);
                Next::Stopped
            }
            Decision::After(delay) => {
                self.extension.memory.lock().last_failure = Some(Arc::clone(report));
                self.back_off(delay).await
            }
            Decision::Broken => {
                let (count, window) = (policy.limit_count, policy.limit_window);
                let why = if report.class.is_permanent() {
                    report.to_string()
                } else if policy.when == RestartWhen::Never {
                    format!("it must not be restarted, and {report}")
                } else {
                    let classes = self.last_failures(count);
                    format!("it failed {count} times within {window:?} ({classes}), the last time: {report}")
                };
                let by_itself = !matches!(report.class, ExitClass::LauncherFailed { of_program: false, .. });
                let is_permanent = report.class.is_permanent();
                self.broken(why.into(), by_itself, is_permanent).await
            }
        }
    }

    /// The classes of the last failures that are remembered, at most `count`, oldest first.
    fn last_failures(&self, count: u32) -> String {
        let memory = self.extension.memory.lock();
        let classes = memory.past_ends.iter().map(|end| &end.report.class);
        let mut last: Vec<&str> =
            classes.rev().filter(|class| class.is_failure()).map(ExitClass::name).collect();
        last.truncate(count as usize);
        last.reverse();
        last.join(", ")
    }

    async fn back_off(&mut self, delay: Duration) -> Next {
        self.publish(InstanceState::Backoff, None);
        self.extension.tell(self.epoch, EventKind::Restarting { after: delay });
        let until = Instant::now() + delay;
        loop {
            tokio::select! {
                biased;
                () = host_closes(&mut self.closing) => return Next::Close,
                order = self.orders.recv() => match order {
                    Some(Order::Stop { done, .. }) => {
                        let _ = done.send(());
                        return Next::Stopped;
                    }
                    other => match self.obey(other) {
                        None => return Next::Close,
                        Some(true) => break,
                        Some(false) => {}
                    },
                },
                () = sleep_until(until) => break,
            }
        }
        self.extension.memory.lock().restarts += 1;
        Next::Start
    }

    /// Left alone until somebody resets it, or long enough has passed for a call to try.
    async fn broken(&mut self, reason: Arc<str>, by_itself: bool, is_permanent: bool) -> Next {
        let until = Instant::now() + PROBE_AFTER;
        let broken = Broken { reason: Arc::clone(&reason), until, by_itself, is_permanent };
        self.publish(InstanceState::Broken, Some(broken));
        self.extension.tell(self.epoch, EventKind::Broken { reason });
        loop {
            tokio::select! {
                biased;
                () = host_closes(&mut self.closing) => return Next::Close,
                order = self.orders.recv() => match self.obey(order) {
                    None => return Next::Close,
                    Some(true) => return Next::Stopped,
                    Some(false) => {}
                },
                () = sleep_until(until) => return Next::Stopped,
            }
        }
    }
}
