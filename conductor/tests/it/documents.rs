//! README and tutorial hold: what they tell people to write is written, what they tell people to run is run, and what
//! they say comes out does come out.
//!
//! ```text
//! sh      begins with cargo, conductor, python3 or cd: run by `sh -e`, one after the other, in a temporary folder
//! text    behind such a block in the same section: its output; `...` stands for any text, alone for any lines
//! rust    the file that the paragraph before names; where it names none, a program of its own, compiled
//! toml, python    the file that the paragraph before names
//!
//! <!-- run -->, <!-- test -->     CI runs it as it stands: not run here
//! <!-- not run: why -->           not run here
//! <!-- exit: 1 -->                it ends with this code
//! <!-- part -->                   the file is there and has these lines
//! ```
//!
//! `cargo run --release -p conductor --` is the conductor that the tests have: CI runs the longer form once.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::new_extension::{authors, has_python};
use crate::support::{Ended, Place, repository};

/// One code block and what stands before it.
#[derive(Debug, Default)]
struct Block {
    language: String,
    text: String,
    line: usize,
    /// `<!-- ... -->` directly above it, without the signs.
    markers: Vec<String>,
    /// The last file that the paragraph above it names.
    file: Option<String>,
    /// A heading stands between the block before and this one.
    begins_section: bool,
}

impl Block {
    /// What stands behind the colon of a marker, nothing if it has none.
    fn marker(&self, name: &str) -> Option<&str> {
        self.markers.iter().find_map(|marker| {
            let (word, rest) = marker.split_once(':').unwrap_or((marker, ""));
            (word.trim() == name).then(|| rest.trim())
        })
    }
}

fn blocks_of(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut next = Block::default();
    let mut paragraph = String::new();
    let mut open: Option<Block> = None;
    for (index, line) in document.lines().enumerate() {
        if let Some(block) = &mut open {
            if line == "```" {
                blocks.extend(open.take());
                paragraph.clear();
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(language) = line.strip_prefix("```") {
            next.language = language.split(',').next().unwrap_or_default().to_owned();
            next.line = index + 1;
            next.file = file_named(&paragraph);
            open = Some(std::mem::take(&mut next));
        } else if let Some(marker) = line.strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) {
            next.markers.push(marker.trim().to_owned());
        } else if line.starts_with('#') {
            paragraph.clear();
            next.begins_section = true;
        } else if line.is_empty() {
            // The paragraph above counts until the next one begins.
            paragraph.push('\n');
        } else {
            if paragraph.ends_with("\n\n") {
                paragraph.clear();
            }
            next.markers.clear();
            paragraph.push_str(line);
            paragraph.push('\n');
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// The last word in back quotes that is a file's name.
fn file_named(paragraph: &str) -> Option<String> {
    let quoted = paragraph.split('`').skip(1).step_by(2);
    let files = quoted.filter(|word| [".rs", ".toml", ".py"].iter().any(|end| word.ends_with(end)));
    files.last().map(str::to_owned)
}

/// Whether `output` is what a document shows: `...` stands for any text in a line, alone on one for any lines.
fn is_shown(shown: &str, output: &str) -> bool {
    fn lines_match(shown: &[&str], output: &[&str]) -> bool {
        match (shown.split_first(), output.split_first()) {
            (None, None) => true,
            (Some((&"...", rest)), _) => {
                lines_match(rest, output)
                    || output.split_first().is_some_and(|(_, output)| lines_match(shown, output))
            }
            (Some((shown, rest)), Some((line, output))) => {
                line_matches(shown, line) && lines_match(rest, output)
            }
            _ => false,
        }
    }
    let shown: Vec<&str> = shown.trim().lines().map(str::trim_end).collect();
    let output: Vec<&str> = output.trim().lines().map(str::trim_end).collect();
    lines_match(&shown, &output)
}

fn line_matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Runs a document's blocks, one after the other.
struct Reader<'a> {
    place: &'a Place,
    folder: PathBuf,
    /// Where the project's own extensions are, if the reader is in its repository.
    extensions: Option<PathBuf>,
    /// What the last block that was run said.
    output: Option<String>,
    has_python: bool,
    /// How many blocks of shell and of code held.
    ran: u32,
    written: u32,
    skipped: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(place: &'a Place, has_python: bool) -> Self {
        let folder = place.path("reader");
        fs::create_dir(&folder).expect("the folder is made");
        Self {
            place,
            folder,
            extensions: None,
            output: None,
            has_python,
            ran: 0,
            written: 0,
            skipped: Vec::new(),
        }
    }

    fn read(&mut self, document: &str) -> Result<(), String> {
        for block in blocks_of(document) {
            self.block(&block).map_err(|wrong| format!("line {}: {wrong}\n{}", block.line, block.text))?;
        }
        Ok(())
    }

    fn block(&mut self, block: &Block) -> Result<(), String> {
        let output = self.output.take().filter(|_| !block.begins_section);
        match block.language.as_str() {
            "sh" => self.shell(block),
            "text" => match output {
                Some(output) if !is_shown(&block.text, &output) => Err(format!("the output is:\n{output}")),
                _ => Ok(()),
            },
            "rust" | "toml" | "python" => self.code(block),
            _ => Ok(()),
        }
    }

    fn shell(&mut self, block: &Block) -> Result<(), String> {
        let why = if block.marker("run").or(block.marker("test")).is_some() {
            Some("CI runs it as it stands")
        } else if block.text.contains("python") && !self.has_python {
            Some("there is no python3")
        } else {
            block.marker("not run")
        };
        if let Some(why) = why {
            self.skipped.push(format!("line {}: {why}", block.line));
            return Ok(());
        }
        let word = block.text.split_whitespace().next().unwrap_or_default();
        if !["cargo", "conductor", "python3", "cd"].contains(&word) {
            return Err("it begins with something else than cargo, conductor, python3 and cd".to_owned());
        }
        let script = block.text.replace("cargo run --release -p conductor --", "conductor");
        // Where it ended is where the next one begins.
        let script = format!("exec 2>&1\ntrap 'pwd >\"$READER_FOLDER\"' EXIT\n{script}");
        let note = self.place.path("reader-folder");
        let mut command = authors(self.place, &self.folder, "sh");
        command.args(["-e", "-c", &script]).env("READER_FOLDER", &note).stderr(Stdio::piped());
        if let Some(extensions) = &self.extensions {
            command.env("SYMPHONY_EXTENSION_DIRS", extensions);
        }
        let Ended { code, stdout, .. } = Ended::of(command.output().map_err(|error| error.to_string())?);
        let expected: i32 =
            block.marker("exit").unwrap_or("0").parse().map_err(|_| "no exit code".to_owned())?;
        if code != Some(expected) {
            return Err(format!("it ended with {code:?} and not {expected}:\n{stdout}"));
        }
        let folder = fs::read_to_string(note).map_err(|error| error.to_string())?;
        self.folder = PathBuf::from(folder.trim_end_matches('\n'));
        self.output = Some(stdout);
        self.ran += 1;
        Ok(())
    }

    fn code(&mut self, block: &Block) -> Result<(), String> {
        let Some(file) = &block.file else {
            self.written += 1;
            return match block.language.as_str() {
                "rust" => self.compile(&block.text),
                language => Err(format!("no file is named for it, and {language} alone cannot be tried")),
            };
        };
        let path = self.folder.join(file);
        if block.marker("part").is_some() {
            let whole = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
            if !whole.contains(&block.text) {
                return Err(format!("{file} has no such lines"));
            }
        } else {
            fs::write(&path, &block.text).map_err(|error| format!("{file}: {error}"))?;
        }
        self.written += 1;
        Ok(())
    }

    /// A program of an extension, in a package of its own.
    fn compile(&self, text: &str) -> Result<(), String> {
        let run = |folder: &Path, program: &str, arguments: &[&str]| {
            let output = authors(self.place, folder, program).args(arguments).output();
            let ended = Ended::of(output.map_err(|error| error.to_string())?);
            if ended.code == Some(0) { Ok(()) } else { Err(ended.stderr) }
        };
        let conductor = env!("CARGO_BIN_EXE_conductor");
        run(&self.place.path(""), conductor, &["new", "extension", "shown", "--path", "shown"])?;
        let folder = self.place.path("shown");
        fs::write(folder.join("src/main.rs"), text).map_err(|error| error.to_string())?;
        run(&folder, "cargo", &["build", "--quiet"])?;
        fs::remove_dir_all(folder).map_err(|error| error.to_string())
    }
}

fn document(path: &str) -> String {
    fs::read_to_string(repository().join(path)).expect("the document is there")
}

fn tell_skipped(path: &str, reader: &Reader<'_>) {
    for skipped in &reader.skipped {
        // Past the capture of passing tests.
        let _ = writeln!(std::io::stderr(), "{path}: not run here: {skipped}");
    }
}

#[test]
fn the_readme_holds() {
    let place = Place::new();
    let mut reader = Reader::new(&place, true);
    // It speaks from a clone, where the project's extensions are found.
    reader.extensions = Some(repository().join("extensions"));
    std::os::unix::fs::symlink(repository().join("melodies"), reader.folder.join("melodies"))
        .expect("a link");
    reader.read(&document("README.md")).unwrap_or_else(|wrong| panic!("README.md, {wrong}"));
    tell_skipped("README.md", &reader);
    assert!(reader.ran > 0 && reader.written > 0, "it has commands and code");
}

#[test]
fn the_tutorial_holds() {
    let place = Place::new();
    let mut reader = Reader::new(&place, has_python("the_tutorial_holds, its part in Python"));
    reader.read(&document("docs/tutorial.md")).unwrap_or_else(|wrong| panic!("docs/tutorial.md, {wrong}"));
    tell_skipped("docs/tutorial.md", &reader);
    assert!(reader.ran > 5 && reader.written > 3, "it has commands and code");
}

#[test]
fn what_no_longer_holds_is_found() {
    for (document, expected) in [
        ("```sh\nconductor --version\n```\n\n```text\nconductor ...\n```\n", None),
        (
            "```sh\nconductor --version\n```\n\n```text\nviolin 0.1.0\n```\n",
            Some("line 5: the output is:\nconductor"),
        ),
        // Of another section, so of something else.
        ("```sh\nconductor --version\n```\n## Next\n\n```text\nviolin 0.1.0\n```\n", None),
        ("```sh\nconductor --no-such-flag\n```\n", Some("line 1: it ended with Some(2) and not 0")),
        ("<!-- exit: 2 -->\n```sh\nconductor --no-such-flag\n```\n", None),
        ("<!-- exit: 1 -->\n```sh\nconductor --version\n```\n", Some("it ended with Some(0) and not 1")),
        ("```sh\nrm -r .\n```\n", Some("it begins with something else")),
        ("<!-- not run: it is slow -->\n```sh\nrm -r .\n```\n", None),
        ("<!-- run -->\n```sh\ncargo run\n```\n", None),
        ("```toml\na = 1\n```\n", Some("no file is named for it")),
        (
            "Write `a.toml`:\n\n```toml\na = 1\n```\n\nIt is in `a.toml`:\n\n<!-- part -->\n```toml\na = 1\n```\n",
            None,
        ),
        (
            "Write `a.toml`:\n\n```toml\na = 1\n```\n\nIn `a.toml`:\n\n<!-- part -->\n```toml\na = 2\n```\n",
            Some("no such lines"),
        ),
        ("Into `nowhere/a.rs`:\n\n```rust\nfn main() {}\n```\n", Some("nowhere/a.rs: ")),
        (
            "```sh\ncd /\n```\n\n```sh\ncd tmp\n```\n\n```sh\nconductor --version\npwd\n```\n\n```text\n...\n/tmp\n```\n",
            None,
        ),
    ] {
        let place = Place::new();
        let wrong = Reader::new(&place, true).read(document).err();
        match (&wrong, expected) {
            (None, None) => {}
            (Some(wrong), Some(expected)) if wrong.contains(expected) => {}
            _ => panic!("{document}\n{wrong:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn shown_output_may_leave_out_what_differs_each_time() {
    for (shown, output, expected) in [
        ("a\nb", "a\nb\n", true),
        ("a", "a\nb\n", false),
        ("...\nb", "a\na\nb\n", true),
        ("...", "", true),
        ("a\n...", "b\n", false),
        ("took ... ms", "took 17 ms", true),
        ("took ... ms", "took 17 s", false),
        ("... of ...", "1 of 2", true),
        ("\"...\"", "\"x\"", true),
        ("a...b...c", "a1b2c", true),
        ("a...b...c", "a1c2b", false),
    ] {
        assert_eq!(is_shown(shown, output), expected, "{shown:?} {output:?}");
    }
}
