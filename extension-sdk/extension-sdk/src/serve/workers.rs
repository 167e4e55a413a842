//! Threads for calls that are not known to be fast. Started on demand, ended when idle.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipc_protocol::limits::HOST_CALLS_IN_FLIGHT_MAX;
use ipc_protocol::{Fault, FaultCode};
use parking_lot::{Condvar, Mutex};

use super::answer::Begun;
use super::output::Flush;
use super::{Server, start_thread};

/// LIMIT: threads that run calls. More calls than that wait; how many is bounded by the calls in flight.
pub(super) const WORKERS_MAX: usize = 32;

/// LIMIT: threads that run calls, those included that wait for the host's answer and so run nothing.
pub(super) const THREADS_MAX: usize = WORKERS_MAX + HOST_CALLS_IN_FLIGHT_MAX as usize;

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
    /// Host calls whose answers threads wait for: as many threads may run beyond [`WORKERS_MAX`].
    host_calls: usize,
    is_closed: bool,
}

/// What a new job makes necessary.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Wake,
    Start,
    Queue,
}

fn decide_submit(jobs: usize, threads: usize, idle: usize, host_calls: usize) -> Decision {
    if idle >= jobs {
        Decision::Wake
    } else if threads < (WORKERS_MAX + host_calls).min(THREADS_MAX) {
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
        let decision = decide_submit(state.jobs.len(), state.threads, state.idle, state.host_calls);
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

/// A thread is about to wait for the host's answer: another one may run in its place, and if a job has waited for a
/// thread, does.
pub(super) fn begin_wait(server: &Arc<Server>) {
    let must_start = {
        let mut state = server.workers.state.lock();
        state.host_calls += 1;
        let (jobs, threads) = (state.jobs.len(), state.threads);
        let starts = decide_submit(jobs, threads, state.idle, state.host_calls) == Decision::Start;
        state.threads += usize::from(starts);
        starts
    };
    if must_start && start(server).is_err() {
        // There are others, or this one would have had nothing to run.
        server.workers.state.lock().threads -= 1;
    }
}

/// The answer has come, or nobody waits for it any longer.
pub(super) fn end_wait(server: &Server) {
    server.workers.state.lock().host_calls -= 1;
}

fn start(server: &Arc<Server>) -> io::Result<()> {
    start_thread(server, "worker", |server| {
        let mut scratch = Vec::new();
        while let Some(job) = server.workers.next() {
            // Not for handlers, whose panics end within: whatever else goes wrong costs this call, but neither
            // its answer nor the thread.
            let worked = catch_unwind(AssertUnwindSafe(|| work(server, &job, &mut scratch)));
            if let Err(payload) = worked {
                // It may panic again while it is dropped.
                std::mem::forget(payload);
                server.output.flush();
            }
        }
    })?;
    Ok(())
}

/// A call that is being run: it is answered and taken off the table even if running it unwinds.
struct Running<'a> {
    server: &'a Server,
    begun: &'a Begun,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let fault =
                Fault::new(FaultCode::Panicked, "the extension's worker panicked outside of the method");
            self.server.output.append_fault(self.begun.call.id, &fault);
        }
        self.server.finish(self.begun);
    }
}

fn work(server: &Arc<Server>, job: &Job, scratch: &mut Vec<u8>) {
    let began = Instant::now();
    let running = Running { server, begun: &job.begun };
    server.run(&job.begun, &job.body, scratch, began, Flush::Later);
    drop(running);
    server.methods[job.begun.method].pace.record(began.elapsed());
    server.output.flush();
    scratch.clear();
    scratch.shrink_to(SCRATCH_BYTES_MAX);
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use ipc_protocol::{Header, Kind};
    use ipc_transport::framing::FrameBuffer;

    use super::*;
    use crate::context::Context;
    use crate::serve::tests::server;
    use crate::service::Service;

    /// Unwinds where handlers never do: outside of the service's own catch.
    struct Unwinding;

    impl Service for Unwinding {
        fn run(&self, _: usize, _: &Context, _: &[u8], _: &mut Vec<u8>) -> Result<(), Fault> {
            panic!("outside of the method")
        }
    }

    #[test]
    fn a_worker_that_unwinds_outside_of_the_method_answers_and_goes_on() {
        // More than there may be threads, one after the other: none is lost.
        const CALLS: u64 = 3 * WORKERS_MAX as u64;
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let server = server(theirs, Unwinding);
        let mut frames = FrameBuffer::new(1 << 20);
        for id in 1..=CALLS {
            let begun = server.begin(&Header::new(Kind::Call, 1, id), Instant::now(), None).unwrap().unwrap();
            submit(&server, Job { begun, body: Bytes::new() });
            let frame = loop {
                match frames.next_frame().unwrap() {
                    Some(frame) => break frame,
                    None => assert!(frames.read_from(|room| (&ours).read(room)).unwrap() > 0),
                }
            };
            assert_eq!((frame.header.kind, frame.header.id), (Kind::Fault, id));
            assert_eq!(frame.decode::<Fault>().unwrap().code, FaultCode::Panicked);
            assert_eq!(
                server.calls.load(Instant::now()).0,
                0,
                "it is off the table before its answer leaves"
            );
        }
        assert!((1..=WORKERS_MAX).contains(&server.workers.state.lock().threads));
        server.close();
    }

    #[test]
    fn a_job_wakes_an_idle_thread_or_starts_one_as_long_as_it_may() {
        assert_eq!(decide_submit(1, 0, 0, 0), Decision::Start);
        assert_eq!(decide_submit(1, 1, 1, 0), Decision::Wake);
        assert_eq!(decide_submit(2, 1, 1, 0), Decision::Start);
        assert_eq!(decide_submit(2, 4, 2, 0), Decision::Wake);
        assert_eq!(decide_submit(1, WORKERS_MAX, 0, 0), Decision::Queue);
        // As many more as wait for the host, so that those who are waited for can run.
        assert_eq!(decide_submit(1, WORKERS_MAX, 0, 1), Decision::Start);
        assert_eq!(decide_submit(1, WORKERS_MAX + 1, 0, 1), Decision::Queue);
        assert_eq!(decide_submit(1, THREADS_MAX, 0, usize::MAX / 2), Decision::Queue);
    }
}
