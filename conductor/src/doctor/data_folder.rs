//! The data folder: whether it can be written to, where it lies, and how much room there is.

use std::path::Path;

use rustix::fs::{Access, CWD, Mode, OFlags};

use super::Check;
use super::mounts::{mount_of, mounts};
use crate::progress::human_bytes;

/// Less room than this is worth a word.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// File systems whose locks and syncs are another machine's matter.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "afs"];

pub(super) fn checks(data_dir: &Path) -> Vec<Check> {
    // What is not there yet is made in the nearest folder that is.
    let there = data_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let is_made = there == data_dir;
    let name = data_dir.display();
    let found = if is_made { format!("{name}") } else { format!("{name}, not made yet") };
    let writable = rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK);
    let is_file = data_dir.exists() && !data_dir.is_dir();
    let folder = match writable {
        _ if is_file => {
            Check::missing("data folder", format!("{name} is no folder"), "name another one with --data DIR")
        }
        Ok(()) => Check::works("data folder", found),
        Err(error) => {
            let found = format!("{found}: {} cannot be written to ({error})", there.display());
            Check::missing("data folder", found, "nothing can be stored: name another one with --data DIR")
        }
    };
    vec![folder.needed(), file_system(there), room(there), nameless(there)]
}

fn file_system(folder: &Path) -> Check {
    let (mounts, folder) = (mounts(), std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf()));
    let kind = mount_of(&mounts, &folder).map_or("unknown", |mount| mount.kind.as_str());
    match kind {
        remote if REMOTE.contains(&remote) => Check::limited(
            "file system",
            remote,
            "whether what is stored survives a loss of power is the server's matter",
        ),
        "tmpfs" | "ramfs" => {
            Check::limited("file system", kind, "what is stored is memory, and gone after a restart")
        }
        kind => Check::works("file system", kind),
    }
}

fn room(folder: &Path) -> Check {
    match rustix::fs::statvfs(folder) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            // Some file systems do not count files and say 0 of 0.
            let no_files = space.f_files > 0 && space.f_favail == 0;
            let found = format!("{} free", human_bytes(free));
            match free {
                0 => Check::missing("disk space", found, "nothing can be stored").needed(),
                _ if no_files => {
                    Check::missing("disk space", "no further file", "nothing can be stored").needed()
                }
                free if free < FREE_BYTES_MIN => {
                    Check::limited("disk space", found, "large artifacts will not fit")
                }
                _ => Check::works("disk space", found),
            }
        }
        Err(error) => Check::limited("disk space", format!("unknown: {error}"), ""),
    }
}

fn nameless(folder: &Path) -> Check {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let made = rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR);
    match made {
        Ok(_) => Check::works("O_TMPFILE", "tried in the data folder"),
        Err(error) => Check::limited(
            "O_TMPFILE",
            error.to_string(),
            "a conductor that is killed while it stores leaves a file, which the next one removes",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_where_it_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let checks = checks(&folder.path().join("a/b"));
        assert_eq!((checks[0].state, checks[0].needed), (State::Works, true), "{checks:?}");
        assert!(checks[0].found.ends_with("not made yet"), "{checks:?}");
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing was made");
    }

    #[test]
    fn a_file_in_its_place_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(checks(file.path())[0].state, State::Missing);
    }
}
