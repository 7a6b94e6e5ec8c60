//! Sequences and tags: counters that are written together, under one lock for each namespace.

use larder_core::{
    Entry, Generation, Key, Marks, Namespace, Result, Revision, Sequence, Tag, Times,
};

use crate::client::failed;
use crate::locks::Hold;
use crate::naming::{Place, Shelf};
use crate::store::{Inner, Look, plain};
use crate::time::Time;

impl Inner {
    pub(crate) fn marks(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Marks> {
        if let Some(marks) = self.marks_as_they_are(namespace, tags)? {
            return Ok(marks);
        }
        let hold = self.stripes.hold(Shelf::marks_of(namespace.as_str()))?;
        let life = self.generation_or_new(namespace.as_str())?;
        let sequence = self.sequence(&hold, namespace, life)?;
        let mut numbers = Vec::with_capacity(tags.len());
        for tag in tags {
            let key = Key::tag(namespace, tag);
            let number =
                self.number(Some(&hold), &key, life)?.filter(|number| number.same_epoch(sequence));
            numbers.push(match number {
                Some(number) => number,
                None => {
                    self.set_number(&hold, &key, life, sequence)?;
                    sequence
                }
            });
        }
        Ok(Marks { sequence, tags: numbers })
    }

    // Without a lock, where nothing is missing: every invalidation moves the sequence before it raises a tag, so when
    // the sequence has stayed, so have the tags.
    fn marks_as_they_are(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Option<Marks>> {
        let Some(life) = self.generation(namespace.as_str())? else { return Ok(None) };
        let key = Key::sequence(namespace);
        let Some(sequence) = self.number(None, &key, life)? else { return Ok(None) };
        let mut numbers = Vec::with_capacity(tags.len());
        for tag in tags {
            match self.number(None, &Key::tag(namespace, tag), life)? {
                Some(number) if number.same_epoch(sequence) && number <= sequence => {
                    numbers.push(number);
                }
                _ => return Ok(None),
            }
        }
        let stayed = tags.is_empty() || self.number(None, &key, life)? == Some(sequence);
        Ok(stayed.then_some(Marks { sequence, tags: numbers }))
    }

    pub(crate) fn invalidate(&self, namespace: &Namespace, tags: &[Tag]) -> Result<Sequence> {
        let hold = self.stripes.hold(Shelf::marks_of(namespace.as_str()))?;
        let life = self.generation_or_new(namespace.as_str())?;
        let next = self.sequence(&hold, namespace, life)?.next();
        let key = Key::sequence(namespace);
        if let Err(error) = self.set_number(&hold, &key, life, next) {
            // A full disk still removes: with another epoch, nothing that was built before is valid.
            self.drop_number(&key, life)?;
            return Err(error);
        }
        for tag in tags {
            let key = Key::tag(namespace, tag);
            let larger =
                self.number(Some(&hold), &key, life)?.filter(|number| number.same_epoch(next));
            if larger.is_some_and(|number| number > next) {
                continue;
            }
            if self.set_number(&hold, &key, life, next).is_err() {
                // It is made anew when it is asked for, at this number or a later one.
                self.drop_number(&key, life)?;
            }
        }
        Ok(next)
    }

    fn sequence(
        &self,
        hold: &Hold<'_>,
        namespace: &Namespace,
        life: Generation,
    ) -> Result<Sequence> {
        let key = Key::sequence(namespace);
        if let Some(sequence) = self.number(Some(hold), &key, life)? {
            return Ok(sequence);
        }
        let start = Sequence::start();
        self.set_number(hold, &key, life, start)?;
        Ok(start)
    }

    // What is damaged is looked at once more under the lock, which the caller may have already.
    fn number(
        &self,
        hold: Option<&Hold<'_>>,
        key: &Key,
        life: Generation,
    ) -> Result<Option<Sequence>> {
        let (place, time) = (Place::of(key, life), Time::of(&self.clock));
        let look = match hold {
            Some(hold) => self.look_held(hold, &place, key, &time)?,
            None => self.look(&place, key, &time)?,
        };
        Ok(match look {
            Look::Entry(entry) => plain(&entry).and_then(Sequence::from_i64),
            _ => None,
        })
    }

    fn set_number(
        &self,
        hold: &Hold<'_>,
        key: &Key,
        life: Generation,
        number: Sequence,
    ) -> Result<()> {
        let time = Time::of(&self.clock);
        let entry = Entry::integer(number.get())
            .with_revision(Revision::NONE)
            .with_times(Times::starting(time.now, None, None));
        let bytes = self.envelope.encode(key.as_ref(), &entry, &time.base)?;
        self.write(hold, &Place::of(key, life), &bytes)
    }

    fn drop_number(&self, key: &Key, life: Generation) -> Result<()> {
        let place = Place::of(key, life);
        // Uncounting it may fail on a full disk too; the next sweep counts.
        self.directory.remove(&place).map_err(failed)?;
        Ok(())
    }
}
