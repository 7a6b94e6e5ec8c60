//! Single-flight: one computation for a key in this process, however many callers.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use larder_core::{Key, Namespace, Prefix, Tag, Token};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Failure;

/// The running computations of one engine.
///
/// A flight is in the table from its start until its [`Pilot`] lands or is dropped, on whatever path, or until an
/// invalidation detaches it: callers that come later then start their own. Nobody joins a finished one; who joins one that
/// is [closed](Pilot::close) waits for its end, and gets nothing of it.
#[derive(Clone)]
pub(crate) struct Flights(Arc<Stripes>);

struct Stripes {
    tables: Box<[Mutex<Table>]>,
    hasher: RandomState,
}

type Table = HashMap<Key, Arc<Flight>>;

/// What the table, the pilot and those who wait have together.
struct Flight {
    group: Key,
    tags: Arc<[Tag]>,
    state: Mutex<State>,
    news: Notify,
}

struct State {
    progress: Progress,
    // The fill marker that it has in the store, so that detaching the flight can take it away: a later flight would find
    // the key busy with a value that nobody will read.
    token: Option<Token>,
    listed: Listed,
    // Whoever began it waits for it, too.
    own: bool,
}

/// Where a flight stands until it lands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    /// In the table, for everybody.
    Open,
    /// In the table; who comes now waits, and then looks again.
    Closed,
    /// An invalidation has taken it out.
    Detached,
}

impl Listed {
    // Who has it beside its passengers: the pilot and, where it is listed, the table.
    fn holders(self) -> usize {
        1 + usize::from(self != Listed::Detached)
    }
}

/// How far a flight has come.
enum Progress {
    UnderWay(Option<Anything>),
    Landed(Landed),
    // It ended with nothing.
    Lost,
}

type Anything = Arc<dyn Any + Send + Sync>;

/// How a flight ended.
#[derive(Clone)]
pub struct Landed {
    /// What came of it, or why nothing did.
    pub result: Result<Anything, Failure>,
    /// Whether those may have it who came after it had begun. Not, when the store refused it: something that they
    /// may know of happened meanwhile.
    pub shared: bool,
    /// The tags that it carries: those who use it in what they make hand them up.
    pub tags: Arc<[Tag]>,
}

impl Landed {
    /// A flight's end without tags.
    pub fn new(result: Result<Anything, Failure>, shared: bool) -> Self {
        Landed { result, shared, tags: Arc::default() }
    }
}

impl fmt::Debug for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Landed")
            .field("ok", &self.result.is_ok())
            .field("shared", &self.shared)
            .finish()
    }
}

/// What a caller becomes when it [joins](crate::Store::join) a flight.
#[derive(Debug)]
pub enum Joined {
    /// The one that does the work, and may wait for it as well.
    Pilot(Pilot, Passenger),
    /// One that waits.
    Passenger(Passenger),
}

/// Held by whoever does the work. Landing ends the flight with a result; dropping it ends it with none.
pub struct Pilot {
    key: Key,
    flights: Flights,
    flight: Arc<Flight>,
}

/// A flight whose passengers are all there: whether they may have what came of it.
///
/// Somebody may be among them who came after an invalidation that detached nothing here: of a tag that only the result
/// has, or on another node. By default nobody waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closed {
    // Others than its own caller wait.
    pub(crate) others: bool,
}

/// Held by a caller that waits. Dropping it harms nobody.
pub struct Passenger {
    flight: Arc<Flight>,
    own: bool,
    // It came when the flight was closed.
    late: bool,
}

/// What a [`Passenger`] hears.
#[derive(Clone)]
pub enum Heard {
    /// What the one that does the work has [announced](Pilot::announce).
    Announced(Anything),
    /// How it ended.
    Landed(Landed),
}

const STRIPES: usize = 64;

impl Default for Flights {
    fn default() -> Self {
        Flights(Arc::new(Stripes {
            tables: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
        }))
    }
}

impl Flights {
    /// Joins the flight of that key or starts one. Flights of one group are detached together.
    pub(crate) fn join(&self, key: &Key, group: &Key, tags: &[Tag]) -> Joined {
        let mut table = self.table(group).lock();
        if let Some(flight) = table.get(key) {
            let late = flight.state.lock().listed == Listed::Closed;
            return Joined::Passenger(Passenger { flight: flight.clone(), own: false, late });
        }
        let flight = Arc::new(Flight {
            group: group.clone(),
            // None is the usual number, and that slice is there already.
            tags: if tags.is_empty() { Arc::default() } else { tags.into() },
            state: Mutex::new(State {
                progress: Progress::UnderWay(None),
                token: None,
                listed: Listed::Open,
                own: true,
            }),
            news: Notify::new(),
        });
        table.insert(key.clone(), flight.clone());
        let (key, flights) = (key.clone(), self.clone());
        let passenger = Passenger { flight: flight.clone(), own: true, late: false };
        Joined::Pilot(Pilot { key, flights, flight }, passenger)
    }

    pub(crate) fn detach(&self, group: &Key) {
        // Whoever detaches a key by name also voids its marker in the store.
        self.table(group).lock().retain(|_, flight| {
            let stays = flight.group != *group;
            if !stays {
                flight.detach();
            }
            stays
        });
    }

    /// Detaches the flights for these tags; their markers, which the store does not void by itself.
    pub(crate) fn detach_tags(&self, namespace: &Namespace, tags: &[Tag]) -> Vec<(Key, Token)> {
        self.detach_where(|key, flight| {
            key.namespace() == namespace.as_str()
                && flight.tags.iter().any(|tag| tags.contains(tag))
        })
    }

    pub(crate) fn detach_namespace(&self, namespace: &Namespace) {
        self.detach_where(|key, _| key.namespace() == namespace.as_str());
    }

    /// Detaches the flights of groups that begin like that; their markers.
    pub(crate) fn detach_prefix(&self, prefix: &Prefix) -> Vec<(Key, Token)> {
        self.detach_where(|_, flight| prefix.matches(flight.group.as_ref()))
    }

    fn detach_where(&self, detach: impl Fn(&Key, &Flight) -> bool) -> Vec<(Key, Token)> {
        let mut held = Vec::new();
        for table in &self.0.tables {
            table.lock().retain(|key, flight| {
                if !detach(key, flight) {
                    return true;
                }
                held.extend(flight.detach().map(|token| (flight.group.clone(), token)));
                false
            });
        }
        held
    }

    fn table(&self, group: &Key) -> &Mutex<Table> {
        &self.0.tables[self.0.hasher.hash_one(group) as usize % STRIPES]
    }

    fn leave(&self, pilot: &Pilot) {
        let mut table = self.table(&pilot.flight.group).lock();
        // A detached flight must not take its successor along.
        if table.get(&pilot.key).is_some_and(|flight| Arc::ptr_eq(flight, &pilot.flight)) {
            table.remove(&pilot.key);
            if table.capacity() > 1024 && table.len() < table.capacity() / 8 {
                table.shrink_to(64);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.tables.iter().map(|table| table.lock().len()).sum()
    }
}

impl Flight {
    fn passengers(self: &Arc<Self>) -> usize {
        let holders = self.state.lock().listed.holders();
        Arc::strong_count(self).saturating_sub(holders)
    }

    // Gives its marker up, if it has one.
    fn detach(&self) -> Option<Token> {
        let mut state = self.state.lock();
        state.listed = Listed::Detached;
        state.token.take()
    }

    fn tell(&self, progress: Progress) {
        // What was there is dropped behind the lock.
        let _before = std::mem::replace(&mut self.state.lock().progress, progress);
        self.news.notify_waiters();
    }

    // Waits for the first progress that is news to the caller; `None` when there will be none.
    async fn hear<T>(&self, news: impl Fn(&Progress) -> Option<T>) -> Option<T> {
        loop {
            // Made before the look, so that nothing is told between the two unheard.
            let told = self.news.notified();
            {
                let state = self.state.lock();
                if let Some(heard) = news(&state.progress) {
                    return Some(heard);
                }
                if matches!(state.progress, Progress::Lost) {
                    return None;
                }
            }
            told.await;
        }
    }
}

impl Pilot {
    /// Tells which fill marker this flight has. False when it was detached already: then the marker is of no use, and
    /// it is the caller's to release.
    pub fn holds(&self, token: Token) -> bool {
        let mut state = self.flight.state.lock();
        let listed = state.listed != Listed::Detached;
        if listed {
            state.token = Some(token);
        }
        listed
    }

    /// How many wait for it at this moment.
    pub fn waiting(&self) -> usize {
        self.flight.passengers()
    }

    /// Tells those who wait, and those who come yet, of something that they may be able to use before the flight has
    /// ended. Whether an invalidation has made it useless in the meantime is theirs to find out.
    pub fn announce(&self, something: Anything) {
        self.flight.tell(Progress::UnderWay(Some(something)));
    }

    /// From now on nobody gets a part of it: who comes waits for its end, and looks again. What the store says afterwards is
    /// as new as anything that one of those who wait already may know of: [`Closed`] asks it.
    pub fn close(&self) -> Closed {
        // Nobody joins meanwhile.
        let _table = self.flights.table(&self.flight.group).lock();
        let mut state = self.flight.state.lock();
        if state.listed == Listed::Open {
            state.listed = Listed::Closed;
        }
        let known = state.listed.holders() + usize::from(state.own);
        Closed { others: Arc::strong_count(&self.flight) > known }
    }

    /// Ends the flight: first it leaves the table, so that nobody joins any more, then those who wait are told. What is
    /// told is made only if somebody waits.
    pub fn land(self, landed: impl FnOnce() -> Landed) {
        self.flights.leave(&self);
        // The table has it no longer, so all others are passengers.
        if Arc::strong_count(&self.flight) > 1 {
            self.flight.tell(Progress::Landed(landed()));
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        let landed = matches!(self.flight.state.lock().progress, Progress::Landed(_));
        if !landed {
            self.flights.leave(self);
            self.flight.tell(Progress::Lost);
        }
    }
}

impl fmt::Debug for Pilot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pilot({:?})", self.key)
    }
}

impl Drop for Passenger {
    fn drop(&mut self) {
        if self.own {
            self.flight.state.lock().own = false;
        }
    }
}

impl Passenger {
    /// Waits for the landing; `None` when the flight ended without a result.
    ///
    /// Dropping the future harms nobody.
    pub async fn arrive(self) -> Option<Landed> {
        let landed = |progress: &Progress| match progress {
            Progress::Landed(landed) => Some(self.told(landed)),
            Progress::UnderWay(_) | Progress::Lost => None,
        };
        self.flight.hear(landed).await
    }

    // Nobody has asked the store for those who came when it was closed: they look for themselves.
    fn told(&self, landed: &Landed) -> Landed {
        Landed { shared: landed.shared && !self.late, ..landed.clone() }
    }

    /// How many others wait at this moment, as long as the flight has not ended.
    pub fn others(&self) -> usize {
        self.flight.passengers().saturating_sub(1)
    }

    /// Waits for an announcement or for the landing; `None` when the flight ended without a result.
    ///
    /// Dropping the future harms nobody.
    pub async fn hear(&mut self) -> Option<Heard> {
        let news = |progress: &Progress| match progress {
            Progress::UnderWay(_) if self.late => None,
            Progress::UnderWay(announced) => announced.clone().map(Heard::Announced),
            Progress::Landed(landed) => Some(Heard::Landed(self.told(landed))),
            Progress::Lost => None,
        };
        self.flight.hear(news).await
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Announced(_) => f.write_str("Announced"),
            Heard::Landed(landed) => landed.fmt(f),
        }
    }
}

impl fmt::Debug for Passenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passenger")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(&Namespace::new("test").unwrap(), [name]).unwrap()
    }

    fn landed(value: u32) -> Landed {
        Landed::new(Ok(Arc::new(value)), true)
    }

    fn start(flights: &Flights, name: &str) -> Pilot {
        match flights.join(&key(name), &key(name), &[]) {
            Joined::Pilot(pilot, _) => pilot,
            Joined::Passenger(_) => panic!("somebody flies {name} already"),
        }
    }

    fn board(flights: &Flights, name: &str) -> Passenger {
        match flights.join(&key(name), &key(name), &[]) {
            Joined::Passenger(passenger) => passenger,
            Joined::Pilot(..) => panic!("nobody flies {name}"),
        }
    }

    #[tokio::test]
    async fn who_comes_when_a_flight_is_closed_waits_for_its_end_and_shares_nothing() {
        let flights = Flights::default();
        let pilot = start(&flights, "a");
        let waiting = board(&flights, "a");
        assert!(pilot.close().others, "somebody waits");
        pilot.announce(Arc::new(0_u32));
        let (late, mut later) = (board(&flights, "a"), board(&flights, "a"));
        assert_eq!((flights.len(), pilot.waiting()), (1, 3));
        pilot.land(|| landed(1));
        assert_eq!(flights.len(), 0);
        assert!(waiting.arrive().await.unwrap().shared);
        assert!(!late.arrive().await.unwrap().shared);
        let Some(Heard::Landed(landed)) = later.hear().await else { panic!("it has landed") };
        assert!(!landed.shared);
    }

    #[test]
    fn a_closed_flight_knows_whether_others_than_its_own_caller_wait() {
        let flights = Flights::default();
        let join = || match flights.join(&key("a"), &key("a"), &[]) {
            Joined::Pilot(pilot, own) => (pilot, own),
            Joined::Passenger(_) => panic!("somebody flies already"),
        };
        let (pilot, own) = join();
        assert!(!pilot.close().others, "only its own caller waits");
        drop((pilot, own));
        let (pilot, own) = join();
        drop(own);
        assert!(!pilot.close().others, "its own caller has left, and nobody else has come");
        drop(pilot);
        let (pilot, _own) = join();
        let _other = board(&flights, "a");
        assert!(pilot.close().others);
        // One that was detached is not under way for anybody, closed or not.
        flights.detach(&key("a"));
        assert_eq!(flights.len(), 0);
        let (next, _) = join();
        assert!(pilot.close().others);
        drop(pilot);
        assert_eq!(flights.len(), 1, "the successor is still in the table");
        drop(next);
    }

    #[tokio::test]
    async fn passengers_get_the_pilots_result() {
        let flights = Flights::default();
        let pilot = start(&flights, "a");
        let passenger = board(&flights, "a");
        pilot.land(|| landed(7));
        let value = passenger.arrive().await.unwrap().result.unwrap();
        assert_eq!(value.downcast_ref::<u32>(), Some(&7));
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn what_is_announced_is_heard_before_the_landing_and_by_those_who_come_later() {
        let flights = Flights::default();
        let pilot = start(&flights, "a");
        let mut early = board(&flights, "a");
        pilot.announce(Arc::new(3_u32));
        assert_eq!(pilot.waiting(), 1);
        let mut late = board(&flights, "a");
        assert_eq!((pilot.waiting(), late.others()), (2, 1));
        for passenger in [&mut early, &mut late] {
            let Some(Heard::Announced(value)) = passenger.hear().await else { panic!("nothing") };
            assert_eq!(value.downcast_ref::<u32>(), Some(&3));
        }
        let waiting = tokio::spawn(early.arrive());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "an announcement is no landing");
        pilot.land(|| landed(7));
        assert!(matches!(late.hear().await, Some(Heard::Landed(_))));
        let value = waiting.await.unwrap().unwrap().result.unwrap();
        assert_eq!(value.downcast_ref::<u32>(), Some(&7));
    }

    #[tokio::test]
    async fn nobody_joins_a_finished_flight_even_while_its_passengers_are_on_board() {
        let flights = Flights::default();
        let pilot = start(&flights, "a");
        let unpolled = board(&flights, "a");
        pilot.land(|| landed(1));
        let second = start(&flights, "a");
        assert!(unpolled.arrive().await.is_some());
        drop(second);
    }

    #[tokio::test]
    async fn a_dropped_pilot_frees_its_passengers() {
        let flights = Flights::default();
        let pilot = start(&flights, "a");
        let passenger = board(&flights, "a");
        drop(pilot);
        assert!(passenger.arrive().await.is_none());
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn a_detached_flight_lands_for_its_passengers_and_leaves_its_successor_alone() {
        let flights = Flights::default();
        let pilot = start(&flights, "a");
        let passenger = board(&flights, "a");
        flights.detach(&key("a"));
        assert_eq!(pilot.waiting(), 1);
        let _successor = start(&flights, "a");
        pilot.land(|| landed(1));
        assert!(passenger.arrive().await.is_some());
        assert_eq!(flights.len(), 1, "the successor is still in the table");
    }

    #[test]
    fn tags_and_namespaces_detach_exactly_their_flights() {
        let flights = Flights::default();
        let tag = Tag::new("products").unwrap();
        let Joined::Pilot(_a, _) = flights.join(&key("a"), &key("a"), std::slice::from_ref(&tag))
        else {
            panic!()
        };
        let _b = start(&flights, "b");
        flights.detach_tags(&Namespace::new("other").unwrap(), std::slice::from_ref(&tag));
        assert_eq!(flights.len(), 2);
        flights.detach_tags(&Namespace::new("test").unwrap(), &[tag]);
        assert_eq!(flights.len(), 1);
        flights.detach_namespace(&Namespace::new("test").unwrap());
        assert_eq!(flights.len(), 0);
    }
}
