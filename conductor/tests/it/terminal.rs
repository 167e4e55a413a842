//! What terminals get: lines no wider than they are, and nothing that moves or has colours where that is not
//! wanted.

use crate::support::{Place, main_job_arguments, on_terminal, package_with_a_mistake};

/// What the main job writes to stderr, as the terminal `term` after `setup` gets it.
fn shown(place: &Place, term: &str, setup: &str, test: &str) -> Option<String> {
    let mut arguments = main_job_arguments(&place.path("tree"), []);
    arguments.retain(|argument| argument != "--json");
    let (code, shown) = on_terminal(&place.conductor(arguments), (term, setup, "> out"), test)?;
    assert_eq!(code, Some(0), "{shown}");
    Some(shown)
}

/// The text without what moves the cursor or clears lines.
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => drop(characters.find(char::is_ascii_alphabetic)),
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn a_narrow_terminal_gets_no_line_that_wraps() {
    let place = Place::new();
    place.write("tree/a.rs", "fn a() {}\n");
    // Built before: what cargo says is not cut.
    place.run(["extensions", "build", "file-explorer", "operators"]).with_code(0);
    for columns in [12, 30] {
        let test = "a_narrow_terminal_gets_no_line_that_wraps";
        let Some(shown) = shown(&place, "xterm", &format!("stty rows 24 cols {columns}"), test) else {
            return;
        };
        assert!(shown.contains('\u{1b}'), "bars are shown: {shown:?}");
        // One picture after the other, each of five lines that fill the terminal's width: no line feeds.
        let plain = without_escapes(&shown);
        let largest = plain.split(['\n', '\r']).map(|picture| picture.trim_end().chars().count()).max();
        assert!(largest.is_some_and(|largest| largest <= 5 * columns), "{columns}: {plain:?}");
    }
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let place = Place::new();
    place.write("tree/a.rs", "fn a() {}\n");
    let Some(shown) = shown(&place, "dumb", "true", "a_dumb_terminal_gets_plain_lines") else { return };
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert!(shown.contains("report: succeeded"), "{shown:?}");
}

#[test]
fn no_color_reaches_the_compiler() {
    let place = Place::new();
    package_with_a_mistake(&place);
    for (no_color, has_colours) in [("", true), ("1", false)] {
        let mut conductor = place.conductor(["extensions", "build", "bad", "--extensions", "mine"]);
        conductor.env("NO_COLOR", no_color);
        let test = "no_color_reaches_the_compiler";
        let Some((_, shown)) = on_terminal(&conductor, ("xterm", "true", ""), test) else { return };
        assert!(shown.contains("mismatched types"), "{shown}");
        // Colours end with `m`; what clears a line does not.
        assert_eq!(shown.contains("\u{1b}[0m"), has_colours, "{no_color:?}: {shown:?}");
    }
}
