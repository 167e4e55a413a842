//! `ps`, `why`, `stop`, `reset`: questions to a conductor that stays up, and calls through it.

use std::io;
use std::time::Duration;

use extension_sdk::CallError;
use interfaces::{ConductorClient, Explanation, ExtensionState};
use ipc_protocol::handshake::Hello;
use ipc_transport::connection::{ConnectOptions, connect};
use ipc_transport::rendezvous::meet;
use ipc_transport::rendezvous::preamble::Role;
use serde_json::{Value, json};

use super::serve::rendezvous_failure;
use super::table::{Table, write_json};
use super::{Surroundings, stdout_failed};
use crate::exit::{Exit, Failure};
use crate::progress::{human_bytes, human_time};
use crate::serving::folder;

/// How long a question may take. To stop an extension takes as long as its own end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The conductor that serves the data folder; `None` if there is none.
pub(super) async fn find(surroundings: &Surroundings) -> Result<Option<ConductorClient>, Failure> {
    let folder = folder(&surroundings.settings.data_dir);
    let met = tokio::task::spawn_blocking(move || meet(&folder, Role::Client)).await;
    let met = met.map_err(Failure::environment)?.map_err(rendezvous_failure)?;
    let Some(channel) = met else { return Ok(None) };
    let mut options = ConnectOptions::new(Hello::new("conductor", 1, std::process::id().into()));
    // A question or two are not worth two rings.
    options.offers_rings = false;
    let connection =
        connect(channel, options, std::sync::Arc::new(())).await.map_err(Failure::environment)?;
    Ok(Some(ConductorClient::new(connection).with_timeout(ANSWER_TIMEOUT)))
}

pub(super) async fn must_find(surroundings: &Surroundings) -> Result<ConductorClient, Failure> {
    find(surroundings).await?.ok_or_else(|| {
        let data = surroundings.settings.data_dir.display();
        Failure::environment(anyhow::anyhow!("no conductor serves {data}"))
            .with_help("start one: conductor serve; or name its --data DIR")
    })
}

pub(super) fn refused(error: CallError) -> Failure {
    match error {
        CallError::Fault(fault) => Failure::failed(anyhow::Error::msg(fault.message)),
        error => Failure::failed(error),
    }
}

pub(super) async fn ps(surroundings: &Surroundings) -> Result<Exit, Failure> {
    let states = must_find(surroundings).await?.extensions().await.map_err(refused)?;
    if surroundings.json {
        write_json(&states.iter().map(document_of).collect::<Vec<_>>()).map_err(stdout_failed)?;
        return Ok(Exit::Success);
    }
    let headings = [
        "NAME",
        "VERSION",
        "STATE",
        "PID",
        "GENERATION",
        "RESTARTS",
        "CALLS",
        "IN FLIGHT",
        "MEMORY",
        "LAST END",
    ];
    let mut table = Table::new(&headings);
    for state in states {
        let pid = state.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let last_end = state.last_end.unwrap_or_else(|| "-".to_owned());
        let memory = state.memory_bytes.map_or_else(|| "-".to_owned(), human_bytes);
        let ExtensionState { name, version, state, generation, restarts, calls, in_flight, .. } = state;
        let numbers =
            [generation.to_string(), restarts.to_string(), calls.to_string(), in_flight.to_string()];
        table.row([name, version, state, pid].into_iter().chain(numbers).chain([memory, last_end]));
    }
    table.write(io::stdout().lock()).map_err(stdout_failed)?;
    Ok(Exit::Success)
}

fn document_of(state: &ExtensionState) -> Value {
    json!({
        "name": state.name, "version": state.version, "tier": state.tier, "state": state.state, "pid": state.pid,
        "generation": state.generation, "restarts": state.restarts, "calls": state.calls,
        "in-flight": state.in_flight, "streams": state.streams, "limits": state.limits,
        "memory-bytes": state.memory_bytes, "tasks": state.tasks, "processor-ms": state.processor_ms, "last-end": state.last_end,
    })
}

pub(super) async fn why(surroundings: &Surroundings, name: String) -> Result<Exit, Failure> {
    let explanation = must_find(surroundings).await?.why(name).await.map_err(refused)?;
    if surroundings.json {
        let ends = explanation
            .ends
            .iter()
            .map(|end| json!({ "generation": end.generation, "ago-ms": end.ago_ms, "report": end.report }));
        let document = json!({
            "extension": document_of(&explanation.extension), "broken": explanation.broken,
            "ends": ends.collect::<Vec<_>>(),
        });
        write_json(&document).map_err(stdout_failed)?;
        return Ok(Exit::Success);
    }
    tell(&explanation, io::stdout().lock()).map_err(stdout_failed)?;
    Ok(Exit::Success)
}

fn tell(explanation: &Explanation, mut out: impl io::Write) -> io::Result<()> {
    let Explanation { extension, broken, ends } = explanation;
    let line = crate::printable::line;
    writeln!(out, "{} {} is {}", line(&extension.name), line(&extension.version), line(&extension.state))?;
    if let Some(broken) = broken {
        writeln!(out, "broken    {}", line(broken))?;
    }
    if extension.state == "ready" {
        let pid = extension.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        writeln!(out, "instance  {}{pid}", extension.generation)?;
    }
    writeln!(out, "calls     {}, {} in flight", extension.calls, extension.in_flight)?;
    if extension.streams > 0 {
        writeln!(out, "streams   {}", extension.streams)?;
    }
    writeln!(out, "restarts  {}", extension.restarts)?;
    if let Some(bytes) = extension.memory_bytes {
        let (tasks, time) = (extension.tasks, human_time(Duration::from_millis(extension.processor_ms)));
        let memory = human_bytes(bytes);
        writeln!(
            out,
            "uses      {memory} of memory, {tasks} processes and threads, {time} of processor so far"
        )?;
    }
    if extension.limits != "none" {
        writeln!(out, "limits    held by {}", line(&extension.limits))?;
    }
    if ends.is_empty() {
        return writeln!(out, "no instance of it has ended");
    }
    for end in ends {
        let ago = human_time(Duration::from_millis(end.ago_ms));
        writeln!(out, "instance {} ended {ago} ago: {}", end.generation, line(&end.report))?;
    }
    out.flush()
}

pub(super) async fn stop(surroundings: &Surroundings, name: Option<String>) -> Result<Exit, Failure> {
    let conductor = must_find(surroundings).await?;
    match name {
        Some(name) => conductor.stop(name).await.map_err(refused)?,
        None => match conductor.shut_down().await {
            // It may be gone before it has answered.
            Ok(()) | Err(CallError::Unknown(_)) => {}
            Err(error) => return Err(refused(error)),
        },
    }
    Ok(Exit::Success)
}

pub(super) async fn reset(surroundings: &Surroundings, name: String) -> Result<Exit, Failure> {
    must_find(surroundings).await?.reset(name).await.map_err(refused)?;
    Ok(Exit::Success)
}
