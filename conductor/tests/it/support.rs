//! What the tests share: a place of their own, the conductor with its surroundings under control, trees with
//! strange names, processes and their descendants.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::processes::{Process, descendants};

/// Everything is over long before; a test that waits so long has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(300);

/// A folder of a test's own, with a data folder and a tree.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        fs::write(&path, text).expect("the file is written");
        path
    }

    /// The conductor, with this place's data folder and the project's extensions, built without
    /// optimisation in the target folder of this test.
    pub(crate) fn conductor<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conductor"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("SYMPHONY_DATA_DIR", self.path("data"))
            .env("SYMPHONY_EXTENSION_DIRS", repository().join("extensions"))
            .env("SYMPHONY_BUILD_PROFILE", "dev")
            .env("CARGO_TARGET_DIR", target_folder())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env_remove("SYMPHONY_LOG")
            .env_remove("SYMPHONY_CONFIG")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    /// Runs the conductor to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        Ended::of(self.conductor(arguments).output().expect("the conductor runs"))
    }

    /// Starts the conductor with its output kept.
    pub(crate) fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        let mut command = self.conductor(arguments);
        let child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the conductor starts");
        Running { child: Some(child) }
    }

    /// `run` of the main job over `tree`, as one document.
    pub(crate) fn main_job<'a>(&self, tree: &Path, more: impl IntoIterator<Item = &'a str>) -> Ended {
        self.run(main_job_arguments(tree, more))
    }
}

pub(crate) fn main_job_arguments<'a>(tree: &Path, more: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    let mut path = OsString::from("path=");
    path.push(tree);
    let melody = repository().join("melodies/folder-report.toml").into_os_string();
    let fixed = ["run".into(), melody, "--json".into(), "-i".into(), path];
    fixed.into_iter().chain(more.into_iter().map(OsString::from)).collect()
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// The folder that this test's own binary was built in.
pub(crate) fn target_folder() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_conductor"));
    binary.ancestors().nth(2).expect("target/debug/conductor").to_path_buf()
}

/// How the conductor ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub(crate) fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The one document on stdout.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in stdout: {}\nstderr: {}", self.stdout, self.stderr))
    }

    /// The bytes of an output that the document names.
    #[track_caller]
    pub(crate) fn output(&self, name: &str) -> Vec<u8> {
        let document = self.document();
        let path = document["outputs"][name]["path"].as_str().unwrap_or_else(|| panic!("{document}"));
        fs::read(path).expect("the object is there")
    }

    /// `rows.json` by path.
    #[track_caller]
    pub(crate) fn rows(&self) -> BTreeMap<String, Value> {
        let rows: Vec<Value> = serde_json::from_slice(&self.output("rows.json")).expect("a list of rows");
        let count = rows.len();
        let by_path = rows.into_iter().map(|row| (row["path"].as_str().expect("a path").to_owned(), row));
        let by_path: BTreeMap<_, _> = by_path.collect();
        assert_eq!(by_path.len(), count, "every path once");
        by_path
    }
}

/// A conductor that runs; killed with the test.
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    fn child(&self) -> &Child {
        self.child.as_ref().expect("it was not waited for")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child());
        rustix::process::kill_process(pid, signal).expect("it is there to be signalled");
    }

    /// Whether it is over: a zombie until it is waited for.
    pub(crate) fn has_ended(&self) -> bool {
        Process::read(self.pid()).is_none()
    }

    pub(crate) fn signal_if_alive(&self, signal: Signal) {
        // Not waited for yet, so the id is still its own.
        let _ = rustix::process::kill_process(Pid::from_child(self.child()), signal);
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let child = self.child.take().expect("it is waited for once");
        Ended::of(child.wait_with_output().expect("it can be waited for"))
    }

    /// Waits until a descendant runs the program `name`, and gives its process.
    #[track_caller]
    pub(crate) fn descendant(&self, name: &str) -> Process {
        let mut found = None;
        eventually(&format!("a process {name}"), || {
            found = descendants(self.pid()).into_iter().find(|process| process.name == name);
            found.is_some()
        });
        found.expect("it was found")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits for a level, with a bound.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < BOUND, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Gives `outer` the surroundings of `inner`: its variables, those that it is not to have, its folder.
fn surround(outer: &mut Command, inner: &Command) {
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer.current_dir(inner.get_current_dir().expect("a place")).stdin(Stdio::null());
}

/// `command`, run by a shell's `script` as its arguments; `outer` runs the shell.
pub(crate) fn by_a_shell(outer: &[&str], script: &str, command: &Command) -> Command {
    let inner = ["sh", "-c", script, "sh"];
    let mut words = outer.iter().chain(&inner);
    let mut shell = Command::new(words.next().expect("a program"));
    shell.args(words).arg(command.get_program()).args(command.get_args());
    surround(&mut shell, command);
    shell
}

/// What `command` writes to a terminal of the kind `term`, after `setup`; `None`, and `test` is skipped, where
/// there is no program that makes one. `output`: where its stdout goes instead.
pub(crate) fn on_terminal(
    command: &Command,
    (term, setup, output): (&str, &str, &str),
    test: &str,
) -> Option<(Option<i32>, String)> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().expect("plain words"))).collect();
    let line = format!("{setup}; {} {output}", words.join(" "));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    surround(&mut script, command);
    script.env("TERM", term);
    match script.output() {
        Ok(output) => Some((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(error) => {
            skip(test, &format!("script cannot be run: {error}"));
            None
        }
    }
}

/// An extension `bad` in the folder `mine`, which no compiler takes.
pub(crate) fn package_with_a_mistake(place: &Place) {
    place.write(
        "mine/bad/extension.toml",
        "name = \"bad\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"bad\"]\n[build]\ncargo-package = \"bad\"\n",
    );
    let package = "[package]\nname = \"bad\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    place.write("mine/bad/Cargo.toml", package);
    place.write("mine/bad/src/main.rs", "fn main() { let x: u8 = \"text\"; }\n");
}

/// A melody `m.toml` that stores `text`.
pub(crate) fn melody_that_stores(place: &Place, text: &str) {
    place.write(
        "m.toml",
        &format!(
            "name = \"m\"\n[[steps]]\nid = \"a\"\ncall = \"echo.echo\"\nwith = {{ text = \"{text}\" }}\n\
             output = {{ artifact = \"text\" }}\n"
        ),
    );
}

/// Makes a tree with the names that real trees have; gives how many files it has, hidden ones included.
pub(crate) fn strange_tree(root: &Path) -> usize {
    let file = |name: &[u8], text: &str| {
        let path = root.join(OsString::from_vec(name.to_vec()));
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        fs::write(path, text).expect("the file is written");
    };
    file(b"plain.rs", "fn main() {}\n");
    file(b"two words.txt", "one two\nthree\n");
    file(b"new\nline.md", "# title\n");
    file(b"not-utf8-\xff\xfe.bin", "\u{0}\u{1}");
    file("\u{fc}mlaut \u{1f3b5}.toml".as_bytes(), "a = 1\n");
    file(b"quote\"s and \\back\\slashes", "x");
    file(b"deep/er/still/file.py", "print(1)\n");
    file(b"empty", "");
    file(b".hidden", "secret\n");
    file(b"ignored.log", "log\n");
    fs::write(root.join(".gitignore"), "*.log\n").expect("the file is written");
    fs::create_dir_all(root.join("empty folder")).expect("the folder is made");
    std::os::unix::fs::symlink(root, root.join("deep/loop")).expect("the link is made");
    std::os::unix::fs::symlink("nowhere", root.join("broken link")).expect("the link is made");
    11
}

/// Makes `count` small files in folders of a thousand.
pub(crate) fn many_files(root: &Path, count: usize) {
    for index in 0..count {
        let folder = root.join(format!("d{}", index / 1000));
        if index % 1000 == 0 {
            fs::create_dir_all(&folder).expect("the folder is made");
        }
        fs::write(folder.join(format!("f{index}.txt")), format!("file {index}\n"))
            .expect("the file is written");
    }
}

/// Says that a test needs what this machine lacks: past the capture of passing tests, so that a summary can
/// count it.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
