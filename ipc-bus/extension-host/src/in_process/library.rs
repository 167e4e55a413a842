//! Loading a library: privately, under a name of its own, for ever.
//!
//! - **A private copy.** The file is copied into sealed memory that has no name, and that is what is loaded. Nobody
//!   can change the code under a running host, and the same file can be loaded again when it is another one:
//!   the dynamic linker takes equal names and equal files for the same library.
//! - **`RTLD_NOW | RTLD_LOCAL`.** What cannot be linked fails here and not in the middle of a call, and no symbol of
//!   one library is seen by another.
//! - **Never unloaded.** Threads, thread-local destructors and statics of a Rust library outlive every handle to it;
//!   unloading would leave them without code. What a library costs is paid once for each version that is loaded.

#![expect(unsafe_code, reason = "loading a library runs its code, and its table comes as a pointer")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use extension_abi::{SYMBOL, Table};
use ipc_protocol::describe::Description;
use libloading::os::unix::{self, RTLD_LOCAL, RTLD_NOW};
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};

use super::Seat;
use super::table::{self, Checked, TableError};

/// LIMIT: bytes of a library's file.
const LIBRARY_BYTES_MAX: u64 = 1 << 30;

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It cannot be read, or not be copied.
    #[error("the library {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The dynamic linker refuses it.
    #[error("the library {path} cannot be loaded")]
    Load {
        /// The file.
        path: PathBuf,
        /// Why, in the linker's words.
        #[source]
        source: libloading::Error,
    },
    /// It exports no table.
    #[error(
        "the library {path} exports no `{}`: is it made with extension_sdk's export!, as a cdylib?",
        SYMBOL.to_string_lossy()
    )]
    NoTable {
        /// The file.
        path: PathBuf,
    },
    /// Its table cannot be used.
    #[error("the library {path} cannot be used")]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TableError,
    },
}

/// Where an in-process extension's code is.
#[derive(Clone, Debug)]
pub enum LibrarySource {
    /// In this file, a cdylib. Loaded at the extension's first start.
    File(PathBuf),
    /// In this program.
    Table(&'static Table),
}

/// A library that is in this process, and stays there.
#[derive(Clone, Debug)]
pub struct Library {
    pub(super) table: Checked,
    description: Arc<Description>,
    /// What the host side of its instances is made of, where none uses it: it lives as long as the process.
    pub(super) seats: Arc<Mutex<Vec<Seat>>>,
}

impl Library {
    /// Loads the library in `path`, as the module says. This runs its code: only do it with code that is trusted as
    /// this program itself. Blocks.
    ///
    /// # Errors
    ///
    /// [`LibraryError`]. What was loaded stays loaded even then.
    pub fn load(path: &Path) -> Result<Self, LibraryError> {
        let read = |source| LibraryError::Read { path: path.to_path_buf(), source };
        let copy = copy_of(path).map_err(read)?;
        let name = format!("/proc/self/fd/{}", copy.as_raw_fd());
        // SAFETY: the initialisers of the library run here. That they do nothing wrong is what trusting it means:
        // whoever calls this says so.
        let loaded = unsafe { unix::Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) };
        // INVARIANT: its number names the copy for ever. The linker remembers libraries by name, and would take the
        // next one under the same number for this one.
        let _ = copy.into_raw_fd();
        let loaded = loaded.map_err(|source| LibraryError::Load { path: path.to_path_buf(), source })?;
        // SAFETY: only the address is taken; what is there is looked over by `check`.
        let symbol = unsafe { loaded.get::<*const Table>(SYMBOL.to_bytes_with_nul()) };
        let table = symbol.map(|symbol| symbol.as_raw_ptr().cast_const().cast::<Table>());
        // Never unloaded: see the file.
        std::mem::forget(loaded);
        let table = table.ok().filter(|table| !table.is_null());
        let table = table.ok_or_else(|| LibraryError::NoTable { path: path.to_path_buf() })?;
        // SAFETY: it is what the library exports under this name; the library is never unloaded.
        let checked = unsafe { table::check(table) };
        checked
            .and_then(Self::of_checked)
            .map_err(|source| LibraryError::Table { path: path.to_path_buf(), source })
    }

    /// The library of a table in this program.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn of_table(table: &'static Table) -> Result<Self, TableError> {
        Self::of_checked(Checked::of_static(table)?)
    }

    fn of_checked(table: Checked) -> Result<Self, TableError> {
        let description = Arc::new(table.describe()?);
        if description.extension != table.name() {
            let (found, expected) = (description.extension.clone(), table.name());
            return Err(TableError::Name { found, expected });
        }
        Ok(Self { table, description, seats: Arc::default() })
    }

    /// What the library says of itself: as `--describe` prints it.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The extension's version.
    #[must_use]
    pub fn version(&self) -> String {
        self.table.version()
    }

    /// Whether the library is the extension `name`.
    ///
    /// # Errors
    ///
    /// [`TableError::Name`].
    pub(crate) fn check_name(&self, name: &str) -> Result<(), TableError> {
        if self.description.extension == name {
            return Ok(());
        }
        let (found, expected) = (self.description.extension.clone(), name.to_owned());
        Err(TableError::Name { found, expected })
    }
}

/// A copy of the file in memory, which nobody can write to.
fn copy_of(path: &Path) -> io::Result<OwnedFd> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    if metadata.len() > LIBRARY_BYTES_MAX {
        let text = format!("it has {} bytes, at most {LIBRARY_BYTES_MAX} are allowed", metadata.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let name = path.file_name().unwrap_or_default();
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = File::from(memory);
    io::copy(&mut file, &mut copy)?;
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy.into())
}
