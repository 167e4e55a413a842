//! `extensions list | show | check | build`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use extension_host::manifest::Tier;
use extension_host::{Diagnostic, Diagnostics, Manifest, Severity};
use serde_json::{Value, json};

use super::table::{Table, findings, write_json};
use super::{Surroundings, prepare, show_findings, stdout_failed};
use crate::build::{Builder, Built, Effort};
use crate::catalog::Catalog;
use crate::exit::{Exit, Failure};
use crate::printable;
use crate::signals::Cancellation;

fn builder(surroundings: &Surroundings) -> Builder<'_> {
    Builder::new(&surroundings.settings, &surroundings.current, &surroundings.screen)
}

/// Where it runs: what the settings say, whatever its manifest wishes.
fn tier_of(surroundings: &Surroundings, manifest: &Manifest) -> Tier {
    match surroundings.settings.in_process.contains(&manifest.name) {
        true => Tier::InProcess,
        false => Tier::Process,
    }
}

fn state_of(built: Option<&Built>) -> &'static str {
    match built {
        None => "not built",
        Some(Built { description: Err(_), .. }) => "not described",
        Some(_) => "built",
    }
}

pub(super) fn list(surroundings: &Surroundings) -> Result<Exit, Failure> {
    let catalog = prepare::find(surroundings, None)?;
    let builder = builder(surroundings);
    let mut table = Table::new(&["NAME", "VERSION", "STATE", "MANIFEST"]);
    let mut documents = Vec::new();
    for entry in catalog.entries() {
        let (version, state) = match &entry.manifest {
            Ok(manifest) => (manifest.version.to_string(), state_of(builder.last_built(manifest).as_ref())),
            Err(_) => ("-".to_owned(), "broken manifest"),
        };
        let file = entry.file.display().to_string();
        documents.push(json!({ "name": entry.name, "version": version, "state": state, "manifest": file }));
        table.row([entry.name.clone(), version, state.to_owned(), file]);
    }
    if surroundings.json {
        write_json(&documents).map_err(stdout_failed)?;
    } else {
        table.write(io::stdout().lock()).map_err(stdout_failed)?;
    }
    Ok(Exit::Success)
}

pub(super) fn show(surroundings: &Surroundings, name: &str) -> Result<Exit, Failure> {
    let catalog = prepare::find(surroundings, None)?;
    let (entry, manifest) = catalog.manifest(name).map_err(prepare::catalog_failure)?;
    let built = builder(surroundings).last_built(manifest);
    if surroundings.json {
        let schema = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        let interfaces = built.as_ref().and_then(|built| built.description.as_ref().ok()).map(|description| {
            let interfaces = description.interfaces.iter().map(|interface| {
                let methods = interface.methods.iter().map(|method| {
                    json!({
                        "name": method.name, "documentation": method.documentation,
                        "idempotent": method.idempotent, "pure": method.pure,
                        "arguments": schema(&method.arguments_schema), "result": schema(&method.result_schema),
                    })
                });
                json!({
                    "name": interface.name, "documentation": interface.documentation,
                    "methods": methods.collect::<Vec<_>>(),
                })
            });
            interfaces.collect::<Vec<_>>()
        });
        let models: serde_json::Map<String, Value> = manifest
            .models
            .iter()
            .map(|(name, model)| (name.clone(), json!({ "capacity": model.capacity })))
            .collect();
        let document = json!({
            "name": manifest.name, "version": manifest.version.to_string(), "manifest": entry.file.to_string_lossy(),
            "tier": tier_of(surroundings, manifest).name(),
            "state": state_of(built.as_ref()), "program": built.as_ref().map(|built| built.program.to_string_lossy()),
            "library": built.as_ref().and_then(|built| built.library.as_ref()).map(|library| library.to_string_lossy()),
            "models": models, "interfaces": interfaces,
        });
        write_json(&document).map_err(stdout_failed)?;
        return Ok(Exit::Success);
    }
    let tier = tier_of(surroundings, manifest);
    write_text(io::stdout().lock(), manifest, tier, built.as_ref()).map_err(stdout_failed)?;
    Ok(Exit::Success)
}

fn write_text(mut out: impl Write, manifest: &Manifest, tier: Tier, built: Option<&Built>) -> io::Result<()> {
    writeln!(out, "{} {}", manifest.name, manifest.version)?;
    writeln!(out, "manifest  {}", manifest.file.display())?;
    let wish = match (tier, manifest.tier) {
        (Tier::Process, Tier::InProcess) => {
            " (its manifest wishes in-process, the setting `in-process` does not name it)"
        }
        _ => "",
    };
    writeln!(out, "tier      {}{wish}", tier.name())?;
    if tier == Tier::InProcess {
        for key in manifest.unenforced_in_process() {
            writeln!(out, "          means nothing there: {key}")?;
        }
    }
    for (name, model) in &manifest.models {
        writeln!(out, "model     {}/{name}, capacity {}", manifest.name, model.capacity)?;
    }
    let Some(built) = built else {
        return writeln!(
            out,
            "\nnot built, so its methods are not known; build it first: conductor extensions build {}",
            manifest.name
        );
    };
    writeln!(out, "program   {}", built.program.display())?;
    if let Some(library) = &built.library {
        writeln!(out, "library   {}", library.display())?;
    }
    let Ok(description) = &built.description else {
        return writeln!(
            out,
            "\nnot described, so its methods are not known; describe it, or see why not: conductor extensions build {}",
            manifest.name
        );
    };
    for interface in &description.interfaces {
        let heading = format!("{}  {}", interface.name, first_line(&interface.documentation));
        writeln!(out, "\n{}", printable::line(&heading))?;
        for method in &interface.methods {
            let marks = match (method.idempotent, method.pure) {
                (_, true) => " (pure)",
                (true, false) => " (idempotent)",
                (false, false) => "",
            };
            let fields = fields_of(&method.arguments_schema);
            let text = format!("{}.{}({fields}){marks}", manifest.name, method.name);
            writeln!(out, "  {}", printable::line(&text))?;
            for line in method.documentation.lines() {
                writeln!(out, "      {}", printable::line(line.trim_end()))?;
            }
        }
    }
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// `path, recursive?` of the schema of a method's arguments; an optional one has a question mark.
fn fields_of(schema: &str) -> String {
    let schema: Value = serde_json::from_str(schema).unwrap_or(Value::Null);
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let names = schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys());
    let fields: Vec<String> = names
        .map(|name| if required.contains(&name.as_str()) { name.clone() } else { format!("{name}?") })
        .collect();
    fields.join(", ")
}

pub(super) fn check(surroundings: &Surroundings, path: Option<&Path>) -> Result<Exit, Failure> {
    let catalog = match path {
        None => prepare::find(surroundings, None)?,
        Some(path) => Catalog::of_path(&surroundings.current.join(path)).map_err(|error| {
            let context = format!("{} cannot be read", path.display());
            Failure::usage(anyhow::Error::from(error).context(context))
        })?,
    };
    let mut found = Diagnostics::default();
    let mut manifests = Vec::new();
    for entry in catalog.entries().chain(catalog.hidden()) {
        match &entry.manifest {
            Ok(manifest) => {
                found.append(manifest.notes.clone());
                found.append(unusable_program(manifest));
            }
            Err(wrong) => found.append(wrong.clone()),
        }
    }
    manifests.extend(catalog.entries().filter_map(|entry| entry.manifest.as_ref().ok()));
    if let Err(wrong) = extension_host::manifest::check_together(manifests.iter().copied()) {
        found.append(wrong);
    }
    for entry in catalog.hidden() {
        let message =
            format!("another extension `{}` was found before this one, which is not used", entry.name);
        found.push(Diagnostic::whole_file(Severity::Warning, &entry.file, message));
    }
    let count = catalog.entries().count();
    if count == 0 {
        return Err(Failure::usage(anyhow::anyhow!("no extension.toml was found"))
            .with_help("name a manifest, a folder, or --extensions DIR"));
    }
    let exit = if found.has_errors() { Exit::Usage } else { Exit::Success };
    if surroundings.json {
        let document = json!({ "extensions": count, "findings": findings(&found) });
        write_json(&document).map_err(stdout_failed)?;
    } else {
        if !found.items().is_empty() {
            show_findings(&found);
        }
        if exit == Exit::Success {
            let extensions = printable::counted(count as u64, "extension");
            writeln!(io::stdout().lock(), "{extensions}, no mistakes").map_err(stdout_failed)?;
        }
    }
    Ok(exit)
}

/// A program that cannot be executed, and is not built either, is found here and not at the first call.
fn unusable_program(manifest: &Manifest) -> Diagnostics {
    if manifest.build.is_some() {
        return Diagnostics::default();
    }
    let program = manifest.file.with_file_name(&manifest.run.command[0]);
    let shown = program.display();
    let (message, hint) = match program.metadata() {
        Ok(metadata) if !metadata.is_file() => {
            (format!("the program {shown} is no file"), "name the program itself".to_owned())
        }
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            (format!("the program {shown} is not executable"), format!("make it so: chmod +x {shown}"))
        }
        Ok(_) => match interpreter_of(&program).filter(|interpreter| !interpreter.is_file()) {
            None => return Diagnostics::default(),
            Some(interpreter) => {
                let hint = match interpreter.as_os_str().as_bytes().ends_with(b"\r") {
                    true => "the line must not end with a carriage return",
                    false => "install it, or correct the line",
                };
                let named = interpreter.display();
                (format!("{named} is missing, which the `#!` line of {shown} names"), hint.to_owned())
            }
        },
        Err(_) => (
            format!("the program {shown} is missing"),
            "put it there, or add [build] cargo-package".to_owned(),
        ),
    };
    Diagnostic::whole_file(Severity::Error, &manifest.file, message).with_hint(hint).into()
}

/// What the kernel executes for a script: the first word of its `#!` line.
fn interpreter_of(program: &Path) -> Option<PathBuf> {
    /// LIMIT: bytes of the line that the kernel reads.
    const LINE_BYTES_MAX: u64 = 256;
    let mut beginning = Vec::new();
    File::open(program).ok()?.take(LINE_BYTES_MAX).read_to_end(&mut beginning).ok()?;
    let line = beginning.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(|&byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    words.next().map(|word| OsStr::from_bytes(word).into())
}

pub(super) async fn build(
    surroundings: &Surroundings,
    names: Vec<String>,
    mut cancellation: Cancellation,
) -> Result<Exit, Failure> {
    let catalog = prepare::find(surroundings, None)?;
    let names = if names.is_empty() {
        catalog.entries().map(|entry| entry.name.clone()).collect()
    } else {
        BTreeSet::from_iter(names)
    };
    let manifests = names.iter().map(|name| catalog.manifest(name).map(|(_, manifest)| manifest));
    let manifests: Vec<&Manifest> = manifests.collect::<Result<_, _>>().map_err(prepare::catalog_failure)?;
    let built = prepare::build(surroundings, &manifests, Effort::Always, &mut cancellation).await?;
    if surroundings.json {
        let documents: Vec<_> = built
            .iter()
            .map(|built| json!({ "name": built.name, "program": built.program.to_string_lossy() }))
            .collect();
        write_json(&documents).map_err(stdout_failed)?;
    } else {
        let mut table = Table::new(&["NAME", "METHODS", "PROGRAM"]);
        for built in &built {
            let interfaces = built.description.iter().flat_map(|description| &description.interfaces);
            let methods: usize = interfaces.map(|interface| interface.methods.len()).sum();
            table.row([built.name.clone(), methods.to_string(), built.program.display().to_string()]);
        }
        table.write(io::stdout().lock()).map_err(stdout_failed)?;
    }
    Ok(Exit::Success)
}
