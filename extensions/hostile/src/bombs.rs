//! What uses up the machine, if nobody holds it to its limits. Each bomb is bounded by itself, far below what a test machine
//! has, so that a limit that does not hold fails a test and not the machine.
//!
//! | mode           | what it uses up                                                | answers                |
//! |----------------|----------------------------------------------------------------|------------------------|
//! | `bomb-heap`    | 512 MiB of its own memory                                      | the MiB that it got    |
//! | `bomb-shared`  | 512 MiB of memory that no process maps                         | the MiB that it got    |
//! | `bomb-fork`    | 200 processes, which sleep for a minute                        | how many it got        |
//! | `bomb-threads` | 200 threads, which sleep for a minute                          | how many it got        |
//! | `bomb-files`   | 2,000 descriptors                                              | how many it got        |
//! | `bomb-cpu`     | two processors for a minute                                    | 2, and goes on         |

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const MIB_MAX: u64 = 512;
const TASKS_MAX: u64 = 200;
const FILES_MAX: u64 = 2_000;
const LASTS: Duration = Duration::from_secs(60);

pub(crate) fn go_off(mode: &str) -> u64 {
    match mode {
        "bomb-heap" => heap(),
        "bomb-shared" => shared(),
        "bomb-fork" => (0..TASKS_MAX).take_while(|_| forks()).count() as u64,
        "bomb-threads" => {
            let starts =
                || thread::Builder::new().stack_size(64 << 10).spawn(|| thread::sleep(LASTS)).is_ok();
            (0..TASKS_MAX).take_while(|_| starts()).count() as u64
        }
        "bomb-files" => {
            let files: Vec<File> = (0..FILES_MAX).map_while(|_| File::open("/dev/null").ok()).collect();
            files.len() as u64
        }
        _ => {
            for _ in 0..2 {
                thread::spawn(|| {
                    let until = Instant::now() + LASTS;
                    while Instant::now() < until {
                        black_box(0);
                    }
                });
            }
            2
        }
    }
}

fn heap() -> u64 {
    let mut held: Vec<Vec<u8>> = Vec::new();
    for _ in 0..MIB_MAX {
        // Touched, or it would be a promise alone.
        held.push(black_box(vec![1; MIB]));
    }
    black_box(&held).len() as u64
}

/// In a file of memory that has no name any more.
fn shared() -> u64 {
    let path = format!("/dev/shm/hostile-{}", std::process::id());
    let Ok(mut file) = File::create(&path) else { return 0 };
    let _ = std::fs::remove_file(path);
    let chunk = vec![1; MIB];
    (0..MIB_MAX).take_while(|_| file.write_all(&chunk).is_ok()).count() as u64
}

fn forks() -> bool {
    let mut sleeps = Command::new("/bin/sleep");
    sleeps.arg(LASTS.as_secs().to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sleeps.spawn().is_ok()
}
