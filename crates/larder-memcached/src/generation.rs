//! The generations of namespaces: every server keeps its own, and they are copied here for a while.
//!
//! `<namespace>:generation` holds 16 hexadecimal digits. It is part of every wire name on that server, so a new one makes
//! everything stored there before unreachable, at once and whatever its number. A wire name has sixteen hexadecimal
//! digits where this one has the word, so the two never meet.
//!
//! A generation of its own for every server: a server that is down takes nobody else's along, and the question for it
//! travels with the request that it is for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Clock, Generation, Key, Moment};
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::protocol::Reply;

/// This node's copies of one server's generations.
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
    // Over which connection: the server may have been restarted since.
    connection: u64,
    // Somebody here is changing it.
    doubtful: bool,
}

/// The generations with which one request is made.
pub(crate) struct Names {
    used: SmallVec<[Used; 1]>,
    asked: Moment,
    connection: u64,
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
    /// They were not: the request must be made again, with those that are known now.
    Wrong,
}

impl Generations {
    pub(crate) fn new(max_age: Duration, clock: Clock) -> Self {
        Generations { copies: RwLock::default(), max_age, clock }
    }

    /// What is known about these namespaces. `connection` tells over which connection the request will go.
    pub(crate) fn names<'a>(
        &self,
        namespaces: impl IntoIterator<Item = &'a str>,
        connection: u64,
    ) -> Names {
        let asked = self.clock.now();
        let copies = self.copies.read();
        let mut used: SmallVec<[Used; 1]> = SmallVec::new();
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
        Names { used, asked, connection }
    }

    /// Takes the answers for the namespaces of [`Names::asked`].
    pub(crate) fn learn(&self, names: &Names, answers: &[Option<Generation>]) -> Verdict {
        let mut verdict = Verdict::Right;
        let mut copies = self.copies.write();
        for (used, answer) in names.used.iter().filter(|used| used.ask).zip(answers) {
            if used.generation != *answer || answer.is_none() {
                verdict = Verdict::Wrong;
            }
            let Some(generation) = *answer else {
                copies.remove(&used.namespace);
                continue;
            };
            let present = copies.get(&used.namespace).map(|copy| copy.generation);
            // Somebody here has changed it since we asked: this answer may be older than that.
            if present.is_some() && present != used.generation && present != Some(generation) {
                continue;
            }
            let copy = Copy {
                generation,
                asked: names.asked,
                connection: names.connection,
                doubtful: false,
            };
            copies.insert(used.namespace.clone(), copy);
        }
        verdict
    }

    /// Takes a generation that this node has just set.
    pub(crate) fn set(&self, namespace: &str, generation: Generation, connection: u64) {
        let copy = Copy { generation, asked: self.clock.now(), connection, doubtful: false };
        self.copies.write().insert(namespace.into(), copy);
    }

    /// Has every operation ask for it until it is known again.
    pub(crate) fn doubt(&self, namespace: &str) {
        if let Some(copy) = self.copies.write().get_mut(namespace) {
            copy.doubtful = true;
        }
    }
}

impl Names {
    /// Whether every name can be made.
    pub(crate) fn known(&self) -> bool {
        self.used.iter().all(|used| used.generation.is_some())
    }

    /// The namespaces that have to be asked for.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &str> {
        self.used.iter().filter(|used| used.ask).map(|used| &*used.namespace)
    }

    /// The name of a key. Its namespace must be one of those that these names were made for.
    pub(crate) fn of(&self, key: &Key) -> String {
        let used = match &self.used[..] {
            // Usually there is but one: no need to look whose it is.
            [used] => Some(used),
            several => several.iter().find(|used| *used.namespace == *key.namespace()),
        };
        // A random one names nothing that is stored.
        let generation = used.and_then(|used| used.generation).unwrap_or_else(Generation::random);
        key.as_ref().wire_name(generation)
    }
}

/// Where a namespace's generation is kept.
pub(crate) fn place(namespace: &str) -> String {
    format!("{namespace}:generation")
}

/// A generation as the server keeps it; `None` for nothing and for what nobody of us wrote.
pub(crate) fn read(reply: &Reply) -> Option<Generation> {
    match reply {
        Reply::Item(item) => Generation::parse(std::str::from_utf8(&item.data).ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_SECOND: Duration = Duration::from_secs(1);

    fn key() -> Key {
        Key::new(&larder_core::Namespace::new("a").unwrap(), ["k"]).unwrap()
    }

    #[test]
    fn a_copy_is_good_for_its_age_and_its_connection() {
        let (clock, hands) = Clock::manual();
        let generations = Generations::new(ONE_SECOND, clock);
        let questions = |connection| generations.names(["a", "a"], connection).asked().count();
        assert!(!generations.names(["a"], 1).known());
        generations.set("a", Generation::random(), 1);
        assert_eq!((questions(1), questions(2)), (0, 1));
        hands.advance(ONE_SECOND);
        assert_eq!(questions(1), 1);
        generations.set("a", Generation::random(), 1);
        generations.doubt("a");
        assert_eq!(questions(1), 1);
    }

    #[test]
    fn an_answer_from_before_a_change_does_not_undo_it() {
        let generations = Generations::new(Duration::ZERO, Clock::system());
        let (old, new) = (Generation::random(), Generation::random());
        generations.set("a", old, 1);
        let names = generations.names(["a"], 1);
        generations.set("a", new, 1);
        assert_eq!(generations.learn(&names, &[Some(old)]), Verdict::Right);
        let name = generations.names(["a"], 1).of(&key());
        assert_eq!(name, key().as_ref().wire_name(new));
    }

    #[test]
    fn another_answer_changes_the_names_and_none_forgets_them() {
        let generations = Generations::new(Duration::ZERO, Clock::system());
        let (old, new) = (Generation::random(), Generation::random());
        generations.set("a", old, 1);
        let names = generations.names(["a"], 1);
        assert_eq!(generations.learn(&names, &[Some(new)]), Verdict::Wrong);
        let names = generations.names(["a"], 1);
        assert_eq!(names.of(&key()), key().as_ref().wire_name(new));
        assert_eq!(generations.learn(&names, &[None]), Verdict::Wrong);
        assert!(!generations.names(["a"], 1).known());
    }
}
