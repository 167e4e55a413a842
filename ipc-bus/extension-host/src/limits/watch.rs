//! What follows from what is seen of an instance: pure decisions, with the time given.

use std::time::{Duration, Instant};

use super::groups::GroupEvents;
use super::sample::Sample;
use crate::manifest::{Limits, Reaction};

/// How long an instance must use more processor than it may, or be slowed down all the time, before anything follows.
const CPU_FOR: Duration = Duration::from_secs(10);

/// Something that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `limits.memory`.
    Memory,
    /// `limits.cpu`.
    Cpu,
    /// `limits.processes`.
    Processes,
}

impl Limit {
    /// Its name in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "processes",
        }
    }
}

/// A limit was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) limit: Limit,
    /// How that showed, as a clause.
    pub(crate) what: String,
    pub(crate) reaction: Reaction,
}

/// What is seen of an instance.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    Groups(GroupEvents),
    Sampled(Sample),
}

/// What a reaction is where the manifest says none: the kernel refuses a process and slows down by itself; memory that is
/// used up, and what only this host can stop, ends the instance.
fn reaction(limits: &Limits, limit: Limit, is_held_by_kernel: bool) -> Reaction {
    let default = match limit {
        Limit::Memory => Reaction::Restart,
        Limit::Processes if !is_held_by_kernel => Reaction::Restart,
        Limit::Cpu | Limit::Processes => Reaction::Warn,
    };
    limits.reactions.get(limit.name()).copied().unwrap_or(default)
}

/// The kernel has ended an instance for its memory: there is nothing left to be warned of.
pub(super) fn over_memory(limits: &Limits) -> Exceeded {
    let reaction = match reaction(limits, Limit::Memory, true) {
        Reaction::Stop => Reaction::Stop,
        Reaction::Restart | Reaction::Warn => Reaction::Restart,
    };
    let bytes = limits.memory_bytes_max.unwrap_or_default();
    Exceeded { limit: Limit::Memory, what: format!("it used up its {bytes} bytes of memory"), reaction }
}

/// What was seen of one instance so far.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: Limits,
    is_held_by_kernel: bool,
    last: GroupEvents,
    /// Since when it has been slowed down, or above its share, at every look.
    hot_since: Option<Instant>,
    sampled: Option<(Instant, Duration)>,
    /// Whether it was told already, by limit: once for each time that it begins.
    has_warned: [bool; 3],
}

impl Watch {
    pub(super) fn new(limits: &Limits, is_held_by_kernel: bool) -> Self {
        Self {
            limits: limits.clone(),
            is_held_by_kernel,
            last: GroupEvents::default(),
            hot_since: None,
            sampled: None,
            has_warned: [false; 3],
        }
    }

    /// What follows from what is seen now.
    pub(super) fn look(&mut self, now: Instant, seen: Seen) -> Option<Exceeded> {
        match seen {
            Seen::Groups(events) => self.look_at_events(now, events),
            Seen::Sampled(sample) => self.look_at_sample(now, sample),
        }
    }

    fn look_at_events(&mut self, now: Instant, events: GroupEvents) -> Option<Exceeded> {
        let last = std::mem::replace(&mut self.last, events);
        // A process of it was killed, and it is there to be looked at: it was not the first.
        if events.memory_kills > last.memory_kills {
            let bytes = self.limits.memory_bytes_max.unwrap_or_default();
            let what = format!("a process of it was killed, as it used up its {bytes} bytes of memory");
            return self.exceeded(Limit::Memory, what);
        }
        if events.refused_tasks > last.refused_tasks {
            let count = self.limits.processes_max.unwrap_or_default();
            let what = format!("it wanted more than its {count} processes and threads");
            return self.exceeded(Limit::Processes, what);
        }
        self.rests(Limit::Processes);
        self.look_at_cpu(now, events.throttled > last.throttled)
    }

    fn look_at_sample(&mut self, now: Instant, sample: Sample) -> Option<Exceeded> {
        if let Some(max) = self.limits.memory_bytes_max {
            if sample.memory_bytes > max {
                let what = format!("it used {} bytes of memory, above its {max}", sample.memory_bytes);
                return self.exceeded(Limit::Memory, what);
            }
            self.rests(Limit::Memory);
        }
        if let Some(max) = self.limits.processes_max {
            // The launcher is none of its own.
            let tasks = sample.tasks.saturating_sub(1);
            if tasks > max {
                let what = format!("it had {tasks} processes and threads, above its {max}");
                return self.exceeded(Limit::Processes, what);
            }
            self.rests(Limit::Processes);
        }
        let (before, used_before) = self.sampled.replace((now, sample.processor))?;
        let share = u64::from(self.limits.cpu_percent_max?);
        let allowed = now.duration_since(before).as_micros() * u128::from(share) / 100;
        let used = sample.processor.saturating_sub(used_before).as_micros();
        self.look_at_cpu(now, used > allowed)
    }

    fn look_at_cpu(&mut self, now: Instant, is_hot: bool) -> Option<Exceeded> {
        if !is_hot {
            self.hot_since = None;
            self.rests(Limit::Cpu);
            return None;
        }
        let since = *self.hot_since.get_or_insert(now);
        if now.duration_since(since) < CPU_FOR {
            return None;
        }
        let percent = self.limits.cpu_percent_max.unwrap_or_default();
        let seconds = CPU_FOR.as_secs();
        let what = format!("it wanted more than its {percent} % of a core for {seconds} s");
        self.exceeded(Limit::Cpu, what)
    }

    /// The limit is not passed any more, so that the next time is told of again.
    fn rests(&mut self, limit: Limit) {
        self.has_warned[limit as usize] = false;
    }

    fn exceeded(&mut self, limit: Limit, what: String) -> Option<Exceeded> {
        let reaction = reaction(&self.limits, limit, self.is_held_by_kernel);
        let was_told = std::mem::replace(&mut self.has_warned[limit as usize], true);
        (reaction != Reaction::Warn || !was_told).then_some(Exceeded { limit, what, reaction })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            memory_bytes_max: Some(1000),
            cpu_percent_max: Some(50),
            processes_max: Some(4),
            ..Limits::default()
        }
    }

    fn sampled(memory_bytes: u64, tasks: u32, processor_ms: u64) -> Seen {
        let processor = Duration::from_millis(processor_ms);
        Seen::Sampled(Sample { memory_bytes, tasks, processor, io_bytes: 0 })
    }

    #[test]
    fn what_nobody_else_holds_ends_the_instance_when_it_is_seen() {
        let now = Instant::now();
        let mut watch = Watch::new(&limits(), false);
        assert_eq!(watch.look(now, sampled(1000, 5, 0)), None, "as much as it may, and the launcher");
        let over = watch.look(now, sampled(1001, 5, 0)).expect("too much");
        assert_eq!((over.limit, over.reaction), (Limit::Memory, Reaction::Restart));
        assert_eq!(over.what, "it used 1001 bytes of memory, above its 1000");
        let over = watch.look(now, sampled(0, 6, 0)).expect("too many");
        assert_eq!((over.limit, over.reaction), (Limit::Processes, Reaction::Restart));
        let mut stops = limits();
        stops.reactions.insert("memory", Reaction::Stop);
        let over = Watch::new(&stops, false).look(now, sampled(1001, 1, 0)).expect("too much");
        assert_eq!(over.reaction, Reaction::Stop);
    }

    #[test]
    fn a_warning_comes_once_for_each_time() {
        let now = Instant::now();
        let mut warns = limits();
        warns.reactions.insert("memory", Reaction::Warn);
        let mut watch = Watch::new(&warns, false);
        let told: Vec<bool> = [2000, 2000, 500, 2000, 2000]
            .into_iter()
            .map(|bytes| watch.look(now, sampled(bytes, 1, 0)).is_some())
            .collect();
        assert_eq!(told, [true, false, false, true, false]);
    }

    #[test]
    fn processor_counts_when_it_is_too_much_at_every_look_for_ten_seconds() {
        let now = Instant::now();
        let mut watch = Watch::new(&limits(), false);
        let mut used = 0;
        let mut look = |second: u64, percent: u64| {
            used += percent * 10;
            watch.look(now + Duration::from_secs(second), sampled(0, 1, used))
        };
        assert!((0..10).all(|second| look(second, 90).is_none()));
        assert!(look(10, 40).is_none(), "it rested");
        assert!((11..21).all(|second| look(second, 90).is_none()));
        let over = look(21, 90).expect("for ten seconds");
        assert_eq!((over.limit, over.reaction), (Limit::Cpu, Reaction::Warn));
        assert!(look(22, 90).is_none(), "it was told");
    }

    #[test]
    fn what_the_kernel_holds_is_told_or_obeyed() {
        let now = Instant::now();
        let events = |memory_kills, refused_tasks, throttled| {
            Seen::Groups(GroupEvents { memory_kills, refused_tasks, throttled })
        };
        let mut watch = Watch::new(&limits(), true);
        assert_eq!(watch.look(now, events(0, 0, 0)), None);
        let refused = watch.look(now, events(0, 3, 0)).expect("a fork was refused");
        assert_eq!((refused.limit, refused.reaction), (Limit::Processes, Reaction::Warn));
        assert_eq!(watch.look(now, events(0, 9, 0)), None, "it was told");
        let killed = watch.look(now, events(1, 9, 0)).expect("a process was killed");
        assert_eq!((killed.limit, killed.reaction), (Limit::Memory, Reaction::Restart));
        assert_eq!(over_memory(&limits()).reaction, Reaction::Restart);
    }
}
