//! What instances say: lines of stdout and stderr, and log records of the bus, as one bounded, rate-limited
//! stream with the extension, the instance and its epoch.
//!
//! ```text
//! stdout --pump--\                                    /--> LogSink (the conductor's, or `tracing`)
//! stderr --pump--+--> InstanceLog: cut, rate, count --+
//! records -------/          \--> the last 64 KiB of stderr, kept for the report of the end
//! ```
//!
//! A pump that reads more than it may pauses, so that a flood fills its own pipe and nothing else.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipc_protocol::control::LogRecord;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use crate::InstanceId;
use crate::tail::Tail;

/// LIMIT: bytes of a line; the rest of a longer one is counted and left out.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// LIMIT: lines a second and origin (stdout, stderr, records) of an instance, on average; a line counts once more
/// for each 256 bytes.
pub const LINES_PER_SECOND_MAX: u32 = 1_000;

/// LIMIT: lines at once, after a quiet time.
pub const LINES_BURST_MAX: u32 = 4_000;

/// LIMIT: bytes that a pump reads in one [`READ_INTERVAL`].
const READ_BYTES_MAX: usize = 1 << 20;

/// See [`READ_BYTES_MAX`].
const READ_INTERVAL: Duration = Duration::from_millis(100);

/// Where lines go. Called on the runtime's threads: must not block.
pub trait LogSink: Send + Sync + 'static {
    /// One line.
    fn line(&self, line: &LogLine<'_>);
}

/// One line of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The extension's name.
    pub extension: &'a str,
    /// Which instance, and which incarnation of it: the id's generation is the epoch.
    pub instance: InstanceId,
    /// Where it was said.
    pub origin: LogOrigin<'a>,
    /// What was said, at most [`LINE_BYTES_MAX`] bytes. May hold control characters.
    pub text: &'a str,
    /// Bytes of this line that were left out.
    pub bytes_cut: u64,
    /// Lines of this instance and origin that were dropped since the last one.
    pub lines_dropped: u64,
}

/// Where a line was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOrigin<'a> {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A log record.
    Record {
        /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
        level: u8,
        /// A module path.
        target: &'a str,
    },
}

/// Passes lines on to `tracing`, with the target `extension`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingLog;

impl LogSink for TracingLog {
    fn line(&self, line: &LogLine<'_>) {
        let (extension, instance) = (line.extension, line.instance);
        if line.lines_dropped > 0 {
            let dropped = line.lines_dropped;
            tracing::warn!(target: "extension", extension, %instance, dropped, "lines were dropped");
        }
        let text = line.text;
        match line.origin {
            LogOrigin::Record { level: 1, target } => {
                tracing::error!(target: "extension", extension, %instance, target, "{text}");
            }
            LogOrigin::Record { level: 2, target } => {
                tracing::warn!(target: "extension", extension, %instance, target, "{text}");
            }
            LogOrigin::Record { level: 4, target } => {
                tracing::debug!(target: "extension", extension, %instance, target, "{text}");
            }
            LogOrigin::Record { level: 5.., target } => {
                tracing::trace!(target: "extension", extension, %instance, target, "{text}");
            }
            LogOrigin::Record { target, .. } => {
                tracing::info!(target: "extension", extension, %instance, target, "{text}");
            }
            LogOrigin::Stdout | LogOrigin::Stderr => {
                tracing::info!(target: "extension", extension, %instance, "{text}");
            }
        }
    }
}

/// Lines and records of one extension that were dropped, over all incarnations.
#[derive(Debug, Default)]
pub(crate) struct DropCounter(AtomicU64);

impl DropCounter {
    fn count(&self) {
        // ORDERING(dropped-lines): Relaxed suffices: a statistic, nothing is published by it.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDERING(dropped-lines): Relaxed suffices, see above.
        self.0.load(Ordering::Relaxed)
    }
}

/// The log of one incarnation.
pub(crate) struct InstanceLog {
    sink: Arc<dyn LogSink>,
    extension: Arc<str>,
    instance: InstanceId,
    dropped: Arc<DropCounter>,
    began: Instant,
    /// One for each origin, so that a flood of records does not drown a panic's message.
    limiters: [Mutex<Limiter>; 3],
    stderr_tail: Mutex<Tail>,
}

#[derive(Default)]
struct Limiter {
    bucket: Bucket,
    dropped_since_last: u64,
}

impl InstanceLog {
    pub(crate) fn new(
        sink: Arc<dyn LogSink>,
        extension: Arc<str>,
        instance: InstanceId,
        dropped: Arc<DropCounter>,
    ) -> Self {
        Self {
            sink,
            extension,
            instance,
            dropped,
            began: Instant::now(),
            limiters: Default::default(),
            stderr_tail: Mutex::default(),
        }
    }

    pub(crate) fn stderr_tail(&self) -> String {
        self.stderr_tail.lock().to_text()
    }

    pub(crate) fn record(&self, record: &LogRecord) {
        let end = floor_char_boundary(&record.message, LINE_BYTES_MAX);
        let cut = record.message.len() - end;
        let origin = LogOrigin::Record { level: record.level, target: &record.target };
        self.line(origin, &record.message[..end], cut as u64);
    }

    fn line(&self, origin: LogOrigin<'_>, text: &str, bytes_cut: u64) {
        let lines_dropped = {
            let limiter = match origin {
                LogOrigin::Stdout => &self.limiters[0],
                LogOrigin::Stderr => &self.limiters[1],
                LogOrigin::Record { .. } => &self.limiters[2],
            };
            let mut limiter = limiter.lock();
            if !limiter.bucket.take(self.began.elapsed(), 1 + u64::try_from(text.len() / 256).unwrap_or(0)) {
                limiter.dropped_since_last += 1;
                self.dropped.count();
                return;
            }
            std::mem::take(&mut limiter.dropped_since_last)
        };
        let (extension, instance) = (&*self.extension, self.instance);
        self.sink.line(&LogLine { extension, instance, origin, text, bytes_cut, lines_dropped });
    }

    /// Reads `stream` to its end, line by line.
    pub(crate) async fn pump(&self, mut stream: impl AsyncRead + Unpin, origin: LogOrigin<'static>) {
        let mut lines = Lines::default();
        let mut chunk = vec![0; 16 << 10];
        let mut interval_end = Instant::now() + READ_INTERVAL;
        let mut read_in_interval = 0;
        while let Ok(read @ 1..) = stream.read(&mut chunk).await {
            if origin == LogOrigin::Stderr {
                self.stderr_tail.lock().push(&chunk[..read]);
            }
            lines.push(&chunk[..read], |text, cut| self.line(origin, text, cut));
            read_in_interval += read;
            let now = Instant::now();
            if now >= interval_end {
                (interval_end, read_in_interval) = (now + READ_INTERVAL, 0);
            } else if read_in_interval >= READ_BYTES_MAX {
                tokio::time::sleep_until(interval_end).await;
                (interval_end, read_in_interval) = (interval_end + READ_INTERVAL, 0);
            }
        }
        lines.finish(|text, cut| self.line(origin, text, cut));
    }
}

/// Tokens that come back with time. Pure: time is a number.
struct Bucket {
    tokens: u64,
    filled_at: Duration,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { tokens: LINES_BURST_MAX.into(), filled_at: Duration::ZERO }
    }
}

impl Bucket {
    fn take(&mut self, now: Duration, tokens: u64) -> bool {
        let nanos_per_token = Duration::from_secs(1) / LINES_PER_SECOND_MAX;
        let elapsed = now.saturating_sub(self.filled_at);
        let back = u64::try_from(elapsed.as_nanos() / nanos_per_token.as_nanos()).unwrap_or(u64::MAX);
        if back > 0 {
            self.tokens = self.tokens.saturating_add(back).min(LINES_BURST_MAX.into());
            // What is left of the last token's time is not lost.
            let used = nanos_per_token.saturating_mul(u32::try_from(back).unwrap_or(u32::MAX));
            self.filled_at = self.filled_at.saturating_add(used).max(now.saturating_sub(nanos_per_token));
        }
        let enough = self.tokens >= tokens;
        if enough {
            self.tokens -= tokens;
        }
        enough
    }
}

/// Bytes in pieces, lines out; long ones are cut, and what is not UTF-8 is replaced.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    cut: u64,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], mut out: impl FnMut(&str, u64)) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.append(&bytes[..end]);
            self.emit(&mut out);
            bytes = &bytes[end + 1..];
        }
        self.append(bytes);
    }

    fn finish(mut self, mut out: impl FnMut(&str, u64)) {
        if !self.line.is_empty() {
            self.emit(&mut out);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES_MAX - self.line.len();
        let kept = bytes.len().min(room);
        self.line.extend_from_slice(&bytes[..kept]);
        self.cut += (bytes.len() - kept) as u64;
    }

    fn emit(&mut self, out: &mut impl FnMut(&str, u64)) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let text: Cow<'_, str> = String::from_utf8_lossy(line);
        out(&text, self.cut);
        self.line.clear();
        self.cut = 0;
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_are_cut_into_pieces() {
        let long = "x".repeat(LINE_BYTES_MAX + 7);
        let text = format!("first\n\nthird\r\n{long}\n\u{e4}\u{f6}\nlast");
        for piece in [1, 2, 3, 100, 1 << 20] {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for bytes in text.as_bytes().chunks(piece) {
                lines.push(bytes, |text, cut| found.push((text.to_owned(), cut)));
            }
            lines.finish(|text, cut| found.push((text.to_owned(), cut)));
            let expected = [
                ("first", 0),
                ("", 0),
                ("third", 0),
                (&long[..LINE_BYTES_MAX], 7),
                ("\u{e4}\u{f6}", 0),
                ("last", 0),
            ];
            let expected: Vec<_> = expected.iter().map(|(text, cut)| ((*text).to_owned(), *cut)).collect();
            assert_eq!(found, expected, "pieces of {piece}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        lines.push(b"a\xffb\n", |text, _| found.push(text.to_owned()));
        assert_eq!(found, ["a\u{fffd}b"]);
    }

    #[test]
    fn a_flood_of_records_leaves_room_for_the_other_origins() {
        #[derive(Default)]
        struct Count(Mutex<Vec<u64>>);
        impl LogSink for Count {
            fn line(&self, line: &LogLine<'_>) {
                if line.origin == LogOrigin::Stderr {
                    self.0.lock().push(line.lines_dropped);
                }
            }
        }
        let (sink, dropped) = (Arc::new(Count::default()), Arc::new(DropCounter::default()));
        let log = InstanceLog::new(sink.clone(), "x".into(), InstanceId::new(0, 1), Arc::clone(&dropped));
        let record = LogRecord::new(3, "x", "flood");
        while dropped.get() == 0 {
            log.record(&record);
        }
        log.line(LogOrigin::Stderr, "thread 'main' panicked", 0);
        assert_eq!(*sink.0.lock(), [0]);
    }

    #[test]
    fn the_rate_is_bounded_and_comes_back() {
        let mut bucket = Bucket::default();
        let mut passed = 0_u64;
        for millis in 0..10_000_u64 {
            for _ in 0..10 {
                passed += u64::from(bucket.take(Duration::from_millis(millis), 1));
            }
        }
        let allowed = u64::from(LINES_BURST_MAX) + 10 * u64::from(LINES_PER_SECOND_MAX);
        assert!((allowed - 20..=allowed).contains(&passed), "{passed}");
        assert!(bucket.take(Duration::from_secs(3_600), LINES_BURST_MAX.into()));
        assert!(!bucket.take(Duration::from_secs(3_600), 1));
    }
}
