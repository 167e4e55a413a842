//! `melody check`, every mistake that can be found without running anything, and `melody graph`.

use std::io::{self, Write as _};
use std::path::Path;

use serde_json::json;

use super::args::GraphFormat;
use super::table::{findings, write_json};
use super::{Surroundings, prepare, stdout_failed, write_new, wrong_file};
use crate::build::{Builder, Built};
use crate::described::Described;
use crate::drawing;
use crate::exit::{Exit, Failure};
use crate::melody::Draft;
use crate::printable;
use crate::terminal;

pub(super) fn check(surroundings: &Surroundings, file: &Path) -> Result<Exit, Failure> {
    let draft = Draft::load(file).map_err(|wrong| wrong_file(&wrong))?;
    let catalog = prepare::find(surroundings, file.parent())?;
    let builder = Builder::new(&surroundings.settings, &surroundings.current, &surroundings.screen);
    let mut descriptions = Vec::new();
    for name in draft.extensions() {
        // One that is not there is a mistake of the melody, and is found with its place below.
        let manifest = match catalog.manifest(name) {
            Ok((_, manifest)) => manifest,
            Err(crate::catalog::CatalogError::Unknown { .. }) => continue,
            Err(error) => return Err(prepare::catalog_failure(error)),
        };
        let help = format!("conductor extensions build {name}");
        match builder.last_built(manifest) {
            Some(Built { description: Ok(description), .. }) => {
                descriptions.push((name.to_owned(), Ok(description)));
            }
            Some(Built { description: Err(why), .. }) => {
                let error = anyhow::anyhow!("the methods of the extension `{name}` are not known: {why}");
                return Err(Failure::environment(error).with_help(format!("ask it, or see why not: {help}")));
            }
            None => {
                let error = anyhow::anyhow!(
                    "the extension `{name}` has not been built, so its methods are not known"
                );
                return Err(Failure::environment(error).with_help(format!("build it first: {help}")));
            }
        }
    }
    let described = Described::new(&catalog, descriptions, &surroundings.settings);
    match draft.check(&described) {
        Ok(plan) => {
            if surroundings.json {
                let steps: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
                let document = json!({ "melody": plan.name, "steps": steps, "mistakes": [] });
                write_json(&document).map_err(stdout_failed)?;
            } else {
                let mut out = io::stdout().lock();
                let steps = printable::counted(plan.steps.len() as u64, "step");
                writeln!(out, "{}: {steps}, no mistakes", printable::line(&file.to_string_lossy()))
                    .map_err(stdout_failed)?;
            }
            Ok(Exit::Success)
        }
        Err(wrong) if surroundings.json => {
            write_json(&json!({ "mistakes": findings(&wrong) })).map_err(stdout_failed)?;
            Ok(Exit::Usage)
        }
        Err(wrong) => Err(wrong_file(&wrong)),
    }
}

pub(super) fn graph(
    surroundings: &Surroundings,
    file: &Path,
    format: GraphFormat,
    output: Option<&Path>,
) -> Result<Exit, Failure> {
    let draft = Draft::load(file).map_err(|wrong| wrong_file(&wrong))?;
    let graph = match draft.graph() {
        Ok(graph) => graph,
        Err(wrong) if surroundings.json => {
            write_json(&json!({ "mistakes": findings(&wrong) })).map_err(stdout_failed)?;
            return Ok(Exit::Usage);
        }
        Err(wrong) => return Err(wrong_file(&wrong)),
    };
    if surroundings.json {
        write_json(&graph).map_err(stdout_failed)?;
        return Ok(Exit::Success);
    }
    let drawn = match format {
        GraphFormat::Text => {
            drawing::text(&graph, terminal::columns(io::stdout()).filter(|_| output.is_none()))
        }
        GraphFormat::Mermaid => drawing::mermaid(&graph),
        GraphFormat::Svg => drawing::svg(&graph),
    };
    match output {
        Some(path) => write_new(path, drawn.as_bytes())?,
        None => {
            let mut out = io::stdout().lock();
            out.write_all(drawn.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)?;
        }
    }
    Ok(Exit::Success)
}
