//! Points in time as POSIX has them: seconds since 1970, which may be negative, and nanoseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub secs: i64,
    /// 0..1_000_000_000, counted forward from `secs` also before 1970.
    pub nanos: u32,
}

impl Timestamp {
    pub const fn new(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos }
    }

    /// Year, month and day in UTC, by Howard Hinnant's algorithm
    /// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
    pub fn date(self) -> (i64, i64, i64) {
        const DAY_SECS: i64 = 86_400;
        let shifted = self.secs.div_euclid(DAY_SECS) + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (year + era * 400 + i64::from(month <= 2), month, day)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::new(after.as_secs() as i64, after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Self::new(-(before.as_secs() as i64), 0),
                    nanos => Self::new(-(before.as_secs() as i64) - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let nanos = Duration::from_nanos(time.nanos.into());
        let whole = Duration::from_secs(time.secs.unsigned_abs());
        if time.secs >= 0 { UNIX_EPOCH + whole + nanos } else { UNIX_EPOCH - whole + nanos }
    }
}

/// Wall-clock time as a parameter. Nothing that must be safe rests on it.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_round_trips_on_both_sides_of_1970() {
        for time in [(0, 0), (0, 1), (-1, 0), (-1, 999_999_999), (-86_400, 5), (1 << 33, 123_456_789)] {
            let time = Timestamp::new(time.0, time.1);
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
    }
}
