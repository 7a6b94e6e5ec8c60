//! Which server a key lies on.
//!
//! Rendezvous hashing: every server is given a number for the key, and the largest one has it. Adding a server moves
//! just the keys that it takes over, taking one away just those that it had. The numbers must be the same in every
//! process, release and architecture, so they are made here of two published functions and tested for their values.

use larder_core::KeyRef;

/// The servers' shares of the keys.
pub(crate) struct Ring {
    seeds: Vec<u64>,
}

impl Ring {
    /// A ring of servers of these names.
    pub(crate) fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Ring { seeds: names.into_iter().map(|name| fnv(name.as_ref().as_bytes())).collect() }
    }

    /// The place of a key's server in the list of names.
    pub(crate) fn server(&self, key: KeyRef<'_>) -> usize {
        if self.seeds.len() == 1 {
            return 0;
        }
        let hash = fnv(key.as_bytes());
        let weight = |(_, seed): &(usize, &u64)| mixed(hash ^ mixed(**seed));
        self.seeds.iter().enumerate().max_by_key(weight).map_or(0, |(place, _)| place)
    }
}

// FNV-1a in 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

// The finish of SplitMix64.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::{Key, Namespace};

    fn key(n: usize) -> Key {
        Key::new(&Namespace::new("shop").unwrap(), ["product".to_owned(), n.to_string()]).unwrap()
    }

    fn owners(names: &[&str]) -> Vec<String> {
        let ring = Ring::new(names);
        (0..10_000).map(|n| names[ring.server(key(n).as_ref())].to_owned()).collect()
    }

    #[test]
    fn the_functions_are_the_published_ones() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
        // SplitMix64's first number from the seed 0.
        assert_eq!(mixed(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn every_server_has_its_share_and_the_order_does_not_matter() {
        let names = ["h1:11211", "h2:11211", "h3:11211", "h4:11211"];
        let all = owners(&names);
        for name in names {
            let share = all.iter().filter(|owner| *owner == name).count();
            assert!((2300..2700).contains(&share), "{name} has {share} of 10,000");
        }
        assert_eq!(all, owners(&["h4:11211", "h2:11211", "h1:11211", "h3:11211"]));
    }

    #[test]
    fn a_server_that_goes_moves_only_its_own_keys() {
        let before = owners(&["h1", "h2", "h3"]);
        let after = owners(&["h1", "h3"]);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || before == "h2");
        }
    }
}
