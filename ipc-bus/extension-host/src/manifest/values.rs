//! What stands for something else in a manifest: sizes, durations, percentages, versions, names.
//!
//! Each `parse` returns the value or what is allowed, as a clause that completes "allowed: ...".

use std::fmt;
use std::time::Duration;

use ipc_protocol::limits::NAME_BYTES_MAX;

/// LIMIT: the longest duration that a manifest may name; beyond it, it is a mistake or means "never".
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// `[a-z0-9-]{1,64}`, without a hyphen at either end.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let length = (1..=NAME_BYTES_MAX).contains(&text.len());
    if letters && length && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "1 to {NAME_BYTES_MAX} of a-z, 0-9 and hyphen, neither beginning nor ending with a hyphen"
        ))
    }
}

/// A time as people write it, here and in whatever else is configured: a whole number and its unit, `100ms`,
/// `60s`, `5m`, `2h`. `None`: it is something else.
///
/// ```
/// use std::time::Duration;
/// use extension_host::manifest::parse_duration;
///
/// assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
/// assert_eq!(parse_duration("1.5s"), None);
/// ```
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    with_unit(text, &UNITS).map(Duration::from_millis)
}

/// A time that a manifest may name.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text).filter(|value| *value <= DURATION_MAX);
    parsed.ok_or_else(|| "a whole number with its unit: \"100ms\", \"60s\", \"5m\", \"2h\"".to_owned())
}

/// `100B`, `64KiB`, `512MiB`, `2GiB`.
pub(crate) fn size_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] =
        [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    with_unit(text, &UNITS).filter(|value| *value > 0).ok_or_else(|| {
        "a whole number above 0 with its unit: \"100B\", \"64KiB\", \"512MiB\", \"2GiB\"".to_owned()
    })
}

/// `80%` of one core; `250%` is two and a half.
pub(crate) fn percent(text: &str) -> Result<u32, String> {
    const UNITS: [(&str, u64); 1] = [("%", 1)];
    let parsed = with_unit(text, &UNITS).filter(|value| (1..=102_400).contains(value));
    parsed
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| "\"1%\" to \"102400%\"; 100% is one core".to_owned())
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A version: three numbers, and perhaps what makes it a pre-release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Incompatible changes.
    pub major: u64,
    /// Compatible additions.
    pub minor: u64,
    /// Corrections.
    pub patch: u64,
    /// What follows a hyphen; empty for a release.
    pub pre_release: String,
}

impl Version {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let allowed = || "three numbers: \"0.1.0\", or with a pre-release: \"0.1.0-rc1\"".to_owned();
        let (numbers, pre_release) = text.split_once('-').unwrap_or((text, ""));
        let simple =
            pre_release.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        match (parse_numbers(numbers), simple) {
            (Some((major, Some(minor), Some(patch))), true) if !text.ends_with('-') => {
                Ok(Self { major, minor, patch, pre_release: pre_release.to_owned() })
            }
            _ => Err(allowed()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if self.pre_release.is_empty() { Ok(()) } else { write!(f, "-{}", self.pre_release) }
    }
}

fn parse_numbers(text: &str) -> Option<(u64, Option<u64>, Option<u64>)> {
    let numbers: Option<Vec<u64>> = text.split('.').map(parse_number).collect();
    match numbers?.as_slice() {
        [major] => Some((*major, None, None)),
        [major, minor] => Some((*major, Some(*minor), None)),
        [major, minor, patch] => Some((*major, Some(*minor), Some(*patch))),
        _ => None,
    }
}

fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Which versions of another extension will do: `*`, `0.1`, `^0.1`, `~1.2`, `=1.2.3`, `>=1.2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    text: String,
    /// The least that will do, and the first that will no longer do.
    from: [u64; 3],
    below: Option<[u64; 3]>,
}

impl Requirement {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let allowed = "\"*\", \"^0.1\" (or \"0.1\"), \"~1.2\", \"=1.2.3\" or \">=1.2\"";
        Self::parse_range(text).ok_or_else(|| allowed.to_owned())
    }

    fn parse_range(text: &str) -> Option<Self> {
        let whole = |from, below| Some(Self { text: text.to_owned(), from, below });
        if text == "*" {
            return whole([0; 3], None);
        }
        let operator_end = text.find(|character: char| character.is_ascii_digit())?;
        let (operator, numbers) = text.split_at(operator_end);
        let (major, minor, patch) = parse_numbers(numbers)?;
        let from = [major, minor.unwrap_or(0), patch.unwrap_or(0)];
        let next = |part: u64| part.checked_add(1);
        let below = match (operator.trim_end(), minor, patch) {
            (">=", ..) => None,
            ("~" | "=", None, _) => Some([next(major)?, 0, 0]),
            ("~", Some(minor), _) | ("=", Some(minor), None) => Some([major, next(minor)?, 0]),
            ("=", Some(minor), Some(patch)) => Some([major, minor, next(patch)?]),
            // Up to the first number that is not zero, everything must be equal.
            ("^" | "", Some(minor), Some(patch)) if major == 0 && minor == 0 => Some([0, 0, next(patch)?]),
            ("^" | "", Some(minor), _) if major == 0 => Some([0, next(minor)?, 0]),
            ("^" | "", ..) => Some([next(major)?, 0, 0]),
            _ => return None,
        };
        whole(from, below)
    }

    /// Whether `version` will do. A pre-release does only where every version does.
    #[must_use]
    pub fn matches(&self, version: &Version) -> bool {
        let numbers = [version.major, version.minor, version.patch];
        let release = version.pre_release.is_empty() || self.text == "*";
        release && numbers >= self.from && self.below.is_none_or(|below| numbers < below)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_percentages_need_their_unit() {
        let millis = |text| duration(text).ok().map(|value| value.as_millis());
        for (text, expected) in [
            ("100ms", Some(100)),
            ("60s", Some(60_000)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("0s", Some(0)),
            ("60", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("60 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("9000h", None),
            ("", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
        for (text, expected) in [
            ("512MiB", Some(512 << 20)),
            ("1B", Some(1)),
            ("0B", None),
            ("512MB", None),
            ("512", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(size_bytes(text).ok(), expected, "{text}");
        }
        for (text, expected) in
            [("80%", Some(80)), ("250%", Some(250)), ("0%", None), ("80", None), ("999999%", None)]
        {
            assert_eq!(percent(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn names_are_lower_case_with_hyphens() {
        let long = "a".repeat(64);
        for (text, valid) in [
            ("file-explorer", true),
            ("a", true),
            ("7", true),
            (long.as_str(), true),
            ("", false),
            ("File", false),
            ("a_b", false),
            ("-a", false),
            ("a-", false),
            ("../a", false),
            (&format!("{long}a"), false),
        ] {
            assert_eq!(name(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn requirements_match_as_cargo_has_it() {
        for (requirement, matching, others) in [
            ("^0.1", &["0.1.0", "0.1.9"][..], &["0.0.9", "0.2.0", "1.0.0", "0.1.5-rc1"][..]),
            ("0.1.2", &["0.1.2", "0.1.3"], &["0.1.1", "0.2.0"]),
            ("^0.0.3", &["0.0.3"], &["0.0.4"]),
            ("1", &["1.0.0", "1.9.9"], &["2.0.0", "0.9.9"]),
            ("~1.2", &["1.2.0", "1.2.9"], &["1.3.0"]),
            ("=1.2.3", &["1.2.3"], &["1.2.4", "1.2.2"]),
            (">=1.2", &["1.2.0", "7.0.0"], &["1.1.9"]),
            ("*", &["0.0.0", "1.0.0-rc1"], &[]),
        ] {
            let parsed = Requirement::parse(requirement).expect("the requirement is well-formed");
            let matches = |text: &&str| parsed.matches(&Version::parse(text).expect("a version"));
            assert!(matching.iter().all(matches), "{requirement}");
            assert!(!others.iter().any(matches), "{requirement}");
        }
        for wrong in ["", "^", "x", "1.2.3.4", "<1", "^1.x", "18446744073709551615"] {
            assert!(Requirement::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn versions_have_three_numbers() {
        for (text, valid) in [
            ("0.1.0", true),
            ("1.2.3-rc.1", true),
            ("1.2", false),
            ("1.2.3-", false),
            ("v1.2.3", false),
            ("+1.2.3", false),
        ] {
            let parsed = Version::parse(text);
            assert_eq!(parsed.is_ok(), valid, "{text}");
            if let Ok(version) = parsed {
                assert_eq!(version.to_string(), text);
            }
        }
    }
}
