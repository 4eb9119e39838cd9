//! The bounds that nothing behind `validate` looks at again: what is just within and what is just beyond.

use super::*;

type Why = Result<(), &'static str>;

fn why<T>(decoded: Result<T, FormatError>) -> Why {
    decoded.map(drop).map_err(|error| error.why)
}

const TIME: Timestamp = Timestamp::new(5, 6);

fn inode(mode: u32, body: InodeBody) -> InodeRow {
    InodeRow {
        mode,
        uid: 1,
        gid: 2,
        rdev: 0,
        nlink: 1,
        size: 10,
        allocated: 10,
        atime: TIME,
        mtime: TIME,
        ctime: TIME,
        btime: TIME,
        version: 3,
        key: None,
        body,
    }
}

fn file(extents: Vec<Extent>) -> InodeRow {
    inode(mode::FILE | 0o644, InodeBody::File(extents))
}

fn extent(offset: u64, len: u32, chunk_offset: u32) -> Extent {
    Extent { offset, len, chunk: ChunkNo(7), chunk_offset }
}

fn inode_again(row: &InodeRow) -> Why {
    why(InodeRow::decode(&row.encode()).inspect(|again| assert_eq!(again, row)))
}

fn window_again(window: u64, extents: &[Extent]) -> Why {
    let mut out = Writer::new();
    out.varint(extents.len() as u64);
    let (mut end, mut chunk) = (window.wrapping_mul(EXTENT_WINDOW_LEN), 0u64);
    for extent in extents {
        out.varint(extent.offset.wrapping_sub(end)).varint(extent.len.into());
        out.signed(extent.chunk.0.wrapping_sub(chunk) as i64).varint(extent.chunk_offset.into());
        (end, chunk) = (extent.offset.wrapping_add(extent.len.into()), extent.chunk.0);
    }
    why(decode_window(window, &out.finish()).inspect(|again| assert_eq!(again, extents)))
}

#[test]
fn an_attributes_name_has_1_to_255_bytes_and_no_nul() {
    for name in [&b"x"[..], &[b'x'; 255], b"user.\xff"] {
        assert_eq!(XattrName::parse(name).map(|parsed| parsed.as_bytes().to_vec()), Some(name.to_vec()));
    }
    for name in [&b""[..], &[b'x'; 256], b"\0", b"user.\0x"] {
        assert_eq!(XattrName::parse(name), None);
    }
}

#[test]
fn a_cookie_is_behind_those_of_the_start_and_the_two_dots() {
    let names: Vec<_> = (0..1000).map(|number: u32| Name::parse(number.to_string()).unwrap()).collect();
    assert!(names.iter().all(|name| (3..1 << 62).contains(&dir_cookie(name)) || dir_cookie(name) < (1 << 62) + 3));
    let hash = crate::crypto::blake3(b"a");
    let first = u64::from_be_bytes(*hash.first_chunk().unwrap());
    assert_eq!(dir_cookie(&Name::parse("a").unwrap()), (first >> 2) + 3);
}

#[test]
fn a_type_is_what_the_mode_says() {
    use mode::*;
    for kind in [FIFO, CHAR, DIR, BLOCK, FILE, LINK, SOCKET] {
        let body = match kind {
            FILE => InodeBody::File(vec![]),
            LINK => InodeBody::Symlink(b"a".as_slice().into()),
            _ => InodeBody::None,
        };
        let row = inode(kind | 0o7777, body);
        assert_eq!((row.is_dir(), row.is_file()), (kind == DIR, kind == FILE));
        assert_eq!(inode_again(&row), Ok(()));
        let dirent = DirentRow { ino: InodeId(3), file_type: kind };
        assert_eq!(DirentRow::decode(&dirent.encode()), Ok(dirent));
    }
    for kind in [0, 0o030000, 0o050000, 0o170000] {
        assert_eq!(inode_again(&inode(kind | 0o644, InodeBody::None)), Err("an unknown file type"));
        let dirent = DirentRow { ino: InodeId(3), file_type: kind };
        assert_eq!(why(DirentRow::decode(&dirent.encode())), Err("an unknown file type"));
    }
    assert_eq!(inode_again(&inode(DIR | 1 << 16, InodeBody::None)), Err("an unknown mode bit"));
    assert_eq!(inode_again(&inode(DIR | 1 << 31, InodeBody::None)), Err("an unknown mode bit"));
}

#[test]
fn a_file_has_less_than_2_to_the_63_bytes_and_8_extents_at_most_in_its_row() {
    assert_eq!(inode_again(&InodeRow { size: FILE_LEN_MAX, ..file(vec![]) }), Ok(()));
    assert_eq!(inode_again(&InodeRow { size: FILE_LEN_MAX + 1, ..file(vec![]) }), Err("a size over 2^63"));
    let extents = |count: u64| (0..count).map(|at| extent(at * 10, 10, 0)).collect();
    assert_eq!(inode_again(&file(extents(8))), Ok(()));
    assert_eq!(inode_again(&file(extents(9))), Err("too many extents in an inode"));
    let row = InodeRow { allocated: 1 << 40, key: Some(KeyNo(5)), ..file(extents(2)) };
    assert_eq!(inode_again(&row), Ok(()));
    assert_eq!(InodeRow::decode_allocated(&row.encode()), Ok(1 << 40));
}

#[test]
fn a_symlinks_target_has_1_to_4095_bytes_and_no_nul() {
    let link = |target: &[u8]| inode_again(&inode(mode::LINK | 0o777, InodeBody::Symlink(target.into())));
    assert_eq!((link(b"a"), link(&[b'a'; 4095])), (Ok(()), Ok(())));
    for target in [&b""[..], &[b'a'; 4096], b"a\0"] {
        assert_eq!(link(target), Err("an invalid symlink target"));
    }
}

#[test]
fn an_extent_is_within_its_chunk_and_its_window() {
    let chunk_len = CHUNK_LEN as u32;
    let last = EXTENT_WINDOW_LEN - 5;
    for extents in [
        vec![],
        vec![extent(0, 1, 0)],
        vec![extent(0, chunk_len, 0), extent(u64::from(chunk_len), 1, chunk_len - 1)],
        vec![extent(3, 5, 0), extent(last, 5, 0)],
    ] {
        assert_eq!(window_again(0, &extents), Ok(()));
        let moved = |extent: &Extent| Extent { offset: extent.offset + 3 * EXTENT_WINDOW_LEN, ..*extent };
        let moved: Vec<_> = extents.iter().map(moved).collect();
        assert_eq!(window_again(3, &moved), Ok(()));
        assert_eq!(why(decode_window(3, &encode_window(&moved))), Ok(()));
    }
    for extents in [vec![extent(0, 0, 0)], vec![extent(0, chunk_len + 1, 0)], vec![extent(0, 2, chunk_len - 1)]] {
        assert_eq!(window_again(0, &extents), Err("an extent that no chunk can hold"));
    }
    assert_eq!(window_again(0, &[extent(last, 6, 0)]), Err("an extent outside its window"));
    // Before its window, and before the one before it: gaps do not go back.
    assert_eq!(window_again(1, &[extent(0, 1, 0)]), Err("an offset beyond 2^64"));
    assert_eq!(window_again(0, &[extent(9, 5, 0), extent(13, 5, 0)]), Err("an offset beyond 2^64"));
    let last_window = FILE_LEN_MAX / EXTENT_WINDOW_LEN;
    let start = last_window * EXTENT_WINDOW_LEN;
    assert_eq!(window_again(last_window, &[extent(start, 5, 0)]), Ok(()));
    assert_eq!(window_again(last_window + 1, &[]), Err("a window beyond 2^63"));
    assert_eq!(window_again(u64::MAX / 2, &[]), Err("a window beyond 2^63"));
}

#[test]
fn a_chunk_has_1_mib_at_most_and_frames_of_possible_lengths() {
    let row = |len: u32, frames: Vec<u32>| {
        let row = ChunkRow { pack: PackNo(1), offset: 9, len, key: KeyNo(2), id: ChunkId([3; 32]), frames };
        why(ChunkRow::decode(&row.encode()).inspect(|again| assert_eq!(*again, row)))
    };
    let frame = FRAME_LEN as u32;
    assert_eq!(row(1, vec![18]), Ok(()));
    assert_eq!(row(frame, vec![frame + 17]), Ok(()));
    assert_eq!(row(frame + 1, vec![frame + 17, 18]), Ok(()));
    assert_eq!(row(1 << 20, vec![18; 16]), Ok(()));
    assert_eq!(
        (row(0, vec![]), row(0, vec![18])),
        (Err("an impossible chunk length"), Err("an impossible chunk length"))
    );
    assert_eq!(row((1 << 20) + 1, vec![18; 17]), Err("an impossible chunk length"));
    assert_eq!(
        (row(1, vec![17]), row(1, vec![frame + 18])),
        (Err("an impossible frame length"), Err("an impossible frame length"))
    );
    assert_eq!((row(1, vec![]), row(1, vec![18, 18])), (Err("cut short"), Err("bytes after the end")));
}

#[test]
fn a_device_has_a_name_of_255_bytes_at_most_and_counters_of_48_bits() {
    let row = |name: &str, next: Numbers| {
        let row = DeviceRow { name: name.into(), incarnation: Incarnation([1; 16]), next, registered: TIME };
        why(DeviceRow::decode(&row.encode()).inspect(|again| assert_eq!(*again, row)))
    };
    let max = (1 << 48) - 1;
    let all = Numbers { inode: max, chunk: max, key: max, pack: max };
    assert_eq!((row("", Numbers::FIRST), row(&"x".repeat(255), all)), (Ok(()), Ok(())));
    assert_eq!(row(&"x".repeat(256), all), Err("a name over 255 bytes"));
    let over = max + 1;
    for next in [
        Numbers { inode: over, ..all },
        Numbers { chunk: over, ..all },
        Numbers { key: over, ..all },
        Numbers { pack: over, ..all },
    ] {
        assert_eq!(row("x", next), Err("a counter over 48 bits"));
    }
}

#[test]
fn what_is_validated_is_of_the_kind_that_its_key_says() {
    let name = || Name::parse("a").unwrap();
    let backref = RowKey::Backref(InodeId(2), InodeId(1), name()).encode();
    assert_eq!((why(validate(&backref, b"")), why(validate(&backref, b"x"))), (Ok(()), Err("bytes after the end")));
    let xattr = RowKey::Xattr(InodeId(2), XattrName::parse(b"user.x").unwrap()).encode();
    assert_eq!(why(validate(&xattr, &[0; 65_536])), Ok(()));
    assert_eq!(why(validate(&xattr, &[0; 65_537])), Err("a value over 64 KiB"));
    let window = RowKey::Extents(InodeId(2), 3).encode();
    assert_eq!(why(validate(&window, &encode_window(&[extent(3 * EXTENT_WINDOW_LEN, 5, 0)]))), Ok(()));
    assert_eq!(why(validate(&RowKey::Inode(InodeId(2)).encode(), &file(vec![]).encode())), Ok(()));
    let dirent = DirentRow { ino: InodeId(3), file_type: mode::FILE }.encode();
    let key = RowKey::Dirent(InodeId(1), name()).encode();
    assert_eq!(why(validate(&key, &dirent)), Ok(()));
    // A cookie that is another name's.
    let mut moved = key;
    moved[16] ^= 1;
    assert_eq!(why(validate(&moved, &dirent)), Err("a cookie that is not the name's"));
    for kind in [
        RowKey::Inode(InodeId(2)),
        RowKey::Extents(InodeId(2), 0),
        RowKey::Dirent(InodeId(1), name()),
        RowKey::Chunk(ChunkNo(2)),
        RowKey::FileKey(KeyNo(2)),
        RowKey::Pack(PackNo(2)),
        RowKey::Device(DeviceSlot(2)),
        RowKey::Link(LinkId([2; 16])),
    ] {
        assert!(validate(&kind.encode(), &[]).is_err(), "{kind:?}");
        assert!(validate(&kind.encode(), &[0xff; 300]).is_err(), "{kind:?}");
        assert!(RowKey::decode(&[&kind.encode()[..], b"\0"].concat()).is_err(), "{kind:?}");
    }
}
