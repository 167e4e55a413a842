//! The tables of a manifest, one function each: which keys there are, their types, ranges and defaults.
//!
//! A key that is understood here and enforced nowhere yet gets a note: to be silent would be a promise.

use std::collections::BTreeMap;
use std::path::Path;

use ipc_protocol::limits::IN_FLIGHT_CALLS_MAX;
use ipc_transport::ring::Latency;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Source, Table};
use super::{
    Activation, Artifacts, Build, Limits, Manifest, Model, Network, Permissions, Pool, Reaction, Requirement,
    Run, Tier, Transport, Version, values,
};
use crate::diagnostic::{Diagnostics, Severity};
use crate::restart::{FAILURES_MAX, RestartPolicy, RestartWhen};

pub(super) fn parse(text: &str, file: &Path) -> Result<Manifest, Diagnostics> {
    let source = Source::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What follows a syntax error is guesswork: report these alone.
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            source.report(Severity::Error, span, error.message().trim(), None);
        }
        return Err(source.finish());
    }
    let root = Table::new(&source, root.get_ref(), "");
    let name = required(&source, &root, "name", "a name is required: name = \"my-extension\"", |root| {
        root.parsed("name", values::name)
    });
    let version = required(&source, &root, "version", "a version is required: version = \"0.1.0\"", |root| {
        root.parsed("version", Version::parse)
    });
    let tier = root.choice("tier", &[("process", Tier::Process), ("in-process", Tier::InProcess)]);
    if tier == Some(Tier::InProcess) {
        let text = "`tier = \"in-process\"` is a wish: it is obeyed where the conductor's `in-process` names the extension";
        source.report(Severity::Note, root.span("tier"), text, None);
    }
    let transports = [("shared-memory", Transport::SharedMemory), ("socket", Transport::Socket)];
    let transport = root.choice("transport", &transports);
    let latencies = [Latency::Low, Latency::Balanced, Latency::Efficient];
    let latency = root.choice("latency", &latencies.map(|latency| (latency.as_str(), latency)));
    let run =
        required(&source, &root, "run", "what to run is required: [run] command = [\"program\"]", |root| {
            root.table("run").and_then(|table| read_run(&source, table))
        });
    let build = root.table("build").and_then(|table| read_build(&source, table));
    let activation = root.table("activation").map(|table| read_activation(&source, table));
    let pool = root.table("pool").map(|table| read_pool(&source, table));
    let restart = root.table("restart").map(|table| read_restart(&source, table));
    let limits = root.table("limits").map(read_limits);
    let permissions = root.table("permissions").map(|table| read_permissions(&source, table));
    let models = read_models(&root);
    let config = read_config(&source, &root);
    root.finish();

    let found = source.finish();
    match (found.has_errors(), name, version, run) {
        (false, Some(name), Some(version), Some(run)) => Ok(Manifest {
            file: file.to_path_buf(),
            name,
            version,
            tier: tier.unwrap_or(Tier::Process),
            transport: transport.unwrap_or_default(),
            latency: latency.unwrap_or_default(),
            run,
            build,
            activation: activation.unwrap_or_default(),
            pool: pool.unwrap_or_default(),
            restart: restart.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            permissions: permissions.unwrap_or_default(),
            models,
            config,
            notes: found,
        }),
        _ => Err(found),
    }
}

fn required<'s, 't, T>(
    source: &Source<'t>,
    table: &Table<'s, 't>,
    key: &'static str,
    hint: &str,
    read: impl FnOnce(&Table<'s, 't>) -> Option<T>,
) -> Option<T> {
    if table.value(key).is_none() {
        source.error(0..0, format!("`{}` is missing", table.path(key)), hint);
    }
    read(table)
}

fn read_run(source: &Source<'_>, table: Table<'_, '_>) -> Option<Run> {
    let hint = "the program is required: command = [\"program\", \"argument\"]";
    let command = required(source, &table, "command", hint, |table| table.strings("command"));
    if command.as_ref().is_some_and(|command| command.first().is_none_or(String::is_empty)) {
        source.error(table.span("command"), "`run.command` names no program", hint);
    }
    if command.iter().flatten().any(|part| part.contains('\0')) {
        let hint = "no argument of a program can contain one";
        source.error(table.span("command"), "`run.command` contains a null character", hint);
    }
    let environment = table.entries("environment", |source, name, value| {
        let usable = |text: &str| !text.contains('\0');
        let named = usable(name.get_ref()) && !name.get_ref().contains('=') && !name.get_ref().is_empty();
        let text = value.get_ref().as_str().filter(|text| usable(text));
        if !named || text.is_none() {
            let hint = "expected NAME = \"value\", without a null character, the name without `=`";
            source.error(value.span(), format!("`run.environment.{}` cannot be set", name.get_ref()), hint);
        }
        text.map(str::to_owned)
    });
    let nice = table.integer("nice", 0..=19).unwrap_or(0);
    table.finish();
    Some(Run { command: command?, environment: environment.into_iter().collect(), nice })
}

fn read_build(source: &Source<'_>, table: Table<'_, '_>) -> Option<Build> {
    let hint = "the package is required: cargo-package = \"my-extension\"";
    let cargo_package = required(source, &table, "cargo-package", hint, |table| {
        table.parsed("cargo-package", |text| {
            let letters =
                text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            let valid = letters && !text.is_empty() && !text.starts_with('-');
            valid.then(|| text.to_owned()).ok_or_else(|| "the name of a cargo package".to_owned())
        })
    });
    table.finish();
    Some(Build { cargo_package: cargo_package? })
}

fn read_activation(source: &Source<'_>, table: Table<'_, '_>) -> Activation {
    let eager = table.choice("start", &[("lazy", false), ("eager", true)]).unwrap_or(false);
    let idle_timeout = table.parsed("idle-timeout", values::duration);
    if idle_timeout.is_some_and(|timeout| timeout.is_zero()) {
        let hint = "leave it out for an extension that stays";
        source.error(table.span("idle-timeout"), "`activation.idle-timeout` is zero", hint);
    }
    let requires: BTreeMap<String, Requirement> = table
        .entries("requires", |source, name, value| {
            let named = values::name(name.get_ref());
            if let Err(allowed) = &named {
                let message = format!("`{}` is not an extension's name", name.get_ref());
                source.error(name.span(), message, format!("allowed: {allowed}"));
            }
            let requirement = match value.get_ref().as_str().map(Requirement::parse) {
                Some(Ok(requirement)) => Some(requirement),
                wrong => {
                    let allowed = wrong.and_then(Result::err).unwrap_or_else(|| "a version in quotes".into());
                    let message =
                        format!("`activation.requires.{}` is no version requirement", name.get_ref());
                    source.error(value.span(), message, format!("allowed: {allowed}"));
                    None
                }
            };
            named.ok().and(requirement)
        })
        .into_iter()
        .collect();
    if !requires.is_empty() {
        source.not_enforced(table.span("requires"), "activation.requires (as an order of starting)");
    }
    let fallback = table.parsed("fallback", values::name);
    table.finish();
    Activation { eager, idle_timeout, requires, fallback }
}

fn read_pool(source: &Source<'_>, table: Table<'_, '_>) -> Pool {
    const INSTANCES_MAX: u32 = 1024;
    let instances_min = table.integer("min", 0..=INSTANCES_MAX).unwrap_or(0);
    let instances_max = table.integer("max", 1..=INSTANCES_MAX).unwrap_or(1.max(instances_min));
    let spares = table.integer("spares", 0..=INSTANCES_MAX).unwrap_or(0);
    if instances_min > instances_max {
        let message = format!("`pool.min` is {instances_min}, above `pool.max`, {instances_max}");
        source.error(table.span("min"), message, "raise the one or lower the other");
    }
    for (key, above_what_is_done) in
        [("min", instances_min > 0), ("max", instances_max > 1), ("spares", spares > 0)]
    {
        if above_what_is_done {
            source.not_enforced(table.span(key), &table.path(key));
        }
    }
    table.integer("recycle-after-calls", 1..=u32::MAX);
    table.not_enforced("recycle-after-calls");
    table.parsed("recycle-after", values::duration);
    table.not_enforced("recycle-after");
    table.parsed("recycle-above-memory", values::size_bytes);
    table.not_enforced("recycle-above-memory");
    table.choice("balance", &[("least-loaded", ()), ("session", ())]);
    table.not_enforced("balance");
    table.finish();
    Pool { instances_min, instances_max, spares }
}

fn read_restart(source: &Source<'_>, table: Table<'_, '_>) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    let choices = [
        ("on-failure", RestartWhen::OnFailure),
        ("always", RestartWhen::Always),
        ("never", RestartWhen::Never),
    ];
    policy.when = table.choice("policy", &choices).unwrap_or(policy.when);
    if let Some(both) = table.exactly("backoff", 2) {
        let parsed: Vec<_> = both
            .iter()
            .map(|value| value.get_ref().as_str().and_then(|text| values::duration(text).ok()))
            .collect();
        match parsed.as_slice() {
            [Some(first), Some(cap)] if !first.is_zero() && first <= cap => {
                (policy.backoff_first, policy.backoff_cap) = (*first, *cap);
            }
            _ => source.error(
                table.span("backoff"),
                "`restart.backoff` is not a first and a longest delay",
                "allowed: [\"100ms\", \"30s\"], the first above zero and not above the second",
            ),
        }
    }
    if let Some(limit) = table.table("limit") {
        policy.limit_count = limit.integer("count", 1..=FAILURES_MAX).unwrap_or(policy.limit_count);
        policy.limit_window = limit.parsed("within", values::duration).unwrap_or(policy.limit_window);
        limit.finish();
    }
    table.finish();
    policy
}

fn read_limits(table: Table<'_, '_>) -> Limits {
    let reactions = [("restart", Reaction::Restart), ("stop", Reaction::Stop), ("warn", Reaction::Warn)];
    let mut limits = Limits {
        memory_bytes_max: table.parsed("memory", values::size_bytes),
        cpu_percent_max: table.parsed("cpu", values::percent),
        processes_max: table.integer("processes", 1..=4_194_304),
        open_files_max: table
            .integer("open-files", extension_launcher::Arguments::OPEN_FILES_MIN..=1_048_576),
        in_flight_max: table.integer("in-flight", 1..=IN_FLIGHT_CALLS_MAX),
        call_time_max: table.parsed("call", values::duration),
        reactions: BTreeMap::new(),
    };
    for key in ["on-memory", "on-cpu", "on-processes", "on-call"] {
        if let Some(reaction) = table.choice(key, &reactions) {
            limits.reactions.insert(key.trim_start_matches("on-"), reaction);
        }
    }
    table.not_enforced("on-call");
    table.finish();
    limits
}

fn read_permissions(source: &Source<'_>, table: Table<'_, '_>) -> Permissions {
    let artifacts =
        [("none", Artifacts::None), ("read", Artifacts::Read), ("read-write", Artifacts::ReadWrite)];
    let permissions = Permissions {
        read: table.strings("read").unwrap_or_default(),
        write: table.strings("write").unwrap_or_default(),
        network: table.value("network").map_or(Network::None, |value| read_network(source, value)),
        calls: table.strings("calls").unwrap_or_default(),
        environment: table.strings("environment").unwrap_or_default(),
        artifacts: table.choice("artifacts", &artifacts).unwrap_or_default(),
        ports: table.integer("ports", 0..=1024).unwrap_or(0),
    };
    for name in &permissions.calls {
        if let Err(allowed) = values::name(name) {
            let message = format!("{name:?} in `permissions.calls` is not an extension's name");
            source.error(table.span("calls"), message, format!("allowed: {allowed}"));
        }
    }
    // `environment` holds today, since the rest of the environment is not passed on, and so do `calls` and `artifacts`.
    for key in ["read", "write", "network", "ports"] {
        table.not_enforced(key);
    }
    table.finish();
    permissions
}

fn read_network(source: &Source<'_>, value: &Spanned<DeValue<'_>>) -> Network {
    let ports = |array: &toml::de::DeArray<'_>| -> Option<Vec<u16>> {
        let port = |item: &Spanned<DeValue<'_>>| item.get_ref().as_integer()?.as_str().parse::<u16>().ok();
        array.iter().map(|item| port(item).filter(|port| *port > 0)).collect()
    };
    match value.get_ref() {
        DeValue::Boolean(false) => return Network::None,
        DeValue::Boolean(true) => return Network::All,
        DeValue::Array(array) => {
            if let Some(ports) = ports(array) {
                return Network::Ports(ports);
            }
        }
        _ => {}
    }
    let hint = "allowed: false, true, or a list of ports: [443, 8080]";
    source.error(value.span(), "`permissions.network` is neither a boolean nor a list of ports", hint);
    Network::None
}

fn read_models(root: &Table<'_, '_>) -> BTreeMap<String, Model> {
    root.entries("models", |source, name, value| {
        let path = format!("models.{}", name.get_ref());
        if let Err(allowed) = values::name(name.get_ref()) {
            source.error(
                name.span(),
                format!("`{path}` is not a model's name"),
                format!("allowed: {allowed}"),
            );
        }
        let Some(entries) = value.get_ref().as_table() else {
            source.error(value.span(), format!("`{path}` is not a table"), "expected capacity = 2 in it");
            return None;
        };
        let table = Table::new(source, entries, path);
        let capacity =
            required(source, &table, "capacity", "how many may lease it at once: capacity = 1", |table| {
                table.integer("capacity", 1..=1_000_000)
            });
        table.finish();
        capacity.map(|capacity| Model { capacity })
    })
    .into_iter()
    .collect()
}

/// The author's own table: any keys, passed on as MessagePack.
fn read_config(source: &Source<'_>, root: &Table<'_, '_>) -> Vec<u8> {
    let Some(value) = root.value("config") else { return Vec::new() };
    let Some(_) = root.table("config") else { return Vec::new() };
    let mut config = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut config).with_struct_map();
    let written = serde::Serialize::serialize(&config_value(value.get_ref()), &mut serializer);
    if written.is_err() {
        let hint = "allowed: tables, lists, strings, numbers and booleans";
        source.error(value.span(), "`config` cannot be passed on", hint);
    }
    config
}

/// The spans taken off. Numbers that do not fit become strings, and so an error of whoever reads them.
fn config_value(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => toml::Value::Integer(number),
            Err(_) => toml::Value::String(number.as_str().to_owned()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => toml::Value::Float(number),
            Err(_) => toml::Value::String(number.as_str().to_owned()),
        },
        DeValue::Boolean(boolean) => toml::Value::Boolean(*boolean),
        DeValue::Datetime(time) => toml::Value::String(time.to_string()),
        DeValue::Array(items) => {
            toml::Value::Array(items.iter().map(|item| config_value(item.get_ref())).collect())
        }
        DeValue::Table(entries) => {
            let entry = |(name, value): (&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)| {
                (name.get_ref().to_string(), config_value(value.get_ref()))
            };
            toml::Value::Table(entries.iter().map(entry).collect())
        }
    }
}
