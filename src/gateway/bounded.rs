//! What was used last stays, as far as its weight fits.

use std::hash::Hash;

use lru::LruCache;

pub struct Bounded<K: Hash + Eq, V> {
    entries: LruCache<K, (u64, V)>,
    weight: u64,
    weight_max: u64,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    pub fn new(weight_max: u64) -> Self {
        Self { entries: LruCache::unbounded(), weight: 0, weight_max }
    }

    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Without that it counts as used.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains(key)
    }

    /// What is too heavy by itself is not kept.
    pub fn put(&mut self, key: K, weight: u64, value: V) {
        self.weight += weight;
        if let Some((old, _)) = self.entries.put(key, (weight, value)) {
            self.weight -= old;
        }
        while self.weight > self.weight_max {
            let Some((_, (old, _))) = self.entries.pop_lru() else { break };
            self.weight -= old;
        }
    }

    pub fn weight(&self) -> u64 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_goes_first_and_the_weight_is_true() {
        let mut kept = Bounded::new(10);
        kept.put("a", 4, 1);
        kept.put("b", 4, 2);
        assert_eq!(kept.get(&"a"), Some(&1));
        kept.put("c", 4, 3);
        assert!(kept.contains(&"a") && !kept.contains(&"b") && kept.contains(&"c"));
        kept.put("a", 1, 4);
        assert_eq!((kept.weight(), kept.get(&"a")), (5, Some(&4)));
        kept.put("d", 11, 5);
        assert_eq!((kept.weight(), kept.contains(&"d")), (0, false));
    }
}
