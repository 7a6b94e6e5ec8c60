//! Bodies that are too large for one entry: stored in chunks, each an entry of its own, and read one after the other.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body::Frame;
use larder_cache::Store;
use larder_core::{Encoded, Entry, Key, KeyBuf, Result as StoreResult, Ttl};

use super::stream::BrokenOff;

/// How large a chunk is: small enough for the item limit of any store, large enough to be worth a round trip.
pub(super) const SIZE: u32 = 512 * 1024;

/// What is stored in chunks is kept no longer unless it is validated: nothing leads to the chunks of what was replaced
/// or invalidated, which go by their lifetimes alone.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

// Chunks outlive what leads to them by so much: somebody may have begun to read in its last moment.
const GRACE: Duration = Duration::from_secs(5 * 60);

// The codec number of a chunk; those of the records are in `wire`.
const CHUNK: u8 = 26;

// The part of a chunk's key behind its page's.
const PART: &str = "c";

// How many are asked for at once.
const AT_ONCE: usize = 16;

/// Where the chunks of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    /// Random, so that chunks of one body are never taken for those of another one.
    pub(super) id: u128,
    /// How many bytes each has but the last.
    pub(super) size: u32,
    /// How many bytes all have.
    pub(super) length: u64,
}

impl Chunks {
    /// The key of one of them.
    pub(super) fn key(&self, page: &Key, number: u64) -> Option<Key> {
        let key = KeyBuf::from(page.as_ref()).part(PART).part(self.id.to_be_bytes());
        key.part(number.to_be_bytes()).key().ok()
    }

    /// Whether it is the key of a chunk.
    pub(super) fn is_key(key: &Key) -> bool {
        let parts: Vec<_> = key.as_ref().parts().collect();
        matches!(&*parts, [.., Some(part), Some(id), Some(number)]
            if *part == PART.as_bytes() && id.len() == 16 && number.len() == 8)
    }

    /// One of them as it is stored.
    pub(super) fn entry(&self, number: u64, body: Bytes) -> Entry {
        let head = self.head(number).to_vec().into();
        Entry::wire(Encoded { codec: CHUNK, head, body })
    }

    /// How long they live when what leads to them lives so long.
    pub(super) fn ttl(usable_for: Duration) -> Ttl {
        Ttl::For(usable_for.min(LONGEST) + GRACE)
    }

    /// Gives all of them that lifetime. False when one is missing or the store cannot be asked.
    pub(super) async fn renew(&self, store: &Store, page: &Key, ttl: Ttl) -> bool {
        let one = async |number| match self.key(page, number) {
            Some(key) => store.touch(&key, ttl).await.unwrap_or(false),
            None => false,
        };
        let mut renewed = stream::iter(0..self.count()).map(one).buffer_unordered(AT_ONCE);
        while let Some(there) = renewed.next().await {
            if !there {
                return false;
            }
        }
        true
    }

    /// Removes the first so many of them.
    pub(super) async fn remove(&self, store: &Store, page: &Key, count: u64) {
        let keys: Vec<Key> = (0..count).filter_map(|number| self.key(page, number)).collect();
        // What is left behind if this fails ends by its lifetime, unfound.
        let _ = store.remove_many(&keys).await;
    }

    fn count(&self) -> u64 {
        self.length.div_ceil(self.size.into())
    }

    fn head(&self, number: u64) -> [u8; 24] {
        let mut head = [0; 24];
        head[..16].copy_from_slice(&self.id.to_be_bytes());
        head[16..].copy_from_slice(&number.to_be_bytes());
        head
    }

    // Its bytes, if it is that chunk and whole.
    fn bytes(&self, entry: &Entry, number: u64) -> Option<Bytes> {
        let Encoded { codec, head, body } = entry.encoded().ok()?;
        let left = self.length.checked_sub(number.checked_mul(self.size.into())?)?;
        let whole = body.len() as u64 == left.min(self.size.into());
        (codec == CHUNK && *head == self.head(number) && whole).then_some(body)
    }

    async fn get(self, store: Store, page: Key, number: u64) -> StoreResult<Option<Bytes>> {
        let Some(key) = self.key(&page, number) else { return Ok(None) };
        let entry = store.get(&key, &[]).await?.entry;
        Ok(entry.and_then(|entry| self.bytes(&entry, number)))
    }
}

/// The body of a response that is read chunk by chunk: one is in memory at a time.
pub(super) struct Reader {
    chunks: Chunks,
    // What of the whole is still to be given.
    left: Range<u64>,
    source: Option<(Store, Key)>,
    ready: Option<Bytes>,
    coming: Option<Coming>,
}

type Coming = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

impl Reader {
    /// These bytes of the whole. It has to be opened.
    pub(super) fn new(chunks: Chunks, bytes: Range<u64>) -> Self {
        Reader { chunks, left: bytes, source: None, ready: None, coming: None }
    }

    /// Reads the first chunk; false when it is not there, and nothing was said to the client yet.
    pub(super) async fn open(&mut self, store: &Store, page: &Key) -> bool {
        let number = self.left.start / u64::from(self.chunks.size);
        let first = self.chunks.get(store.clone(), page.clone(), number).await;
        self.ready = first.ok().flatten();
        self.source = Some((store.clone(), page.clone()));
        self.ready.is_some()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let size = u64::from(self.chunks.size);
        let chunk = match self.ready.take() {
            Some(chunk) => Some(chunk),
            None => {
                let coming = match (&mut self.coming, &self.source) {
                    (Some(coming), _) => coming,
                    (coming, Some((store, page))) => {
                        let (store, page) = (store.clone(), page.clone());
                        let next = next(self.chunks, store, page, self.left.start / size);
                        coming.insert(Box::pin(next))
                    }
                    (None, None) => return self.broken_off(),
                };
                let chunk = ready!(coming.as_mut().poll(cx));
                self.coming = None;
                chunk
            }
        };
        let Some(chunk) = chunk else { return self.broken_off() };
        let begin = self.left.start / size * size;
        let end = (begin + chunk.len() as u64).min(self.left.end);
        let bytes = chunk.slice((self.left.start - begin) as usize..(end - begin) as usize);
        self.left.start = end;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn broken_off<T>(&mut self) -> Poll<Option<Result<T, BrokenOff>>> {
        self.left.start = self.left.end;
        Poll::Ready(Some(Err(BrokenOff)))
    }

    pub(super) fn left(&self) -> u64 {
        self.left.end - self.left.start
    }
}

async fn next(chunks: Chunks, store: Store, page: Key, number: u64) -> Option<Bytes> {
    let found = chunks.get(store.clone(), page.clone(), number).await;
    if matches!(found, Ok(None)) {
        // It was evicted: the next request finds nothing, instead of half of it.
        let _ = store.remove(&page, None).await;
    }
    found.ok().flatten()
}
