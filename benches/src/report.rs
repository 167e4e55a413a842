//! Samples to figures, figures to a table and to `target/bench-report.json`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// One line of the report. What does not apply is left out of the JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured, as in the list of goals.
    pub id: String,
    /// Unit of the percentiles: `ns`, `us` or `%`.
    pub unit: String,
    /// Median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 99th percentile of single operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// 999th of a thousand, where it is what matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<f64>,
    /// Operations per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
}

impl Figure {
    /// Nanoseconds per operation, a median over batches; no percentile, since single operations are shorter
    /// than the clock's step.
    #[must_use]
    pub fn from_nanoseconds(id: &str, median: f64) -> Self {
        Self {
            id: id.into(),
            unit: "ns".into(),
            p50: Some(median),
            p99: None,
            p999: None,
            per_second: Some(1e9 / median),
        }
    }

    /// Microseconds of single round trips.
    #[must_use]
    pub fn from_round_trips(id: &str, round_trips: &[Duration]) -> Self {
        let micros = || round_trips.iter().map(|time| time.as_secs_f64() * 1e6).collect::<Vec<_>>();
        Self {
            id: id.into(),
            unit: "us".into(),
            p50: percentile(micros(), 0.5),
            p99: percentile(micros(), 0.99),
            p999: None,
            per_second: None,
        }
    }

    /// The same with the 999th of a thousand.
    #[must_use]
    pub fn with_p999(mut self, round_trips: &[Duration]) -> Self {
        let micros = round_trips.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        self.p999 = percentile(micros, 0.999);
        self
    }

    /// A share, of one core for example.
    #[must_use]
    pub fn from_percent(id: &str, percent: f64) -> Self {
        Self { id: id.into(), unit: "%".into(), p50: Some(percent), p99: None, p999: None, per_second: None }
    }

    /// So much of something, once.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "amounts are far below what a float cannot tell apart")]
    pub fn from_amount(id: &str, unit: &str, amount: u64) -> Self {
        Self {
            id: id.into(),
            unit: unit.into(),
            p50: Some(amount as f64),
            p99: None,
            p999: None,
            per_second: None,
        }
    }

    /// The median of several rates.
    #[must_use]
    pub fn from_rates(id: &str, per_second: Vec<f64>) -> Self {
        Self {
            id: id.into(),
            unit: "us".into(),
            p50: None,
            p99: None,
            p999: None,
            per_second: percentile(per_second, 0.5),
        }
    }
}

/// The value below which `share` of the samples lie; `None` without samples.
fn percentile(mut samples: Vec<f64>, share: f64) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into the samples"
    )]
    let index = (samples.len().saturating_sub(1) as f64 * share).round() as usize;
    samples.get(index).copied()
}

/// The figures of one run.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure.
    pub fn push(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// What was added.
    #[must_use]
    pub fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// How often `id`'s median goes into `base`'s.
    #[must_use]
    pub fn ratio(&self, id: &str, base: &str) -> Option<f64> {
        let p50 = |id: &str| self.figures.iter().find(|figure| figure.id == id)?.p50;
        Some(p50(id)? / p50(base)?)
    }

    /// The table that ends `cargo bench`.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = format!("{:<34} {:>12} {:>12} {:>16}\n", "what", "p50", "p99", "per second");
        for figure in &self.figures {
            let time = |value: Option<f64>| {
                value.map_or(String::new(), |value| format!("{value:.2} {}", figure.unit))
            };
            let rate = figure.per_second.map_or(String::new(), |rate| format!("{rate:.0}"));
            // INVARIANT: writing to a String cannot fail.
            let _ = writeln!(
                table,
                "{:<34} {:>12} {:>12} {:>16}",
                figure.id,
                time(figure.p50),
                time(figure.p99),
                rate
            );
            if figure.p999.is_some() {
                // INVARIANT: as above.
                let _ = writeln!(
                    table,
                    "{:<34} {:>12} {:>12}",
                    "  of a thousand, the last",
                    "",
                    time(figure.p999)
                );
            }
        }
        table
    }

    /// Writes `target/bench-report.json`: figures of this run replace those of the same id, others stay.
    ///
    /// # Errors
    ///
    /// When the target folder cannot be written.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        let path = target_folder().join("bench-report.json");
        let mut figures: Vec<Figure> =
            std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        figures.retain(|old| !self.figures.iter().any(|new| new.id == old.id));
        figures.extend(self.figures.iter().cloned());
        std::fs::write(&path, serde_json::to_vec_pretty(&figures)?)
            .with_context(|| format!("{} could not be written", path.display()))?;
        Ok(path)
    }
}

/// Cargo's target folder: the one that this program was built into.
#[must_use]
pub fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .map_or_else(|| PathBuf::from("target"), PathBuf::from)
}
