//! `docs/protocol.md` says what the code says: every number, name, limit and dump.

use std::path::Path;

use ipc_protocol::{Codec, FaultCode, Kind, limits};

use crate::golden::path;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    std::fs::read_to_string(path).expect("the document is there")
}

/// The cells of each row of every table.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches(['`', ' ', '|'])).collect()).collect()
}

fn count(rows: &[Vec<&str>], first: &str, second: &str) -> usize {
    rows.iter().filter(|row| row.len() > 1 && row[0] == first && row[1] == second).count()
}

#[test]
fn kinds_and_codes_stand_there_with_their_numbers() {
    let document = document();
    let rows = rows(&document);
    for kind in Kind::ALL {
        assert_eq!(count(&rows, &kind.to_wire().to_string(), &format!("{kind:?}")), 1, "{kind:?}");
    }
    let payloads: Vec<_> =
        rows.iter().filter(|row| row.len() > 3 && row[3] == "yes").map(|row| row[1]).collect();
    let expected: Vec<_> =
        Kind::ALL.iter().filter(|kind| kind.carries_payload()).map(|kind| format!("{kind:?}")).collect();
    assert_eq!(payloads, expected);
    for code in FaultCode::ALL {
        assert_eq!(count(&rows, &code.to_wire().to_string(), &format!("{code:?}")), 1, "{code:?}");
    }
    assert_eq!(Codec::ALL.len(), 3, "a codec was added: name it in the table of the header");
}

#[test]
fn limits_stand_there_with_their_values() {
    let document = document();
    let rows = rows(&document);
    let limits = [
        ("FRAME_BODY_BYTES_MAX", u64::from(limits::FRAME_BODY_BYTES_MAX)),
        ("MESSAGE_BYTES_MAX", limits::MESSAGE_BYTES_MAX),
        ("MESSAGE_BYTES_DEFAULT", limits::MESSAGE_BYTES_DEFAULT),
        ("EARLY_FRAMES_MAX", limits::EARLY_FRAMES_MAX.into()),
        ("EARLY_BYTES_MAX", limits::EARLY_BYTES_MAX),
        ("CONTROL_BYTES_MAX", limits::CONTROL_BYTES_MAX.into()),
        ("FAULT_MESSAGE_BYTES_MAX", limits::FAULT_MESSAGE_BYTES_MAX as u64),
        ("IN_FLIGHT_CALLS_DEFAULT", limits::IN_FLIGHT_CALLS_DEFAULT.into()),
        ("IN_FLIGHT_CALLS_MAX", limits::IN_FLIGHT_CALLS_MAX.into()),
        ("HOST_CALLS_IN_FLIGHT_MAX", limits::HOST_CALLS_IN_FLIGHT_MAX.into()),
        ("CALL_DEPTH_MAX", limits::CALL_DEPTH_MAX.into()),
        ("STREAMS_MAX", limits::STREAMS_MAX.into()),
        ("STREAM_WINDOW_BYTES", limits::STREAM_WINDOW_BYTES),
        ("STREAM_ITEM_BYTES_MAX", limits::STREAM_ITEM_BYTES_MAX),
        ("STATE_BYTES_MAX", limits::STATE_BYTES_MAX),
        ("QUEUED_BYTES_DEFAULT", limits::QUEUED_BYTES_DEFAULT),
        ("PARTIAL_MESSAGES_MAX", limits::PARTIAL_MESSAGES_MAX as u64),
        ("FRAME_DESCRIPTORS_MAX", limits::FRAME_DESCRIPTORS_MAX.into()),
        ("METHODS_MAX", limits::METHODS_MAX as u64),
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX as u64),
        ("FEATURES_MAX", limits::FEATURES_MAX as u64),
        ("DESCRIPTION_BYTES_MAX", limits::DESCRIPTION_BYTES_MAX),
        ("WELCOME_TIMEOUT_MS", limits::WELCOME_TIMEOUT_MS.into()),
        ("READY_TIMEOUT_MS", limits::READY_TIMEOUT_MS.into()),
        ("HEARTBEAT_INTERVAL_MS", limits::HEARTBEAT_INTERVAL_MS.into()),
        ("NESTING_MAX", limits::NESTING_MAX as u64),
    ];
    for (name, value) in limits {
        assert_eq!(count(&rows, name, &value.to_string()), 1, "{name} is {value}");
    }
    let source = include_str!("../../src/limits.rs");
    assert_eq!(source.matches("pub const").count(), limits.len(), "a limit is missing here");
}

#[test]
fn every_dump_is_its_golden_file_and_every_file_is_shown() {
    let document = document();
    let mut shown = 0;
    for block in document.split("```text\n").skip(1) {
        let mut lines = block.lines().take_while(|line| *line != "```");
        let Some((name, _)) = lines.next().and_then(|title| title.split_once(".bin, ")) else { continue };
        // An offset, two spaces, sixteen bytes with a space between, two spaces, the characters.
        let bytes: Vec<u8> = lines
            .flat_map(|line| line[6..line.len().min(6 + 47)].split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).expect("a dump is hexadecimal"))
            .collect();
        assert_eq!(bytes, std::fs::read(path(name)).expect("the file is there"), "{name}");
        shown += 1;
    }
    let files =
        std::fs::read_dir(path("x").parent().expect("files lie in a folder")).expect("the folder is there");
    assert_eq!(shown, files.count());
}
