//! Which life a namespace is in.
//!
//! A small file for each namespace holds its generation, and every operation looks at it: what one process clears is
//! gone for the others at once.

use std::sync::Arc;

use larder_core::{Generation, Result};
use parking_lot::Mutex;

use crate::client::{Small, failed};
use crate::store::Inner;

/// What was read last: while the same file lies there, it says the same.
///
/// A file is never written again once it has its name, and as long as it is open no other one can be taken for it.
#[derive(Default)]
pub(crate) struct Known(Mutex<Vec<Arc<Read>>>);

struct Read {
    namespace: String,
    file: Small,
    generation: Option<Generation>,
}

impl Known {
    fn get(&self, namespace: &str) -> Option<Arc<Read>> {
        self.0.lock().iter().find(|read| read.namespace == namespace).cloned()
    }

    fn set(&self, read: Read) {
        let mut known = self.0.lock();
        known.retain(|other| other.namespace != read.namespace);
        if known.len() == KNOWN {
            known.remove(0);
        }
        known.push(Arc::new(read));
    }
}

impl Inner {
    /// A namespace's generation; `None` when it has none, so that nothing is there.
    pub(crate) fn generation(&self, namespace: &str) -> Result<Option<Generation>> {
        let path = self.directory.generation_path(namespace);
        if let Some(read) = self.known.get(namespace)
            && read.file.lies_at(&path)
        {
            return Ok(read.generation);
        }
        let Some(file) = self.directory.read_small(&path).map_err(failed)? else { return Ok(None) };
        let generation = file.text.strip_suffix('\n').and_then(Generation::parse);
        self.known.set(Read { namespace: namespace.to_owned(), file, generation });
        Ok(generation)
    }

    /// The same, made where it is missing. A lost one comes back as a new one, and nothing old with it.
    pub(crate) fn generation_or_new(&self, namespace: &str) -> Result<Generation> {
        if let Some(generation) = self.generation(namespace)? {
            return Ok(generation);
        }
        let _held = self.generations.hold()?;
        match self.generation(namespace)? {
            Some(generation) => Ok(generation),
            None => self.set_generation(namespace),
        }
    }

    /// Ends the life of everything in the namespace.
    pub(crate) fn clear(&self, namespace: &str) -> Result<()> {
        let held = self.generations.hold()?;
        if let Err(error) = self.set_generation(namespace) {
            // A full disk still removes, and a lost generation comes back as a new one.
            let path = self.directory.generation_path(namespace);
            self.directory.remove_path(&path).map_err(|_| error)?;
        }
        drop(held);
        self.bell.ring();
        Ok(())
    }

    // Its lock must be held.
    fn set_generation(&self, namespace: &str) -> Result<Generation> {
        let new = Generation::random();
        let text = format!("{new}\n");
        let directory = self.directory.generations();
        self.directory.replace(directory, namespace, text.as_bytes()).map_err(failed)?;
        Ok(new)
    }
}

// Files that are kept open.
const KNOWN: usize = 16;

/// The generations of several namespaces, each read once.
pub(crate) struct Lives<'a> {
    inner: &'a Inner,
    known: Vec<(String, Option<Generation>)>,
}

impl<'a> Lives<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Lives { inner, known: Vec::new() }
    }

    pub(crate) fn of(&mut self, namespace: &str) -> Result<Option<Generation>> {
        if let Some((_, generation)) = self.known.iter().find(|(name, _)| name == namespace) {
            return Ok(*generation);
        }
        let generation = self.inner.generation(namespace)?;
        self.known.push((namespace.to_owned(), generation));
        Ok(generation)
    }
}
