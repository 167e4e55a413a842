//! The roles that this program plays as a child of its own tests: the entrance, and what each child does.

use std::fs::File;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use artifact_store::{DiskError, Expected, NameError, PutError, RoomLimit, Store};

use rustix::io::Errno;

use crate::support::{ALL_CHECKED, FOLDER, FaultyDisk, ROLE, check_whole, open, open_on, sample};
use crate::writable::Writable;

/// Does nothing unless this program was started as a child.
#[test]
fn entrance() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    match role.as_str() {
        "put until killed" => put_until_killed(&open(&folder)),
        "put until killed, without nameless files" => {
            put_until_killed(&open_on(&folder, &FaultyDisk::new(false)))
        }
        "stop while writing" => stop_while_writing(&folder),
        "fill the disk" => fill_the_disk(&folder),
        "use up the inodes" => use_up_the_inodes(&folder),
        "meet the file size limit" => meet_the_file_size_limit(&folder),
        "put beside others" => put_beside_others(&folder),
        "fill memory" => fill_memory(&folder),
        "keep memory mapped" => keep_memory_mapped(&folder),
        "hold what was put" => hold_what_was_put(&open(&folder)),
        other => panic!("no such role: {other}"),
    }
    println!("{ALL_CHECKED}");
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").unwrap();
    output.flush().unwrap();
}

/// Says `stored DIGEST` after each acknowledgement, and `named VERSION DIGEST` after each name.
fn put_until_killed(store: &Store) {
    let first = u64::from(std::process::id()) << 32;
    for seed in first.. {
        let length = usize::try_from(seed % 13).unwrap() * 70_000;
        let stored = store.put_reader(sample(seed, length).as_slice()).unwrap();
        say(&format!("stored {}", stored.digest));
        let named = store.set_name("latest", &stored.digest, Expected::Anything).unwrap();
        say(&format!("named {} {}", named.version, named.digest));
    }
}

fn stop_while_writing(folder: &Path) {
    let store = open_on(folder, &FaultyDisk::new(false));
    let mut writer = store.writer().unwrap();
    writer.append(&sample(1, 100_000)).unwrap();
    say("writing");
    // Until killed: the other end never says a word.
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

fn hold_what_was_put(store: &Store) {
    let single = store.put_bytes(b"single").unwrap();
    let batch = store.put_batch(&["one", "two"]).unwrap();
    say("held");
    // Until killed, as above.
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    drop((single, batch));
}

/// Seed and length of what children fill memory with.
pub(crate) const FILLING: (u64, usize) = (77, 300_001);

fn filled(memory: &File) -> Writable {
    let mut writable = Writable::of(memory).unwrap();
    writable.fill(&sample(FILLING.0, FILLING.1));
    writable
}

/// The "folder" is memory of the parent. What an extension does: it maps the memory, fills it, lets go, and says so. Its
/// length it cannot change, and after adoption nothing at all.
fn fill_memory(path: &Path) {
    let open = || File::options().read(true).write(true).open(path);
    let memory = open().unwrap();
    for length in [0, FILLING.1 as u64 - 1, FILLING.1 as u64 + 1] {
        assert_eq!(rustix::fs::ftruncate(&memory, length), Err(Errno::PERM));
    }
    drop(filled(&memory));
    say("filled");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    assert_eq!(rustix::io::pwrite(&memory, b"changed", 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&memory, 1), Err(Errno::PERM));
    assert!(Writable::of(&memory).is_err());
    assert!(open().is_err() || rustix::io::pwrite(open().unwrap(), b"changed", 0).is_err());
}

/// One that does not let go, and writes on.
fn keep_memory_mapped(path: &Path) {
    let memory = File::options().read(true).write(true).open(path).unwrap();
    let mut writable = filled(&memory);
    say("filled");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    writable.fill(&sample(78, FILLING.1));
}

/// The folder is a small file system of its own.
fn fill_the_disk(folder: &Path) {
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, sample(0, 100_000)).unwrap();
    let folder = folder.join("store");
    let store = open(&folder);
    let first = sample(1, 10_000);
    let digest = store.put_bytes(&first).unwrap().digest;
    store.set_name("name", &digest, Expected::Absent).unwrap();

    // One that can never fit, in each way.
    let large = sample(2, 3_000_000);
    for result in [store.put_bytes(&large), store.put_reader(large.as_slice())] {
        let error = result.unwrap_err();
        let PutError::Disk(DiskError::Full { shortage, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(shortage.limit, RoomLimit::Disk);
        assert!(shortage.needed_bytes > 500_000, "{shortage:?}");
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
    assert_eq!(check_whole(&folder), 1);

    // To the last page.
    let mut acknowledged = vec![digest];
    for seed in 100.. {
        match store.put_bytes(&sample(seed, 4096)) {
            Ok(stored) => acknowledged.push(stored.digest),
            Err(PutError::Disk(DiskError::Full { shortage, .. })) => {
                assert!(shortage.free_bytes < 8192, "{shortage:?}");
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    assert_eq!(check_whole(&folder), acknowledged.len());

    // Full: names are refused and keep what they were, what is there is delivered, and put again without writing.
    let error = store.set_name("name", &acknowledged[1], Expected::Version(1)).unwrap_err();
    assert!(matches!(error, NameError::Disk(DiskError::Full { .. })), "{error:?}");
    assert_eq!(store.resolve("name").unwrap().unwrap().digest, digest);
    assert!(store.put_bytes(&first).unwrap().was_present);
    let reopened = open(&folder);
    assert!(acknowledged.iter().all(|digest| reopened.get(digest).is_ok()));

    // Room again: the same store goes on.
    std::fs::remove_file(ballast).unwrap();
    store.put_bytes(&sample(3, 50_000)).unwrap();
    store.set_name("name", &acknowledged[1], Expected::Version(1)).unwrap();
    assert_eq!(check_whole(&folder), acknowledged.len() + 1);
    assert!(store.verify_all().all(|(_, result)| result.is_ok()));
}

/// The folder is a small file system of its own with room for few files.
fn use_up_the_inodes(folder: &Path) {
    let folder = folder.join("store");
    let store = open(&folder);
    let mut acknowledged = 0;
    let error = (0..).find_map(|seed| {
        let result = store.put_bytes(&sample(seed, 100));
        acknowledged += usize::from(result.is_ok());
        result.err()
    });
    let Some(PutError::Disk(DiskError::Full { shortage, .. })) = &error else { panic!("{error:?}") };
    assert_eq!((shortage.limit, shortage.free_files), (RoomLimit::Disk, 0));
    assert!(shortage.free_bytes > 100_000, "{shortage:?}");
    assert!(acknowledged > 5);
    assert_eq!(check_whole(&folder), acknowledged);
}

/// This process may not write files of more than 64 KiB.
fn meet_the_file_size_limit(folder: &Path) {
    let store = open(folder);
    store.put_bytes(&sample(1, 50_000)).unwrap();
    let large = sample(2, 300_000);
    for result in [store.put_bytes(&large), store.put_reader(large.as_slice())] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, PutError::Disk(DiskError::Full { shortage, .. }) if shortage.limit == RoomLimit::FileSize),
            "{error:?}"
        );
        assert!(error.to_string().contains("ulimit -f"), "{error}");
    }
    store.put_bytes(&sample(3, 60_000)).unwrap();
    assert_eq!(check_whole(folder), 2);
}

/// Puts what the others put and what only it puts, and counts a common name upwards.
fn put_beside_others(folder: &Path) {
    let store = open(folder);
    let own = u64::from(std::process::id()) << 32;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10 {
                    let common = sample(round, 20_000);
                    let digest = store.put_reader(common.as_slice()).unwrap().digest;
                    assert!(store.get(&digest).unwrap().as_bytes() == common);
                    let private = sample(own + thread * 100 + round, 3000);
                    let digest = store.put_bytes(&private).unwrap().digest;
                    assert!(store.get(&digest).unwrap().as_bytes() == private);
                    count_up(store, &digest);
                }
            });
        }
    });
}

fn count_up(store: &Store, digest: &artifact_store::Digest) {
    loop {
        let expected = match store.resolve("counter").unwrap() {
            None => Expected::Absent,
            Some(named) => Expected::Version(named.version),
        };
        match store.set_name("counter", digest, expected) {
            Ok(_) => return,
            Err(NameError::Conflict { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}
