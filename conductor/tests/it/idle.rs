//! What nobody uses is stopped, by the Pit's stale manager, while the run goes on.

use std::fs;

use crate::support::{Ended, Place, main_job_arguments, many_files, target_folder};

#[test]
fn an_extension_that_is_idle_is_stopped_while_the_run_goes_on() {
    let place = Place::new();
    let tree = place.path("tree");
    fs::create_dir(&tree).unwrap();
    many_files(&tree, 10_000);
    place.run(["extensions", "build", "file-explorer", "operators"]).with_code(0);
    // The project's programs, in an extension folder of the test's own: one of them with little patience.
    for (name, idle_timeout) in [("file-explorer", "20ms"), ("operators", "60s")] {
        let program = target_folder().join("debug").join(name);
        let manifest = format!(
            "name = \"{name}\"\nversion = \"0.1.0\"\n[run]\ncommand = [{program:?}]\n\
             [activation]\nidle-timeout = \"{idle_timeout}\"\n[models.hasher]\ncapacity = 2\n"
        );
        place.write(&format!("own/{name}/extension.toml"), &manifest);
    }
    let mut command = place.conductor(main_job_arguments(&tree, []));
    command.env("SYMPHONY_EXTENSION_DIRS", place.path("own"));
    let document = Ended::of(command.output().unwrap()).with_code(0).document();
    let [explorer, operators] = [&document["extensions"][0], &document["extensions"][1]];
    assert_eq!((&explorer["starts"], &explorer["restarts"]), (&1.into(), &0.into()), "{explorer}");
    assert!(explorer["causes"][0].as_str().is_some_and(|cause| cause.contains("idle")), "{explorer}");
    assert_eq!(operators["causes"], serde_json::json!([]), "{operators}");
}
