//! Threads of an instance for calls that are not known to be fast. Started on demand, ended when idle.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipc_protocol::{Fault, FaultCode, Retry};
use parking_lot::{Condvar, Mutex};

use super::Instance;
use crate::context::CallState;
use crate::service::as_guest;

/// LIMIT: threads of one instance. More calls than that wait; how many is bounded by the calls in flight.
const WORKERS_MAX: usize = 32;

/// How long a thread waits for its next call before it ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A call that waits for a thread.
pub(super) struct Job {
    pub(super) call: Arc<CallState>,
    pub(super) method: usize,
    pub(super) body: Box<[u8]>,
}

#[derive(Default)]
pub(super) struct Workers {
    state: Mutex<State>,
    has_job: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl Workers {
    /// No more jobs are run; those that wait.
    pub(super) fn close(&self) -> VecDeque<Job> {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.has_job.notify_all();
        std::mem::take(&mut state.jobs)
    }

    /// Takes a job back that no thread has begun.
    pub(super) fn take_out(&self, id: u64) -> Option<Job> {
        let mut state = self.state.lock();
        let at = state.jobs.iter().position(|job| job.call.id == id)?;
        state.jobs.remove(at)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        state.idle += 1;
        let deadline = Instant::now() + IDLE_MAX;
        loop {
            let job = state.jobs.pop_front();
            if job.is_some() || state.is_closed || Instant::now() >= deadline {
                state.idle -= 1;
                state.threads -= usize::from(job.is_none());
                return job;
            }
            self.has_job.wait_until(&mut state, deadline);
        }
    }
}

/// Hands a call over to a thread; one is started if none is idle and there may be another.
pub(super) fn submit(instance: &Arc<Instance>, job: Job) {
    let mut state = instance.workers.state.lock();
    state.jobs.push_back(job);
    if state.idle >= state.jobs.len() || state.threads == WORKERS_MAX {
        instance.workers.has_job.notify_one();
        return;
    }
    state.threads += 1;
    drop(state);
    if start(instance).is_err() {
        let mut state = instance.workers.state.lock();
        state.threads -= 1;
        // Without any thread nobody would ever run it, and this one is not the instance's to keep.
        let stranded = if state.threads == 0 { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
        drop(state);
        for job in stranded {
            let fault = Fault::new(FaultCode::Busy, "the system gives no thread to run the method on");
            instance.host.fault(job.call.id, &fault.with_retry(Retry::AfterMs(100)));
        }
    }
}

fn start(instance: &Arc<Instance>) -> std::io::Result<()> {
    let instance = Arc::clone(instance);
    thread::Builder::new().name("worker".into()).spawn(move || {
        while let Some(job) = instance.workers.next() {
            // Not for handlers, whose panics end within: whatever else goes wrong costs this call, and neither its
            // answer nor the thread.
            let run = AssertUnwindSafe(|| instance.run(&job.call, job.method, &job.body, None));
            if let Err(payload) = catch_unwind(run) {
                // It may panic again while it is dropped.
                std::mem::forget(payload);
                let text = "the extension's worker panicked outside of the method";
                instance.host.fault(job.call.id, &Fault::new(FaultCode::Panicked, text));
            }
        }
        // The last one drops the author's value, where its panic costs this thread alone.
        let dropped = catch_unwind(AssertUnwindSafe(|| as_guest(|| drop(instance))));
        if let Err(payload) = dropped {
            std::mem::forget(payload);
        }
    })?;
    Ok(())
}
