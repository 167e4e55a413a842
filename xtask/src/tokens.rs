//! The code of a Rust file as words and signs, for rules that lines are too short for: rustfmt breaks a statement where
//! it likes, and what is forbidden on one line must not pass on two.
//!
//! It must not know any rule.

use crate::source::Source;

/// A word or a sign of code. `::` is one sign; of a text only its ends are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// From 1.
    pub(crate) line: usize,
    /// Compiled for tests only.
    pub(crate) is_test: bool,
}

/// Every word and sign, in order.
pub(crate) fn tokens(source: &Source) -> Vec<Token<'_>> {
    let lines = source.numbered();
    lines
        .flat_map(|(line, it)| split(&it.code).map(move |text| Token { text, line, is_test: it.is_test }))
        .collect()
}

/// The tokens of each attribute, from its `#` to its `]`.
pub(crate) fn attributes<'t, 'a>(tokens: &'t [Token<'a>]) -> impl Iterator<Item = &'t [Token<'a>]> {
    let starts = tokens.iter().enumerate().filter(|(_, token)| token.text == "#");
    starts.filter_map(|(start, _)| {
        let bracket = start + 1 + usize::from(text(tokens, start + 1) == "!");
        if text(tokens, bracket) != "[" {
            return None;
        }
        let mut depth = 0_usize;
        for (at, token) in tokens.iter().enumerate().skip(bracket) {
            match token.text {
                "[" => depth += 1,
                "]" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(&tokens[start..=at]);
            }
        }
        None
    })
}

/// The token at a place, or nothing beyond the ends.
pub(crate) fn text<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

/// Where each token with one of these texts stands.
pub(crate) fn places<'t>(tokens: &'t [Token<'_>], texts: &'t [&str]) -> impl Iterator<Item = usize> + 't {
    let found = tokens.iter().enumerate().filter(|(_, token)| texts.contains(&token.text));
    found.map(|(place, _)| place)
}

/// Words and signs of one line of code, which is ASCII.
fn split(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let length = match rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len()) {
            0 if rest.starts_with("::") => 2,
            0 => usize::from(!rest.is_empty()),
            word => word,
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        (!token.is_empty()).then_some(token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_signs_keep_their_lines() {
        let source = Source::new("a::b(\n  \"c d\", // e\n)");
        let tokens = tokens(&source);
        let texts: Vec<_> = tokens.iter().map(|token| token.text).collect();
        assert_eq!(texts, ["a", "::", "b", "(", "\"", "\"", ",", ")"]);
        let lines: Vec<_> = tokens.iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 1, 1, 1, 2, 2, 2, 3]);
    }

    #[test]
    fn attributes_are_whole_over_any_number_of_lines() {
        let source = Source::new("#![a]\nlet x = [1];\n#[b(\n  c,\n  [d],\n)]\nfn e() {}");
        let tokens = tokens(&source);
        let found: Vec<String> = attributes(&tokens)
            .map(|attribute| attribute.iter().map(|token| token.text).collect::<String>())
            .collect();
        assert_eq!(found, ["#![a]", "#[b(c,[d],)]"]);
    }
}
