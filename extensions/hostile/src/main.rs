//! An extension that misbehaves as it is told: `hostile MODE`, or `HOSTILE_MODE=MODE`.
//!
//! It speaks the wire by hand, from `docs/protocol.md`, with the standard library alone: what it finds wrong in
//! a host is not hidden by code that both share. It must not depend on any other crate of the project.
//!
//! Modes that spoil the start: `no-hello`, `wrong-version`, `wrong-name`, `exit-at-start`, `exit-before-ready`,
//! `refuse-start`. In all others it serves these methods, and misbehaves when `misbehave` is called:
//!
//! | method      | what it does                                                          | idempotent |
//! |-------------|-----------------------------------------------------------------------|------------|
//! | `echo`      | answers with its arguments                                            | yes        |
//! | `once`      | the same                                                              | no         |
//! | `hold`      | the first incarnation never answers, later ones as `echo`             | yes        |
//! | `hold-once` | the same                                                              | no         |
//! | `misbehave` | what [`misbehave`] has for the mode; in mode `echo`, the same as `once` | no         |
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "stderr is its log, and stdout the answer to --describe"
)]

mod bombs;
mod misbehave;
mod serve;
mod system;
mod wire;

use std::process::exit;

/// The mode, if it is set: before the argument. Not for what is started here, which has its mode as argument.
const MODE_VARIABLE: &str = "HOSTILE_MODE";

/// What `--describe` prints.
const DESCRIPTION: &str = include_str!("description.json");

fn main() {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("--describe") {
        println!("{}", DESCRIPTION.trim());
        return;
    }
    let mode = std::env::var(MODE_VARIABLE).ok().or(argument).unwrap_or_else(|| "echo".to_owned());
    match mode.as_str() {
        "no-hello" => system::sleep_for_ever(),
        "exit-at-start" => {
            eprintln!("hostile: exiting at once, as told");
            exit(3);
        }
        "linger" => misbehave::linger(),
        "linger-orphaned" => misbehave::linger_orphaned(),
        mode => serve::serve(mode),
    }
}
