//! What a link's secret, and perhaps a password besides, become.

use super::seal::hkdf;
use super::{KEY_LEN, Key};
use zeroize::Zeroizing;

/// The key of a link's contents. `password` is the key that was derived from one, if the link has one: then neither
/// the secret nor the password opens anything alone.
pub fn link_content_root(secret: &Key, password: Option<&Key>) -> Key {
    let mut both = Zeroizing::new(Vec::with_capacity(2 * KEY_LEN));
    both.extend_from_slice(secret.expose());
    both.extend(password.iter().flat_map(|key| key.expose()));
    Key::filled(|root| hkdf(&both, b"", &[b"hushfs/v1/link-content"], root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_and_password_both_change_the_root() {
        let key = |byte| Key::from_bytes([byte; 32]);
        let root = link_content_root(&key(1), Some(&key(2)));
        assert_ne!(root, link_content_root(&key(3), Some(&key(2))));
        assert_ne!(root, link_content_root(&key(1), Some(&key(3))));
        assert_ne!(root, link_content_root(&key(1), None));
        assert_ne!(root, link_content_root(&key(2), Some(&key(1))));
        assert_ne!(link_content_root(&key(1), None), key(1));
    }
}
