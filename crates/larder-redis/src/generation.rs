//! The generations of namespaces: kept on the server, copied here for a while.
//!
//! `<namespace>:generation` holds 16 hexadecimal digits. It is part of every wire name, so a new one makes everything
//! stored before unreachable, at once and whatever its number. A wire name has sixteen hexadecimal digits where this one
//! has the word, so the two never meet.
//!
//! In a cluster there is one for each *bucket*, 64 slots beside each other, and it is kept in one of these slots: so the
//! question for it travels with what it is for, and a node that is down takes nobody else's names along.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Clock, Generation, Key, Moment};
use parking_lot::RwLock;
use redis::{Cmd, Value, cmd};
use smallvec::SmallVec;

use crate::layout::{Home, Layout, bucket};
use crate::request::Failure;

/// This node's copies.
pub(crate) struct Generations {
    layout: Layout,
    // One for each bucket.
    copies: RwLock<Copies>,
    max_age: Duration,
    clock: Clock,
}

type Copies = HashMap<Arc<str>, Box<[Option<Copy>]>>;

#[derive(Clone, Copy)]
struct Copy {
    generation: Generation,
    // When it was asked for, not when the answer came.
    asked: Moment,
    // Over which connection: another server may know another one.
    connection: u64,
    // Somebody here is changing it.
    doubtful: bool,
}

/// The generations with which one request is made.
pub(crate) struct Names {
    layout: Layout,
    used: SmallVec<[Used; 1]>,
    asked: Moment,
    // Those with which the request was made before, and which turned out to be of the past.
    earlier: Vec<Used>,
}

#[derive(Clone)]
struct Used {
    namespace: Arc<str>,
    bucket: u16,
    generation: Option<Generation>,
    connection: u64,
    // It must be asked for with this request.
    ask: bool,
    // Where it is kept cannot be reached, so nothing can be done under its names.
    failed: Option<Failure>,
}

/// What the server's answers say about the [`Names`] that were used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They were right.
    Right,
    /// They were not: the request must be made again with others, which are known now.
    Changed,
    /// The server has none for some: they must be made first.
    Missing,
}

impl Used {
    fn is(&self, namespace: &str, bucket: u16) -> bool {
        self.bucket == bucket && *self.namespace == *namespace
    }
}

impl Generations {
    pub(crate) fn new(layout: Layout, max_age: Duration, clock: Clock) -> Self {
        Generations { layout, copies: RwLock::default(), max_age, clock }
    }

    pub(crate) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// What is known about these homes' generations. `connection` tells which connection leads to a slot.
    pub(crate) fn names<'a>(
        &self,
        homes: impl IntoIterator<Item = Home<'a>>,
        connection: impl Fn(u16) -> u64,
    ) -> Names {
        let asked = self.clock.now();
        let copies = self.copies.read();
        let mut used: SmallVec<[Used; 1]> = SmallVec::new();
        for home in homes {
            let (namespace, bucket) = (home.namespace, home.bucket());
            if used.iter().any(|used| used.is(namespace, bucket)) {
                continue;
            }
            let connection = connection(self.layout.place_slot(bucket));
            let known = copies.get_key_value(namespace);
            let copy = known.and_then(|(_, copies)| copies[usize::from(bucket)]);
            used.push(Used {
                namespace: known.map_or_else(|| namespace.into(), |(name, _)| name.clone()),
                bucket,
                generation: copy.map(|copy| copy.generation),
                connection,
                ask: copy.is_none_or(|copy| {
                    copy.doubtful
                        || copy.connection != connection
                        || asked.since(copy.asked) >= self.max_age
                }),
                failed: None,
            });
        }
        Names { layout: self.layout, used, asked, earlier: Vec::new() }
    }

    /// Takes the answers to what [`Names::asks`] asked. One that failed is kept with the names.
    pub(crate) fn learn(
        &self,
        names: &mut Names,
        answers: impl IntoIterator<Item = Result<Option<Generation>, Failure>>,
    ) -> Verdict {
        let mut verdict = Verdict::Right;
        let mut copies = self.copies.write();
        for (used, answer) in names.used.iter_mut().filter(|used| used.ask).zip(answers) {
            let answer = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    used.failed = Some(failure);
                    continue;
                }
            };
            let copy = slot_of(&mut copies, self.layout, &used.namespace, used.bucket);
            let Some(generation) = answer else {
                *copy = None;
                verdict = Verdict::Missing;
                continue;
            };
            if used.generation != Some(generation) && verdict == Verdict::Right {
                verdict = Verdict::Changed;
            }
            let present = copy.map(|copy| copy.generation);
            // Somebody here has changed it since we asked: this answer may be older than that.
            if present.is_some() && present != used.generation && present != Some(generation) {
                continue;
            }
            *copy = Some(Copy {
                generation,
                asked: names.asked,
                connection: used.connection,
                doubtful: false,
            });
        }
        verdict
    }

    /// Takes a generation that this node has just set.
    pub(crate) fn set(
        &self,
        namespace: &str,
        bucket: u16,
        generation: Generation,
        connection: u64,
    ) {
        let copy = Copy { generation, asked: self.clock.now(), connection, doubtful: false };
        *slot_of(&mut self.copies.write(), self.layout, &namespace.into(), bucket) = Some(copy);
    }

    /// Has every operation ask for all of a namespace's generations until they are known again. Those that were known.
    pub(crate) fn doubt(&self, namespace: &str) -> Vec<Generation> {
        let mut copies = self.copies.write();
        let known = copies.get_mut(namespace).into_iter().flatten().flatten();
        let doubted = known.map(|copy| {
            copy.doubtful = true;
            copy.generation
        });
        doubted.collect()
    }

    /// Forgets one.
    pub(crate) fn forget(&self, namespace: &str, bucket: u16) {
        *slot_of(&mut self.copies.write(), self.layout, &namespace.into(), bucket) = None;
    }
}

fn slot_of<'a>(
    copies: &'a mut Copies,
    layout: Layout,
    namespace: &Arc<str>,
    bucket: u16,
) -> &'a mut Option<Copy> {
    let all = copies.entry(namespace.clone());
    &mut all.or_insert_with(|| vec![None; layout.buckets()].into())[usize::from(bucket)]
}

impl Names {
    /// Whether every name can be made, or cannot be had now.
    pub(crate) fn settled(&self) -> bool {
        self.used.iter().all(|used| used.generation.is_some() || used.failed.is_some())
    }

    /// Why no name at all can be made, if so.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        let none = !self.used.is_empty() && self.used.iter().all(|used| used.failed.is_some());
        self.used.first().filter(|_| none).and_then(|used| used.failed.as_ref())
    }

    /// Why nothing can be done under a home's names, if so.
    pub(crate) fn failure_at(&self, slot: u16) -> Option<&Failure> {
        let bucket = bucket(slot);
        self.used.iter().filter(|used| used.bucket == bucket).find_map(|used| used.failed.as_ref())
    }

    /// Takes over what could not be had before.
    pub(crate) fn failed_as(mut self, before: Option<&Names>) -> Self {
        for used in self.used.iter_mut().filter(|used| used.generation.is_none()) {
            let earlier = before.into_iter().flat_map(|names| &names.used);
            let mut same = earlier.filter(|earlier| earlier.is(&used.namespace, used.bucket));
            used.failed = same.find_map(|earlier| earlier.failed.clone());
        }
        self
    }

    /// How many generations have to be asked for.
    pub(crate) fn questions(&self) -> usize {
        self.used.iter().filter(|used| used.ask).count()
    }

    /// The commands that ask, one for each, and where.
    pub(crate) fn asks(&self) -> impl Iterator<Item = (u16, Cmd)> {
        self.used.iter().filter(|used| used.ask).map(|used| {
            let (place, slot) = self.layout.place(&used.namespace, used.bucket);
            let mut get = cmd("GET");
            get.arg(place);
            (slot, get)
        })
    }

    /// The commands that make one where there is none, and tell which there is now.
    pub(crate) fn makes(&self) -> Vec<(u16, Cmd, Generation)> {
        let make = |used: &Used| {
            let generation = Generation::random();
            let (place, slot) = self.layout.place(&used.namespace, used.bucket);
            let mut set = cmd("SET");
            set.arg(place).arg(generation.to_string()).arg("NX").arg("GET");
            (slot, set, generation)
        };
        self.used.iter().filter(|used| used.ask).map(make).collect()
    }

    /// The places that have to be asked.
    pub(crate) fn asked(&self) -> Vec<(String, u16)> {
        let asked = self.used.iter().filter(|used| used.ask);
        asked.map(|used| self.layout.place(&used.namespace, used.bucket)).collect()
    }

    /// The name of a key. Its home must be one of those that these names were made for.
    pub(crate) fn of(&self, key: &Key) -> String {
        let generation = match &self.used[..] {
            // One namespace on one server, which is usual: no need to look whose it is.
            [Used { generation: Some(generation), .. }] => *generation,
            _ => self.generation(self.layout.home(key)),
        };
        self.layout.name(key, generation)
    }

    /// Where a key lies.
    pub(crate) fn slot(&self, key: &Key) -> u16 {
        self.layout.slot_of(key)
    }

    /// Whether the request was made before, under other names.
    pub(crate) fn repeated(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// The other names that a key had when the request was made before.
    pub(crate) fn earlier_of(&self, key: &Key) -> impl Iterator<Item = String> {
        let (layout, present) = (self.layout, self.generation(self.layout.home(key)));
        let earlier = self.earlier(key).filter(move |earlier| *earlier != present);
        earlier.map(move |earlier| layout.name(key, earlier))
    }

    /// Whether the request was made before under the name that the key has: only others' names were wrong.
    pub(crate) fn same_before(&self, key: &Key) -> bool {
        let present = self.generation(self.layout.home(key));
        self.earlier(key).any(|earlier| earlier == present)
    }

    fn earlier(&self, key: &Key) -> impl Iterator<Item = Generation> {
        let home = self.layout.home(key);
        let earlier =
            self.earlier.iter().filter(move |used| used.is(home.namespace, home.bucket()));
        earlier.filter_map(|used| used.generation)
    }

    /// Remembers what was used before.
    pub(crate) fn after(self, before: Option<Names>) -> Self {
        let earlier = before.map_or_else(Vec::new, |before| {
            let Names { mut earlier, used, .. } = before;
            earlier.extend(used);
            earlier
        });
        Names { earlier, ..self }
    }

    /// The generation of a home's names.
    pub(crate) fn generation(&self, home: Home<'_>) -> Generation {
        let used = self.used.iter().find(|used| used.is(home.namespace, home.bucket()));
        // A random one names nothing that is stored.
        used.and_then(|used| used.generation).unwrap_or_else(Generation::random)
    }
}

/// A generation as the server keeps it; `None` for nothing and for what nobody of us wrote.
pub(crate) fn read(value: &Value) -> Option<Generation> {
    match value {
        Value::BulkString(bytes) => Generation::parse(std::str::from_utf8(bytes).ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use larder_core::{Error, ErrorKind};

    use super::*;

    const ONE_SECOND: Duration = Duration::from_secs(1);

    const A: Home<'static> = Home { namespace: "a", slot: 0 };

    fn generations(max_age: Duration, clock: Clock) -> Generations {
        Generations::new(Layout::One, max_age, clock)
    }

    #[test]
    fn a_copy_is_good_for_its_age_and_its_connection() {
        let (clock, hands) = Clock::manual();
        let generations = generations(ONE_SECOND, clock);
        assert!(!generations.names([A], |_| 1).settled());
        generations.set("a", 0, Generation::random(), 1);
        assert_eq!(generations.names([A, A], |_| 1).questions(), 0);
        assert_eq!(generations.names([A], |_| 2).questions(), 1);
        hands.advance(ONE_SECOND);
        assert_eq!(generations.names([A], |_| 1).questions(), 1);
        generations.set("a", 0, Generation::random(), 1);
        generations.doubt("a");
        assert_eq!(generations.names([A], |_| 1).questions(), 1);
    }

    #[test]
    fn an_answer_from_before_a_change_does_not_undo_it() {
        let generations = generations(Duration::ZERO, Clock::system());
        let (old, new) = (Generation::random(), Generation::random());
        generations.set("a", 0, old, 1);
        let mut names = generations.names([A], |_| 1);
        generations.set("a", 0, new, 1);
        assert_eq!(generations.learn(&mut names, [Ok(Some(old))]), Verdict::Right);
        assert_eq!(generations.names([A], |_| 1).generation(A), new);
    }

    #[test]
    fn another_answer_changes_the_names_and_none_forgets_them() {
        let generations = generations(Duration::ZERO, Clock::system());
        let (old, new) = (Generation::random(), Generation::random());
        generations.set("a", 0, old, 1);
        let mut names = generations.names([A], |_| 1);
        assert_eq!(generations.learn(&mut names, [Ok(Some(new))]), Verdict::Changed);
        let mut names = generations.names([A], |_| 1);
        assert_eq!(names.generation(A), new);
        assert_eq!(generations.learn(&mut names, [Ok(None)]), Verdict::Missing);
        assert!(!generations.names([A], |_| 1).settled());
    }

    #[test]
    fn a_bucket_that_cannot_be_asked_takes_no_other_along() {
        let generations = Generations::new(Layout::Cluster, ONE_SECOND, Clock::system());
        let homes = [A, Home { namespace: "a", slot: 63 }, Home { namespace: "a", slot: 64 }];
        let mut names = generations.names(homes, |_| 1);
        assert_eq!(names.questions(), 2, "the first two share a bucket");
        let generation = Generation::random();
        let down = Failure::before(Error::new(ErrorKind::Unavailable, "down"));
        let verdict = generations.learn(&mut names, [Err(down), Ok(Some(generation))]);
        assert_eq!(verdict, Verdict::Changed);
        assert!(names.failure_at(0).is_some() && names.failure_at(63).is_some());
        assert!(names.failure_at(64).is_none() && names.failure().is_none());
        assert_eq!(generations.names(homes, |_| 1).generation(homes[2]), generation);
        assert_eq!(generations.doubt("a"), [generation]);
    }
}
