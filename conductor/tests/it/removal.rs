//! `artifacts remove` and `artifacts collect`: what is removed, and above all what is not.

use std::fs;

use serde_json::json;

use crate::support::{Place, melody_that_stores};

/// Stores `text`; gives the name and the file of the artifact.
fn stored(place: &Place, text: &str) -> (String, String) {
    melody_that_stores(place, text);
    let document = place.run(["run", "m.toml", "--json"]).with_code(0).document();
    let name = format!("{}/text", document["run"].as_str().expect("a run"));
    (name, document["outputs"]["text"]["path"].as_str().expect("a path").to_owned())
}

#[test]
fn a_collection_takes_only_what_has_lost_its_last_name() {
    let place = Place::new();
    let (first, path) = stored(&place, "the same");
    let (second, same_path) = stored(&place, "the same");
    let (kept, kept_path) = stored(&place, "other");
    assert_eq!(path, same_path);
    let collect = |arguments: &[&str]| {
        place.run(["artifacts", "collect", "--json"].iter().chain(arguments)).with_code(0).document()
    };
    let report = |removed: u64, bytes: u64, dry: bool| json!({ "removed": removed, "removed_bytes": bytes, "pinned": 0, "dry_run": dry });
    // Everything that a document of a run promises is there.
    assert_eq!(collect(&["--dry-run"]), report(0, 0, true));
    assert_eq!(collect(&[]), report(0, 0, false));

    place.run(["artifacts", "remove", &first]).with_code(0);
    assert_eq!(collect(&[]), report(0, 0, false), "the other run's name is left");
    assert_eq!(fs::read_to_string(&path).unwrap(), "the same");

    // A run stands for all its names.
    let run = second.split('/').next().unwrap();
    let told = place.run(["artifacts", "remove", run, "--dry-run"]).with_code(0).stdout;
    assert_eq!(told, format!("{second}\n1 name would be removed\n"));
    let removed = place.run(["artifacts", "remove", run, "--json"]).with_code(0).document();
    assert_eq!(removed, json!({ "names": [second], "dry_run": false }));
    assert_eq!(fs::read_to_string(&path).unwrap(), "the same", "until it is collected");
    assert_eq!(collect(&["--dry-run"]), report(1, 8, true));
    assert!(fs::exists(&path).unwrap());
    let told = place.run(["artifacts", "collect"]).with_code(0).stdout;
    assert_eq!(told, "1 artifact (8 B) removed\n");
    assert!(!fs::exists(&path).unwrap());

    assert_eq!(fs::read_to_string(kept_path).unwrap(), "other");
    let list = place.run(["artifacts", "list", "--json"]).with_code(0).document();
    assert_eq!(list[0]["names"], json!([kept]));
    place.run(["artifacts", "verify"]).with_code(0);
}

#[test]
fn names_go_by_the_age_of_their_runs_and_a_wrong_name_removes_nothing() {
    let place = Place::new();
    let (name, _) = stored(&place, "text");
    let told = place.run(["artifacts", "remove", &name, "no-such-run"]).with_code(1).stderr;
    assert!(
        told.contains("no artifact named `no-such-run`") && told.contains("nothing was removed"),
        "{told}"
    );
    let removed = |arguments: &[&str]| {
        let given = ["artifacts", "remove", "--json"].iter().chain(arguments);
        place.run(given).with_code(0).document()["names"].clone()
    };
    assert_eq!(removed(&["--older-than", "1d"]), json!([]));
    assert_eq!(removed(&["--older-than", "0d", "--dry-run"]), json!([name]));
    assert_eq!(removed(&["--older-than", "0d"]), json!([name]));
    for wrong in [&["artifacts", "remove"][..], &["artifacts", "remove", "--older-than", "soon"]] {
        place.run(wrong).with_code(2);
    }
}
