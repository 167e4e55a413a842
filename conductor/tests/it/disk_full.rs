//! A full disk under the artifact store: a clear error, nothing half stored, and service again with room.

use std::fs;
use std::process::Command;

use crate::support::{Ended, Place, main_job_arguments, many_files, skip};

#[test]
fn a_full_disk_fails_the_run_clearly_and_leaves_nothing_half_stored() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    many_files(&tree, 3_000);
    // Built before the data folder becomes small: only the artifacts have to fit.
    place.main_job(&tree, []).with_code(0);

    let folder = place.path("small");
    fs::create_dir(&folder).unwrap();
    let script = r#"
mount -t tmpfs -o size=192k tmpfs "$SMALL" || exit 77
"$@"; code=$?
find "$SMALL" -type f | sed "s|^|left: |" >&2
rm -f "$SMALL"/filler
exit $code
"#;
    let conductor = place.conductor(main_job_arguments(&tree, []));
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(conductor.get_program()).args(conductor.get_args());
    for (name, value) in conductor.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("SMALL", &folder).env("SYMPHONY_DATA_DIR", &folder).current_dir(place.path("."));
    let test = "a_full_disk_fails_the_run_clearly_and_leaves_nothing_half_stored";
    let ended = match command.output() {
        Ok(output) if output.status.code() == Some(77) || is_refused(&output.stderr) => {
            return skip(test, "no mount namespace of one's own is permitted here");
        }
        Ok(output) => Ended::of(output),
        Err(error) => return skip(test, &format!("unshare cannot be run: {error}")),
    };
    let ended = ended.with_code(1);
    let error = ended.document()["error"].clone();
    assert_eq!(error["origin"], "conductor", "{error}");
    assert!(error["message"].as_str().unwrap().contains("no room"), "{error}");
    assert!(error["help"].as_str().unwrap().contains("--data"), "{error}");
    let left: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("left: ")).collect();
    assert!(!left.iter().any(|line| line.contains("/artifacts/tmp/")), "{left:?}");
    // Whatever is stored is whole: an object's name is the digest of its bytes, so that its size is enough.
    let named = left.iter().filter(|line| line.contains("/names/")).count();
    assert_eq!(ended.document()["outputs"].as_object().unwrap().len(), named, "{left:?}");
}

fn is_refused(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    text.starts_with("unshare: ") || text.contains("mount: ")
}
