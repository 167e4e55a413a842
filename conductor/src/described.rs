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
    descriptions: BTreeMap<String, Result<Description, String>>,
    resources: Vec<(String, u64)>,
}

impl<'a> Described<'a> {
    /// The extensions of `catalog`, with what is known of them by name: a description, or why there is none.
    #[must_use]
    pub fn new(
        catalog: &'a Catalog,
        descriptions: impl IntoIterator<Item = (String, Result<Description, String>)>,
        settings: &Settings,
    ) -> Self {
        Self {
            catalog,
            descriptions: descriptions.into_iter().collect(),
            resources: pit::resources(settings),
        }
    }
}

impl crate::melody::Catalog for Described<'_> {
    fn extension(&self, name: &str) -> Option<&Description> {
        self.descriptions.get(name)?.as_ref().ok()
    }

    fn why_not_described(&self, name: &str) -> Option<String> {
        match self.descriptions.get(name) {
            Some(Ok(_)) => None,
            Some(Err(why)) => Some(why.clone()),
            None => self.catalog.manifest(name).ok().map(|_| "it is not built".to_owned()),
        }
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
