//! Hit-for-miss: what is not stored, so that nobody queues for it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use larder_core::{Clock, Key, Moment};
use parking_lot::Mutex;

/// The marks of one layer, by the keys of flights; sorted, so that those of one URL lie together. Bounded: when it is
/// full, the marks that have ended go, and if that frees nothing, all.
///
/// For layers that stand on a [`Store`](crate::Store): what could not be stored a moment ago is not waited for.
#[derive(Default)]
pub struct Passes(Mutex<BTreeMap<Key, Moment>>);

const MOST: usize = 16_384;

impl Passes {
    /// Whether a key is marked.
    pub fn holds(&self, key: &Key, clock: &Clock) -> bool {
        let mut marks = self.0.lock();
        match marks.get(key) {
            None => false,
            Some(until) if clock.now() < *until => true,
            Some(_) => {
                marks.remove(key);
                false
            }
        }
    }

    /// Marks a key for so long.
    pub fn set(&self, key: &Key, hold: Duration, clock: &Clock) {
        let now = clock.now();
        let mut marks = self.0.lock();
        if marks.len() >= MOST {
            marks.retain(|_, until| now < *until);
            if marks.len() >= MOST {
                marks.clear();
            }
        }
        marks.insert(key.clone(), now + hold);
    }

    /// Lifts a mark.
    pub fn lift(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    /// Lifts every mark whose key begins like that: those of all flights of a URL.
    pub fn lift_all(&self, url: &Key) {
        let begins = |key: &Key| key.as_ref().as_bytes().starts_with(url.as_ref().as_bytes());
        let mut marks = self.0.lock();
        let gone: Vec<Key> = marks
            .range::<Key, _>(url..)
            .map(|(key, _)| key)
            .take_while(|key| begins(key))
            .cloned()
            .collect();
        for key in &gone {
            marks.remove(key);
        }
    }
}

impl fmt::Debug for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passes({})", self.0.lock().len())
    }
}
