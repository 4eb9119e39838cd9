//! Argon2id, from a password to a key. The parameters come from the store: they are held to a floor and a
//! ceiling before anything is derived, so that nobody makes a guess cheap or a mount impossible.

use std::time::Duration;

use super::Key;
use argon2::{Algorithm, Argon2, Params, Version};

pub const KDF_SALT_LEN: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParameters {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    #[error("the password derivation uses {0} KiB of memory, less than the least allowed, 65,536 KiB")]
    MemoryBelowFloor(u32),
    #[error("the password derivation uses {0} KiB of memory, more than the most allowed, 4 GiB")]
    MemoryAboveCeiling(u32),
    #[error("the password derivation makes {0} passes, fewer than the least allowed, 3")]
    PassesBelowFloor(u32),
    #[error("the password derivation makes {0} passes, more than the most allowed, 64")]
    PassesAboveCeiling(u32),
    #[error("the password derivation runs {0} lanes; 1 to 64 are allowed")]
    Lanes(u32),
    #[error("there is not enough memory to derive the key from the password: it takes {0} KiB")]
    OutOfMemory(u32),
}

impl KdfParameters {
    pub const FLOOR: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };
    pub const CEILING: Self = Self { memory_kib: 4 << 20, passes: 64, lanes: 64 };
    pub const DEFAULT: Self = Self { memory_kib: 256 << 10, passes: 3, lanes: 4 };

    pub fn check(&self) -> Result<(), KdfError> {
        let Self { memory_kib, passes, lanes } = *self;
        if memory_kib < Self::FLOOR.memory_kib {
            return Err(KdfError::MemoryBelowFloor(memory_kib));
        }
        if memory_kib > Self::CEILING.memory_kib {
            return Err(KdfError::MemoryAboveCeiling(memory_kib));
        }
        if passes < Self::FLOOR.passes {
            return Err(KdfError::PassesBelowFloor(passes));
        }
        if passes > Self::CEILING.passes {
            return Err(KdfError::PassesAboveCeiling(passes));
        }
        if !(Self::FLOOR.lanes..=Self::CEILING.lanes).contains(&lanes) {
            return Err(KdfError::Lanes(lanes));
        }
        Ok(())
    }

    /// With as many passes as take `wanted` on a machine where these parameters took `took`; never fewer than these.
    pub fn with_passes_for(self, wanted: Duration, took: Duration) -> Self {
        let times = wanted.as_secs_f64() / took.as_secs_f64().max(1e-9);
        let passes = (f64::from(self.passes) * times).round() as u32;
        Self { passes: passes.clamp(self.passes, Self::CEILING.passes), ..self }
    }

    pub const fn memory_bytes(&self) -> u64 {
        self.memory_kib as u64 * 1024
    }
}

/// The key of a password: Argon2id version 1.3 with this salt and these parameters, which are checked first.
pub fn password_key(password: &[u8], salt: &[u8; KDF_SALT_LEN], parameters: &KdfParameters) -> Result<Key, KdfError> {
    parameters.check()?;
    let out_of_memory = KdfError::OutOfMemory(parameters.memory_kib);
    let params = Params::new(parameters.memory_kib, parameters.passes, parameters.lanes, Some(super::KEY_LEN))
        .map_err(|_| KdfError::Lanes(parameters.lanes))?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut result = Ok(());
    let key = Key::filled(|out| result = argon.hash_password_into(password, salt, out));
    // Everything else that Argon2 refuses was refused by `check`; a password is never over 4 GiB.
    result.map(|()| key).map_err(|_| out_of_memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(memory_kib: u32, passes: u32, lanes: u32) -> KdfError {
        let parameters = KdfParameters { memory_kib, passes, lanes };
        password_key(b"secret", &[0; 32], &parameters).unwrap_err()
    }

    #[test]
    fn parameters_outside_the_bounds_are_refused_before_deriving_each_by_its_own_name() {
        assert_eq!(refused(8, 3, 4), KdfError::MemoryBelowFloor(8));
        assert_eq!(refused((64 << 10) - 1, 3, 4), KdfError::MemoryBelowFloor((64 << 10) - 1));
        assert_eq!(refused((4 << 20) + 1, 3, 4), KdfError::MemoryAboveCeiling((4 << 20) + 1));
        assert_eq!(refused(u32::MAX, 3, 4), KdfError::MemoryAboveCeiling(u32::MAX));
        assert_eq!(refused(64 << 10, 2, 4), KdfError::PassesBelowFloor(2));
        assert_eq!(refused(64 << 10, 65, 4), KdfError::PassesAboveCeiling(65));
        assert_eq!(refused(64 << 10, 3, 0), KdfError::Lanes(0));
        assert_eq!(refused(64 << 10, 3, 65), KdfError::Lanes(65));
    }

    #[test]
    fn bounds_and_default_are_allowed() {
        assert_eq!(KdfParameters::FLOOR.memory_bytes(), 64 << 20);
        for parameters in [KdfParameters::FLOOR, KdfParameters::CEILING, KdfParameters::DEFAULT] {
            assert_eq!(parameters.check(), Ok(()));
        }
    }

    #[test]
    fn passes_are_as_many_as_fit_within_the_bounds() {
        let passes = |wanted_ms, took_ms| {
            let (wanted, took) = (Duration::from_millis(wanted_ms), Duration::from_millis(took_ms));
            KdfParameters::DEFAULT.with_passes_for(wanted, took).passes
        };
        assert_eq!(passes(1000, 300), 10);
        assert_eq!(passes(1000, 1000), 3);
        assert_eq!(passes(1000, 60_000), 3);
        assert_eq!(passes(1000, 0), 64);
    }

    #[test]
    fn password_salt_and_each_parameter_change_the_key() {
        let floor = KdfParameters::FLOOR;
        let key = |password: &[u8], salt, parameters| password_key(password, &[salt; 32], &parameters).unwrap();
        let base = key(b"secret", 1, floor);
        assert_eq!(base, key(b"secret", 1, floor));
        assert_ne!(base, key(b"Secret", 1, floor));
        assert_ne!(base, key(b"secret", 2, floor));
        assert_ne!(base, key(b"secret", 1, KdfParameters { memory_kib: floor.memory_kib + 8, ..floor }));
        assert_ne!(base, key(b"secret", 1, KdfParameters { passes: 4, ..floor }));
        assert_ne!(base, key(b"secret", 1, KdfParameters { lanes: 2, ..floor }));
    }
}
