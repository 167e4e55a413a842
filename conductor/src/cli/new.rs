//! `new extension`: a folder that builds, runs and tests at once.

use std::env;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use serde_json::json;

use super::table::write_json;
use super::{Surroundings, args, prepare, stdout_failed};
use crate::exit::{Exit, Failure};
use crate::scaffold::{self, Language, Plan, ScaffoldError, sdk};

pub(super) fn extension(
    surroundings: &Surroundings,
    arguments: &args::NewExtension,
) -> Result<Exit, Failure> {
    let (name, current) = (arguments.name.as_str(), &surroundings.current);
    let language = match arguments.language {
        args::Language::Rust => Language::Rust,
        args::Language::Python => Language::Python,
    };
    let folder = match &arguments.path {
        Some(path) => without_dots(&current.join(path)),
        None => scaffold::folder_default(current, name, language),
    };
    let variable = env::var_os("SYMPHONY_SDK").filter(|value| !value.is_empty()).map(PathBuf::from);
    let candidates = sdk::Candidates {
        flag: arguments.sdk.as_deref(),
        variable: variable.as_deref(),
        built_from: Some(Path::new(sdk::BUILT_FROM)),
    };
    let plan = scaffold::plan(name, language, &folder, &candidates).map_err(failure)?;
    // Of two with one name only the first is ever called.
    let catalog = prepare::find(surroundings, None)?;
    if let Some(other) = catalog.entries().find(|entry| entry.name == name) {
        let error = anyhow::anyhow!("there is an extension `{name}` already: {}", other.file.display());
        return Err(Failure::usage(error).with_help("choose another name"));
    }
    scaffold::write::write(&plan).map_err(failure)?;
    // From here on, if the catalog finds it from here; else from its own folder.
    let is_found = prepare::find(surroundings, None)?.manifest(name).is_ok();
    if surroundings.json {
        let files: Vec<&str> = plan.files.iter().map(|file| file.path).collect();
        let document = json!({
            "extension": name, "language": language.name(), "folder": plan.folder.to_string_lossy(),
            "sdk": plan.sdk.as_ref().map(|folder| folder.to_string_lossy()), "files": files,
        });
        write_json(&document).map_err(stdout_failed)?;
    } else {
        let shown = plan.folder.strip_prefix(current).unwrap_or(&plan.folder);
        tell(io::stdout().lock(), name, language, &plan, shown, is_found).map_err(stdout_failed)?;
    }
    Ok(Exit::Success)
}

fn tell(
    mut out: impl Write,
    name: &str,
    language: Language,
    plan: &Plan,
    shown: &Path,
    is_found: bool,
) -> io::Result<()> {
    let shown = shown.display();
    writeln!(out, "{name}: an extension in {}, in {shown}", language.name())?;
    if let Some(sdk) = &plan.sdk {
        writeln!(out, "its SDK: {}", sdk.display())?;
    }
    writeln!(out)?;
    let call = format!("conductor call {name}.greet '{{\"name\": \"you\"}}'");
    if is_found {
        writeln!(out, "  {call}")?;
        writeln!(out, "  cd {shown}")?;
    } else {
        writeln!(out, "  cd {shown}")?;
        writeln!(out, "  {call}")?;
    }
    let test = match language {
        Language::Rust => "cargo test",
        Language::Python => "python3 -m unittest",
    };
    writeln!(out, "  {test}")
}

/// The path without `.` and, where that changes nothing but the text, without `..`: cargo and the catalog compare paths.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if plain.canonicalize().is_ok_and(|real| real == plain) => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

fn failure(error: ScaffoldError) -> Failure {
    let help = error.help();
    let failure = if error.is_environment() { Failure::environment(error) } else { Failure::usage(error) };
    failure.with_help(help)
}
