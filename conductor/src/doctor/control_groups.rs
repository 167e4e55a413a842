//! Control groups: which kind this system has, and whether groups of one's own can be made.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::Check;
use super::mounts::{Mount, mounts};

const NAME: &str = "control groups";
/// What limits of extensions would need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn check() -> Check {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    judge(&mounts(), &own, |folder| {
        let is_writable = rustix::fs::access(folder, Access::WRITE_OK).is_ok();
        let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        (is_writable, controllers)
    })
}

/// `look` says of the folder of a group whether it can be written to, and which controllers it has.
fn judge(mounts: &[Mount], own: &str, look: impl Fn(&Path) -> (bool, String)) -> Check {
    const FOLLOWS: &str = "limits of extensions are held by looking every 100 ms: what is shorter passes, and the processor is not held";
    let unified = mounts.iter().find(|mount| mount.kind == "cgroup2");
    if let Some(mount) = unified {
        let (is_writable, controllers) = look(&folder(mount, own, ""));
        let there: Vec<&str> = CONTROLLERS
            .into_iter()
            .filter(|name| controllers.split(' ').any(|word| word.trim() == *name))
            .collect();
        if there.len() == CONTROLLERS.len() || !mounts.iter().any(|mount| mount.kind == "cgroup") {
            let found = format!("version 2, with {}", listed(&there));
            return match (there.len() == CONTROLLERS.len(), is_writable) {
                (true, true) => Check::works(NAME, found),
                (_, false) => Check::limited(NAME, format!("{found}; not writable by you"), FOLLOWS),
                (false, true) => Check::limited(NAME, found, FOLLOWS),
            };
        }
    }
    let mut there = Vec::new();
    let mut is_writable = true;
    for mount in mounts.iter().filter(|mount| mount.kind == "cgroup") {
        for name in CONTROLLERS {
            if mount.options.split(',').any(|option| option == name) && !there.contains(&name) {
                there.push(name);
                is_writable &= look(&folder(mount, own, name)).0;
            }
        }
    }
    there.sort_unstable();
    match (there.is_empty(), is_writable) {
        (true, _) => Check::missing(NAME, "none", FOLLOWS),
        (false, true) => Check::works(NAME, format!("version 1, with {}", listed(&there))),
        (false, false) => {
            Check::limited(NAME, format!("version 1, with {}; not writable by you", listed(&there)), FOLLOWS)
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "no controllers".to_owned() } else { names.join(", ") }
}

/// The folder of this process's own group: `4:memory:/path` of `/proc/self/cgroup`, below the mount.
fn folder(mount: &Mount, own: &str, controller: &str) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let path = Path::new(path.unwrap_or("/"));
    // In a container the mount begins further down.
    let inside = path.strip_prefix(&mount.root).or_else(|_| path.strip_prefix("/")).unwrap_or(Path::new(""));
    mount.point.join(inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn mount(point: &str, kind: &str, options: &str) -> Mount {
        Mount { root: "/".into(), point: point.into(), kind: kind.to_owned(), options: options.to_owned() }
    }

    #[test]
    fn both_kinds_their_mixture_and_none_are_told_apart() {
        let two = mount("/cg", "cgroup2", "rw");
        let one = [mount("/cg/memory", "cgroup", "rw,memory"), mount("/cg/pids", "cgroup", "rw,pids")];
        let own = "4:memory:/mine\n8:pids:/\n0::/user/me\n";
        let all = |folder: &Path| {
            assert_eq!(folder, Path::new("/cg/user/me"));
            (true, "cpu io memory pids\n".to_owned())
        };
        let found = judge(std::slice::from_ref(&two), own, all);
        assert_eq!((found.state, found.found.as_str()), (State::Works, "version 2, with cpu, memory, pids"));
        let found = judge(std::slice::from_ref(&two), own, |_| (false, "cpu memory pids".to_owned()));
        assert_eq!(found.state, State::Limited);

        let mixed = [&one[..], &[two]].concat();
        let found = judge(&mixed, own, |folder| (folder != Path::new("/cg/memory/mine"), String::new()));
        assert_eq!(found.found, "version 1, with memory, pids; not writable by you");
        let found = judge(&one, own, |_| (true, String::new()));
        assert_eq!((found.state, found.found.as_str()), (State::Works, "version 1, with memory, pids"));
        assert_eq!(judge(&[mount("/", "ext4", "rw")], own, |_| (true, String::new())).state, State::Missing);
    }
}
