//! The rules, broken one at a time.

use std::collections::BTreeSet;

use xtask::{RULES, protocol};

use crate::cases::CASES;
use crate::copy::{Copy, broken_before};

#[test]
fn the_tree_as_it_is_breaks_no_rule() {
    assert!(broken_before().is_empty(), "{:#?}", broken_before());
}

#[test]
fn each_rule_has_a_case_that_breaks_it() {
    let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    let cases: BTreeSet<_> = CASES.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(rules, cases);
}

#[test]
fn each_broken_rule_is_reported_by_its_name_and_no_other() {
    let mut copy = Copy::new();
    for (rule, change, expected) in CASES {
        change(&mut copy);
        let broken = copy.newly_broken();
        let shown: Vec<_> = broken.iter().map(ToString::to_string).collect();
        assert!(shown.iter().any(|line| line.contains(expected)), "{rule}: not {expected:?} but {shown:#?}");
        assert!(broken.iter().all(|broken| broken.rule == *rule), "{rule}: {shown:#?}");
        copy.mend();
    }
    assert_eq!(copy.newly_broken(), [], "each case was taken back");
}

#[test]
fn a_failure_names_file_line_rule_and_remedy() {
    let mut copy = Copy::new();
    let lines = copy.text("README.md").lines().count();
    copy.append("README.md", "[a](docs/nothing.md)\n");
    let shown: Vec<_> = copy.newly_broken().iter().map(ToString::to_string).collect();
    let expected = format!(
        "README.md:{}: link: `docs/nothing.md` leads nowhere; name a file of the tree, relative to the page",
        lines + 1
    );
    assert_eq!(shown, [expected]);
}

#[test]
fn a_protocol_document_that_was_read_again_is_accepted() {
    let mut copy = Copy::new();
    copy.append("ipc-bus/ipc-protocol/src/limits.rs", "/// New.\npub const NEW_MAX: u32 = 1;\n");
    assert_eq!(copy.newly_broken().len(), 1);
    let document = protocol::accept(&copy.workspace()).expect("there is a document");
    copy.write(protocol::DOCUMENT, &document);
    assert_eq!(copy.newly_broken(), []);
    // Once more changes nothing.
    assert_eq!(protocol::accept(&copy.workspace()).expect("there is a document"), document);
}

#[test]
fn what_only_looks_broken_is_not_reported() {
    let mut copy = Copy::new();
    copy.append("pit/dag-tracker/src/lib.rs", "// SIGTERM: asks.\n/// JSON: or not.\nfn f() {}\n");
    copy.write("melodies/two words.md", "# Two words\n");
    copy.append("README.md", "[a](melodies/two%20words.md#two-words), [b](docs/)\n");
    copy.append(
        "extensions/hostile/src/system.rs",
        "\n// SAFETY: so.\n#[cfg_attr(unix, expect(\n    unsafe_code\n))]\nunsafe fn f() {}\n",
    );
    assert_eq!(copy.newly_broken(), []);
}
