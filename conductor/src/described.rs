//! The extensions as the check of a melody sees them: what they say of themselves, and what can be claimed
//! and leased. Runs nothing.

use std::collections::BTreeMap;

use ipc_protocol::describe::Description;

use crate::catalog::Catalog;
use crate::config::Settings;
use crate::pit;

/// A catalog with descriptions.
#[derive(Debug)]
pub struct Described<'a> {
    catalog: &'a Catalog,
    descriptions: BTreeMap<String, Description>,
    resources: Vec<(String, u64)>,
}

impl<'a> Described<'a> {
    /// The extensions of `catalog` that have these descriptions.
    #[must_use]
    pub fn new(
        catalog: &'a Catalog,
        descriptions: impl IntoIterator<Item = Description>,
        settings: &Settings,
    ) -> Self {
        let by_name =
            descriptions.into_iter().map(|description| (description.extension.clone(), description));
        Self { catalog, descriptions: by_name.collect(), resources: pit::resources(settings) }
    }
}

impl crate::melody::Catalog for Described<'_> {
    fn extension(&self, name: &str) -> Option<&Description> {
        self.descriptions.get(name)
    }

    fn extensions(&self) -> Vec<String> {
        self.catalog.entries().map(|entry| entry.name.clone()).collect()
    }

    fn model_capacity(&self, extension: &str, model: &str) -> Option<u32> {
        let (_, manifest) = self.catalog.manifest(extension).ok()?;
        manifest.models.get(model).map(|model| model.capacity)
    }

    fn models(&self) -> Vec<String> {
        let manifests = self.catalog.entries().filter_map(|entry| entry.manifest.as_ref().ok());
        let models = manifests
            .flat_map(|manifest| manifest.models.keys().map(|model| format!("{}/{model}", manifest.name)));
        models.collect()
    }

    fn resources(&self) -> Vec<(String, u64)> {
        self.resources.clone()
    }
}
