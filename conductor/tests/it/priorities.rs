//! Who is served first when there is not enough for all: by the step's own priority, else by that of the run.

use crate::support::Place;

/// A melody of steps that all need what one can have at a time; `low`, `high` and `usual` wait while `first` starts its
/// extension.
fn melody(needs: &str) -> String {
    let step = |id: &str, priority: &str| {
        format!(
            "[[steps]]\nid = \"{id}\"\ncall = \"echo.echo\"\nwith = {{ text = \"x\" }}\n{needs}\n{priority}\n"
        )
    };
    let steps =
        [step("first", ""), step("low", "priority = 10"), step("usual", ""), step("high", "priority = 200")];
    format!("name = \"m\"\n[models.printer]\ncapacity = 1\n{}", steps.concat())
}

/// The steps in the order in which they ended.
fn order(place: &Place, melody: &str, more: &[&str]) -> Vec<String> {
    place.write("m.toml", melody);
    let mut command = place.conductor(["run", "m.toml"]);
    let output = command.args(more).env("SYMPHONY_CORES", "1").output().expect("the conductor runs");
    let told = crate::support::Ended::of(output).with_code(0).stderr;
    let ended = told.lines().filter_map(|line| Some(line.split_once(": succeeded")?.0.to_owned()));
    ended.collect()
}

#[test]
fn steps_that_wait_for_cores_or_models_are_served_by_priority() {
    let place = Place::new();
    for needs in ["claims = { cpu = 1 }", "lease = [\"printer\"]"] {
        let melody = melody(needs);
        assert_eq!(order(&place, &melody, &[]), ["first", "high", "usual", "low"], "{needs}");
        let urgent = order(&place, &melody, &["--priority", "255"]);
        assert_eq!(urgent, ["first", "usual", "high", "low"], "{needs}");
        let later = order(&place, &melody, &["--priority", "0"]);
        assert_eq!(later, ["first", "high", "low", "usual"], "{needs}");
    }
    place.run(["run", "m.toml", "--priority", "256"]).with_code(2);
}
