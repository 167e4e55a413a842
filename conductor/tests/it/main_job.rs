//! The main job over real input: every file a row, every digest right, one document.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Place, on_terminal, strange_tree};

/// Every regular file below `root`, as `find -type f` counts them.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("the folder is read").flatten() {
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// A path as rows have it: bytes that are not UTF-8 as `\xNN`.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[test]
fn every_file_of_a_strange_tree_has_its_row_and_its_digest() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    let count = strange_tree(&tree);
    let ended = place.main_job(&tree, ["-i", "all=true"]).with_code(0);
    let rows = ended.rows();
    assert_eq!(rows.len(), count);

    let files = files_below(&tree);
    assert_eq!(files.len(), count);
    let mut unseen: BTreeSet<&String> = rows.keys().collect();
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let relative = escaped(file.strip_prefix(&tree).unwrap());
        // How a backslash in a name is written is the extension's matter; the digest is not.
        let row = rows.get(&relative).or_else(|| rows.values().find(|row| row["blake3"] == *digest));
        let row = row.unwrap_or_else(|| panic!("{relative} in {rows:?}"));
        assert_eq!(row["blake3"], *digest, "{relative}");
        assert_eq!(row["bytes"], bytes.len(), "{relative}");
        unseen.remove(&row["path"].as_str().unwrap().to_owned());
    }
    assert!(unseen.is_empty(), "rows without a file: {unseen:?}");
    assert!(rows.keys().any(|path| path.contains("\\xff\\xfe")), "{:?}", rows.keys());
}

#[test]
fn the_document_says_how_every_step_went_and_where_the_outputs_are() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    strange_tree(&tree);
    let ended = place.main_job(&tree, []).with_code(0);
    let document = ended.document();
    assert_eq!(document["state"], "succeeded");
    assert_eq!(document["run"].as_str().unwrap().len(), 26);
    assert_eq!(document["error"], Value::Null);
    let steps = document["steps"].as_array().unwrap();
    let ids: Vec<_> = steps.iter().map(|step| step["id"].as_str().unwrap()).collect();
    assert_eq!(ids[..2], ["list", "measure"]);
    for step in steps {
        assert_eq!(step["state"], "succeeded", "{step}");
        assert_eq!(step["causes"], Value::Array(Vec::new()), "{step}");
        assert!(step["duration_ms"].as_f64().unwrap() > 0.0, "{step}");
    }
    // Hidden files and what .gitignore excludes are left out.
    let rows = ended.rows();
    assert_eq!(steps[1]["items"], rows.len());
    assert_eq!(steps[1]["attempts"], rows.len());
    assert!(!rows.contains_key("ignored.log") && !rows.contains_key(".hidden"));

    for name in ["report.md", "rows.json"] {
        let output = &document["outputs"][name];
        let bytes = ended.output(name);
        assert_eq!(output["bytes"], bytes.len());
        assert_eq!(output["digest"], blake3::hash(&bytes).to_hex().to_string());
    }
    for row in rows.values() {
        for key in ["path", "bytes", "lines", "language", "blake3"] {
            assert!(row.get(key).is_some(), "{key} in {row}");
        }
    }
    let extensions = document["extensions"].as_array().unwrap();
    let names: Vec<_> = extensions.iter().map(|extension| extension["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["file-explorer", "operators"]);
    assert!(extensions.iter().all(|extension| extension["starts"] == 1 && extension["restarts"] == 0));
}

#[test]
fn people_get_the_steps_the_place_of_the_report_and_a_summary() {
    let place = Place::new();
    place.write("tree/a.rs", "fn a() {}\n");
    let mut arguments = crate::support::main_job_arguments(&place.path("tree"), []);
    arguments.retain(|argument| argument != "--json");
    let ended = place.run(arguments).with_code(0);
    assert!(ended.stdout.contains("succeeded") && ended.stdout.contains("report.md"), "{}", ended.stdout);
    let path = ended.stdout.split_whitespace().find(|word| word.contains("/objects/")).expect("a path");
    assert!(fs::read_to_string(path).unwrap().contains("a.rs"));
    for line in ["list: succeeded", "measure: running, 1 item\n", "report: succeeded"] {
        assert!(ended.stderr.contains(line), "{line} in {}", ended.stderr);
    }
}

#[test]
fn an_empty_folder_gives_a_report_and_an_empty_list() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    let ended = place.main_job(&place.path("empty"), []).with_code(0);
    assert_eq!(ended.rows().len(), 0);
    assert!(!ended.output("report.md").is_empty());
    assert_eq!(ended.document()["steps"][1]["items"], 0);
}

#[test]
fn names_of_two_runs_sort_as_the_runs_began() {
    let place = Place::new();
    place.write("tree/a", "a");
    let runs =
        [(); 2].map(|()| place.main_job(&place.path("tree"), []).with_code(0).document()["run"].clone());
    assert!(runs[0].as_str() < runs[1].as_str(), "{runs:?}");
}

#[test]
fn on_a_terminal_the_steps_fill_in() {
    let place = Place::new();
    place.write("tree/a.rs", "fn a() {}\n");
    let test = "on_a_terminal_the_steps_fill_in";
    let mut arguments = crate::support::main_job_arguments(&place.path("tree"), []);
    arguments.retain(|argument| argument != "--json");
    let conductor = place.conductor(arguments);
    let Some((code, shown)) = on_terminal(&conductor, ("xterm", "true", ""), test) else { return };
    assert_eq!(code, Some(0), "{shown}");
    // The bar of the fan-out, and the end of the last step.
    assert!(shown.contains("] 1/1") && shown.contains("succeeded in"), "{shown}");
    assert!(shown.contains("report.md"), "{shown}");
}
