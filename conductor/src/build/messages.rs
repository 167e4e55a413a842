//! What cargo says on stdout while it builds (`--message-format=json-render-diagnostics`): one JSON
//! object a line. Pure; lines that are no message of cargo are ignored.

use std::path::PathBuf;

use serde::Deserialize;

/// LIMIT: bytes of one line that are looked at; a longer one is no message that matters here.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// A line of cargo's that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A crate is done.
    Compiled {
        /// Name of its package.
        package: String,
        /// Whether there was nothing to do.
        is_fresh: bool,
        /// The binary that came out, if it is one, with the name of its target.
        binary: Option<(String, PathBuf)>,
        /// The library that a host can load, if it is one.
        library: Option<PathBuf>,
    },
    /// The build is over.
    Finished {
        /// Whether everything was built.
        success: bool,
    },
}

#[derive(Deserialize)]
struct Line {
    reason: String,
    package_id: Option<String>,
    target: Option<Target>,
    executable: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    fresh: bool,
    #[serde(default)]
    success: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Message {
    /// The message in a line, if it is one that matters.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > LINE_BYTES_MAX {
            return None;
        }
        let line: Line = serde_json::from_slice(line).ok()?;
        match line.reason.as_str() {
            "compiler-artifact" => {
                let target = line.target?;
                let is = |wanted: &str| target.kind.iter().any(|kind| kind == wanted);
                let (is_binary, is_library) = (is("bin"), is("cdylib"));
                let is_shared = |file: &PathBuf| file.extension().is_some_and(|end| end == "so");
                Some(Self::Compiled {
                    package: package_name(&line.package_id?),
                    is_fresh: line.fresh,
                    binary: line.executable.filter(|_| is_binary).map(|file| (target.name, file)),
                    library: line.filenames.into_iter().find(|file| is_library && is_shared(file)),
                })
            }
            "build-finished" => Some(Self::Finished { success: line.success }),
            _ => None,
        }
    }
}

/// The name in a package id: `path+file:///x/operators#0.1.0`, `registry+https://...#serde@1.0.0`, or as
/// older versions of cargo wrote it, `operators 0.1.0 (path+file:///x/operators)`.
fn package_name(id: &str) -> String {
    let name = match id.split_once('#') {
        Some((_, fragment)) if fragment.contains('@') => fragment.split('@').next(),
        Some((url, _)) => url.split('?').next().and_then(|url| url.rsplit('/').next()),
        None => id.split(' ').next(),
    };
    name.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_libraries_and_the_end_are_told_apart() {
        let binary = br#"{"reason":"compiler-artifact","package_id":"path+file:///w/extensions/echo#0.1.0",
            "target":{"kind":["bin"],"name":"echo"},"executable":"/t/release/echo","fresh":true,"new":[1]}"#;
        let compiled = Message::Compiled {
            package: "echo".to_owned(),
            is_fresh: true,
            binary: Some(("echo".to_owned(), "/t/release/echo".into())),
            library: None,
        };
        assert_eq!(Message::parse(binary), Some(compiled));

        let script = br#"{"reason":"compiler-artifact","package_id":"registry+https://x/y#serde@1.0.2",
            "target":{"kind":["custom-build"],"name":"build-script-build"},"executable":"/t/b","fresh":false}"#;
        let compiled =
            Message::Compiled { package: "serde".to_owned(), is_fresh: false, binary: None, library: None };
        assert_eq!(Message::parse(script), Some(compiled));

        let library = br#"{"reason":"compiler-artifact","package_id":"path+file:///w/extensions/echo#0.1.0",
            "target":{"kind":["cdylib","rlib"],"name":"echo"},"executable":null,"fresh":true,
            "filenames":["/t/release/libecho.rlib","/t/release/libecho.so"]}"#;
        let compiled = Message::Compiled {
            package: "echo".to_owned(),
            is_fresh: true,
            binary: None,
            library: Some("/t/release/libecho.so".into()),
        };
        assert_eq!(Message::parse(library), Some(compiled));

        let end = br#"{"reason":"build-finished","success":false}"#;
        assert_eq!(Message::parse(end), Some(Message::Finished { success: false }));
    }

    #[test]
    fn anything_else_is_ignored() {
        for line in [&b""[..], b"warning: x", b"{}", b"[1]", br#"{"reason":"compiler-artifact"}"#] {
            assert_eq!(Message::parse(line), None);
        }
    }

    #[test]
    fn package_names_are_found_in_every_form_of_id() {
        for (id, name) in [
            ("path+file:///w/a-b#0.1.0", "a-b"),
            ("path+file:///w/dir#a-b@0.1.0", "a-b"),
            ("git+https://x/y?rev=1#a-b@0.1.0", "a-b"),
            ("a-b 0.1.0 (path+file:///w/dir)", "a-b"),
        ] {
            assert_eq!(package_name(id), name);
        }
    }
}
