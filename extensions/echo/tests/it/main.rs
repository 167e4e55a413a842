//! The smallest extension as a process: what every extension's process does.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use extension_sdk::{CallError, Cause, testing};
use interfaces::EchoClient;

const ECHO: &str = env!("CARGO_BIN_EXE_echo");

#[test]
fn it_answers_over_its_channel() {
    let echo = EchoClient::new(testing::process(ECHO).unwrap());
    for text in ["", "hello", &"x".repeat(3 << 20)] {
        assert_eq!(testing::block_on(echo.echo(text.into())).unwrap(), text);
    }
}

#[test]
fn many_calls_at_once_are_answered_each() {
    let echo = EchoClient::new(testing::process(ECHO).unwrap());
    let calls: Vec<_> = (0..500).map(|index| echo.echo(index.to_string())).collect();
    for (index, call) in calls.into_iter().enumerate() {
        assert_eq!(testing::block_on(call).unwrap(), index.to_string());
    }
}

#[test]
fn it_describes_itself_and_needs_no_channel_for_it() {
    let output = Command::new(ECHO).arg("--describe").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    let description: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(description["extension"], "echo");
    let method = &description["interfaces"][0]["methods"][0];
    assert_eq!((&method["name"], &method["idempotent"]), (&"echo".into(), &true.into()));
    assert_eq!(method["documentation"], "Returns `text`.");
    let schema: serde_json::Value =
        serde_json::from_str(method["arguments_schema"].as_str().unwrap()).unwrap();
    assert_eq!(schema["properties"]["text"]["type"], "string");
    assert_eq!(schema["required"], serde_json::json!(["text"]));
}

#[test]
fn started_by_hand_it_says_what_it_is() {
    for arguments in [&[][..], &["--help"], &["--describe", "x"]] {
        let output = Command::new(ECHO).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("is an extension of Symphony (Echo)"), "{said}");
    }
}

/// The process, and the host's end of its channel.
fn spawn() -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    // A bound for every wait; no test comes near it unless it fails.
    ours.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let mut command = Command::new(ECHO);
    let child = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    (child.expect("it starts"), ours)
}

fn wait(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_host_that_goes_away_ends_it() {
    let (child, channel) = spawn();
    drop(channel);
    let output = wait(child);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the host closed the channel before its Hello"), "{said}");
}

#[test]
fn a_host_that_speaks_something_else_is_told_so() {
    let (child, mut channel) = spawn();
    channel.write_all(b"GET / HTTP/1.1\r\nHost: here, and some more bytes\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Reset or closed, as it likes.
    let _ = channel.read_to_end(&mut answer);
    let output = wait(child);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("GET / HTTP/1.1"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn its_death_ends_the_calls_under_way() {
    let (mut child, channel) = spawn();
    // It waits for a hello; the signal's own effect is what ends it.
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    drop(channel);

    let extension = testing::process(ECHO).unwrap();
    let pid = extension.process_id().and_then(|pid| i32::try_from(pid).ok()).unwrap();
    let echo = EchoClient::new(extension);
    assert_eq!(testing::block_on(echo.echo("a".into())).unwrap(), "a");
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let error = loop {
        if let Err(error) = testing::block_on(echo.echo("b".into())) {
            break error;
        }
    };
    assert!(
        matches!(error, CallError::NotDelivered(Cause::Died(_)) | CallError::Unknown(Cause::Died(_))),
        "{error:?}"
    );
}
