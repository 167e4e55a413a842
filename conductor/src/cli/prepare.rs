//! What `run`, `call` and `extensions build` have in common: from names of extensions to programs.

use std::path::Path;

use extension_host::Manifest;

use super::{Surroundings, wrong_file};
use crate::build::{BuildError, Builder, Built, Effort};
use crate::catalog::{Catalog, CatalogError};
use crate::document::ErrorReport;
use crate::exit::Failure;
use crate::pit::DataFolderError;
use crate::signals::Cancellation;

/// The extensions that can be found from the current folder and from `start`.
pub(super) fn find(surroundings: &Surroundings, start: Option<&Path>) -> Result<Catalog, Failure> {
    let start = start.map(|start| surroundings.current.join(start));
    let catalog = Catalog::find(&surroundings.settings, start.as_deref(), &surroundings.current);
    let catalog = catalog.map_err(catalog_failure)?;
    if !surroundings.is_catalog_told.replace(true) {
        super::warn_of(&surroundings.screen, catalog.distrusted(), "--extensions DIR");
    }
    Ok(catalog)
}

/// Says which of these extensions another one of the same name, found later, is not: one's own may be meant.
pub(super) fn warn_of_hidden(surroundings: &Surroundings, catalog: &Catalog, used: &[&Manifest]) {
    for entry in catalog.hidden() {
        let Some(first) = used.iter().find(|manifest| manifest.name == entry.name) else { continue };
        let (name, first, hidden) = (&entry.name, first.file.display(), entry.file.display());
        surroundings.screen.line(&format!("warning: `{name}` is {first}, found before {hidden}"));
    }
}

/// The manifests of `names`, of everything that they require, and of those that they may call, each once, required ones first.
pub(super) fn with_required(
    catalog: &Catalog,
    names: impl IntoIterator<Item = String>,
) -> Result<Vec<&Manifest>, Failure> {
    let mut found: Vec<&Manifest> = Vec::new();
    let mut open: Vec<String> = names.into_iter().collect();
    while let Some(name) = open.pop() {
        if found.iter().any(|manifest| manifest.name == name) {
            continue;
        }
        let (_, manifest) = catalog.manifest(&name).map_err(catalog_failure)?;
        open.extend(manifest.activation.requires.keys().cloned());
        open.extend(manifest.activation.fallback.clone());
        // Whom it may call is there if it can be; whether it needs to be, its own code knows.
        let is_known = |name: &&String| catalog.entries().any(|entry| entry.name == **name);
        open.extend(manifest.permissions.calls.iter().filter(is_known).cloned());
        found.push(manifest);
    }
    extension_host::manifest::check_together(found.iter().copied()).map_err(|wrong| wrong_file(&wrong))?;
    found.reverse();
    Ok(found)
}

/// Makes these extensions ready, unless a signal comes first.
pub(super) async fn build(
    surroundings: &Surroundings,
    manifests: &[&Manifest],
    effort: Effort,
    cancellation: &mut Cancellation,
) -> Result<Vec<Built>, Failure> {
    let builder = Builder::new(&surroundings.settings, &surroundings.current, &surroundings.screen);
    tokio::select! {
        biased;
        exit = cancellation.wait() => {
            surroundings.screen.line("cancelled");
            let told = "cancelled while the extensions were made ready; none of them was called";
            Err(Failure::cancelled(exit, ErrorReport::cancelled(told)))
        }
        built = builder.ensure(manifests, effort) => built.map_err(build_failure),
    }
}

/// A broken manifest is shown with its places; the rest is an error like any other.
pub(super) fn catalog_failure(error: CatalogError) -> Failure {
    match error {
        CatalogError::Broken { diagnostics, name } => wrong_file(&diagnostics).of_extension(Some(&name)),
        error @ CatalogError::Unknown { .. } => Failure::usage(error),
        error @ CatalogError::Folder { .. } => {
            Failure::environment(error).with_help("`conductor config show` tells who names this folder")
        }
    }
}

pub(super) fn data_folder_failure(error: DataFolderError) -> Failure {
    let help = error.help();
    Failure::environment(error).with_help(help)
}

pub(super) fn build_failure(error: BuildError) -> Failure {
    let (help, extension) = (error.help(), error.extension().map(str::to_owned));
    let failure = if error.is_environment() { Failure::environment(error) } else { Failure::failed(error) };
    failure.with_help(help).of_extension(extension.as_deref())
}
