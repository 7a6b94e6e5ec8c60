//! Storing a body in chunks while it goes to the client that began the fill.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use http_body::Body;
use larder_cache::Store;
use larder_core::{Key, Outcome, Ttl, When};
use larder_http_rules::Reason;
use tokio::time::timeout_at;

use super::chunks::{self, Chunks};
use super::commit::Commit;
use super::copy::Rest;
use super::fill::{Announced, Fill, Landing, land};
use super::plan::{Plan, session_touched};
use super::record::Content;
use super::tee::{Copying, Feed, Over, Own, Writer, poll_data};

impl Fill {
    /// Whether a body that is too large for one entry is stored in chunks.
    pub(super) fn spills(&self, plan: &Plan, commit: &Commit) -> bool {
        let config = &self.shared.config;
        // What is not long, and too large for all its frames, had better not be stored at all.
        let long = plan.length.is_none_or(|length| length > config.max_body);
        let whole = plan.storable.part.is_none();
        config.max_chunked > config.max_body && long && whole && commit.when().is_some()
    }
}

impl Rest {
    /// Reads on what the copy has begun, for the client and for the store.
    pub(super) async fn spill<B: Body>(self, copying: Copying<B>, writer: Writer<B>) {
        let Rest { fill, pilot, head, mut plan, commit, deadline } = self;
        let config = &fill.shared.config;
        if let Some(pilot) = &pilot {
            pilot.announce(Arc::new(Announced::Unfit(Reason::BodyTooLarge)));
        }
        let mut source = Source::new(copying, writer);
        let usable_for = plan.storable.terms.usable_for(&config.policy);
        let mut sink = Sink {
            store: &config.store,
            page: &fill.key,
            chunks: Chunks { id: rand::random(), size: chunks::SIZE, length: 0 },
            // What leads to them is stored when all of them are.
            ttl: Chunks::ttl(usable_for + config.deadline),
            count: 0,
            limit: config.max_chunked,
        };
        let stored = match timeout_at(deadline, sink.fill(&mut source)).await {
            Ok(stored) => stored,
            Err(_) => Err(Reason::WaitTooLong),
        };
        let read = source.read;
        let whole = plan.length.is_none_or(|length| length == read);
        let untouched = !session_touched(&fill.snapshot, plan.session.as_ref());
        if stored.is_err() || !whole || !untouched {
            // What is still to come goes to the client alone.
            source.end();
            sink.remove().await;
            if stored == Err(Reason::BodyTooLarge) {
                fill.mark_large();
            }
            let reason = stored.err().unwrap_or(Reason::FillFailed);
            return fill.give_up(&commit.permit, pilot, reason).await;
        }
        // The client does not wait for the store, but where it is at hand.
        let last = match config.store.abilities().local {
            true => Some(source),
            false => {
                source.end();
                None
            }
        };
        let tags = std::mem::take(&mut plan.tags);
        let content = Content::Chunks(Chunks { length: read, ..sink.chunks });
        let variant = fill.variant((head.0, &head.1), content, None, None, plan, &commit);
        let done = commit.run(&fill.shared, &fill.key, variant, tags, pilot.as_ref()).await;
        if !done.stored {
            sink.remove().await;
        }
        let landing =
            if done.stored { Landing::Again } else { Landing::Unstorable(Reason::BodyTooLarge) };
        land(pilot, landing, true);
        if let Some(source) = last {
            source.end();
        }
    }
}

/// The body, as far as it was read, and the client that gets it. Whatever is dropped in the middle, nothing of it is lost.
struct Source<B: Body> {
    body: Pin<Box<B>>,
    feed: Feed<B>,
    over: Option<Over<B::Error>>,
    read: u64,
    pile: Pile,
}

impl<B: Body> Source<B> {
    fn new(copying: Copying<B>, writer: Writer<B>) -> Self {
        let read = copying.bytes();
        let (frames, body) = copying.into_parts();
        let mut pile = Pile::default();
        frames.into_iter().for_each(|frame| pile.push(frame));
        Source { body, feed: writer.feed(), over: None, read, pile }
    }

    // Reads until there is a chunk of it, or all.
    async fn gather(&mut self) {
        while self.over.is_none() && self.pile.full.is_empty() {
            // A body that is always ready does not hold others up.
            tokio::task::consume_budget().await;
            // Room first, so that nothing is read that cannot be passed on; none where the client has gone away.
            let room = self.feed.data.reserve().await.ok();
            let body = &mut self.body;
            match poll_fn(|cx| poll_data(body.as_mut(), cx)).await {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.read += data.len() as u64;
                    self.pile.push(data.clone());
                    if let Some(room) = room {
                        room.send(data);
                    }
                }
                Err(over) => self.over = Some(over),
            }
        }
    }

    // Gives the client how it ended, or the rest of it.
    fn end(self) {
        let Source { body, feed, over, .. } = self;
        // If it has gone away, it need not know.
        let _ = feed.end.send(over.map_or(Own::Rest(body), Own::Over));
    }
}

/// Where the chunks go.
struct Sink<'a> {
    store: &'a Store,
    page: &'a Key,
    chunks: Chunks,
    ttl: Ttl,
    count: u64,
    limit: u64,
}

impl Sink<'_> {
    // Stores all chunks while the body is read on.
    async fn fill<B: Body>(&mut self, source: &mut Source<B>) -> Result<(), Reason> {
        loop {
            let full = source.pile.take_full();
            let (stored, ()) = join(self.put(full), source.gather()).await;
            stored?;
            if source.read > self.limit {
                return Err(Reason::BodyTooLarge);
            }
            match &source.over {
                None => {}
                Some(Over::End(None)) => {
                    let mut last = source.pile.take_full();
                    last.extend(source.pile.take_rest());
                    return self.put(last).await;
                }
                // Trailers are not kept with chunks.
                Some(Over::End(Some(_))) => return Err(Reason::BodyTooLarge),
                Some(_) => return Err(Reason::FillFailed),
            }
        }
    }

    async fn put(&mut self, full: Vec<Bytes>) -> Result<(), Reason> {
        for body in full {
            let key = self.chunks.key(self.page, self.count).ok_or(Reason::KeyTooLong)?;
            let entry = self.chunks.entry(self.count, body);
            self.count += 1;
            let put = self.store.put(&key, entry, self.ttl, When::Always).await;
            if !matches!(put, Ok(Outcome::Stored)) {
                return Err(Reason::StoreUnavailable);
            }
        }
        Ok(())
    }

    async fn remove(&self) {
        self.chunks.remove(self.store, self.page, self.count).await;
    }
}

/// What was read and not stored yet.
#[derive(Default)]
struct Pile {
    full: Vec<Bytes>,
    // Copied, so that a flood of tiny frames takes no more room than its bytes.
    begun: BytesMut,
}

impl Pile {
    fn push(&mut self, mut frame: Bytes) {
        let size = chunks::SIZE as usize;
        while self.begun.len() + frame.len() >= size {
            let missing = frame.split_to(size - self.begun.len());
            if self.begun.is_empty() {
                self.full.push(missing);
            } else {
                self.begun.extend_from_slice(&missing);
                self.full.push(self.begun.split().freeze());
            }
        }
        if self.begun.capacity() == 0 {
            self.begun.reserve(size);
        }
        self.begun.extend_from_slice(&frame);
    }

    fn take_full(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.full)
    }

    fn take_rest(&mut self) -> Option<Bytes> {
        Some(self.begun.split().freeze()).filter(|rest| !rest.is_empty())
    }
}
