//! How much a peer may say beside answers. Must not know what it says.

use std::time::Instant;

/// LIMIT: tokens that a peer gets per second, and may save up.
const TOKENS_PER_SECOND: u32 = 20_000;

/// Body bytes that cost as much as the frame itself.
const BYTES_PER_TOKEN: u32 = 1024;

/// A bucket of tokens. A frame costs one, and one more for each full KiB of its body.
#[derive(Debug)]
pub(super) struct Allowance {
    tokens: u32,
    filled_at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: TOKENS_PER_SECOND, filled_at: now }
    }

    /// Pays for a frame with a body of `length` bytes. Returns whether it could. The time is asked for only if
    /// what was saved up is spent.
    pub(super) fn take(&mut self, length: u32, now: impl FnOnce() -> Instant) -> bool {
        let cost = 1 + length / BYTES_PER_TOKEN;
        if self.tokens < cost {
            let now = now();
            let micros = now.saturating_duration_since(self.filled_at).as_micros();
            let earned = micros * u128::from(TOKENS_PER_SECOND) / 1_000_000;
            // Less than a token is not lost: the clock stays where it was.
            if earned > 0 {
                let all = u128::from(self.tokens) + earned;
                self.tokens = u32::try_from(all).map_or(TOKENS_PER_SECOND, |all| all.min(TOKENS_PER_SECOND));
                self.filled_at = now;
            }
        }
        let left = self.tokens.checked_sub(cost);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time_and_never_more_than_a_second_of_it() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut taken = |length, after_ms| {
            let now = start + Duration::from_millis(after_ms);
            (0..u64::from(TOKENS_PER_SECOND) * 2).take_while(|_| allowance.take(length, || now)).count()
        };
        let rows = [
            (0, 0, 20_000),
            (0, 0, 0),
            (0, 1, 20),
            (1023, 2, 20),
            (1024, 3, 10),
            (256 << 10, 4, 0),
            (0, 4, 20),
        ];
        for (length, after_ms, expected) in rows {
            assert_eq!(taken(length, after_ms), expected, "{length} bytes after {after_ms} ms");
        }
        assert_eq!(taken(0, 60_000), 20_000);
        assert_eq!(taken(0, 0), 0, "a clock that stands still gives nothing");
    }
}
