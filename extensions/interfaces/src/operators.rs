//! Measuring files, ranking what was measured, and writing it down.

use extension_sdk::{Blob, Context, Fault};

use crate::file_explorer::{Entry, Problem};

/// Measures, ranks and renders.
#[extension_sdk::interface]
pub trait Operators {
    /// Reads one file once, and says what is in it. A file that cannot be read gives a row that says why.
    #[method(idempotent)]
    fn measure(&self, cx: &Context, root: Blob, file: Entry) -> Result<Row, Fault>;

    /// Adds up rows, by language and in all, and picks the largest files.
    #[method(idempotent, pure)]
    fn rank(
        &self,
        root: Blob,
        rows: Vec<Row>,
        #[serde(default)] problems: Vec<Problem>,
        #[serde(default)] problems_left_out: u64,
    ) -> Result<Ranking, Fault>;

    /// Writes a ranking as a Markdown report.
    #[method(idempotent, pure)]
    fn render(&self, ranking: Ranking) -> Result<String, Fault>;

    /// Writes rows as a JSON array, one row to a line, the largest files first.
    #[method(idempotent, pure)]
    fn to_json(&self, rows: Vec<Row>) -> Result<String, Fault>;
}

/// What is known of one file: `blake3` if it could be read, else `error`.
#[extension_sdk::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Relative to the root, as text: bytes that are not UTF-8 are written as `\xNN`.
    pub path: String,
    /// Its length as it was read; as it was listed if it could not be read.
    pub bytes: u64,
    /// Newlines, and one more if the last line does not end with one.
    pub lines: u64,
    /// Runs of bytes between ASCII white space.
    pub words: u64,
    /// By the file's name; `Binary` or `Other` if the name says nothing.
    pub language: String,
    /// Its BLAKE3 digest, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Sums over files.
#[extension_sdk::message]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files, those included that could not be read.
    pub files: u64,
    /// Bytes of the files that could be read.
    pub bytes: u64,
    /// Their lines.
    pub lines: u64,
    /// Their words.
    pub words: u64,
}

/// Sums over the files of one language.
#[extension_sdk::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanguageTotals {
    /// As in [`Row::language`].
    pub language: String,
    /// The sums.
    pub totals: Totals,
}

/// What a folder holds, added up.
#[extension_sdk::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// The folder, as text.
    pub root: String,
    /// All files.
    pub totals: Totals,
    /// By language, the one with most bytes first.
    pub languages: Vec<LanguageTotals>,
    /// The largest files, the largest first.
    pub largest: Vec<Row>,
    /// Files that could not be read, by path.
    pub unread: Vec<Unread>,
    /// How many more of them there are.
    pub unread_left_out: u64,
    /// What the listing could not look into.
    pub problems: Vec<Problem>,
    /// How many more of them there are.
    pub problems_left_out: u64,
}

/// A file that could not be read.
#[extension_sdk::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// As in [`Row::path`].
    pub path: String,
    /// As in [`Row::error`].
    pub error: String,
}
