//! A run as people watch it: steps filling in on a terminal, a plain line per change elsewhere.
//!
//! Everything goes to stderr through one [`Screen`], so that log lines and bars do not write over each
//! other. A bar is never wider than the terminal: what wraps cannot be drawn over. This file must not know how
//! steps are carried out.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::printable;
use crate::terminal;

/// How often spinners move.
const TICK: Duration = Duration::from_millis(100);
/// Columns of a bar where there is room.
const BAR_COLUMNS_MAX: usize = 32;
/// Columns of a terminal that does not say.
const COLUMNS_DEFAULT: usize = 80;

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
        bar.set_prefix(printable::cut(prefix, columns() / 3).into_owned());
        bar
    }
}

fn columns() -> usize {
    terminal::columns(io::stderr()).unwrap_or(COLUMNS_DEFAULT)
}

fn style(template: &str) -> ProgressStyle {
    let draw = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // What cannot be written is not shown.
        let _ = out.write_str(&filled(state.pos(), state.len().unwrap_or(0), columns()));
    };
    // The templates are constants of this file; a wrong one falls back to indicatif's own.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("filled", draw)
}

/// `[=====>    ] 3/6`, with a shorter bar in a narrow terminal, and none in one that has no room for it.
fn filled(done: u64, of: u64, columns: usize) -> String {
    let count = format!("{done}/{of}");
    // A third is the step's name, and a few words should follow.
    let room = (columns * 2 / 3).saturating_sub(count.len() + 16).min(BAR_COLUMNS_MAX);
    if room < 8 {
        return count;
    }
    let share = u128::from(done.min(of)) * room as u128 / u128::from(of.max(1));
    let full = usize::try_from(share).unwrap_or(room);
    let head = if full < room { ">" } else { "" };
    format!("[{}{head}{}] {count}", "=".repeat(full), " ".repeat(room - full - head.len()))
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
        // Names are ASCII: one column each.
        let width = ids.iter().map(|id| id.len()).max().unwrap_or(0).min(columns() / 3);
        let line = |id: &str| {
            let bar = screen
                .is_terminal()
                .then(|| screen.spinner(&format!("{:>width$}", printable::cut(id, width))));
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
                bar.set_style(style("{prefix} {filled} {wide_msg}"));
                bar.set_length(items);
                bar.set_message("");
            }
            (Some(bar), None) => {
                bar.set_message("running");
                bar.enable_steady_tick(TICK);
            }
            (None, Some(items)) => {
                self.screen.line(&format!("{id}: running, {}", printable::counted(items, "item")));
            }
            (None, None) => self.screen.line(&format!("{id}: running")),
        }
    }

    /// As many items of a step are done.
    pub fn items_done(&self, step: usize, done: u64) {
        if let Some(bar) = &self.steps[step].bar {
            bar.set_position(done);
        }
    }

    /// What shows the words of one call of a step; `None` where nobody would see them. `item`: which one of a
    /// fan-out's.
    #[must_use]
    pub fn listener(&self, step: usize, item: Option<u32>) -> Option<CallListener> {
        let StepLine { id, bar } = &self.steps[step];
        let place = match item {
            Some(item) => format!("item {item}, "),
            None => String::new(),
        };
        let is_seen = bar.is_some() || CallListener::is_logged();
        is_seen.then(|| CallListener { name: id.clone(), place, shown: Shown::On(bar.clone()) })
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

/// Shows how far one call is, as its extension tells it: beside its bar on a terminal, and as a record of the
/// extension's in the log, which is where it goes without a terminal.
#[derive(Debug)]
pub struct CallListener {
    /// The step, or the method of a call by hand.
    name: String,
    /// Which item, with a comma behind it; or nothing.
    place: String,
    shown: Shown,
}

/// Where a call's words are shown.
#[derive(Debug)]
enum Shown {
    /// On the bar of its step, if there are bars.
    On(Option<ProgressBar>),
    /// On a spinner of its own, made when there is something to say.
    Spinner(Screen, OnceLock<ProgressBar>),
}

impl CallListener {
    /// For a call by hand.
    #[must_use]
    pub fn by_hand(screen: &Screen, method: &str) -> Self {
        let shown = Shown::Spinner(screen.clone(), OnceLock::new());
        Self { name: method.to_owned(), place: String::new(), shown }
    }

    fn is_logged() -> bool {
        tracing::enabled!(target: "extension", tracing::Level::DEBUG)
    }

    /// The call is so far: `done` of `total` in the method's own unit, with a clause for people.
    pub fn hear(&self, done: u64, total: Option<u64>, message: &str) {
        let text = format!("{}{}", self.place, how_far(done, total, message));
        tracing::debug!(target: "extension", progress = %self.name, "{text}");
        let bar = match &self.shown {
            Shown::On(bar) => bar.as_ref(),
            Shown::Spinner(screen, bar) => {
                screen.is_terminal().then(|| bar.get_or_init(|| screen.spinner(&self.name)))
            }
        };
        if let Some(bar) = bar {
            bar.set_message(printable::line(&text).into_owned());
        }
    }

    /// The call by hand is over.
    pub fn end(&self) {
        if let Shown::Spinner(_, bar) = &self.shown
            && let Some(bar) = bar.get()
        {
            bar.finish_and_clear();
        }
    }
}

/// `42 %, hashing` of 42 of 100; without a total `42, hashing`.
fn how_far(done: u64, total: Option<u64>, message: &str) -> String {
    let done = match total {
        Some(total) if total > 0 => {
            let percent = u128::from(done.min(total)) * 100 / u128::from(total);
            format!("{percent} %")
        }
        _ => done.to_string(),
    };
    if message.is_empty() { done } else { format!("{done}, {message}") }
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
    fn a_bar_leaves_room_for_what_stands_beside_it() {
        assert_eq!(filled(3, 6, 120), format!("[{}>{}] 3/6", "=".repeat(16), " ".repeat(15)));
        assert_eq!(filled(6, 6, 120), format!("[{}] 6/6", "=".repeat(32)));
        assert_eq!(filled(0, 0, 120), format!("[>{}] 0/0", " ".repeat(31)));
        assert_eq!(filled(3, 6, 45), format!("[{}>{}] 3/6", "=".repeat(5), " ".repeat(5)));
        assert_eq!(filled(3, 6, 30), "3/6");
        for columns in 0..200 {
            let count = "100000/200000".len();
            assert!(filled(100_000, 200_000, columns).len() <= (columns * 2 / 3).max(count), "{columns}");
        }
    }

    #[test]
    fn what_an_extension_says_of_its_progress_stands_beside_its_bar() {
        let bar = ProgressBar::hidden();
        let shown = Shown::On(Some(bar.clone()));
        let listener = CallListener { name: "step".to_owned(), place: "item 3, ".to_owned(), shown };
        listener.hear(1, Some(4), "half\u{1b}[2J\nway");
        assert_eq!(bar.message(), "item 3, 25 %, half\\u{1b}[2J\\nway");
    }

    #[test]
    fn how_far_a_call_is_is_said_in_percent_where_there_is_a_whole() {
        for (done, total, message, text) in [
            (42, Some(100), "hashing", "42 %, hashing"),
            (3, Some(2), "", "100 %"),
            (u64::MAX, Some(u64::MAX), "", "100 %"),
            (7, None, "files found", "7, files found"),
            (0, Some(0), "", "0"),
        ] {
            assert_eq!(how_far(done, total, message), text);
        }
    }

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
