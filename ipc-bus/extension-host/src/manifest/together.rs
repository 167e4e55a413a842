//! What can only be seen with all manifests side by side: names twice, missing requirements, cycles.

use std::collections::BTreeMap;

use super::Manifest;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity, closest};

/// Checks manifests against each other: every name once, everything required is there in a version that will
/// do, and nobody requires himself, directly or through others.
///
/// # Errors
///
/// [`Diagnostics`]: everything that is wrong; mend the files named.
pub fn check_together<'m>(manifests: impl IntoIterator<Item = &'m Manifest>) -> Result<(), Diagnostics> {
    let mut found = Diagnostics::default();
    let mut by_name: BTreeMap<&str, &Manifest> = BTreeMap::new();
    for manifest in manifests {
        if let Some(other) = by_name.insert(&manifest.name, manifest) {
            let message = format!("extension `{}` is described twice", manifest.name);
            let hint = format!("the other one is {}", other.file.display());
            found.push(Diagnostic::whole_file(Severity::Error, &manifest.file, message).with_hint(hint));
        }
    }
    for manifest in by_name.values() {
        for (name, requirement) in &manifest.activation.requires {
            let Some(problem) = unmet(&by_name, name, requirement) else { continue };
            let (message, hint) = problem;
            let message = format!("`{}` requires `{name}` {requirement}, {message}", manifest.name);
            found.push(Diagnostic::whole_file(Severity::Error, &manifest.file, message).with_hint(hint));
        }
        if let Some(fallback) = &manifest.activation.fallback
            && !by_name.contains_key(fallback.as_str())
        {
            let message = format!("`{}` falls back to `{fallback}`, which is not there", manifest.name);
            let error = Diagnostic::whole_file(Severity::Error, &manifest.file, message);
            found.push(error.with_hint("name an extension that is, or leave `fallback` out"));
        }
    }
    if let Some(cycle) = find_cycle(&by_name) {
        let message = format!("extensions require each other in a circle: {}", cycle.join(" -> "));
        let file = by_name.get(cycle[0]).map_or_else(Default::default, |manifest| manifest.file.clone());
        let error = Diagnostic::whole_file(Severity::Error, file, message);
        found.push(error.with_hint("take one of these requirements out"));
    }
    if found.has_errors() { Err(found) } else { Ok(()) }
}

fn unmet(
    by_name: &BTreeMap<&str, &Manifest>,
    name: &str,
    requirement: &super::Requirement,
) -> Option<(String, String)> {
    let Some(required) = by_name.get(name) else {
        let hint = match closest(name, by_name.keys().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "add that extension, or take the requirement out".to_owned(),
        };
        return Some(("which is not there".to_owned(), hint));
    };
    if requirement.matches(&required.version) {
        return None;
    }
    Some((format!("and it is {}", required.version), format!("its manifest is {}", required.file.display())))
}

/// One cycle of `requires`, its first name repeated at the end.
fn find_cycle<'m>(by_name: &BTreeMap<&'m str, &'m Manifest>) -> Option<Vec<&'m str>> {
    /// Done: nothing below it leads back to itself.
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        OnPath,
        Done,
    }
    let mut marks: BTreeMap<&str, Mark> = BTreeMap::new();
    for start in by_name.keys() {
        // An explicit stack: the depth is the author's.
        let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(*start);
        loop {
            if let Some(name) = next.take() {
                match marks.get(name) {
                    Some(Mark::OnPath) => {
                        let from = path.iter().position(|(on_path, _)| *on_path == name).unwrap_or(0);
                        let cycle = path[from..].iter().map(|(name, _)| *name);
                        return Some(cycle.chain([name]).collect());
                    }
                    Some(Mark::Done) => {}
                    None => {
                        let requires = by_name.get(name).map(|manifest| manifest.activation.requires.keys());
                        marks.insert(name, Mark::OnPath);
                        path.push((name, requires.into_iter().flatten().map(String::as_str).collect()));
                    }
                }
            }
            let Some((name, open)) = path.last_mut() else { break };
            next = open.pop();
            if next.is_none() {
                marks.insert(name, Mark::Done);
                path.pop();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn manifest(name: &str, version: &str, requires: &str) -> Manifest {
        let text = format!(
            "name = \"{name}\"\nversion = \"{version}\"\n[run]\ncommand = [\"x\"]\n[activation]\nrequires = {{ {requires} }}\n"
        );
        Manifest::parse(&text, Path::new(&format!("{name}.toml"))).expect("the manifest is right")
    }

    #[test]
    fn requirements_are_met_or_named() {
        for (manifests, expected) in [
            (vec![manifest("a", "0.1.0", "b = \"^0.2\""), manifest("b", "0.2.5", "")], None),
            (
                vec![manifest("a", "0.1.0", "bb = \"*\""), manifest("b", "0.2.5", "")],
                Some("which is not there"),
            ),
            (
                vec![manifest("a", "0.1.0", "b = \"^0.3\""), manifest("b", "0.2.5", "")],
                Some("and it is 0.2.5"),
            ),
            (vec![manifest("a", "0.1.0", ""), manifest("a", "0.2.0", "")], Some("is described twice")),
            (vec![manifest("a", "0.1.0", "a = \"*\"")], Some("in a circle: a -> a")),
            (
                vec![
                    manifest("d", "1.0.0", "c = \"*\""),
                    manifest("a", "1.0.0", "b = \"*\""),
                    manifest("b", "1.0.0", "c = \"*\""),
                    manifest("c", "1.0.0", "a = \"*\""),
                ],
                Some("in a circle: a -> b -> c -> a"),
            ),
        ] {
            let checked = check_together(&manifests).map_err(|found| found.to_string());
            match (checked, expected) {
                (Ok(()), None) => {}
                (Err(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
                (checked, expected) => panic!("{checked:?}, expected {expected:?}"),
            }
        }
    }
}
