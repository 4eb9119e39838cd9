use super::*;
use crate::base::{ChunkId, FRAME_LEN};
use proptest::prelude::*;

fn chunk(len: u64) -> ChunkRef {
    let frames = (0..len.div_ceil(FRAME_LEN)).map(|_| 20).collect();
    ChunkRef { pack: 1, offset: 0, len: len as u32, id: ChunkId([1; 32]), frames, sha256: [2; 32] }
}

fn header(kind: RootKind, files: u64, bytes: u64) -> Header {
    let (title, published) = (Name::parse("shared").unwrap(), Timestamp::new(0, 0));
    Header { title, published, kind, files, bytes, index: vec![] }
}

fn entry(parent: u64, name: &str, kind: EntryKind) -> Entry {
    Entry { parent, name: Name::parse(name).unwrap(), mtime: Timestamp::new(-5, 7), kind }
}

fn file(size: u64, chunks: u64) -> EntryKind {
    EntryKind::File { size, executable: false, chunks }
}

fn encode(items: &[IndexItem]) -> Vec<u8> {
    let mut encoder = IndexEncoder::new();
    for item in items {
        match item {
            IndexItem::Entry(number, entry) => assert_eq!(encoder.entry(entry), *number),
            IndexItem::Chunk { piece, chunk } => encoder.chunk(*piece, chunk),
        }
    }
    encoder.take()
}

/// Pushes `step` bytes at a time.
fn decode(header: &Header, bytes: &[u8], step: usize) -> Result<Vec<IndexItem>, FormatError> {
    let mut decoder = IndexDecoder::new(header);
    let (mut pieces, mut items) = (bytes.chunks(step), vec![]);
    loop {
        match decoder.step()? {
            Step::Item(item) => items.push(item),
            Step::End => return Ok(items),
            Step::More => match pieces.next() {
                Some(piece) => decoder.push(piece),
                None => decoder.end(),
            },
        }
    }
}

fn number(entries: Vec<Entry>) -> Vec<IndexItem> {
    (0..).zip(entries).map(|(number, entry)| IndexItem::Entry(number, entry)).collect()
}

fn why(items: &[IndexItem], header: &Header) -> &'static str {
    decode(header, &encode(items), 1 << 20).unwrap_err().why
}

fn a_tree() -> (Header, Vec<IndexItem>) {
    let size = 2 * PIECE_LEN + 5;
    let mut items = number(vec![
        entry(0, "shared", EntryKind::Directory),
        entry(0, "a", EntryKind::Directory),
        entry(1, "a", EntryKind::Directory),
        entry(2, "link", EntryKind::Symlink(b"../x".as_slice().into())),
        entry(1, "b", file(0, 0)),
        entry(0, "big", EntryKind::File { size, executable: true, chunks: 2 }),
    ]);
    items.push(IndexItem::Chunk { piece: 0, chunk: chunk(PIECE_LEN) });
    items.push(IndexItem::Chunk { piece: 2, chunk: chunk(5) });
    items.push(IndexItem::Entry(6, entry(0, "last", EntryKind::Directory)));
    (header(RootKind::Directory, 2, size), items)
}

#[test]
fn a_tree_comes_back_however_it_is_cut() {
    let (header, items) = a_tree();
    let bytes = encode(&items);
    for step in [1, 2, 7, 100, 1 << 20] {
        assert_eq!(decode(&header, &bytes, step).unwrap(), items);
    }
}

#[test]
fn a_shared_file_is_an_index_of_one_entry() {
    let items = number(vec![entry(0, "shared", file(0, 0))]);
    assert_eq!(decode(&header(RootKind::File, 1, 0), &encode(&items), 9).unwrap(), items);
    assert_eq!(why(&items, &header(RootKind::Directory, 1, 0)), "a first entry that is not the record's");
    assert_eq!(why(&items, &header(RootKind::File, 1, 1)), "not the files that the record promised");
    assert_eq!(why(&[], &header(RootKind::File, 0, 0)), "no entry");
    let link = number(vec![entry(0, "shared", EntryKind::Symlink(b"x".as_slice().into()))]);
    assert_eq!(why(&link, &header(RootKind::File, 0, 0)), "a first entry that is not the record's");
}

#[test]
fn names_that_come_twice_or_without_their_parent_are_refused() {
    let folder = header(RootKind::Directory, 0, 0);
    let of = |entries: &[(u64, &str)]| {
        let mut all = vec![entry(0, "shared", EntryKind::Directory)];
        all.extend(entries.iter().map(|(parent, name)| entry(*parent, name, EntryKind::Directory)));
        number(all)
    };
    assert_eq!(why(&of(&[(0, "a"), (0, "a")]), &folder), "names that do not ascend");
    assert_eq!(why(&of(&[(0, "b"), (0, "a")]), &folder), "names that do not ascend");
    assert_eq!(why(&of(&[(0, "a"), (0, "b"), (1, "c")]), &folder), "a parent that is no open directory");
    assert_eq!(why(&of(&[(1, "a")]), &folder), "a parent that is no open directory");
    assert_eq!(why(&of(&[(7, "a")]), &folder), "a parent that is no open directory");
    let below_a_file = number(vec![
        entry(0, "shared", EntryKind::Directory),
        entry(0, "a", file(0, 0)),
        entry(1, "b", EntryKind::Directory),
    ]);
    assert_eq!(why(&below_a_file, &header(RootKind::Directory, 1, 0)), "a parent that is no open directory");
    let deep: Vec<(u64, &str)> = (0..DEPTH_MAX as u64).map(|parent| (parent, "d")).collect();
    assert_eq!(why(&of(&deep), &folder), "directories too deep in each other");
    assert!(decode(&folder, &encode(&of(&deep[1..].iter().map(|(p, n)| (p - 1, *n)).collect::<Vec<_>>())), 99).is_ok());
}

#[test]
fn bytes_that_no_encoder_writes_are_refused() {
    // Parent, name, type and flag, time; then what is behind them.
    let refused = |name: &[u8], kind, executable, more: &dyn Fn(&mut Writer)| {
        let mut out = Writer::new();
        out.varint(0).bytes(name).u8(kind).u8(executable).time(Timestamp::new(0, 0));
        more(&mut out);
        decode(&header(RootKind::File, 1, 0), &out.finish(), 1 << 20).unwrap_err().why
    };
    let empty = |out: &mut Writer| {
        out.varint(0).varint(0);
    };
    for name in [&b".."[..], b".", b"", b"a/b", b"a\0b", &[b'x'; 256]] {
        assert_eq!(refused(name, 1, 0, &empty), "an invalid name");
    }
    assert_eq!(refused(b"a", 4, 0, &empty), "an unknown type");
    assert_eq!(refused(b"a", 0, 0, &empty), "an unknown type");
    assert_eq!(refused(b"a", 1, 2, &empty), "an unknown flag");
    assert_eq!(refused(b"a", 2, 1, &empty), "an unknown flag");
    let target = |target: &'static [u8]| {
        move |out: &mut Writer| {
            out.bytes(target);
        }
    };
    assert_eq!(refused(b"a", 3, 0, &target(b"")), "an invalid symlink target");
    assert_eq!(refused(b"a", 3, 0, &target(b"a\0")), "an invalid symlink target");
    assert_eq!(refused(b"a", 3, 0, &target(&[b'x'; 4096])), "an invalid symlink target");
    assert_eq!(refused(b"a", 3, 0, &target(&[b'x'; 4095])), "a first entry that is not the record's");
    let too_large = |out: &mut Writer| {
        out.varint(1 << 63).varint(0);
    };
    assert_eq!(refused(b"a", 1, 0, &too_large), "a size over 2^63");
    let largest = |out: &mut Writer| {
        out.varint((1 << 63) - 1).varint(0);
    };
    assert_eq!(refused(b"a", 1, 0, &largest), "a first entry that is not the record's");
    let cut = |out: &mut Writer| {
        out.varint(5);
    };
    assert_eq!(refused(b"shared", 1, 0, &cut), "cut short");
}

#[test]
fn chunks_that_do_not_fit_their_file_are_refused() {
    let with = |size, count, chunks: &[(u64, ChunkRef)]| {
        let mut items = number(vec![entry(0, "shared", file(size, count))]);
        items.extend(chunks.iter().map(|(piece, chunk)| IndexItem::Chunk { piece: *piece, chunk: chunk.clone() }));
        why(&items, &header(RootKind::File, 1, size))
    };
    let (whole, rest) = (chunk(PIECE_LEN), chunk(5));
    let size = PIECE_LEN + 5;
    assert_eq!(with(size, 3, &[]), "more chunks than the file has");
    assert_eq!(with(size, 2, &[(0, whole.clone())]), "cut short");
    assert_eq!(with(size, 2, &[(1, rest.clone()), (0, whole.clone())]), "chunks that do not ascend within the file");
    assert_eq!(with(size, 2, &[(0, whole.clone()), (0, whole.clone())]), "chunks that do not ascend within the file");
    assert_eq!(with(size, 1, &[(2, rest.clone())]), "chunks that do not ascend within the file");
    assert_eq!(with(size, 1, &[(0, rest)]), "a chunk that does not fit the file");
    assert_eq!(with(size, 1, &[(1, whole)]), "a chunk that does not fit the file");
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_decoded_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..50) {
        let _ = decode(&header(RootKind::Directory, 0, 0), &bytes, step);
    }

    #[test]
    fn a_changed_byte_never_panics(at: prop::sample::Index, byte: u8) {
        let (header, items) = a_tree();
        let mut bytes = encode(&items);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&header, &bytes, 64);
    }
}

#[test]
fn memory_does_not_grow_with_the_stream() {
    let mut decoder = IndexDecoder::new(&header(RootKind::Directory, 0, 0));
    let mut encoder = IndexEncoder::new();
    encoder.entry(&entry(0, "shared", EntryKind::Directory));
    let mut most = 0;
    for number in 0..20_000u32 {
        encoder.entry(&entry(0, &format!("{number:08}"), EntryKind::Directory));
        decoder.push(&encoder.take());
        while let Step::Item(_) = decoder.step().unwrap() {}
        most = most.max(decoder.buffer.len() + decoder.open.len());
    }
    assert!(most < 2 * ITEM_LEN_MAX, "{most}");
}

#[test]
fn as_many_bytes_as_the_longest_item_has_are_enough() {
    let (header, items) = a_tree();
    let mut decoder = IndexDecoder::new(&header);
    decoder.push(&encode(&items));
    decoder.buffer.resize(ITEM_LEN_MAX, 0);
    assert!(matches!(decoder.step(), Ok(Step::Item(_))));
    assert!(matches!(decoder.step(), Ok(Step::More)));
}
