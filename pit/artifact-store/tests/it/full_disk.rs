//! A disk that is really full: a small file system mounted where only a child sees it, and a limit on file sizes.

use std::path::Path;
use std::process::Command;

use crate::support::{CHILD_ARGUMENTS, assert_all_checked, in_role, report};

/// Runs a role in a folder on which a small tmpfs is mounted, or says by name that this machine cannot.
fn on_a_small_disk(test: &str, role: &str, mount_options: &str) {
    let folder = tempfile::tempdir().unwrap();
    // As root a mount namespace is enough; others need a user namespace in which they are root.
    let flags: &[&str] =
        if rustix::process::geteuid().is_root() { &["--mount"] } else { &["--mount", "--map-root-user"] };
    let mount = format!("mount -t tmpfs -o {mount_options} none \"$0\"");
    let mut probe = Command::new("unshare");
    probe.args(flags).args(["sh", "-c", &mount]).arg(folder.path());
    match probe.output() {
        Ok(output) if output.status.success() => {}
        reason => {
            report(&format!("skipped: {test}: a tmpfs cannot be mounted here: {reason:?}"));
            return;
        }
    }
    let script = format!("{mount} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", &script]).arg(folder.path());
    run(command, role, folder.path());
}

fn run(mut command: Command, role: &str, folder: &Path) {
    command.arg(std::env::current_exe().unwrap()).args(CHILD_ARGUMENTS);
    assert_all_checked(&in_role(&mut command, role, folder).output().unwrap());
}

#[test]
fn a_full_disk_refuses_and_the_store_goes_on_when_there_is_room() {
    let test = "a_full_disk_refuses_and_the_store_goes_on_when_there_is_room";
    on_a_small_disk(test, "fill the disk", "size=1m");
}

#[test]
fn a_disk_without_inodes_refuses_and_says_so() {
    on_a_small_disk("a_disk_without_inodes_refuses_and_says_so", "use up the inodes", "size=1m,nr_inodes=60");
}

#[test]
fn a_file_size_limit_refuses_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    // The signal that comes with the refusal would end the process; 128 blocks of 512 bytes, or of 1024 in some shells.
    command.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$@\"", "sh"]);
    run(command, "meet the file size limit", folder.path());
}
