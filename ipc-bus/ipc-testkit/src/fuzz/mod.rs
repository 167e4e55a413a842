//! What is done with hostile bytes: one function for each target, which panics on a finding.
//!
//! `fuzz/` calls these with inputs that a fuzzer makes up, and the ordinary tests with those that were worth
//! keeping ([`replay`]). Each holds the real thing against something slower and more obvious. An input is a script:
//! its first bytes choose limits and how things are cut, so that one more byte is one more step, and small inputs
//! make large messages. Nothing here may know the SDK: what serves is fuzzed in its own crate.

mod input;

pub mod framing;
mod slow_frames;

pub mod message_pack;

pub mod handshake;

pub mod asking;

pub mod calling;
mod calling_model;

pub use asking::asking;
pub use calling::calling;
pub use framing::framing;
pub use handshake::handshake;
pub use message_pack::message_pack;

use std::path::Path;

/// Runs `target` on each file below `fuzz/corpus/NAME`; returns how many there were.
///
/// # Panics
///
/// When the folder cannot be read, and on a finding. The file that was read last is named before.
pub fn replay(name: &str, target: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("each target has a folder in the corpus")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    for path in &paths {
        let data = std::fs::read(path).expect("a file of the corpus can be read");
        let on_panic = NamesFile(path);
        target(&data);
        std::mem::forget(on_panic);
    }
    paths.len()
}

/// Names the file of a finding.
struct NamesFile<'a>(&'a Path);

impl Drop for NamesFile<'_> {
    #[expect(clippy::print_stderr, reason = "a finding without its file is of little use")]
    fn drop(&mut self) {
        eprintln!("with {}", self.0.display());
    }
}
