//! A link as one file.

use super::{Object, cut_fails, flip_fails, hex};
use hushfs::format::{box_head, box_pack_head, decode_box};
use serde_json::{Value, json};

/// The parts prove themselves; the file around them does not care what they are.
pub const BOX: Object = Object {
    name: "link-box",
    about: "An exported link: its record and two packs, here without meaning",
    make: || {
        let packs = [(1, &b"pack"[..]), (3, b"another pack")];
        let packs = packs.map(|(number, pack)| [&box_pack_head(number, pack.len() as u64), pack].concat());
        (json!({}), [&box_head(6)[..], b"record", &packs.concat()].concat())
    },
    open: |_: &Value, bytes| {
        let found = decode_box(bytes).map_err(|_| "malformed".to_owned())?;
        let packs: Vec<_> = found.packs.iter().map(|(number, pack)| json!([number, hex(pack)])).collect();
        Ok(json!({ "record": hex(found.record), "packs": packs }))
    },
    failures: || {
        vec![
            cut_fails(0, "malformed"),
            cut_fails(21, "malformed"),
            cut_fails(23, "malformed"),
            cut_fails(41, "malformed"),
            flip_fails("another kind of file", 0, "malformed"),
            flip_fails("a length beyond the end", 15 * 8, "malformed"),
            // 3 becomes 1.
            flip_fails("a pack that is there twice", 42 * 8 + 1, "malformed"),
        ]
    },
    sealed_bits: &[],
};
