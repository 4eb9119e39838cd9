//! Sizes as people write them: `20GiB`, `500M`, `4096`.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size; write for example 20GiB, 500MB or 1048576")]
pub struct SizeError(String);

const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];

impl FromStr for ByteSize {
    type Err = SizeError;

    /// `K`, `M`… and `KiB`, `MiB`… are powers of 1024; `KB`, `MB`… are powers of 1000.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError(text.into());
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..split], text[split..].trim_start());
        let factor = factor(unit).ok_or_else(error)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if fraction.is_empty() || fraction.len() > 6 {
            return Err(error());
        }
        let whole: u128 = whole.parse().map_err(|_| error())?;
        let thousandths: u128 = fraction.parse().map_err(|_| error())?;
        let bytes =
            whole.checked_mul(factor).ok_or_else(error)? + thousandths * factor / 10u128.pow(fraction.len() as u32);
        u64::try_from(bytes).map(Self).map_err(|_| error())
    }
}

fn factor(unit: &str) -> Option<u128> {
    let upper = unit.to_ascii_uppercase();
    if upper.is_empty() || upper == "B" {
        return Some(1);
    }
    let power = 1 + UNITS.iter().position(|letter| upper.starts_with(letter))? as u32;
    match &upper[1..] {
        "" | "IB" => Some(1024u128.pow(power)),
        "B" => Some(1000u128.pow(power)),
        _ => None,
    }
}

/// Three digits, in powers of 1024.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = None;
        for next in UNITS {
            if value < 1023.5 {
                break;
            }
            value /= 1024.0;
            unit = Some(next);
        }
        match unit {
            None => write!(f, "{} B", self.0),
            // Never rounded up to 16 EiB, which no size can be.
            Some("E") if value > 15.0 => write!(f, "15 EiB"),
            Some(unit) if value < 9.95 => write!(f, "{value:.1} {unit}iB"),
            Some(unit) => write!(f, "{value:.0} {unit}iB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("20GiB", 20 << 30),
            ("20G", 20 << 30),
            ("20 gib", 20 << 30),
            ("500MB", 500_000_000),
            ("1.5K", 1536),
            ("7b", 7),
            ("15EiB", 15 << 60),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1x", "1.", "1.2.3G", "16EiB", "1 0", "٣G", "1ZiB", "99999999999999999999999"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (20 << 30, "20 GiB"),
            (1536 << 20, "1.5 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert!(text.parse::<ByteSize>().is_ok(), "{text} can be given again");
        }
    }
}
