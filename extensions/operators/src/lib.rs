//! Measures files, ranks what was measured, and writes it down.
//!
//! Reading order: `language` (by name), `measure` (one file), `rank` (many rows), `render` (for people), `rows`
//! (for programs). It must not know how the files were found.

mod language;
mod measure;
mod rank;
mod render;
mod rows;

use extension_sdk::{Blob, Context, Fault, FaultCode, Setup};
use interfaces::{Entry, Operators, Problem, Ranking, Row};

/// LIMIT: largest files that a ranking names, whatever is configured.
const LARGEST_MAX: u32 = 10_000;

/// The manifest's `[config]` table.
#[extension_sdk::message]
#[derive(Clone, Copy, Debug)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// How many of the largest files a ranking names.
    largest: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { largest: 20 }
    }
}

struct Workbench {
    settings: Settings,
}

impl Workbench {
    fn start(setup: &Setup<Settings>) -> Result<Self, Fault> {
        let settings = *setup.config();
        if settings.largest > LARGEST_MAX {
            return Err(Fault::new(
                FaultCode::InvalidArgument,
                format!("`largest` in [config] is {}, at most {LARGEST_MAX} is allowed", settings.largest),
            ));
        }
        Ok(Self { settings })
    }
}

impl Operators for Workbench {
    fn measure(&self, cx: &Context, root: Blob, file: Entry) -> Result<Row, Fault> {
        measure::measure(cx, &root, &file)
    }

    fn rank(
        &self,
        root: Blob,
        rows: Vec<Row>,
        problems: Vec<Problem>,
        problems_left_out: u64,
    ) -> Result<Ranking, Fault> {
        let ranking = rank::rank(rows, self.settings.largest as usize);
        Ok(Ranking { root: root.to_string(), problems, problems_left_out, ..ranking })
    }

    fn render(&self, ranking: Ranking) -> Result<String, Fault> {
        Ok(render::render(&ranking))
    }

    fn to_json(&self, rows: Vec<Row>) -> Result<String, Fault> {
        rows::to_json(rows)
    }
}

extension_sdk::export!(Workbench as Operators, start = Workbench::start);
