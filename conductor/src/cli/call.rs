//! `call`: one method of one extension, once.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use extension_host::TracingLog;
use extension_host::diagnostic::closest;
use extension_sdk::Blob;
use interfaces::{Called, ConductorClient};
use ipc_protocol::Codec;
use ipc_transport::payload::DecodeError;
use ipc_transport::stream::whole;
use ipc_transport::{Answer, CallError, CallResult, Encoded, Payload, ProgressSink, Reply, Request};
use pit_core::clock::SystemClock;
use serde_json::Value;

use super::args;
use super::{Surroundings, prepare, served, stdout_failed};
use crate::bridge::{Expiring, StoreStorage};
use crate::build::Effort;
use crate::config::parse_timeout;
use crate::document::ErrorReport;
use crate::engine::{StepError, Where, report};
use crate::exit::{Exit, Failure};
use crate::hosting::Hosting;
use crate::melody::StepOutput;
use crate::melody::arguments::check_given;
use crate::melody::json::write_json;
use crate::progress::CallListener;
use crate::signals::Cancellation;

/// Methods listed where one is unknown; more than these are left out.
const METHODS_LISTED_MAX: usize = 32;

pub(super) async fn call(
    surroundings: &Surroundings,
    arguments: args::Call,
    mut cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let settings = &surroundings.settings;
    let Some((extension, method)) = arguments.method.split_once('.') else {
        let error = anyhow::anyhow!("`{}` is not EXTENSION.METHOD", arguments.method);
        return Err(
            Failure::usage(error).with_help("for example: conductor call echo.echo '{\"text\": \"hello\"}'")
        );
    };
    let value: Value = serde_json::from_str(&arguments.arguments).map_err(|error| {
        Failure::usage(anyhow::Error::from(error).context("the arguments are not JSON"))
            .with_help("quote them for the shell: '{\"text\": \"hello\"}'")
    })?;
    let payload = Encoded::from_value(&value).map_err(Failure::usage)?;
    let timeout = arguments.timeout.as_deref().map(|text| {
        parse_timeout(text).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!("--timeout {text:?} is no time"))
                .with_help("a time is a whole number with its unit: 1500ms, 30s, 5m, at most 7 days")
        })
    });
    let timeout = timeout.transpose()?;
    if !arguments.alone
        && let Some(conductor) = served::find(surroundings).await?
    {
        let hosted = conductor.extensions().await.map_err(served::refused)?;
        if hosted.iter().any(|hosted| hosted.name == extension) {
            let conductor = conductor.with_timeout(timeout.unwrap_or(settings.step_timeout));
            return through(&conductor, (extension, method), payload, cancellation).await;
        }
    }
    let catalog = prepare::find(surroundings, None)?;
    let manifests = prepare::with_required(&catalog, [extension.to_owned()])?;
    prepare::warn_of_hidden(surroundings, &catalog, &manifests);
    let built = prepare::build(surroundings, &manifests, Effort::AsNeeded, &mut cancellation).await?;
    let described = built.iter().find(|built| built.name == extension);
    let described = described.and_then(|built| built.description.as_ref().ok());
    let methods = || described.into_iter().flat_map(|it| &it.interfaces).flat_map(|it| &it.methods);
    let method_described = methods().find(|described| described.name == method);
    if described.is_some() && method_described.is_none() {
        let error = anyhow::anyhow!("`{extension}` has no method `{method}`");
        let names: Vec<&str> = methods().map(|method| method.name.as_str()).collect();
        return Err(Failure::usage(error).with_help(choice(method, names)));
    }
    // Before anything is started; what does not describe itself judges its arguments itself.
    let wrong = method_described.map(|described| check_given(method, &described.arguments_schema, &value));
    if let Some(wrong) = wrong.filter(|wrong| !wrong.is_empty()) {
        return Err(Failure::usage(anyhow::Error::msg(wrong.join("\n")))
            .with_help(format!("see what it takes: conductor extensions show {extension}")));
    }
    let is_idempotent = method_described.is_some_and(|method| method.idempotent || method.pure);
    let expiring = Expiring::new(SystemClock::new());
    let hosting = Hosting::begin(
        settings,
        &manifests,
        &built,
        &expiring,
        None,
        StoreStorage::of_folder(&settings.data_dir),
        Arc::new(TracingLog),
    )
    .map_err(Failure::environment)?;
    let caller = hosting.caller(extension).map_err(Failure::environment)?;
    let of_manifest = manifests.iter().find(|manifest| manifest.name == extension);
    let call_time_max = of_manifest.and_then(|manifest| manifest.limits.call_time_max);
    let timeout = timeout.or(call_time_max).unwrap_or(settings.step_timeout);
    let listener = Arc::new(CallListener::by_hand(&surroundings.screen, &arguments.method));
    let hear = Arc::clone(&listener);
    let request = Request::new(method, Payload::Encoded(payload), timeout).with_progress(ProgressSink::new(
        move |progress| hear.hear(progress.done, progress.total, &progress.message),
    ));
    let deadline = request.deadline;
    let result = tokio::select! {
        biased;
        exit = cancellation.wait() => Err(exit),
        result = taken(caller.call(request), deadline) => Ok(result),
    };
    listener.end();
    let was_sent = hosting.has_sent(extension);
    hosting.end().await;
    let place = Where { step: None, extension, item: None, is_idempotent, call_time_max };
    let result = result.map_err(|exit| {
        surroundings.screen.line("cancelled");
        Failure::cancelled(exit, cancelled(place, &arguments.method, was_sent))
    })?;
    match result {
        Ok(None) => Ok(Exit::Success),
        Ok(Some(output)) => print(&output),
        Err(NotTaken::Call(source)) => Err(failure(place, &arguments.method, timeout, source)),
        Err(NotTaken::Stdout(error)) => Err(stdout_failed(error)),
    }
}

/// Why there is nothing to be shown, or nobody to show it to.
enum NotTaken {
    Call(CallError),
    Stdout(io::Error),
}

impl<E: Into<CallError>> From<E> for NotTaken {
    fn from(error: E) -> Self {
        Self::Call(error.into())
    }
}

/// The outcome of a call. The items of one that is a stream are printed as they come, however long that takes, and `None`
/// is left.
async fn taken(reply: Reply, deadline: Instant) -> Result<Option<StepOutput>, NotTaken> {
    let mut items = match reply.await?.into_stream() {
        Ok(items) => items,
        Err(answer) => {
            let whole = whole(Reply::ready(Ok(answer)), deadline).await;
            return Ok(Some(value_of(whole)?));
        }
    };
    while let Some(item) = items.next().await {
        let item = value_of(Ok(Answer::encoded(item?)))?;
        write_line(&item).map_err(NotTaken::Stdout)?;
    }
    Ok(None)
}

/// Calls through a conductor that stays up.
async fn through(
    conductor: &ConductorClient,
    (extension, method): (&str, &str),
    payload: Encoded,
    mut cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let call = conductor.call(extension.to_owned(), method.to_owned(), Blob(payload.bytes.into()));
    let result = tokio::select! {
        biased;
        exit = cancellation.wait() => {
            let told = "cancelled while the conductor that serves called it; it may have run";
            return Err(Failure::cancelled(exit, ErrorReport::cancelled(told)));
        }
        result = call => result,
    };
    let output = |bytes: Blob| StepOutput::single(bytes.0.into()).map_err(Failure::failed);
    let mut items = match result.map_err(served::refused)? {
        Called::Value(bytes) => return print(&output(bytes)?),
        Called::Items(items) => items,
    };
    loop {
        let next = tokio::select! {
            biased;
            exit = cancellation.wait() => {
                return Err(Failure::cancelled(exit, ErrorReport::cancelled("cancelled while its items came")));
            }
            next = items.next() => next,
        };
        match next {
            None => return Ok(Exit::Success),
            Some(item) => drop(print(&output(item.map_err(served::refused)?)?)?),
        }
    }
}

fn print(output: &StepOutput) -> Result<Exit, Failure> {
    write_line(output).map_err(stdout_failed)?;
    Ok(Exit::Success)
}

fn write_line(output: &StepOutput) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write_json(&output.to_bytes(), &mut out)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn value_of(result: CallResult) -> Result<StepOutput, CallError> {
    let encoded = Answer::into_encoded(result?)?;
    if encoded.codec != Codec::MessagePack {
        return Err(DecodeError::Codec(encoded.codec).into());
    }
    StepOutput::single(encoded.bytes)
        .map_err(|error| CallError::Unknown(ipc_transport::Cause::ProtocolViolation(error.to_string())))
}

/// The method that was meant, if one is near, and those that there are.
fn choice(given: &str, mut names: Vec<&str>) -> String {
    names.sort_unstable();
    let nearest = closest(given, names.iter().copied());
    let nearest = nearest.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    let left_out = names.len().saturating_sub(METHODS_LISTED_MAX);
    names.truncate(METHODS_LISTED_MAX);
    let more = if left_out > 0 { format!(" and {left_out} more") } else { String::new() };
    format!("{nearest}its methods: {}{more}", names.join(", "))
}

/// What documents say of a call whose caller went.
fn cancelled(place: Where<'_>, method: &str, was_sent: bool) -> ErrorReport {
    let (message, retry, help) = match (was_sent, place.is_idempotent) {
        (false, _) => (format!("cancelled before {method} was delivered"), "now", "call again"),
        (true, true) => {
            (format!("cancelled while {method} ran; it may have run"), "now", "call again: it may run twice")
        }
        (true, false) => (
            format!("cancelled while {method} ran; it may have run"),
            "never",
            "look what it did first: call again only if the method may run twice",
        ),
    };
    ErrorReport {
        extension: Some(place.extension.to_owned()),
        retry: retry.to_owned(),
        help: help.to_owned(),
        ..ErrorReport::cancelled(message)
    }
}

fn failure(place: Where<'_>, method: &str, timeout: Duration, source: CallError) -> Failure {
    let error = StepError::Call { method: method.to_owned(), timeout, source };
    Failure::reported(report(&error, place))
}
