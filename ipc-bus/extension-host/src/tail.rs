//! The last bytes of a stream: what a program said before it ended.

use std::collections::VecDeque;

/// LIMIT: bytes kept.
pub(crate) const TAIL_BYTES_MAX: usize = 64 << 10;

/// Keeps the last [`TAIL_BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let surplus = (self.bytes.len() + bytes.len()).saturating_sub(TAIL_BYTES_MAX);
        self.bytes.drain(..surplus);
        self.bytes.extend(bytes);
    }

    /// What is kept as text; a line that lost its beginning is left out.
    pub(crate) fn to_text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let cut = bytes.len() == TAIL_BYTES_MAX;
        let start = bytes.iter().position(|&byte| byte == b'\n').filter(|_| cut).map_or(0, |at| at + 1);
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }
}

/// The last `lines_max` lines that are not empty, at most `bytes_max` bytes, for an error's message.
pub(crate) fn last_lines(text: &str, lines_max: usize, bytes_max: usize) -> String {
    let lines: Vec<&str> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(lines_max).collect();
    let joined = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    let from = joined.len().saturating_sub(bytes_max);
    let from = (from..=joined.len()).find(|&at| joined.is_char_boundary(at)).unwrap_or(joined.len());
    joined[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_stay_whatever_the_pieces() {
        for piece in [1, 7, 4_096, TAIL_BYTES_MAX, TAIL_BYTES_MAX + 5] {
            let mut tail = Tail::default();
            let text: Vec<u8> =
                (0..200_000_usize).map(|at| if at % 10 == 9 { b'\n' } else { b'x' }).collect();
            for bytes in text.chunks(piece) {
                tail.push(bytes);
                assert!(tail.bytes.len() <= TAIL_BYTES_MAX);
            }
            let kept = tail.to_text();
            assert!(kept.len() > TAIL_BYTES_MAX - 10, "{}", kept.len());
            assert!(text.ends_with(kept.as_bytes()));
            assert!(kept.starts_with("xxxxxxxxx\n"));
        }
    }

    #[test]
    fn last_lines_are_cut_at_characters() {
        for (text, lines, bytes, expected) in [
            ("a\n\nb\nc\n\n", 2, 100, "b\nc"),
            ("a", 2, 100, "a"),
            ("", 2, 100, ""),
            ("\u{e4}\u{e4}", 1, 3, "\u{e4}"),
        ] {
            assert_eq!(last_lines(text, lines, bytes), expected);
        }
    }
}
