//! What sealing, hashing and verification cost, in processor time of one thread: for a GiB, and for a small file. Run by
//! scripts/bench.sh. The ceiling is AES-256-GCM alone over the same bytes; copying them shows what memory costs.

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hushfs::base::{
    ByteRange, CHUNK_LEN, ChunkNo, Epoch, FRAME_LEN, KeyNo, PackNo, Seq, SystemEntropy, Timestamp, VolumeId,
};
use hushfs::base::{DeviceSlot, Hash, Incarnation, InodeId, IntentNo, Name};
use hushfs::crypto::{CHUNK_HEADER_LEN, ChunkOpener, Key, Roots, blake3, chunk_id};
use hushfs::format::chunk::{SealedChunk, frame_span, open_frames, seal_chunk};
use hushfs::format::rows::{ChunkRow, DirentRow, Extent, FileKeyRow, InodeBody, InodeRow, RowKey, mode};
use hushfs::format::{Record, object_hash};

const VOLUME: VolumeId = VolumeId([9; 16]);
const ROUNDS: usize = 5;
const SMALL_LEN: usize = 4096;
const MIB: u64 = 1 << 20;
/// Of each measurement: enough to be even, and over in seconds.
const CHUNKS: usize = 128;
const FILES: usize = 1000;

fn main() {
    let noise = noise(CHUNK_LEN as usize);
    let text: Vec<u8> = b"a line of text like others, with a number behind it: ".repeat(CHUNK_LEN as usize / 53 + 1);
    let text = &text[..CHUNK_LEN as usize];
    let roots = Roots::new(VOLUME, Epoch(0), Key::generate(&SystemEntropy));
    let key = Key::generate(&SystemEntropy);

    println!("processor time of one thread, medians of {ROUNDS} rounds");
    println!("{:<58}{:>12}{:>10}", "for a GiB", "seconds", "of GCM");
    let gcm = per_chunk(|| black_box(gcm_frames(&noise, FRAME_LEN as usize)));
    let sealed = [&noise[..], text].map(|plain| Sealed::new(&key, plain));
    let rows: [(&str, Duration); 8] = [
        ("AES-256-GCM alone, 64 KiB at a time", gcm),
        ("copying", per_chunk(|| black_box(noise.to_vec()))),
        ("hashing (chunk id, BLAKE3)", per_chunk(|| black_box(chunk_id(&noise)))),
        ("sealing what does not compress: id, lz4 tried, sealed", per_chunk(|| black_box(Sealed::new(&key, &noise)))),
        ("sealing what compresses", per_chunk(|| black_box(Sealed::new(&key, text)))),
        ("reading what does not compress: verified, decrypted", per_chunk(|| black_box(sealed[0].open(&key)))),
        ("reading what compresses", per_chunk(|| black_box(sealed[1].open(&key)))),
        ("verifying an object's place in the log (BLAKE3 of it)", per_chunk(|| black_box(object_hash(&noise)))),
    ];
    for (what, took) in rows {
        let per_gib = took.as_secs_f64() * (1024 * MIB / CHUNK_LEN) as f64;
        println!("{what:<58}{per_gib:>12.3}{:>10.2}", took.as_secs_f64() / gcm.as_secs_f64());
    }

    println!("\n{:<58}{:>12}{:>10}", "for a file of 4 KiB", "µs", "of GCM");
    let small = &noise[..SMALL_LEN];
    let gcm = per_file(|| black_box(gcm_frames(small, SMALL_LEN)));
    let (_, wrapped) = roots.wrap_file_key(KeyNo(1), &key, &SystemEntropy);
    let sealed = Sealed::new(&key, small);
    let record = record(&roots, FILES).seal(&roots, &SystemEntropy).expect("its epoch is known");
    let a_files = |took: Duration| took / FILES as u32;
    let rows: [(&str, Duration); 7] = [
        ("AES-256-GCM alone", gcm),
        ("hashing (chunk id, BLAKE3)", per_file(|| black_box(blake3(small)))),
        ("a key of its own, wrapped", per_file(|| black_box(new_file_key(&roots)))),
        ("sealing: id, chunk key, lz4 tried, sealed", per_file(|| black_box(Sealed::new(&key, small)))),
        ("its rows in a record of a thousand files, sealed", a_files(median(|| seal_rows(&roots)))),
        ("those rows opened, verified and validated", a_files(median(|| open_rows(&roots, &record)))),
        (
            "reading: key unwrapped, verified, decrypted",
            per_file(|| black_box(sealed.open(&roots.unwrap_file_key(Epoch(0), KeyNo(1), &wrapped).expect("a key")))),
        ),
    ];
    for (what, took) in rows {
        println!("{what:<58}{:>12.2}{:>10.2}", took.as_secs_f64() * 1e6, took.as_secs_f64() / gcm.as_secs_f64());
    }
}

struct Sealed {
    chunk: SealedChunk,
    row: ChunkRow,
}

impl Sealed {
    /// As the program seals a piece of a file.
    fn new(key: &Key, plain: &[u8]) -> Self {
        let id = chunk_id(plain);
        let chunk = seal_chunk(key, VOLUME, &id, plain, &SystemEntropy);
        let (len, frames) = (plain.len() as u32, chunk.frames.clone());
        Self { chunk, row: ChunkRow { pack: PackNo(1), offset: 0, len, key: KeyNo(1), id, frames } }
    }

    fn open(&self, key: &Key) -> Vec<u8> {
        let (header, frames) = self.chunk.bytes.split_first_chunk::<CHUNK_HEADER_LEN>().expect("a header");
        let opener = ChunkOpener::new(key, VOLUME, &self.row.id, header).expect("the key");
        let all = ByteRange { start: 0, end: self.row.len.into() };
        let mut plain = vec![0; self.row.len as usize];
        let span = frame_span(&self.row, all).expect("a range in it");
        open_frames(&opener, &self.row, &span, frames, all, &mut plain).expect("what was sealed");
        plain
    }
}

fn gcm_frames(plain: &[u8], frame_len: usize) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[1; 32]).expect("32 bytes"));
    let mut out = plain.to_vec();
    for (index, frame) in out.chunks_mut(frame_len).enumerate() {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(index as u64).to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), frame).expect("a short frame"));
    }
    out
}

fn new_file_key(roots: &Roots) -> Vec<u8> {
    let key = Key::generate(&SystemEntropy);
    roots.wrap_file_key(KeyNo(1), &key, &SystemEntropy).1
}

fn seal_rows(roots: &Roots) {
    black_box(record(roots, FILES).seal(roots, &SystemEntropy).expect("its epoch is known"));
}

fn open_rows(roots: &Roots, object: &[u8]) {
    black_box(object_hash(object));
    black_box(Record::open(Seq(1), object, roots).expect("what was sealed"));
}

/// The rows that so many new small files have.
fn record(roots: &Roots, files: usize) -> Record {
    let time = Timestamp::new(1_700_000_000, 1);
    let mut rows = Vec::new();
    for number in 0..files as u64 {
        let (ino, chunk, key, dir) = (InodeId(1000 + number), ChunkNo(number), KeyNo(number), InodeId(1));
        let name = Name::parse(format!("file-{number}")).expect("a name");
        let inode = InodeRow {
            mode: mode::FILE | 0o644,
            uid: 1000,
            gid: 1000,
            rdev: 0,
            nlink: 1,
            size: SMALL_LEN as u64,
            allocated: SMALL_LEN as u64,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            key: Some(key),
            body: InodeBody::File(vec![Extent { offset: 0, len: SMALL_LEN as u32, chunk, chunk_offset: 0 }]),
        };
        let id = chunk_id(&number.to_le_bytes());
        let frames = vec![SMALL_LEN as u32 + 17];
        let chunk_row = ChunkRow { pack: PackNo(1), offset: number as u32, len: SMALL_LEN as u32, key, id, frames };
        let wrapped = blake3(&number.to_le_bytes()).repeat(4)[..113].into();
        rows.extend([
            (RowKey::Inode(ino).encode(), Some(inode.encode())),
            (RowKey::Dirent(dir, name.clone()).encode(), Some(DirentRow { ino, file_type: mode::FILE }.encode())),
            (RowKey::Backref(ino, dir, name).encode(), Some(vec![])),
            (RowKey::Chunk(chunk).encode(), Some(chunk_row.encode())),
            (RowKey::FileKey(key).encode(), Some(FileKeyRow { epoch: Epoch(0), wrapped }.encode())),
        ]);
    }
    rows.sort();
    Record {
        epoch: roots.epoch(),
        seq: Seq(1),
        prev: Hash::ZERO,
        commit_id: [0; 16],
        slot: DeviceSlot(1),
        incarnation: Incarnation([0; 16]),
        high_water: IntentNo(1),
        high_water_hash: Hash::ZERO,
        time,
        rows,
        next: None,
    }
}

fn per_chunk<T>(run: impl Fn() -> T) -> Duration {
    median(|| (0..CHUNKS).for_each(|_| drop(run()))) / CHUNKS as u32
}

fn per_file<T>(run: impl Fn() -> T) -> Duration {
    median(|| (0..FILES).for_each(|_| drop(run()))) / FILES as u32
}

fn median(run: impl Fn()) -> Duration {
    run();
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = thread_time();
            run();
            thread_time() - start
        })
        .collect();
    took.sort();
    took[ROUNDS / 2]
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "the clock of a thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    (0..len.div_ceil(32) as u64).flat_map(|number| blake3(&number.to_le_bytes())).take(len).collect()
}
