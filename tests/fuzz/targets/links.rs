//! What a link has in the store, the link itself, what it is exported to, and what a browser asks the gateway for.

use super::choice;
use super::sealing::{Fixed, lz};
use http::{HeaderMap, HeaderValue};
use hushfs::base::{BLOCK_LEN, ByteRange, ChunkId, LinkId, Name, Timestamp};
use hushfs::crypto::{
    Context, Key, Kind, PrivateHalf, SEAL_OVERHEAD, SIGNATURE_LEN, Signer, seal_bulk, seal_to, sha256,
};
use hushfs::format::link::{
    ChunkRef, Header, IndexDecoder, IndexEncoder, IndexItem, LINK_TRAILER_LEN, LinkKeys, LinkProtection, LinkUrl,
    RootKind, SignedRecord, Step, decode_link_footer, decode_link_trailer, link_footer, open_link_chunk,
};

use hushfs::format::{Reader, box_head, box_pack_head, decode_box, padding};
use hushfs::gateway::{aligned_range, client_address, place_of};

const NUMBER: u64 = 7;
const SIGNED_AS: &[u8] = b"hushfs/v1/link-record\0";

fn signer() -> Signer {
    Signer::from_seed(&Key::from_bytes([3; 32]))
}

fn link() -> LinkId {
    signer().verifying_key().link_id()
}

fn secret() -> Key {
    Key::from_bytes([2; 32])
}

fn recipient() -> PrivateHalf {
    PrivateHalf::from_key(Key::from_bytes([7; 32]))
}

/// What stands before a record's sealed body.
fn head(flags: u8) -> Vec<u8> {
    [&b"hushlnk1\0"[..], &[flags], &signer().verifying_key().0, &NUMBER.to_le_bytes(), &[0; 8]].concat()
}

fn signed(mut object: Vec<u8>) -> Vec<u8> {
    let signature = signer().sign(&[SIGNED_AS, &object]);
    object.extend(signature);
    object
}

/// A record as its owner signs it, with this body.
fn with_body(mut head: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    padding::pad(&mut body, head.len() + SEAL_OVERHEAD + SIGNATURE_LEN);
    let fields: [&[u8]; 2] = [&NUMBER.to_le_bytes(), &head];
    let sealed = seal_bulk(&secret(), &Context::of_link(link(), Kind::LinkOuter, &fields), &body, &Fixed);
    head.extend(sealed);
    signed(head)
}

pub fn link_record(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 5);
    let (mut id, mut object) = (link(), Vec::new());
    match way {
        // Its owner is whoever it says.
        0 => {
            let public = data.get(10..42).and_then(|public| public.try_into().ok());
            id = public.map_or(id, |public| hushfs::crypto::VerifyingKey(public).link_id());
            object.extend(data);
        }
        1 => object.extend(signed(data.to_vec())),
        2 => object.extend(with_body(head(0), data)),
        3 => object.extend(with_body(head(0), &[&[0], &lz(true, data)[..]].concat())),
        _ => {
            let sealed = seal_to(&recipient().public(), &Context::of_link(link(), Kind::LinkSecret, &[]), data, &Fixed);
            // Only that of a secret has the right length.
            object.extend(with_body([head(1), sealed].concat(), b""));
        }
    }
    let record = SignedRecord::verify(id, NUMBER, object.clone()).ok()?;
    assert_eq!((record.link(), record.number(), record.bytes()), (id, NUMBER, &object[..]));
    assert!(SignedRecord::verify_any(id, object).as_ref() == Ok(&record));
    let _ = record.status(Timestamp::new(1_700_000_000, 0));
    let secret = match record.is_for_recipient() {
        true => record.secret_for(&recipient()).ok()?,
        false => secret(),
    };
    let outer = record.open(&secret).ok()?;
    if outer.needs_password() {
        // Deriving takes 64 MiB at least.
        assert!(outer.contents(None).is_err());
        return None;
    }
    let contents = outer.contents(None).ok()?;
    let keys = LinkKeys {
        seed: Key::from_bytes([3; 32]),
        secret: self::secret(),
        protection: LinkProtection::None,
        recipient: None,
    };
    assert_eq!(outer.contents_with(&keys).as_ref(), Ok(&contents));
    // As many references as one can decode are more than one may encode.
    let again = keys.seal(NUMBER, None, &contents.header, &Fixed).ok()?;
    let again = SignedRecord::verify(link(), NUMBER, again).and_then(|record| record.open(&self::secret()));
    assert_eq!(again.and_then(|outer| outer.contents(None)).as_ref(), Ok(&contents));
    Some(())
}

/// The sums that the record promised, and a stream that comes in pieces.
pub fn link_index(data: &[u8]) -> Option<()> {
    let mut reader = Reader::new("an input", data);
    let (is_directory, files, bytes) = (reader.u8().ok()? % 2 == 1, reader.varint().ok()?, reader.varint().ok()?);
    let piece = 1 + usize::from(reader.u8().ok()?) * 16;
    let stream = reader.raw(reader.remaining()).ok()?;
    let kind = if is_directory { RootKind::Directory } else { RootKind::File };
    let title = Name::parse("photos").expect("a name");
    let header = Header { title, published: Timestamp::new(0, 0), kind, files, bytes, index: vec![] };
    let mut decoder = IndexDecoder::new(&header);
    let mut pieces = stream.chunks(piece);
    let mut again = IndexEncoder::new();
    loop {
        match decoder.step().ok()? {
            Step::Item(IndexItem::Entry(number, entry)) => assert_eq!(again.entry(&entry), number),
            Step::Item(IndexItem::Chunk { piece, chunk }) => again.chunk(piece, &chunk),
            Step::More => match pieces.next() {
                Some(piece) => decoder.push(piece),
                None => decoder.end(),
            },
            Step::End => break,
        }
    }
    assert_eq!(again.take(), stream, "one tree has one encoding");
    Some(())
}

/// A reference and the bytes that it names. Its hash is made to fit, as whoever wrote the index would.
pub fn link_chunk(data: &[u8]) -> Option<()> {
    let mut reader = Reader::new("an input", data);
    let mut chunk = ChunkRef::decode(&mut reader).ok()?;
    let sealed = reader.raw(reader.remaining()).ok()?;
    chunk.sha256 = sha256(sealed);
    let root = Key::from_bytes([5; 32]);
    let plain = open_link_chunk(LinkId([9; 16]), &root, &chunk, sealed).ok()?;
    assert_eq!((plain.len(), sealed.len() as u64), (chunk.len as usize, chunk.sealed_len()));
    let id = ChunkId(hushfs::crypto::chunk_id(&plain).0);
    assert_eq!(id, chunk.id, "content that the index does not name");
    Some(())
}

pub fn link_pack(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 3);
    let (id, key) = (LinkId([9; 16]), Key::from_bytes([5; 32]));
    let fields: [&[u8]; 1] = [&NUMBER.to_le_bytes()];
    let sealed = |kind, plain: &[u8]| seal_bulk(&key, &Context::of_link(id, kind, &fields), plain, &Fixed);
    let object = match way {
        0 => data.to_vec(),
        // A trailer that names any place.
        1 => [vec![0; 300], sealed(Kind::LinkPackTrailer, data)].concat(),
        _ => {
            let (len, list) = (300usize, data);
            let mut list = list.to_vec();
            padding::pad(&mut list, len + SEAL_OVERHEAD + LINK_TRAILER_LEN);
            let footer = sealed(Kind::LinkPackFooter, &list);
            [vec![0; len], footer, sealed(Kind::LinkPackTrailer, &(len as u64).to_le_bytes())].concat()
        }
    };
    let place = decode_link_trailer(&object, object.len() as u64, id, NUMBER, &key).ok()?;
    let (start, end) = (usize::try_from(place.start).ok()?, usize::try_from(place.end).ok()?);
    let chunks = decode_link_footer(place, &object[start..end], id, NUMBER, &key).ok()?;
    let again = link_footer(&chunks, place.start, id, NUMBER, &key, &Fixed);
    let len = place.start + again.len() as u64;
    let place = decode_link_trailer(&again, len, id, NUMBER, &key).expect("what was written now");
    let footer = &again[..(place.end - place.start) as usize];
    assert_eq!(decode_link_footer(place, footer, id, NUMBER, &key).expect("what was written now"), chunks);
    Some(())
}

pub fn link_box(data: &[u8]) -> Option<()> {
    let open = decode_box(data).ok()?;
    let mut again = [&box_head(open.record.len() as u64)[..], open.record].concat();
    for (number, pack) in &open.packs {
        again.extend_from_slice(&box_pack_head(*number, pack.len() as u64));
        again.extend_from_slice(pack);
    }
    assert_eq!(again, data, "one box has one encoding");
    Some(())
}

pub fn link_url(data: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(data).ok()?;
    let url = LinkUrl::parse(text).ok()?;
    assert!(LinkUrl::parse(&url.text()).as_ref() == Ok(&url), "as it is shown it can be given again");
    Some(())
}

/// A line each: the path, the range, and what came through proxies.
pub fn gateway_request(data: &[u8]) -> Option<()> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let path = std::str::from_utf8(lines.next()?).ok()?;
    let place = place_of(path, false);
    assert!(place == "other" || path.starts_with(place.split("..").next().expect("a part")), "{place}");
    assert!(place.len() <= 50, "what a visitor made up is in the log: {place}");
    let range = std::str::from_utf8(lines.next().unwrap_or_default()).ok();
    for size in [0, 1, BLOCK_LEN, 5 * BLOCK_LEN + 7] {
        if let Ok(ByteRange { start, end }) = aligned_range(range, size) {
            assert!(start < end && end <= size && start % BLOCK_LEN == 0 && (end % BLOCK_LEN == 0 || end == size));
        }
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("x-forwarded-for", HeaderValue::from_bytes(line).ok()?);
    }
    let trusted = ["10.0.0.0/8", "::1"].map(|range| range.parse().expect("a range"));
    let stranger = "192.0.2.1".parse().expect("an address");
    assert_eq!(client_address(stranger, &headers, &trusted), stranger, "a header from nobody's proxy counts");
    let _ = client_address("10.1.2.3".parse().expect("an address"), &headers, &trusted);
    (place != "other").then_some(())
}
