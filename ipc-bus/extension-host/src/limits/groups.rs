//! Control groups, of either version: where they are, one for each instance, what they say, and their end.
//!
//! ```text
//! MOUNT/OWN/symphony-PID-START-N/NAME      in each hierarchy: one in version 2, one for each controller in version 1
//! ```
//!
//! PID and START say whose it is: what is left of a process that is gone is swept up by the next host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::manifest::Limits;

const PREFIX: &str = "symphony-";

/// The length of a turn of the processor, of which a group may use a share.
const CPU_PERIOD_US: u64 = 100_000;

/// The launcher, which is in the group and none of the extension's.
const LAUNCHER_TASKS: u64 = 1;

/// LIMIT: how long to wait until a group is empty, at its end.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks whether it is.
const EMPTY_PAUSE: Duration = Duration::from_millis(1);

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// A hierarchy that groups can be made in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// `memory`, `cpu`, `pids`; all of them in version 2.
    controllers: Vec<&'static str>,
    /// This process's own group.
    own: PathBuf,
}

/// Where the groups of one host are.
#[derive(Debug)]
pub(crate) struct Groups {
    version: u8,
    hierarchies: Vec<Hierarchy>,
    /// The folder of this host below each.
    name: String,
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: String,
    kind: &'a str,
    options: &'a str,
}

fn mount(line: &str) -> Option<Mount<'_>> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    Some(Mount { root, point: point.replace("\\040", " "), kind, options })
}

/// The own group of `controller` (of version 2: none), below where its hierarchy is mounted.
fn own_group(mount: &Mount<'_>, own: &str, controller: &str) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let path = Path::new(path.unwrap_or("/"));
    // In a container the mount begins further down.
    let inside = path.strip_prefix(mount.root).or_else(|_| path.strip_prefix("/")).unwrap_or(Path::new(""));
    Path::new(&mount.point).join(inside)
}

/// Where groups could be made, by version: pure. Version 2 where it has all controllers, else version 1.
fn find(mounts: &str, own: &str, controllers_of: impl Fn(&Path) -> String) -> Option<(u8, Vec<Hierarchy>)> {
    let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(mount).collect();
    if let Some(unified) = mounts.iter().find(|mount| mount.kind == "cgroup2") {
        let group = own_group(unified, own, "");
        let there = controllers_of(&group);
        if CONTROLLERS.iter().all(|name| there.split_ascii_whitespace().any(|other| other == *name)) {
            return Some((2, vec![Hierarchy { controllers: CONTROLLERS.to_vec(), own: group }]));
        }
    }
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.kind == "cgroup") {
        let has = |name: &&&str| mount.options.split(',').any(|option| option == **name);
        let controllers: Vec<&str> = CONTROLLERS.iter().filter(has).copied().collect();
        let Some(first) = controllers.first() else { continue };
        // The same hierarchy may be mounted twice.
        if hierarchies.iter().all(|other| !other.controllers.contains(first)) {
            hierarchies.push(Hierarchy { own: own_group(mount, own, first), controllers });
        }
    }
    let count: usize = hierarchies.iter().map(|hierarchy| hierarchy.controllers.len()).sum();
    (count == CONTROLLERS.len()).then_some((1, hierarchies))
}

impl Groups {
    /// Those of this machine, tried.
    ///
    /// # Errors
    ///
    /// Why there are none to be had, as a clause for people.
    pub(crate) fn probe() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let controllers_of =
            |group: &Path| fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
        let (version, hierarchies) = find(&mounts, &own, controllers_of)
            .ok_or("there are no control groups with memory, cpu and pids")?;
        let groups = Self { version, hierarchies, name: own_name() };
        groups.sweep();
        groups.try_one().map_err(|error| {
            format!("control groups, version {version}, are there and cannot be used by this user: {error}")
        })?;
        Ok(groups)
    }

    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    /// Makes the folder of this host in each hierarchy, and a group in it.
    fn try_one(&self) -> Result<(), String> {
        for Hierarchy { own, .. } in &self.hierarchies {
            let folder = own.join(&self.name);
            let made = fs::create_dir(&folder).and_then(|()| {
                if self.version == 2 {
                    let all: String = CONTROLLERS.iter().map(|name| format!("+{name} ")).collect();
                    // Most often somebody has done so; if not, it works in a group without processes alone.
                    let of_own = own.join("cgroup.subtree_control");
                    let there = fs::read_to_string(&of_own).unwrap_or_default();
                    if !CONTROLLERS.iter().all(|name| there.contains(name)) {
                        fs::write(&of_own, &all)?;
                    }
                    fs::write(folder.join("cgroup.subtree_control"), &all)?;
                }
                Ok(())
            });
            made.map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let nothing = Limits { processes_max: Some(1), ..Limits::default() };
        self.make("try", &nothing).map(drop)
    }

    /// Makes the group of one instance.
    pub(crate) fn make(&self, name: &str, limits: &Limits) -> Result<Group, String> {
        let mut group = Group { version: self.version, folders: Vec::new() };
        for Hierarchy { controllers, own } in &self.hierarchies {
            let folder = own.join(&self.name).join(name);
            let failed = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
            fs::create_dir(&folder).map_err(|error| failed(&folder, &error))?;
            group.folders.push((controllers.clone(), folder.clone()));
            for (file, value, is_needed) in settings(self.version, controllers, limits) {
                let path = folder.join(file);
                match fs::write(&path, value) {
                    Err(error) if is_needed => return Err(failed(&path, &error)),
                    _ => {}
                }
            }
        }
        Ok(group)
    }

    /// Removes what hosts left that are gone, and whoever is in it.
    fn sweep(&self) {
        for Hierarchy { own, .. } in &self.hierarchies {
            let Ok(entries) = fs::read_dir(own) else { continue };
            for folder in entries.flatten().map(|entry| entry.path()) {
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if owner(name).is_some_and(|(pid, start)| start_of(pid) != Some(start)) {
                    let groups = fs::read_dir(&folder).into_iter().flatten().flatten();
                    for group in groups.map(|entry| entry.path()).filter(|path| path.is_dir()) {
                        empty(&group);
                    }
                    let _ = fs::remove_dir(&folder);
                }
            }
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for Hierarchy { own, .. } in &self.hierarchies {
            // If instances are left in it, whoever comes next sweeps.
            let _ = fs::remove_dir(own.join(&self.name));
        }
    }
}

/// What is written into a new group: file, value, and whether it must work.
fn settings(version: u8, controllers: &[&str], limits: &Limits) -> Vec<(&'static str, String, bool)> {
    let mut settings = Vec::new();
    let has = |name| controllers.contains(&name);
    let is_one = version == 1;
    if let Some(bytes) = limits.memory_bytes_max.filter(|_| has("memory")) {
        settings.push((if is_one { "memory.limit_in_bytes" } else { "memory.max" }, bytes.to_string(), true));
        // Without swap accounting there is no such file, and no swap that would be counted.
        if is_one {
            settings.push(("memory.memsw.limit_in_bytes", bytes.to_string(), false));
        } else {
            settings.push(("memory.swap.max", "0".to_owned(), false));
            settings.push(("memory.oom.group", "0".to_owned(), false));
        }
    }
    if let Some(percent) = limits.cpu_percent_max.filter(|_| has("cpu")) {
        let quota = CPU_PERIOD_US * u64::from(percent) / 100;
        if is_one {
            settings.push(("cpu.cfs_period_us", CPU_PERIOD_US.to_string(), true));
            settings.push(("cpu.cfs_quota_us", quota.to_string(), true));
        } else {
            settings.push(("cpu.max", format!("{quota} {CPU_PERIOD_US}"), true));
        }
    }
    if let Some(count) = limits.processes_max.filter(|_| has("pids")) {
        settings.push(("pids.max", (u64::from(count) + LAUNCHER_TASKS).to_string(), true));
    }
    settings
}

/// The group of one instance. Dropping it kills whoever is left, and removes it.
#[derive(Debug)]
pub(crate) struct Group {
    version: u8,
    /// With the controllers that each has.
    folders: Vec<(Vec<&'static str>, PathBuf)>,
}

/// What the kernel counts of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupEvents {
    /// Processes that were killed for want of memory.
    pub(crate) memory_kills: u64,
    /// Processes and threads that were refused.
    pub(crate) refused_tasks: u64,
    /// Turns in which it was slowed down.
    pub(crate) throttled: u64,
}

impl Group {
    pub(crate) fn joins(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|(_, folder)| folder.join("cgroup.procs")).collect()
    }

    /// What `name` says in a file of the controller `of`; in a file of one number, with an empty name.
    fn number(&self, of: &str, file: &str, name: &str) -> Option<u64> {
        let (_, folder) = self.folders.iter().find(|(controllers, _)| controllers.contains(&of))?;
        let text = fs::read_to_string(folder.join(file)).ok()?;
        let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(words).find_map(|words| match words.as_slice() {
            [number] if name.is_empty() => number.parse().ok(),
            [key, number] if key == name => number.parse().ok(),
            _ => None,
        })
    }

    pub(crate) fn events(&self) -> GroupEvents {
        let of_memory = if self.version == 1 { "memory.oom_control" } else { "memory.events" };
        GroupEvents {
            memory_kills: self.number("memory", of_memory, "oom_kill").unwrap_or(0),
            refused_tasks: self.number("pids", "pids.events", "max").unwrap_or(0),
            throttled: self.number("cpu", "cpu.stat", "nr_throttled").unwrap_or(0),
        }
    }

    /// Bytes of memory, now and at most so far.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        let (now, most) = match self.version {
            1 => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
            _ => ("memory.current", "memory.peak"),
        };
        let now = self.number("memory", now, "")?;
        Some((now, self.number("memory", most, "").unwrap_or(now)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (_, folder) in &self.folders {
            empty(folder);
        }
    }
}

/// Kills whoever is in a group until nobody is, and removes it.
fn empty(folder: &Path) {
    let give_up = Instant::now() + EMPTY_WITHIN;
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) if Instant::now() >= give_up => {
                tracing::warn!("the control group {} cannot be removed", folder.display());
                return;
            }
            Err(_) => {}
        }
        // Of version 2, all at once: nobody forks faster.
        if fs::write(folder.join("cgroup.kill"), "1").is_err() {
            let there = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            let pids = there.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw);
            for pid in pids {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        thread::sleep(EMPTY_PAUSE);
    }
}

/// `symphony-PID-START-N`: another one for each host of this process.
fn own_name() -> String {
    static HOSTS: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let start = start_of(pid).unwrap_or(0);
    // ORDERING(hosts): Relaxed, a number that guards no other data.
    let host = HOSTS.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{pid}-{start}-{host}")
}

/// Whose a folder is.
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let owner = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some(owner)
}

/// When a process started, in the kernel's own unit: field 22 of its `stat`, counted from behind its name.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_has_everything_is_found_below_ones_own_group() {
        let unified = "30 20 0:27 / /cg rw - cgroup2 cgroup2 rw\n";
        let one = "31 20 0:28 / /cg/memory rw - cgroup cgroup rw,memory\n\
                   32 20 0:29 / /cg/pids rw - cgroup cgroup rw,pids\n\
                   33 20 0:30 /docker/1 /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let own = "4:memory:/mine\n8:pids:/\n2:cpu,cpuacct:/docker/1/x\n0::/user/me\n";
        let all = |_: &Path| "cpu io memory pids".to_owned();
        let (version, found) = find(unified, own, all).expect("it has all");
        assert_eq!((version, found[0].own.as_path()), (2, Path::new("/cg/user/me")));
        let mixed = format!("{unified}{one}");
        let (version, found) = find(&mixed, own, |_| "hugetlb".to_owned()).expect("the other has all");
        let own_groups: Vec<_> =
            found.iter().map(|hierarchy| hierarchy.own.to_str().expect("text")).collect();
        assert_eq!((version, own_groups), (1, vec!["/cg/memory/mine", "/cg/pids/", "/cg/cpu/x"]));
        assert!(find(unified, own, |_| String::new()).is_none());
        assert!(find(&one.replace("pids", "misc"), own, all).is_none(), "one is missing");
        assert!(find("", "", all).is_none());
    }

    #[test]
    fn settings_are_those_of_the_version() {
        let limits = Limits {
            memory_bytes_max: Some(4096),
            cpu_percent_max: Some(150),
            processes_max: Some(7),
            ..Limits::default()
        };
        let needed = |version| {
            let all = settings(version, &CONTROLLERS, &limits).into_iter();
            all.filter(|(.., is_needed)| *is_needed).map(|(file, value, _)| (file, value)).collect::<Vec<_>>()
        };
        let text = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(file, value)| (*file, (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(
            needed(1),
            text(&[
                ("memory.limit_in_bytes", "4096"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "150000"),
                ("pids.max", "8"),
            ])
        );
        assert_eq!(
            needed(2),
            text(&[("memory.max", "4096"), ("cpu.max", "150000 100000"), ("pids.max", "8")])
        );
        assert!(settings(1, &CONTROLLERS, &Limits::default()).is_empty());
    }

    #[test]
    fn a_folder_tells_whose_it_is() {
        let pid = std::process::id();
        assert_eq!(owner(&own_name()), Some((pid, start_of(pid).expect("it runs"))));
        for other in ["symphony-", "symphony-1-2", "symphony-1-2-3-4", "symphony-a-2-3", "system.slice"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
