//! Finds what a template refers to, with its place, without evaluating it.
//!
//! minijinja says which names a template leaves open, but neither where they stand nor what `x["a-b"]`
//! reads. This scanner knows just enough of the syntax for that: strings, names, dots, constant brackets.
//! Where it and minijinja disagree (a loop's own variable), minijinja is right. This file must not know
//! which names a melody has.

use std::ops::Range;

use super::message_pack::Key;

/// What a string of a melody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string without a template.
    Plain,
    /// One expression and nothing else, `{{ ... }}`; the bytes between the braces.
    Expression(Range<usize>),
    /// Text with templates in it.
    Text,
}

/// A name with the fields and elements that are read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where, in the string.
    pub(super) range: Range<usize>,
    /// The name.
    pub(super) root: String,
    /// As far as it is constant.
    pub(super) path: Vec<Key>,
    /// Whether it is called, as a function or, if there is a path, by its last key as a method.
    pub(super) is_called: bool,
}

/// A filter or a test that a template uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) range: Range<usize>,
    pub(super) name: String,
    pub(super) kind: NamedKind,
}

/// See [`Named`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedKind {
    /// `x | name`
    Filter,
    /// `x is name`
    Test,
}

impl NamedKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Test => "test",
        }
    }

    /// Those that are used most, for hints.
    pub(super) fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Filter => &[
                "abs",
                "attr",
                "batch",
                "default",
                "dictsort",
                "first",
                "float",
                "groupby",
                "int",
                "items",
                "join",
                "last",
                "length",
                "list",
                "lower",
                "map",
                "max",
                "min",
                "reject",
                "rejectattr",
                "replace",
                "reverse",
                "round",
                "select",
                "selectattr",
                "slice",
                "sort",
                "string",
                "sum",
                "title",
                "trim",
                "unique",
                "upper",
            ],
            Self::Test => &[
                "defined",
                "divisibleby",
                "even",
                "false",
                "float",
                "integer",
                "iterable",
                "mapping",
                "none",
                "number",
                "odd",
                "sequence",
                "string",
                "true",
                "undefined",
            ],
        }
    }
}

/// What a string of a melody is and names.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) shape: Shape,
    pub(super) found: Vec<Found>,
    pub(super) named: Vec<Named>,
}

/// What `text` is, and what it refers to.
pub(super) fn scan(text: &str) -> Scan {
    let mut scanner = Scanner { text, at: 0, found: Vec::new(), named: Vec::new() };
    let mut shape = Shape::Plain;
    while let Some(open) = text.get(scanner.at..).and_then(|rest| rest.find('{')) {
        let start = scanner.at + open;
        scanner.at = start + 2;
        match text.as_bytes().get(start + 1) {
            Some(b'{') => {
                let inner = scanner.code("}}");
                let is_all = start == 0 && scanner.at == text.len() && text.ends_with("}}");
                shape = if is_all { Shape::Expression(trim_control(text, inner)) } else { Shape::Text };
            }
            Some(b'%') => {
                scanner.code("%}");
                shape = Shape::Text;
            }
            Some(b'#') => {
                let end = text.get(scanner.at..).and_then(|rest| rest.find("#}"));
                scanner.at = end.map_or(text.len(), |end| scanner.at + end + 2);
                shape = Shape::Text;
            }
            _ => scanner.at = start + 1,
        }
    }
    Scan { shape, found: scanner.found, named: scanner.named }
}

/// The range without the signs of whitespace control, `{{- x -}}`.
fn trim_control(text: &str, range: Range<usize>) -> Range<usize> {
    let inner = &text[range.clone()];
    let start = inner.len() - inner.strip_prefix(['-', '+']).unwrap_or(inner).len();
    let end = inner.strip_suffix(['-', '+']).unwrap_or(inner).len();
    range.start + start..range.start + end.max(start)
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
    found: Vec<Found>,
    named: Vec<Named>,
}

impl Scanner<'_> {
    /// Reads code up to `closer` (or the end), stands behind it, and says where the code was.
    fn code(&mut self, closer: &str) -> Range<usize> {
        let start = self.at;
        let mut open_brackets: u32 = 0;
        let mut before = b' ';
        // After `is` and `is not` comes the name of a test.
        let mut is_test = false;
        while let Some(byte) = self.byte(self.at) {
            if open_brackets == 0 && self.text[self.at..].starts_with(closer) {
                let end = self.at;
                self.at += closer.len();
                return start..end;
            }
            match byte {
                b'\'' | b'"' => self.at = self.string_end(self.at),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                    let from = self.at;
                    self.name(before, is_test);
                    is_test = before != b'.'
                        && match &self.text[from..self.at] {
                            "is" => true,
                            "not" => is_test,
                            _ => false,
                        };
                    before = b'a';
                    continue;
                }
                b'0'..=b'9' => {
                    while self.byte(self.at).is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
                        self.at += 1;
                    }
                }
                _ => {
                    match byte {
                        b'(' | b'[' | b'{' => open_brackets += 1,
                        b')' | b']' | b'}' => open_brackets = open_brackets.saturating_sub(1),
                        _ => {}
                    }
                    self.at += self.text[self.at..].chars().next().map_or(1, char::len_utf8);
                }
            }
            if !byte.is_ascii_whitespace() {
                before = byte;
                is_test = false;
            }
        }
        start..self.at
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// The end of the string literal at `at`.
    fn string_end(&self, at: usize) -> usize {
        let quote = self.byte(at);
        let mut end = at + 1;
        while let Some(byte) = self.byte(end) {
            end += 1;
            if byte == b'\\' {
                end += 1;
            } else if Some(byte) == quote {
                break;
            }
        }
        // An escape before a longer character, or at the very end.
        (end.min(self.text.len())..=self.text.len())
            .find(|&end| self.text.is_char_boundary(end))
            .unwrap_or(end)
    }

    fn name_end(&self, at: usize) -> usize {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        (at..).find(|&at| !self.byte(at).is_some_and(is_part)).unwrap_or(at)
    }

    /// Reads a name and what follows it; `before` is the last byte before it that is no space, and `is_test`
    /// whether `is` stands there.
    fn name(&mut self, before: u8, is_test: bool) {
        let start = self.at;
        let root_end = self.name_end(start);
        let root = self.text[start..root_end].to_owned();
        self.at = root_end;
        // A field of something else, a filter, or the name of an argument.
        let next = self.text[root_end..].trim_start();
        let is_argument = next.starts_with('=') && !next.starts_with("==");
        let kind = match before {
            b'|' => Some(NamedKind::Filter),
            _ if is_test && root != "not" => Some(NamedKind::Test),
            _ => None,
        };
        if let Some(kind) = kind {
            self.named.push(Named { range: start..root_end, name: root, kind });
            return;
        }
        if before == b'.' || is_argument {
            return;
        }
        let mut path = Vec::new();
        while let Some((key, end)) = self.key(self.at) {
            path.push(key);
            self.at = end;
        }
        let is_called = self.text[self.at..].trim_start().starts_with('(');
        self.found.push(Found { range: start..self.at, root, path, is_called });
    }

    /// The constant key at `at`, and where it ends.
    fn key(&self, at: usize) -> Option<(Key, usize)> {
        match self.byte(at)? {
            b'.' => {
                let end = self.name_end(at + 1);
                let is_name = self.byte(at + 1).is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
                is_name.then(|| (Key::Field(self.text[at + 1..end].to_owned()), end))
            }
            b'[' => {
                let inner = at + 1 + self.text[at + 1..].len() - self.text[at + 1..].trim_start().len();
                let (key, end) = match self.byte(inner)? {
                    b'\'' | b'"' => {
                        let end = self.string_end(inner);
                        let name = self.text.get(inner + 1..end - 1).filter(|name| !name.contains('\\'))?;
                        (Key::Field(name.to_owned()), end)
                    }
                    _ => {
                        let end = self.name_end(inner);
                        (Key::Index(self.text[inner..end].parse().ok()?), end)
                    }
                };
                let close = end + self.text[end..].len() - self.text[end..].trim_start().len();
                (self.byte(close) == Some(b']')).then_some((key, close + 1))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> (Shape, Vec<String>) {
        let Scan { shape, found, .. } = scan(text);
        let said = found.iter().map(|found| {
            let path: String = found.path.iter().map(ToString::to_string).collect();
            format!("{}{path}{}", found.root, if found.is_called { "()" } else { "" })
        });
        (shape, said.collect())
    }

    #[test]
    fn a_string_is_plain_an_expression_or_text() {
        let cases = [
            ("", Shape::Plain),
            ("a { b } c", Shape::Plain),
            ("{", Shape::Plain),
            ("{{ x }}", Shape::Expression(2..5)),
            ("{{x}}", Shape::Expression(2..3)),
            ("{{- x -}}", Shape::Expression(3..6)),
            ("{{ {'a': {'b': 1}} }}", Shape::Expression(2..19)),
            ("{{ '}}' }}", Shape::Expression(2..8)),
            (" {{ x }}", Shape::Text),
            ("{{ x }}\n", Shape::Text),
            ("{{ x }}{{ y }}", Shape::Text),
            ("a {{ x }}", Shape::Text),
            ("{% if x %}a{% endif %}", Shape::Text),
            ("{# nothing #}", Shape::Text),
            ("{{ x", Shape::Text),
            ("{{", Shape::Text),
            ("{{}}", Shape::Expression(2..2)),
            ("{{-}}", Shape::Expression(3..3)),
        ];
        for (text, shape) in cases {
            assert_eq!(scan(text).shape, shape, "{text}");
        }
    }

    #[test]
    fn names_are_found_with_their_constant_path() {
        let cases: &[(&str, &[&str])] = &[
            ("{{ steps.list.output.entries }}", &["steps.list.output.entries"]),
            ("{{ steps['a-b'].output[3].x }}", &["steps[\"a-b\"].output[3].x"]),
            ("{{ a | length > 0 and b.c == 'd.e' }}", &["a", "and", "b.c"]),
            ("{{ f(x, key=y) }}", &["f()", "x", "y"]),
            ("{{ item.tags.items() }}", &["item.tags.items()"]),
            ("{{ steps[which].output }}", &["steps", "which"]),
            ("{{ rows[-1].x }}", &["rows"]),
            ("{{ rows[1:2] }}", &["rows"]),
            (
                "no {{ one }} and {% for r in two.x %}{{ r }}{% endfor %}",
                &["one", "for", "r", "in", "two.x", "r", "endfor"],
            ),
            ("{# steps.x #}{{ '\\'steps.y' ~ \"z\" }}", &[]),
            ("{{ 12abc + 1e5 }}", &[]),
            ("{{ caf\u{e9}.x }}", &["caf"]),
        ];
        for (text, expected) in cases {
            assert_eq!(said(text).1, *expected, "{text}");
        }
    }

    #[test]
    fn filters_and_tests_are_told_from_names() {
        let scan = scan("{{ a | upper|join('|') is not defined and b is odd or c.is.x | d(e | f) }}");
        let named: Vec<_> = scan.named.iter().map(|named| (named.kind.name(), named.name.as_str())).collect();
        let expected = [
            ("filter", "upper"),
            ("filter", "join"),
            ("test", "defined"),
            ("test", "odd"),
            ("filter", "d"),
            ("filter", "f"),
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn any_text_ends_without_a_panic() {
        let pieces =
            ["{{", "}}", "{%", "%}", "'", "\"", "\\", "[", "]", ".", "a", "0", "\u{e9}", "-", " ", "{#", "("];
        let mut state: u32 = 7;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push_str(pieces[(state >> 16) as usize % pieces.len()]);
            }
            for found in scan(&text).found {
                assert!(text.get(found.range.clone()).is_some(), "{text}");
            }
        }
    }
}
