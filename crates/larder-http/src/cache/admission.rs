//! Which URLs are asked for often enough to be stored.

use std::collections::HashMap;

use larder_core::Key;
use parking_lot::Mutex;

/// How often URLs were filled without being stored. Two generations, so that what nobody asks for again is forgotten: when
/// the young one is full, it takes the place of the old one.
#[derive(Default)]
pub(super) struct Admission(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Key, u32>,
    old: HashMap<Key, u32>,
}

const HALF: usize = 8_192;

impl Admission {
    /// Counts one more request, and tells whether it is the one from which on the URL is stored.
    pub(super) fn admits(&self, key: &Key, after: u32) -> bool {
        if after <= 1 {
            return true;
        }
        let mut counts = self.0.lock();
        let Generations { young, old } = &mut *counts;
        let before = young.get(key).copied().or_else(|| old.get(key).copied()).unwrap_or(0);
        if before + 1 >= after {
            young.remove(key);
            old.remove(key);
            return true;
        }
        if young.len() >= HALF {
            *old = std::mem::take(young);
        }
        young.insert(key.clone(), before + 1);
        false
    }
}

#[cfg(test)]
mod tests {
    use larder_core::Namespace;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(&Namespace::new("shop").unwrap(), [name]).unwrap()
    }

    #[test]
    fn the_third_is_admitted_and_counting_begins_anew() {
        let admission = Admission::default();
        for _ in 0..2 {
            let (a, b) = (key("a"), key("b"));
            assert_eq!([1, 2, 3].map(|_| admission.admits(&a, 3)), [false, false, true]);
            assert_eq!([1, 2, 3].map(|_| admission.admits(&b, 3)), [false, false, true]);
        }
        assert!(admission.admits(&key("c"), 1) && admission.admits(&key("c"), 0));
    }

    #[test]
    fn a_flood_of_urls_takes_bounded_room_and_spares_what_is_asked_for_between() {
        let admission = Admission::default();
        let often = key("often");
        assert!(!admission.admits(&often, 3));
        for n in 0..HALF {
            assert!(!admission.admits(&key(&n.to_string()), 3));
        }
        assert!(!admission.admits(&often, 3));
        for n in 0..HALF {
            assert!(!admission.admits(&key(&format!("x{n}")), 3));
        }
        assert!(admission.admits(&often, 3));
        for n in 0..10 * HALF {
            admission.admits(&key(&format!("y{n}")), 3);
        }
        let counts = admission.0.lock();
        assert!(counts.young.len() + counts.old.len() <= 2 * HALF);
    }
}
