//! A listening socket: who may come in, and what the others cost.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use ipc_transport::rendezvous::preamble::{ANSWER_BYTES, PREAMBLE_BYTES, Role, Status, TOKEN_BYTES};
use ipc_transport::rendezvous::{Knock, Rendezvous, RendezvousError, meet};
use rustix::fs::{FileType, Mode};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let above = tempfile::tempdir().expect("a temporary folder");
    let folder = above.path().join("serve");
    (above, folder)
}

fn listen(folder: &Path) -> Rendezvous {
    Rendezvous::open(folder).expect("nobody else is there")
}

fn next(rendezvous: &Rendezvous) -> Knock {
    rendezvous.accept().expect("it listens").expect("it is not closed")
}

/// What `preamble` is answered.
fn answer(folder: &Path, rendezvous: &Rendezvous, preamble: &[u8], has_room: bool) -> Vec<u8> {
    let mut channel = UnixStream::connect(folder.join("socket")).expect("it listens");
    channel.write_all(preamble).expect("there is room");
    let heard = next(rendezvous).hear(|_| has_room.then_some(()));
    let mut answer = Vec::new();
    match heard {
        Ok(_) => {
            answer.resize(ANSWER_BYTES, 0);
            channel.read_exact(&mut answer).expect("it answers");
        }
        Err(_) => drop(channel.read_to_end(&mut answer).expect("it answers and closes")),
    }
    answer
}

fn preamble_of(folder: &Path) -> [u8; PREAMBLE_BYTES] {
    let digits = std::fs::read_to_string(folder.join("token")).expect("it is there");
    assert_eq!(digits.len(), 2 * TOKEN_BYTES);
    let mut preamble = *b"SYMPHONY\x01\x01\0\0\0\0\0\0................................";
    for (place, byte) in preamble[16..].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).expect("a digit");
    }
    preamble
}

#[test]
fn who_knows_the_token_comes_in_and_nobody_else() {
    let (_above, folder) = place();
    let rendezvous = listen(&folder);
    let preamble = preamble_of(&folder);
    assert_eq!(answer(&folder, &rendezvous, &preamble, true), b"SY\0\0");
    assert_eq!(answer(&folder, &rendezvous, &preamble, false), b"SY\x04\0", "there is no room");
    for (byte, status) in [(0, 1), (8, 1), (9, 3), (15, 1), (16, 2), (47, 2)] {
        let mut wrong = preamble;
        wrong[byte] ^= 0x80;
        assert_eq!(answer(&folder, &rendezvous, &wrong, true), [b'S', b'Y', status, 0], "{byte}");
    }
    // One who goes before he has said who he is.
    let heard = {
        drop(UnixStream::connect(folder.join("socket")).expect("it listens").write_all(&preamble[..20]));
        next(&rendezvous).hear(|_| Some(()))
    };
    assert!(heard.is_err());
}

#[test]
fn one_who_is_silent_is_sent_away_and_holds_up_nobody() {
    let (_above, folder) = place();
    let rendezvous = listen(&folder);
    let silent = UnixStream::connect(folder.join("socket")).expect("it listens");
    let knock = next(&rendezvous);
    let hearing = thread::spawn(move || knock.hear(|_| Some(())));
    let guest = thread::spawn({
        let folder = folder.clone();
        move || meet(&folder, Role::Client)
    });
    let (arrival, ()) = next(&rendezvous).hear(|_| Some(())).expect("it may come in");
    assert_eq!((arrival.role, arrival.pid), (Role::Client, Some(std::process::id())));
    assert!(guest.join().expect("it comes").expect("it is let in").is_some());
    let heard = hearing.join().expect("it ends");
    assert!(heard.expect_err("it said nothing").starts_with("it did not say who it is"));
    drop(silent);
}

#[test]
fn a_folder_is_one_listeners_and_is_swept_after_one_that_died() {
    let (_above, folder) = place();
    assert!(meet(&folder, Role::Client).expect("nobody is there, which is no failure").is_none());
    let first = listen(&folder);
    let before = preamble_of(&folder);
    let second = Rendezvous::open(&folder).expect_err("the first is there");
    assert!(
        matches!(&second, RendezvousError::Held { pid, .. } if *pid == Some(std::process::id())),
        "{second}"
    );
    drop(first);
    assert!(!folder.join("socket").exists() && !folder.join("token").exists());
    // As a kill leaves them.
    std::fs::write(folder.join("socket"), b"").expect("it is written");
    std::fs::write(folder.join("token"), [b'0'; 64]).expect("it is written");
    assert!(meet(&folder, Role::Client).expect("nobody is there").is_none());
    let third = listen(&folder);
    assert_ne!(preamble_of(&folder), before, "another token each time");
    let closer = third.closer();
    let waiting = thread::spawn(move || third.accept().expect("it listened").is_none());
    closer.close();
    assert!(waiting.join().expect("it comes back"), "it is closed");
}

#[test]
fn a_token_of_before_is_refused_with_the_reason() {
    let (_above, folder) = place();
    let rendezvous = listen(&folder);
    std::fs::write(folder.join("token"), [b'0'; 64]).expect("it is one's own");
    let guest = thread::spawn({
        let folder = folder.clone();
        move || meet(&folder, Role::Client)
    });
    assert!(next(&rendezvous).hear(|_| Some(())).is_err());
    let refused = guest.join().expect("it ends").expect_err("the token is wrong");
    assert!(matches!(&refused, RendezvousError::Refused { status: Status::Token, .. }), "{refused}");
    std::fs::write(folder.join("token"), b"no token").expect("it is one's own");
    assert!(matches!(meet(&folder, Role::Client), Err(RendezvousError::Io { .. })));
}

#[test]
fn a_folder_that_others_get_at_is_not_used() {
    let (above, folder) = place();
    std::fs::create_dir(&folder).expect("it is made");
    for mode in [0o755, 0o770, 0o701] {
        std::fs::set_permissions(&folder, Permissions::from_mode(mode)).expect("it is one's own");
        let refused = Rendezvous::open(&folder).expect_err("others may look into it");
        let text = refused.to_string();
        assert!(text.contains(&format!("its mode is {mode:o}")), "{text}");
        std::fs::write(folder.join("token"), [b'0'; 64]).expect("it is one's own");
        assert!(matches!(meet(&folder, Role::Client), Err(RendezvousError::Exposed { .. })));
        std::fs::remove_file(folder.join("token")).expect("it is there");
    }
    std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("it is one's own");
    let link = above.path().join("link");
    symlink(&folder, &link).expect("it is made");
    assert!(
        matches!(Rendezvous::open(&link), Err(RendezvousError::Exposed { .. })),
        "a link is not followed"
    );
    let long = above.path().join("l".repeat(100));
    assert!(matches!(Rendezvous::open(&long), Err(RendezvousError::TooLong { .. })));
    assert!(!long.exists(), "nothing was made");
}

#[test]
fn what_stands_where_the_token_belongs_misleads_nobody() {
    let (above, folder) = place();
    let _rendezvous = listen(&folder);
    let token = folder.join("token");
    std::fs::rename(&token, above.path().join("elsewhere")).expect("it is one's own");
    symlink(above.path().join("elsewhere"), &token).expect("it is made");
    assert!(matches!(meet(&folder, Role::Client), Err(RendezvousError::Io { .. })), "a link is not followed");
    std::fs::remove_file(&token).expect("it is there");
    // Nobody ever writes into it: who opened it would wait for good.
    rustix::fs::mknodat(rustix::fs::CWD, &token, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .expect("it is made");
    assert!(matches!(meet(&folder, Role::Client), Err(RendezvousError::Io { .. })), "nobody is waited for");
}

#[test]
fn a_place_is_taken_before_the_welcome_and_given_back_by_one_who_is_gone() {
    let (_above, folder) = place();
    let rendezvous = listen(&folder);
    let place = std::sync::Arc::new(());
    let preamble = preamble_of(&folder);
    let mut channel = UnixStream::connect(folder.join("socket")).expect("it listens");
    channel.write_all(&preamble).expect("there is room");
    let knock = next(&rendezvous);
    let mut answered = vec![0; ANSWER_BYTES];
    let (_arrival, taken) = knock
        .hear(|_| {
            channel.set_nonblocking(true).expect("it is one's own");
            assert!(channel.read(&mut answered).is_err(), "not welcomed before it has a place");
            Some(place.clone())
        })
        .expect("it may come in");
    assert_eq!(std::sync::Arc::strong_count(&place), 2);
    drop(taken);
    let mut gone = UnixStream::connect(folder.join("socket")).expect("it listens");
    gone.write_all(&preamble).expect("there is room");
    drop(gone);
    assert!(next(&rendezvous).hear(|_| Some(place.clone())).is_err(), "it was gone before its welcome");
    assert_eq!(std::sync::Arc::strong_count(&place), 1);
}

/// Does it as another user, who is one for this thread alone.
fn as_user<T: Send>(uid: u32, does: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root may be anybody");
            does()
        });
        other.join().expect("it does not panic")
    })
}

#[test]
fn another_user_is_neither_let_in_nor_taken_for_the_owner_and_root_may_ask_anybody() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: another_user_is_neither_let_in: only root can be somebody else");
        return;
    }
    let (above, folder) = place();
    std::fs::set_permissions(above.path(), Permissions::from_mode(0o777)).expect("it is one's own");
    let (owner, other) = (65_533, 65_532);
    let rendezvous = as_user(owner, || listen(&folder));
    let refused = as_user(other, || meet(&folder, Role::Client)).expect_err("it is another one's");
    assert!(refused.to_string().contains("it belongs to user 65533, not to 65532"), "{refused}");
    // Root may.
    let asking = thread::spawn({
        let folder = folder.clone();
        move || meet(&folder, Role::Client)
    });
    assert!(as_user(owner, || next(&rendezvous).hear(|_| Some(()))).is_ok());
    assert!(asking.join().expect("it ends").expect("root is let in").is_some());
    // With the folder open the look at who comes is what is left.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o711)).expect("root may");
    std::fs::set_permissions(folder.join("socket"), Permissions::from_mode(0o777)).expect("root may");
    let stranger = as_user(other, || UnixStream::connect(folder.join("socket")).expect("it listens"));
    let refused = as_user(owner, || next(&rendezvous).hear(|_| Some(()))).expect_err("it is another one");
    assert_eq!(refused, "user 65532 is neither 65533 nor root");
    drop((stranger, rendezvous));
    // Somebody else listens in a folder of root's: it does not get to see the token.
    let (_above, folder) = place();
    let mine = listen(&folder);
    let socket = folder.join("socket");
    std::fs::remove_file(&socket).expect("it is there");
    let false_one = UnixListener::bind(&socket).expect("the name is free");
    as_user(other, || {
        // Who listens is who called `listen` last.
        rustix::net::listen(&false_one, 1).expect("it listens");
    });
    let refused = meet(&folder, Role::Client).expect_err("another one listens");
    assert!(refused.to_string().contains("user 65532 listens there"), "{refused}");
    drop(mine);
}
