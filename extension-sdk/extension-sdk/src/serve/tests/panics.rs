//! Panics as the host sees them: each costs its own call; one outside of any method costs the process.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use ipc_protocol::FaultCode;
use serde_json::json;

use super::{ADD, Bomb, EXPLODE, Host};
use crate::serve::abort_on_panic;

#[test]
fn a_panic_costs_its_own_call_only() {
    let mut host = Host::open();
    for id in 1..4 {
        host.call(id, EXPLODE, &json!({}));
        let fault = host.fault(id);
        assert_eq!(fault.code, FaultCode::Panicked);
        assert!(fault.message.contains("serve/tests.rs:"), "{}", fault.message);
        assert!(fault.message.ends_with(": so that it is seen"), "{}", fault.message);
    }
    host.call(9, ADD, &json!({"numbers": [4]}));
    assert_eq!(host.result::<u64>(9), 4);
}

#[test]
fn a_panic_whose_payload_panics_costs_its_own_call_only() {
    let mut host = Host::open();
    // First on workers, then on the reading thread, because failing is fast.
    for id in 1..32 {
        host.call(id, EXPLODE, &json!({"explodes_again": true}));
        let fault = host.fault(id);
        assert_eq!(fault.code, FaultCode::Panicked);
        assert!(fault.message.ends_with(": a value that is not text"), "{}", fault.message);
    }
    host.call(99, ADD, &json!({"numbers": [4]}));
    assert_eq!(host.result::<u64>(99), 4);
}

#[test]
fn a_thread_that_panics_outside_of_methods_aborts_the_process_and_says_so() {
    const INSIDE: &str = "EXTENSION_SDK_TEST_ABORTS";
    if std::env::var_os(INSIDE).is_some() {
        abort_on_panic("reader", || std::panic::panic_any(Bomb));
        return;
    }
    let program = std::env::current_exe().unwrap();
    let name = thread::current().name().unwrap().to_owned();
    let output =
        Command::new(program).args(["--exact", &name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("thread `reader` panicked outside of any method"), "{said}");
}
