//! Randomness as a parameter, so that tests and the simulator can repeat it.

/// A source of random bytes.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Entropy + '_ {
    pub fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The operating system's generator.
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // getrandom(2) on Linux fails only before the pool is seeded at boot or on a broken kernel;
        // going on without randomness would be worse than stopping.
        getrandom::fill(bytes).expect("the operating system gives no randomness");
    }
}
