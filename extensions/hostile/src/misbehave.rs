//! What each mode does when `misbehave` is called.
//!
//! | mode                | what it does                                                                    |
//! |---------------------|---------------------------------------------------------------------------------|
//! | `half-frame`        | sends half of an answer's frame and exits with code 0                           |
//! | `exit-inside-reply` | sends an answer's header and half of its body and exits with code 7             |
//! | `oversize-frame`    | announces a body of 4 GiB                                                       |
//! | `garbage`           | sends bytes that are no frame                                                   |
//! | `garbage-exit`      | the same, and exits with code 0                                                 |
//! | `unasked-reply`     | answers a call that was never made                                              |
//! | `reply-twice`       | answers twice                                                                   |
//! | `ask-zero`          | makes a host call with the id 0                                                 |
//! | `ask-unserved`      | makes one within a call that was never made                                     |
//! | `ask-descriptors`   | makes one that says it brings a descriptor, which it does not                   |
//! | `ask-unknown`       | asks for a method that there is none of, and answers                            |
//! | `ask-gibberish`     | asks for everything with arguments that are nested without end, and answers     |
//! | `ask-late`          | answers, and asks within the call that is over                                  |
//! | `ask-nobody`        | speaks of a descriptor though that was not agreed on, and answers               |
//! | `stale-epoch`       | answers wrongly with another epoch, then rightly                                |
//! | `flood`             | fills stdout, stderr and the channel with logs from then on, and answers        |
//! | `count`             | answers with how often it was called before: in what order calls came           |
//! | `draining-fault`    | refuses the call as one who drains, unasked                                     |
//! | `goodbye`           | says goodbye instead of answering, and lives on                                 |
//! | `goodbye-exit`      | answers, says goodbye and exits with code 0                                     |
//! | `exit-idle`         | answers and exits with code 0                                                   |
//! | `progress`          | says three times how far it is, and answers                                     |
//! | `stall`             | never answers this call                                                         |
//! | `heartbeat`         | sends a heartbeat, and answers                                                  |
//! | `compute`           | sends a heartbeat, computes for a while without a word, and answers             |
//! | `deaf`              | stops reading                                                                   |
//! | `close-channel`     | closes the channel and lives on                                                 |
//! | `crash-abort`, `crash-segv`, `crash-panic`, `crash-exit`, `crash-clean` | ends: by SIGABRT, SIGSEGV, a panic, code 9, code 0 |
//! | `runaways`          | leaves processes behind that got away from their session and parent, answers with their pids |
//! | `bomb-...`          | what `bombs` has                                                                  |
//! | `ignore-stop`       | answers; it ignores SIGTERM, goodbye and the channel's end                      |
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "stderr is its log")]

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio, exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::serve::{Call, answer, record, reply_bytes};
use crate::system;
use crate::wire::{HEADER_BYTES, Hello, Writer, frame, kind, send};
use crate::{MODE_VARIABLE, bombs};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// A method that no host has.
const NO_METHOD: u32 = 99;

/// How long `compute` does.
const COMPUTE_TIME: Duration = Duration::from_millis(2_500);

pub(crate) fn misbehave(mode: &str, channel: &UnixStream, hello: &Hello, call: &Call) -> io::Result<()> {
    let epoch = hello.epoch;
    match mode {
        "half-frame" => {
            send(channel, &reply_bytes(epoch, call)[..HEADER_BYTES / 2])?;
            exit(0);
        }
        "exit-inside-reply" => {
            let bytes = reply_bytes(epoch, call);
            send(channel, &bytes[..HEADER_BYTES + call.arguments.len() / 2])?;
            exit(7);
        }
        "oversize-frame" => {
            let mut bytes = reply_bytes(epoch, call);
            bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            send(channel, &bytes)
        }
        "garbage" => send(channel, &[0xa5; 4096]),
        "garbage-exit" => {
            send(channel, &[0xa5; 4096])?;
            exit(0);
        }
        "unasked-reply" => send(channel, &frame(kind::REPLY, epoch, call.id + 1_000_000, &call.arguments)),
        "reply-twice" => {
            answer(channel, epoch, call)?;
            answer(channel, epoch, call)
        }
        "ask-zero" => send(channel, &host_call(epoch, 0, call.id, NO_METHOD)),
        "ask-unserved" => send(channel, &host_call(epoch, 1, call.id + 1_000_000, NO_METHOD)),
        "ask-descriptors" => {
            let mut bytes = host_call(epoch, 1, call.id, NO_METHOD);
            bytes[7] = 1;
            send(channel, &bytes)
        }
        "ask-unknown" => {
            send(channel, &host_call(epoch, 1, call.id, NO_METHOD))?;
            answer(channel, epoch, call)
        }
        "ask-gibberish" => {
            for (id, method) in (1..).zip(0..8) {
                let mut bytes = host_call(epoch, id, call.id, method);
                bytes[5] = 1;
                bytes[..4].copy_from_slice(&4096_u32.to_le_bytes());
                bytes.extend([0x91; 4096]);
                send(channel, &bytes)?;
            }
            answer(channel, epoch, call)
        }
        "ask-late" => {
            answer(channel, epoch, call)?;
            send(channel, &host_call(epoch, 1, call.id, NO_METHOD))
        }
        "ask-nobody" => {
            // As if it had not agreed on them: that is refused, and nothing else.
            send(channel, &frame(kind::DESCRIPTOR, epoch, call.id, &Writer::default().map(0).0))?;
            answer(channel, epoch, call)
        }
        "stale-epoch" => {
            let wrong = Writer::default().text("from another time").0;
            send(channel, &frame(kind::REPLY, epoch.wrapping_sub(1), call.id, &wrong))?;
            answer(channel, epoch, call)
        }
        "flood" => {
            flood(channel, epoch)?;
            answer(channel, epoch, call)
        }
        "count" => {
            // ORDERING(count): Relaxed suffices: calls are served by one thread.
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            send(channel, &frame(kind::REPLY, epoch, call.id, &Writer::default().number(count).0))
        }
        "draining-fault" => send(channel, &frame(kind::FAULT, epoch, call.id, &draining())),
        "goodbye" => {
            send(channel, &frame(kind::GOODBYE, epoch, 0, &Writer::default().map(0).0))?;
            system::sleep_for_ever()
        }
        "goodbye-exit" => {
            answer(channel, epoch, call)?;
            send(channel, &frame(kind::GOODBYE, epoch, 0, &Writer::default().map(0).0))?;
            exit(0)
        }
        "exit-idle" => {
            answer(channel, epoch, call)?;
            exit(0)
        }
        "progress" => {
            for done in 1..=3 {
                let body = Writer::default().map(2).text("done").number(done).text("total").number(3);
                send(channel, &frame(kind::PROGRESS, epoch, call.id, &body.0))?;
            }
            answer(channel, epoch, call)
        }
        "stall" => Ok(()),
        "heartbeat" => {
            send(channel, &heartbeat(epoch))?;
            answer(channel, epoch, call)
        }
        "compute" => {
            send(channel, &heartbeat(epoch))?;
            compute(COMPUTE_TIME);
            answer(channel, epoch, call)
        }
        "deaf" => system::sleep_for_ever(),
        "close-channel" => {
            system::close_all_but_output();
            system::sleep_for_ever()
        }
        "crash-abort" => std::process::abort(),
        "crash-segv" => system::segmentation_fault(),
        "crash-panic" => panic!("panicking, as told"),
        "crash-exit" => {
            eprintln!("hostile: exiting with code 9, as told");
            exit(9);
        }
        "crash-clean" => exit(0),
        "runaways" => runaways(channel, epoch, call),
        bomb if bomb.starts_with("bomb-") => {
            let result = Writer::default().number(bombs::go_off(bomb)).0;
            send(channel, &frame(kind::REPLY, epoch, call.id, &result))
        }
        _ => answer(channel, epoch, call),
    }
}

/// A host call without arguments.
fn host_call(epoch: u32, id: u64, serves: u64, method: u32) -> Vec<u8> {
    let mut bytes = frame(kind::HOST_CALL, epoch, id, &[]);
    bytes[12..16].copy_from_slice(&method.to_le_bytes());
    bytes[24..32].copy_from_slice(&serves.to_le_bytes());
    bytes
}

fn heartbeat(epoch: u32) -> Vec<u8> {
    let body = Writer::default().map(2).text("running").number(1).text("oldest_ms").number(0);
    frame(kind::HEARTBEAT, epoch, 0, &body.0)
}

/// Uses the processor and does nothing else.
fn compute(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn draining() -> Vec<u8> {
    let fault = Writer::default().map(4).text("code").number(11).text("origin").text("extension");
    fault.text("retry").text("never").text("message").text("draining, as told").0
}

fn flood(channel: &UnixStream, epoch: u32) -> io::Result<()> {
    let channel = channel.try_clone()?;
    let bytes = frame(kind::LOG, epoch, 0, &record(&"flood ".repeat(20)));
    std::thread::spawn(move || while send(&channel, &bytes).is_ok() {});
    let line = format!("{}\n", "flood ".repeat(20));
    let again = line.clone();
    std::thread::spawn(move || while io::stdout().write_all(line.as_bytes()).is_ok() {});
    std::thread::spawn(move || while io::stderr().write_all(again.as_bytes()).is_ok() {});
    Ok(())
}

/// Starts two processes in sessions of their own whose parents are gone, and answers with their pids as a
/// list.
fn runaways(channel: &UnixStream, epoch: u32, call: &Call) -> io::Result<()> {
    let mut pids = Writer::default().list(2);
    for _ in 0..2 {
        let mut parent = Command::new(std::env::current_exe()?)
            .arg("linger-orphaned")
            .env_remove(MODE_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = parent.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        parent.wait()?;
        pids = pids.number(line.trim().parse().unwrap_or(0));
    }
    send(channel, &frame(kind::REPLY, epoch, call.id, &pids.0))
}

/// Starts a [`linger`] and leaves it an orphan.
pub(crate) fn linger_orphaned() {
    let exe = std::env::current_exe().unwrap_or_else(|_| exit(2));
    let mut command = Command::new(exe);
    command.arg("linger").env_remove(MODE_VARIABLE).stdin(Stdio::null()).stderr(Stdio::null());
    let started = command.spawn();
    exit(if started.is_ok() { 0 } else { 2 });
}

/// A session of its own, deaf to SIGTERM, says its pid and stays.
pub(crate) fn linger() -> ! {
    system::new_session();
    system::ignore_terminate();
    println!("{}", std::process::id());
    system::sleep_for_ever()
}
