//! Links made by the format's codec alone, so that a test can also make what no publisher would.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::collections::HashMap;

use bytes::Bytes;
use hushfs::base::{Name, PACK_LEN_TARGET, SystemEntropy, Timestamp};
use hushfs::format::link::{
    ChunkRef, Entry, EntryKind, Header, IndexEncoder, LinkKeys, LinkUrl, PIECE_LEN, RootKind, link_footer,
    seal_link_chunk, tombstone,
};
use hushfs::format::{ObjectName, box_head, box_pack_head};
use hushfs::store::Store;

pub enum Node {
    File(Vec<u8>),
    Program(Vec<u8>),
    /// Of zeros only, however long.
    Sparse(u64),
    Folder(BTreeMap<Vec<u8>, Node>),
    Symlink(Vec<u8>),
}

impl Node {
    pub fn folder<const N: usize>(entries: [(&[u8], Node); N]) -> Self {
        Self::Folder(entries.into_iter().map(|(name, node)| (name.to_vec(), node)).collect())
    }
}

/// One link and what was published under it.
pub struct TestLink {
    pub keys: LinkKeys,
    pub objects: Vec<(ObjectName, Bytes)>,
    number: u64,
}

/// Packs while they are filled.
struct Packs<'a> {
    keys: &'a LinkKeys,
    full: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    chunks: Vec<ChunkRef>,
    known: HashMap<[u8; 32], ChunkRef>,
}

impl Packs<'_> {
    fn add(&mut self, plain: &[u8]) -> ChunkRef {
        let place = (self.full.len() as u64 + 1, self.bytes.len() as u32);
        let (sealed, chunk) = seal_link_chunk(self.keys.id(), &self.keys.content_root(), plain, place, &SystemEntropy);
        if let Some(known) = self.known.get(&chunk.id.0) {
            return known.clone();
        }
        self.bytes.extend(sealed);
        self.chunks.push(chunk.clone());
        self.known.insert(chunk.id.0, chunk.clone());
        if self.bytes.len() as u64 >= PACK_LEN_TARGET {
            self.close();
        }
        chunk
    }

    fn close(&mut self) {
        let number = self.full.len() as u64 + 1;
        let key = self.keys.footer_key();
        let footer = link_footer(&self.chunks, self.bytes.len() as u64, self.keys.id(), number, &key, &SystemEntropy);
        self.bytes.extend(footer);
        self.full.push(std::mem::take(&mut self.bytes));
        self.chunks.clear();
    }
}

#[derive(Default)]
struct Sums {
    files: u64,
    bytes: u64,
}

impl TestLink {
    pub fn new(keys: LinkKeys) -> Self {
        Self { keys, objects: Vec::new(), number: 0 }
    }

    pub fn open() -> Self {
        Self::new(LinkKeys::generate(None, &SystemEntropy))
    }

    /// The next record, with packs of its own.
    pub fn publish(&mut self, title: &[u8], node: &Node, expiry: Option<i64>) {
        let mut packs = packs(&self.keys);
        let (mut index, mut sums) = (IndexEncoder::new(), Sums::default());
        write(&mut packs, &mut index, &mut sums, 0, title, node);
        let index = index.take();
        let kind = if matches!(node, Node::Folder(_)) { RootKind::Directory } else { RootKind::File };
        let (header, full) = finish(packs, title, kind, &sums, &index);
        self.keep(&header, full, expiry);
    }

    /// With index bytes that no encoder makes.
    pub fn publish_raw(&mut self, title: &[u8], kind: RootKind, (files, bytes): (u64, u64), index: &[u8]) {
        let (header, full) = finish(packs(&self.keys), title, kind, &Sums { files, bytes }, index);
        self.keep(&header, full, None);
    }

    fn keep(&mut self, header: &Header, packs: Vec<Vec<u8>>, expiry: Option<i64>) {
        self.number += 1;
        let id = self.keys.id();
        let expiry = expiry.map(|at| Timestamp::new(at, 0));
        let record = self.keys.seal(self.number, expiry, header, &SystemEntropy).expect("a record");
        let packs = (1..).zip(packs).map(|(number, pack)| (ObjectName::SharePack(id, number), pack.into()));
        self.objects = packs.collect();
        self.objects.push((ObjectName::Share(id, self.number), record.into()));
    }

    pub async fn upload(&self, store: &dyn Store) {
        for (name, bytes) in &self.objects {
            store.create(name, bytes.clone()).await.expect("created");
        }
    }

    pub fn tombstone(&self) -> (ObjectName, Vec<u8>) {
        let number = self.number + 1;
        (ObjectName::Share(self.keys.id(), number), tombstone(&self.keys.signer(), number))
    }

    /// Behind `#`.
    pub fn fragment(&self) -> String {
        let secret = self.keys.recipient.is_none().then(|| self.keys.secret.duplicate());
        let text = LinkUrl { host: None, id: self.keys.id(), secret }.text().to_string();
        text.split_once('#').expect("a fragment").1.to_owned()
    }

    /// As one file.
    pub fn boxed(&self) -> Vec<u8> {
        let (packs, record): (Vec<_>, Vec<_>) =
            self.objects.iter().partition(|(name, _)| matches!(name, ObjectName::SharePack(..)));
        let record = &record[0].1;
        let mut out = [&box_head(record.len() as u64), &record[..]].concat();
        for (name, bytes) in packs {
            let ObjectName::SharePack(_, number) = name else { unreachable!("only packs") };
            out.extend(box_pack_head(*number, bytes.len() as u64));
            out.extend(bytes);
        }
        out
    }
}

fn packs(keys: &LinkKeys) -> Packs<'_> {
    Packs { keys, full: Vec::new(), bytes: Vec::new(), chunks: Vec::new(), known: HashMap::new() }
}

fn finish(mut packs: Packs<'_>, title: &[u8], kind: RootKind, sums: &Sums, index: &[u8]) -> (Header, Vec<Vec<u8>>) {
    let index = index.chunks(PIECE_LEN as usize).map(|piece| packs.add(piece)).collect();
    packs.close();
    let title = Name::parse(title).expect("a title");
    let published = Timestamp::new(1_760_000_000, 0);
    (Header { title, published, kind, files: sums.files, bytes: sums.bytes, index }, packs.full)
}

fn write(packs: &mut Packs<'_>, index: &mut IndexEncoder, sums: &mut Sums, parent: u64, name: &[u8], node: &Node) {
    let name = Name::parse(name).expect("a name");
    let mtime = Timestamp::new(1_750_000_000, 0);
    let mut entry = |kind| index.entry(&Entry { parent, name: name.clone(), mtime, kind });
    match node {
        Node::File(bytes) | Node::Program(bytes) => {
            let executable = matches!(node, Node::Program(_));
            sums.files += 1;
            sums.bytes += bytes.len() as u64;
            let pieces: Vec<_> = (0..).zip(bytes.chunks(PIECE_LEN as usize)).collect();
            let full: Vec<_> = pieces.into_iter().filter(|(_, piece)| piece.iter().any(|byte| *byte != 0)).collect();
            entry(EntryKind::File { size: bytes.len() as u64, executable, chunks: full.len() as u64 });
            for (number, piece) in full {
                let chunk = packs.add(piece);
                index.chunk(number, &chunk);
            }
        }
        Node::Sparse(size) => {
            sums.files += 1;
            sums.bytes += size;
            entry(EntryKind::File { size: *size, executable: false, chunks: 0 });
        }
        Node::Symlink(target) => {
            entry(EntryKind::Symlink(target.clone().into()));
        }
        Node::Folder(entries) => {
            let number = entry(EntryKind::Directory);
            for (name, node) in entries {
                write(packs, index, sums, number, name, node);
            }
        }
    }
}
