//! Which names an extension can have, and what its interface is called after it. Pure.

use ipc_protocol::limits::NAME_BYTES_MAX;

use super::{Language, ScaffoldError};

/// What Rust reserves, now or for later, and what cargo needs for itself.
const RUST_WORDS: &str = "\
    abstract alloc as async await become box break build const continue core crate deps do dyn else enum \
    examples extern false final fn for gen if impl in incremental let loop macro match mod move mut \
    override priv proc-macro pub ref return self static std struct super test trait true try type typeof \
    unsafe unsized use virtual where while yield";

/// Names of traits and types that the interface, which is called after the extension, would hide: those of the
/// template, and those that Rust has everywhere.
const TYPES: &str = "\
    AsMut AsRef AsyncFn AsyncFnMut AsyncFnOnce Box Clone Context Copy Default DoubleEndedIterator Drop \
    Duration Eq Err ExactSizeIterator Extend Fault FaultCode Fn FnMut FnOnce From FromIterator Future \
    Into IntoFuture IntoIterator Iterator None Ok OneCall Option Ord PartialEq PartialOrd Result Self \
    Send Sized Some State String Sync ToOwned ToString TryFrom TryInto Unpin Vec";

/// Whether an extension in this language can have this name.
///
/// # Errors
///
/// [`ScaffoldError::Name`].
pub fn check(name: &str, language: Language) -> Result<(), ScaffoldError> {
    let refused = |why: String| Err(ScaffoldError::Name { name: name.to_owned(), language, why });
    if !is_well_formed(name) {
        let meant = well_formed(name).map(|meant| format!("; `{meant}` would do")).unwrap_or_default();
        return refused(format!(
            "a name has 1 to {NAME_BYTES_MAX} of a-z, 0-9 and hyphen, begins with a letter and does not end with a \
             hyphen{meant}"
        ));
    }
    if language == Language::Rust {
        if has_word(RUST_WORDS, name) {
            return refused(format!("Rust or cargo uses this word itself; `my-{name}` would do"));
        }
        let interface = interface(name);
        if has_word(TYPES, &interface) {
            return refused(format!(
                "its interface would hide Rust's or the SDK's `{interface}`; `my-{name}` would do"
            ));
        }
    }
    Ok(())
}

/// Whether cargo could tell a package `name` from `others`, which its SDK brings along.
///
/// # Errors
///
/// [`ScaffoldError::Name`].
pub fn check_beside(name: &str, others: &[String]) -> Result<(), ScaffoldError> {
    if others.iter().any(|other| other == name) {
        let why = format!(
            "the SDK uses a package of this name, and cargo could not tell which is meant; `my-{name}` would do"
        );
        return Err(ScaffoldError::Name { name: name.to_owned(), language: Language::Rust, why });
    }
    Ok(())
}

fn has_word(words: &str, word: &str) -> bool {
    words.split(' ').any(|other| other == word)
}

fn is_well_formed(name: &str) -> bool {
    let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    letters
        && name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

/// The nearest name that would do, if there is one: `MyTool_2` gives `my-tool-2`.
fn well_formed(name: &str) -> Option<String> {
    let mut meant = String::new();
    for letter in name.chars() {
        let begins_word = letter.is_ascii_uppercase()
            && meant.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit());
        if begins_word || matches!(letter, '_' | ' ' | '.') {
            meant.push('-');
        }
        if letter.is_ascii_alphanumeric() || letter == '-' {
            meant.push(letter.to_ascii_lowercase());
        }
    }
    let meant = meant.trim_matches('-');
    is_well_formed(meant).then(|| meant.to_owned())
}

/// The interface's name: `file-explorer` gives `FileExplorer`.
#[must_use]
pub fn interface(name: &str) -> String {
    let mut interface = String::with_capacity(name.len());
    for word in name.split('-') {
        let mut letters = word.chars();
        interface.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        interface.push_str(letters.as_str());
    }
    interface
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_manifests_and_crates() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for (name, in_rust, in_python) in [
            ("hello", true, true),
            ("file-explorer", true, true),
            ("a--b", true, true),
            (long.as_str(), true, true),
            (&format!("{long}a"), false, false),
            ("", false, false),
            ("7up", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("Hello", false, false),
            ("a_b", false, false),
            ("../a", false, false),
            ("caf\u{e9}", false, false),
            ("self", false, true),
            ("test", false, true),
            ("build", false, true),
            ("fault-code", false, true),
            ("result", false, true),
            ("iterator", false, true),
        ] {
            assert_eq!(check(name, Language::Rust).is_ok(), in_rust, "{name}");
            assert_eq!(check(name, Language::Python).is_ok(), in_python, "{name}");
        }
    }

    #[test]
    fn a_name_that_would_do_is_offered() {
        for (name, offered) in [
            ("MyTool_2", Some("my-tool-2")),
            ("Hello", Some("hello")),
            ("a.b c", Some("a-b-c")),
            ("_x_", Some("x")),
            ("7", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(well_formed(name).as_deref(), offered, "{name}");
        }
        let Err(error) = check("Hello", Language::Rust) else { panic!("it is refused") };
        assert!(error.help().contains("`hello` would do"), "{}", error.help());
    }

    #[test]
    fn interfaces_are_called_after_their_extension() {
        for (name, expected) in [("hello", "Hello"), ("file-explorer", "FileExplorer"), ("a--b2-3c", "AB23c")]
        {
            assert_eq!(interface(name), expected);
        }
    }

    #[test]
    fn a_package_of_the_sdks_cannot_be_an_extension() {
        assert!(check_beside("serde", &["bytes".to_owned(), "serde".to_owned()]).is_err());
        assert!(check_beside("hello", &["serde".to_owned()]).is_ok());
    }
}
