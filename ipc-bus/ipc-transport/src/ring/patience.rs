//! How long to poll before sleeping: waking a core that sleeps costs some 20 to 50 us, polling costs the core.
//!
//! ```text
//!              found                        found
//!   look, pause  x PAUSES --> yield, look, pause, for `Latency::bound` at most --> nothing: a miss
//!                                   |  others ran for long meanwhile: they want this core
//!                                   v
//!                                a miss that counts more
//! ```
//!
//! After each miss in a row twice as many waits are not polled for at all, up to a bound; one wait that was over
//! sooner than the bound, polled for or not, and everything is polled for again. So who is called once in a while
//! costs nothing, and who is called all the time is polled for all the time. Beside others who compute nobody polls for
//! a while, whatever the waits are like.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Looks before anybody else is let run: as long as a short call takes.
const PAUSES: u32 = 200;

/// Looks between two yields.
const PAUSES_BETWEEN: u32 = 20;

/// A yield that took as long let somebody else run for a moment, such as a peer on the same core.
const LET_RUN_MIN: Duration = Duration::from_micros(1);

/// Whoever had the core for as long during a yield computes, whatever has come meanwhile. Not the length of the yield:
/// timer ticks and the hypervisor take tens to thousands of microseconds too (on a machine of 2026 300 of 8 us and more in
/// a second, of which hardly one was somebody else's), and will not go away if this side sleeps.
const CROWDED_MIN: Duration = Duration::from_micros(200);

/// What it takes to wake up, on both sides of a round trip, and somewhat more: it would not have been waited for if this
/// side had been awake. Between 20 and 50 us each on the virtual machines of 2026.
const WAKE_UP: Duration = Duration::from_micros(150);

/// LIMIT: waits in a row that are not polled for.
const SKIPPED_MAX: u32 = 64;

/// How long nobody polls after it turned out that others have work for this core: at first, and at most, where it turns
/// out again and again. Who yields to somebody that computes gets the core back after a whole slice of his, some
/// milliseconds; who sleeps gets it back when he is woken.
const CROWDED_FOR_MIN: Duration = Duration::from_millis(50);
const CROWDED_FOR_MAX: Duration = Duration::from_secs(2);

/// What matters for one extension: how fast it answers, or how little it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Latency {
    /// Poll for long: for extensions that are called all the time.
    Low,
    /// Poll for about as long as sleeping and waking takes.
    #[default]
    Balanced,
    /// Never poll.
    Efficient,
}

impl Latency {
    /// How long a wait is polled for at most.
    #[must_use]
    pub const fn bound(self) -> Duration {
        match self {
            Self::Low => Duration::from_micros(500),
            Self::Balanced => Duration::from_micros(100),
            Self::Efficient => Duration::ZERO,
        }
    }

    /// As it is written in manifests and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Balanced => "balanced",
            Self::Efficient => "efficient",
        }
    }

    /// The setting of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Low, Self::Balanced, Self::Efficient].into_iter().find(|latency| latency.as_str() == name)
    }
}

/// How long one who waits again and again polls. See the module.
#[derive(Debug)]
pub struct Patience {
    bound: Duration,
    /// What is its own while it yields: this thread, or the whole process.
    own: ClockId,
    misses: u32,
    to_skip: u32,
    /// Whether the last wait was over because a yield let the other side run: it is on this very core then, and to look
    /// before the next yield only keeps it waiting.
    yields_first: bool,
    /// Until when others are taken to have work for this core, and for how long that was believed.
    crowded: Option<(Instant, Duration)>,
}

/// How polling ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Found,
    /// After a yield that took as long as it takes to let somebody else run.
    FoundBehindOther,
    /// After a yield in which somebody else computed.
    FoundTooLate,
    Nothing,
    Crowded,
}

impl Patience {
    /// Of one who waits as `latency` says.
    #[must_use]
    pub fn new(latency: Latency) -> Self {
        let bound = latency.bound();
        Self { bound, own: ClockId::ThreadCPUTime, misses: 0, to_skip: 0, yields_first: false, crowded: None }
    }

    /// Of one who waits as `latency` says, and whose process has workers that do what he has read: who yields to them is in
    /// nobody's way. While they compute on other cores nobody else is noticed; whoever is so busy is not called all the
    /// time.
    #[must_use]
    pub fn beside_workers(latency: Latency) -> Self {
        Self { own: ClockId::ProcessCPUTime, ..Self::new(latency) }
    }

    /// Polls `is_there` for as long as it pays. Returns whether it said yes; if not, sleep.
    pub fn wait(&mut self, is_there: impl FnMut() -> bool) -> bool {
        if self.bound.is_zero() || self.to_skip > 0 {
            self.to_skip = self.to_skip.saturating_sub(1);
            return false;
        }
        if self.is_crowded() {
            return false;
        }
        let pauses = if self.yields_first { 1 } else { PAUSES };
        let poll = poll(self.bound, self.own, pauses, is_there);
        self.note(poll);
        matches!(poll, Poll::Found | Poll::FoundBehindOther | Poll::FoundTooLate)
    }

    /// A wait that was slept through lasted as long as this, waking up included.
    pub fn slept(&mut self, waited: Duration) {
        if waited <= self.bound + WAKE_UP {
            self.misses = 0;
            self.to_skip = 0;
        }
    }

    /// Whether a wait would be polled for now.
    #[must_use]
    pub fn polls(&self) -> bool {
        !self.bound.is_zero() && self.to_skip == 0 && !self.is_crowded()
    }

    /// Whether others are taken to have work for this core.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.crowded.is_some_and(|(until, _)| Instant::now() < until)
    }

    fn note_crowded(&mut self, now: Instant) {
        let for_long = match self.crowded {
            // It was not over.
            Some((until, before)) if now < until + CROWDED_FOR_MAX => (2 * before).min(CROWDED_FOR_MAX),
            _ => CROWDED_FOR_MIN,
        };
        self.crowded = Some((now + for_long, for_long));
    }

    fn note(&mut self, poll: Poll) {
        self.yields_first = poll == Poll::FoundBehindOther;
        match poll {
            Poll::Found | Poll::FoundBehindOther => self.misses = 0,
            Poll::Nothing => self.miss(1),
            Poll::FoundTooLate => self.note_crowded(Instant::now()),
            Poll::Crowded => {
                self.note_crowded(Instant::now());
                self.miss(3);
            }
        }
    }

    fn miss(&mut self, weight: u32) {
        self.misses = (self.misses + weight).min(SKIPPED_MAX.ilog2());
        self.to_skip = (1 << self.misses) - 1;
    }
}

fn poll(bound: Duration, own: ClockId, pauses: u32, mut is_there: impl FnMut() -> bool) -> Poll {
    for _ in 0..pauses {
        if is_there() {
            return Poll::Found;
        }
        std::hint::spin_loop();
    }
    let began = Instant::now();
    let mut now = began;
    let ran = time_of(own);
    loop {
        // Whoever is to answer may be waiting for this very core.
        std::thread::yield_now();
        let before = std::mem::replace(&mut now, Instant::now());
        let took = now.duration_since(before);
        let is_crowded = took >= CROWDED_MIN && {
            let ran = time_of(own).saturating_sub(ran);
            now.duration_since(began).saturating_sub(ran) >= CROWDED_MIN
        };
        if is_there() {
            return match took {
                _ if is_crowded => Poll::FoundTooLate,
                took if took >= LET_RUN_MIN => Poll::FoundBehindOther,
                _ => Poll::Found,
            };
        }
        if is_crowded {
            return Poll::Crowded;
        }
        if now.duration_since(began) >= bound {
            return Poll::Nothing;
        }
        for _ in 0..PAUSES_BETWEEN {
            if is_there() {
                return Poll::Found;
            }
            std::hint::spin_loop();
        }
        now = Instant::now();
    }
}

/// How long this thread, or this process, has had cores: what others had meanwhile is not in it, what ticks and the
/// hypervisor took is.
fn time_of(own: ClockId) -> Duration {
    let time = clock_gettime(own);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;

    #[test]
    fn who_is_called_rarely_is_hardly_polled_for() {
        let mut patience = Patience::new(Latency::Balanced);
        let polled = (0..1000).filter(|_| {
            let is_polled_for = patience.polls();
            if is_polled_for {
                // Not by polling: what a yield takes is the machine's to say.
                patience.note(Poll::Nothing);
            } else {
                assert!(!patience.wait(|| panic!("it looked")));
            }
            patience.slept(Duration::from_millis(10));
            is_polled_for
        });
        let polled = polled.count();
        assert!((10..40).contains(&polled), "{polled} of 1000");
        assert!(!patience.polls());
        patience.slept(Duration::from_micros(90));
        assert!(patience.polls() && patience.wait(|| true), "it would have paid");
    }

    #[test]
    fn who_is_called_all_the_time_is_polled_for_all_the_time() {
        let mut patience = Patience::new(Latency::Balanced);
        patience.note(Poll::Nothing);
        assert!(!patience.wait(|| true), "the next one is not polled for");
        for looks in [1, 10, PAUSES] {
            let mut left = looks;
            assert!(patience.wait(|| {
                left -= 1;
                left == 0
            }));
        }
        patience.note(Poll::FoundBehindOther);
        let mut looks = 0;
        patience.wait(|| {
            looks += 1;
            looks == 2
        });
        assert_eq!(looks, 2, "it yields after the first look");
    }

    #[test]
    fn beside_others_who_compute_nobody_polls_for_a_while_and_longer_each_time() {
        let mut patience = Patience::new(Latency::Low);
        patience.note(Poll::Crowded);
        assert!(patience.is_crowded() && !patience.polls());
        // However short the waits are.
        patience.slept(Duration::from_micros(10));
        assert!(!patience.wait(|| panic!("it looked")));
        let now = Instant::now();
        let mut patience = Patience::new(Latency::Low);
        let believed = |patience: &Patience| patience.crowded.expect("it is noted").1;
        let mut at = now;
        for expected in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            patience.note_crowded(at);
            assert_eq!(believed(&patience), Duration::from_millis(expected));
            at += believed(&patience);
        }
        patience.note_crowded(at + CROWDED_FOR_MAX + Duration::from_millis(1));
        assert_eq!(believed(&patience), CROWDED_FOR_MIN, "that was long ago");
    }

    /// Whether one who yields on a core on which a shell computes notices it.
    fn notices_a_shell(own: ClockId) -> bool {
        let mut one_core = CpuSet::new();
        let cores = sched_getaffinity(None).expect("this thread has cores");
        let core = (0..CpuSet::MAX_CPU).find(|core| cores.is_set(*core)).expect("one at least");
        one_core.set(core);
        let until = Instant::now() + Duration::from_secs(60);
        let looks = std::thread::spawn(move || {
            sched_setaffinity(None, &one_core).expect("it is one of its own");
            // It has the core of whoever starts it, and ends by itself should this not.
            let mut computes = std::process::Command::new("sh");
            computes.args(["-c", "i=0; while [ $i -lt 30000000 ]; do i=$((i+1)); done"]);
            let mut computes = computes.spawn().expect("a shell starts");
            let mut has_noticed = false;
            while !has_noticed && Instant::now() < until {
                has_noticed = poll(Duration::from_micros(100), own, 1, || false) == Poll::Crowded;
            }
            computes.kill().expect("it is ours");
            computes.wait().expect("it is ours");
            has_noticed
        });
        looks.join().expect("it does not panic")
    }

    #[test]
    fn another_process_that_computes_on_the_same_core_is_noticed() {
        assert!(notices_a_shell(ClockId::ThreadCPUTime));
        assert!(notices_a_shell(ClockId::ProcessCPUTime));
    }

    #[test]
    fn who_must_not_cost_anything_never_polls() {
        let mut patience = Patience::new(Latency::Efficient);
        assert!(!patience.polls() && !patience.wait(|| panic!("it looked")));
    }

    #[test]
    fn names_are_those_of_the_wire() {
        for latency in [Latency::Low, Latency::Balanced, Latency::Efficient] {
            assert_eq!(Latency::from_name(latency.as_str()), Some(latency));
        }
        assert_eq!(Latency::from_name("fast"), None);
    }
}
