//! One function for each decoder of bytes that somebody else may have written: the store, the local disk, the command
//! line, a browser. `cargo fuzz` and `tests/fuzz_corpus.rs` call the same functions.
//!
//! What lies behind a seal is reached as somebody who has the keys would reach it: the bytes given are sealed as they
//! are, and opened. A function panics where a decoder breaks what `format` promises: it fails or gives what encodes to
//! the same again, and it allocates no more than a constant times the input.

mod allocations;
mod command_line;
mod links;
mod local;
mod sealing;
mod seeds;
mod store;

pub struct Target {
    pub name: &'static str,
    /// Some if it decoded.
    run: fn(&[u8]) -> Option<()>,
    /// At most so many bytes are allocated at a time for each byte of input, and `FREE` more.
    allocated_per_byte: usize,
    seeds: fn() -> Vec<Vec<u8>>,
}

/// Objects have 4 KiB at least, a chunk a buffer of its own, and all commands with their help texts take 300 KiB.
const FREE: usize = 512 << 10;
/// An lz4 block may stand for 255 times its length; what is decoded from that is a few times longer in memory.
const COMPRESSED: usize = 255 * 12;
/// Sealing and opening copy; decoded things have pointers and lengths.
const PLAIN: usize = 64;

const fn target(
    name: &'static str,
    run: fn(&[u8]) -> Option<()>,
    per_byte: usize,
    seeds: fn() -> Vec<Vec<u8>>,
) -> Target {
    Target { name, run, allocated_per_byte: per_byte, seeds }
}

pub const ALL: &[Target] = &[
    target("object_name", store::object_name, PLAIN, seeds::object_names),
    target("volume", store::volume, PLAIN, seeds::volume),
    target("slot", store::slot, PLAIN, seeds::slot),
    target("epoch_link", store::epoch_link, PLAIN, seeds::epoch_link),
    target("record", store::record, COMPRESSED, seeds::record),
    target("floor", store::floor, PLAIN, seeds::floor),
    target("manifest", store::manifest, COMPRESSED, seeds::manifest),
    target("segment", store::segment, COMPRESSED, seeds::segment),
    target("pack", store::pack, PLAIN, seeds::pack),
    target("chunk", store::chunk, COMPRESSED, seeds::chunk),
    target("row", store::row, PLAIN, seeds::row),
    target("wrapped_key", store::wrapped_key, PLAIN, seeds::wrapped_key),
    target("acl", store::acl, PLAIN, seeds::acl),
    target("link_record", links::link_record, COMPRESSED, seeds::link_record),
    target("link_index", links::link_index, PLAIN, seeds::link_index),
    target("link_chunk", links::link_chunk, COMPRESSED, seeds::link_chunk),
    target("link_pack", links::link_pack, PLAIN, seeds::link_pack),
    target("link_box", links::link_box, PLAIN, seeds::link_box),
    target("link_url", links::link_url, PLAIN, seeds::link_url),
    target("gateway_request", links::gateway_request, PLAIN, seeds::gateway_request),
    target("journal_frame", local::journal_frame, PLAIN, seeds::journal_frame),
    target("intent", local::intent, PLAIN, seeds::intent),
    target("state_file", local::state_file, PLAIN, seeds::state_file),
    target("kept_copy", local::kept_copy, PLAIN, seeds::kept_copy),
    target("control", local::control, PLAIN, seeds::control),
    target("aws_profile", local::aws_profile, PLAIN, seeds::aws_profile),
    target("arguments", command_line::arguments, COMPRESSED, seeds::arguments),
    target("mount_options", command_line::mount_options, PLAIN, seeds::mount_options),
    target("store_url", command_line::store_url, PLAIN, seeds::store_url),
    target("secrets", command_line::secrets, PLAIN, seeds::secrets),
];

impl Target {
    /// One that decodes what is not compressed, without seeds.
    #[allow(dead_code, reason = "for the test of the limit")]
    pub fn of(name: &'static str, run: fn(&[u8]) -> Option<()>) -> Self {
        target(name, run, PLAIN, Vec::new)
    }

    #[allow(dead_code, reason = "the corpus' test goes over all")]
    pub fn named(name: &str) -> &'static Self {
        ALL.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("there is no target {name}"))
    }

    /// What a fuzzer starts from: golden vectors, what is made like them, and what was found before.
    pub fn inputs(&self) -> Vec<Vec<u8>> {
        (self.seeds)().into_iter().chain(seeds::found(self.name)).collect()
    }

    /// Some if it decoded. Panics where the target does, and where it took too much memory.
    pub fn run(&self, data: &[u8]) -> Option<()> {
        let allowed = FREE + self.allocated_per_byte * data.len();
        let (decoded, peak) = allocations::peak_of(|| (self.run)(data));
        let len = data.len();
        assert!(peak <= allowed, "{}: {len} bytes of input took {peak} bytes of memory, not {allowed}", self.name);
        decoded
    }
}

/// The first byte of an input chooses what the rest is.
fn choice(data: &[u8], ways: u8) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (first % ways, rest))
}
