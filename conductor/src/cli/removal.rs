//! `artifacts remove | collect`: what nobody needs any more.
//!
//! A name is a promise: the artifact it points to stays. So removing has two steps: a person takes names away, and
//! a collection removes what no name and no living process refers to. This file must not decide what runs need.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artifact_store::{Digest, Expected, GetError, Named, Store};
use extension_host::manifest::parse_duration;
use serde::Serialize;

use super::artifacts::open;
use super::table::write_json;
use super::{Surroundings, stdout_failed};
use crate::exit::{Exit, Failure};
use crate::printable::{self, counted};
use crate::progress::human_bytes;
use crate::run_id::RunId;

/// What `remove` says to programs.
#[derive(Serialize)]
struct Removed {
    names: Vec<String>,
    dry_run: bool,
}

/// What `collect` says to programs.
#[derive(Serialize)]
struct CollectReport {
    removed: u64,
    removed_bytes: u64,
    /// Files that were left because a living process uses them.
    pinned: u64,
    dry_run: bool,
}

pub(super) fn remove(
    surroundings: &Surroundings,
    given: &[String],
    older_than: Option<&str>,
    is_dry_run: bool,
) -> Result<Exit, Failure> {
    let age = older_than.map(|text| {
        parse_age(text).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!("--older-than {text:?} is no time"))
                .with_help("a time is a whole number with its unit: 30d, 12h, 90m")
        })
    });
    let age = age.transpose()?;
    let store = open(surroundings)?;
    let known: Vec<Named> =
        store.names("").map_err(Failure::failed)?.collect::<Result<_, _>>().map_err(Failure::failed)?;
    let chosen = match age {
        Some(age) => known.iter().filter(|named| began_before(&named.name, age)).collect(),
        None => choose(&known, given)?,
    };
    for named in chosen.iter().filter(|_| !is_dry_run) {
        // A name that was set anew meanwhile is not the one that was chosen.
        store.remove_name(&named.name, Expected::Version(named.version)).map_err(Failure::failed)?;
    }
    let names: Vec<String> = chosen.iter().map(|named| named.name.clone()).collect();
    if surroundings.json {
        write_json(&Removed { names, dry_run: is_dry_run }).map_err(stdout_failed)?;
        return Ok(Exit::Success);
    }
    let mut out = io::stdout().lock();
    names.iter().try_for_each(|name| writeln!(out, "{}", printable::line(name))).map_err(stdout_failed)?;
    let count = counted(names.len() as u64, "name");
    let text = match (is_dry_run, names.is_empty()) {
        (true, _) => format!("{count} would be removed"),
        (false, true) => format!("{count} removed"),
        (false, false) => format!("{count} removed; `conductor artifacts collect` frees their room"),
    };
    writeln!(out, "{text}").map_err(stdout_failed)?;
    Ok(Exit::Success)
}

/// The names that are meant, each once; fails before anything is removed where one of them is not there.
fn choose<'k>(known: &'k [Named], given: &[String]) -> Result<Vec<&'k Named>, Failure> {
    let mut places = BTreeSet::new();
    for wanted in given {
        let is_meant = |name: &str| {
            name == wanted || name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let before = places.len();
        places.extend(
            known.iter().enumerate().filter(|(_, named)| is_meant(&named.name)).map(|(place, _)| place),
        );
        let is_there = places.len() > before || known.iter().any(|named| is_meant(&named.name));
        if !is_there {
            return Err(Failure::failed(anyhow::anyhow!("there is no artifact named `{wanted}`"))
                .with_help("nothing was removed; see `conductor artifacts list`: names are RUN/NAME"));
        }
    }
    Ok(places.into_iter().map(|place| &known[place]).collect())
}

/// `30d`, or what a time is elsewhere.
fn parse_age(text: &str) -> Option<Duration> {
    match text.strip_suffix('d') {
        Some(days) => days.parse::<u32>().ok().map(|days| Duration::from_secs(86_400 * u64::from(days))),
        None => parse_duration(text),
    }
}

/// Whether this is the name of a run's output, and that run began longer ago than `age`.
fn began_before(name: &str, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let began = name.split_once('/').and_then(|(run, _)| RunId::began_ms(run));
    began.is_some_and(|began| now.saturating_sub(Duration::from_millis(began)) > age)
}

pub(super) fn collect(surroundings: &Surroundings, is_dry_run: bool) -> Result<Exit, Failure> {
    let store = open(surroundings)?;
    let report = if is_dry_run {
        unnamed(&store)?
    } else {
        // What a run's document quotes has its name; nothing else refers to artifacts.
        let done = store.collect(|_| false).map_err(Failure::failed)?;
        let (removed, removed_bytes, pinned) = (done.removed, done.removed_bytes, done.pinned);
        CollectReport { removed, removed_bytes, pinned, dry_run: false }
    };
    if surroundings.json {
        write_json(&report).map_err(stdout_failed)?;
        return Ok(Exit::Success);
    }
    let CollectReport { removed, removed_bytes, pinned, .. } = report;
    let (count, bytes) = (counted(removed, "artifact"), human_bytes(removed_bytes));
    let text = match (is_dry_run, pinned) {
        (true, _) => format!("{count} ({bytes}) would be removed, but for what a living process uses"),
        (false, 0) => format!("{count} ({bytes}) removed"),
        (false, pinned) => {
            format!("{count} ({bytes}) removed, {} left to living processes", counted(pinned, "file"))
        }
    };
    writeln!(io::stdout().lock(), "{text}").map_err(stdout_failed)?;
    Ok(Exit::Success)
}

/// What no name refers to.
fn unnamed(store: &Store) -> Result<CollectReport, Failure> {
    let names = store.names("").map_err(Failure::failed)?;
    let digests = names.map(|named| named.map(|named| named.digest));
    let named: HashSet<Digest> = digests.collect::<Result<_, _>>().map_err(Failure::failed)?;
    let mut report = CollectReport { removed: 0, removed_bytes: 0, pinned: 0, dry_run: true };
    for listed in store.list() {
        let listed = match listed {
            Ok(listed) => listed,
            // What is lost takes no room that a collection could free.
            Err(GetError::Corrupt { .. } | GetError::LostInPack { .. }) => continue,
            Err(error) => return Err(Failure::failed(error)),
        };
        if !named.contains(&listed.digest) {
            report.removed += 1;
            report.removed_bytes += listed.bytes;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_days_too() {
        for (text, seconds) in
            [("30d", Some(2_592_000)), ("0d", Some(0)), ("2h", Some(7200)), ("d", None), ("-1d", None)]
        {
            assert_eq!(parse_age(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn only_names_of_runs_have_an_age() {
        let run = RunId::new().expect("a name");
        assert!(!began_before(&format!("{run}/report"), Duration::from_secs(60)));
        assert!(began_before("00000000000000000000000000/report", Duration::from_secs(60)));
        assert!(!began_before("latest", Duration::ZERO) && !began_before("mine/report", Duration::ZERO));
    }
}
