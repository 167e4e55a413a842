//! Licences, sources and bans of `deny.toml`, held against what this system builds.
//!
//! `cargo deny` reads the same file and knows more: other systems, licence texts, the advisories of the day. It has to be
//! installed and fetches a database, so that this part needs neither. What stands in the file and is not understood
//! here is a failure: nobody shall believe that it is held.

use semver::{Version, VersionReq};
use spdx::{Expression, LicenseReq, ParseMode};
use toml::{Table, Value};

use crate::cargo::Outside;
use crate::rules::Failure;
use crate::workspace::Workspace;

const PAGE: &str = "deny.toml";

/// Crates that may not be there, in some or all versions.
struct Ban {
    name: String,
    versions: VersionReq,
    reason: String,
}

/// Every crate that the file does not allow, and what it says that is not understood.
pub(crate) fn check(workspace: &Workspace) -> Vec<Failure> {
    let Some(text) = workspace.text(PAGE) else {
        return vec![Failure::of(PAGE, "is missing", "it says which licences and sources are allowed")];
    };
    let file: Table = match text.parse() {
        Ok(file) => file,
        Err(error) => return vec![Failure::of(PAGE, error.to_string(), "write it as TOML")],
    };
    let mut failures = Vec::new();
    let list = |section: &str, key: &str| {
        file.get(section)
            .and_then(|section| section.get(key))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let allowed = list("licenses", "allow");
    let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
    let mut bans = Vec::new();
    for value in list("bans", "deny") {
        match ban(&value) {
            Some(ban) => bans.push(ban),
            None => failures.push(Failure::of(
                PAGE,
                format!("`{value}` is no ban that is understood here"),
                "write { crate = \"NAME:VERSIONS\", reason = \"...\" }",
            )),
        }
    }
    for key in ["exceptions", "clarify"].iter().filter(|key| !list("licenses", key).is_empty()) {
        let what = format!("licenses.{key} is not understood here");
        failures.push(Failure::of(PAGE, what, "teach xtask/src/deny.rs, or do without"));
    }
    let registry = workspace.cargo.outside.iter().filter_map(|package| package.source.as_deref());
    let registry = registry.filter(|source| source.starts_with("registry+")).min();
    for package in &workspace.cargo.outside {
        failures.extend(judge(package, &allowed, &bans, registry));
    }
    failures
}

fn judge<'a>(
    package: &'a Outside,
    allowed: &'a [&str],
    bans: &'a [Ban],
    registry: Option<&'a str>,
) -> impl Iterator<Item = Failure> {
    let shown = format!("`{} {}`", package.name, package.version);
    let lock = |what, remedy| Failure::of("Cargo.lock", what, remedy);
    let licence = (!is_allowed(package.license.as_deref(), allowed)).then(|| {
        let stated = package.license.as_deref().unwrap_or("none stated");
        lock(format!("{shown} has the licence {stated}"), "choose another crate; copyleft is not allowed")
    });
    let source = (package.source.is_none() || package.source.as_deref() != registry).then(|| {
        let from = package.source.as_deref().unwrap_or("a folder");
        lock(format!("{shown} comes from {from}"), "take released versions, all from one registry")
    });
    let banned = bans.iter().find(|ban| ban.name == package.name && matches(&ban.versions, &package.version));
    let banned = banned.map(|ban| {
        lock(
            format!("{shown} is banned: {}", ban.reason),
            "`cargo tree -i NAME` says who wants it; update or do without",
        )
    });
    [licence, source, banned].into_iter().flatten()
}

/// A pre-release counts as the version that it precedes: a ban is not escaped by it.
fn matches(versions: &VersionReq, version: &Version) -> bool {
    versions.matches(&Version::new(version.major, version.minor, version.patch))
}

fn is_allowed(license: Option<&str>, allowed: &[&str]) -> bool {
    let Some(license) = license else { return false };
    let is_in_list = |wanted: &LicenseReq| allowed.contains(&wanted.to_string().as_str());
    Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| expression.evaluate(is_in_list))
}

/// `NAME`, `NAME@VERSION` or `NAME:VERSIONS`, and a reason.
fn ban(value: &Value) -> Option<Ban> {
    let table = value.as_table()?;
    if table.keys().any(|key| !["crate", "reason"].contains(&key.as_str())) {
        return None;
    }
    let spec = table.get("crate")?.as_str()?;
    let reason = table.get("reason")?.as_str()?.to_owned();
    let (name, versions) = match spec.split_once(['@', ':']) {
        None => (spec, VersionReq::STAR),
        Some((name, version)) if spec.contains('@') => {
            (name, VersionReq::parse(&format!("={version}")).ok()?)
        }
        Some((name, versions)) => (name, VersionReq::parse(versions).ok()?),
    };
    Some(Ban { name: name.to_owned(), versions, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_allowed_by_what_one_may_choose() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"];
        assert!(is_allowed(Some("MIT"), &allowed));
        assert!(is_allowed(Some("MIT/Apache-2.0"), &allowed));
        assert!(is_allowed(Some("GPL-3.0-only OR MIT"), &allowed));
        assert!(is_allowed(Some("(MIT OR Apache-2.0) AND Unicode-3.0"), &allowed));
        assert!(!is_allowed(Some("MIT AND MPL-2.0"), &allowed));
        assert!(!is_allowed(Some("Apache-2.0 WITH LLVM-exception"), &allowed));
        assert!(!is_allowed(Some("my own"), &allowed));
        assert!(!is_allowed(None, &allowed));
    }

    #[track_caller]
    fn bans(spec: &str, version: &str) -> bool {
        let value = Table::from_iter([
            ("crate".to_owned(), Value::from(spec)),
            ("reason".to_owned(), Value::from("because")),
        ]);
        let ban = ban(&Value::Table(value)).expect("it is a ban");
        assert_eq!(ban.name, "a");
        matches(&ban.versions, &version.parse().expect("it is a version"))
    }

    #[test]
    fn a_ban_names_all_some_or_one_version() {
        assert!(bans("a", "1.2.3"));
        assert!(bans("a:<1.2.3", "1.2.2") && !bans("a:<1.2.3", "1.2.3"));
        assert!(bans("a:<1.2.3", "1.2.2-rc.1"));
        assert!(bans("a@1.2.3", "1.2.3") && !bans("a@1.2.3", "1.2.4"));
    }

    #[test]
    fn a_ban_with_more_to_say_is_not_understood() {
        let table = |text: &str| text.parse::<Table>().expect("it is TOML").into();
        assert!(ban(&table("crate = \"a\"\nreason = \"b\"\nwrappers = [\"c\"]")).is_none());
        assert!(ban(&table("crate = \"a\"")).is_none());
        assert!(ban(&Value::from("a")).is_none());
    }
}
