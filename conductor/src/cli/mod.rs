//! The command line: from arguments to an exit code. The one place that prints errors.
//!
//! Each command is a file of its own and returns an [`Exit`] or a [`Failure`]; stdout belongs to results,
//! stderr to progress, logs and errors. Commands must not print errors themselves.

use std::cell::Cell;
use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Parser as _;
use extension_host::Diagnostics;

use crate::config::Settings;
use crate::document::ErrorReport;
use crate::exit::{Exit, Failure, chain};
use crate::logs;
use crate::printable;
use crate::progress::Screen;
use crate::signals::{Cancellation, survive_file_size_limit};
use crate::trust::Distrusted;

pub mod args;
mod artifacts;
mod call;
mod config;
mod doctor;
mod extensions;
mod manual;
mod melody;
mod new;
mod prepare;
mod removal;
mod run;
mod serve;
mod served;
mod table;
mod told;
mod topics;

use args::{Arguments, Command, Global};

/// LIMIT: warnings about what is ignored because others could have put it there.
const DISTRUSTED_TOLD_MAX: usize = 8;

/// What every command gets.
#[derive(Debug)]
struct Surroundings {
    settings: Settings,
    /// The current folder.
    current: PathBuf,
    screen: Screen,
    /// Whether stdout gets one JSON document instead of text.
    json: bool,
    /// Whether it was told what the catalog leaves alone; a command may look twice.
    is_catalog_told: Cell<bool>,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> Exit {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version arrive here too; a reader that has gone is nobody's failure.
            let printed = error.print().and_then(|()| io::stdout().flush());
            if error.exit_code() == 0 {
                return match printed {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                        let failure = stdout_failed(error);
                        failure.print();
                        failure.exit
                    }
                    _ => Exit::Success,
                };
            }
            if std::env::args_os().any(|argument| argument == "--json") {
                let text = error.to_string();
                let message = text.lines().next().unwrap_or_default();
                let message = message.strip_prefix("error: ").unwrap_or(message).to_owned();
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
    if let Some(report) = &failure.report {
        return ErrorReport::clone(report);
    }
    let (origin, retry) = match failure.exit {
        _ if failure.extension.is_some() => ("extension", "never"),
        Exit::HungUp | Exit::Interrupted | Exit::Terminated => ("caller", "now"),
        Exit::Usage => ("caller", "never"),
        Exit::Environment => ("environment", "never"),
        Exit::Success | Exit::Failed => ("conductor", "never"),
    };
    let message =
        failure.error.as_ref().map_or_else(|| "cancelled".to_owned(), |error| chain(error.as_ref()));
    ErrorReport {
        message,
        step: None,
        item: None,
        item_value: None,
        extension: failure.extension.clone(),
        origin: origin.to_owned(),
        retry: retry.to_owned(),
        help: failure
            .help
            .clone()
            .unwrap_or_else(|| "correct what the message names and run again".to_owned()),
    }
}

fn dispatch(arguments: Arguments) -> Result<Exit, Failure> {
    survive_file_size_limit().map_err(Failure::environment)?;
    // These describe the program, and must not need a configuration that is right.
    match &arguments.command {
        Command::Completions { shell } => return manual::completions(*shell),
        Command::Man { folder } => return manual::man(folder.as_deref()),
        _ => {}
    }
    let surroundings = match Surroundings::new(&arguments.global) {
        Ok(surroundings) => surroundings,
        // Whoever asks what is wrong here is told, and of the rest as well.
        Err(failure) if matches!(arguments.command, Command::Doctor) => {
            return asynchronous(|cancellation| {
                doctor::without_settings(&failure, arguments.global.json, cancellation)
            });
        }
        Err(failure) => return Err(failure),
    };
    logs::install(&surroundings.settings.log, surroundings.screen.clone());
    match arguments.command {
        Command::Run(arguments) => {
            asynchronous(|cancellation| run::run(&surroundings, arguments, cancellation))
        }
        Command::Call(arguments) => {
            asynchronous(|cancellation| call::call(&surroundings, arguments, cancellation))
        }
        Command::Serve(arguments) => {
            asynchronous(|cancellation| serve::serve(&surroundings, arguments, cancellation))
        }
        Command::Ps => asynchronous(|_| served::ps(&surroundings)),
        Command::Why { extension } => asynchronous(|_| served::why(&surroundings, extension)),
        Command::Events { past } => {
            asynchronous(|cancellation| told::events(&surroundings, past, cancellation))
        }
        Command::Logs { extension, follow } => {
            asynchronous(|cancellation| told::logs(&surroundings, extension, follow, cancellation))
        }
        Command::Stop { extension } => asynchronous(|_| served::stop(&surroundings, extension)),
        Command::Reset { extension } => asynchronous(|_| served::reset(&surroundings, extension)),
        Command::Melody(command) => match command {
            args::Melody::Check { file } => melody::check(&surroundings, &file),
            args::Melody::Graph { file, format, output } => {
                melody::graph(&surroundings, &file, format, output.as_deref())
            }
        },
        Command::Extensions(command) => match command {
            args::Extensions::List => extensions::list(&surroundings),
            args::Extensions::Show { name } => extensions::show(&surroundings, &name),
            args::Extensions::Check { path } => extensions::check(&surroundings, path.as_deref()),
            args::Extensions::Build { names } => {
                asynchronous(|cancellation| extensions::build(&surroundings, names, cancellation))
            }
        },
        Command::New(args::New::Extension(arguments)) => new::extension(&surroundings, &arguments),
        Command::Artifacts(command) => match command {
            args::Artifacts::List => artifacts::list(&surroundings),
            args::Artifacts::Get { artifact, output } => {
                artifacts::get(&surroundings, &artifact, output.as_deref())
            }
            args::Artifacts::Verify { artifact } => artifacts::verify(&surroundings, artifact.as_deref()),
            args::Artifacts::Remove { names, older_than, dry_run } => {
                removal::remove(&surroundings, &names, older_than.as_deref(), dry_run)
            }
            args::Artifacts::Collect { dry_run } => removal::collect(&surroundings, dry_run),
        },
        Command::Config(args::Config::Show) => config::show(&arguments.global, &surroundings.current),
        Command::Doctor => asynchronous(|cancellation| doctor::doctor(&surroundings, cancellation)),
        // Done above.
        Command::Completions { .. } | Command::Man { .. } => Ok(Exit::Success),
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
        let read = config::read(global, &current)?;
        let screen = Screen::stderr();
        warn_of(&screen, &read.distrusted, "--config FILE");
        Ok(Self {
            settings: read.configuration.settings,
            current,
            screen,
            json: global.json,
            is_catalog_told: Cell::new(false),
        })
    }
}

/// Says what was found and is left alone; whoever means it can name it.
fn warn_of(screen: &Screen, distrusted: &[Distrusted], flag: &str) {
    for Distrusted { found, why } in distrusted.iter().take(DISTRUSTED_TOLD_MAX) {
        let found = found.display();
        screen.line(&format!("warning: {found} is ignored: {why}; if you trust it, name it with {flag}"));
    }
    let more = distrusted.len().saturating_sub(DISTRUSTED_TOLD_MAX);
    if more > 0 {
        screen.line(&format!("warning: {more} more are ignored for such reasons"));
    }
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

/// Writes a file that must not be there yet, whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut file = std::fs::File::create_new(path)?;
        file.write_all(bytes).inspect_err(|_| {
            // What could not be written to its end is removed again; failing that changes nothing.
            let _ = std::fs::remove_file(path);
        })
    };
    write().map_err(|error| {
        let context = format!("cannot write {}", path.display());
        Failure::failed(anyhow::Error::from(error).context(context))
    })
}

/// Stdout could not be written to. A reader that has gone (`| head`) needs no explanation.
fn stdout_failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::silent(Exit::Failed);
    }
    Failure::environment(anyhow::Error::from(error).context("stdout cannot be written to"))
}
