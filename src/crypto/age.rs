//! Keys as age writes them (<https://age-encryption.org/v1>): a recipient `age1…` is an X25519 public half in Bech32
//! (BIP 173), and a line `AGE-SECRET-KEY-1…` of an identity file its private half.

use super::{Key, PrivateHalf, PublicHalf};
use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use zeroize::Zeroizing;

const RECIPIENT: &str = "age";
const IDENTITY: &str = "age-secret-key-";

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    #[error("not a recipient as `age-keygen -y` prints it (age1…)")]
    NotRecipient,
    #[error("the recipient's public key is one that anybody can open")]
    WeakRecipient,
    #[error("no identity (a line AGE-SECRET-KEY-1…) in it")]
    NoIdentity,
    #[error("line {0} is not an identity as age-keygen writes it")]
    NotIdentity(usize),
}

pub fn parse_recipient(text: &str) -> Result<PublicHalf, AgeError> {
    let bytes = decode(RECIPIENT, text.trim()).ok_or(AgeError::NotRecipient)?;
    let public = PublicHalf(*bytes);
    if public.is_usable() { Ok(public) } else { Err(AgeError::WeakRecipient) }
}

/// All identities of a file; comments and blank lines are passed over.
pub fn parse_identities(file: &str) -> Result<Vec<PrivateHalf>, AgeError> {
    let lines = file.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| {
        let bytes = decode(IDENTITY, line).ok_or(AgeError::NotIdentity(at))?;
        Ok(PrivateHalf::from_key(Key::filled(|key| key.copy_from_slice(&*bytes))))
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(AgeError::NoIdentity) } else { Ok(keys) }
}

fn decode(kind: &str, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let decoded = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if !decoded.hrp().as_str().eq_ignore_ascii_case(kind) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let mut given = decoded.byte_iter();
    for byte in bytes.iter_mut() {
        *byte = given.next()?;
    }
    given.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The key whose bytes are all 0x42.
    const IDENTITY_LINE: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    const RECIPIENT_TEXT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

    #[test]
    fn an_identity_opens_what_is_sealed_to_its_recipient() {
        let file = format!("# created: 2026-01-01\n\n{IDENTITY_LINE}\n");
        let keys = parse_identities(&file).unwrap();
        assert_eq!(keys[0].public(), parse_recipient(RECIPIENT_TEXT).unwrap());
    }

    #[test]
    fn what_is_no_key_is_refused_and_named() {
        assert_eq!(parse_recipient(IDENTITY_LINE), Err(AgeError::NotRecipient));
        assert_eq!(parse_recipient(&RECIPIENT_TEXT.replace("zvk", "zvl")), Err(AgeError::NotRecipient));
        assert_eq!(parse_identities("# nothing\n").unwrap_err(), AgeError::NoIdentity);
        assert_eq!(parse_identities(&format!("#\n{RECIPIENT_TEXT}")).unwrap_err(), AgeError::NotIdentity(2));
    }

    #[test]
    fn a_point_of_low_order_is_no_recipient() {
        let hrp = bech32::Hrp::parse("age").unwrap();
        let zero = bech32::encode::<Bech32>(hrp, &[0; 32]).unwrap();
        assert_eq!(parse_recipient(&zero), Err(AgeError::WeakRecipient));
    }
}
