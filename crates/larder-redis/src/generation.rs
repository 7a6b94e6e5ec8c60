//! The generations of namespaces: kept on the server, copied here for a while.
//!
//! `<namespace>:generation` holds 16 hexadecimal digits. It is part of every wire name, so a new one makes everything
//! stored before unreachable, at once and whatever its number. A wire name has sixteen hexadecimal digits where this one
//! has the word, so the two never meet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Clock, Generation, Key, Moment};
use parking_lot::RwLock;
use redis::{Cmd, Value, cmd};

/// This node's copies.
pub(crate) struct Generations {
    copies: RwLock<HashMap<Arc<str>, Copy>>,
    max_age: Duration,
    clock: Clock,
}

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
    used: Vec<Used>,
    asked: Moment,
    connection: u64,
    // Those with which the request was made before, and which turned out to be of the past.
    earlier: Vec<(Arc<str>, Generation)>,
}

struct Used {
    namespace: Arc<str>,
    generation: Option<Generation>,
    // It must be asked for with this request.
    ask: bool,
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

impl Generations {
    pub(crate) fn new(max_age: Duration, clock: Clock) -> Self {
        Generations { copies: RwLock::default(), max_age, clock }
    }

    pub(crate) fn max_age(&self) -> Duration {
        self.max_age
    }

    /// What is known about these namespaces. `connection` tells over which connection the request will go.
    pub(crate) fn names<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a str>,
        connection: u64,
    ) -> Names {
        let asked = self.clock.now();
        let copies = self.copies.read();
        let mut used: Vec<Used> = Vec::with_capacity(1);
        for namespace in namespaces {
            if used.iter().any(|used| &*used.namespace == namespace) {
                continue;
            }
            used.push(match copies.get_key_value(namespace) {
                Some((name, copy)) => Used {
                    namespace: name.clone(),
                    generation: Some(copy.generation),
                    ask: copy.doubtful
                        || copy.connection != connection
                        || asked.since(copy.asked) >= self.max_age,
                },
                None => Used { namespace: namespace.into(), generation: None, ask: true },
            });
        }
        Names { used, asked, connection, earlier: Vec::new() }
    }

    /// Takes the answers to what [`Names::asks`] asked.
    pub(crate) fn learn(&self, names: &Names, answers: &[Option<Generation>]) -> Verdict {
        let mut verdict = Verdict::Right;
        let mut copies = self.copies.write();
        for (used, answer) in names.used.iter().filter(|used| used.ask).zip(answers) {
            let Some(generation) = *answer else {
                copies.remove(&used.namespace);
                verdict = Verdict::Missing;
                continue;
            };
            if used.generation != Some(generation) && verdict == Verdict::Right {
                verdict = Verdict::Changed;
            }
            let present = copies.get(&used.namespace).map(|copy| copy.generation);
            // Somebody here has changed it since we asked: this answer may be older than that.
            if present.is_some() && present != used.generation && present != Some(generation) {
                continue;
            }
            copies.insert(
                used.namespace.clone(),
                Copy {
                    generation,
                    asked: names.asked,
                    connection: names.connection,
                    doubtful: false,
                },
            );
        }
        verdict
    }

    /// Takes a generation that this node has just set.
    pub(crate) fn set(&self, namespace: &str, generation: Generation, connection: u64) {
        let copy = Copy { generation, asked: self.clock.now(), connection, doubtful: false };
        self.copies.write().insert(namespace.into(), copy);
    }

    /// Has every operation ask for it until it is known again.
    pub(crate) fn doubt(&self, namespace: &str) -> Option<Generation> {
        let mut copies = self.copies.write();
        let copy = copies.get_mut(namespace)?;
        copy.doubtful = true;
        Some(copy.generation)
    }

    /// Forgets it.
    pub(crate) fn forget(&self, namespace: &str) {
        self.copies.write().remove(namespace);
    }
}

impl Names {
    /// Whether every name can be made.
    pub(crate) fn known(&self) -> bool {
        self.used.iter().all(|used| used.generation.is_some())
    }

    /// How many generations have to be asked for.
    pub(crate) fn questions(&self) -> usize {
        self.used.iter().filter(|used| used.ask).count()
    }

    /// The commands that ask, one for each.
    pub(crate) fn asks(&self) -> impl Iterator<Item = Cmd> {
        self.used.iter().filter(|used| used.ask).map(|used| {
            let mut get = cmd("GET");
            get.arg(place(&used.namespace));
            get
        })
    }

    /// The commands that make one where there is none, and tell which there is now.
    pub(crate) fn makes(&self) -> Vec<(Cmd, Generation)> {
        let make = |used: &Used| {
            let generation = Generation::random();
            let mut set = cmd("SET");
            set.arg(place(&used.namespace)).arg(generation.to_string()).arg("NX").arg("GET");
            (set, generation)
        };
        self.used.iter().filter(|used| used.ask).map(make).collect()
    }

    /// The namespaces that have to be asked for.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &str> {
        self.used.iter().filter(|used| used.ask).map(|used| &*used.namespace)
    }

    /// The name of a key. Its namespace must be one of those that these names were made for.
    pub(crate) fn of(&self, key: &Key) -> String {
        key.as_ref().wire_name(self.generation(key.namespace()))
    }

    /// The names that a key had when the request was made before.
    pub(crate) fn earlier_of(&self, key: &Key) -> impl Iterator<Item = String> {
        let earlier = self.earlier.iter().filter(|(namespace, _)| **namespace == *key.namespace());
        earlier.map(|(_, generation)| key.as_ref().wire_name(*generation))
    }

    /// What [`Names::earlier_of`] tells of the names that replace these.
    pub(crate) fn into_earlier(self) -> Vec<(Arc<str>, Generation)> {
        let mut earlier = self.earlier;
        let used = self.used.into_iter();
        earlier.extend(used.filter_map(|used| Some((used.namespace, used.generation?))));
        earlier
    }

    /// Remembers what was used before.
    pub(crate) fn after(self, earlier: Vec<(Arc<str>, Generation)>) -> Self {
        Names { earlier, ..self }
    }

    /// A namespace's generation.
    pub(crate) fn generation(&self, namespace: &str) -> Generation {
        let used = self.used.iter().find(|used| &*used.namespace == namespace);
        // A random one names nothing that is stored.
        used.and_then(|used| used.generation).unwrap_or_else(Generation::random)
    }
}

/// Where a namespace's generation is kept.
pub(crate) fn place(namespace: &str) -> String {
    format!("{namespace}:generation")
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
    use super::*;

    const ONE_SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_copy_is_good_for_its_age_and_its_connection() {
        let (clock, hands) = Clock::manual();
        let generations = Generations::new(ONE_SECOND, clock);
        assert!(!generations.names(["a"], 1).known());
        generations.set("a", Generation::random(), 1);
        assert_eq!(generations.names(["a", "a"], 1).questions(), 0);
        assert_eq!(generations.names(["a"], 2).questions(), 1);
        hands.advance(ONE_SECOND);
        assert_eq!(generations.names(["a"], 1).questions(), 1);
        generations.set("a", Generation::random(), 1);
        generations.doubt("a");
        assert_eq!(generations.names(["a"], 1).questions(), 1);
    }

    #[test]
    fn an_answer_from_before_a_change_does_not_undo_it() {
        let generations = Generations::new(Duration::ZERO, Clock::system());
        let (old, new) = (Generation::random(), Generation::random());
        generations.set("a", old, 1);
        let names = generations.names(["a"], 1);
        generations.set("a", new, 1);
        assert_eq!(generations.learn(&names, &[Some(old)]), Verdict::Right);
        assert_eq!(generations.names(["a"], 1).generation("a"), new);
    }

    #[test]
    fn another_answer_changes_the_names_and_none_forgets_them() {
        let generations = Generations::new(Duration::ZERO, Clock::system());
        let (old, new) = (Generation::random(), Generation::random());
        generations.set("a", old, 1);
        let names = generations.names(["a"], 1);
        assert_eq!(generations.learn(&names, &[Some(new)]), Verdict::Changed);
        assert_eq!(generations.names(["a"], 1).generation("a"), new);
        assert_eq!(generations.learn(&generations.names(["a"], 1), &[None]), Verdict::Missing);
        assert!(!generations.names(["a"], 1).known());
    }
}
