//! What the first store has missed.

use std::collections::{HashMap, HashSet};

use larder_core::{Backend, Key, Namespace, Result, Tag};

/// What was changed while the first store was gone. It need not know what became of it: whatever it has under these
/// keys is outdated.
#[derive(Default)]
pub(super) struct Missed(HashMap<Namespace, Changes>);

#[derive(Default)]
struct Changes {
    keys: HashSet<Key>,
    tags: HashSet<Tag>,
    // All of it, or too much to remember.
    everything: bool,
}

/// What one operation changes.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Nothing,
    Keys(&'a [Key]),
    Tags(&'a Namespace, &'a [Tag]),
    Everything(&'a Namespace),
}

// So many keys or tags of one namespace are remembered: some 10 MiB of usual keys.
const MOST: usize = 65_536;

// So many go in one round trip.
const PAGE: usize = 500;

impl Missed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn note(&mut self, change: Change<'_>) {
        match change {
            Change::Nothing => {}
            Change::Keys(keys) => {
                for key in keys {
                    // A key has a namespace that is one.
                    let Ok(namespace) = Namespace::new(key.namespace()) else { continue };
                    self.0.entry(namespace).or_default().add_key(key);
                }
            }
            Change::Tags(namespace, tags) => {
                let changes = self.0.entry(namespace.clone()).or_default();
                tags.iter().for_each(|tag| changes.add_tag(tag));
            }
            Change::Everything(namespace) => {
                self.0.entry(namespace.clone()).or_default().add_everything();
            }
        }
    }

    /// Takes back what could not be told.
    pub(super) fn restore(&mut self, earlier: Missed) {
        for (namespace, changes) in earlier.0 {
            let present = self.0.entry(namespace).or_default();
            if changes.everything {
                present.add_everything();
            }
            changes.keys.iter().for_each(|key| present.add_key(key));
            changes.tags.iter().for_each(|tag| present.add_tag(tag));
        }
    }

    /// Tells a store. Telling the same twice does no harm.
    pub(super) async fn tell(&self, store: &impl Backend) -> Result<()> {
        for (namespace, changes) in &self.0 {
            if changes.everything {
                store.clear(namespace).await?;
                continue;
            }
            let tags: Vec<Tag> = changes.tags.iter().cloned().collect();
            for tags in tags.chunks(PAGE) {
                store.invalidate(namespace, tags).await?;
            }
            let keys: Vec<Key> = changes.keys.iter().cloned().collect();
            for keys in keys.chunks(PAGE) {
                store.remove_many(keys).await?;
            }
        }
        Ok(())
    }
}

impl Changes {
    fn add_key(&mut self, key: &Key) {
        if !self.everything && self.keys.insert(key.clone()) && self.keys.len() > MOST {
            self.add_everything();
        }
    }

    fn add_tag(&mut self, tag: &Tag) {
        if !self.everything && self.tags.insert(tag.clone()) && self.tags.len() > MOST {
            self.add_everything();
        }
    }

    fn add_everything(&mut self) {
        *self = Changes { everything: true, ..Changes::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::Clock;
    use larder_testkit::faulty::{Faulty, Verb};
    use larder_testkit::reference::Reference;

    #[tokio::test]
    async fn more_than_can_be_remembered_clears_the_namespace() {
        let store = Faulty::new(Reference::new(Clock::system()));
        let shop = Namespace::new("shop").unwrap();
        let mut missed = Missed::default();
        let keys = |count: usize| -> Vec<Key> {
            (0..count).map(|n| Key::new(&shop, [n.to_string()]).unwrap()).collect()
        };
        missed.note(Change::Keys(&keys(1200)));
        missed.tell(&store).await.unwrap();
        assert_eq!(store.faults().count(Verb::RemoveMany), 3);
        missed.note(Change::Keys(&keys(MOST + 1)));
        assert!(missed.0[&shop].keys.is_empty(), "nothing is kept beside \"everything\"");
        store.faults().forget();
        missed.tell(&store).await.unwrap();
        assert_eq!(store.faults().count(Verb::Clear), 1);
        assert_eq!(store.faults().total(), 1);
    }
}
