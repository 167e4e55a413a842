//! `doctor`: what this machine can do.

use std::io::{self, Write as _};

use serde_json::json;

use super::table::{Table, write_json};
use super::{Surroundings, stdout_failed};
use crate::config::Settings;
use crate::doctor::{State, examine, is_fit};
use crate::exit::{Exit, Failure, chain};
use crate::printable;
use crate::signals::Cancellation;

pub(super) async fn doctor(surroundings: &Surroundings, cancellation: Cancellation) -> Result<Exit, Failure> {
    show(Ok(&surroundings.settings), surroundings.json, cancellation).await
}

/// The same where there are no settings because of this failure.
pub(super) async fn without_settings(
    failure: &Failure,
    json: bool,
    cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let why = failure.error.as_ref().map(|error| chain(error.as_ref())).unwrap_or_default();
    // Mistakes of a file were shown whole: the first one with its place is enough.
    let why = why.lines().take(2).map(str::trim).collect::<Vec<_>>().join(" ");
    let help = failure.help.as_deref().unwrap_or("correct it and look again");
    show(Err((&why, help)), json, cancellation).await
}

async fn show(
    settings: Result<&Settings, (&str, &str)>,
    json: bool,
    mut cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let checks = tokio::select! {
        biased;
        exit = cancellation.wait() => return Err(Failure::silent(exit)),
        checks = examine(settings) => checks,
    };
    let is_fit = is_fit(&checks);
    if json {
        write_json(&json!({ "fit": is_fit, "checks": checks })).map_err(stdout_failed)?;
    } else {
        let mut table = Table::new(&["STATE", "WHAT", "FOUND"]);
        for check in &checks {
            table.row([check.state.word().to_owned(), check.name.to_owned(), check.found.clone()]);
        }
        let mut out = io::stdout().lock();
        table.write(&mut out).map_err(stdout_failed)?;
        let follows = checks.iter().filter(|check| !check.follows.is_empty());
        for (index, check) in follows.enumerate() {
            let gap = if index == 0 { "\n" } else { "" };
            let mark = if check.needed && check.state == State::Missing { " (needed)" } else { "" };
            let text = format!("{}{mark}: {}", check.name, check.follows);
            writeln!(out, "{gap}{}", printable::line(&text)).map_err(stdout_failed)?;
        }
        let verdict = if is_fit { "melodies can be run here" } else { "melodies cannot be run here" };
        writeln!(out, "\n{verdict}").map_err(stdout_failed)?;
    }
    Ok(if is_fit { Exit::Success } else { Exit::Environment })
}
