//! Generations, sequences and tags: numbers that only grow, shared with the entries that depend on them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use larder_core::{Key, Mark, Namespace, Sequence, Tag};
use parking_lot::{Mutex, RwLock};

/// One process's numbers.
///
/// A tag without a cell is a tag that no entry here depends on, so cells that nobody shares any more are dropped: a
/// new cell starts at the sequence's present number, which no older value covers.
#[derive(Default)]
pub(crate) struct Numbers {
    namespaces: RwLock<HashMap<String, Arc<Numbered>>>,
}

struct Numbered {
    generation: Arc<AtomicI64>,
    sequence: AtomicI64,
    tags: Mutex<Table>,
}

/// What an entry depends on.
pub(crate) struct Conditions {
    pub(crate) generation: Mark,
    pub(crate) tags: Vec<Mark>,
    /// What its being fresh depends on beside that.
    pub(crate) fresh: Vec<Mark>,
}

#[derive(Default)]
struct Table {
    cells: HashMap<Key, Arc<AtomicI64>>,
    sweep_at: usize,
}

impl Numbers {
    /// What an entry of that namespace and generation, built at that number with these tags, depends on.
    pub(crate) fn conditions(
        &self,
        key: &Key,
        generation: i64,
        built_at: Sequence,
        tags: &[Tag],
    ) -> Conditions {
        let numbered = self.of(key.namespace());
        let (mut marks, mut fresh_marks) = (Vec::with_capacity(tags.len()), Vec::new());
        if !tags.is_empty()
            && let Ok(namespace) = Namespace::new(key.namespace())
        {
            let mut table = numbered.tags.lock();
            for tag in tags {
                let cell = table.cell(&Key::tag(&namespace, tag), &numbered.sequence);
                marks.push(Mark::new(cell, built_at.get()));
                if let Some(tag) = tag.expiring() {
                    let cell = table.cell(&Key::tag(&namespace, &tag), &numbered.sequence);
                    fresh_marks.push(Mark::new(cell, built_at.get()));
                }
            }
        }
        let generation = Mark::new(numbered.generation.clone(), generation);
        Conditions { generation, tags: marks, fresh: fresh_marks }
    }

    /// The sequence's number and the tags' last invalidations.
    pub(crate) fn read(&self, namespace: &Namespace, tags: &[Tag]) -> (Sequence, Vec<Sequence>) {
        let numbered = self.of(namespace.as_str());
        let mut table = numbered.tags.lock();
        let tags = tags
            .iter()
            .map(|tag| table.cell(&Key::tag(namespace, tag), &numbered.sequence))
            .map(|cell| number(cell.load(Ordering::Acquire)))
            .collect();
        (number(numbered.sequence.load(Ordering::Acquire)), tags)
    }

    /// Takes the next number and raises these tags to it.
    pub(crate) fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Sequence {
        let numbered = self.of(namespace.as_str());
        // Under the lock under which cells are made, so that none is made between the number and its record.
        let mut table = numbered.tags.lock();
        let next = numbered.sequence.fetch_add(1, Ordering::AcqRel) + 1;
        for tag in tags {
            let cell = table.cell(&Key::tag(namespace, tag), &numbered.sequence);
            cell.fetch_max(next, Ordering::AcqRel);
        }
        number(next)
    }

    /// A plain number kept under that key here, if it is a sequence's or a tag's.
    pub(crate) fn counter(&self, key: &Key) -> Option<i64> {
        let mut parts = key.as_ref().parts();
        let room = parts.next().flatten();
        if room != Some(b"q") && room != Some(b"t") {
            return None;
        }
        let numbered = self.namespaces.read().get(key.namespace())?.clone();
        if room == Some(b"q") {
            return parts.next().is_none().then(|| numbered.sequence.load(Ordering::Acquire));
        }
        let table = numbered.tags.lock();
        table.cells.get(key).map(|cell| cell.load(Ordering::Acquire))
    }

    /// Which life the namespace is in.
    pub(crate) fn generation(&self, namespace: &str) -> i64 {
        self.of(namespace).generation.load(Ordering::Acquire)
    }

    /// Ends the life of everything in the namespace.
    pub(crate) fn clear(&self, namespace: &Namespace) {
        self.of(namespace.as_str()).generation.fetch_add(1, Ordering::AcqRel);
    }

    fn of(&self, namespace: &str) -> Arc<Numbered> {
        if let Some(found) = self.namespaces.read().get(namespace) {
            return found.clone();
        }
        let mut namespaces = self.namespaces.write();
        namespaces
            .entry(namespace.to_owned())
            .or_insert_with(|| {
                Arc::new(Numbered {
                    generation: Arc::new(AtomicI64::new(0)),
                    sequence: AtomicI64::new(Sequence::start().get()),
                    tags: Mutex::default(),
                })
            })
            .clone()
    }
}

impl Table {
    fn cell(&mut self, key: &Key, sequence: &AtomicI64) -> Arc<AtomicI64> {
        if let Some(cell) = self.cells.get(key) {
            return cell.clone();
        }
        if self.cells.len() >= self.sweep_at {
            self.cells.retain(|_, cell| Arc::strong_count(cell) > 1);
            self.sweep_at = (self.cells.len() * 2).max(1024);
        }
        // Read inside the lock inside which `invalidate` takes its number.
        let cell = Arc::new(AtomicI64::new(sequence.load(Ordering::Acquire)));
        self.cells.insert(key.clone(), cell.clone());
        cell
    }
}

fn number(value: i64) -> Sequence {
    Sequence::from_i64(value).unwrap_or(Sequence::NONE)
}
