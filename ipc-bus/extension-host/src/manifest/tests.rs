//! Whole manifests: the full form is read as it stands, and each mistake is found where it is.

use super::*;
use crate::restart::RestartWhen;

const FULL: &str = r#"
name = "file-explorer"
version = "0.1.0"
tier = "process"

[run]
command = ["file-explorer", "--quick"]
environment = { LOG = "info" }
nice = 5
[build]
cargo-package = "file-explorer"

[activation]
start = "eager"
idle-timeout = "60s"
requires = { prompt-enhancer = "^0.1" }
fallback = "file-explorer-basic"

[pool]
min = 0
max = 4
spares = 1
recycle-after-calls = 10000
recycle-after = "1h"
recycle-above-memory = "1GiB"
balance = "least-loaded"

[restart]
policy = "always"
backoff = ["50ms", "10s"]
limit = { count = 3, within = "2m" }

[limits]
memory = "512MiB"
cpu = "80%"
processes = 32
open-files = 256
in-flight = 2048
call = "30s"
on-memory = "restart"
on-call = "warn"

[permissions]
read = ["${input.path}"]
write = []
network = [443, 8080]
calls = ["prompt-enhancer"]
environment = ["HOME"]
artifacts = "read-write"
ports = 0

[models.gpt-local]
capacity = 2

[config]
depth = 3
names = ["a", "b"]
[config.nested]
on = true
"#;

const LEAST: &str = "name = \"x\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"x\"]\n";

fn parse(text: &str) -> Result<Manifest, Diagnostics> {
    Manifest::parse(text, Path::new("extension.toml"))
}

#[test]
fn the_full_form_is_read() {
    let manifest = parse(FULL).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((manifest.name.as_str(), manifest.version.to_string().as_str()), ("file-explorer", "0.1.0"));
    assert_eq!(manifest.run.command, ["file-explorer", "--quick"]);
    assert_eq!((manifest.run.nice, manifest.run.environment["LOG"].as_str()), (5, "info"));
    assert_eq!(manifest.build.as_ref().map(|build| build.cargo_package.as_str()), Some("file-explorer"));
    assert!(manifest.activation.eager);
    assert_eq!(manifest.activation.idle_timeout, Some(Duration::from_secs(60)));
    assert_eq!(manifest.pool, Pool { instances_min: 0, instances_max: 4, spares: 1 });
    let expected = RestartPolicy {
        when: RestartWhen::Always,
        backoff_first: Duration::from_millis(50),
        backoff_cap: Duration::from_secs(10),
        limit_count: 3,
        limit_window: Duration::from_secs(120),
    };
    assert_eq!(manifest.restart, expected);
    assert_eq!(manifest.limits.memory_bytes_max, Some(512 << 20));
    assert_eq!(manifest.limits.call_time_max, Some(Duration::from_secs(30)));
    assert_eq!(manifest.limits.in_flight_max, Some(2048));
    assert_eq!(manifest.limits.reactions["memory"], Reaction::Restart);
    assert_eq!(manifest.permissions.network, Network::Ports(vec![443, 8080]));
    assert_eq!(manifest.permissions.artifacts, Artifacts::ReadWrite);
    assert_eq!(manifest.models["gpt-local"], Model { capacity: 2 });
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Config {
        depth: u8,
        names: Vec<String>,
        nested: BTreeMap<String, bool>,
    }
    let config: Config = rmp_serde::from_slice(&manifest.config).expect("the configuration is MessagePack");
    let nested = BTreeMap::from([("on".to_owned(), true)]);
    assert_eq!(config, Config { depth: 3, names: vec!["a".into(), "b".into()], nested });
}

#[test]
fn what_is_not_enforced_is_noted_and_what_is_enforced_is_not() {
    let manifest = parse(FULL).unwrap_or_else(|found| panic!("{found}"));
    let noted: Vec<String> = manifest
        .notes
        .items()
        .iter()
        .map(|note| {
            assert_eq!(note.severity, Severity::Note);
            note.message.split('`').nth(1).expect("a note names its key").to_owned()
        })
        .collect();
    for key in [
        "pool.max",
        "pool.spares",
        "pool.recycle-after-calls",
        "pool.balance",
        "permissions.read",
        "permissions.network",
    ] {
        assert!(noted.iter().any(|noted| noted == key), "{key} of {noted:?}");
    }
    for key in [
        "limits.open-files",
        "limits.memory",
        "limits.cpu",
        "limits.processes",
        "limits.on-memory",
        "limits.in-flight",
        "limits.call",
        "permissions.environment",
        "pool.min",
        "activation.idle-timeout",
        "activation.fallback",
        "run.nice",
    ] {
        assert!(!noted.iter().any(|noted| noted == key), "{key} of {noted:?}");
    }
    assert_eq!(parse(LEAST).expect("the least is enough").notes, Diagnostics::default());
}

#[test]
fn each_mistake_is_found_where_it_is() {
    for (text, line, column, message, hint) in [
        ("name = \"X\"", 1, 8, "`name` is \"X\"", "allowed: 1 to 64 of a-z"),
        ("name = 7", 1, 8, "`name` is of type integer", "expected a string"),
        ("teir = \"process\"", 1, 1, "unknown key `teir`", "did you mean `tier`?"),
        ("zebra = 1", 1, 1, "unknown key `zebra`", "known keys: activation, build"),
        (
            "latency = \"fast\"",
            1,
            11,
            "`latency` is \"fast\"",
            "allowed: \"low\", \"balanced\", \"efficient\"",
        ),
        ("transport = \"tcp\"", 1, 13, "`transport` is \"tcp\"", "allowed: \"shared-memory\", \"socket\""),
        ("tier = \"thread\"", 1, 8, "`tier` is \"thread\"", "allowed: \"process\", \"in-process\""),
        ("version = \"1\"", 1, 11, "`version` is \"1\"", "three numbers"),
        ("run = 3", 1, 7, "`run` is of type integer", "expected a table"),
        ("[run]\ncommand = []", 2, 11, "`run.command` names no program", "the program is required"),
        (
            "[run]\ncommand = [\"x\", \"a\\u0000b\"]",
            2,
            11,
            "`run.command` contains a null character",
            "no argument of a program",
        ),
        ("[run]\ncommand = [\"x\", 3]", 2, 17, "`run.command` is of type integer", "a list of strings"),
        ("[run]\nnice = 20", 2, 8, "`run.nice` is 20", "allowed: 0 to 19"),
        ("[run]\nnice = -1", 2, 8, "`run.nice` is -1", "allowed: 0 to 19"),
        (
            "[run]\nenvironment = { \"A=B\" = \"x\" }",
            2,
            25,
            "`run.environment.A=B` cannot be set",
            "NAME = \"value\"",
        ),
        ("[limits]\nmemory = \"512MB\"", 2, 10, "`limits.memory` is \"512MB\"", "\"512MiB\""),
        ("[limits]\ncpu = 80", 2, 7, "`limits.cpu` is of type integer", "expected a string"),
        ("[limits]\nin-fligth = 3", 2, 1, "unknown key `limits.in-fligth`", "did you mean `in-flight`?"),
        ("[limits]\nopen-files = 2", 2, 14, "`limits.open-files` is 2", "allowed: 16 to"),
        (
            "[limits]\nprocesses = 99999999999999999999",
            2,
            13,
            "`limits.processes` is 99999999999999999999",
            "allowed: 1 to",
        ),
        ("[activation]\nidle-timeout = \"0s\"", 2, 16, "`activation.idle-timeout` is zero", "leave it out"),
        ("[activation]\nrequires = { b = \"newest\" }", 2, 18, "no version requirement", "\"^0.1\""),
        ("[activation]\nrequires = { B = \"*\" }", 2, 14, "`B` is not an extension's name", "a-z"),
        ("[pool]\nmin = 3\nmax = 2", 2, 7, "`pool.min` is 3, above `pool.max`, 2", "raise the one"),
        ("[restart]\nbackoff = [\"1s\"]", 2, 11, "`restart.backoff` is of type array", "a list of exactly 2"),
        (
            "[restart]\nbackoff = [\"2s\", \"1s\"]",
            2,
            11,
            "not a first and a longest delay",
            "the first above zero",
        ),
        ("[restart]\nlimit = { count = 0 }", 2, 19, "`restart.limit.count` is 0", "allowed: 1 to 64"),
        ("[permissions]\nnetwork = \"yes\"", 2, 11, "neither a boolean nor a list", "[443, 8080]"),
        ("[permissions]\nnetwork = [0]", 2, 11, "neither a boolean nor a list", "[443, 8080]"),
        ("[models.gpt]\n", 1, 1, "`models.gpt.capacity` is missing", "capacity = 1"),
        ("[models.gpt]\ncapacity = 0", 2, 12, "`models.gpt.capacity` is 0", "allowed: 1 to"),
        ("name = ", 1, 8, "", ""),
        ("[run\n", 1, 5, "", ""),
        ("name = \"a\"\nname = \"b\"", 2, 1, "duplicate key", ""),
    ] {
        let found = parse(text).expect_err(text);
        let at =
            |item: &&Diagnostic| (item.line, item.column) == (line, column) && item.message.contains(message);
        let item = found.items().iter().find(at).unwrap_or_else(|| panic!("{text}\n{found}"));
        assert!(item.hint.as_deref().unwrap_or_default().contains(hint), "{text}\n{found}");
        assert!(found.has_errors());
    }
}

#[test]
fn several_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "name = \"X\"\nversion = \"0\"\n[run]\ncommand = 1\nnise = 3\n[limits]\ncall = \"soon\"\n";
    let found = parse(text).expect_err("it is full of mistakes");
    let lines: Vec<u32> = found.items().iter().map(|item| item.line).collect();
    assert_eq!(lines, [1, 2, 4, 5, 7], "{found}");
    assert!(
        found.to_string().contains("error: unknown key `run.nise`\n --> extension.toml:5:1\n"),
        "{found}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let found = parse("").expect_err("nothing is there").to_string();
    for key in ["`name` is missing", "`version` is missing", "`run` is missing"] {
        assert!(found.contains(key), "{found}");
    }
}

#[test]
fn files_that_are_no_manifest_are_refused_as_a_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let long = "#".repeat(usize::try_from(MANIFEST_BYTES_MAX).expect("small") + 1);
    for (name, bytes, message) in [
        ("absent", None, "the manifest cannot be read: No such file"),
        ("long", Some(long.as_bytes()), "the manifest is longer than 65536 bytes"),
        ("binary", Some(&b"name = \"\xff\""[..]), "the manifest is not UTF-8 at byte 8"),
    ] {
        let file = folder.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&file, bytes).expect("the temporary folder is writable");
        }
        let found = Manifest::load(&file).expect_err(name).to_string();
        assert!(found.contains(message) && found.contains(name), "{found}");
    }
    std::fs::write(folder.path().join("right"), LEAST).expect("the temporary folder is writable");
    assert_eq!(Manifest::load(&folder.path().join("right")).expect("it is right").name, "x");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n\u{e4}]{0,200}", from in 0_usize..2_000, to in 0_usize..2_000) {
        let _ = parse(&text);
        // And the full form with a hole in it.
        let (from, to) = (from.min(FULL.len()), to.min(FULL.len()));
        let hole = format!("{}{text}{}", &FULL[..from.min(to)], &FULL[from.max(to)..]);
        if let Err(found) = parse(&hole) {
            let _ = found.to_string();
        }
    }
}
