//! The command line: what can be written, and the help that explains it. No behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::topics;

/// Runs melodies: graphs of steps, each a call of an extension in a process of its own.
///
/// A melody is a TOML file that says which methods of which extensions are called with what, and how results
/// flow between them. The conductor builds the extensions that a melody needs, starts each in a process of its
/// own when it is first called, runs the steps as they become ready, and keeps what they give as artifacts.
///
/// Results go to stdout, progress, logs and errors to stderr.
#[derive(Debug, Parser)]
#[command(
    name = "conductor",
    version,
    after_help = "See `conductor --help` for examples, exit codes, settings, environment and files.",
    after_long_help = topics::text(),
    arg_required_else_help = true,
    max_term_width = 110
)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten, next_help_heading = "Options of every command")]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Folder for artifacts and caches [default: $XDG_DATA_HOME/symphony or ~/.local/share/symphony].
    #[arg(long = "data", value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// Folder whose subfolders are extensions; may be given several times, the first wins. Then follow the
    /// folders `extensions` from the melody upward, then from the current folder upward each folder's own
    /// extension and those in its `extensions`, last those in the current folder's folders: all of these only
    /// where they belong to you or root and not everybody may write to them.
    #[arg(long = "extensions", value_name = "DIR", global = true)]
    pub extensions: Vec<PathBuf>,
    /// The project's configuration file [default: $SYMPHONY_CONFIG, else the nearest conductor.toml from here
    /// upward].
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as
    /// `warn,extension=debug` (extensions' own records) [default: warn].
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log: Option<String>,
    /// One machine-readable JSON document on stdout instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a melody: build what it needs, show its steps filling in, store its outputs.
    ///
    /// Progress and logs go to stderr, the result to stdout. Ctrl-C once cancels the run cleanly, twice
    /// ends it at once. SIGUSR1 has it tell what it is doing and what waits for what: kill -USR1 PID.
    Run(Run),
    /// Call one method of an extension and print its answer as JSON.
    ///
    /// Through the conductor that serves the data folder, if one does and has the extension; else by itself.
    ///
    /// The arguments are checked against the method's description before anything is started;
    /// `conductor extensions show EXTENSION` tells what a method takes.
    ///
    /// Example: conductor call echo.echo '{"text": "hello"}'
    Call(Call),
    /// Stay up, with extensions that others call: `conductor ps`, `call`, `why`, `stop`, `reset`, and programs.
    ///
    /// It listens in the data folder, for this user and root alone, and ends in order at a signal or at `conductor
    /// stop`. An extension is started when it is first called.
    Serve(Serve),
    /// See what a conductor that stays up hosts, and how each extension is doing.
    Ps,
    /// See how an extension of a conductor that stays up is doing, and how its instances ended.
    Why {
        /// The extension's name.
        extension: String,
    },
    /// See what happens to the extensions of a conductor that stays up, as it happens.
    Events {
        /// First what has happened so far, as far as it is kept.
        #[arg(long)]
        past: bool,
    },
    /// See what the extensions of a conductor that stays up say, and have said.
    Logs {
        /// The extension's name; all without one.
        extension: Option<String>,
        /// Go on with what they say from now on.
        #[arg(long, short)]
        follow: bool,
    },
    /// End an extension of a conductor that stays up, or without a name that conductor, in order.
    ///
    /// The next call of an extension that was stopped starts it again.
    Stop {
        /// The extension's name.
        extension: Option<String>,
    },
    /// Forget the failures of an extension of a conductor that stays up: one that is broken can be called again.
    Reset {
        /// The extension's name.
        extension: String,
    },
    /// Look into melodies without running them.
    #[command(subcommand)]
    Melody(Melody),
    /// See, check and build extensions.
    #[command(subcommand)]
    Extensions(Extensions),
    /// See, fetch and verify what runs have stored.
    #[command(subcommand)]
    Artifacts(Artifacts),
    /// Begin something new from a template.
    #[command(subcommand)]
    New(New),
    /// See the settings in force.
    #[command(subcommand)]
    Config(Config),
    /// Look at this machine: what works, what is missing, and what follows from it.
    ///
    /// Each thing is tried where trying costs nothing. Exit code 3 if something is missing without which no
    /// melody can be run.
    Doctor,
    /// Print a script that completes commands in a shell.
    ///
    /// Example for bash: conductor completions bash > ~/.local/share/bash-completion/completions/conductor
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    ///
    /// Without a folder the page of `conductor` itself goes to stdout: conductor man | man -l -
    Man {
        /// The folder for the pages of all commands; made if it is not there.
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// `run`
#[derive(Args, Debug)]
pub struct Run {
    /// The melody's file.
    pub melody: PathBuf,
    /// One input of the melody. The value is read as its declared type says.
    #[arg(short = 'i', long = "input", value_name = "KEY=VALUE")]
    pub inputs: Vec<std::ffi::OsString>,
    /// How urgent the steps are that name no priority of their own: 0 is served last, 255 first.
    #[arg(long, value_name = "LEVEL", default_value_t = 128)]
    pub priority: u8,
}

/// `serve`
#[derive(Args, Debug)]
pub struct Serve {
    /// The extensions' names [default: all that can be found from here].
    pub names: Vec<String>,
}

/// `call`
#[derive(Args, Debug)]
pub struct Call {
    /// The extension and its method.
    #[arg(value_name = "EXTENSION.METHOD")]
    pub method: String,
    /// The arguments as a JSON object.
    #[arg(value_name = "JSON", default_value = "{}")]
    pub arguments: String,
    /// How long to wait for the answer [default: the manifest's limits.call, else the setting
    /// step-timeout, 30s].
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Not through a conductor that serves the data folder.
    #[arg(long)]
    pub alone: bool,
}

/// `melody`
#[derive(Debug, Subcommand)]
pub enum Melody {
    /// Find every mistake that can be found before a run: unknown steps, methods, inputs, types, cycles.
    ///
    /// Methods are checked against the descriptions of built extensions; nothing is run.
    Check {
        /// The melody's file.
        file: PathBuf,
    },
    /// Draw what waits for what. No extension needs to be built for it.
    ///
    /// With --json the graph is a document: steps, and edges between their places.
    Graph {
        /// The melody's file.
        file: PathBuf,
        /// How it is drawn: lines of text, a Mermaid flowchart, or an SVG file for browsers.
        #[arg(short, long, value_enum, default_value_t = GraphFormat::Text)]
        format: GraphFormat,
        /// The file to write to instead of stdout; must not exist.
        #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
        output: Option<PathBuf>,
    },
}

/// How a graph is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// One step a line, with rails to those that wait for it.
    Text,
    /// A flowchart for Markdown.
    Mermaid,
    /// A picture.
    Svg,
}

/// `config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show every setting with its value and where that came from.
    Show,
}

/// `extensions`
#[derive(Debug, Subcommand)]
pub enum Extensions {
    /// List the extensions that can be found from here.
    List,
    /// Show one extension: its manifest and its methods, as described by its last build.
    Show {
        /// The extension's name.
        name: String,
    },
    /// Check manifests, with file, line and column of every mistake.
    Check {
        /// A manifest, or a folder of one or of many [default: all that can be found from here].
        path: Option<PathBuf>,
    },
    /// Build extensions with cargo and store their descriptions beside their binaries.
    Build {
        /// The extensions' names [default: all that can be found from here].
        names: Vec<String>,
    },
}

/// `artifacts`
#[derive(Debug, Subcommand)]
pub enum Artifacts {
    /// List the names of what is stored, with size and digest.
    List,
    /// Write one artifact to stdout or to a file.
    Get {
        /// Its name (`RUN/NAME`) or its digest.
        artifact: String,
        /// The file to write to instead of stdout; must not exist.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read artifacts back and compare them with their digests.
    Verify {
        /// Its name or its digest [default: everything stored].
        artifact: Option<String>,
    },
    /// Remove names, so that what nothing else refers to can be collected.
    ///
    /// Nothing is removed from the disk before `conductor artifacts collect`. What the document of a run says of its
    /// outputs holds as long as their names are there.
    Remove {
        /// Names (`RUN/NAME`), or runs (`RUN`) with all their names.
        #[arg(value_name = "NAME", required_unless_present = "older_than")]
        names: Vec<String>,
        /// The names of all runs that began so long ago: 30d, 12h, 90m.
        #[arg(long, value_name = "TIME", conflicts_with = "names")]
        older_than: Option<String>,
        /// Only say which ones.
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove from the disk what no name and no living process refers to.
    ///
    /// Every output of a run has a name until `conductor artifacts remove` removes it. Runs may go on meanwhile.
    Collect {
        /// Only say how much no name refers to.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `new`
#[derive(Debug, Subcommand)]
pub enum New {
    /// Write a new extension: a folder that builds, runs and tests at once.
    ///
    /// Example: conductor new extension hello && cd hello && conductor call hello.greet '{"name": "you"}'
    Extension(NewExtension),
}

/// `new extension`
#[derive(Args, Debug)]
pub struct NewExtension {
    /// Its name: a-z, 0-9 and hyphens.
    pub name: String,
    /// The language: `rust` with the SDK, `python` with the standard library only.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    pub language: Language,
    /// The folder to be made [default: extensions/NAME where there is a folder extensions, else NAME].
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// The SDK's folder, or that of its repository [default: $SYMPHONY_SDK, else the repository that this
    /// conductor was built from].
    #[arg(long, value_name = "DIR")]
    pub sdk: Option<PathBuf>,
}

/// Languages of new extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Rust.
    Rust,
    /// Python.
    Python,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
        let _ = Arguments::try_parse_from(["conductor", "run", "m.toml", "-i", "a=b", "--json"]).unwrap();
    }
}
