//! A draft against what the extensions say of themselves: methods, arguments, types, resources, models.
//!
//! Only what is certain is a mistake. A value that is known during the run alone is let through, and so is
//! whatever a schema does not say. This file must not know how descriptions are obtained.

use std::collections::BTreeMap;
use std::sync::Arc;

use extension_host::diagnostic::Diagnostics;
use ipc_protocol::describe::{Description, MethodDescription};
use serde_json::{Value, json};

use super::arguments::check_arguments;
use super::compile::{Compiled, compile};
use super::file::Draft;
use super::message_pack::Key;
use super::model::{InputType, Model, StepText};
use super::plan::{Plan, PlanStep};
use super::problem::{Problems, suggestion};
use super::schema::{self, Inside, Schema, spoken};
use super::template::{Form, Reference, Source};

/// What a melody is checked against.
pub trait Catalog {
    /// What the extension says of itself; `None` if there is none of this name.
    fn extension(&self, name: &str) -> Option<&Description>;
    /// Why the extension is there and yet has no description; `None` if it has one, or is not there.
    fn why_not_described(&self, name: &str) -> Option<String>;
    /// The names of all extensions, for hints.
    fn extensions(&self) -> Vec<String>;
    /// How many leases of a model of an extension there are at the same time; `None` if there is no such.
    fn model_capacity(&self, extension: &str, model: &str) -> Option<u32>;
    /// All models as `extension/model`, for hints.
    fn models(&self) -> Vec<String>;
    /// What steps can claim, each with how much there is.
    fn resources(&self) -> Vec<(String, u64)>;
}

impl Draft {
    /// Checks everything that was not checked when the file was read, and makes a plan of it.
    ///
    /// # Errors
    ///
    /// [`Diagnostics`]: every mistake of the file, those of the reading included, in the order of the file.
    pub fn check(self, catalog: &dyn Catalog) -> Result<Plan, Diagnostics> {
        let Self { mut problems, model } = self;
        let compiled = compile(&model, &mut problems);
        let checker = Checker::new(&model, &compiled, catalog);
        for index in 0..model.steps.len() {
            checker.step(index, &mut problems);
        }
        if !problems.is_empty() {
            return Err(problems.into_diagnostics());
        }
        let is_idempotent =
            checker.methods.iter().map(|method| method.is_some_and(|it| it.idempotent || it.pure));
        let is_idempotent = is_idempotent.collect();
        match into_plan(model, compiled, is_idempotent) {
            Some(plan) => Ok(plan),
            // INVARIANT: only a problem leaves a step without its call or the melody without its graph.
            None => Err(problems.into_diagnostics()),
        }
    }
}

fn into_plan(model: Model, compiled: Compiled, is_idempotent: Vec<bool>) -> Option<Plan> {
    let mut consumers = vec![Vec::new(); model.steps.len()];
    for (index, templates) in compiled.templates.iter().enumerate() {
        for read in templates.steps_read() {
            consumers[read].push(index);
        }
    }
    let mut steps = Vec::with_capacity(model.steps.len());
    let parts = model.steps.into_iter().zip(&compiled.edges).zip(consumers).zip(is_idempotent);
    for (((step, edges), consumers), is_idempotent) in parts {
        let (extension, method) = step.call?;
        steps.push(PlanStep {
            id: step.id.into_inner(),
            extension: extension.into_inner(),
            method: method.into_inner(),
            is_idempotent,
            depends_on: edges.keys().copied().collect(),
            consumers,
            fans_out: step.for_each.is_some(),
            has_condition: step.when.is_some(),
            claims: step.claims.into_iter().map(|(_, claim)| claim).collect(),
            leases: step.leases.into_iter().map(|(_, lease)| lease).collect(),
            priority: step.priority,
            retry: step.retry,
            timeout: step.timeout,
            artifact: step.artifact,
        });
    }
    Some(Plan {
        name: model.name,
        description: model.description,
        inputs: model.inputs,
        models: model.models,
        on_failure: model.on_failure,
        steps,
        graph: compiled.graph?,
        templates: compiled.templates.into_iter().map(Arc::new).collect(),
        texts: Arc::new(compiled.texts),
    })
}

/// What is known of a melody's values before the run.
pub(super) struct Checker<'a> {
    model: &'a Model,
    compiled: &'a Compiled,
    catalog: &'a dyn Catalog,
    methods: Vec<Option<&'a MethodDescription>>,
    /// By step: the schema of its arguments, and that of its output.
    arguments: Vec<Option<Value>>,
    outputs: Vec<Option<Value>>,
    inputs: BTreeMap<&'a str, Value>,
    text: Value,
}

impl<'a> Checker<'a> {
    fn new(model: &'a Model, compiled: &'a Compiled, catalog: &'a dyn Catalog) -> Self {
        let methods: Vec<_> = model.steps.iter().map(|step| method_of(step, catalog)).collect();
        let arguments = methods.iter().map(|method| schema::parse(&method.as_ref()?.arguments_schema));
        let outputs = methods.iter().zip(&model.steps).map(|(method, step)| {
            let output = schema::parse(&method.as_ref()?.result_schema)?;
            Some(if step.for_each.is_some() { schema::array_of(&output) } else { output })
        });
        let inputs = model.inputs.iter().map(|input| {
            let name = match input.input_type {
                InputType::String | InputType::Path => "string",
                InputType::Boolean => "boolean",
                InputType::Integer => "integer",
                InputType::Number => "number",
            };
            (input.name.as_str(), json!({ "type": name }))
        });
        Self {
            arguments: arguments.collect(),
            outputs: outputs.collect(),
            inputs: inputs.collect(),
            text: json!({ "type": "string" }),
            model,
            compiled,
            catalog,
            methods,
        }
    }

    fn step(&self, index: usize, problems: &mut Problems) {
        let (step, templates) = (&self.model.steps[index], &self.compiled.templates[index]);
        self.call(step, problems);
        self.claims(step, problems);
        self.leases(step, problems);
        for template in templates.all() {
            for reference in &template.references {
                self.reference(index, reference, Some(problems));
            }
        }
        if let Some(template) = &templates.for_each
            && let (Form::Reference, [reference]) = (&template.form, &template.references[..])
            && let Some(types) = self.reference(index, reference, None).and_then(Schema::types)
            && !types.contains("array")
        {
            let message =
                format!("`for-each` needs an array, and `{}` is {}", reference.text, spoken(&types));
            problems.add(reference.span.clone(), message, "");
        }
        if let (Some(method), Some(document)) = (self.methods[index], &self.arguments[index]) {
            check_arguments(self, index, &method.name, Schema::of(document), problems);
        }
    }

    fn call(&self, step: &StepText, problems: &mut Problems) {
        let Some((extension, method)) = &step.call else { return };
        let name = extension.get_ref();
        let Some(description) = self.catalog.extension(name) else {
            if let Some(why) = self.catalog.why_not_described(name) {
                let message = format!("the methods of `{name}` are not known: {why}");
                let hint = format!("build it, or see why not: conductor extensions build {name}");
                problems.add(extension.span(), message, hint);
                return;
            }
            let names = self.catalog.extensions();
            let hint = suggestion(name, names.iter().map(String::as_str), "extensions");
            problems.add(extension.span(), format!("there is no extension `{name}`"), hint);
            return;
        };
        if method_of(step, self.catalog).is_none() {
            let methods = description.interfaces.iter().flat_map(|interface| &interface.methods);
            let hint = suggestion(method.get_ref(), methods.map(|method| method.name.as_str()), "methods");
            problems.add(method.span(), format!("`{name}` has no method `{}`", method.get_ref()), hint);
        }
    }

    fn claims(&self, step: &StepText, problems: &mut Problems) {
        if step.claims.is_empty() {
            return;
        }
        let resources = self.catalog.resources();
        for (span, claim) in &step.claims {
            match resources.iter().find(|(name, _)| *name == claim.resource) {
                None => {
                    let names = resources.iter().map(|(name, _)| name.as_str());
                    let hint = suggestion(&claim.resource, names, "resources");
                    problems.add(span.clone(), format!("there is no resource `{}`", claim.resource), hint);
                }
                Some((_, there_is)) if claim.amount > *there_is => {
                    let message = format!("the step claims {} of `{}`", claim.amount, claim.resource);
                    problems.add(
                        span.clone(),
                        message,
                        format!("there is {there_is}; the step would wait for ever"),
                    );
                }
                Some(_) => {}
            }
        }
    }

    fn leases(&self, step: &StepText, problems: &mut Problems) {
        for (index, (span, lease)) in step.leases.iter().enumerate() {
            if step.leases[..index].iter().any(|(_, earlier)| earlier == lease) {
                let hint =
                    "once is enough; two steps that each hold one and wait for another would wait for ever";
                problems.add(span.clone(), format!("the model `{lease}` is leased twice"), hint);
                continue;
            }
            let is_known = match &lease.extension {
                Some(extension) => self.catalog.model_capacity(extension, &lease.model).is_some(),
                None => self.model.models.iter().any(|model| model.name == lease.model),
            };
            if !is_known {
                let mut models = self.catalog.models();
                models.extend(self.model.models.iter().map(|model| model.name.clone()));
                let hint = suggestion(&lease.to_string(), models.iter().map(String::as_str), "models");
                problems.add(span.clone(), format!("there is no model `{lease}`"), hint);
            }
        }
    }

    /// The schema of what a reference of this step reads, `None` if nothing is known. A path that leads
    /// nowhere is added to `problems`.
    pub(super) fn reference(
        &'a self,
        step: usize,
        reference: &Reference,
        problems: Option<&mut Problems>,
    ) -> Option<Schema<'a>> {
        let start = match &reference.source {
            Source::Step(index) => Schema::of(self.outputs.get(*index)?.as_ref()?),
            Source::Input(name) => Schema::of(self.inputs.get(name.as_str())?),
            Source::RunId => Schema::of(&self.text),
            Source::Item => {
                let template = self.compiled.templates.get(step)?.for_each.as_ref()?;
                let (Form::Reference, [items]) = (&template.form, &template.references[..]) else {
                    return None;
                };
                // The items of a fan-out over itself: an edge that was refused.
                if items.source == Source::Item {
                    return None;
                }
                match self.reference(step, items, None)?.inside(&Key::Index(0)) {
                    Inside::Found(item) => item,
                    _ => return None,
                }
            }
        };
        let mut schema = start;
        for key in &reference.path {
            let (message, hint) = match schema.inside(key) {
                Inside::Found(inside) => {
                    schema = inside;
                    continue;
                }
                Inside::Unknown => return None,
                Inside::NoField(fields) => match key {
                    Key::Field(name) => (
                        format!("`{}` leads nowhere: there is no field `{name}`", reference.text),
                        suggestion(name, fields, "fields"),
                    ),
                    Key::Index(_) => return None,
                },
                Inside::WrongType(types) => {
                    let inside = match key {
                        Key::Field(name) => format!("no field `{name}`"),
                        Key::Index(index) => format!("no element {index}"),
                    };
                    let message =
                        format!("`{}` leads nowhere: {} has {inside}", reference.text, spoken(&types));
                    let hint = if types.contains("array") && self.is_fan_out(reference) {
                        "the output of a step with `for-each` is the array of its results"
                    } else {
                        ""
                    };
                    (message, hint.to_owned())
                }
            };
            if let Some(problems) = problems {
                problems.add(reference.span.clone(), message, hint);
            }
            return None;
        }
        Some(schema)
    }

    fn is_fan_out(&self, reference: &Reference) -> bool {
        match reference.source {
            Source::Step(index) => self.model.steps.get(index).is_some_and(|step| step.for_each.is_some()),
            _ => false,
        }
    }

    pub(super) fn step_text(&self, index: usize) -> &'a StepText {
        &self.model.steps[index]
    }

    pub(super) fn compiled(&self, index: usize) -> &'a super::plan::StepTemplates {
        &self.compiled.templates[index]
    }
}

fn method_of<'a>(step: &StepText, catalog: &'a dyn Catalog) -> Option<&'a MethodDescription> {
    let (extension, method) = step.call.as_ref()?;
    let description = catalog.extension(extension.get_ref())?;
    let mut methods = description.interfaces.iter().flat_map(|interface| &interface.methods);
    methods.find(|description| description.name == *method.get_ref())
}
