//! From a library to a running instance, and back.
//!
//! Start and stop run the author's code, which may take its time or never return. Each is on a thread of its own,
//! which is left alone when its time is over: a runtime's blocking thread would keep the whole program from ending.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipc_transport::Cause;
use tokio::sync::oneshot;

use super::table::Refusal;
use super::{InProcess, Library, Seat, StartError, StartOptions, limits, tender};

impl InProcess {
    /// Starts an instance of `library`. Must be called within a tokio runtime with time, and lives as long as that.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the extension's own, or it did not start in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the start alone; an instance that comes of it is stopped.
    pub async fn start(library: &Library, options: StartOptions) -> Result<Self, StartError> {
        let free = library.seats.lock().pop();
        let seat = free.unwrap_or_else(|| Seat::new(library));
        *seat.shared.log.lock() = Arc::clone(&options.log);
        let (table, host, config) = (library.table, seat.host, options.config);
        let (done, started) = oneshot::channel();
        let start = move || {
            // Nobody waits for it any more: it was given up.
            if let Err(Ok(instance)) = done.send(table.start(host, &config)) {
                table.stop(instance);
            }
        };
        thread::Builder::new().name("start".into()).spawn(start).map_err(StartError::Thread)?;
        let within = options.ready_timeout;
        let started = match tokio::time::timeout(within, started).await {
            // The seat is not used again: the start may still come back to it.
            Err(_) => return Err(StartError::Silent { within }),
            Ok(Err(_)) => Err(Refusal::Panicked),
            Ok(Ok(started)) => started,
        };
        let instance = match started {
            Ok(instance) => instance,
            Err(refusal) => {
                library.seats.lock().push(seat);
                return Err(match refusal {
                    Refusal::Fault(fault) => StartError::Refused(fault),
                    Refusal::Panicked => StartError::Panicked,
                });
            }
        };
        let term = seat.shared.books.lock().reopen(limits(options.in_flight_max));
        let endpoint = Self { seat, term, instance, library: library.clone() };
        tokio::spawn(tender::tend(endpoint.clone()));
        Ok(endpoint)
    }

    /// No calls from here on. Those that wait for room end as not delivered.
    pub fn drain(&self) {
        let (mut wake, mut books) = (Vec::new(), self.seat.shared.books.lock());
        books.drain(self.term, &mut wake);
        let may_enter = books.enter(self.term);
        self.seat.shared.finish(books, wake);
        if may_enter {
            self.seat.shared.table.drain(self.instance);
            let mut books = self.seat.shared.books.lock();
            books.left();
            self.seat.shared.finish(books, Vec::new());
        }
    }

    /// Waits until nobody waits for an outcome.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn idle(&self) {
        self.until(super::Books::is_idle).await;
    }

    async fn until(&self, is_so: fn(&super::Books) -> bool) {
        let watch = Watch::new(self);
        loop {
            let settled = watch.0.seat.shared.settled.notified();
            if is_so(&watch.0.seat.shared.books.lock()) {
                return;
            }
            settled.await;
        }
    }

    /// Ends every call that is left, with `cause`: those that wait as not delivered, those that the library has as
    /// unknown.
    pub fn fail_all(&self, cause: &Cause) {
        let (mut wake, mut books) = (Vec::new(), self.seat.shared.books.lock());
        books.end(self.term, cause, Instant::now(), &mut wake);
        self.seat.shared.finish(books, wake);
        self.seat.shared.tender.notify_one();
    }

    /// Ends every call that is left, and then the instance, within `time`. Returns whether nothing of it is left;
    /// else a handler still runs, and what it has is left alone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the instance alone, without calls.
    pub async fn stop(self, cause: &Cause, time: Duration) -> bool {
        self.fail_all(cause);
        let until = tokio::time::Instant::now() + time;
        // A thread of this side may be in a handler that does not return: then the instance must not be freed.
        if tokio::time::timeout_at(until, self.until(super::Books::is_outside)).await.is_err() {
            return false;
        }
        let (table, instance) = (self.seat.shared.table, self.instance);
        let (done, stopped) = oneshot::channel();
        let stop = move || {
            table.stop(instance);
            let _ = done.send(());
        };
        let is_stopped = thread::Builder::new().name("stop".into()).spawn(stop).is_ok()
            && matches!(tokio::time::timeout_at(until, stopped).await, Ok(Ok(())));
        // What comes late from a handler must not meet the books of another instance.
        let is_quiet = is_stopped && self.seat.shared.books.lock().is_quiet();
        if is_quiet {
            self.library.seats.lock().push(self.seat);
        }
        is_quiet
    }
}

/// Counted as long as somebody waits.
struct Watch<'a>(&'a InProcess);

impl<'a> Watch<'a> {
    fn new(endpoint: &'a InProcess) -> Self {
        endpoint.seat.shared.books.lock().watch(1);
        Self(endpoint)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.seat.shared.books.lock().watch(-1);
    }
}
