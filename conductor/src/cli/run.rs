//! `run`: a melody from its file to its result.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use extension_host::TracingLog;
use pit_core::priority::Priority;

use super::args;
use super::table::write_json;
use super::{Surroundings, error_of, prepare, stdout_failed, wrong_file};
use crate::bridge::StoreStorage;
use crate::build::Effort;
use crate::described::Described;
use crate::document::{RunDocument, RunState};
use crate::engine::{Execution, Extension};
use crate::exit::{Exit, Failure, chain};
use crate::hosting::Hosting;
use crate::melody::{Draft, InputValues};
use crate::pit::{self, Pit};
use crate::printable;
use crate::progress::{Progress, Screen, human_bytes, human_time};
use crate::run_id::RunId;
use crate::signals::{Cancellation, Question};

pub(super) async fn run(
    surroundings: &Surroundings,
    arguments: args::Run,
    mut cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let run = RunId::new().map_err(Failure::environment)?;
    let (document, time) = match execute(surroundings, &arguments, &mut cancellation, &run).await {
        Ok(ended) => ended,
        Err(failure) => {
            // Programs read stdout: what never became a run has its document too.
            if surroundings.json {
                write_json(&refused(&run, &failure)).map_err(stdout_failed)?;
            }
            return Err(failure);
        }
    };
    if surroundings.json {
        write_json(&document).map_err(stdout_failed)?;
    } else {
        write_summary(io::stdout().lock(), &document, time).map_err(stdout_failed)?;
    }
    match (document.state, document.error) {
        (RunState::Succeeded, _) => Ok(Exit::Success),
        (RunState::Cancelled, _) => Err(Failure::silent(cancellation.requested().unwrap_or(Exit::Failed))),
        (RunState::Failed, Some(error)) => {
            let help = format!("{} (at fault: {}; try again: {})", error.help, error.origin, error.retry);
            Err(Failure::failed(anyhow::Error::msg(error.message)).with_help(help))
        }
        (RunState::Failed, None) => Err(Failure::failed(anyhow::anyhow!("the run failed"))),
    }
}

/// From the melody's file to the end of its run, with the time of the run alone; fails where it never became
/// a run.
async fn execute(
    surroundings: &Surroundings,
    arguments: &args::Run,
    cancellation: &mut Cancellation,
    run: &RunId,
) -> Result<(RunDocument, std::time::Duration), Failure> {
    let Surroundings { settings, current, screen, .. } = surroundings;
    // At once: a question that comes during the build waits for the run.
    let mut question = Question::listen().map_err(Failure::environment)?;
    let draft = Draft::load(&arguments.melody).map_err(|wrong| wrong_file(&wrong))?;
    let inputs = match inputs_of(&draft, &arguments.inputs, current) {
        // An input whose declaration is wrong seems to be missing: the mistakes of the file come first.
        Err(_) if draft.has_errors() => return Err(wrong_file(&draft.into_mistakes())),
        inputs => inputs?,
    };
    let catalog = prepare::find(surroundings, arguments.melody.parent())?;

    // Before the build, which may take minutes: a data folder that cannot be used is found at once.
    let artifacts = pit::open_store_to_write(&settings.data_dir).map_err(prepare::data_folder_failure)?;
    // A name that is unknown is a mistake of the melody: the check below says where.
    let names = draft.extensions().into_iter().map(str::to_owned);
    let known = names.filter(|name| catalog.entries().any(|entry| entry.name == *name));
    let manifests = prepare::with_required(&catalog, known)?;
    prepare::warn_of_hidden(surroundings, &catalog, &manifests);
    let built = prepare::build(surroundings, &manifests, Effort::AsNeeded, cancellation).await?;
    let descriptions = built.iter().map(|built| (built.name.clone(), built.description.clone()));
    let described = Described::new(&catalog, descriptions, settings);
    let plan = draft.check(&described).map_err(|wrong| wrong_file(&wrong))?;

    let pit =
        Pit::new(settings, artifacts, &plan, manifests.iter().copied()).map_err(Failure::environment)?;
    let storage = StoreStorage::of_store(pit.artifacts.clone());
    let hosting = Hosting::begin(
        settings,
        &manifests,
        &built,
        &pit.expiring,
        Some(&pit.pools),
        storage,
        Arc::new(TracingLog),
    )
    .map_err(Failure::environment)?;
    let mut extensions = BTreeMap::new();
    for step in &plan.steps {
        if !extensions.contains_key(&step.extension) {
            let caller = hosting.caller(&step.extension).map_err(Failure::environment)?;
            let manifest = manifests.iter().find(|manifest| manifest.name == step.extension);
            let call_time_max = manifest.and_then(|manifest| manifest.limits.call_time_max);
            let timeout = call_time_max.unwrap_or(settings.step_timeout);
            extensions.insert(step.extension.clone(), Extension { caller, timeout, call_time_max });
        }
    }

    let progress = Progress::new(screen.clone(), plan.steps.iter().map(|step| step.id.as_str()));
    let execution = Execution {
        run: *run,
        plan: &plan,
        inputs,
        pit: &pit,
        extensions: &extensions,
        items_in_flight_max: settings.items_in_flight_max,
        priority: Priority::new(arguments.priority),
        progress: &progress,
        cancellation: cancellation.clone(),
    };
    // What came before is the build's time, not the run's.
    let began = std::time::Instant::now();
    let outcome = tokio::select! {
        outcome = execution.execute() => outcome,
        never = answer(&mut question, &pit, screen) => match never {},
    };
    let time = began.elapsed();
    let extensions = hosting.end().await;
    let document = RunDocument {
        run: run.to_string(),
        state: outcome.state,
        steps: outcome.steps,
        outputs: outcome.outputs,
        extensions,
        error: outcome.error,
    };
    Ok((document, time))
}

/// Tells what the run is doing whenever somebody asks.
async fn answer(question: &mut Question, pit: &Pit, screen: &Screen) -> Infallible {
    loop {
        question.wait().await;
        // A stderr that is closed is nobody's failure.
        let _ = screen.write(printable::lines(&pit.snapshot().to_string()).as_bytes());
    }
}

/// The document of what never became a run: nothing was started, and nothing was stored.
fn refused(run: &RunId, failure: &Failure) -> RunDocument {
    let is_cancelled = matches!(failure.exit, Exit::HungUp | Exit::Interrupted | Exit::Terminated);
    RunDocument {
        run: run.to_string(),
        state: if is_cancelled { RunState::Cancelled } else { RunState::Failed },
        steps: Vec::new(),
        outputs: BTreeMap::new(),
        extensions: Vec::new(),
        error: Some(error_of(failure)),
    }
}

/// The values of `-i KEY=VALUE`; a value need not be UTF-8.
fn inputs_of(draft: &Draft, given: &[OsString], current: &Path) -> Result<InputValues, Failure> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut pairs = Vec::with_capacity(given.len());
    for text in given {
        let bytes = text.as_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=');
        let key = at.and_then(|at| std::str::from_utf8(&bytes[..at]).ok());
        let (Some(at), Some(key)) = (at, key) else {
            return Err(Failure::usage(anyhow::anyhow!("the input {text:?} is not KEY=VALUE"))
                .with_help("for example: -i path=."));
        };
        pairs.push((key.to_owned(), OsString::from_vec(bytes[at + 1..].to_vec())));
    }
    InputValues::new(draft.inputs(), &pairs, current).map_err(|wrong| {
        let lines: Vec<String> = wrong.iter().map(|error| chain(error)).collect();
        Failure::usage(anyhow::Error::msg(lines.join("\n")))
    })
}

fn write_summary(mut out: impl Write, document: &RunDocument, time: std::time::Duration) -> io::Result<()> {
    let state = match document.state {
        RunState::Succeeded => "succeeded",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
    };
    writeln!(out, "run {} {state} in {}", document.run, human_time(time))?;
    for step in document.steps.iter().filter(|step| step.items.is_some()) {
        let items = printable::counted(step.items.unwrap_or(0), "item");
        writeln!(out, "  {}: {items}, {}", step.id, printable::counted(step.attempts, "attempt"))?;
    }
    for extension in document.extensions.iter().filter(|extension| extension.restarts > 0) {
        writeln!(
            out,
            "  {} was restarted {}: {}",
            extension.name,
            printable::counted(extension.restarts, "time"),
            printable::line(&extension.causes.join("; "))
        )?;
    }
    for (name, output) in &document.outputs {
        let path = output.path.display().to_string();
        writeln!(
            out,
            "  {}/{}  {}  {}",
            document.run,
            printable::line(name),
            human_bytes(output.bytes),
            printable::line(&path)
        )?;
    }
    Ok(())
}
