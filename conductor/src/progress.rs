//! A run as people watch it: steps filling in on a terminal, a plain line per change elsewhere.
//!
//! Everything goes to stderr through one [`Screen`], so that log lines and bars do not write over each
//! other. This file must not know how steps are carried out.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::printable;

/// How often spinners move.
const TICK: Duration = Duration::from_millis(100);

/// Stderr, shared by bars and lines.
#[derive(Clone, Debug)]
pub struct Screen {
    bars: MultiProgress,
    is_terminal: bool,
}

impl Screen {
    /// Stderr as it is: with bars if it is a terminal that can show them.
    #[must_use]
    pub fn stderr() -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_terminal = io::stderr().is_terminal() && !is_dumb;
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), is_terminal }
    }

    /// Whether bars are shown.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes whole lines above the bars, as they are.
    ///
    /// # Errors
    ///
    /// Stderr cannot be written to.
    pub fn write(&self, text: &[u8]) -> io::Result<()> {
        self.bars.suspend(|| io::stderr().lock().write_all(text))
    }

    /// Writes one line above the bars, with control characters escaped; a stderr that is closed is nobody's
    /// failure.
    pub fn line(&self, text: &str) {
        let _ = self.write(format!("{}\n", printable::line(text)).as_bytes());
    }

    /// A bar of this screen; nothing is shown of it if there are no bars.
    #[must_use]
    pub fn spinner(&self, prefix: &str) -> ProgressBar {
        let bar =
            self.bars.add(ProgressBar::new_spinner().with_style(style("{prefix} {spinner} {wide_msg}")));
        bar.set_prefix(prefix.to_owned());
        bar
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a wrong one falls back to indicatif's own.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The steps of one run.
#[derive(Debug)]
pub struct Progress {
    screen: Screen,
    steps: Vec<StepLine>,
}

#[derive(Debug)]
struct StepLine {
    id: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows `steps`, all waiting.
    #[must_use]
    pub fn new<'a>(screen: Screen, steps: impl IntoIterator<Item = &'a str>) -> Self {
        let ids: Vec<&str> = steps.into_iter().collect();
        let width = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0);
        let line = |id: &str| {
            let bar = screen.is_terminal().then(|| screen.spinner(&format!("{id:>width$}")));
            if let Some(bar) = &bar {
                bar.set_message("waiting");
            }
            StepLine { id: id.to_owned(), bar }
        };
        let steps = ids.into_iter().map(line).collect();
        Self { screen, steps }
    }

    /// A step begins, with as many items if it fans out.
    pub fn started(&self, step: usize, items: Option<u64>) {
        let StepLine { id, bar } = &self.steps[step];
        match (bar, items) {
            (Some(bar), Some(items)) => {
                bar.set_style(style("{prefix} [{bar:32}] {pos}/{len} {wide_msg}"));
                bar.set_length(items);
                bar.set_message("");
            }
            (Some(bar), None) => {
                bar.set_message("running");
                bar.enable_steady_tick(TICK);
            }
            (None, Some(items)) => self.screen.line(&format!("{id}: running, {items} items")),
            (None, None) => self.screen.line(&format!("{id}: running")),
        }
    }

    /// As many items of a step are done.
    pub fn items_done(&self, step: usize, done: u64) {
        if let Some(bar) = &self.steps[step].bar {
            bar.set_position(done);
        }
    }

    /// Something worth a line happened to a step: an attempt failed and is made again.
    pub fn note(&self, step: usize, text: &str) {
        self.screen.line(&format!("{}: {text}", self.steps[step].id));
    }

    /// A step ended.
    pub fn ended(&self, step: usize, state: &str, duration: Duration) {
        let StepLine { id, bar } = &self.steps[step];
        let text = match duration {
            Duration::ZERO => state.to_owned(),
            duration => format!("{state} in {}", human_time(duration)),
        };
        match bar {
            Some(bar) => {
                bar.disable_steady_tick();
                // A bar that did not reach its end stays where it is.
                if state == "succeeded" {
                    bar.finish_with_message(text)
                } else {
                    bar.abandon_with_message(text)
                }
            }
            None => self.screen.line(&format!("{id}: {text}")),
        }
    }
}

/// A time with three digits or so: `3.21 ms`, `12.3 s`, `4 min 05 s`.
#[must_use]
pub fn human_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        _ => format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

/// A size with its unit: `812 B`, `4.6 KiB`, `1.2 GiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_have_a_unit() {
        for (microseconds, text) in [
            (12, "12 us"),
            (3_214, "3.21 ms"),
            (45_600, "45.6 ms"),
            (12_300_000, "12.3 s"),
            (245_000_000, "4 min 05 s"),
        ] {
            assert_eq!(human_time(Duration::from_micros(microseconds)), text);
        }
    }
}
