//! Log records to stderr, through the screen that the progress display uses.
//!
//! Extensions' own lines have the target `extension`, with the extension's name, its instance and epoch, so
//! that `--log warn,extension=debug` shows theirs and not the conductor's. What they say may hold control
//! characters; an event is one line, and none of them reaches the terminal.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::printable;
use crate::progress::Screen;

/// Writes what `filter` lets through to `screen` from now on. Only the first call of a process counts.
pub fn install(filter: &str, screen: Screen) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(crate::config::LOG_DEFAULT));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(ScreenWriter(screen))
        .without_time()
        .finish();
    // A second call finds the first one's subscriber, which is what is wanted.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct ScreenWriter(Screen);

impl<'a> MakeWriter<'a> for ScreenWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &ScreenWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        // The subscriber hands over one whole event, whose one line feed is its end. Bytes that are no UTF-8
        // do not come from it; they are replaced.
        let event = String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(text));
        self.0.write(format!("{}\n", printable::line(&event)).as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
