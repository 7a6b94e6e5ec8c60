//! Where keys lie: one server has them all; a cluster has 16,384 slots, and a name's slot decides which node it is on.
//!
//! The part of a name between braces is what a cluster takes for its slot. An entry's braces hold the hash of its key, so
//! entries are spread evenly and a `clear`, which changes the rest of the name, leaves them where they are. The sequence
//! and the tags of a namespace are changed together by one script, so they share one slot: that of the namespace.

use std::sync::LazyLock;

use crc::{CRC_16_XMODEM, Crc};
use larder_core::{Generation, Key, Namespace};

/// How names are made and where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All on one server: no slots, and one generation for a namespace.
    One,
    /// By slot.
    Cluster,
}

/// Where one key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home<'a> {
    pub(crate) namespace: &'a str,
    /// Zero on one server.
    pub(crate) slot: u16,
}

impl Home<'_> {
    /// Which of the namespace's generations its name has.
    pub(crate) fn bucket(&self) -> u16 {
        bucket(self.slot)
    }
}

/// Which of a namespace's generations the names in a slot have.
pub(crate) fn bucket(slot: u16) -> u16 {
    slot / BUCKET
}

impl Layout {
    pub(crate) fn home(self, key: &Key) -> Home<'_> {
        Home { namespace: key.namespace(), slot: self.slot_of(key) }
    }

    /// The slot in which a key lies.
    pub(crate) fn slot_of(self, key: &Key) -> u16 {
        match self {
            Layout::One => 0,
            Layout::Cluster if together(key) => self.slot(key.namespace()),
            Layout::Cluster => {
                // The hash alone decides; the generation is not known yet.
                let name = key.as_ref().wire_name(*ANY);
                self.slot(hash(&name))
            }
        }
    }

    /// Where the sequence and the tags of a namespace lie.
    pub(crate) fn home_of(self, namespace: &Namespace) -> Home<'_> {
        Home { namespace: namespace.as_str(), slot: self.slot(namespace.as_str()) }
    }

    /// One home for each generation that a namespace has.
    pub(crate) fn homes(self, namespace: &str) -> impl Iterator<Item = Home<'_>> {
        let home = move |bucket: u16| Home { namespace, slot: bucket * BUCKET };
        (0..self.buckets() as u16).map(home)
    }

    /// How many generations a namespace has.
    pub(crate) fn buckets(self) -> usize {
        match self {
            Layout::One => 1,
            Layout::Cluster => BUCKETS,
        }
    }

    /// A key's name in a generation.
    pub(crate) fn name(self, key: &Key, generation: Generation) -> String {
        let mut name = key.as_ref().wire_name(generation);
        match self {
            Layout::One => {}
            Layout::Cluster if together(key) => {
                name.push('{');
                name.push_str(key.namespace());
                name.push('}');
            }
            Layout::Cluster => {
                let start = name.len() - hash(&name).len();
                name.insert(start, '{');
                name.push('}');
            }
        }
        name
    }

    /// The slot of a name that a server told.
    pub(crate) fn slot_of_name(self, name: &str) -> u16 {
        let braces = name.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        self.slot(braces.map_or(name, |(inner, _)| inner))
    }

    /// Where a generation is kept: a name in a slot of its bucket, and that slot.
    pub(crate) fn place(self, namespace: &str, bucket: u16) -> (String, u16) {
        match self {
            Layout::One => (format!("{namespace}:generation"), 0),
            Layout::Cluster => {
                let (tag, slot) = &TAGS[usize::from(bucket)];
                (format!("{namespace}:generation:{{{tag}}}"), *slot)
            }
        }
    }

    /// The slot of a bucket's generation.
    pub(crate) fn place_slot(self, bucket: u16) -> u16 {
        match self {
            Layout::One => 0,
            Layout::Cluster => TAGS[usize::from(bucket)].1,
        }
    }

    fn slot(self, text: &str) -> u16 {
        match self {
            Layout::One => 0,
            Layout::Cluster => slot(text),
        }
    }
}

// The sequence and the tags: what one script changes together.
fn together(key: &Key) -> bool {
    matches!(key.as_ref().parts().next(), Some(Some(b"q" | b"t")))
}

// A wire name ends with the hash of its key.
fn hash(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, hash)| hash)
}

fn slot(text: &str) -> u16 {
    number(text) % SLOTS
}

/// A number that stands for a text, always the same.
pub(crate) fn number(text: &str) -> u16 {
    SLOTS_OF.checksum(text.as_bytes())
}

static ANY: LazyLock<Generation> = LazyLock::new(Generation::random);

const SLOTS_OF: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

// Slots that share a generation: neighbors, which mostly lie on one node, so that a node that is down takes no other's
// names along, and a node need not be asked for thousands of generations.
const BUCKET: u16 = 64;

const BUCKETS: usize = (SLOTS / BUCKET) as usize;

// For each bucket the first number whose slot is one of its own.
static TAGS: LazyLock<Vec<(String, u16)>> = LazyLock::new(|| {
    let mut tags: Vec<Option<(String, u16)>> = vec![None; BUCKETS];
    let mut missing = BUCKETS;
    for number in 0_u32.. {
        let text = number.to_string();
        let slot = slot(&text);
        let tag = &mut tags[usize::from(bucket(slot))];
        if tag.is_none() {
            *tag = Some((text, slot));
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    tags.into_iter().flatten().collect()
});

#[cfg(test)]
mod tests {
    use larder_core::Tag;

    use super::*;

    #[test]
    fn slots_are_the_servers() {
        // From the cluster's specification, and from `CLUSTER KEYSLOT`.
        assert_eq!(SLOTS_OF.checksum(b"123456789"), 0x31C3);
        assert_eq!(slot("foo"), 12_182);
    }

    #[test]
    fn a_name_lies_where_its_key_does_whatever_its_generation() {
        let shop = Namespace::new("shop").unwrap();
        let tag = Key::tag(&shop, &Tag::new("product:1").unwrap());
        let plain = Key::new(&shop, ["d", "a {b} c"]).unwrap();
        for key in [Key::sequence(&shop), tag.clone(), plain.clone()] {
            for _ in 0..10 {
                let name = Layout::Cluster.name(&key, Generation::random());
                assert_eq!(
                    Layout::Cluster.slot_of_name(&name),
                    Layout::Cluster.home(&key).slot,
                    "{name}"
                );
                assert!(name.starts_with("shop:") && name.len() <= 240, "{name}");
            }
            assert_eq!(Layout::One.home(&key).slot, 0);
        }
        assert_eq!(Layout::Cluster.home(&tag), Layout::Cluster.home_of(&shop));
        assert_ne!(Layout::Cluster.home(&tag).slot, Layout::Cluster.home(&plain).slot);
    }

    #[test]
    fn a_generation_lies_in_its_bucket() {
        for at in 0..BUCKETS as u16 {
            let (name, slot) = Layout::Cluster.place("shop", at);
            assert_eq!(Layout::Cluster.slot_of_name(&name), slot);
            assert_eq!(bucket(slot), at);
        }
        assert_eq!(Layout::Cluster.homes("shop").count(), 256);
        assert_eq!(Layout::One.homes("shop").count(), 1);
    }

    #[test]
    fn entries_are_spread() {
        let shop = Namespace::new("shop").unwrap();
        let mut used = vec![false; usize::from(SLOTS)];
        for n in 0..50_000 {
            let key = Key::new(&shop, ["d".to_owned(), n.to_string()]).unwrap();
            used[usize::from(Layout::Cluster.home(&key).slot)] = true;
        }
        let used = used.iter().filter(|used| **used).count();
        assert!(used > 15_000, "{used} of the slots are used");
    }
}
