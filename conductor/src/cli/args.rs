//! The command line: what can be written, and the help that explains it. No behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    everything asked for was done
  1    the run, the call or the check failed
  2    wrong command line, input, melody, manifest or configuration
  3    something needed is missing or unusable: a binary, cargo, the data folder
  129  cancelled by SIGHUP      130  cancelled by Ctrl-C      143  cancelled by SIGTERM

Settings (defaults < conductor.toml < environment < flags):
  data-dir             SYMPHONY_DATA_DIR             where artifacts are kept
  extension-dirs       SYMPHONY_EXTENSION_DIRS       folders of extensions
  log                  SYMPHONY_LOG                  error, warn, info, debug, trace, or a filter
  step-timeout         SYMPHONY_STEP_TIMEOUT         time of a step that names none (30s)
  stop-timeout         SYMPHONY_STOP_TIMEOUT         time that extensions have for ending (5s)
  items-in-flight-max  SYMPHONY_ITEMS_IN_FLIGHT_MAX  items of a fan-out at the same time (64)
  cores                SYMPHONY_CORES                what claims on cpu share (all cores)
  build-profile        SYMPHONY_BUILD_PROFILE        cargo profile of extensions (release)";

/// Runs melodies: graphs of steps, each a call of an extension in a process of its own.
#[derive(Debug, Parser)]
#[command(name = "conductor", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
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
    /// Folder whose subfolders are extensions; may be given several times, the first wins. The folders
    /// `extensions` beside the melody and the current folder, and upward from there, follow.
    #[arg(long = "extensions", value_name = "DIR", global = true)]
    pub extensions: Vec<PathBuf>,
    /// Configuration file [default: the nearest conductor.toml from here upward].
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
    /// ends it at once.
    Run(Run),
    /// Call one method of an extension and print its answer as JSON.
    ///
    /// Example: conductor call echo.echo '{"text": "hello"}'
    Call(Call),
    /// Look into melodies without running them.
    #[command(subcommand)]
    Melody(Melody),
    /// See, check and build extensions.
    #[command(subcommand)]
    Extensions(Extensions),
    /// See, fetch and verify what runs have stored.
    #[command(subcommand)]
    Artifacts(Artifacts),
}

/// `run`
#[derive(Args, Debug)]
pub struct Run {
    /// The melody's file.
    pub melody: PathBuf,
    /// One input of the melody. The value is read as its declared type says.
    #[arg(short = 'i', long = "input", value_name = "KEY=VALUE")]
    pub inputs: Vec<std::ffi::OsString>,
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
