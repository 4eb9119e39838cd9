use super::*;

const TIME: Timestamp = Timestamp::new(5, 6);

fn again(intent: &Intent) -> Result<Intent, &'static str> {
    let mut out = Writer::new();
    intent.encode(&mut out);
    let bytes = out.finish();
    let mut reader = Reader::new("test", &bytes);
    let intent = Intent::decode(&mut reader).map_err(|error| error.why)?;
    reader.finish().map_err(|error| error.why)?;
    Ok(intent)
}

fn change(change: Change) -> Result<(), &'static str> {
    let intent =
        Intent::Write { ino: InodeId(9), base: 0, size: 1, mtime: TIME, time: TIME, key: None, changes: vec![change] };
    again(&intent).map(|found| assert_eq!(found, intent))
}

#[test]
fn a_symlinks_target_has_at_most_4095_bytes() {
    let create = |len| Intent::Create {
        parent: InodeId(1),
        name: Name::parse("a").unwrap(),
        ino: InodeId(9),
        node: NewInode { mode: 0o120_777, uid: 1, gid: 2, rdev: 0, time: TIME, target: Some(vec![b'x'; len].into()) },
    };
    assert_eq!(again(&create(4095)), Ok(create(4095)));
    assert_eq!(again(&create(4096)), Err("a symlink target over 4,095 bytes"));
}

#[test]
fn an_attribute_has_at_most_64_kib_and_none_once_it_is_removed() {
    let set = |value: Option<usize>| Intent::SetXattr {
        ino: InodeId(9),
        name: XattrName::parse(b"user.x").unwrap(),
        value: value.map(|len| vec![7; len].into()),
        time: TIME,
    };
    for value in [None, Some(0), Some(65_536)] {
        assert_eq!(again(&set(value)), Ok(set(value)));
    }
    assert_eq!(again(&set(Some(65_537))), Err("an attribute over 64 KiB"));
    let mut out = Writer::new();
    out.u8(7).varint(9).bytes(b"user.x").u8(0).bytes(b"x").time(TIME);
    let removed = out.finish();
    let refused = Intent::decode(&mut Reader::new("test", &removed)).unwrap_err();
    assert_eq!(refused.why, "a value of what is removed");
}

#[test]
fn an_extent_is_within_a_chunk_and_a_file() {
    let extent =
        |offset, len, chunk_offset| change(Change::Extent(Extent { offset, len, chunk: ChunkNo(3), chunk_offset }));
    let chunk_len = CHUNK_LEN as u32;
    for (offset, len, chunk_offset) in
        [(0, 1, 0), (7, chunk_len, 0), (7, 1, chunk_len - 1), (u64::MAX - 5, 5, 0), (1, chunk_len - 3, 3)]
    {
        assert_eq!(extent(offset, len, chunk_offset), Ok(()));
    }
    for (offset, len, chunk_offset) in [
        (0, 0, 0),
        (0, chunk_len + 1, 0),
        (0, chunk_len - 2, 3),
        (0, 1, u32::MAX),
        (u64::MAX - 5, 6, 0),
        (u64::MAX, 0, 0),
    ] {
        assert_eq!(extent(offset, len, chunk_offset), Err("an extent that no chunk can hold"));
    }
}

#[test]
fn bytes_and_holes_are_within_64_bits() {
    let inline = |offset| change(Change::Inline { offset, data: b"abc".as_slice().into() });
    assert_eq!((inline(0), inline(u64::MAX - 3)), (Ok(()), Ok(())));
    assert_eq!(inline(u64::MAX - 2), Err("an offset beyond 2^64"));
    let hole = |start, end| change(Change::Hole(ByteRange { start, end }));
    assert_eq!((hole(3, 3), hole(0, u64::MAX)), (Ok(()), Ok(())));
    assert_eq!(hole(4, 3), Err("a range that ends before it starts"));
}
