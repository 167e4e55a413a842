//! Which file system a path is in: `/proc/self/mountinfo`, read.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The folder of the file system that is mounted.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// Its type: `ext4`, `tmpfs`.
    pub(super) kind: String,
    /// The options of the file system itself.
    pub(super) options: String,
}

/// Everything that is mounted, in the order in which it was.
pub(super) fn mounts() -> Vec<Mount> {
    parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        Some(Mount {
            root: unescaped(place.next()?),
            point: unescaped(place.next()?),
            kind: kind.next()?.to_owned(),
            options: kind.nth(1).unwrap_or_default().to_owned(),
        })
    };
    text.lines().filter_map(mount).collect()
}

/// The mount that `path` is in; the last one of those at the same place lies on top.
pub(super) fn mount_of<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    around.max_by_key(|mount| mount.point.components().count())
}

/// Spaces and the like are written as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_in_the_innermost_mount_and_of_those_in_the_last() {
        let text = "\
1 0 8:1 / / rw - ext4 /dev/a rw
2 1 0:2 / /home/a\\040b rw shared:1 - nfs4 host:/x rw,vers=4
3 1 0:3 / /tmp rw - tmpfs tmpfs rw
4 3 0:4 / /tmp rw - xfs /dev/b rw
nonsense
";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 4);
        for (path, kind) in [("/home/a b/c", "nfs4"), ("/home/a", "ext4"), ("/tmp/x", "xfs"), ("/", "ext4")] {
            assert_eq!(
                mount_of(&mounts, Path::new(path)).map(|mount| mount.kind.as_str()),
                Some(kind),
                "{path}"
            );
        }
        assert_eq!(mounts[1].options, "rw,vers=4");
    }
}
