//! A full, a read-only and a limited disk under the artifact store: a clear error, nothing half stored.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Ended, Place, by_a_shell, main_job_arguments, many_files, melody_that_stores, skip};

/// Runs the conductor's `command` by `script` with mounts of its own, `$FOLDER` being its data folder; `None`,
/// and `test` is skipped, where that is not permitted. The script exits with 77 if it cannot mount.
fn with_own_mounts(command: &mut Command, folder: &Path, script: &str, test: &str) -> Option<Ended> {
    fs::create_dir(folder).expect("the folder is made");
    command.env("FOLDER", folder).env("SYMPHONY_DATA_DIR", folder);
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    match by_a_shell(&unshare, script, command).output() {
        Ok(output) if output.status.code() == Some(77) || is_refused(&output.stderr) => {
            skip(test, "no mount namespace of one's own is permitted here");
            None
        }
        Ok(output) => Some(Ended::of(output)),
        Err(error) => {
            skip(test, &format!("unshare cannot be run: {error}"));
            None
        }
    }
}

fn is_refused(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    text.starts_with("unshare: ") || text.contains("mount: ")
}

#[test]
fn a_full_disk_fails_the_run_clearly_and_leaves_nothing_half_stored() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    many_files(&tree, 3_000);
    // Built before the data folder becomes small: only the artifacts have to fit.
    place.main_job(&tree, []).with_code(0);

    let script = r#"
mount -t tmpfs -o size=192k tmpfs "$FOLDER" || exit 77
"$@"; code=$?
find "$FOLDER" -type f | sed "s|^|left: |" >&2
exit $code
"#;
    let mut conductor = place.conductor(main_job_arguments(&tree, []));
    let test = "a_full_disk_fails_the_run_clearly_and_leaves_nothing_half_stored";
    let Some(ended) = with_own_mounts(&mut conductor, &place.path("small"), script, test) else { return };
    let ended = ended.with_code(1);
    let error = ended.document()["error"].clone();
    assert_eq!((&error["origin"], &error["retry"]), (&"environment".into(), &"never".into()), "{error}");
    assert!(error["message"].as_str().unwrap().contains("no room"), "{error}");
    assert!(error["help"].as_str().unwrap().contains("--data"), "{error}");
    assert_eq!(error["item"], serde_json::Value::Null, "no item is to blame: {error}");
    let left: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("left: ")).collect();
    assert!(!left.iter().any(|line| line.contains("/artifacts/tmp/")), "{left:?}");
    // Whatever is stored is whole: an object's name is the digest of its bytes, so that its size is enough.
    let named = left.iter().filter(|line| line.contains("/names/")).count();
    assert_eq!(ended.document()["outputs"].as_object().unwrap().len(), named, "{left:?}");
}

#[test]
fn a_data_folder_that_cannot_be_written_is_told_before_anything_is_started() {
    let place = Place::new();
    melody_that_stores(&place, "x");
    // A store that was good once: it opens, and takes nothing.
    let script = r#"
mount -t tmpfs tmpfs "$FOLDER" || exit 77
"$1" artifacts list >&2 || exit 78
mount -o remount,ro "$FOLDER" || exit 77
"$@"
"#;
    let mut conductor = place.conductor(["run", "m.toml", "--json", "--log", "info"]);
    let test = "a_data_folder_that_cannot_be_written_is_told_before_anything_is_started";
    let Some(ended) = with_own_mounts(&mut conductor, &place.path("read-only"), script, test) else { return };
    let ended = ended.with_code(3);
    let error = ended.document()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("read-only cannot be "), "{error}");
    assert!(error["help"].as_str().unwrap().contains("--data DIR"), "{error}");
    assert!(!ended.stderr.contains("building") && !ended.stderr.contains("starts"), "{}", ended.stderr);
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_like_a_full_disk() {
    let place = Place::new();
    place.run(["extensions", "build", "echo"]).with_code(0);
    melody_that_stores(&place, &"x".repeat(200_000));
    let conductor = place.conductor(["run", "m.toml", "--json"]);
    let mut limited = by_a_shell(&[], "ulimit -f 64; exec \"$@\"", &conductor);
    let ended = Ended::of(limited.output().unwrap()).with_code(1);
    let error = ended.document()["error"].clone();
    assert_eq!((&error["origin"], &error["retry"]), (&"environment".into(), &"never".into()), "{error}");
    assert!(error["message"].as_str().unwrap().contains("ulimit -f"), "{error}");
    place.run(["run", "m.toml"]).with_code(0);
}
