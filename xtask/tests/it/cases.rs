//! Ways to break each rule: one thing is changed, and one rule says so.

use xtask::cargo::Outside;

use crate::copy::Copy;

/// The rule, what is done to the tree, and a part of what the rule says then.
pub(crate) type Case = (&'static str, fn(&mut Copy), &'static str);

const DAG: &str = "pit/dag-tracker/src/lib.rs";
const DAG_MANIFEST: &str = "pit/dag-tracker/Cargo.toml";
const SYSTEM: &str = "extensions/hostile/src/system.rs";
const LIMITS: &str = "ipc-bus/ipc-protocol/src/limits.rs";
const MAP: &str = "ARCHITECTURE.md";
const SPECIFICATION: &str = "docs/specification.md";
const PAGE: &str = "docs/glossary.md";

fn arrow(copy: &mut Copy, from: &str, to: &str) {
    let member = copy.cargo.members.iter_mut().find(|member| member.name == from).expect("it is a member");
    member.arrows.push(to.into());
}

fn outside(copy: &mut Copy, from: &str, to: &str) {
    let member = copy.cargo.members.iter_mut().find(|member| member.name == from).expect("it is a member");
    member.outside.push(to.into());
}

fn foreign(copy: &mut Copy, change: impl FnOnce(&mut Outside)) {
    change(copy.cargo.outside.iter_mut().find(|other| other.name == "anyhow").expect("xtask uses it"));
}

fn ordering(copy: &mut Copy, comment: &str, ordering: &str) {
    copy.append(DAG, &format!("fn f(a: &A) {{\n    {comment}\n    a.done(Ordering::{ordering});\n}}\n"));
}

fn test_of(body: &str) -> String {
    format!(
        "\n#[cfg(test)]\nmod more_tests {{\n    #[test]\n    fn a_test() {{\n        {body}\n    }}\n}}\n"
    )
}

pub(crate) const CASES: &[Case] = &[
    (
        "layers",
        |copy| arrow(copy, "extension-sdk", "extension-host"),
        "`extension-sdk` may not know `extension-host`",
    ),
    ("layers", |copy| arrow(copy, "pit-core", "ipc-protocol"), "`pit-core` may not know `ipc-protocol`"),
    ("outside", |copy| outside(copy, "dag-tracker", "serde_json"), "`dag-tracker` may not know `serde_json`"),
    ("outside", |copy| outside(copy, "pit-core", "parking_lot"), "`pit-core` may not know `parking_lot`"),
    ("outside", |copy| outside(copy, "extension-host", "anyhow"), "`extension-host` may not know `anyhow`"),
    ("outside", |copy| outside(copy, "hostile", "libc"), "`hostile` may not know `libc`"),
    (
        "code-map",
        |copy| copy.replace(MAP, "| `pit/dag-tracker` |", "| the tracker |"),
        "does not show `pit/dag-tracker`",
    ),
    (
        "code-map",
        |copy| copy.replace(MAP, "| `benches` |", "| `pit` | | |\n| `benches` |"),
        "shows `pit`, which is no crate",
    ),
    ("code-map", |copy| copy.replace(MAP, "| crate |", "| krate |"), "no map"),
    (
        "manifest",
        |copy| copy.replace(DAG_MANIFEST, "[lints]\nworkspace = true", ""),
        "does not inherit the lints",
    ),
    (
        "manifest",
        |copy| copy.replace(DAG_MANIFEST, "edition.workspace = true", "edition = \"2021\""),
        "`edition` is not",
    ),
    ("manifest", |copy| copy.replace(DAG_MANIFEST, "license.workspace = true", ""), "`license` is not"),
    (
        "manifest",
        |copy| copy.replace(DAG_MANIFEST, "thiserror.workspace = true", "thiserror = \"2\""),
        "`thiserror` is not",
    ),
    (
        "manifest",
        |copy| copy.replace(DAG_MANIFEST, "[dev-", "tempfile.workspace = true\n\n[dev-"),
        "no source uses it",
    ),
    (
        "manifest",
        |copy| copy.replace("Cargo.toml", "# Others'.", "novelty = \"1\"\n# Others'."),
        "no crate uses it",
    ),
    (
        "lint",
        |copy| copy.replace("Cargo.toml", "unsafe_code = \"deny\"", "unsafe_code = \"allow\""),
        "`unsafe_code` is not denied",
    ),
    (
        "lint",
        |copy| copy.replace("Cargo.toml", "unwrap_used = \"deny\"\n", ""),
        "`unwrap_used` is not denied",
    ),
    (
        "lint",
        |copy| copy.append(DAG, "#![allow(\n    dead_code,\n    clippy::unwrap_used\n)]\n"),
        "opens `unwrap_used` for the whole crate",
    ),
    ("root-file", |copy| copy.remove("LICENSE-MIT"), "LICENSE-MIT: root-file: is missing"),
    ("header", |copy| copy.write(DAG, &format!("\n{}", copy.text(DAG))), "does not begin with `//!`"),
    ("size", |copy| copy.append(DAG, &"\n".repeat(600)), "lines, above 600"),
    ("ascii", |copy| copy.append("README.md", "Caf\u{e9}.\n"), "U+00E9"),
    (
        "ascii",
        |copy| copy.write_bytes("docs/latin.txt", b"Caf\xe9.\n"),
        "docs/latin.txt: ascii: is not UTF-8",
    ),
    (
        "ascii",
        |copy| {
            copy.write_bytes("CONTRIBUTING.md", &[copy.text("CONTRIBUTING.md").as_bytes(), b"\xe9"].concat())
        },
        "CONTRIBUTING.md: ascii: is not UTF-8",
    ),
    ("ascii", |copy| copy.write("pit/caf\u{e9}.txt", "Coffee.\n"), "in its name, U+00E9"),
    ("ascii", |copy| copy.append(DAG_MANIFEST, "# \u{2192}\n"), "U+2192"),
    (
        "unsafe",
        |copy| copy.append(DAG, "#[expect(unsafe_code, reason = \"x\")]\nfn f() {}\n"),
        "is not in the list",
    ),
    (
        "unsafe",
        |copy| {
            copy.append(
                DAG,
                "#[expect(\n    dead_code,\n    unsafe_code,\n    reason = \"x\"\n)]\nfn f() {}\n",
            )
        },
        "`unsafe_code`, but the file is not in the list",
    ),
    (
        "unsafe",
        |copy| copy.append(DAG, "fn f() {\n    // SAFETY: none.\n    unsafe { g() };\n}\n"),
        "`unsafe`, but the file is not in the list",
    ),
    ("unsafe", |copy| copy.append(DAG, "#[unsafe(no_mangle)]\nfn f() {}\n"), "is not in the list"),
    ("unsafe", |copy| copy.append(SYSTEM, "\nunsafe fn f() {}\n"), "`unsafe` without `SAFETY:`"),
    ("unsafe", |copy| copy.append(SYSTEM, "\nunsafe trait T {}\n"), "`unsafe` without `SAFETY:`"),
    ("unsafe", |copy| copy.append(SYSTEM, "\nunsafe extern \"C\" fn f() {}\n"), "`unsafe` without `SAFETY:`"),
    (
        "unsafe",
        |copy| copy.append(SYSTEM, "\n#[unsafe(no_mangle)]\nfn f() {}\n"),
        "`unsafe` without `SAFETY:`",
    ),
    (
        "unsafe",
        |copy| copy.replace(SYSTEM, "#![expect(unsafe_code", "#![expect(unused"),
        "opens no `unsafe_code`",
    ),
    ("unsafe", |copy| copy.replace(SYSTEM, "SAFETY:", "Safe:"), "`unsafe` without `SAFETY:`"),
    ("ordering", |copy| ordering(copy, "", "Acquire"), "`Acquire` without `ORDERING(tag):`"),
    (
        "ordering",
        |copy| ordering(copy, "// ORDERING(half): Acquire.", "Acquire"),
        "`half` acquires, but nothing of that",
    ),
    (
        "ordering",
        |copy| ordering(copy, "// ORDERING(half): Release.", "Release"),
        "`half` releases, but nothing of that",
    ),
    (
        "ordering",
        |copy| ordering(copy, "// ORDERING(one): the other is gone.", "SeqCst"),
        "`one` stands at one place",
    ),
    (
        "ordering",
        |copy| ordering(copy, "// ORDERING(alone): Relaxed.", "Relaxed"),
        "`alone` is Relaxed and nobody says",
    ),
    (
        "ordering",
        |copy| copy.append(DAG, "// ORDERING(none): no ordering below it.\n"),
        "`none` has no ordering",
    ),
    ("ordering", |copy| copy.append(DAG, "use std::sync::atomic::Ordering::*;\n"), "imports orderings"),
    (
        "ordering",
        |copy| copy.append(DAG, "use std::sync::atomic::{\n    AtomicU32,\n    Ordering as O,\n};\n"),
        "gives orderings another name",
    ),
    (
        "ordering",
        |copy| copy.append(DAG, "type O =\n    std::sync::atomic::Ordering;\n"),
        "gives orderings another name",
    ),
    ("mark", |copy| copy.append(DAG, "// NOTE: by the way.\n"), "`NOTE` is no known mark"),
    ("mark", |copy| copy.append(DAG, "// TODO-later: this.\n"), "`TODO-later` is no known mark"),
    ("mark", |copy| copy.append(DAG, "// INVARIENT: x holds.\n"), "`INVARIENT` is no known mark"),
    ("mark", |copy| copy.append(DAG, "fn f() {} // FIXME\n"), "`FIXME` says neither"),
    ("mark", |copy| copy.append(DAG, "// todo: later.\n"), "`todo` says neither"),
    ("word", |copy| copy.append(DAG, "fn f() {\n    todo!()\n}\n"), "`todo!`"),
    ("word", |copy| copy.append(DAG, "fn f() {\n    todo![]\n}\n"), "`todo!`"),
    ("word", |copy| copy.append(DAG, "fn f() {\n    unimplemented! {}\n}\n"), "`unimplemented!`"),
    ("word", |copy| copy.append(DAG, "fn f() {\n    dbg!(1);\n}\n"), "`dbg!`"),
    ("word", |copy| copy.append(DAG, &test_of("}\n    #[ignore = \"slow\"]\n    fn b() {")), "`#[ignore]`"),
    (
        "word",
        |copy| copy.append(DAG, &test_of("}\n    #[cfg_attr(unix, ignore)]\n    fn b() {")),
        "`#[ignore]`",
    ),
    (
        "word",
        |copy| copy.append(DAG, &test_of("use std::thread::sleep;\n        sleep(A_WHILE);")),
        "sleeps and hopes",
    ),
    (
        "word",
        |copy| {
            copy.append(DAG, &test_of("assert!(\n            began.elapsed().as_millis() < 5,\n        );"))
        },
        "asserts a maximum time",
    ),
    ("word", |copy| copy.append(DAG, &test_of("std::thread::sleep(A_WHILE);")), "sleeps and hopes"),
    (
        "word",
        |copy| copy.append(DAG, &test_of("assert!(began.elapsed() < A_WHILE);")),
        "asserts a maximum time",
    ),
    ("glossary", |copy| copy.append("README.md", "A step has sub-tasks.\n"), "the glossary says `item`"),
    ("glossary", |copy| copy.replace(PAGE, "|", "/"), "has no table"),
    (
        "sdk-budget",
        |copy| copy.cargo.extension_builds.extend((0..41).map(|number| format!("more-{number}"))),
        "crates of others, above 40",
    ),
    (
        "sdk-budget",
        |copy| copy.cargo.fast_extension_builds.extend((0..56).map(|number| format!("more-{number}"))),
        "with the feature `fast` builds",
    ),
    ("sdk-budget", |copy| copy.cargo.extension_builds.push("tokio".into()), "`tokio`, a runtime"),
    ("sdk-budget", |copy| copy.cargo.fast_extension_builds.push("cmake".into()), "`cmake`, a builder of C"),
    ("sdk-budget", |copy| copy.cargo.extension_builds.push("cc".into()), "`cc`, a builder of C"),
    ("deny", |copy| foreign(copy, |other| other.license = Some("MPL-2.0".into())), "has the licence MPL-2.0"),
    ("deny", |copy| foreign(copy, |other| other.license = None), "has the licence none stated"),
    (
        "deny",
        |copy| foreign(copy, |other| other.source = Some("git+https://example.org/x".into())),
        "comes from git+",
    ),
    (
        "deny",
        |copy| foreign(copy, |other| other.version = semver::Version::new(1, 0, 1)),
        "is banned: RUSTSEC-2026-0190",
    ),
    ("deny", |copy| copy.replace("deny.toml", "    \"Unicode-3.0\",\n", ""), "Unicode-3.0"),
    (
        "deny",
        |copy| copy.replace("deny.toml", "    { crate = \"paste\",", "    { crate = \"thiserror\","),
        "is banned",
    ),
    (
        "deny",
        |copy| copy.replace("deny.toml", "deny = [\n", "deny = [\n    \"paste@1\",\n"),
        "is no ban that is understood",
    ),
    ("protocol", |copy| copy.append(LIMITS, "/// New.\npub const NEW_MAX: u32 = 1;\n"), "has changed since"),
    (
        "protocol",
        |copy| copy.replace("docs/protocol.md", "<!-- describes ipc-bus", "<!-- about ipc-bus"),
        "does not say which source",
    ),
    ("link", |copy| copy.append("README.md", "[a](docs/nothing.md)\n"), "`docs/nothing.md` leads nowhere"),
    ("link", |copy| copy.append("README.md", "[a](docs/glossary.md#nothing)\n"), "no heading of that name"),
    ("link", |copy| copy.append("README.md", "[a](#nothing)\n"), "no heading of that name"),
    ("link", |copy| copy.append("README.md", "![a](docs/nothing.svg)\n"), "leads nowhere"),
    ("link", |copy| copy.append("README.md", "See <a href=\"docs/nothing.md\">this</a>.\n"), "leads nowhere"),
    ("link", |copy| copy.append("README.md", "\n<img src='docs/nothing.svg'>\n"), "leads nowhere"),
    ("link", |copy| copy.append("README.md", "[a](docs/no%20thing.md)\n"), "leads nowhere"),
    ("link", |copy| copy.append(PAGE, "[a](adr/)\n"), "`adr/` is a folder"),
    ("link", |copy| copy.append("README.md", "[a][nothing]\n"), "nothing defines the reference [nothing]"),
    ("link", |copy| copy.append("README.md", "See `pit/nothing`.\n"), "`pit/nothing` is not in the tree"),
    ("link", |copy| copy.append(PAGE, "[a](../README.md)\n"), "leaves the book"),
    ("link", |copy| copy.append(PAGE, "[a](../../README.md)\n"), "leads nowhere"),
    ("link", |copy| copy.append(PAGE, "{{#include nothing.rs}}\n"), "includes `nothing.rs`"),
    ("link", |copy| copy.append(DAG, "// As in `pit/dag-tracker/src/nothing.rs`.\n"), "is not in the tree"),
    (
        "promise",
        |copy| copy.append(SPECIFICATION, "\n| P-900 | It is fast. | | somehow |\n"),
        "nothing holds P-900",
    ),
    (
        "promise",
        |copy| copy.append(SPECIFICATION, "\n| P-001 | It is fast. | | `[not measured]` |\n"),
        "P-001 is promised twice",
    ),
    (
        "promise",
        |copy| copy.append(SPECIFICATION, "\n`pit/dag-tracker/src/lib.rs::nothing`\n"),
        "no `nothing` in",
    ),
    ("promise", |copy| copy.replace(SPECIFICATION, "| P-", "| Q-"), "numbers no promise"),
    (
        "task",
        |copy| copy.append("README.md", "Run `cargo xtask nothing`.\n"),
        "no task `cargo xtask nothing`",
    ),
    ("task", |copy| copy.append(DAG, "// See `cargo xtask nothing`.\n"), "no task `cargo xtask nothing`"),
    ("task", |copy| copy.append(".ci/run", "cargo xtask nothing\n"), "no task `cargo xtask nothing`"),
    (
        "bench-id",
        |copy| copy.append(SPECIFICATION, "\n`call/nothing`, `pit/stale/touch/cold`\n"),
        "no bench reports `call/nothing`",
    ),
    (
        "bench-id",
        |copy| copy.replace("benches/benches/pit/stale.rs", "\"pit/stale/touch\"", "\"pit/stale/touched\""),
        "no bench reports `pit/stale/touch`",
    ),
    (
        "tag-page",
        |copy| {
            copy.append(
                "docs/concurrency.md",
                "## dag-tracker\n\n| tag | ordering |\n|---|---|\n| `gone` | x |\n",
            )
        },
        "no ordering of `dag-tracker` bears the tag `gone`",
    ),
    ("summary", |copy| copy.write("docs/novelty.md", "# Novelty\n"), "does not list `docs/novelty.md`"),
    ("summary", |copy| copy.append("docs/SUMMARY.md", "- [Again](glossary.md)\n"), "more than once"),
];
