//! Small files of real kinds, made here so that none has to be kept.

#![allow(dead_code, reason = "each test binary uses a part of it")]

/// Bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A square of colours: RGB without compression, in stored blocks.
pub fn png(side: u32) -> Vec<u8> {
    let mut raw = Vec::new();
    for y in 0..side {
        raw.push(0);
        raw.extend((0..side).flat_map(|x| [(x * 255 / side) as u8, (y * 255 / side) as u8, 128]));
    }
    let mut data = vec![0x78, 0x01];
    let blocks: Vec<_> = raw.chunks(0xffff).collect();
    for (index, block) in blocks.iter().enumerate() {
        data.push(u8::from(index + 1 == blocks.len()));
        data.extend((block.len() as u16).to_le_bytes());
        data.extend((!(block.len() as u16)).to_le_bytes());
        data.extend(*block);
    }
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    data.extend((b << 16 | a).to_be_bytes());
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [(b"IHDR", &header[..]), (b"IDAT", &data), (b"IEND", &[])] {
        out.extend((body.len() as u32).to_be_bytes());
        let checked = [&kind[..], body].concat();
        out.extend(&checked);
        out.extend(crc32(&checked).to_be_bytes());
    }
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// So many seconds of a wave at 8 kHz.
pub fn tone(seconds: u32) -> Vec<u8> {
    let samples = seconds * 8000;
    let mut out = b"RIFF".to_vec();
    out.extend((36 + samples).to_le_bytes());
    out.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data");
    out.extend(samples.to_le_bytes());
    out.extend((0..samples).map(|n| (128.0 + 60.0 * (f64::from(n) * 0.3).sin()) as u8));
    out
}

/// A grey picture of 16 x 16 pixels in VP8, which needs no other.
const FRAME: [u8; 22] =
    [0x30, 0x01, 0x00, 0x9d, 0x01, 0x2a, 16, 0, 16, 0, 0x0e, 0xc0, 0xfe, 0x25, 0xa4, 0x00, 0x03, 0x70, 0, 0, 0, 0];

/// WebM of so many pictures, half a second each, with so many bytes between one and the next that mean nothing.
pub fn film(frames: u32, padding: usize) -> Vec<u8> {
    let head = element(
        0x1a45_dfa3,
        &[
            number(0x4286, 1),
            number(0x42f7, 1),
            number(0x42f2, 4),
            number(0x42f3, 8),
            element(0x4282, b"webm"),
            number(0x4287, 2),
            number(0x4285, 2),
        ]
        .concat(),
    );
    let duration = element(0x4489, &(f64::from(frames) * 500.0).to_be_bytes());
    let apps = [element(0x4d80, b"tests"), element(0x5741, b"tests")].concat();
    let info = element(0x1549_a966, &[number(0x2a_d7b1, 1_000_000), duration, apps].concat());
    let size = element(0xe0, &[number(0xb0, 16), number(0xba, 16)].concat());
    let track = [number(0xd7, 1), number(0x73c5, 1), number(0x83, 1), element(0x86, b"V_VP8"), size].concat();
    let tracks = element(0x1654_ae6b, &element(0xae, &track));
    let noise = noise(padding);
    let clusters: Vec<_> = (0..frames)
        .map(|frame| {
            let block = element(0xa3, &[&[0x81, 0, 0, 0x80][..], &FRAME].concat());
            element(0x1f43_b675, &[number(0xe7, frame * 500), block, element(0xec, &noise)].concat())
        })
        .collect();
    // Where each picture is, from the segment's start; all numbers have four bytes, so its length is known before.
    let cues = |first: usize| {
        let mut at = first;
        let points = clusters.iter().zip(0u32..).flat_map(|(cluster, frame)| {
            let place = element(0xb7, &[number(0xf7, 1), number(0xf1, at as u32)].concat());
            at += cluster.len();
            element(0xbb, &[number(0xb3, frame * 500), place].concat())
        });
        element(0x1c53_bb6b, &points.collect::<Vec<_>>())
    };
    let before = info.len() + tracks.len();
    let cues = cues(before + cues(0).len());
    let segment = element(0x1853_8067, &[info, tracks, cues, clusters.concat()].concat());
    [head, segment].concat()
}

/// An element of EBML, its length in eight bytes.
fn element(id: u32, body: &[u8]) -> Vec<u8> {
    let id = id.to_be_bytes();
    let start = id.iter().position(|byte| *byte != 0).unwrap_or(3);
    [&id[start..], &(1 << 56 | body.len() as u64).to_be_bytes(), body].concat()
}

fn number(id: u32, value: u32) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

/// One page with a line of text.
pub fn pdf() -> Vec<u8> {
    let text = "BT /F1 24 Tf 40 120 Td (A paper that was shared) Tj ET";
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{text}\nendstream", text.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let (mut out, mut places) = (b"%PDF-1.4\n".to_vec(), Vec::new());
    for (index, object) in objects.iter().enumerate() {
        places.push(out.len());
        out.extend(format!("{} 0 obj\n{object}\nendobj\n", index + 1).bytes());
    }
    let start = out.len();
    out.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    out.extend(places.iter().flat_map(|place| format!("{place:010} 00000 n \n").into_bytes()));
    out.extend(format!("trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1).bytes());
    out
}
