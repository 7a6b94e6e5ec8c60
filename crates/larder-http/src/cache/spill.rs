//! Storing a body in chunks while it goes to the client that began the fill.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::join;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use larder_cache::{Pilot, Store};
use larder_core::{Key, Outcome, Ttl, When};
use larder_http_rules::Reason;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::body::shared;
use super::chunks::{self, Chunks};
use super::commit::Commit;
use super::fill::{Announced, Fill, Landing, land};
use super::plan::{Plan, session_touched};
use super::record::Content;
use super::tee::{Copying, Fed, Writer};

impl Fill {
    /// Whether a body that is too large for one entry is stored in chunks.
    pub(super) fn spills(&self, plan: &Plan, commit: &Commit) -> bool {
        let config = &self.shared.config;
        // What is not long, and too large for all its frames, had better not be stored at all.
        let long = plan.length.is_none_or(|length| length > config.max_body);
        let whole = plan.storable.part.is_none();
        config.max_chunked > config.max_body && long && whole && commit.permit.when().is_some()
    }

    /// Reads on what the copy has begun, for the client and for the store.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn spill<B: Body>(
        &self,
        writer: Writer<B>,
        copying: Copying<B>,
        pilot: Option<Pilot>,
        head: (StatusCode, HeaderMap),
        mut plan: Plan,
        commit: Commit,
        deadline: Instant,
    ) {
        let config = &self.shared.config;
        if let Some(pilot) = &pilot {
            pilot.announce(Arc::new(Announced::Unfit(Reason::BodyTooLarge)));
        }
        let (frames, body) = copying.into_parts();
        let mut source = Source::new(body, writer.feed(), &frames);
        let usable_for = plan.storable.terms.usable_for(&config.policy);
        let mut sink = Sink {
            store: &config.store,
            page: &self.key,
            chunks: Chunks { id: rand::random(), size: chunks::SIZE, length: 0 },
            // What leads to them is stored when all of them are.
            ttl: Chunks::ttl(usable_for + config.deadline),
            pile: Pile::default(),
            count: 0,
            limit: config.max_chunked,
        };
        frames.into_iter().for_each(|frame| sink.pile.push(frame));
        let stored = match timeout_at(deadline, sink.fill(&mut source)).await {
            Ok(stored) => stored,
            Err(_) => Err(Reason::WaitTooLong),
        };
        let whole = plan.length.is_none_or(|length| length == source.read);
        let untouched = !session_touched(&self.snapshot, plan.session.as_ref());
        if stored.is_err() || !whole || !untouched {
            sink.remove().await;
            if stored == Err(Reason::BodyTooLarge) {
                self.mark_pass();
            }
            let reason = stored.err().unwrap_or(Reason::FillFailed);
            self.give_up(&commit.permit, pilot, reason).await;
            return source.forward().await;
        }
        // The client does not wait for the store, but where it is at hand.
        let local = config.store.abilities().local;
        if !local {
            source.end().await;
        }
        let tags = std::mem::take(&mut plan.tags);
        let content = Content::Chunks(Chunks { length: source.read, ..sink.chunks });
        let variant = Arc::new(self.variant(head, content, None, None, plan, &commit));
        let done = commit.run(&self.shared, &self.key, variant, tags).await;
        if !done.stored {
            sink.remove().await;
        }
        let landing =
            if done.stored { Landing::Again } else { Landing::Unstorable(Reason::BodyTooLarge) };
        land(pilot, landing, true);
        if local {
            source.end().await;
        }
    }
}

/// The body, as far as it was read, and the client that gets it. Whatever is dropped in the middle, nothing of it is lost.
struct Source<B: Body> {
    body: Pin<Box<B>>,
    // Until the client goes away.
    feed: Option<mpsc::Sender<Fed<B::Error>>>,
    unsent: Option<Bytes>,
    over: Option<Fed<B::Error>>,
    read: u64,
}

impl<B: Body> Source<B> {
    fn new(body: Pin<Box<B>>, feed: mpsc::Sender<Fed<B::Error>>, begun: &[Bytes]) -> Self {
        let read = begun.iter().map(|frame| frame.len() as u64).sum();
        Source { body, feed: Some(feed), unsent: None, over: None, read }
    }

    // One frame; `None` where it had no data, or was the end.
    async fn frame(&mut self) -> Option<Bytes> {
        // A body that is always ready does not hold others up.
        tokio::task::consume_budget().await;
        let frame = poll_fn(|cx| self.body.as_mut().poll_frame(cx));
        let frame = match AssertUnwindSafe(frame).catch_unwind().await {
            Ok(Some(Ok(frame))) => shared(frame),
            over => {
                self.over = Some(match over {
                    Ok(Some(Err(error))) => Fed::Failed(error),
                    Err(panic) => Fed::Panicked(panic),
                    _ => Fed::End(None),
                });
                return None;
            }
        };
        match frame.into_data() {
            Ok(data) => {
                self.read += data.len() as u64;
                Some(data).filter(|data| !data.is_empty())
            }
            // Trailers are the last frame.
            Err(frame) => {
                self.over = Some(Fed::End(frame.into_trailers().ok()));
                None
            }
        }
    }

    async fn send(&mut self) {
        let Some(feed) = self.feed.as_ref().filter(|_| self.unsent.is_some()) else { return };
        if let Ok(place) = feed.reserve().await {
            if let Some(data) = self.unsent.take() {
                place.send(Fed::Data(data));
            }
        } else {
            self.feed = None;
        }
    }

    // Reads until there is a chunk of it, or all.
    async fn gather(&mut self, pile: &mut Pile) {
        self.send().await;
        while self.over.is_none() && pile.full.is_empty() {
            if let Some(data) = self.frame().await {
                pile.push(data.clone());
                self.unsent = Some(data);
                self.send().await;
            }
        }
    }

    // What is still to come goes to the client alone.
    async fn forward(mut self) {
        self.send().await;
        while self.over.is_none() && self.feed.is_some() {
            self.unsent = self.frame().await;
            self.send().await;
        }
        self.end().await;
    }

    // Tells the client how it ended.
    async fn end(&mut self) {
        if let (Some(feed), Some(over)) = (self.feed.take(), self.over.take()) {
            // If it has gone away, it need not know.
            let _ = feed.send(over).await;
        }
    }
}

/// Where the chunks go.
struct Sink<'a> {
    store: &'a Store,
    page: &'a Key,
    chunks: Chunks,
    ttl: Ttl,
    pile: Pile,
    count: u64,
    limit: u64,
}

impl Sink<'_> {
    // Stores all chunks while the body is read on.
    async fn fill<B: Body>(&mut self, source: &mut Source<B>) -> Result<(), Reason> {
        loop {
            let full = self.pile.take_full();
            let mut pile = std::mem::take(&mut self.pile);
            let (stored, ()) = join(self.put(full), source.gather(&mut pile)).await;
            self.pile = pile;
            stored?;
            if source.read > self.limit {
                return Err(Reason::BodyTooLarge);
            }
            match &source.over {
                None => {}
                Some(Fed::End(None)) => {
                    let mut last = self.pile.take_full();
                    last.extend(self.pile.take_rest());
                    return self.put(last).await;
                }
                // Trailers are not kept with chunks.
                Some(Fed::End(Some(_))) => return Err(Reason::BodyTooLarge),
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
