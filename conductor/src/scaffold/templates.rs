//! The files of a new extension, filled in. The templates are files of their own beside this one.

use super::names;
use super::workspace::Inherited;

/// One file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the extension's folder.
    pub path: &'static str,
    /// What it holds.
    pub text: String,
    /// Whether it is a program.
    pub is_executable: bool,
}

/// Why a package that no workspace takes in says so.
const OWN_WORKSPACE: &str = "\n# On its own, whatever lies in the folders above.\n[workspace]";
const WORKSPACE_LINTS: &str = "\n[lints]\nworkspace = true\n";

/// The version of an extension that inherits none.
const VERSION: &str = "0.1.0";

/// What a package says of itself, unless its workspace does; what has no value is said only there.
const PACKAGE: [(&str, &str); 5] = [
    ("version", "\"__VERSION__\""),
    ("edition", "\"2024\""),
    ("rust-version", ""),
    ("license", ""),
    ("publish", "false"),
];

/// Where a package stands.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a workspace.
    Member(&'a Inherited),
    /// On its own, beginning with this lock file, if there is one.
    Alone(Option<&'a str>),
}

/// A Rust extension. `sdk` is its dependency, a line of TOML.
#[must_use]
pub fn rust(name: &str, sdk: &str, place: Place<'_>) -> Vec<File> {
    let inherited = match place {
        Place::Member(inherited) => inherited,
        Place::Alone(_) => &Inherited::default(),
    };
    let package = PACKAGE.iter().filter_map(|(key, value)| match *value {
        _ if inherited.package.contains_key(*key) => Some(format!("{key}.workspace = true")),
        "" => None,
        value => Some(format!("{key} = {value}")),
    });
    let package = package.collect::<Vec<_>>().join("\n");
    let lints = if inherited.has_lints { WORKSPACE_LINTS } else { "" };
    let version = inherited.package.get("version").and_then(toml::Value::as_str);
    let own_workspace = if matches!(place, Place::Alone(_)) { OWN_WORKSPACE } else { "" };
    let fill = |text: &str| {
        let text = text.replace("__PACKAGE__", &package).replace("__LINTS__", lints);
        let text = text.replace("__VERSION__", version.unwrap_or(VERSION));
        let text = text.replace("__NAME__", name).replace("__INTERFACE__", &names::interface(name));
        let text = text.replace("__WORKSPACE__", own_workspace);
        text.replace("__SDK__", sdk)
    };
    let mut files = filled(
        &[
            ("Cargo.toml", include_str!("templates/rust/Cargo.toml")),
            ("extension.toml", include_str!("templates/rust/extension.toml")),
            ("src/main.rs", include_str!("templates/rust/main.rs")),
            ("README.md", include_str!("templates/rust/README.md")),
        ],
        fill,
    );
    if let Place::Alone(lock) = place {
        let own = [(".gitignore", include_str!("templates/rust/gitignore"))];
        let own = own.into_iter().chain(lock.map(|lock| ("Cargo.lock", lock)));
        files.extend(filled(&own.collect::<Vec<_>>(), str::to_owned));
    }
    files
}

/// A Python extension.
#[must_use]
pub fn python(name: &str) -> Vec<File> {
    let mut files = filled(
        &[
            ("extension.toml", include_str!("templates/python/extension.toml")),
            ("extension.py", include_str!("templates/python/extension.py")),
            ("test_extension.py", include_str!("templates/python/test_extension.py")),
            ("README.md", include_str!("templates/python/README.md")),
            (".gitignore", include_str!("templates/python/gitignore")),
        ],
        |text| text.replace("__NAME__", name).replace("__VERSION__", VERSION),
    );
    for file in &mut files {
        file.is_executable = file.path == "extension.py";
    }
    files
}

fn filled(templates: &[(&'static str, &str)], fill: impl Fn(&str) -> String) -> Vec<File> {
    let file = |(path, text): &(&'static str, &str)| {
        let mut text = fill(text).trim_end().to_owned();
        text.push('\n');
        File { path, text, is_executable: false }
    };
    templates.iter().map(file).collect()
}
