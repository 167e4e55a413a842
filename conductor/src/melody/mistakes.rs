//! One bad melody for each mistake, with the place and the text of what is said about it.

use super::testing::{REPORT, mistakes};

/// The report melody with `from` (which is in it once) replaced.
fn with(from: &str, to: &str) -> String {
    assert_eq!(REPORT.matches(from).count(), 1, "{from}");
    REPORT.replace(from, to)
}

fn assert_said(cases: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (from, to, expected) in cases {
        let said = mistakes(&with(from, to)).join(" | ");
        if said != *expected {
            wrong.push(format!("{to}\n   said     {said}\n   expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_melody_that_the_cases_change_has_no_mistake() {
    assert_eq!(mistakes(REPORT), Vec::<String>::new());
}

#[test]
fn mistakes_of_the_file_are_found_at_their_place() {
    assert_said(&[
        (
            "name = \"folder-report\"",
            "name = \"Folder Report\"",
            "1:8 `Folder Report` cannot be a melody's name (1 to 64 of a-z, 0-9, `_` and `-`, beginning with a letter)",
        ),
        ("name = \"folder-report\"\n", "", "1:1 a melody has no `name`"),
        ("name = \"folder-report\"", "name = 7", "1:8 `name` must be a string, not an integer"),
        (
            "description = ",
            "descripton = ",
            "2:1 unknown key `descripton` in a melody (did you mean `description`?)",
        ),
        (
            "description = ",
            "finally = ",
            "2:1 `finally` is not supported in a melody (steps that always run at the end do not exist yet)",
        ),
        (
            "description = \"Counts and ranks what is in a folder.\"",
            "on-failure = \"carryon\"",
            "2:14 `on-failure` cannot be `carryon` (did you mean `carry-on`?)",
        ),
        (
            "type = \"path\"",
            "type = \"file\"",
            "5:8 unknown type `file` (types: boolean, integer, number, path, string)",
        ),
        ("type = \"path\"\n", "", "4:9 an input has no `type`"),
        ("default = false", "default = 0", "10:11 the default of an input of type boolean is an integer"),
        (
            "default = false",
            "deflaut = true",
            "10:1 unknown key `deflaut` in an input (did you mean `default`?)",
        ),
        ("timeout = \"10s\"", "priority = 256", "27:12 `priority` is out of range (from 0 to 255)"),
        ("timeout = \"10s\"", "priority = -1", "27:12 `priority` is out of range (from 0 to 255)"),
        ("timeout = \"10s\"", "priority = \"high\"", "27:12 `priority` must be an integer, not a string"),
        ("capacity = 1", "capacity = 0", "13:12 `capacity` is out of range (from 1 to 1000000)"),
        (
            "capacity = 1\n",
            "",
            "12:9 a model has no `capacity` (how many steps may lease it at the same time)",
        ),
        (
            "id = \"list\"",
            "id = \"List\"",
            "16:6 `List` cannot be a step's id (1 to 64 of a-z, 0-9, `_` and `-`, beginning with a letter) | 22:16 there is no step `list` (did you mean `List`?) | 24:21 there is no step `list` (did you mean `List`?) | 35:25 there is no step `list` (did you mean `List`?) | 45:10 there is no step `list` (did you mean `List`?)",
        ),
        (
            "id = \"rank\"",
            "id = \"measure\"",
            "30:6 a second step with the id `measure` (ids are unique) | 41:24 there is no step `rank` (steps: list, measure, report)",
        ),
        (
            "call = \"operators.rank\"",
            "call = \"operators\"",
            "31:8 `operators` is no call (write `extension.method`)",
        ),
        ("call = \"operators.rank\"\n", "", "29:1 a step has no `call`"),
        (
            "claims = { cpu = 1 }",
            "claims = { cpu = 0 }",
            "25:18 `cpu` is out of range (from 1 to 9223372036854775807)",
        ),
        ("claims = { cpu = 1 }", "claims = [\"cpu\"]", "25:10 `claims` must be a table, not an array"),
        (
            "claims = { cpu = 1 }",
            "join = \"any\"",
            "25:1 `join` is not supported in a step (a step waits until all steps that it depends on have succeeded; other join rules do not exist yet)",
        ),
        (
            "timeout = \"10s\"",
            "timeout = \"10\"",
            "27:11 `10` is not a time (a whole number with `ms`, `s`, `m` or `h`, from 1ms to 168h)",
        ),
        (
            "timeout = \"10s\"",
            "timeout = 10",
            "27:11 `timeout` must be a string, not an integer (a time has a unit: \"10s\")",
        ),
        (
            "timeout = \"10s\"",
            "timeout = \"999h\"",
            "27:11 `999h` is out of range (a whole number with `ms`, `s`, `m` or `h`, from 1ms to 168h)",
        ),
        ("times = 3, ", "", "26:9 `retry` has no `times` (how often to try again)"),
        ("times = 3", "times = 1000", "26:19 `times` is out of range (from 1 to 100)"),
        (
            "[\"100ms\", \"5s\"]",
            "[\"5s\", \"100ms\"]",
            "26:32 `backoff` is not two times (the first wait and the longest: [\"100ms\", \"5s\"])",
        ),
        (
            "[\"100ms\", \"5s\"]",
            "[\"soon\", \"5s\"]",
            "26:33 `soon` is not a time (a whole number with `ms`, `s`, `m` or `h`, from 1ms to 168h)",
        ),
        ("\"crashed\", ", "\"crashd\", ", "26:55 unknown cause `crashd` (did you mean `crashed`?)"),
        (
            "for-each = ",
            "foreach = ",
            "22:1 unknown key `foreach` in a step (did you mean `for-each`?) | 24:60 there is no `item` here (`item` needs a `for-each` in the same step) | 34:12 `rows` must be an array, and `steps.measure.output` is a table",
        ),
        (
            "artifact = \"report.md\"",
            "artifact = \"../report.md\"",
            "44:23 `../report.md` is no name for an artifact (1 to 64 letters, digits, `-`, `_` and `.`, not `.` first; no path)",
        ),
        (
            "artifact = \"report.md\"",
            "artifact = \".report.md\"",
            "44:23 `.report.md` is no name for an artifact (1 to 64 letters, digits, `-`, `_` and `.`, not `.` first; no path)",
        ),
        (
            "artifact = \"report.md\"",
            "artefact = \"report.md\"",
            "44:10 `output` has no `artifact` | 44:12 unknown key `artefact` in `output` (did you mean `artifact`?)",
        ),
        ("after = [\"list\"]", "after = \"list\"", "45:9 `after` must be an array of strings, not a string"),
        (
            "recursive = true",
            "recursive = 2026-01-01",
            "18:50 a date is not a value of MessagePack (write it as a string)",
        ),
        ("recursive = true", "recursive = ", "18:50 extra comma in inline table, expected value"),
        ("recursive = true", "path = \"\"", "18:38 duplicate key"),
    ]);
}

#[test]
fn mistakes_of_templates_are_found_at_their_place() {
    assert_said(&[
        (
            "{{ steps.list.output.entries }}",
            "{{ steps.lst.output.entries }}",
            "22:16 there is no step `lst` (did you mean `list`?)",
        ),
        (
            "{{ steps.list.output.entries }}",
            "{{ steps.list.entries }}",
            "22:16 a step has only `output`: `steps.list.output`",
        ),
        (
            "{{ steps.list.output.entries }}",
            "{{ steps }}",
            "22:16 `steps` must be followed by a step's id (write `steps.ID.output`)",
        ),
        (
            "{{ steps.list.output.entries }}",
            "steps.list.output.entries",
            "22:12 `for-each` must be one expression and nothing else (write `for-each = \"{{ ... }}\"`)",
        ),
        (
            "{{ steps.list.output.entries }}",
            "all {{ steps.list.output.entries }}",
            "22:12 `for-each` must be one expression and nothing else (write `for-each = \"{{ ... }}\"`)",
        ),
        (
            "{{ steps.list.output.entries }}",
            "{{ item }}",
            "22:16 there is no `item` here (`for-each` says what the items are)",
        ),
        (
            "{{ steps.list.output.entries }}",
            "{{ steps.measure.output }}",
            "22:16 step `measure` reads its own output (a step can read only what was done before it)",
        ),
        (
            "{{ steps.list.output.entries }}",
            "{{ steps.rank.output.total }}",
            "22:16 steps wait for each other: measure -> rank -> measure (one of them must not read or name the next) | 22:16 `for-each` needs an array, and `steps.rank.output.total` is an integer",
        ),
        (
            "{{ steps.measure.output }}",
            "{{ item }}",
            "34:12 there is no `item` here (`item` needs a `for-each` in the same step)",
        ),
        (
            "{{ steps.measure.output | length > 0 }}",
            "{{ steps.measure.output | lenght > 0 }}",
            "42:35 unknown filter `lenght` in a template (did you mean `length`?)",
        ),
        (
            "{{ steps.measure.output | length > 0 }}",
            "{{ steps.measure.output is definde }}",
            "42:36 unknown test `definde` in a template (did you mean `defined`?)",
        ),
        (
            "{{ steps.measure.output | length > 0 }}",
            "{{ steps.measure.output | length > }}",
            "42:42 syntax error: unexpected end of input, expected expression",
        ),
        (
            "{{ steps.measure.output | length > 0 }}",
            "{{ steps[inputs.path].output }}",
            "42:12 `steps` must be followed by a step's id (write `steps.ID.output`)",
        ),
        ("{{ steps.measure.output | length > 0 }}", "{{ steps['measure'].output is not none }}", ""),
        (
            "{{ inputs.path }} in",
            "{{ inputs.pth }} in",
            "36:16 there is no input `pth` (did you mean `path`?)",
        ),
        (
            "{{ inputs.path }} in",
            "{{ input.path }} in",
            "36:16 unknown name `input` in a template (did you mean `inputs`?)",
        ),
        ("{{ inputs.path }} in", "{{ inputs.path.name }} in", "36:16 the input `path` has no fields"),
        ("{{ inputs.path }} in", "{{ \u{e9}t\u{e9} }} in", "36:16 syntax error: unexpected character"),
        ("{{ inputs.path }} in", "{% if %} in", "36:19 syntax error: unexpected end of block"),
        ("{{ run.id }}", "{{ run.name }}", "36:37 a run has only `id` (write `run.id`)"),
        ("after = [\"list\"]", "after = [\"lst\"]", "45:10 there is no step `lst` (did you mean `list`?)"),
        ("after = [\"list\"]", "after = [\"report\"]", "45:10 step `report` waits for itself"),
        (
            "path = \"{{ inputs.path }}\"",
            "path = \"{{ steps.rank.output.total }}\"",
            "18:21 steps wait for each other: list -> rank -> list (one of them must not read or name the next) | 18:21 `path` must be a string, and `steps.rank.output.total` is an integer",
        ),
    ]);
}

#[test]
fn mistakes_against_the_extensions_are_found_at_their_place() {
    assert_said(&[
        (
            "file-explorer.list",
            "file-explorr.list",
            "17:9 there is no extension `file-explorr` (did you mean `file-explorer`?)",
        ),
        (
            "file-explorer.list",
            "mute.list",
            "17:9 the methods of `mute` are not known: it is not built (build it, or see why not: conductor extensions build mute)",
        ),
        ("operators.render", "operators.reset", "41:10 `reset` takes no arguments"),
        (
            "file-explorer.list",
            "file-explorer.lst",
            "17:23 `file-explorer` has no method `lst` (did you mean `list`?)",
        ),
        (
            "recursive = true",
            "recursiv = true",
            "18:38 `list` takes no argument `recursiv` (did you mean `recursive`?)",
        ),
        ("recursive = true", "recursive = \"yes\"", "18:50 `recursive` must be a boolean, not a string"),
        ("path = \"{{ inputs.path }}\", ", "", "17:23 `list` needs the argument `path`"),
        (
            "path = \"{{ inputs.path }}\"",
            "path = \"{{ inputs.all }}\"",
            "18:21 `path` must be a string, and `inputs.all` is a boolean",
        ),
        (
            "all = \"{{ inputs.all }}\"",
            "all = \"{{ inputs.all }} \"",
            "18:62 `all` must be a boolean, and text with templates in it is a string",
        ),
        (
            "recursive = true",
            "options = { style = \"rch\" }",
            "18:58 `style` cannot be `rch` (did you mean `rich`?)",
        ),
        ("recursive = true", "options = { depth = 3 }", "18:48 `options` needs the key `style`"),
        (
            "recursive = true",
            "options = { style = \"rich\", depth = 10 }",
            "18:74 `depth` is out of range (from 0 to 9)",
        ),
        (
            "recursive = true",
            "options = { style = \"rich\", depth = 1.5 }",
            "18:74 `depth` must be an integer, not a number",
        ),
        (
            "recursive = true",
            "options = { style = \"rich\", tags = [\"a\", 2] }",
            "18:79 `tags[1]` must be a string, not an integer",
        ),
        (
            "recursive = true",
            "options = { style = \"rich\", tgas = [] }",
            "18:66 `options` takes no key `tgas` (did you mean `tags`?)",
        ),
        ("recursive = true", "options = { style = \"rich\", share = 1, tags = [\"{{ run.id }}\"] }", ""),
        (
            "{{ steps.list.output.entries }}",
            "{{ steps.list.output.entriez }}",
            "22:16 `steps.list.output.entriez` leads nowhere: there is no field `entriez` (did you mean `entries`?)",
        ),
        (
            "{{ steps.list.output.entries }}",
            "{{ steps.list.output }}",
            "22:16 `for-each` needs an array, and `steps.list.output` is a table",
        ),
        (
            "{{ steps.measure.output }}",
            "{{ steps.measure.output.path }}",
            "34:12 `steps.measure.output.path` leads nowhere: an array has no field `path` (the output of a step with `for-each` is the array of its results)",
        ),
        (
            "{{ steps.measure.output }}",
            "{{ steps.measure.output[0] }}",
            "34:12 `rows` must be an array, and `steps.measure.output[0]` is a table",
        ),
        (
            "file = \"{{ item }}\"",
            "file = \"{{ item.pth }}\"",
            "24:60 `item.pth` leads nowhere: there is no field `pth` (did you mean `path`?)",
        ),
        (
            "file = \"{{ item }}\"",
            "file = \"{{ item.path }}\"",
            "24:60 `file` must be a table, and `item.path` is a string",
        ),
        (
            "claims = { cpu = 1 }",
            "claims = { gpu = 1 }",
            "25:12 there is no resource `gpu` (did you mean `cpu`?)",
        ),
        (
            "claims = { cpu = 1 }",
            "claims = { cpu = 3 }",
            "25:12 the step claims 3 of `cpu` (there is 2; the step would wait for ever)",
        ),
        (
            "operators/counter",
            "operators/countr",
            "32:10 there is no model `operators/countr` (did you mean `operators/counter`?)",
        ),
        (
            "lease = [\"printer\"]",
            "lease = [\"plotter\"]",
            "43:10 there is no model `plotter` (models: operators/counter, printer)",
        ),
        (
            "lease = [\"printer\"]",
            "lease = [\"printer\", \"printer\"]",
            "43:21 the model `printer` is leased twice (once is enough; two steps that each hold one and wait for \
             another would wait for ever)",
        ),
    ]);
}

#[test]
fn all_mistakes_are_found_in_one_go_in_the_order_of_the_file() {
    let text = REPORT
        .replace("description = ", "descripton = ")
        .replace("{{ steps.list.output.entries }}", "{{ steps.lst.output.entries }}")
        .replace("timeout = \"10s\"", "timeout = \"soon\"")
        .replace("call = \"operators.rank\"", "call = \"operators.rnk\"");
    let expected = [
        "2:1 unknown key `descripton` in a melody (did you mean `description`?)",
        "22:16 there is no step `lst` (did you mean `list`?)",
        "27:11 `soon` is not a time (a whole number with `ms`, `s`, `m` or `h`, from 1ms to 168h)",
        "31:19 `operators` has no method `rnk` (did you mean `rank`?)",
    ];
    assert_eq!(mistakes(&text), expected);
}

#[test]
fn what_is_no_melody_is_said_to_be_none() {
    let cases = [
        ("", "1:1 a melody has no `name` | 1:1 a melody has no steps (begin each with `[[steps]]`)"),
        ("name = \"m\"\nsteps = 1", "2:9 `steps` must be an array of tables, not an integer"),
        ("name = \"m\"\n[[steps]]", "2:1 a step has no `id` | 2:1 a step has no `call`"),
        ("name = \"m\"\nsteps = [1]", "2:10 `steps` must be an array of tables, not an integer"),
        ("{", "1:1 invalid key-value pair, expected key"),
        ("\u{0}", "1:2 key with no value, expected `=`"),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let said = mistakes(text).join(" | ");
        if said != expected {
            wrong.push(format!("{text:?}\n   said     {said}\n   expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
