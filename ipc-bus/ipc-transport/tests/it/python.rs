//! The extension in Python that `docs/protocol.md` ends with, in a process of its own: the document is enough.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use ipc_protocol::FaultCode;
use ipc_protocol::describe::{DESCRIPTION_VERSION, Description};
use ipc_protocol::handshake::Hello;
use ipc_testkit::peer::PATIENCE;
use ipc_transport::connection::{CloseReason, ConnectOptions, Connection, connect};
use ipc_transport::{CallError, Caller, Encoded, Payload, Request};
use serde::Serialize;

fn script() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    let document = std::fs::read_to_string(path).expect("the document is there");
    let (_, after) = document.split_once("```python\n").expect("the document has a script");
    after.split_once("```").expect("the script ends").0.to_owned()
}

async fn call<T: Serialize>(
    connection: &Connection,
    method: &str,
    arguments: &T,
) -> Result<String, CallError> {
    let payload = Payload::Encoded(Encoded::from_value(arguments).expect("the arguments are encoded"));
    Ok(connection.call(Request::new(method, payload, PATIENCE)).await?.decode()?)
}

#[derive(Serialize)]
struct Greet<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Repeat<'a> {
    text: &'a str,
    times: u32,
}

/// JSON as MessagePack, by the document's own `pack`.
fn converted(json: &[u8]) -> Vec<u8> {
    let script = script();
    let (before, _) = script.split_once("\ndef unpack").expect("it has a function of this name");
    let convert = format!("{before}\nsys.stdout.buffer.write(pack(json.load(sys.stdin)))");
    let mut child = Command::new("python3")
        .args(["-c", &convert])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was run before");
    // Dropped at once: the end of the input.
    child.stdin.take().expect("it is piped").write_all(json).expect("it is read");
    child.wait_with_output().expect("it is a child").stdout
}

#[test]
fn the_documents_python_extension_describes_itself_and_refuses_to_be_started_by_hand() {
    let run = |arguments: &[&str]| {
        Command::new("python3").arg("-c").arg(script()).args(arguments).stdin(Stdio::null()).output()
    };
    let described = match run(&["--describe"]) {
        Ok(described) => described,
        Err(error) => {
            let name = "the_documents_python_extension_describes_itself_and_refuses_to_be_started_by_hand";
            let _ = writeln!(std::io::stderr(), "skipped: {name}: python3 cannot be run: {error}");
            return;
        }
    };
    assert_eq!(described.status.code(), Some(0));
    let description = Encoded::message_pack(converted(&described.stdout));
    let description: Description = description.decode().expect("it is a description");
    let Description { version, extension, protocol_versions, interfaces, .. } = description;
    assert_eq!(
        (version, extension.as_str(), &protocol_versions[..]),
        (DESCRIPTION_VERSION, "greeter", &[1][..])
    );
    let names: Vec<_> = interfaces[0].methods.iter().map(|method| method.name.as_str()).collect();
    assert_eq!(names, ["greet", "repeat"]);

    let by_hand = run(&[]).expect("it was run before");
    assert_eq!(by_hand.status.code(), Some(2));
    assert!(by_hand.stdout.is_empty());
}

#[tokio::test]
async fn the_documents_python_extension_works() {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair is to be had");
    let started = Command::new("python3")
        .arg("-c")
        .arg(script())
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: the_documents_python_extension_works: python3 cannot be run: {error}"
            );
            return;
        }
    };
    let mut hello = Hello::new("greeter", 12, 34);
    hello.message_bytes_max = 16 << 20;
    let mut options = ConnectOptions::new(hello);
    options.welcome_timeout = PATIENCE;
    let connection = connect(ours, options, Arc::new(())).await.expect("the script does the handshake");
    assert!(connection.method("greet").expect("it is in the table").idempotent);

    assert_eq!(
        call(&connection, "greet", &Greet { name: "World" }).await.expect("it greets"),
        "Hello, World!"
    );
    let long = call(&connection, "repeat", &Repeat { text: "0123456789", times: 300_000 }).await;
    assert_eq!(long.expect("three frames are one message").len(), 3_000_000);
    let text = "x".repeat(2_500_000);
    let sent = call(&connection, "repeat", &Repeat { text: &text, times: 1 }).await;
    assert!(sent.expect("three frames are one message") == text);
    let wrong = call(&connection, "greet", &Repeat { text: "a", times: 1 }).await;
    let Err(CallError::Fault(fault)) = wrong else { panic!("{wrong:?}") };
    assert_eq!(fault.code, FaultCode::InvalidArgument);

    connection.drain();
    assert_eq!(connection.closed().await, CloseReason::Eof);
    assert!(child.wait().expect("it is a child").success());
}
