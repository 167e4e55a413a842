//! Whether what was found without being named may be obeyed: only what nobody but this user and root can have
//! put there, or can change.
//!
//! Extensions and configurations that are looked for from the current folder upward are run and obeyed with
//! this user's rights, and a folder above may be everybody's (`/tmp`, a shared project). This file must not
//! know what is looked for. LIMIT: a group that may write is taken for this user's own, as many systems make
//! one for each user; names in access control lists are not read.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Everybody may write.
const WRITE_OF_OTHERS: u32 = 0o002;
/// In a folder: only the owner of an entry may take it away or put another in its place.
const STICKY: u32 = 0o1000;

/// Something that was found and is left alone, because others than this user and root could have put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distrusted {
    /// What was found.
    pub found: PathBuf,
    /// Why it is not obeyed, in a clause.
    pub why: String,
}

/// Why `found`, its target if it is a link, or the folder that it lies in is not to be trusted. What is not
/// there is nobody's.
#[must_use]
pub fn distrust(found: &Path) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    let entry = fs::symlink_metadata(found).ok()?;
    let is_link = entry.is_symlink();
    let target = is_link.then(|| fs::metadata(found).ok()).flatten();
    let folder = found.parent().and_then(|folder| Some((folder, fs::metadata(folder).ok()?)));
    let whose =
        |metadata: &Metadata| foreign(metadata.uid(), user).map(|owner| format!("it belongs to {owner}"));
    // Everybody may do anything to a link's own mode: it says nothing.
    let mode = |metadata: &Metadata| {
        (metadata.mode() & WRITE_OF_OTHERS != 0).then(|| "everybody may write to it".to_owned())
    };
    let in_folder = || {
        let (folder, metadata) = folder.as_ref()?;
        let is_open = metadata.mode() & (WRITE_OF_OTHERS | STICKY) == WRITE_OF_OTHERS;
        is_open.then(|| format!("everybody may replace it in {}", folder.display()))
    };
    whose(&entry)
        .or_else(|| target.as_ref().and_then(whose))
        .or_else(|| if is_link { target.as_ref().and_then(mode) } else { mode(&entry) })
        .or_else(in_folder)
}

/// The owner as people are told of it, unless it is this user or root.
fn foreign(owner: u32, user: u32) -> Option<String> {
    (owner != 0 && owner != user).then(|| format!("another user ({owner})"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_everybody_may_write_or_replace_is_not_trusted() {
        let place = tempfile::tempdir().unwrap();
        let (folder, file) = (place.path().join("folder"), place.path().join("folder/file"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        let link = place.path().join("link");
        symlink(&file, &link).unwrap();
        for (mode_of_folder, mode, is_trusted) in [
            (0o755, 0o644, true),
            (0o775, 0o664, true),
            (0o755, 0o646, false),
            (0o777, 0o644, false),
            (0o1777, 0o644, true),
            (0o1777, 0o666, false),
        ] {
            set_mode(&folder, mode_of_folder);
            set_mode(&file, mode);
            let found = distrust(&file);
            assert_eq!(found.is_none(), is_trusted, "{mode_of_folder:o} {mode:o}: {found:?}");
            if mode_of_folder == 0o755 {
                assert_eq!(distrust(&link).is_none(), is_trusted, "{mode:o} behind a link");
            }
        }
        assert_eq!(distrust(&place.path().join("nothing")), None);
    }

    #[test]
    fn only_this_users_and_roots_own_is_trusted() {
        assert_eq!(foreign(0, 1000), None);
        assert_eq!(foreign(1000, 1000), None);
        assert_eq!(foreign(1001, 1000).as_deref(), Some("another user (1001)"));
        assert_eq!(foreign(65534, 0).as_deref(), Some("another user (65534)"));
    }
}
