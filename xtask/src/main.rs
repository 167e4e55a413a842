//! `cargo xtask NAME`: names of tasks, output, exit codes. What the tasks do stands in the library.
//!
//! - `tidy`: the rules of the house that no compiler holds. `--accept-protocol` records that `docs/protocol.md` was
//!   read again after a change of the protocol's source; `--list` names the rules.
//! - `models [CRATE]`: the loom models of every crate that has some, counted; fewer than there were is a failure.
//! - `book`: the links of all documents, and the book itself when built with the feature `book`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use xtask::budget::{CRATES_MAX, FAST_CRATES_MAX};
use xtask::cargo::SMALLEST_EXTENSION;
use xtask::{RULES, TASKS, Workspace, book, check, models, protocol};

const USAGE: &str = "usage: cargo xtask tidy [--list | --accept-protocol] | models [CRATE] | book";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // What is spoken of elsewhere is held against this list.
    let known = arguments.first().filter(|task| TASKS.contains(task)).map_or(&[][..], |_| &arguments[..]);
    let result = match *known {
        ["tidy"] => tidy(),
        ["tidy", "--list"] => list(),
        ["tidy", "--accept-protocol"] => accept_protocol(),
        ["models"] => models::run(&root(), None, &mut std::io::stdout()),
        ["models", name] => models::run(&root(), Some(name), &mut std::io::stdout()),
        ["book"] => make_book(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {}: {error:#}", arguments[0]);
            ExitCode::FAILURE
        }
    }
}

/// The tree that this program was built from: `cargo xtask` works in any folder of it.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Runs every rule and reports all that is broken, not only the first.
fn tidy() -> anyhow::Result<()> {
    let workspace = Workspace::load(&root())?;
    report(&check(&workspace))?;
    let (files, crates) = (workspace.paths().count(), workspace.cargo.members.len());
    println!("tidy: {} rules hold over {files} files of {crates} crates", RULES.len());
    let outside = workspace.cargo.extension_outside().count();
    let fast = workspace.cargo.fast_extension_outside().count();
    println!(
        "tidy: `{SMALLEST_EXTENSION}` builds {outside} crates of others, of at most {CRATES_MAX}; with the fast codec \
         {fast}, of at most {FAST_CRATES_MAX}"
    );
    Ok(())
}

fn report(broken: &[xtask::Broken]) -> anyhow::Result<()> {
    for one in broken {
        eprintln!("{one}");
    }
    anyhow::ensure!(broken.is_empty(), "{} failures", broken.len());
    Ok(())
}

fn list() -> anyhow::Result<()> {
    for rule in RULES {
        println!("{:<16}{}", rule.name, rule.says);
    }
    Ok(())
}

fn accept_protocol() -> anyhow::Result<()> {
    let workspace = Workspace::load(&root())?;
    let document = protocol::accept(&workspace)?;
    std::fs::write(workspace.root.join(protocol::DOCUMENT), document).context(protocol::DOCUMENT)?;
    println!("tidy: {} describes the protocol's source as it is", protocol::DOCUMENT);
    Ok(())
}

fn make_book() -> anyhow::Result<()> {
    let workspace = Workspace::load(&root())?;
    report(&book::check(&workspace))?;
    println!("book: every link of {} documents leads somewhere", workspace.documents().count());
    match book::build(&workspace)? {
        Some(folder) => println!("book: built in {}", folder.display()),
        None => println!("book: skipped the pages: mdbook is not installed"),
    }
    Ok(())
}
