//! For tests of melodies: a catalog with two extensions, and a melody that uses them.
//!
//! The schemas are what the SDK writes for the interfaces of the same names, shortened.

use std::path::Path;

use ipc_protocol::describe::{Description, InterfaceDescription, MethodDescription};
use serde_json::{Value, json};

use super::check::Catalog;
use super::file::Draft;
use super::plan::Plan;

/// The melody that the tests begin with.
pub(super) const REPORT: &str = r##"name = "folder-report"
description = "Counts and ranks what is in a folder."

[inputs.path]
type = "path"
default = "."

[inputs.all]
type = "boolean"
default = false

[models.printer]
capacity = 1

[[steps]]
id = "list"
call = "file-explorer.list"
with = { path = "{{ inputs.path }}", recursive = true, all = "{{ inputs.all }}" }

[[steps]]
id = "measure"
for-each = "{{ steps.list.output.entries }}"
call = "operators.measure"
with = { root = "{{ steps.list.output.root }}", file = "{{ item }}" }
claims = { cpu = 1 }
retry = { times = 3, backoff = ["100ms", "5s"], on = ["crashed", "timeout"] }
timeout = "10s"

[[steps]]
id = "rank"
call = "operators.rank"
lease = ["operators/counter"]
[steps.with]
rows = "{{ steps.measure.output }}"
problems_left_out = "{{ steps.list.output.problems_left_out | default(0) }}"
title = "of {{ inputs.path }} in {{ run.id }}"

[[steps]]
id = "report"
call = "operators.render"
with = { ranking = "{{ steps.rank.output }}" }
when = "{{ steps.measure.output | length > 0 }}"
lease = ["printer"]
output = { artifact = "report.md" }
after = ["list"]
"##;

/// The extensions of the melody above.
#[derive(Debug)]
pub(super) struct TestCatalog(Vec<Description>);

fn method(name: &str, arguments: Value, result: Value) -> MethodDescription {
    MethodDescription {
        name: name.into(),
        documentation: String::new(),
        idempotent: true,
        pure: false,
        arguments_schema: arguments.to_string(),
        result_schema: result.to_string(),
        schema_hash: 0,
    }
}

fn extension(name: &str, methods: Vec<MethodDescription>) -> Description {
    Description {
        version: 1,
        extension: name.into(),
        extension_version: "0.1.0".into(),
        protocol_versions: vec![1],
        interfaces: vec![InterfaceDescription { name: "Test".into(), documentation: String::new(), methods }],
        config_schema: String::new(),
    }
}

impl TestCatalog {
    pub(super) fn new() -> Self {
        let entry = json!({"type": "object", "required": ["path", "bytes"], "properties": {
            "path": {"type": "string"}, "bytes": {"type": "integer", "format": "uint64", "minimum": 0}}});
        let row = json!({"type": "object", "required": ["path", "bytes"], "properties": {
            "path": {"type": "string"}, "bytes": {"type": "integer"}, "error": {"type": ["string", "null"]}}});
        let options = json!({"type": "object", "required": ["style"], "properties": {
            "style": {"oneOf": [{"const": "plain"}, {"const": "rich"}]},
            "depth": {"type": "integer", "minimum": 0, "maximum": 9},
            "share": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}}}});
        let list = method(
            "list",
            json!({"type": "object", "required": ["path"], "properties": {
                "path": {"type": "string"}, "recursive": {"type": "boolean", "default": true},
                "all": {"type": "boolean"}, "options": {"anyOf": [{"$ref": "#/$defs/Options"}, {"type": "null"}]}},
                "$defs": {"Options": options}}),
            json!({"type": "object", "properties": {
                "root": {"type": "string"}, "entries": {"type": "array", "items": {"$ref": "#/$defs/Entry"}},
                "problems_left_out": {"type": "integer"}}, "$defs": {"Entry": entry}}),
        );
        let measure = method(
            "measure",
            json!({"type": "object", "required": ["root", "file"], "properties": {
                "root": {"type": "string"}, "file": {"$ref": "#/$defs/Entry"}}, "$defs": {"Entry": entry}}),
            row.clone(),
        );
        let rank = method(
            "rank",
            json!({"type": "object", "required": ["rows"], "properties": {
                "rows": {"type": "array", "items": row}, "problems_left_out": {"type": "integer"},
                "title": {"type": "string"}}}),
            json!({"type": "object", "properties": {"total": {"type": "integer"}}}),
        );
        let render = method(
            "render",
            json!({"type": "object", "required": ["ranking"], "properties": {"ranking": {"type": "object"}}}),
            json!({"type": "string"}),
        );
        let reset = method("reset", json!({"type": "object"}), json!({"type": "null"}));
        Self(vec![
            extension("file-explorer", vec![list]),
            extension("operators", vec![measure, rank, render, reset]),
        ])
    }
}

impl Catalog for TestCatalog {
    fn extension(&self, name: &str) -> Option<&Description> {
        self.0.iter().find(|description| description.extension == name)
    }

    fn why_not_described(&self, name: &str) -> Option<String> {
        (name == "mute").then(|| "it is not built".to_owned())
    }

    fn extensions(&self) -> Vec<String> {
        self.0.iter().map(|description| description.extension.clone()).chain(["mute".to_owned()]).collect()
    }

    fn model_capacity(&self, extension: &str, model: &str) -> Option<u32> {
        (extension == "operators" && model == "counter").then_some(2)
    }

    fn models(&self) -> Vec<String> {
        vec!["operators/counter".into()]
    }

    fn resources(&self) -> Vec<(String, u64)> {
        vec![("cpu".into(), 2)]
    }
}

/// The mistakes of a melody as `line:column message (hint)`.
pub(super) fn mistakes(text: &str) -> Vec<String> {
    match Draft::parse(text, Path::new("m.toml")).check(&TestCatalog::new()) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .items()
            .iter()
            .map(|found| {
                let hint = found.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{}:{} {}{hint}", found.line, found.column, found.message)
            })
            .collect(),
    }
}

/// The plan of a melody without mistakes.
pub(super) fn plan(text: &str) -> Plan {
    match Draft::parse(text, Path::new("m.toml")).check(&TestCatalog::new()) {
        Ok(plan) => plan,
        Err(found) => panic!("{found}"),
    }
}
