//! Names for a terminal: whatever they hold, they do nothing there.

use std::fmt;

/// Shows bytes that somebody else chose. Control characters, those that turn or hide text, what is not UTF-8, and the
/// backslash itself are written as `\x..`.
pub struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| bytes.iter().try_for_each(|b| write!(f, "\\x{b:02x}"));
        for part in self.0.utf8_chunks() {
            for character in part.valid().chars() {
                match character {
                    '\\' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => {
                        escaped(f, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                    }
                    '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {
                        escaped(f, character.encode_utf8(&mut [0; 4]).as_bytes())?;
                    }
                    _ if character.is_control() => escaped(f, character.encode_utf8(&mut [0; 4]).as_bytes())?,
                    _ => write!(f, "{character}")?,
                }
            }
            escaped(f, part.invalid())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let shown = |bytes: &[u8]| Printable(bytes).to_string();
        assert_eq!(shown("Grüße 写真.jpg".as_bytes()), "Grüße 写真.jpg");
        assert_eq!(shown(b"a\x1b[2Jb\n\r\x07\x7f"), "a\\x1b[2Jb\\x0a\\x0d\\x07\\x7f");
        assert_eq!(shown(b"\xff\\"), "\\xff\\x5c");
        assert_eq!(shown("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
        assert_eq!(shown("txt.\u{202e}exe".as_bytes()), "txt.\\xe2\\x80\\xaeexe");
    }
}
