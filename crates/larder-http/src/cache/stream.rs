//! A copy that is being made, for any number of readers: none of them waits for another one.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::SET_COOKIE;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::tee::FRAME_COST;

/// The copy. It grows at the pace of what is copied, and is bounded by whoever makes it.
pub(super) struct Stream {
    copy: Arc<Mutex<Recording>>,
    // Each reader has a receiver, so that the writer knows when there are none.
    readers: watch::Sender<()>,
}

#[derive(Default)]
struct Recording {
    frames: VecDeque<Bytes>,
    // How many came before these.
    dropped: usize,
    end: Option<End>,
    readers: HashMap<u64, At>,
    next_reader: u64,
    // Who waits for a reader to come so far.
    writer: Option<Waker>,
}

/// How far a reader has come.
#[derive(Default)]
struct At {
    next: usize,
    // It has read all that there is.
    waiting: Option<Waker>,
}

/// How a copy ended.
#[derive(Clone)]
pub(super) enum End {
    Complete(Option<HeaderMap>),
    /// It did not come to its end.
    Broken,
}

/// What comes next.
pub(super) enum Next {
    Frame(Bytes),
    End(End),
    /// Nothing: what comes next is not kept any more.
    Lost,
}

/// A way to the copy for readers that may come yet.
#[derive(Clone)]
pub(super) struct Source {
    copy: Arc<Mutex<Recording>>,
    _present: watch::Receiver<()>,
}

/// Where a reader is.
pub(super) struct Place {
    source: Source,
    reader: u64,
}

impl Stream {
    /// The copy, and the place of the client that it is made for.
    pub(super) fn new(frames: impl IntoIterator<Item = Bytes>) -> (Self, Place) {
        let copy = Recording { frames: frames.into_iter().collect(), ..Recording::default() };
        let stream = Stream { copy: Arc::new(Mutex::new(copy)), readers: watch::Sender::new(()) };
        let place = stream.source().enter(&mut stream.copy.lock());
        (stream, place)
    }

    pub(super) fn push(&self, frame: Bytes) {
        self.change(|copy| copy.frames.push_back(frame));
    }

    /// Ends it, unless it has ended.
    pub(super) fn end(&self, end: End) {
        self.change(|copy| {
            copy.end.get_or_insert(end);
        });
    }

    /// Ends it as broken, unless others than the client that began the fill read it.
    pub(super) fn end_alone(&self) -> bool {
        let waiting = {
            let mut copy = self.copy.lock();
            if copy.readers.keys().any(|reader| *reader != FIRST) {
                return false;
            }
            copy.end.get_or_insert(End::Broken);
            copy.waiting()
        };
        waiting.into_iter().for_each(Waker::wake);
        true
    }

    pub(super) fn source(&self) -> Source {
        Source { copy: self.copy.clone(), _present: self.readers.subscribe() }
    }

    /// Ends when nobody reads it any more, and nobody can begin to.
    pub(super) async fn deserted(&self) {
        self.readers.closed().await;
    }

    /// Whether somebody has read all that there is.
    pub(super) fn is_wanted(&self) -> bool {
        self.copy.lock().is_wanted()
    }

    /// Ends when that is so.
    pub(super) async fn wanted(&self) {
        self.until(|copy| copy.is_wanted()).await;
    }

    /// Ends when what has to be kept for those behind is within this limit, or when nobody is in front of them any more.
    pub(super) async fn caught_up(&self, limit: u64) {
        self.until(|copy| {
            copy.forget_what_all_have_read();
            copy.cost() <= limit || !copy.is_wanted()
        })
        .await;
    }

    /// Keeps no more than that from now on; what those need who are furthest behind goes.
    pub(super) fn leave_behind(&self, limit: u64) {
        self.copy.lock().trim(limit);
    }

    async fn until(&self, mut is: impl FnMut(&mut Recording) -> bool) {
        poll_fn(|cx| {
            let mut copy = self.copy.lock();
            if is(&mut copy) {
                return Poll::Ready(());
            }
            copy.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn change(&self, change: impl FnOnce(&mut Recording)) {
        let waiting = {
            let mut copy = self.copy.lock();
            change(&mut copy);
            copy.waiting()
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

// The reader that the copy was made for.
const FIRST: u64 = 0;

impl Recording {
    fn waiting(&mut self) -> Vec<Waker> {
        self.readers.values_mut().filter_map(|at| at.waiting.take()).collect()
    }

    // Whether somebody has read all that there is.
    fn is_wanted(&self) -> bool {
        let written = self.dropped + self.frames.len();
        self.readers.values().any(|at| at.next == written)
    }

    fn cost(&self) -> u64 {
        self.frames.iter().map(cost).sum()
    }

    fn forget_what_all_have_read(&mut self) {
        let kept = self.readers.values().map(|at| at.next).filter(|next| *next >= self.dropped);
        self.forget(kept.min().map_or(0, |next| next - self.dropped));
    }

    fn trim(&mut self, limit: u64) {
        let mut kept = self.cost();
        while kept > limit {
            kept -= cost(&self.frames[0]);
            self.forget(1);
        }
    }

    fn forget(&mut self, frames: usize) {
        self.frames.drain(..frames);
        self.dropped += frames;
    }
}

fn cost(frame: &Bytes) -> u64 {
    frame.len() as u64 + FRAME_COST
}

impl Source {
    /// One that begins at the beginning, where that is still there and more may come.
    pub(super) fn place(&self) -> Option<Place> {
        let mut copy = self.copy.lock();
        let given_up = copy.dropped > 0 || matches!(copy.end, Some(End::Broken));
        (!given_up).then(|| self.enter(&mut copy))
    }

    fn enter(&self, copy: &mut Recording) -> Place {
        let reader = copy.next_reader;
        copy.next_reader += 1;
        copy.readers.insert(reader, At::default());
        Place { source: self.clone(), reader }
    }
}

impl Place {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut copy = self.source.copy.lock();
        let Recording { frames, dropped, end, readers, writer, .. } = &mut *copy;
        let at = readers.entry(self.reader).or_default();
        let Some(next) = at.next.checked_sub(*dropped) else { return Poll::Ready(Next::Lost) };
        let Some(frame) = frames.get(next) else {
            if let Some(end) = end {
                return Poll::Ready(Next::End(end.clone()));
            }
            at.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        };
        at.next += 1;
        let (frame, writer) = (frame.clone(), writer.take());
        drop(copy);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Next::Frame(frame))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let writer = {
            let mut copy = self.source.copy.lock();
            copy.readers.remove(&self.reader);
            copy.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// The body of a response for a request that waited: the copy of another request's body, as it is made.
pub(super) struct Follower {
    place: Place,
    left: Option<u64>,
    ended: bool,
}

impl Follower {
    /// `length` is what all of it has, where that is known.
    pub(super) fn new(place: Place, length: Option<u64>) -> Self {
        Follower { place, left: length, ended: false }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.place.poll_next(cx)) {
            Next::Frame(frame) => {
                self.left = self.left.map(|left| left.saturating_sub(frame.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Next::Lost => {
                self.ended = true;
                Poll::Ready(Some(Err(BrokenOff)))
            }
            Next::End(end) => {
                self.ended = true;
                Poll::Ready(match end {
                    End::Broken => Some(Err(BrokenOff)),
                    End::Complete(_) if self.left.is_some_and(|left| left > 0) => {
                        Some(Err(BrokenOff))
                    }
                    End::Complete(trailers) => trailers.map(|mut trailers| {
                        // Somebody else's.
                        trailers.remove(SET_COOKIE);
                        Ok(Frame::trailers(trailers))
                    }),
                })
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The body of a response that was given to several requests as it came did not come to its end, or went on without one
/// that was too far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response's body broke off")
    }
}

impl std::error::Error for BrokenOff {}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(place: &mut Place) -> Option<u8> {
        match place.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Next::Frame(frame)) => Some(frame[0]),
            _ => None,
        }
    }

    #[test]
    fn nobody_begins_where_the_beginning_is_gone_or_the_rest_will_not_come() {
        let frame = || Bytes::from_static(b"1");
        let (stream, mut first) = Stream::new([frame()]);
        assert_eq!(stream.source().place().and_then(|mut place| next(&mut place)), Some(b'1'));
        assert_eq!(next(&mut first), Some(b'1'));
        stream.leave_behind(0);
        assert!(stream.source().place().is_none());

        let (stream, _first) = Stream::new([frame()]);
        assert!(stream.end_alone());
        assert!(stream.source().place().is_none());

        let (stream, _first) = Stream::new([frame()]);
        stream.end(End::Complete(None));
        assert!(stream.source().place().is_some());
    }

    #[test]
    fn what_others_read_is_not_handed_over() {
        let (stream, first) = Stream::new([]);
        let other = stream.source().place();
        assert!(!stream.end_alone());
        drop(first);
        assert!(!stream.end_alone());
        drop(other);
        assert!(stream.end_alone());
    }
}
