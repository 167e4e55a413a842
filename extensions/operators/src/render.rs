//! A ranking for people, in Markdown.
//!
//! Names of files are foreign text: they stand in code spans, where nothing but backticks and line ends has a
//! meaning, and in tables with their bars escaped.

use std::fmt::Write as _;

use interfaces::{Ranking, Row, Totals};

/// The report.
pub(crate) fn render(ranking: &Ranking) -> String {
    let mut report = format!("# Folder report\n\nFolder: {}\n\n", code(&ranking.root));
    totals(&mut report, ranking);
    languages(&mut report, ranking);
    largest(&mut report, &ranking.largest);
    problems(&mut report, ranking);
    report
}

/// Writing into a string cannot fail, which `write!` does not know.
macro_rules! line {
    ($report:expr, $($text:tt)*) => {{ let _ = writeln!($report, $($text)*); }};
}

fn totals(report: &mut String, ranking: &Ranking) {
    let Totals { files, bytes, lines, words } = ranking.totals;
    let unread = ranking.unread.len() as u64 + ranking.unread_left_out;
    line!(report, "| files | bytes | lines | words | not read |");
    line!(report, "|---:|---:|---:|---:|---:|");
    let cells = [files, bytes, lines, words, unread].map(grouped);
    line!(report, "| {} |\n", cells.join(" | "));
    if files == 0 {
        line!(report, "There are no files in this folder.\n");
    }
}

fn languages(report: &mut String, ranking: &Ranking) {
    if ranking.languages.is_empty() {
        return;
    }
    line!(report, "## By language\n");
    line!(report, "| language | files | bytes | share | lines | words |");
    line!(report, "|:---|---:|---:|---:|---:|---:|");
    for language in &ranking.languages {
        let Totals { files, bytes, lines, words } = language.totals;
        line!(
            report,
            "| {} | {} | {} | {} | {} | {} |",
            code(&language.language),
            grouped(files),
            grouped(bytes),
            share(bytes, ranking.totals.bytes),
            grouped(lines),
            grouped(words)
        );
    }
    line!(report, "");
}

fn largest(report: &mut String, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    line!(report, "## Largest files\n");
    line!(report, "| file | bytes | lines | words | language | BLAKE3 |");
    line!(report, "|:---|---:|---:|---:|:---|:---|");
    for row in rows {
        let digest = row.blake3.as_deref().unwrap_or_default();
        line!(
            report,
            "| {} | {} | {} | {} | {} | {} |",
            code(&row.path),
            grouped(row.bytes),
            grouped(row.lines),
            grouped(row.words),
            code(&row.language),
            code(digest.get(..16).unwrap_or(digest))
        );
    }
    line!(report, "");
}

fn problems(report: &mut String, ranking: &Ranking) {
    let unread = ranking.unread.iter().map(|unread| (&unread.path, &unread.error));
    section(report, "Files that could not be read", unread, ranking.unread_left_out);
    let problems = ranking.problems.iter().map(|problem| (&problem.path, &problem.error));
    section(report, "Folders that could not be looked into", problems, ranking.problems_left_out);
}

fn section<'a>(
    report: &mut String,
    title: &str,
    lines: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
    left_out: u64,
) {
    if lines.len() == 0 {
        return;
    }
    line!(report, "## {title}\n");
    for (path, error) in lines {
        line!(report, "- {}: {}", code(path), code(error));
    }
    if left_out > 0 {
        line!(report, "- and {} more", grouped(left_out));
    }
    line!(report, "");
}

/// Foreign text as a code span that also fits into a table: control characters are shown, not obeyed.
fn code(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        match character {
            '|' => shown.push_str("\\|"),
            character if character.is_control() => shown.extend(character.escape_default()),
            character => shown.push(character),
        }
    }
    let longest = shown.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // A space is taken off at either end if there is one at both, and a backtick would join the fence.
    let pad = if shown.is_empty() || shown.starts_with([' ', '`']) || shown.ends_with([' ', '`']) {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{shown}{pad}{fence}")
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A part of a whole in per cent, with one digit behind the point.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let per_mille = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

#[cfg(test)]
mod tests {
    use interfaces::{LanguageTotals, Problem, Unread};

    use super::*;

    #[test]
    fn foreign_text_cannot_break_the_report() {
        let cases = [
            ("plain.rs", "`plain.rs`"),
            ("a|b", "`a\\|b`"),
            ("a\nb\tc\x1b", "`a\\nb\\tc\\u{1b}`"),
            ("a`b", "``a`b``"),
            ("``", "``` `` ```"),
            (" x ", "`  x  `"),
            ("", "` `"),
            ("*_<b>[x](y)", "`*_<b>[x](y)`"),
        ];
        for (text, expected) in cases {
            let shown = code(text);
            assert!(!shown.contains('\n'));
            if text.is_empty() {
                assert!(shown.starts_with('`') && shown.ends_with('`'));
            } else {
                assert_eq!(shown, expected);
            }
        }
    }

    #[test]
    fn a_report_has_a_line_for_everything_in_the_ranking() {
        let totals = Totals { files: 2, bytes: 1_234_567, lines: 3, words: 4 };
        let ranking = Ranking {
            root: "/x".into(),
            totals,
            languages: vec![LanguageTotals { language: "Rust".into(), totals }],
            largest: vec![Row { path: "a\n|b".into(), blake3: Some("ab".repeat(32)), ..Row::default() }],
            unread: vec![Unread { path: "c".into(), error: "gone".into() }],
            unread_left_out: 1,
            problems: vec![Problem { path: "d".into(), error: "refused".into() }],
            problems_left_out: 0,
        };
        let report = render(&ranking);
        for part in [
            "# Folder report\n",
            "Folder: `/x`\n",
            "| 2 | 1,234,567 | 3 | 4 | 2 |\n",
            "| `Rust` | 2 | 1,234,567 | 100.0 % | 3 | 4 |\n",
            "| `a\\n\\|b` | 0 | 0 | 0 |",
            "- `c`: `gone`\n- and 1 more\n",
            "- `d`: `refused`\n",
        ] {
            assert!(report.contains(part), "{part:?} is missing in\n{report}");
        }
    }

    #[test]
    fn an_empty_folder_has_a_report() {
        let report = render(&Ranking { root: "/empty".into(), ..Ranking::default() });
        assert!(report.contains("| 0 | 0 | 0 | 0 | 0 |") && report.contains("There are no files"));
        assert!(!report.contains("##"));
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (u64::MAX, "18,446,744,073,709,551,615")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
