//! 32 secret bytes.

use super::seal::hkdf;
use super::vault::{CELL_LEN, Cell};
use crate::base::Entropy;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

pub const KEY_LEN: usize = 32;

const _: () = assert!(KEY_LEN == CELL_LEN);

/// No `Clone`, so that every copy is a decision (`duplicate`); in locked memory, wiped when dropped; never printed.
pub struct Key(Cell);

impl Key {
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::filled(|key| entropy.fill(key))
    }

    /// Arrays are copied as they are passed on: secret bytes that lie in a wiped buffer come by `try_from_slice`.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        let key = Self::filled(|key| key.copy_from_slice(&bytes));
        bytes.zeroize();
        key
    }

    /// None unless there are exactly 32 bytes.
    pub fn try_from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == KEY_LEN).then(|| Self::filled(|key| key.copy_from_slice(bytes)))
    }

    pub fn expose(&self) -> &[u8; KEY_LEN] {
        self.0.get()
    }

    pub fn duplicate(&self) -> Self {
        Self::filled(|key| key.copy_from_slice(self.expose()))
    }

    /// A further key for another use, such as the database's. `purpose` is a fixed text.
    pub fn derive(&self, purpose: &'static str) -> Self {
        Self::filled(|key| hkdf(self.expose(), b"", &[b"hushfs/v1/derive/", purpose.as_bytes()], key))
    }

    pub(super) fn filled(fill: impl FnOnce(&mut [u8; KEY_LEN])) -> Self {
        let mut cell = Cell::zeroed();
        fill(cell.get_mut());
        Self(cell)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// In constant time.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Key {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key::from_bytes([0x41; 32])), "Key(..)");
    }

    #[test]
    fn purposes_give_unrelated_keys() {
        let key = Key::from_bytes([7; 32]);
        assert_eq!(key.derive("replica"), key.derive("replica"));
        assert_ne!(key.derive("replica"), key.derive("cache"));
        assert_ne!(key.derive("replica"), key);
    }
}
