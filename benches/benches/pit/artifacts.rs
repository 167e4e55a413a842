//! The bench of the artifact store, on a real disk: the target folder, where a temporary folder is made and removed.
//!
//! Large ones are 1 GiB, each round's other bytes than the last one's. What is compared is done in turns, in the same
//! round; files are in the page cache, as they are right after they were made.
#![expect(unsafe_code, reason = "the peer of a first get is a bare mmap")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use artifact_store::{Digest, Disk, Folder, RealDisk, Store, StoreOptions};
use benches::report::{Figure, Report};
use rustix::mm::{MapFlags, ProtFlags};

use crate::batch;

const LARGE_BYTES: usize = 1 << 30;
/// Rounds with large files, 4 GiB of writing each.
const ROUNDS: u64 = 4;
/// First gets and bare maps, in turns.
const FIRST_GETS: usize = 101;
const SMALL_COUNT: u64 = 10_000;
const SMALL_BYTES: usize = 4096;
const SMALL_ROUNDS: u64 = 3;
/// Before each large write: disks that lend a burst of speed have to be given it back, or whoever writes second pays
/// for the first.
const REST: Duration = Duration::from_secs(2);
/// Bytes that a plain writer writes at once.
const WRITE_BYTES: usize = 1 << 20;

/// Times by id, in the order in which the table shows them.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<Duration>)>);

impl Times {
    fn time<T>(
        &mut self,
        id: &'static str,
        operation: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        let done = operation().with_context(|| format!("{id} failed"))?;
        self.add(id, start.elapsed());
        Ok(done)
    }

    fn add(&mut self, id: &'static str, time: Duration) {
        match self.0.iter_mut().find(|(other, _)| *other == id) {
            Some((_, times)) => times.push(time),
            None => self.0.push((id, vec![time])),
        }
    }

    fn report(self, report: &mut Report) {
        for (id, times) in self.0 {
            report.push(Figure::from_round_trips(id, &times));
        }
    }
}

/// Measures and adds its figures.
pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(benches::report::target_folder())?;
    let store = Store::open(&folder.path().join("store"), StoreOptions::default())?;
    repeated_get(report, &store)?;
    seam(report, folder.path())?;
    let mut times = Times::default();
    large(&mut times, &store, folder.path())?;
    small(&mut times, &store, folder.path())?;
    times.report(report);
    Ok(())
}

fn repeated_get(report: &mut Report, store: &Store) -> anyhow::Result<()> {
    // Among as many others as are kept open.
    let mut digests = Vec::new();
    for number in 0..100_u64 {
        let bytes = number.to_le_bytes().repeat(1024);
        let digest = store.put_bytes(&bytes)?.digest;
        drop(store.get(&digest)?);
        digests.push(digest);
    }
    let digest = digests[50];
    report.push(batch::alone("pit/artifact/get", || drop(black_box(store.get(black_box(&digest))))));
    let operation = || || drop(black_box(store.get(black_box(&digest))));
    report.push(batch::two_threads("pit/artifact/get/2-threads-same", [operation(), operation()]));
    Ok(())
}

/// What the seam to the file system costs: the cheapest operation through it and without it.
fn seam(report: &mut Report, folder: &Path) -> anyhow::Result<()> {
    std::fs::write(folder.join("byte"), "x")?;
    let folder = Folder::open(folder)?;
    let file = RealDisk.open(&folder, "byte")?;
    let disk: Arc<dyn Disk> = black_box(Arc::new(RealDisk));
    let mut byte = [0_u8];
    report.push(batch::alone("pit/artifact/seam", || drop(black_box(disk.read_at(&file, &mut byte, 0)))));
    let mut bare = || black_box(rustix::io::pread(&file, &mut byte, 0).is_ok());
    report.push(batch::alone("peer/pread", || assert!(bare())));
    Ok(())
}

fn large(times: &mut Times, store: &Store, folder: &Path) -> anyhow::Result<()> {
    let mut bytes = vec![0_u8; LARGE_BYTES];
    for (number, place) in (0_u64..).zip(bytes.chunks_exact_mut(8)) {
        place.copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    for round in 0..ROUNDS {
        bytes[..8].copy_from_slice(&round.to_le_bytes());
        let plain = folder.join("plain");
        let write = |times: &mut Times| {
            thread::sleep(REST);
            times.time("peer/write-fsync-1GiB", || {
                let mut file = File::create(&plain)?;
                bytes.chunks(WRITE_BYTES).try_for_each(|part| file.write_all(part))?;
                Ok(file.sync_all()?)
            })
        };
        let put = |times: &mut Times| {
            thread::sleep(REST);
            times.time("pit/artifact/put-1GiB", || Ok(store.put_bytes(&bytes)?))
        };
        // Who is first changes from round to round.
        let stored = if round % 2 == 0 {
            write(times)?;
            put(times)?
        } else {
            let stored = put(times)?;
            write(times)?;
            stored
        };
        first_gets(times, store, &plain, &stored.digest)?;
        drop(stored);
        store.collect(|_| false)?;

        // A file that was written and synced before: hashed where it is, copied, moved into the store.
        let hashed = times.time("peer/hash-1GiB", || Ok(Digest::of(Mapped::open(&plain)?.as_bytes())))?;
        let copy = folder.join("copy");
        times.time("peer/copy-1GiB", || Ok(std::fs::copy(&plain, &copy)?))?;
        std::fs::remove_file(&copy)?;
        let stored = times.time("pit/artifact/put-file-1GiB", || Ok(store.adopt_file(&plain)?))?;
        anyhow::ensure!(stored.digest == hashed, "the store has hashed something else");
        drop(stored);
        store.collect(|_| false)?;
    }
    Ok(())
}

/// The first get of a process, as far as the store is concerned: a store that was just opened.
fn first_gets(times: &mut Times, store: &Store, plain: &Path, digest: &Digest) -> anyhow::Result<()> {
    for _ in 0..FIRST_GETS.div_ceil(usize::try_from(ROUNDS)?) {
        let mapped = times.time("peer/open-mmap-1GiB", || Mapped::open(plain))?;
        drop(mapped);
        let fresh = Store::open(store.folder(), StoreOptions::default())?;
        let artifact = times.time("pit/artifact/get-first-1GiB", || Ok(fresh.get(digest)?))?;
        anyhow::ensure!(artifact.len() == LARGE_BYTES as u64, "another length");
    }
    Ok(())
}

fn small(times: &mut Times, store: &Store, folder: &Path) -> anyhow::Result<()> {
    for round in 0..SMALL_ROUNDS {
        let items: Vec<_> = (0..SMALL_COUNT)
            .map(|number| (round * SMALL_COUNT + number).to_le_bytes().repeat(SMALL_BYTES / 8))
            .collect();
        let stored = times.time("pit/artifact/put-4KiB", || Ok(store.put_batch(&items)?))?;
        anyhow::ensure!(stored.len() == items.len(), "not all were stored");
        peer_small(times, folder, round, &items)?;
    }
    Ok(())
}

#[cfg(feature = "peers")]
fn peer_small(times: &mut Times, folder: &Path, round: u64, items: &[Vec<u8>]) -> anyhow::Result<()> {
    let cache = folder.join(format!("cacache-{round}"));
    let write = || {
        for item in items {
            cacache::write_hash_sync(&cache, item)?;
        }
        // Durable at the batch's end, by one sync of the file system.
        Ok(rustix::fs::syncfs(File::open(&cache)?)?)
    };
    times.time("peer/cacache-put-4KiB", write)?;
    Ok(std::fs::remove_dir_all(&cache)?)
}

#[cfg(not(feature = "peers"))]
fn peer_small(_: &mut Times, _: &Path, _: u64, _: &[Vec<u8>]) -> anyhow::Result<()> {
    Ok(())
}

/// What a program does that opens a file and maps it, and no more.
struct Mapped {
    address: *mut std::ffi::c_void,
    bytes: usize,
    _file: File,
}

impl Mapped {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let bytes = usize::try_from(file.metadata()?.len())?;
        let (read, shared) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: the kernel chooses the address, so nothing that is mapped is replaced.
        let address = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, read, shared, &file, 0) }?;
        Ok(Self { address, bytes, _file: file })
    }

    fn as_bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as this value lives, `bytes` long; the file is this bench's own and nobody
        // writes to it or truncates it while it is mapped.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.bytes) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, unmapped once; no slice outlives this value.
        let _is_unmapped = unsafe { rustix::mm::munmap(self.address, self.bytes) }.is_ok();
    }
}
