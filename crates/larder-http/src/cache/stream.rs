//! A copy that is being made, for any number of readers: none of them waits for another one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::SET_COOKIE;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The copy. It grows at the pace of what is copied, and is bounded by whoever makes it.
pub(super) struct Stream {
    copy: Arc<Mutex<Recording>>,
    // Each reader has a receiver, so that the writer knows when there are none.
    readers: watch::Sender<()>,
}

#[derive(Default)]
struct Recording {
    frames: Vec<Bytes>,
    end: Option<End>,
    // Readers that have read all that there is.
    waiting: HashMap<u64, Waker>,
    next_reader: u64,
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
    next: usize,
}

impl Stream {
    pub(super) fn new(frames: Vec<Bytes>) -> Self {
        let copy = Recording { frames, ..Recording::default() };
        Stream { copy: Arc::new(Mutex::new(copy)), readers: watch::Sender::new(()) }
    }

    pub(super) fn push(&self, frame: Bytes) {
        self.change(|copy| copy.frames.push(frame));
    }

    /// Ends it, unless it has ended.
    pub(super) fn end(&self, end: End) {
        self.change(|copy| {
            copy.end.get_or_insert(end);
        });
    }

    pub(super) fn source(&self) -> Source {
        Source { copy: self.copy.clone(), _present: self.readers.subscribe() }
    }

    /// One that begins at the beginning.
    pub(super) fn place(&self) -> Place {
        self.source().place()
    }

    /// Whether others than the client that began the fill read it.
    pub(super) fn is_followed(&self) -> bool {
        self.readers.receiver_count() > 1
    }

    /// Ends when nobody reads it any more, and nobody can begin to.
    pub(super) async fn deserted(&self) {
        self.readers.closed().await;
    }

    fn change(&self, change: impl FnOnce(&mut Recording)) {
        let waiting = {
            let mut copy = self.copy.lock();
            change(&mut copy);
            std::mem::take(&mut copy.waiting)
        };
        waiting.into_values().for_each(Waker::wake);
    }
}

impl Source {
    pub(super) fn place(&self) -> Place {
        let mut copy = self.copy.lock();
        let reader = copy.next_reader;
        copy.next_reader += 1;
        Place { source: self.clone(), reader, next: 0 }
    }
}

impl Place {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut copy = self.source.copy.lock();
        if let Some(frame) = copy.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Next::Frame(frame.clone()));
        }
        if let Some(end) = &copy.end {
            return Poll::Ready(Next::End(end.clone()));
        }
        copy.waiting.insert(self.reader, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.source.copy.lock().waiting.remove(&self.reader);
    }
}

/// The body of a response for a request that waited: the copy of another request's body, as it is made.
pub(super) struct Follower {
    place: Place,
    left: u64,
    ended: bool,
}

impl Follower {
    /// `length` is what all of it has.
    pub(super) fn new(source: &Source, length: u64) -> Self {
        Follower { place: source.place(), left: length, ended: false }
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
                self.left = self.left.saturating_sub(frame.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Next::End(end) => {
                self.ended = true;
                Poll::Ready(match end {
                    End::Broken => Some(Err(BrokenOff)),
                    End::Complete(_) if self.left > 0 => Some(Err(BrokenOff)),
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

    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

/// The body of a response that was given to several requests as it came did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response's body broke off")
    }
}

impl std::error::Error for BrokenOff {}
