//! A step's output as an artifact: durable and named before anyone sees it.

use std::io::{self, Write};

use artifact_store::{ArtifactWriter, DiskError, Expected, NameError, PutError, Store};

use crate::document::OutputReport;
use crate::melody::StepOutput;

/// An output could not be stored. Nothing is visible of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not take the bytes.
    #[error("the artifact was not stored")]
    Put(#[from] PutError),
    /// The store did not take the name.
    #[error("the artifact was stored without its name")]
    Name(#[from] NameError),
    /// The value cannot be written in the form of an artifact.
    #[error("the value cannot be written as an artifact")]
    Write(#[source] io::Error),
    /// The task that stored it ended.
    #[error("storing was interrupted")]
    Interrupted,
}

impl StoreError {
    /// What the disk has refused, if it was the disk.
    #[must_use]
    pub const fn disk(&self) -> Option<&DiskError> {
        match self {
            Self::Put(PutError::Disk(error)) | Self::Name(NameError::Disk(error)) => Some(error),
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        let text = match (self, self.disk()) {
            (_, Some(DiskError::Full { .. })) => {
                "free some space, or name another data folder with --data DIR, and run again"
            }
            (_, Some(DiskError::Poisoned { .. })) => "check the disk, then run again",
            (Self::Write(_), _) => "change what the step gives",
            _ => "correct what the message names and run again",
        };
        text.to_owned()
    }
}

/// Stores `output` durably and names it: text and bytes as they are, other values as JSON. Blocks.
///
/// # Errors
///
/// [`StoreError`]: nothing is visible of the output, except that after [`StoreError::Name`] its bytes are
/// in the store without a name.
pub fn store_output(store: &Store, name: &str, output: &StepOutput) -> Result<OutputReport, StoreError> {
    let mut bytes = io::BufWriter::with_capacity(
        WRITE_BUFFER_BYTES,
        Appending { writer: store.writer()?, failure: None },
    );
    let written = output.write_artifact(&mut bytes).and_then(|()| bytes.flush());
    let (appending, _) = bytes.into_parts();
    if let Some(failure) = appending.failure {
        return Err(failure.into());
    }
    written.map_err(StoreError::Write)?;
    let stored = appending.writer.commit()?;
    store.set_name(name, &stored.digest, Expected::Absent)?;
    Ok(OutputReport {
        digest: stored.digest.to_string(),
        bytes: stored.bytes,
        path: store.path_of(&stored.digest),
    })
}

/// Pieces of this size are hashed at full speed.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// An artifact as something to write to, which keeps the store's own error.
struct Appending {
    writer: ArtifactWriter,
    failure: Option<PutError>,
}

impl Write for Appending {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self.writer.append(piece) {
            Ok(()) => Ok(piece.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("the store refused the bytes"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
