//! A file's language by its name: first the whole name, then what follows the last dot.

/// What is said of a file whose name says nothing, if it is text.
pub(crate) const OTHER: &str = "Other";

/// What is said of a file whose name says nothing, if it is no text.
pub(crate) const BINARY: &str = "Binary";

/// Whole names, in lower case.
const NAMES: &[(&str, &str)] = &[
    (".bashrc", "Shell"),
    (".editorconfig", "INI"),
    (".gitattributes", "Git"),
    (".gitignore", "Git"),
    (".gitmodules", "Git"),
    ("brewfile", "Ruby"),
    ("build.bazel", "Starlark"),
    ("cargo.lock", "TOML"),
    ("cmakelists.txt", "CMake"),
    ("dockerfile", "Dockerfile"),
    ("gemfile", "Ruby"),
    ("gnumakefile", "Makefile"),
    ("jenkinsfile", "Groovy"),
    ("justfile", "Just"),
    ("makefile", "Makefile"),
    ("meson.build", "Meson"),
    ("pipfile", "TOML"),
    ("poetry.lock", "TOML"),
    ("rakefile", "Ruby"),
    ("workspace.bazel", "Starlark"),
];

/// What follows the last dot, in lower case, sorted.
const EXTENSIONS: &[(&str, &str)] = &[
    ("adoc", "AsciiDoc"),
    ("asm", "Assembly"),
    ("awk", "Awk"),
    ("bash", "Shell"),
    ("bat", "Batch"),
    ("bzl", "Starlark"),
    ("c", "C"),
    ("cc", "C++"),
    ("cfg", "INI"),
    ("clj", "Clojure"),
    ("cmake", "CMake"),
    ("cpp", "C++"),
    ("cs", "C#"),
    ("css", "CSS"),
    ("csv", "CSV"),
    ("cxx", "C++"),
    ("d", "D"),
    ("dart", "Dart"),
    ("diff", "Diff"),
    ("el", "Emacs Lisp"),
    ("elm", "Elm"),
    ("erl", "Erlang"),
    ("ex", "Elixir"),
    ("exs", "Elixir"),
    ("fish", "Shell"),
    ("fs", "F#"),
    ("go", "Go"),
    ("gradle", "Groovy"),
    ("graphql", "GraphQL"),
    ("groovy", "Groovy"),
    ("h", "C"),
    ("hcl", "HCL"),
    ("hh", "C++"),
    ("hpp", "C++"),
    ("hs", "Haskell"),
    ("htm", "HTML"),
    ("html", "HTML"),
    ("ini", "INI"),
    ("ipynb", "Jupyter"),
    ("java", "Java"),
    ("jl", "Julia"),
    ("js", "JavaScript"),
    ("json", "JSON"),
    ("jsonl", "JSON"),
    ("jsx", "JavaScript"),
    ("kt", "Kotlin"),
    ("kts", "Kotlin"),
    ("less", "Less"),
    ("lisp", "Lisp"),
    ("lua", "Lua"),
    ("m", "Objective-C"),
    ("markdown", "Markdown"),
    ("md", "Markdown"),
    ("mjs", "JavaScript"),
    ("mk", "Makefile"),
    ("ml", "OCaml"),
    ("mli", "OCaml"),
    ("mm", "Objective-C"),
    ("nim", "Nim"),
    ("nix", "Nix"),
    ("nu", "Nushell"),
    ("patch", "Diff"),
    ("php", "PHP"),
    ("pl", "Perl"),
    ("pm", "Perl"),
    ("proto", "Protocol Buffers"),
    ("ps1", "PowerShell"),
    ("py", "Python"),
    ("pyi", "Python"),
    ("r", "R"),
    ("rb", "Ruby"),
    ("rs", "Rust"),
    ("rst", "reStructuredText"),
    ("s", "Assembly"),
    ("sass", "Sass"),
    ("scala", "Scala"),
    ("scm", "Scheme"),
    ("scss", "Sass"),
    ("sh", "Shell"),
    ("sql", "SQL"),
    ("svelte", "Svelte"),
    ("svg", "SVG"),
    ("swift", "Swift"),
    ("tcl", "Tcl"),
    ("tex", "TeX"),
    ("tf", "HCL"),
    ("toml", "TOML"),
    ("ts", "TypeScript"),
    ("tsv", "CSV"),
    ("tsx", "TypeScript"),
    ("txt", "Text"),
    ("v", "Verilog"),
    ("vim", "Vim script"),
    ("vue", "Vue"),
    ("xml", "XML"),
    ("yaml", "YAML"),
    ("yml", "YAML"),
    ("zig", "Zig"),
    ("zsh", "Shell"),
];

/// LIMIT: bytes of a name that is in a table.
const NAME_BYTES_MAX: usize = 32;

/// The language of a file with this path, if its name says one.
pub(crate) fn of(path: &[u8]) -> Option<&'static str> {
    let name = path.rsplit(|&byte| byte == b'/').next()?;
    let extension = name.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0);
    look_up(NAMES, name).or_else(|| look_up(EXTENSIONS, &name[extension? + 1..]))
}

fn look_up(table: &[(&str, &'static str)], key: &[u8]) -> Option<&'static str> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let key = buffer.get_mut(..key.len()).map(|lower| {
        lower.copy_from_slice(key);
        lower.make_ascii_lowercase();
        &*lower
    })?;
    let at = table.binary_search_by(|(name, _)| name.as_bytes().cmp(key)).ok()?;
    Some(table[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_fit() {
        for table in [NAMES, EXTENSIONS] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "unsorted, or twice");
            assert!(
                table.iter().all(|(name, _)| name.len() <= NAME_BYTES_MAX && *name == name.to_lowercase())
            );
        }
    }

    #[test]
    fn languages_are_known_by_name_and_by_extension() {
        let cases: [(&[u8], Option<&str>); 9] = [
            (b"src/main.rs", Some("Rust")),
            (b"SRC/MAIN.RS", Some("Rust")),
            (b"a/Makefile", Some("Makefile")),
            (b"CMakeLists.txt", Some("CMake")),
            (b"notes.txt", Some("Text")),
            (b".gitignore", Some("Git")),
            (b".rs", None),
            (b"a.tar.gz", None),
            (b"\xff\xfe.py", Some("Python")),
        ];
        for (path, language) in cases {
            assert_eq!(of(path), language, "{}", path.escape_ascii());
        }
        assert_eq!(of(&[b'x'; 5000]), None);
    }
}
