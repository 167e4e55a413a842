//! What moving the bytes costs, and nothing else: copied twice in this process, from warm memory into warm memory.
//!
//! Twice, because that is the least that a message between processes needs whose reader must not trust its writer: into
//! the memory of both, and out of it.

use std::hint::black_box;

use super::Call;

/// Three buffers, all touched.
#[derive(Debug)]
pub(super) struct TwoCopies {
    from: Vec<u8>,
    between: Vec<u8>,
    to: Vec<u8>,
}

impl TwoCopies {
    pub(super) fn of(bytes: usize) -> Self {
        Self { from: vec![7; bytes], between: vec![1; bytes], to: vec![2; bytes] }
    }
}

impl Call for TwoCopies {
    fn call(&mut self) -> anyhow::Result<()> {
        black_box(&mut self.between).copy_from_slice(black_box(&self.from));
        black_box(&mut self.to).copy_from_slice(black_box(&self.between));
        black_box(&self.to);
        Ok(())
    }
}
