//! Adds rows up, and puts them in order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use interfaces::{LanguageTotals, Ranking, Row, Totals, Unread};

/// LIMIT: files that a ranking names as not read; the rest is counted.
const UNREAD_MAX: usize = 1000;

/// The largest first; of equal ones by path.
pub(crate) fn sort(rows: &mut [Row]) {
    rows.sort_unstable_by(|a, b| (Reverse(a.bytes), &a.path).cmp(&(Reverse(b.bytes), &b.path)));
}

/// Sums, the `largest_max` largest files that could be read, and the files that could not.
pub(crate) fn rank(mut rows: Vec<Row>, largest_max: usize) -> Ranking {
    sort(&mut rows);
    let mut ranking = Ranking::default();
    let mut languages: BTreeMap<String, Totals> = BTreeMap::new();
    for row in rows {
        ranking.totals.files += 1;
        let Some(error) = row.error else {
            add(&mut ranking.totals, &row);
            match languages.get_mut(&row.language) {
                Some(totals) => count(totals, &row),
                None => count(languages.entry(row.language.clone()).or_default(), &row),
            }
            if ranking.largest.len() < largest_max {
                ranking.largest.push(row);
            }
            continue;
        };
        ranking.unread.push(Unread { path: row.path, error });
    }
    ranking.unread.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    ranking.unread_left_out = ranking.unread.len().saturating_sub(UNREAD_MAX) as u64;
    ranking.unread.truncate(UNREAD_MAX);
    ranking.languages =
        languages.into_iter().map(|(language, totals)| LanguageTotals { language, totals }).collect();
    // Stable, so equal ones stay in the order of their names.
    ranking.languages.sort_by_key(|language| Reverse(language.totals.bytes));
    ranking
}

fn count(totals: &mut Totals, row: &Row) {
    totals.files += 1;
    add(totals, row);
}

fn add(totals: &mut Totals, row: &Row) {
    totals.bytes += row.bytes;
    totals.lines += row.lines;
    totals.words += row.words;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, bytes: u64, language: &str) -> Row {
        Row { path: path.into(), bytes, lines: 1, words: 2, language: language.into(), ..Row::default() }
    }

    #[test]
    fn rows_are_ranked_by_size_and_added_up_by_language() {
        let unread = Row { error: Some("gone".into()), ..row("z", 1000, "Rust") };
        let rows =
            vec![row("b", 5, "Rust"), row("a", 5, "C"), unread, row("c", 9, "Rust"), row("d", 14, "Go")];
        let ranking = rank(rows, 3);
        assert_eq!(ranking.totals, Totals { files: 5, bytes: 33, lines: 4, words: 8 });
        let languages: Vec<_> =
            ranking.languages.iter().map(|l| (l.language.as_str(), l.totals.files)).collect();
        assert_eq!(languages, [("Go", 1), ("Rust", 2), ("C", 1)]);
        let largest: Vec<_> = ranking.largest.iter().map(|row| row.path.as_str()).collect();
        assert_eq!(largest, ["d", "c", "a"]);
        assert_eq!(ranking.unread, [Unread { path: "z".into(), error: "gone".into() }]);
    }

    #[test]
    fn unread_files_beyond_the_limit_are_counted() {
        let unread =
            |index: usize| Row { error: Some("gone".into()), ..row(&format!("{index:05}"), 0, "Other") };
        let ranking = rank((0..UNREAD_MAX + 7).rev().map(unread).collect(), 3);
        assert_eq!((ranking.unread.len(), ranking.unread_left_out), (UNREAD_MAX, 7));
        assert_eq!(ranking.unread[0].path, "00000");
    }

    #[test]
    fn nothing_ranks_as_nothing() {
        assert_eq!(rank(Vec::new(), 3), Ranking::default());
    }
}
