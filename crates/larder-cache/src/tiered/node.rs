//! One node among those that share a store: tells what it changed, and hears what others did.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Bus, Heard, Key, Namespace, Sequence, Tag};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::message::{Message, News};
use super::near::Near;

pub(super) struct Node {
    id: u128,
    near: Arc<Near>,
    heartbeat: Duration,
    outbox: Mutex<VecDeque<News>>,
    written: Notify,
    ear: Mutex<Ear>,
}

/// What it knows of the others.
#[derive(Default)]
struct Ear {
    connected: bool,
    // When its own last message came back.
    echo: Option<Instant>,
    senders: HashMap<u128, Sender>,
}

struct Sender {
    last: u64,
    heard: Instant,
}

// So much news may wait while the bus is down; more than that is told as "everything".
const OUTBOX: usize = 1000;

// So many heartbeats may be missing.
const MISSING: u32 = 3;

impl Node {
    pub(super) fn new(near: Arc<Near>, heartbeat: Duration) -> Self {
        Node {
            id: rand::random(),
            near,
            heartbeat,
            outbox: Mutex::default(),
            written: Notify::new(),
            ear: Mutex::default(),
        }
    }

    pub(super) fn silence(&self) -> Duration {
        self.heartbeat * MISSING
    }

    /// Tells the others, as soon as the bus takes it. Waits for nothing.
    fn tell(&self, news: News) {
        let mut outbox = self.outbox.lock();
        if outbox.len() >= OUTBOX {
            outbox.clear();
            outbox.push_back(News::Everything);
        } else {
            outbox.push_back(news);
        }
        self.written.notify_one();
    }

    /// Sends what is told, and a heartbeat when there is nothing. Runs until it is dropped.
    pub(super) async fn send(&self, bus: &impl Bus) {
        let mut number = 0;
        loop {
            let beat = Instant::now() + self.heartbeat;
            let mut news = self.take();
            if news.is_empty() {
                // Whether it was woken or not: what is there by then is sent.
                let _ = timeout_at(beat, self.written.notified()).await;
                news = self.take();
                if news.is_empty() {
                    news.push(News::Beat);
                }
            }
            for news in news {
                number += 1;
                let message = Message { sender: self.id, number, news }.encode();
                let mut pause = Duration::from_millis(20);
                // Again and again: what is heard twice does no harm, and nothing after it may be heard before it.
                while let Err(error) = bus.publish(message.clone()).await {
                    tracing::debug!(kind = error.kind().as_str(), "a message to other nodes waits");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.heartbeat);
                }
            }
        }
    }

    // What waits, each key once.
    fn take(&self) -> Vec<News> {
        let waiting = std::mem::take(&mut *self.outbox.lock());
        if waiting.contains(&News::Everything) {
            return vec![News::Everything];
        }
        let mut keys = BTreeSet::new();
        let mut news = Vec::new();
        for one in waiting {
            match one {
                News::Keys(more) => keys.extend(more),
                other => news.push(other),
            }
        }
        if !keys.is_empty() {
            news.push(News::Keys(keys.into_iter().collect()));
        }
        news
    }

    /// Listens until it is dropped.
    pub(super) async fn listen(&self, bus: &impl Bus) {
        bus.listen(self.silence(), |heard| self.hear(heard)).await;
    }

    fn hear(&self, heard: Heard) {
        let mut ear = self.ear.lock();
        let now = Instant::now();
        match heard {
            Heard::Connected => {
                ear.connected = true;
                ear.senders.clear();
                ear.echo = Some(now);
                self.near.set_hears(true);
            }
            Heard::Lost => {
                ear.connected = false;
                tracing::warn!(
                    "messages of other nodes may be missing; the near store is not used"
                );
                self.near.set_hears(false);
            }
            Heard::Message(bytes) => match Message::decode(&bytes) {
                // A newer node, perhaps: what it has told is not known.
                None => self.near.distrust(),
                Some(message) if message.sender == self.id => {
                    ear.echo = Some(now);
                    if ear.connected && !self.near.hears() {
                        self.near.set_hears(true);
                    }
                }
                Some(message) => {
                    if ear.misses(&message, now) {
                        tracing::debug!("messages of another node were lost");
                        self.near.distrust();
                    }
                    self.apply(message.news);
                }
            },
        }
    }

    fn apply(&self, news: News) {
        match news {
            News::Beat => {}
            News::Keys(keys) => keys.iter().for_each(|key| self.near.forget(key)),
            News::Tags { namespace, tags, number } => {
                self.near.invalidate(&namespace, &tags, number);
            }
            News::Cleared(namespace) => self.near.clear(&namespace),
            News::Everything => self.near.distrust(),
        }
    }

    /// Watches for silence. Runs until it is dropped.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(self.heartbeat).await;
            self.check();
        }
    }

    fn check(&self) {
        let mut ear = self.ear.lock();
        let now = Instant::now();
        let silent = |since: Instant| now.duration_since(since) > self.silence();
        if self.near.hears() && ear.echo.is_none_or(silent) {
            tracing::warn!("not even its own messages reach this node; the near store is not used");
            self.near.set_hears(false);
        }
        let known = ear.senders.len();
        ear.senders.retain(|_, sender| !silent(sender.heard));
        if ear.senders.len() < known {
            // It has ended, or it goes on where nobody hears it.
            self.near.distrust();
        }
    }

    pub(super) fn tell_keys(&self, keys: Vec<Key>) {
        self.tell(News::Keys(keys));
    }

    pub(super) fn tell_tags(&self, namespace: Namespace, tags: Vec<Tag>, number: Option<Sequence>) {
        self.tell(News::Tags { namespace, tags, number });
    }

    pub(super) fn tell_cleared(&self, namespace: Namespace) {
        self.tell(News::Cleared(namespace));
    }
}

impl Ear {
    // Whether something that its sender had told before did not arrive.
    fn misses(&mut self, message: &Message, now: Instant) -> bool {
        let sender = self.senders.entry(message.sender).or_insert(Sender { last: 0, heard: now });
        let gap = message.number > sender.last + 1;
        sender.last = sender.last.max(message.number);
        sender.heard = now;
        gap
    }
}
