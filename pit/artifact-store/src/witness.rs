//! Which files were verified since the machine was started, by whichever process: a hint that spares hashing.
//!
//! ```text
//!   "symphony verified 1\n", the boot id (36), "\n", padding to 64
//!   80 bytes each: digest (32), device, inode, bytes, change time in s and ns (8 each), check (8)
//! ```
//!
//! Written when a put has hashed what it wrote, and when a file was hashed to be read. It names the file by what
//! nobody but the kernel sets (inode, length, change time), so a file that was touched since is hashed again. It is bound to
//! one boot of the machine and never synced: after a crash, where the disk may have lost what the page cache had, the boot
//! is another one and everything is verified anew. Whatever is wrong with the file, the worst is that a file is hashed once
//! more; so no error leaves this module.
//!
//! It guards against damage, not against malice: who may write here may as well change the artifacts. Since it is no part
//! of what is promised to survive, it does not pass through the seam to the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::digest::{DIGEST_BYTES, Digest};
use crate::disk::Folder;
use crate::remembered::Identity;
use crate::root::VERIFIED_FILE;

const HEAD_BYTES: usize = 64;
const HEAD_WORDS: &str = "symphony verified 1\n";
const RECORD_BYTES: usize = DIGEST_BYTES + 5 * 8 + 8;
/// LIMIT: records; a file that is full is begun anew.
const RECORDS_MAX: u64 = 65_536;

#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
    /// How far this process has read.
    read_to: u64,
}

impl Witness {
    /// Opens the witness of this boot; one of an earlier boot is replaced.
    pub(crate) fn open(folder: &Folder) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let mut head = format!("{HEAD_WORDS}{}\n", boot.trim()).into_bytes();
        if head.len() > HEAD_BYTES {
            return None;
        }
        head.resize(HEAD_BYTES, b' ');
        Self::open_existing(folder, &head).or_else(|| Self::create(folder, &head))
    }

    fn open_existing(folder: &Folder, head: &[u8]) -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(folder.file(), VERIFIED_FILE, flags, Mode::empty()).ok()?;
        let file = File::from(fd);
        let mut found = [0_u8; HEAD_BYTES];
        file.read_exact_at(&mut found, 0).ok()?;
        let bytes = file.metadata().ok()?.len();
        let is_room = bytes < HEAD_BYTES as u64 + RECORDS_MAX * RECORD_BYTES as u64;
        (found == *head && is_room).then_some(Self { file, read_to: HEAD_BYTES as u64 })
    }

    /// Two processes may do this at once: one of them then writes where nobody reads.
    fn create(folder: &Folder, head: &[u8]) -> Option<Self> {
        let _is_removed = rustix::fs::unlinkat(folder.file(), VERIFIED_FILE, AtFlags::empty()).is_ok();
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(folder.file(), VERIFIED_FILE, flags, mode).ok()?);
        (rustix::io::write(&file, head) == Ok(HEAD_BYTES))
            .then_some(Self { file, read_to: HEAD_BYTES as u64 })
    }

    /// What was added since the last call. A record that is not whole ends the belief in the rest of the file.
    pub(crate) fn news(&mut self) -> Vec<(Digest, Identity)> {
        let mut news = Vec::new();
        let mut record = [0_u8; RECORD_BYTES * 64];
        loop {
            let Ok(count) = read_full(&self.file, &mut record, self.read_to) else { return news };
            let whole = count - count % RECORD_BYTES;
            for one in record[..whole].chunks_exact(RECORD_BYTES) {
                let Some(read) = read(one) else { return news };
                news.push(read);
                self.read_to += RECORD_BYTES as u64;
            }
            if whole < record.len() {
                return news;
            }
        }
    }

    /// Adds a record, in one piece. False when this file takes no more: it is full, or not in order.
    pub(crate) fn add(&mut self, digest: &Digest, identity: &Identity) -> bool {
        let Ok(at) = self.file.metadata().map(|metadata| metadata.len()) else { return false };
        let is_in_order =
            at.checked_sub(HEAD_BYTES as u64).is_some_and(|past| past.is_multiple_of(RECORD_BYTES as u64));
        let is_room = at < HEAD_BYTES as u64 + RECORDS_MAX * RECORD_BYTES as u64;
        is_in_order && is_room && rustix::io::write(&self.file, &write(digest, identity)) == Ok(RECORD_BYTES)
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn write(digest: &Digest, identity: &Identity) -> [u8; RECORD_BYTES] {
    let mut record = [0_u8; RECORD_BYTES];
    record[..DIGEST_BYTES].copy_from_slice(digest.as_bytes());
    for (place, word) in record[DIGEST_BYTES..].chunks_exact_mut(8).zip(identity.words()) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let check = check(&record);
    record[RECORD_BYTES - 8..].copy_from_slice(&check);
    record
}

fn read(record: &[u8]) -> Option<(Digest, Identity)> {
    if record.len() != RECORD_BYTES || record[RECORD_BYTES - 8..] != check(record) {
        return None;
    }
    let mut words = [0_u64; 5];
    for (word, place) in words.iter_mut().zip(record[DIGEST_BYTES..].chunks_exact(8)) {
        *word = u64::from_le_bytes(place.try_into().ok()?);
    }
    Some((Digest::from_bytes(record[..DIGEST_BYTES].try_into().ok()?), Identity::from_words(words)))
}

fn check(record: &[u8]) -> [u8; 8] {
    let digest = Digest::of(&record[..RECORD_BYTES - 8]);
    *digest.as_bytes().first_chunk().expect("INVARIANT: a digest has more than eight bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seed: u64) -> Identity {
        Identity::from_words([seed, seed + 1, seed + 2, u64::MAX - seed, seed + 4])
    }

    #[test]
    fn a_record_survives_and_one_with_any_bit_flipped_does_not() {
        let whole = write(&Digest::of(b"x"), &identity(7));
        assert_eq!(read(&whole), Some((Digest::of(b"x"), identity(7))));
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn what_one_process_adds_another_reads() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::open(folder.path()).unwrap();
        let [mut one, mut other] = [(); 2].map(|()| Witness::open(&folder).unwrap());
        for seed in 0..200 {
            assert!(one.add(&Digest::of(&[seed]), &identity(u64::from(seed))));
        }
        let news = other.news();
        assert_eq!(news.len(), 200);
        assert_eq!(news[150], (Digest::of(&[150]), identity(150)));
        assert_eq!(other.news(), []);
    }

    #[test]
    fn a_witness_of_another_boot_or_out_of_order_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(VERIFIED_FILE);
        let folder = Folder::open(folder.path()).unwrap();
        let mut witness = Witness::open(&folder).unwrap();
        witness.add(&Digest::of(b"x"), &identity(1));
        let mut bytes = std::fs::read(&path).unwrap();

        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(!witness.add(&Digest::of(b"y"), &identity(2)), "after half a record nothing can follow");
        assert_eq!(Witness::open(&folder).unwrap().news(), []);

        bytes[HEAD_WORDS.len()] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Witness::open(&folder).unwrap().news(), [], "another boot");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), HEAD_BYTES as u64, "begun anew");
    }
}
