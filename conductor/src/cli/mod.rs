//! The command line: from arguments to an exit code. The one place that prints errors.
//!
//! Each command is a file of its own and returns an [`Exit`] or a [`Failure`]; stdout belongs to results,
//! stderr to progress, logs and errors. Commands must not print errors themselves.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Parser as _;
use extension_host::Diagnostics;

use crate::config::{self, Layer, Settings};
use crate::document::ErrorReport;
use crate::exit::{Exit, Failure, chain};
use crate::logs;
use crate::printable;
use crate::progress::Screen;
use crate::signals::Cancellation;

pub mod args;
mod artifacts;
mod call;
mod extensions;
mod melody;
mod prepare;
mod run;
mod table;

use args::{Arguments, Command, Global};

/// What every command gets.
#[derive(Debug)]
struct Surroundings {
    settings: Settings,
    /// The current folder.
    current: PathBuf,
    screen: Screen,
    /// Whether stdout gets one JSON document instead of text.
    json: bool,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version arrive here too; a closed stdout or stderr is nobody's failure.
            let _ = error.print();
            if error.exit_code() == 0 {
                return Exit::Success;
            }
            if std::env::args_os().any(|argument| argument == "--json") {
                let message = error.to_string().lines().next().unwrap_or_default().to_owned();
                document_of(&Failure::usage(anyhow::Error::msg(message)));
            }
            return Exit::Usage;
        }
    };
    let wants_document = arguments.global.json;
    match dispatch(arguments) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.print();
            if wants_document && !table::is_document_written() {
                document_of(&failure);
            }
            failure.exit
        }
    }
}

/// Programs read stdout: a command that fails before its own document leaves this one.
fn document_of(failure: &Failure) {
    // Whoever closed stdout does not read it.
    let _ = table::write_json(&serde_json::json!({ "error": error_of(failure) }));
}

/// A failure of the command itself, as documents say it.
fn error_of(failure: &Failure) -> ErrorReport {
    let (origin, retry) = match failure.exit {
        Exit::HungUp | Exit::Interrupted | Exit::Terminated => ("caller", "now"),
        Exit::Usage => ("caller", "never"),
        Exit::Success | Exit::Failed | Exit::Environment => ("conductor", "never"),
    };
    let message = failure
        .error
        .as_ref()
        .map_or_else(|| "cancelled before anything was started".to_owned(), |error| chain(error.as_ref()));
    ErrorReport {
        message,
        step: None,
        item: None,
        extension: None,
        origin: origin.to_owned(),
        retry: retry.to_owned(),
        help: failure
            .help
            .clone()
            .unwrap_or_else(|| "correct what the message names and run again".to_owned()),
    }
}

fn dispatch(arguments: Arguments) -> Result<Exit, Failure> {
    let surroundings = Surroundings::new(&arguments.global)?;
    logs::install(&surroundings.settings.log, surroundings.screen.clone());
    match arguments.command {
        Command::Run(arguments) => {
            asynchronous(|cancellation| run::run(&surroundings, arguments, cancellation))
        }
        Command::Call(arguments) => {
            asynchronous(|cancellation| call::call(&surroundings, arguments, cancellation))
        }
        Command::Melody(args::Melody::Check { file }) => melody::check(&surroundings, &file),
        Command::Extensions(command) => match command {
            args::Extensions::List => extensions::list(&surroundings),
            args::Extensions::Show { name } => extensions::show(&surroundings, &name),
            args::Extensions::Check { path } => extensions::check(&surroundings, path.as_deref()),
            args::Extensions::Build { names } => {
                asynchronous(|cancellation| extensions::build(&surroundings, names, cancellation))
            }
        },
        Command::Artifacts(command) => match command {
            args::Artifacts::List => artifacts::list(&surroundings),
            args::Artifacts::Get { artifact, output } => {
                artifacts::get(&surroundings, &artifact, output.as_deref())
            }
            args::Artifacts::Verify { artifact } => artifacts::verify(&surroundings, artifact.as_deref()),
        },
    }
}

/// Runs a command that waits for processes, to its end on this thread.
fn asynchronous<F: Future<Output = Result<Exit, Failure>>>(
    command: impl FnOnce(Cancellation) -> F,
) -> Result<Exit, Failure> {
    let cancellation = Cancellation::listen().map_err(Failure::environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::environment)?;
    let result = runtime.block_on(command(cancellation));
    // What still blocks (a sync of a slow disk) must not hold up the end.
    runtime.shutdown_background();
    result
}

impl Surroundings {
    fn new(global: &Global) -> Result<Self, Failure> {
        let current = env::current_dir().map_err(|error| {
            Failure::environment(anyhow::Error::from(error).context("the current folder is not to be had"))
        })?;
        let get = |name: &str| env::var_os(name);
        let flags = Layer {
            data_dir: global.data.clone(),
            extension_dirs: global.extensions.clone(),
            log: global.log.clone(),
            ..Layer::default()
        };
        if let Some(filter) = &flags.log
            && filter.parse::<tracing_subscriber::EnvFilter>().is_err()
        {
            return Err(Failure::usage(anyhow::anyhow!("--log {filter:?} is no level and no filter"))
                .with_help("levels are error, warn, info, debug and trace"));
        }
        let environment = Layer::from_environment(get).map_err(Failure::usage)?;
        let named = global.config.clone().or_else(|| get("SYMPHONY_CONFIG").map(PathBuf::from));
        let file = match named.or_else(|| config::find_file(&current)) {
            Some(file) => read_configuration(&current.join(file))?,
            None => Layer::default(),
        };
        let mut settings = Settings::from_layers(&[flags, environment, file], get)
            .map_err(|error| Failure::environment(error).with_help("name a folder with --data DIR"))?;
        settings.data_dir = current.join(&settings.data_dir);
        Ok(Self { settings, current, screen: Screen::stderr(), json: global.json })
    }
}

fn read_configuration(file: &Path) -> Result<Layer, Failure> {
    let unreadable = |error: io::Error| {
        let context = format!("the configuration {} cannot be read", file.display());
        Failure::usage(anyhow::Error::from(error).context(context))
    };
    let bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if bytes > config::FILE_BYTES_MAX {
        return Err(unreadable(io::ErrorKind::FileTooLarge.into()));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    Layer::from_file(file, &text).map_err(|found| wrong_file(&found))
}

/// Diagnostics as the end of a command: shown whole, each with its place, and exit code 2.
fn wrong_file(found: &Diagnostics) -> Failure {
    show_findings(found);
    Failure::usage(anyhow::Error::msg(found.to_string())).shown()
}

fn show_findings(found: &Diagnostics) {
    // A closed stderr is no reason to end differently.
    let _ = writeln!(io::stderr().lock(), "{}", printable::lines(&found.to_string()));
}

/// Stdout could not be written to. A reader that has gone (`| head`) needs no explanation.
fn stdout_failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::silent(Exit::Failed);
    }
    Failure::environment(anyhow::Error::from(error).context("stdout cannot be written to"))
}
