//! `completions` and `man`: the command line, described for shells and for `man`. Needs no configuration.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::builder::Resettable;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Arguments;
use super::{stdout_failed, topics};
use crate::exit::{Exit, Failure};

pub(super) fn completions(shell: Shell) -> Result<Exit, Failure> {
    // Written whole: the generator does not expect that writing can fail.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "conductor", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script).and_then(|()| out.flush()).map_err(stdout_failed)?;
    Ok(Exit::Success)
}

pub(super) fn man(folder: Option<&Path>) -> Result<Exit, Failure> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let command = for_pages(command);
    let page = main_page(command.clone()).map_err(Failure::failed)?;
    match folder {
        None => {
            let mut out = io::stdout().lock();
            out.write_all(&page).and_then(|()| out.flush()).map_err(stdout_failed)?;
        }
        Some(folder) => {
            let write = || {
                fs::create_dir_all(folder)?;
                clap_mangen::generate_to(command, folder)?;
                fs::write(folder.join("conductor.1"), &page)
            };
            write().map_err(|error: io::Error| {
                let context = format!("the pages cannot be written to {}", folder.display());
                Failure::failed(anyhow::Error::from(error).context(context))
            })?;
        }
    }
    Ok(Exit::Success)
}

/// The command and all below it as pages tell them: the line of use as `--help` has it, with the values that are
/// expected, and arguments apart from options.
fn for_pages(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    command
        .override_usage(usage)
        .mut_args(
            |argument| {
                if argument.is_positional() { argument.help_heading("Arguments") } else { argument }
            },
        )
        .mut_subcommands(for_pages)
}

/// The page of `conductor` itself, with the end of its help as sections of their own.
fn main_page(command: Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.after_long_help(Resettable::Reset).after_help(Resettable::Reset));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    for (heading, body) in topics::sections() {
        // As it is, without filling lines: these are tables.
        writeln!(page, ".SH \"{heading}\"\n.nf\n{}\n.fi", roff(&body))?;
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// Text that is no request: a line must not begin with a dot or a quote, and a backslash begins an escape.
fn roff(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}
