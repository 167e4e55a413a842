//! `artifacts list | get | verify`: what runs have stored. What removes is in `removal`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use artifact_store::{Digest, GetError, Named, Store};
use serde::Serialize;

use super::prepare::data_folder_failure;
use super::table::{Table, write_json};
use super::{Surroundings, stdout_failed, write_new};
use crate::exit::{Exit, Failure, chain};
use crate::pit;
use crate::printable;
use crate::progress::human_bytes;

/// One stored artifact as `list` and `verify` say it.
#[derive(Debug, Serialize)]
struct Row {
    /// Its names, the latest run's last; none if only the digest is known.
    names: Vec<String>,
    digest: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn open(surroundings: &Surroundings) -> Result<Store, Failure> {
    pit::open_store(&surroundings.settings.data_dir).map_err(data_folder_failure)
}

/// Names by digest. A record that cannot be read is reported by `report` and left out.
fn names(store: &Store, mut report: impl FnMut(String)) -> Result<BTreeMap<Digest, Vec<String>>, Failure> {
    let mut by_digest: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for named in store.names("").map_err(Failure::environment)? {
        match named {
            Ok(Named { name, digest, .. }) => by_digest.entry(digest).or_default().push(name),
            Err(error) => report(chain(&error)),
        }
    }
    by_digest.values_mut().for_each(|names| names.sort());
    Ok(by_digest)
}

pub(super) fn list(surroundings: &Surroundings) -> Result<Exit, Failure> {
    let store = open(surroundings)?;
    let mut exit = Exit::Success;
    let mut names = names(&store, |error| {
        surroundings.screen.line(&format!("error: {error}"));
        exit = Exit::Failed;
    })?;
    let mut rows = Vec::new();
    for listed in store.list() {
        match listed {
            Ok(listed) => rows.push(Row {
                names: names.remove(&listed.digest).unwrap_or_default(),
                digest: listed.digest.to_string(),
                bytes: listed.bytes,
                error: None,
            }),
            Err(error) => {
                surroundings.screen.line(&format!("error: {}", chain(&error)));
                exit = Exit::Failed;
            }
        }
    }
    // A name whose artifact is gone must be seen, not left out.
    rows.extend(names.into_iter().map(|(digest, names)| Row {
        names,
        digest: digest.to_string(),
        bytes: 0,
        error: Some("the artifact is not in the store".to_owned()),
    }));
    rows.sort_by(|one, other| (&one.names, &one.digest).cmp(&(&other.names, &other.digest)));
    if surroundings.json {
        write_json(&rows).map_err(stdout_failed)?;
        return Ok(exit);
    }
    let mut table = Table::new(&["NAME", "SIZE", "DIGEST"]);
    for row in rows {
        let size = row.error.unwrap_or_else(|| human_bytes(row.bytes));
        let names = if row.names.is_empty() { vec!["-".to_owned()] } else { row.names };
        for name in names {
            table.row([name, size.clone(), row.digest.clone()]);
        }
    }
    table.write(io::stdout().lock()).map_err(stdout_failed)?;
    Ok(exit)
}

/// The digest that `artifact` means: a digest itself, or a name.
fn find(store: &Store, artifact: &str) -> Result<Digest, Failure> {
    if let Ok(digest) = artifact.parse::<Digest>() {
        return Ok(digest);
    }
    match store.resolve(artifact).map_err(Failure::failed)? {
        Some(named) => Ok(named.digest),
        None => Err(Failure::failed(anyhow::anyhow!("there is no artifact named `{artifact}`"))
            .with_help("see `conductor artifacts list`; names are RUN/NAME, and digests are given whole")),
    }
}

pub(super) fn get(
    surroundings: &Surroundings,
    artifact: &str,
    output: Option<&Path>,
) -> Result<Exit, Failure> {
    let store = open(surroundings)?;
    let digest = find(&store, artifact)?;
    let found = store.get(&digest).map_err(Failure::failed)?;
    match output {
        None => {
            let mut out = io::stdout().lock();
            out.write_all(found.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failed)?;
        }
        Some(path) => write_new(path, found.as_bytes())?,
    }
    Ok(Exit::Success)
}

pub(super) fn verify(surroundings: &Surroundings, artifact: Option<&str>) -> Result<Exit, Failure> {
    let store = open(surroundings)?;
    let mut failed = 0_u64;
    let mut names = names(&store, |error| {
        surroundings.screen.line(&format!("error: {error}"));
        failed += 1;
    })?;
    let results: Vec<(Digest, Result<u64, GetError>)> = match artifact {
        Some(artifact) => {
            let digest = find(&store, artifact)?;
            let result = store.verify(&digest);
            vec![(digest, result)]
        }
        None => store.verify_all().collect(),
    };
    let mut rows = Vec::new();
    for (digest, result) in results {
        let names = names.remove(&digest).unwrap_or_default();
        let (bytes, error) = match result {
            Ok(bytes) => (bytes, None),
            Err(error) => (0, Some(chain(&error))),
        };
        failed += u64::from(error.is_some());
        rows.push(Row { names, digest: digest.to_string(), bytes, error });
    }
    if artifact.is_none() {
        for (digest, names) in names {
            failed += 1;
            let error = Some("the artifact is not in the store".to_owned());
            rows.push(Row { names, digest: digest.to_string(), bytes: 0, error });
        }
    }
    if surroundings.json {
        write_json(&rows).map_err(stdout_failed)?;
    } else {
        let mut out = io::stdout().lock();
        let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
        for row in rows.iter().filter(|row| row.error.is_some()) {
            let name = row.names.first().unwrap_or(&row.digest);
            let text = format!("{name}: {}", row.error.as_deref().unwrap_or_default());
            writeln!(out, "{}", printable::line(&text)).map_err(stdout_failed)?;
        }
        let sound = rows.iter().filter(|row| row.error.is_none()).count();
        writeln!(out, "{sound} sound ({}), {failed} damaged or missing", human_bytes(bytes))
            .map_err(stdout_failed)?;
    }
    Ok(if failed == 0 { Exit::Success } else { Exit::Failed })
}
