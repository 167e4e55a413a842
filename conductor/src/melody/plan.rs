//! A melody that was checked: its steps, their edges, and their templates ready to be evaluated.
//!
//! The arguments of a call are compiled to a row of segments: bytes that never change, and templates. A
//! MessagePack map is its head followed by its entries, so building arguments is writing one segment after
//! the other into a buffer of exactly the right size. This file must not know how a step is carried out.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dag_tracker::Graph;
use ipc_protocol::limits::MESSAGE_BYTES_MAX;
use ipc_transport::Encoded;
use minijinja::Environment;

use super::evaluation::{EvaluationCause, EvaluationError};
use super::input::{InputError, InputValues};
use super::model::{Claim, InputDeclaration, Lease, ModelDeclaration, OnFailure, RetryRule};
use super::scope::Scope;
use super::template::{Context, Source, Template};
use super::value::{Items, StepOutput};

/// A melody without mistakes. Comes from [`super::Draft::check`].
#[derive(Debug)]
pub struct Plan {
    /// The melody's name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its inputs, in the order of the file.
    pub inputs: Vec<InputDeclaration>,
    /// The models that it declares itself.
    pub models: Vec<ModelDeclaration>,
    /// What a run does when a step fails.
    pub on_failure: OnFailure,
    /// Its steps, in the order of the file; other fields refer to them by index.
    pub steps: Vec<PlanStep>,
    /// The steps' graph; its steps have the same order as `steps`.
    pub graph: Arc<Graph>,
    pub(super) templates: Vec<Arc<StepTemplates>>,
    pub(super) texts: Arc<Environment<'static>>,
}

/// One step, without its templates: ask the [`Plan`] for what they yield.
#[derive(Clone, Debug)]
pub struct PlanStep {
    /// Its id, unique in the melody.
    pub id: String,
    /// The extension that it calls.
    pub extension: String,
    /// The method of that extension.
    pub method: String,
    /// Whether the method says of itself that running it twice is as good as running it once.
    pub is_idempotent: bool,
    /// Steps that must be done before: those that it reads and those it names in `after`. Sorted.
    pub depends_on: Vec<usize>,
    /// Steps that read its output. Sorted. Once the arguments of all of them are built, the output can go.
    pub consumers: Vec<usize>,
    /// Whether it has a `for-each`.
    pub fans_out: bool,
    /// Whether it has a `when`.
    pub has_condition: bool,
    /// What it needs while one of its calls runs.
    pub claims: Vec<Claim>,
    /// What it leases while one of its calls runs.
    pub leases: Vec<Lease>,
    /// How urgent its claims and leases are, 0 (last) to 255 (first); `None`: as the run says.
    pub priority: Option<u8>,
    /// When a failed call is tried again; `None`: only as the host does by itself.
    pub retry: Option<RetryRule>,
    /// How long one call may take; `None`: as the extension's manifest says.
    pub timeout: Option<Duration>,
    /// The name under which its output becomes an artifact.
    pub artifact: Option<String>,
}

/// The templates of one step.
#[derive(Debug, Default)]
pub(super) struct StepTemplates {
    pub(super) arguments: Vec<Segment>,
    pub(super) for_each: Option<Template>,
    pub(super) when: Option<Template>,
}

/// A part of the arguments.
#[derive(Debug)]
pub(super) enum Segment {
    Literal(Bytes),
    Template(Template),
}

impl StepTemplates {
    /// Every template of the step.
    pub(super) fn all(&self) -> impl Iterator<Item = &Template> {
        self.in_arguments().chain(&self.for_each).chain(&self.when)
    }

    fn in_arguments(&self) -> impl Iterator<Item = &Template> {
        self.arguments.iter().filter_map(|segment| match segment {
            Segment::Template(template) => Some(template),
            Segment::Literal(_) => None,
        })
    }

    /// Steps that its templates read.
    pub(super) fn steps_read(&self) -> BTreeSet<usize> {
        let references = self.all().flat_map(|template| &template.references);
        references
            .filter_map(|reference| match reference.source {
                Source::Step(index) => Some(index),
                _ => None,
            })
            .collect()
    }
}

impl Plan {
    /// The index of the step with this id.
    #[must_use]
    pub fn step_index(&self, id: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }

    /// The inputs of a run: what was given, over the defaults; paths made absolute against `directory`.
    ///
    /// # Errors
    ///
    /// Every [`InputError`] at once. The caller's fault; nothing was started.
    pub fn inputs_from(
        &self,
        given: &[(String, std::ffi::OsString)],
        directory: &Path,
    ) -> Result<InputValues, Vec<InputError>> {
        InputValues::new(&self.inputs, given, directory)
    }

    /// Whether the step is to run; true without a `when`. A value that is not there counts as false.
    ///
    /// # Errors
    ///
    /// [`EvaluationError`]: the step fails with it; trying again does not help.
    pub fn condition(&self, step: usize, scope: &Scope) -> Result<bool, EvaluationError> {
        let Some(template) = self.templates.get(step).and_then(|templates| templates.when.as_ref()) else {
            return Ok(true);
        };
        let context = scope.context(std::iter::once(template));
        template.is_true(&context, &self.texts).map_err(|cause| self.error(step, template, cause))
    }

    /// What a step with `for-each` goes over; nothing for a step without.
    ///
    /// # Errors
    ///
    /// [`EvaluationError`], as [`Plan::condition`].
    pub fn items(&self, step: usize, scope: &Scope) -> Result<Items, EvaluationError> {
        let empty = || StepOutput::from(super::value::ItemOutputs::new(0));
        let templates = self.templates.get(step).and_then(|templates| templates.for_each.as_ref());
        let (value, template) = match templates {
            Some(template) => {
                let context = scope.context(std::iter::once(template));
                let value = template.evaluate(&context, None, &self.texts);
                (value.map_err(|cause| self.error(step, template, cause))?, Some(template))
            }
            None => (empty(), None),
        };
        Items::new(&value).map_err(|cause| EvaluationError {
            step: self.steps.get(step).map(|step| step.id.clone()).unwrap_or_default(),
            key: "for-each".into(),
            at: template.map(|template| template.at.clone()).unwrap_or_default(),
            cause: cause.into(),
        })
    }

    /// The arguments of the step's calls. What does not depend on the item is evaluated here, once.
    ///
    /// The result holds what it still needs: outputs may be released from the scope after this.
    ///
    /// # Errors
    ///
    /// [`EvaluationError`], as [`Plan::condition`].
    pub fn arguments(&self, step: usize, scope: &Scope) -> Result<Arguments, EvaluationError> {
        let templates = self.templates.get(step).cloned().unwrap_or_default();
        let context = scope.context(templates.in_arguments());
        let mut parts = Vec::with_capacity(templates.arguments.len());
        for (index, segment) in templates.arguments.iter().enumerate() {
            parts.push(match segment {
                Segment::Literal(bytes) => Part::Value(StepOutput::Single(bytes.clone())),
                Segment::Template(template) if template.reads_item() => Part::OfItem(index),
                Segment::Template(template) => {
                    let value = template.evaluate(&context, None, &self.texts);
                    Part::Value(value.map_err(|cause| self.error(step, template, cause))?)
                }
            });
        }
        let of_items = templates.in_arguments().filter(|template| template.reads_item());
        Ok(Arguments {
            context: scope.context(of_items),
            step_id: self.steps.get(step).map(|step| step.id.clone()).unwrap_or_default(),
            texts: self.texts.clone(),
            templates,
            parts,
        })
    }

    pub(super) fn step_ids(&self) -> Arc<[String]> {
        self.steps.iter().map(|step| step.id.clone()).collect()
    }

    fn error(&self, step: usize, template: &Template, cause: EvaluationCause) -> EvaluationError {
        let step = self.steps.get(step).map(|step| step.id.clone()).unwrap_or_default();
        EvaluationError { step, key: template.key.clone(), at: template.at.clone(), cause }
    }
}

/// The arguments of one step's calls, all but what depends on the item.
#[derive(Debug)]
pub struct Arguments {
    templates: Arc<StepTemplates>,
    texts: Arc<Environment<'static>>,
    context: Context,
    step_id: String,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Value(StepOutput),
    /// The index of a segment that reads the item.
    OfItem(usize),
}

impl Arguments {
    /// The arguments of one call; `item` for a step that fans out.
    ///
    /// # Errors
    ///
    /// [`EvaluationError`]: the call fails with it; trying again does not help.
    pub fn build(&self, item: Option<&Bytes>) -> Result<Encoded, EvaluationError> {
        let item = item.map(|bytes| StepOutput::Single(bytes.clone()));
        let mut of_item = Vec::new();
        for part in &self.parts {
            if let Part::OfItem(index) = part
                && let Some(Segment::Template(template)) = self.templates.arguments.get(*index)
            {
                let value = template.evaluate(&self.context, item.as_ref(), &self.texts);
                of_item.push(value.map_err(|cause| self.error(template, cause))?);
            }
        }
        let fixed = self.parts.iter().filter_map(|part| match part {
            Part::Value(value) => Some(value),
            Part::OfItem(_) => None,
        });
        let length: u64 = fixed.chain(&of_item).map(StepOutput::encoded_len).sum();
        let capacity = usize::try_from(length).ok().filter(|_| length <= MESSAGE_BYTES_MAX);
        let Some(capacity) = capacity else {
            return Err(EvaluationError {
                step: self.step_id.clone(),
                key: "with".into(),
                at: self.templates.all().next().map(|template| template.at.clone()).unwrap_or_default(),
                cause: EvaluationCause::TooLarge(length),
            });
        };
        let mut out = Vec::with_capacity(capacity);
        let mut of_item = of_item.iter();
        for part in &self.parts {
            match part {
                Part::Value(value) => value.append_to(&mut out),
                Part::OfItem(_) => of_item.by_ref().take(1).for_each(|value| value.append_to(&mut out)),
            }
        }
        Ok(Encoded::message_pack(out))
    }

    fn error(&self, template: &Template, cause: EvaluationCause) -> EvaluationError {
        EvaluationError {
            step: self.step_id.clone(),
            key: template.key.clone(),
            at: template.at.clone(),
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::melody::testing::{REPORT, plan};
    use crate::melody::value::ItemOutputs;
    use serde_json::{Value, json};

    fn packed(value: &Value) -> StepOutput {
        StepOutput::single(Bytes::from(rmp_serde::to_vec_named(value).unwrap())).unwrap()
    }

    fn scope(plan: &Plan) -> Scope {
        let inputs = plan.inputs_from(&[], Path::new("/home/me")).unwrap();
        Scope::new(plan, "run-7", inputs)
    }

    fn built(plan: &Plan, step: usize, scope: &Scope, item: Option<&Bytes>) -> Value {
        plan.arguments(step, scope).unwrap().build(item).unwrap().decode().unwrap()
    }

    /// A melody of one step with these arguments, after a step `before`.
    fn one_step(with: &str) -> Plan {
        let text = format!(
            "name = \"m\"\n[inputs.n]\ntype = \"integer\"\ndefault = 3\n\
             [[steps]]\nid = \"before\"\ncall = \"file-explorer.list\"\nwith = {{ path = \"\" }}\n\
             [[steps]]\nid = \"one\"\ncall = \"operators.render\"\nwith.ranking = {with}\n"
        );
        plan(&text)
    }

    #[test]
    fn a_plan_has_the_edges_of_its_references() {
        let plan = plan(REPORT);
        let edges: Vec<_> =
            plan.steps.iter().map(|step| (&*step.id, &*step.depends_on, &*step.consumers)).collect();
        assert_eq!(
            edges,
            [
                ("list", &[][..], &[1, 2][..]),
                ("measure", &[0], &[2, 3]),
                ("rank", &[0, 1], &[3]),
                ("report", &[0, 1, 2], &[])
            ]
        );
        assert_eq!(plan.graph.len(), 4);
        assert!(plan.steps[1].fans_out && plan.steps[3].has_condition);
        assert_eq!(plan.steps[1].retry.as_ref().unwrap().times, 3);
        assert_eq!(plan.steps[1].timeout, Some(Duration::from_secs(10)));
        assert_eq!(plan.steps[3].artifact.as_deref(), Some("report.md"));
        assert_eq!(plan.steps[3].leases[0].extension, None);
    }

    #[test]
    fn a_whole_run_gets_its_arguments() {
        let plan = plan(REPORT);
        let mut scope = scope(&plan);
        assert_eq!(
            built(&plan, 0, &scope, None),
            json!({"path": "/home/me", "recursive": true, "all": false})
        );

        scope.set_output(0, packed(&json!({"root": "/home/me", "entries": [{"path": "a"}, {"path": "b"}]})));
        let items = plan.items(1, &scope).unwrap();
        assert_eq!(items.len(), 2);
        let arguments = plan.arguments(1, &scope).unwrap();
        let second = arguments.build(items.get(1).as_ref()).unwrap();
        assert_eq!(second.decode::<Value>().unwrap(), json!({"root": "/home/me", "file": {"path": "b"}}));

        let mut results = ItemOutputs::new(2);
        for index in [1, 0] {
            results.set(index, &packed(&json!({"bytes": index})).to_bytes()).unwrap();
        }
        scope.set_output(1, results.into());
        let expected = json!({"rows": [{"bytes": 0}, {"bytes": 1}], "problems_left_out": 0, "title": "of /home/me in run-7"});
        assert_eq!(built(&plan, 2, &scope, None), expected);

        assert!(plan.condition(3, &scope).unwrap());
        scope.set_output(1, ItemOutputs::new(0).into());
        assert!(!plan.condition(3, &scope).unwrap());
        assert!(plan.condition(0, &scope).unwrap(), "no `when` is true");
    }

    #[test]
    fn the_melody_of_the_repository_compiles() {
        let text = include_str!("../../../melodies/folder-report.toml");
        let draft = crate::melody::Draft::parse(text, Path::new("folder-report.toml"));
        let (mut problems, model) = (draft.problems, draft.model);
        let compiled = crate::melody::compile::compile(&model, &mut problems);
        assert!(problems.is_empty(), "{}", problems.into_diagnostics());
        let edges: Vec<Vec<usize>> =
            compiled.edges.iter().map(|edges| edges.keys().copied().collect()).collect();
        assert_eq!(edges, [vec![], vec![0], vec![0, 1], vec![2], vec![1]]);
    }

    #[test]
    fn arguments_need_no_scope_once_they_are_made() {
        let plan = plan(REPORT);
        let mut scope = scope(&plan);
        scope.set_output(0, packed(&json!({"root": "/r", "entries": [1]})));
        let (items, arguments) = (plan.items(1, &scope).unwrap(), plan.arguments(1, &scope).unwrap());
        scope.release(0);
        assert!(scope.output(0).is_none());
        let built = arguments.build(items.get(0).as_ref()).unwrap().decode::<Value>().unwrap();
        assert_eq!(built, json!({"root": "/r", "file": 1}));
    }

    #[test]
    fn references_copy_bytes_and_expressions_keep_their_type() {
        let cases = [
            (r#""{{ inputs.n }}""#, json!(3)),
            (r#""{{ inputs.n + 1 }}""#, json!(4)),
            (r#""{{ inputs.n }} of 4""#, json!("3 of 4")),
            (r#""{{ inputs.n }}\n""#, json!("3\n")),
            (r#""{{ {'a': {'b': inputs.n}} }}""#, json!({"a": {"b": 3}})),
            (
                r#"{ x = ["{{ steps.before.output.entries[1] }}", 1, { y = -2.5 }], z = "" }"#,
                json!({"x": [{"path": "b"}, 1, {"y": -2.5}], "z": ""}),
            ),
            (
                r#""{{ steps['before'].output['entries'] | map(attribute='path') | join('+') }}""#,
                json!("a+b"),
            ),
            (
                r#""{% for entry in steps.before.output.entries %}{{ entry.path }};{% endfor %}""#,
                json!("a;b;"),
            ),
            (r#""{{ run.id ~ '!' }}""#, json!("run-7!")),
            (r#""{{ steps.before.output.root is defined }}""#, json!(false)),
            (r#""{ not a template }""#, json!("{ not a template }")),
        ];
        for (with, expected) in cases {
            let plan = one_step(&format!("{{ v = {with} }}"));
            let mut scope = scope(&plan);
            scope.set_output(0, packed(&json!({"entries": [{"path": "a"}, {"path": "b"}]})));
            assert_eq!(built(&plan, 1, &scope, None), json!({"ranking": {"v": expected}}), "{with}");
        }
    }

    #[test]
    fn a_template_without_a_value_says_where_and_why() {
        let cases = [
            ("{{ steps.before.output.root }}", "`steps.before.output.root` is not there"),
            ("{{ steps.before.output.root ~ 'x' }}", "the expression failed: undefined value"),
            ("{{ [steps.before.output.root] }}", "it is undefined: what it names is not there"),
            ("{{ inputs.n / 0 }}", "the expression failed"),
            ("{{ range }}", "plain object cannot be passed on"),
            (
                "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}x",
                "instructions",
            ),
        ];
        for (template, expected) in cases {
            let plan = one_step(&format!("{{ v = \"{template}\" }}"));
            let mut scope = scope(&plan);
            scope.set_output(0, packed(&json!({})));
            let error = plan.arguments(1, &scope).unwrap_err();
            assert!(error.cause.to_string().contains(expected), "{template}: {}", error.cause);
            assert_eq!(error.to_string(), "`with.ranking.v` of step `one` has no value (m.toml:12:22)");
        }
        let plan = plan(REPORT);
        let scope = scope(&plan);
        let error = plan.arguments(2, &scope).unwrap_err();
        assert_eq!(error.cause, EvaluationCause::NoOutput("measure".into()));
        let mut scope = scope;
        scope.set_output(0, packed(&json!({"root": "", "entries": 5})));
        let error = plan.items(1, &scope).unwrap_err();
        assert_eq!(error.cause.to_string(), "it is an integer, not an array");
        assert_eq!(
            plan.arguments(1, &scope).unwrap().build(None).unwrap_err().cause,
            EvaluationCause::NoItem
        );
    }
    #[test]
    fn arguments_beyond_a_message_are_refused_before_they_are_built() {
        let text = vec![b'x'; 64 << 20];
        let mut bytes = Vec::new();
        crate::melody::message_pack::append_binary(&mut bytes, &text).unwrap();
        let plan = one_step(&format!("{{ v = [{}] }}", "\"{{ steps.before.output }}\",".repeat(17)));
        let mut scope = scope(&plan);
        scope.set_output(0, StepOutput::single(bytes.into()).unwrap());
        let error = plan.arguments(1, &scope).unwrap().build(None).unwrap_err();
        assert!(
            matches!(error.cause, EvaluationCause::TooLarge(length) if length > MESSAGE_BYTES_MAX),
            "{error:?}"
        );
    }
}
