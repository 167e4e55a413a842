//! Threads for calls that are not known to be fast. Started on demand, ended when idle.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::Server;
use super::answer::Begun;

/// LIMIT: threads that run calls. More calls than that wait; how many is bounded by the calls in flight.
pub(super) const WORKERS_MAX: usize = 32;

/// How long a thread waits for its next call before it ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// LIMIT: bytes that a thread keeps for its next result.
pub(super) const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// A call that waits for a thread.
pub(super) struct Job {
    pub(super) begun: Begun,
    pub(super) body: Bytes,
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

/// What a new job makes necessary.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Wake,
    Start,
    Queue,
}

fn decide_submit(jobs: usize, threads: usize, idle: usize) -> Decision {
    if idle >= jobs {
        Decision::Wake
    } else if threads < WORKERS_MAX {
        Decision::Start
    } else {
        Decision::Queue
    }
}

impl Workers {
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.jobs.clear();
        self.has_job.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        state.idle += 1;
        let deadline = Instant::now() + IDLE_MAX;
        loop {
            let job = state.jobs.pop_front();
            if job.is_some() || state.is_closed || Instant::now() >= deadline {
                state.idle -= 1;
                if job.is_none() {
                    state.threads -= 1;
                }
                return job;
            }
            self.has_job.wait_until(&mut state, deadline);
        }
    }
}

/// Hands a call over to a thread.
pub(super) fn submit(server: &Arc<Server>, job: Job) {
    let workers = &server.workers;
    let decision = {
        let mut state = workers.state.lock();
        state.jobs.push_back(job);
        let decision = decide_submit(state.jobs.len(), state.threads, state.idle);
        if decision == Decision::Start {
            state.threads += 1;
        }
        decision
    };
    match decision {
        Decision::Wake => {
            workers.has_job.notify_one();
        }
        Decision::Start if start(server).is_err() => {
            let mut state = workers.state.lock();
            state.threads -= 1;
            // Without any thread nobody else would ever run it.
            let stranded = if state.threads == 0 { state.jobs.pop_front() } else { None };
            drop(state);
            if let Some(job) = stranded {
                work(server, &job, &mut Vec::new());
            }
        }
        Decision::Start | Decision::Queue => {}
    }
}

fn start(server: &Arc<Server>) -> io::Result<()> {
    let server = Arc::clone(server);
    thread::Builder::new().name("worker".into()).spawn(move || {
        let mut scratch = Vec::new();
        while let Some(job) = server.workers.next() {
            work(&server, &job, &mut scratch);
        }
    })?;
    Ok(())
}

fn work(server: &Arc<Server>, job: &Job, scratch: &mut Vec<u8>) {
    let began = Instant::now();
    server.run(&job.begun, &job.body, scratch, began);
    server.methods[job.begun.method].pace.record(began.elapsed());
    server.finish(&job.begun);
    server.output.flush();
    scratch.clear();
    scratch.shrink_to(SCRATCH_BYTES_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_wakes_an_idle_thread_or_starts_one_as_long_as_it_may() {
        assert_eq!(decide_submit(1, 0, 0), Decision::Start);
        assert_eq!(decide_submit(1, 1, 1), Decision::Wake);
        assert_eq!(decide_submit(2, 1, 1), Decision::Start);
        assert_eq!(decide_submit(2, 4, 2), Decision::Wake);
        assert_eq!(decide_submit(1, WORKERS_MAX, 0), Decision::Queue);
    }
}
