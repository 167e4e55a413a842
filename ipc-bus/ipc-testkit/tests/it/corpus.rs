//! Every input that was worth keeping, once more: see `docs/testing.md`.

use std::io::Write as _;

use ipc_testkit::fuzz;

fn replay(name: &str, target: fn(&[u8])) {
    let files = fuzz::replay(name, target);
    assert!(files > 0, "the corpus of {name} is empty");
    // Past the capture of output: the count is part of the result.
    let _ = writeln!(std::io::stderr(), "corpus of {name}: {files} files replayed");
}

#[test]
fn the_corpus_of_framing_holds() {
    replay("framing", fuzz::framing);
}

#[test]
fn the_corpus_of_message_pack_holds() {
    replay("message_pack", fuzz::message_pack);
}

#[test]
fn the_corpus_of_handshake_holds() {
    replay("handshake", fuzz::handshake);
}

#[test]
fn the_corpus_of_asking_holds() {
    replay("asking", fuzz::asking);
}

#[test]
fn the_corpus_of_calling_holds() {
    replay("calling", fuzz::calling);
}
