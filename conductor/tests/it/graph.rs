//! `melody graph`: text, Mermaid, SVG and JSON of one graph, from the file alone.

use std::fs;

use serde_json::json;

use crate::support::{Place, repository};

#[test]
fn the_main_job_is_drawn_without_building_anything() {
    let place = Place::new();
    let melody = repository().join("melodies/folder-report.toml");
    let melody = melody.to_str().unwrap();
    let ended = place.run(["melody", "graph", melody]).with_code(0);
    assert_eq!(ended.stderr, "");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{}", ended.stdout);
    assert!(
        lines[0].starts_with("o ") && lines[0].contains("list") && lines[0].contains("file-explorer.list")
    );
    assert!(lines[1].starts_with("+--o") && lines[1].contains("for each item"), "{}", ended.stdout);

    let mermaid = place.run(["melody", "graph", melody, "--format", "mermaid"]).with_code(0).stdout;
    assert!(mermaid.contains("flowchart TD") && mermaid.contains("s0 --> s1"), "{mermaid}");
    let document = place.run(["melody", "graph", melody, "--json"]).with_code(0).document();
    assert_eq!(
        (&document["melody"], &document["steps"][1]["for-each"]),
        (&json!("folder-report"), &json!(true))
    );
    assert_eq!(document["edges"][0], json!({ "from": 0, "to": 1, "reads": true }));

    place.run(["melody", "graph", melody, "-f", "svg", "-o", "graph.svg"]).with_code(0);
    let drawn = fs::read_to_string(place.path("graph.svg")).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    // What is there is not written over.
    let told = place.run(["melody", "graph", melody, "-f", "svg", "-o", "graph.svg"]).with_code(1).stderr;
    assert!(told.contains("graph.svg"), "{told}");
    assert_eq!(fs::read_to_string(place.path("graph.svg")).unwrap(), drawn);
}

#[test]
fn mistakes_in_the_file_are_told_as_a_check_tells_them() {
    let place = Place::new();
    place.write(
        "m.toml",
        "name = \"m\"\n[[steps]]\nid = \"a\"\ncall = \"x.y\"\nafter = [\"b\"]\n\
         [[steps]]\nid = \"b\"\ncall = \"x.y\"\nafter = [\"a\"]\n",
    );
    let told = place.run(["melody", "graph", "m.toml"]).with_code(2).stderr;
    assert!(told.contains("m.toml:5:") && told.contains("a -> b -> a"), "{told}");
    let document = place.run(["melody", "graph", "m.toml", "--json"]).with_code(2).document();
    assert_eq!(document["mistakes"][0]["line"], 5, "{document}");
    place.run(["melody", "graph", "m.toml", "--format", "png"]).with_code(2);
}
