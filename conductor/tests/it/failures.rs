//! What goes wrong in a run: each with a clear error, and nothing left behind.

use crate::support::{Place, repository};

#[test]
fn a_missing_folder_is_the_callers_fault_and_clearly_so() {
    let place = Place::new();
    let ended = place.main_job(&place.path("nowhere"), []).with_code(1);
    let document = ended.document();
    assert_eq!(document["state"], "failed");
    let error = &document["error"];
    assert_eq!((error["step"].as_str(), error["extension"].as_str()), (Some("list"), Some("file-explorer")));
    assert_eq!((error["origin"].as_str(), error["retry"].as_str()), (Some("caller"), Some("never")));
    assert!(error["message"].as_str().unwrap().contains("nowhere"), "{error}");
    assert!(ended.stderr.contains("nowhere") && ended.stderr.contains("help:"), "{}", ended.stderr);
    let states: Vec<_> = document["steps"].as_array().unwrap().iter().map(|step| &step["state"]).collect();
    assert_eq!(states[0], "failed");
    assert!(states[1..].iter().all(|state| *state == "blocked" || *state == "cancelled"), "{states:?}");
    assert_eq!(document["outputs"], serde_json::json!({}));
}

#[test]
fn a_folder_that_is_a_file_is_refused() {
    let place = Place::new();
    let file = place.write("file", "x");
    place.main_job(&file, []).with_code(1);
}

#[test]
fn the_item_that_failed_is_told_with_its_value() {
    let place = Place::new();
    place.write(
        "melody.toml",
        r#"
name = "items"
[[steps]]
id = "list"
for-each = "{{ ['.', '/no where/\u001b[2J'] }}"
call = "file-explorer.list"
with = { path = "{{ item }}" }
"#,
    );
    let ended = place.run(["run", "melody.toml", "--json"]).with_code(1);
    let error = ended.document()["error"].clone();
    assert_eq!((error["item"].as_u64(), error["step"].as_str()), (Some(1), Some("list")), "{error}");
    assert_eq!(error["item_value"], r#""/no where/\u001b[2J""#, "{error}");
    let told = "step `list`, item 1 (\"/no where/";
    assert!(error["message"].as_str().is_some_and(|text| text.starts_with(told)), "{error}");
    assert!(ended.stderr.contains(told) && !ended.stderr.contains('\u{1b}'), "{}", ended.stderr);
}

#[test]
fn a_failing_extension_costs_its_retries_and_then_the_step() {
    let place = Place::new();
    place.write(
        "melody.toml",
        r#"
name = "exits"
[[steps]]
id = "call"
call = "file-explorer.list"
with = { path = "/nowhere/at/all" }
retry = { times = 2, backoff = ["1ms", "2ms"], on = ["crashed"] }
[[steps]]
id = "other"
call = "echo.echo"
with = { text = "{{ steps.call.output.root }}" }
"#,
    );
    let ended = place.run(["run", "melody.toml", "--json"]).with_code(1);
    let step = &ended.document()["steps"][0];
    // A fault is no crash: the rule does not name it.
    assert_eq!((step["attempts"].as_u64(), step["causes"].as_array().unwrap().len()), (Some(1), 1), "{step}");
    assert_eq!(ended.document()["steps"][1]["attempts"], 0);
}

#[test]
fn a_condition_that_is_false_skips_the_step_and_the_run_succeeds() {
    let place = Place::new();
    place.write(
        "melody.toml",
        r#"
name = "conditions"
[inputs.loud]
type = "boolean"
default = false
[[steps]]
id = "quiet"
call = "echo.echo"
with = { text = "quiet" }
output = { artifact = "quiet.txt" }
[[steps]]
id = "loud"
call = "echo.echo"
with = { text = "{{ steps.quiet.output }}!" }
when = "{{ inputs.loud }}"
output = { artifact = "loud.txt" }
"#,
    );
    let ended = place.run(["run", "melody.toml", "--json"]).with_code(0);
    assert_eq!(ended.output("quiet.txt"), b"quiet");
    let step = &ended.document()["steps"][1];
    assert_eq!((step["state"].as_str(), step["attempts"].as_u64()), (Some("skipped"), Some(0)));
    let ended = place.run(["run", "melody.toml", "--json", "-i", "loud=true"]).with_code(0);
    assert_eq!(ended.output("loud.txt"), b"quiet!");
}

#[test]
fn a_hostile_extension_costs_its_own_calls_with_a_clear_word() {
    let place = Place::new();
    let hostile = repository().join("extensions/hostile/extension.toml");
    assert!(hostile.is_file());
    for (mode, method, word) in [
        ("exit-at-start", "echo", "exit"),
        ("wrong-version", "echo", "version"),
        ("half-frame", "misbehave", "ended"),
        ("exit-inside-reply", "misbehave", "ended"),
        ("oversize-frame", "misbehave", "protocol"),
        ("garbage", "misbehave", "protocol"),
        ("crash-abort", "misbehave", "SIGABRT"),
        ("stall", "misbehave", "deadline"),
    ] {
        let call = format!("hostile.{method}");
        let mut command = place.conductor(["call", &call, "{}", "--timeout", "3s"]);
        let output = command.env("HOSTILE_MODE", mode).output().expect("the conductor runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{mode}: {told}");
        assert!(told.contains(&format!("error: the call of {call} failed")), "{mode}: {told}");
        assert!(told.contains(word) && told.contains("at fault:"), "{word} after {mode}: {told}");
    }
}
