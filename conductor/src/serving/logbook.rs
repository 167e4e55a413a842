//! The last lines of all extensions, for whoever asks later: one ordered log, bounded.
//!
//! It must not know who asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use extension_host::{LogLine, LogOrigin, LogSink};
use pit_core::ring::{EventReader, EventRing};

/// LIMIT: lines kept for who is behind or comes later; each has [`extension_host::logs::LINE_BYTES_MAX`] bytes at most.
const LINES_KEPT_MAX: usize = 2_048;

/// One line that was said.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) extension: String,
    pub(super) generation: u32,
    /// `stdout`, `stderr`, or the level of a record.
    pub(super) origin: &'static str,
    pub(super) text: String,
    /// Lines of this origin that were dropped before it.
    pub(super) lines_dropped: u64,
    /// Since the log began.
    pub(super) at: Duration,
}

/// Keeps lines, and passes them on.
pub struct Logbook {
    lines: EventRing<Arc<Line>>,
    began: Instant,
    next: Box<dyn LogSink>,
}

impl std::fmt::Debug for Logbook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logbook").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Logbook {
    /// An empty one, which passes lines on to `next`. Its times count from now.
    #[must_use]
    pub fn new(next: impl LogSink) -> Self {
        Self { lines: EventRing::new(LINES_KEPT_MAX), began: Instant::now(), next: Box::new(next) }
    }

    /// From the oldest line that is kept on.
    pub(super) fn read(&self) -> EventReader<Arc<Line>> {
        self.lines.subscribe_from_oldest()
    }
}

impl LogSink for Logbook {
    fn line(&self, line: &LogLine<'_>) {
        let origin = match line.origin {
            LogOrigin::Stdout => "stdout",
            LogOrigin::Stderr => "stderr",
            LogOrigin::Record { level: 1, .. } => "error",
            LogOrigin::Record { level: 2, .. } => "warn",
            LogOrigin::Record { level: 4, .. } => "debug",
            LogOrigin::Record { level: 5.., .. } => "trace",
            LogOrigin::Record { .. } => "info",
        };
        self.lines.publish(Arc::new(Line {
            extension: line.extension.to_owned(),
            generation: line.instance.generation(),
            origin,
            text: line.text.to_owned(),
            lines_dropped: line.lines_dropped,
            at: self.began.elapsed(),
        }));
        self.next.line(line);
    }
}
