//! `artifacts list | get | verify`: what runs have stored. What removes is in `removal`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use artifact_store::{Digest, GetError, Named, Store, VerifyError};
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
    /// None if not even that is left of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Row {
    fn of(names: &mut Names, digest: Digest, bytes: Result<u64, String>) -> Self {
        let names = names.remove(&digest).unwrap_or_default();
        let (bytes, error) = bytes.map_or_else(|error| (0, Some(error)), |bytes| (bytes, None));
        Self { names, digest: Some(digest.to_string()), bytes, error }
    }

    /// Something is wrong that has no digest.
    const fn unnamed(error: String) -> Self {
        Self { names: Vec::new(), digest: None, bytes: 0, error: Some(error) }
    }
}

type Names = BTreeMap<Digest, Vec<String>>;

pub(super) fn open(surroundings: &Surroundings) -> Result<Store, Failure> {
    pit::open_store(&surroundings.settings.data_dir).map_err(data_folder_failure)
}

/// Names by digest. A record that cannot be read is reported by `report` and left out.
fn names(store: &Store, mut report: impl FnMut(String)) -> Result<Names, Failure> {
    let mut by_digest = Names::new();
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
            Ok(listed) => rows.push(Row::of(&mut names, listed.digest, Ok(listed.bytes))),
            Err(error @ GetError::Corrupt { digest, .. }) => {
                rows.push(Row::of(&mut names, digest, Err(chain(&error))));
            }
            Err(error @ GetError::LostInPack { .. }) => rows.push(Row::unnamed(chain(&error))),
            Err(error) => {
                surroundings.screen.line(&format!("error: {}", chain(&error)));
                exit = Exit::Failed;
            }
        }
    }
    // A name whose artifact is gone must be seen, not left out.
    while let Some((digest, _)) = names.first_key_value() {
        let digest = *digest;
        rows.push(Row::of(&mut names, digest, Err("the artifact is not in the store".to_owned())));
    }
    if rows.iter().any(|row| row.error.is_some()) {
        exit = Exit::Failed;
    }
    rows.sort_by(|one, other| (&one.names, &one.digest).cmp(&(&other.names, &other.digest)));
    if surroundings.json {
        write_json(&rows).map_err(stdout_failed)?;
        return Ok(exit);
    }
    let mut table = Table::new(&["NAME", "SIZE", "DIGEST"]);
    for row in rows {
        let size = row.error.unwrap_or_else(|| human_bytes(row.bytes));
        let names = if row.names.is_empty() { vec!["-".to_owned()] } else { row.names };
        let digest = row.digest.unwrap_or_else(|| "-".to_owned());
        for name in names {
            table.row([name, size.clone(), digest.clone()]);
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
    // What is wrong with a name is told below, with everything else.
    let mut names = names(&store, |_| {})?;
    let results: Vec<(Option<Digest>, Result<u64, VerifyError>)> = match artifact {
        Some(artifact) => {
            let digest = find(&store, artifact)?;
            vec![(Some(digest), store.verify(&digest).map_err(VerifyError::from))]
        }
        None => store.verify_all().collect(),
    };
    let of_result = |(digest, result): (Option<Digest>, Result<u64, VerifyError>)| match (digest, result) {
        (Some(digest), Err(VerifyError::Dangling { name, .. })) => {
            let error = Some("the artifact is not in the store".to_owned());
            Row { names: vec![name], digest: Some(digest.to_string()), bytes: 0, error }
        }
        (Some(digest), result) => Row::of(&mut names, digest, result.map_err(|error| chain(&error))),
        (None, result) => Row::unnamed(result.err().map(|error| chain(&error)).unwrap_or_default()),
    };
    let rows: Vec<_> = results.into_iter().map(of_result).collect();
    let failed = rows.iter().filter(|row| row.error.is_some()).count();
    if surroundings.json {
        write_json(&rows).map_err(stdout_failed)?;
    } else {
        let mut out = io::stdout().lock();
        let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
        for row in rows.iter().filter(|row| row.error.is_some()) {
            let error = row.error.as_deref().unwrap_or_default();
            let text = match row.names.first().or(row.digest.as_ref()) {
                Some(name) => format!("{name}: {error}"),
                None => error.to_owned(),
            };
            writeln!(out, "{}", printable::line(&text)).map_err(stdout_failed)?;
        }
        let sound = rows.len() - failed;
        writeln!(out, "{sound} sound ({}), {failed} damaged or missing", human_bytes(bytes))
            .map_err(stdout_failed)?;
    }
    Ok(if failed == 0 { Exit::Success } else { Exit::Failed })
}
