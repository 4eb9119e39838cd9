use super::seal::{HEADER_LEN, SALT_LEN};
use super::*;
use crate::base::{ChunkId, Entropy, KeyNo, SystemEntropy, VolumeId};
use proptest::prelude::*;

const VOLUME: VolumeId = VolumeId([9; 16]);
const CONTEXT: Context<'static> = Context { volume: VOLUME, kind: Kind::Record, id: &[b"epoch", b"seq"] };
const FAILED: CryptoError = CryptoError::Authentication;

/// A machine that is resumed over and over from one snapshot.
struct Repeating;

impl Entropy for Repeating {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }
}

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

#[test]
fn every_flipped_bit_gives_the_same_error_in_both_implementations() {
    let mut sealed = seal(&key(1), &CONTEXT, b"plaintext of some bytes", &SystemEntropy);
    for bit in 0..sealed.len() * 8 {
        sealed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&key(1), &CONTEXT, &sealed), Err(FAILED), "bit {bit}");
        assert_eq!(open_bulk(&key(1), &CONTEXT, &sealed), Err(FAILED), "bit {bit}");
        sealed[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(open(&key(1), &CONTEXT, &sealed).is_ok());
}

#[test]
fn what_is_cut_or_lengthened_does_not_open() {
    let mut sealed = seal(&key(1), &CONTEXT, b"plaintext", &SystemEntropy);
    for len in 0..sealed.len() {
        assert_eq!(open(&key(1), &CONTEXT, &sealed[..len]), Err(FAILED), "{len} bytes");
        assert_eq!(open_bulk(&key(1), &CONTEXT, &sealed[..len]), Err(FAILED), "{len} bytes");
    }
    sealed.push(0);
    assert_eq!(open(&key(1), &CONTEXT, &sealed), Err(FAILED));
}

fn opens_in(context: Context<'_>) -> bool {
    let sealed = seal(&key(1), &CONTEXT, b"plaintext", &SystemEntropy);
    open(&key(1), &context, &sealed).is_ok()
}

#[test]
fn nothing_opens_in_another_volume() {
    assert!(!opens_in(Context { volume: VolumeId([8; 16]), ..CONTEXT }));
}

#[test]
fn nothing_opens_as_another_kind() {
    for kind in Kind::ALL {
        assert_eq!(opens_in(Context { kind, ..CONTEXT }), kind == CONTEXT.kind, "{kind:?}");
    }
}

#[test]
fn nothing_opens_in_another_place() {
    assert!(!opens_in(Context { id: &[b"Epoch", b"seq"], ..CONTEXT }));
    assert!(!opens_in(Context { id: &[b"epoch", b"Seq"], ..CONTEXT }));
    assert!(!opens_in(Context { id: &[b"epoch"], ..CONTEXT }));
    assert!(!opens_in(Context { id: &[b"epoch", b"seq", b""], ..CONTEXT }));
    assert!(!opens_in(Context { id: &[b"epochs", b"eq"], ..CONTEXT }));
    assert!(opens_in(CONTEXT));
}

#[test]
fn nothing_opens_under_another_key() {
    let sealed = seal(&key(1), &CONTEXT, b"plaintext", &SystemEntropy);
    assert_eq!(open(&key(2), &CONTEXT, &sealed), Err(FAILED));
}

#[test]
fn repeated_randomness_repeats_a_ciphertext_but_never_a_salt_for_another_plaintext() {
    let sealed = |plain: &[u8]| seal(&key(1), &CONTEXT, plain, &Repeating);
    assert_eq!(sealed(b"one"), sealed(b"one"));
    assert_ne!(sealed(b"one")[1..1 + SALT_LEN], sealed(b"two")[1..1 + SALT_LEN]);
    let header = |id| *ChunkSealer::new(&key(1), VOLUME, &ChunkId([id; 32]), &Repeating).header();
    assert_ne!(header(1)[1..1 + SALT_LEN], header(2)[1..1 + SALT_LEN]);
}

#[test]
fn fresh_randomness_gives_a_fresh_salt_for_the_same_plaintext() {
    let sealed = || seal(&key(1), &CONTEXT, b"one", &SystemEntropy);
    assert_ne!(sealed()[1..1 + SALT_LEN], sealed()[1..1 + SALT_LEN]);
}

proptest! {
    #[test]
    fn both_implementations_write_and_read_the_same_bytes(
        plain in proptest::collection::vec(any::<u8>(), 0..5000), id: Vec<u8>, byte: u8,
    ) {
        let id: [&[u8]; 1] = [&id];
        let context = Context { id: &id, ..CONTEXT };
        let small = seal(&key(byte), &context, &plain, &Repeating);
        let bulk = seal_bulk(&key(byte), &context, &plain, &Repeating);
        prop_assert_eq!(&small, &bulk);
        prop_assert_eq!(small.len(), plain.len() + SEAL_OVERHEAD);
        prop_assert_eq!(&open(&key(byte), &context, &bulk).unwrap(), &plain);
        prop_assert_eq!(&open_bulk(&key(byte), &context, &small).unwrap(), &plain);
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(open(&key(1), &CONTEXT, &bytes), Err(FAILED));
        prop_assert_eq!(open_bulk(&key(1), &CONTEXT, &bytes), Err(FAILED));
    }
}

const ID: ChunkId = ChunkId([3; 32]);

/// Header and three frames, each with its tag.
fn sealed_chunk() -> ([u8; CHUNK_HEADER_LEN], Vec<Vec<u8>>) {
    let sealer = ChunkSealer::new(&key(1), VOLUME, &ID, &SystemEntropy);
    let frames = (0..3u32).map(|index| {
        let mut frame = vec![index as u8; 20];
        let tag = sealer.seal_frame(index, index == 2, &mut frame);
        frame.extend_from_slice(&tag);
        frame
    });
    (*sealer.header(), frames.collect())
}

fn open_frame(opener: &ChunkOpener, index: u32, last: bool, frame: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut out = vec![0xee; frame.len() - TAG_LEN];
    let result = opener.open_frame(index, last, frame, &mut out);
    assert!(result.is_ok() || out.iter().all(|byte| *byte == 0), "something unverified was left behind");
    result.map(|()| out)
}

#[test]
fn a_frame_opens_alone_and_only_in_its_place() {
    let (header, frames) = sealed_chunk();
    let opener = ChunkOpener::new(&key(1), VOLUME, &ID, &header).unwrap();
    for (frame, own) in frames.iter().zip(0..) {
        for (index, last) in (0..4).flat_map(|index| [(index, false), (index, true)]) {
            let opened = open_frame(&opener, index, last, frame);
            if (index, last) == (own, own == 2) {
                assert_eq!(opened.unwrap(), [own as u8; 20]);
            } else {
                assert_eq!(opened, Err(FAILED), "frame {own} as {index}, last: {last}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_chunk_is_found() {
    let (mut header, mut frames) = sealed_chunk();
    for bit in 0..header.len() * 8 {
        header[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ChunkOpener::new(&key(1), VOLUME, &ID, &header).err(), Some(FAILED), "header bit {bit}");
        header[bit / 8] ^= 1 << (bit % 8);
    }
    let opener = ChunkOpener::new(&key(1), VOLUME, &ID, &header).unwrap();
    for bit in 0..frames[1].len() * 8 {
        frames[1][bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open_frame(&opener, 1, false, &frames[1]), Err(FAILED), "frame bit {bit}");
        frames[1][bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_chunk_opens_with_its_own_key_volume_and_id_only() {
    let (header, _) = sealed_chunk();
    let opens = |key: &Key, volume, id: &ChunkId| ChunkOpener::new(key, volume, id, &header).is_ok();
    assert!(opens(&key(1), VOLUME, &ID));
    assert!(!opens(&key(2), VOLUME, &ID));
    assert!(!opens(&key(1), VolumeId([8; 16]), &ID));
    assert!(!opens(&key(1), VOLUME, &ChunkId([4; 32])));
}

#[test]
fn a_frame_of_another_length_than_asked_for_is_refused() {
    let (header, frames) = sealed_chunk();
    let opener = ChunkOpener::new(&key(1), VOLUME, &ID, &header).unwrap();
    assert_eq!(opener.open_frame(0, false, &frames[0], &mut [0; 19]), Err(FAILED));
    assert_eq!(opener.open_frame(0, false, &frames[0], &mut [0; 21]), Err(FAILED));
    assert_eq!(opener.open_frame(0, false, &[], &mut []), Err(FAILED));
}

fn roots() -> Roots {
    let roots = Roots::new(VOLUME, Epoch(1), key(1));
    assert!(roots.insert(Epoch(0), key(7)));
    roots
}

#[test]
fn wrapped_keys_open_in_their_own_place_only() {
    let roots = roots();
    let (epoch, wrapped) = roots.wrap_file_key(KeyNo(5), &key(3), &SystemEntropy);
    assert_eq!((epoch, wrapped.len()), (Epoch(1), KEY_LEN + SEAL_OVERHEAD));
    assert_eq!(roots.unwrap_file_key(epoch, KeyNo(5), &wrapped).unwrap(), key(3));
    assert_eq!(roots.unwrap_file_key(epoch, KeyNo(6), &wrapped), Err(FAILED));
    assert_eq!(roots.unwrap_file_key(Epoch(0), KeyNo(5), &wrapped), Err(FAILED));
    assert_eq!(roots.unwrap_file_key(Epoch(2), KeyNo(5), &wrapped), Err(CryptoError::UnknownEpoch(Epoch(2))));
    assert_eq!(roots.unwrap_state_key(epoch, &wrapped), Err(FAILED));
    let other_volume = Roots::new(VolumeId([8; 16]), Epoch(1), key(1));
    assert_eq!(other_volume.unwrap_file_key(epoch, KeyNo(5), &wrapped), Err(FAILED));
}

#[test]
fn an_epoch_is_part_of_a_wrap_even_where_two_epochs_have_one_root() {
    let roots = Roots::new(VOLUME, Epoch(0), key(1));
    let (_, wrapped) = roots.wrap_state_key(&key(3), &SystemEntropy);
    assert!(roots.insert(Epoch(1), key(1)));
    assert_eq!(roots.unwrap_state_key(Epoch(0), &wrapped).unwrap(), key(3));
    assert_eq!(roots.unwrap_state_key(Epoch(1), &wrapped), Err(FAILED));
}

#[test]
fn an_epoch_has_one_root_and_what_is_sealed_goes_under_the_current_one() {
    let roots = Roots::new(VOLUME, Epoch(0), key(1));
    assert!(roots.insert(Epoch(2), key(2)) && roots.insert(Epoch(2), key(2)) && !roots.insert(Epoch(2), key(3)));
    let clone = roots.clone();
    assert_eq!(roots.wrap_state_key(&key(3), &SystemEntropy).0, Epoch(0));
    assert_eq!(clone.advance(Epoch(1)), Err(CryptoError::UnknownEpoch(Epoch(1))));
    clone.advance(Epoch(2)).unwrap();
    clone.advance(Epoch(0)).unwrap();
    assert_eq!(roots.wrap_state_key(&key(3), &SystemEntropy).0, Epoch(2));
    assert_eq!(roots.epochs(), [Epoch(0), Epoch(2)]);
}

#[test]
fn a_commitment_tells_roots_epochs_and_volumes_apart() {
    let of = |volume, epoch, root| Roots::new(VolumeId([volume; 16]), Epoch(epoch), key(root)).commitment(Epoch(epoch));
    assert_eq!(of(1, 1, 1), of(1, 1, 1));
    assert_ne!(of(1, 1, 1), of(2, 1, 1));
    assert_ne!(of(1, 1, 1), of(1, 2, 1));
    assert_ne!(of(1, 1, 1), of(1, 1, 2));
}

#[test]
fn the_commitment_is_held_against_the_key_before_gcm_is() {
    // What GCM alone accepts: everything right but the commitment, as a ciphertext for two keys would be.
    let mut sealed = seal(&key(1), &CONTEXT, b"plaintext", &SystemEntropy);
    sealed[1 + SALT_LEN..HEADER_LEN].fill(0);
    assert_eq!(open(&key(1), &CONTEXT, &sealed), Err(FAILED));
    assert_eq!(open_bulk(&key(1), &CONTEXT, &sealed), Err(FAILED));
}
