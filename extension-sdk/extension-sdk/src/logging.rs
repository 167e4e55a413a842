//! Turns tracing's events into log records on the channel.
//!
//! Spans are accepted and not sent: a record says its level, its target, its message and its fields. Nothing
//! here waits; what the host does not read in time is dropped and counted.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use ipc_protocol::control::LogRecord;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::metadata::Level;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::serve::Output;

/// Name of the environment variable with the least important level that is sent: `error`, `warn`, `info`,
/// `debug`, `trace` or `off`.
pub(crate) const LEVEL_VARIABLE: &str = "SYMPHONY_LOG";

/// LIMIT: bytes of one record's message; the rest is cut.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Where records go.
pub(crate) trait Records: Send + Sync + 'static {
    fn log(&self, record: &LogRecord);
}

impl Records for Arc<Output> {
    fn log(&self, record: &LogRecord) {
        Output::log(self, record);
    }
}

/// Sends tracing's events of this library's code to `records` from now on. The environment is the host's: its
/// variable counts where it is a mere level.
pub(crate) fn install_loaded(records: impl Records) {
    let variable = std::env::var(LEVEL_VARIABLE).ok();
    let level = variable.and_then(|text| text.trim().parse().ok()).unwrap_or(LevelFilter::INFO);
    // It fails where there is one: from an earlier start, or the program's own where this is no library.
    let _ = tracing::subscriber::set_global_default(LogSender { output: records, level });
}

/// Sends tracing's events of this process over `output` from now on.
pub(crate) fn install(output: &Arc<Output>) {
    let variable = std::env::var(LEVEL_VARIABLE).ok();
    let level = variable.as_deref().map_or(Ok(LevelFilter::INFO), |text| text.trim().parse());
    let is_wrong = level.is_err();
    let sender = LogSender { output: Arc::clone(output), level: level.unwrap_or(LevelFilter::INFO) };
    // It fails only where the author's own code set one before, which then is what the author wants.
    let _ = tracing::subscriber::set_global_default(sender);
    if is_wrong {
        let text = variable.unwrap_or_default();
        tracing::warn!("{LEVEL_VARIABLE} is `{text}`; allowed are off, error, warn, info, debug, trace");
    }
}

/// For tests, where there are several extensions in one process.
#[cfg(test)]
pub(crate) fn capture_this_thread(output: &Arc<Output>) -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(LogSender { output: Arc::clone(output), level: LevelFilter::INFO })
}

struct LogSender<R> {
    output: R,
    level: LevelFilter,
}

impl<R: Records> Subscriber for LogSender<R> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        self.output.log(&LogRecord::new(level, event.metadata().target(), text.finish()));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event's message, and its fields behind.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let Self { mut message, fields } = self;
        message.push_str(if message.is_empty() { fields.trim_start() } else { &fields });
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&at| message.is_char_boundary(at));
            message.truncate(end.unwrap_or(0));
        }
        message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a string cannot fail; an author's Debug that does cuts its own field.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
