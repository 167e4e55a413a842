//! `events`, `logs`: what a conductor that stays up has to tell, as it comes.

use std::io::{self, Write as _};
use std::time::Duration;

use extension_sdk::stream::{Item, Stream};
use interfaces::{Happening, LoggedLine};
use serde_json::{Value, json};

use super::served::{must_find, refused};
use super::{Surroundings, stdout_failed};
use crate::document::ErrorReport;
use crate::exit::{Exit, Failure};
use crate::printable::line;
use crate::signals::Cancellation;

pub(super) async fn events(
    surroundings: &Surroundings,
    past: bool,
    cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let events = must_find(surroundings).await?.events(past).await.map_err(refused)?;
    tell(events, cancellation, |event| {
        if surroundings.json {
            return vec![document_of_event(event).to_string()];
        }
        let Happening { at_ms, extension, generation, text, missed, .. } = event;
        let missed = (*missed > 0).then(|| format!("({missed} events were missed)"));
        let said = format!("{} {extension} {generation} {}", at(*at_ms), line(text));
        missed.into_iter().chain([said]).collect()
    })
    .await
}

pub(super) async fn logs(
    surroundings: &Surroundings,
    extension: Option<String>,
    follow: bool,
    cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let lines = must_find(surroundings).await?.logs(extension, follow).await.map_err(refused)?;
    tell(lines, cancellation, |logged| {
        if surroundings.json {
            return vec![document_of_line(logged).to_string()];
        }
        let LoggedLine { at_ms, extension, generation, origin, text, dropped } = logged;
        let dropped = (*dropped > 0).then(|| format!("({dropped} lines were dropped)"));
        let said = format!("{} {extension} {generation} {origin}: {}", at(*at_ms), line(text));
        dropped.into_iter().chain([said]).collect()
    })
    .await
}

/// A time since the conductor began, as long as those of a day.
fn at(ms: u64) -> String {
    let time = Duration::from_millis(ms);
    format!("{:>9}", format!("{:.3}", time.as_secs_f64()))
}

fn document_of_event(event: &Happening) -> Value {
    json!({
        "number": event.number, "at-ms": event.at_ms, "extension": event.extension, "generation": event.generation,
        "kind": event.kind, "text": event.text, "missed": event.missed,
    })
}

fn document_of_line(line: &LoggedLine) -> Value {
    json!({
        "at-ms": line.at_ms, "extension": line.extension, "generation": line.generation, "origin": line.origin,
        "text": line.text, "dropped": line.dropped,
    })
}

/// Writes the lines of each item, until there are no more or nobody wants them.
async fn tell<T: Item>(
    mut items: Stream<T>,
    mut cancellation: Cancellation,
    lines_of: impl Fn(&T) -> Vec<String>,
) -> Result<Exit, Failure> {
    loop {
        let next = tokio::select! {
            biased;
            exit = cancellation.wait() => {
                return Err(Failure::cancelled(exit, ErrorReport::cancelled("cancelled while it was told")));
            }
            next = items.next() => next,
        };
        let Some(item) = next else { return Ok(Exit::Success) };
        let lines = lines_of(&item.map_err(refused)?).join("\n");
        let mut out = io::stdout().lock();
        writeln!(out, "{lines}").and_then(|()| out.flush()).map_err(stdout_failed)?;
    }
}
