//! A Rust file as three views of each line: its code without texts, its comment, and whether it is a test's.
//!
//! This is a lexer of comments, texts and braces, not a parser: what the rules ask for needs no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One line of a Rust file.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The line with blanks where comments and the insides of texts stand.
    pub code: String,
    /// The line's comment with its signs. Empty if there is none.
    pub comment: String,
    /// Where the comment begins.
    pub comment_at: usize,
    /// Compiled for tests only.
    pub is_test: bool,
}

impl Line {
    /// The words of the line's comment, without its signs. Empty if there is none.
    #[must_use]
    pub fn remark(&self) -> &str {
        self.comment.trim_start_matches(['/', '!', '*']).trim_start()
    }
}

/// A Rust file.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Line 1 is the first.
    pub lines: Vec<Line>,
    /// Names of the modules in files of their own that only tests have.
    test_modules: Vec<String>,
}

impl Source {
    /// Looks at a file's text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let (code, comments) = split(text);
        let (regions, test_modules) = test_regions(&code);
        let mut lines = Vec::new();
        let mut offset = 0;
        for (code, comment) in code.lines().zip(comments.lines()) {
            let end = offset + code.len();
            let is_test = regions.iter().any(|(from, to)| *from <= end && offset < *to);
            let from_comment = comment.trim_start_matches(' ');
            lines.push(Line {
                code: code.trim_end().to_owned(),
                comment: from_comment.trim_end().to_owned(),
                comment_at: comment.len() - from_comment.len(),
                is_test,
            });
            offset = end + 1;
        }
        Self { lines, test_modules }
    }

    /// The file's lines with their numbers from 1.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Whether the line with this number stands in a loop of its function.
    #[must_use]
    pub fn is_in_loop(&self, number: usize) -> bool {
        let mut depth = 0_i32;
        for line in self.lines[..number].iter().rev() {
            for (place, byte) in line.code.bytes().enumerate().rev() {
                match byte {
                    b'}' => depth += 1,
                    b'{' => depth -= 1,
                    _ => continue,
                }
                if depth < 0 {
                    let head = line.code[..place].trim_start();
                    let head = head
                        .split_once(": ")
                        .filter(|(label, _)| label.starts_with('\''))
                        .map_or(head, |(_, rest)| rest);
                    if ["while ", "loop", "for "].iter().any(|word| head.starts_with(word)) {
                        return true;
                    }
                    if head.contains("fn ") {
                        return false;
                    }
                    depth = 0;
                }
            }
        }
        false
    }
}

/// Marks the files that only tests have: those below a folder `tests`, and modules that are declared for tests.
pub(crate) fn mark_test_files(sources: &mut BTreeMap<String, Arc<Source>>) {
    let mut tests = BTreeSet::new();
    for (path, source) in &*sources {
        let stem = ["/mod.rs", "/lib.rs", "/main.rs", ".rs"].iter().find_map(|end| path.strip_suffix(end));
        for module in &source.test_modules {
            tests.insert(format!("{}/{module}", stem.unwrap_or_default()));
        }
    }
    for (path, source) in sources {
        let is_module = |module: &String| {
            path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        let is_test = path.split('/').any(|part| part == "tests") || tests.iter().any(is_module);
        if is_test && source.lines.iter().any(|line| !line.is_test) {
            Arc::make_mut(source).lines.iter_mut().for_each(|line| line.is_test = true);
        }
    }
}

/// The text with blanks in place of comments and texts, and with blanks in place of all but comments.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut comments = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (end, is_comment) = match rest {
            [b'/', b'/', ..] => (rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), true),
            [b'/', b'*', ..] => (block_comment(rest), true),
            _ => (literal(bytes, at), false),
        };
        if end == 0 {
            let byte = rest[0];
            code.push(if byte.is_ascii() { byte } else { b' ' });
            comments.push(if byte == b'\n' { b'\n' } else { b' ' });
            at += 1;
            continue;
        }
        for (place, byte) in rest[..end].iter().enumerate() {
            let blank = if *byte == b'\n' { b'\n' } else { b' ' };
            let shown = if byte.is_ascii() { *byte } else { b'?' };
            let is_edge = !is_comment && (place == 0 || place == end - 1);
            code.push(if is_edge { shown } else { blank });
            comments.push(if is_comment { shown } else { blank });
        }
        at += end;
    }
    // Only ASCII was pushed.
    (String::from_utf8_lossy(&code).into_owned(), String::from_utf8_lossy(&comments).into_owned())
}

/// Length of the comment that `rest` begins with; such comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at.min(rest.len())
}

/// Length of the text or character that begins at `at`; 0 if none does.
fn literal(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let follows_word = at > 0 && is_word(bytes[at - 1]);
    match rest[0] {
        b'"' => quoted(rest, 1),
        b'r' | b'b' | b'c' if !follows_word => {
            let prefix = rest.iter().take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
            let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
            let is_text = rest.get(prefix + hashes) == Some(&b'"');
            match (is_text, rest[..prefix].contains(&b'r')) {
                (true, true) => {
                    let close = format!("\"{}", "#".repeat(hashes));
                    let from = prefix + hashes + 1;
                    let found = rest[from..].windows(close.len()).position(|part| part == close.as_bytes());
                    found.map_or(rest.len(), |found| from + found + close.len())
                }
                (true, false) if hashes == 0 => quoted(rest, prefix + 1),
                _ => 0,
            }
        }
        // A lifetime has no second quote where a character has it.
        b'\'' => match rest {
            [_, b'\\', _, ..] => {
                rest[3..].iter().position(|byte| *byte == b'\'').map_or(rest.len(), |found| found + 4)
            }
            [_, first, tail @ ..] => {
                let width = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    0xc0.. => 2,
                    _ => 1,
                };
                if tail.get(width - 1) == Some(&b'\'') { width + 2 } else { 0 }
            }
            _ => 0,
        },
        _ => 0,
    }
}

/// Length of a text with escapes whose inside begins at `from`.
fn quoted(rest: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Where items for tests stand, and the names of those that are modules in files of their own.
fn test_regions(code: &str) -> (Vec<(usize, usize)>, Vec<String>) {
    let (mut regions, mut modules) = (Vec::new(), Vec::new());
    for (start, _) in code.match_indices("#[cfg(").chain(code.match_indices("#![cfg(")) {
        let Some(length) = code[start..].find(']') else { continue };
        let condition = code[start..start + length].replace("not(test)", "");
        let names_test =
            condition.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "test");
        if !names_test {
            continue;
        }
        if code[start..].starts_with("#!") {
            regions.push((0, code.len()));
            continue;
        }
        let item = start + length + 1;
        let end = item_end(code, item);
        regions.push((start, end));
        let head = code[item..end].trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        if let Some(name) = head.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            modules.push(name.trim().to_owned());
        }
    }
    (regions, modules)
}

/// The end of the item that begins at `from`: its `;`, or the brace that closes its first one.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    for (place, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'}' => {
                depth -= 1;
                if depth <= 0 {
                    return place + 1;
                }
            }
            b';' if depth == 0 => return place + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn code_of(text: &str, expected: &str) {
        assert_eq!(split(text).0, expected, "{text}");
    }

    #[test]
    fn texts_and_comments_are_no_code() {
        code_of("a // b", "a     ");
        code_of("a /* b /* c */ d */ e", "a                   e");
        code_of(r#"f("x // {", 1)"#, r#"f("      ", 1)"#);
        code_of(r##"r#"a"b"#;"##, r##"r      #;"##);
        code_of(r#"br"\";"#, r#"b   ";"#);
        code_of(r#""\"";"#, r#""  ";"#);
        code_of("'{' b'\\'' '\\u{7b}'", "' ' b'  ' '      '");
        code_of("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        code_of("bar\"x\"", "bar\" \"");
    }

    #[test]
    fn comments_keep_their_words_and_places() {
        assert_eq!(split("let x = \"//\"; // why\n").1, "              // why\n");
        let source = Source::new("//! Why.\n/// What.\n// INVARIANT: so.\n");
        let remarks: Vec<_> = source.lines.iter().map(Line::remark).collect();
        assert_eq!(remarks, ["Why.", "What.", "INVARIANT: so."]);
    }

    #[track_caller]
    fn tests_of(text: &str, expected: &[usize]) {
        let source = Source::new(text);
        let found: Vec<_> =
            source.numbered().filter(|(_, line)| line.is_test).map(|(number, _)| number).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn code_for_tests_is_known() {
        tests_of("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n", &[2, 3, 4, 5]);
        tests_of("#[cfg(all(test, not(loom)))]\nuse a::b;\nfn c() {}\n", &[1, 2]);
        tests_of("#[cfg(test)]\n#[derive(Debug)]\nfn f(a: [u8; 2]) {\n}\nfn c() {}\n", &[1, 2, 3, 4]);
        tests_of("#[cfg(not(test))]\nfn c() {}\n", &[]);
        tests_of("#![cfg(test)]\nfn c() {}\n", &[1, 2]);
    }

    #[test]
    fn module_files_for_tests_are_known() {
        let files = [
            ("a/src/lib.rs", "#[cfg(test)]\nmod proof;\nmod work;\n"),
            ("a/src/proof.rs", "fn a() {}\n"),
            ("a/src/work.rs", "#[cfg(test)]\nmod tests;\n"),
            ("a/src/work/tests.rs", "fn a() {}\n"),
            ("a/src/work/tests/more.rs", "fn a() {}\n"),
            ("a/tests/it/main.rs", "fn a() {}\n"),
        ];
        let mut sources = files.map(|(path, text)| (path.to_owned(), Arc::new(Source::new(text)))).into();
        mark_test_files(&mut sources);
        let tests: Vec<_> = sources
            .iter()
            .filter(|(_, source)| source.lines[0].is_test)
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(
            tests,
            [
                "a/src/lib.rs",
                "a/src/proof.rs",
                "a/src/work.rs",
                "a/src/work/tests.rs",
                "a/src/work/tests/more.rs",
                "a/tests/it/main.rs"
            ]
        );
        assert!(!sources["a/src/lib.rs"].lines[2].is_test);
    }

    #[test]
    fn loops_are_known() {
        let source = Source::new("fn f() {\n  while a() {\n    if b {\n      c();\n    }\n  }\n  d();\n}\n");
        assert!(source.is_in_loop(4));
        assert!(!source.is_in_loop(7));
    }
}
