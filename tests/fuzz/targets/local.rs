//! What lies on the local disk, and what comes over the control socket.

use super::choice;
use super::sealing::{EPOCH, Fixed, VOLUME, root, roots, sealed};
use hushfs::cli::control::{Reply, Request};
use hushfs::crypto::Kind;
use hushfs::format::intent::Intent;
use hushfs::format::journal::{FRAME_ALIGN, chain, decode_frame, encode_frame, peek_header};
use hushfs::format::state::{decode_accesses, encode_accesses, open_file, open_state_key, state_key_epoch};
use hushfs::format::{Reader, Writer};
use hushfs::meta::keyring::{Identity, Pin};
use hushfs::store::{Keep, aws_section_of};

pub fn journal_frame(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 2);
    let frame = match way {
        0 => data.to_vec(),
        _ => {
            let number = 11u64.to_le_bytes();
            let body = sealed(Kind::JournalFrame, &[&number], data);
            [&b"hjf1"[..], &(body.len() as u32).to_le_bytes(), &number, &body].concat()
        }
    };
    let header = peek_header(&frame);
    let Ok((number, payload)) = decode_frame(&frame, &root(), VOLUME) else { return None };
    let header = header.expect("what opens has a header");
    assert_eq!(header.number, number);
    assert!(header.len.is_multiple_of(FRAME_ALIGN as u64));
    let again = encode_frame(number, &payload, &root(), VOLUME, &Fixed);
    assert_eq!(again.len() as u64, header.len, "one payload has one encoding");
    assert_eq!(decode_frame(&again, &root(), VOLUME).expect("what was sealed now"), (number, payload));
    Some(())
}

/// One after another.
pub fn intent(data: &[u8]) -> Option<()> {
    let mut reader = Reader::new("input", data);
    let mut hash = hushfs::base::Hash::ZERO;
    let mut again = Writer::new();
    while let Ok(intent) = Intent::decode(&mut reader) {
        hash = chain(&hash, &intent);
        intent.encode(&mut again);
        let read = data.len() - reader.remaining();
        assert_eq!(again.len(), read, "one intent has one encoding: {intent:?}");
    }
    let again = again.finish();
    assert_eq!(again, data[..again.len()], "one intent has one encoding");
    (!again.is_empty()).then_some(())
}

pub fn state_file(data: &[u8]) -> Option<()> {
    let (way, data) = choice(data, 6);
    match way {
        0 => {
            let _ = state_key_epoch(data);
            open_state_key(data, &roots()).ok().map(drop)
        }
        1 => {
            let epoch = EPOCH.0.to_le_bytes();
            let file = [&b"hushstk1"[..], &epoch, &sealed(Kind::StateKey, &[&epoch, b""], data)].concat();
            let key = open_state_key(&file, &roots());
            assert_eq!(key.is_ok(), data.len() == 32);
            key.ok().map(drop)
        }
        2 => open_file(&root(), VOLUME, "head", data).ok().map(drop),
        3 => Pin::decode(data).ok().map(drop),
        4 => Identity::decode(data).ok().map(drop),
        _ => {
            assert_eq!(encode_accesses(&decode_accesses(data).ok()?), data);
            Some(())
        }
    }
}

pub fn kept_copy(data: &[u8]) -> Option<()> {
    let content = Keep::content_of(data.to_vec())?;
    assert!(data.ends_with(&content));
    Some(())
}

/// A line each way.
pub fn control(data: &[u8]) -> Option<()> {
    let request = serde_json::from_slice::<Request>(data).ok().map(|request| {
        let again = serde_json::to_vec(&request).expect("plain values");
        assert_eq!(serde_json::from_slice::<Request>(&again).expect("what was written now"), request);
    });
    let reply = serde_json::from_slice::<Reply>(data).ok().map(|reply| {
        let again = serde_json::to_vec(&reply).expect("plain values");
        assert_eq!(serde_json::from_slice::<Reply>(&again).expect("what was written now"), reply);
    });
    request.or(reply)
}

pub fn aws_profile(data: &[u8]) -> Option<()> {
    aws_section_of(std::str::from_utf8(data).ok()?, "default").ok()?.map(drop)
}
