//! The recovery key as 24 English words (BIP-39: 256 bits and a checksum of 8).

use super::{KEY_LEN, Key};
use crate::base::Entropy;
use bip39::{Language, Mnemonic};
use zeroize::{Zeroize, Zeroizing};

pub struct RecoveryWords(Key);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error("the recovery key is 24 words; these are {0}")]
    Count(usize),
    /// Counted from 1.
    #[error("word {0} is not in the list of recovery words")]
    UnknownWord(usize),
    #[error("the words are all in the list but do not belong together: one is wrong, or their order is")]
    Checksum,
}

impl RecoveryWords {
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(Key::generate(entropy))
    }

    /// Case and white space do not matter, nor do numbers, which people write beside the words.
    pub fn parse(text: &str) -> Result<Self, WordsError> {
        let lower = Zeroizing::new(text.to_lowercase());
        let mut text = Zeroizing::new(String::with_capacity(lower.len() + 1));
        for word in lower.split_whitespace().filter(|word| !word.starts_with(|first: char| first.is_ascii_digit())) {
            text.push_str(word);
            text.push(' ');
        }
        let count = text.split_whitespace().count();
        if count != 24 {
            return Err(WordsError::Count(count));
        }
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &text).map_err(|error| match error {
            bip39::Error::UnknownWord(index) => WordsError::UnknownWord(index + 1),
            _ => WordsError::Checksum,
        })?;
        let (mut bytes, len) = mnemonic.to_entropy_array();
        let key = Key::try_from_slice(bytes.get(..len).unwrap_or_default());
        bytes.zeroize();
        key.map(Self).ok_or(WordsError::Checksum)
    }

    /// To be shown once and written down.
    pub fn text(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, self.0.expose()).expect("32 bytes make 24 words");
        // Reserved in full, so that no half-built copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(24 * 9));
        for (index, word) in mnemonic.words().enumerate() {
            if index > 0 {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    pub fn key(&self) -> &Key {
        &self.0
    }
}

impl std::fmt::Debug for RecoveryWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryWords(..)")
    }
}

const _: () = assert!(KEY_LEN == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SystemEntropy;

    #[test]
    fn words_round_trip_whatever_their_case_and_spacing() {
        let words = RecoveryWords::generate(&SystemEntropy);
        let text = words.text();
        assert_eq!(text.split(' ').count(), 24);
        assert_eq!(RecoveryWords::parse(&text).unwrap().key(), words.key());
        let shouted = format!("  {}\n", text.to_uppercase().replace(' ', "\n "));
        assert_eq!(RecoveryWords::parse(&shouted).unwrap().key(), words.key());
    }

    #[test]
    fn what_is_wrong_with_the_words_is_said() {
        let zero = RecoveryWords(Key::from_bytes([0; 32])).text();
        assert!(zero.starts_with("abandon abandon") && zero.ends_with(" art"));
        assert_eq!(RecoveryWords::parse("abandon art").unwrap_err(), WordsError::Count(2));
        let unknown = zero.replacen("abandon", "xyzzy", 1);
        assert_eq!(RecoveryWords::parse(&unknown).unwrap_err(), WordsError::UnknownWord(1));
        let wrong = zero.replacen("abandon", "ability", 1);
        assert_eq!(RecoveryWords::parse(&wrong).unwrap_err(), WordsError::Checksum);
    }
}
