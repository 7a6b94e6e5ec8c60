//! One body for all: the bounded copy that is stored, and what the client that began the fill reads of it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

use super::body::{BoxError, shared};
use super::stream::{BrokenOff, End, Next, Place, Stream};

/// A body that is being copied, as far as the copy has come.
///
/// The copy is made by the fill's own task and does not wait for the client. What the client has not read yet is in the
/// copy already; when the copy is given up, the rest of the body goes to the client as it comes.
pub(super) struct Copying<B: Body> {
    body: Pin<Box<B>>,
    // Most have one.
    frames: SmallVec<[Bytes; 1]>,
    seen: u64,
    bytes: u64,
    limit: u64,
    expected: Option<u64>,
}

/// How a copy ended.
pub(super) enum Copied<E> {
    /// The whole body.
    Complete(Bytes, Option<HeaderMap>),
    /// It is larger than the limit.
    TooLarge,
    /// The body failed, or ended where it had not said.
    Broken(Over<E>),
}

/// How a body ended.
pub(super) enum Over<E> {
    End(Option<HeaderMap>),
    Failed(E),
    Panicked(Panic),
}

// What a frame costs beside its bytes, so that a flood of tiny or empty frames meets the limit too.
pub(super) const FRAME_COST: u64 = 64;

impl<B: Body> Copying<B> {
    /// `prefix` comes before the body; `expected` is what `Content-Length` says of both; nothing is allocated on its word.
    pub(super) fn new(prefix: Option<Bytes>, body: B, limit: u64, expected: Option<u64>) -> Self {
        let frames: SmallVec<[Bytes; 1]> = prefix.into_iter().collect();
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        let seen = frames.len() as u64;
        Copying { body: Box::pin(body), frames, seen, bytes, limit, expected }
    }

    /// Copies on; `seen` is told of each frame.
    pub(super) fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        mut seen: impl FnMut(&Bytes),
    ) -> Poll<Copied<B::Error>> {
        loop {
            let data = match ready!(poll_data(self.body.as_mut(), cx)) {
                Ok(data) => data,
                Err(Over::End(trailers)) => return Poll::Ready(self.complete(trailers)),
                Err(over) => return Poll::Ready(Copied::Broken(over)),
            };
            self.seen += 1;
            if !data.is_empty() {
                seen(&data);
                self.bytes += data.len() as u64;
                self.frames.push(data);
            }
            if self.bytes + FRAME_COST * (self.seen - 1) > self.limit {
                return Poll::Ready(Copied::TooLarge);
            }
        }
    }

    fn complete(&mut self, trailers: Option<HeaderMap>) -> Copied<B::Error> {
        if self.expected.is_some_and(|expected| expected != self.bytes) {
            return Copied::Broken(Over::End(trailers));
        }
        let body = match &mut *self.frames {
            [] => Bytes::new(),
            [one] => one.clone(),
            frames => {
                let mut whole = BytesMut::with_capacity(self.bytes as usize);
                frames.iter().for_each(|frame| whole.extend_from_slice(frame));
                whole.freeze()
            }
        };
        Copied::Complete(body, trailers)
    }

    /// What was copied so far, and the body that has the rest.
    pub(super) fn into_parts(self) -> (SmallVec<[Bytes; 1]>, Pin<Box<B>>) {
        (self.frames, self.body)
    }

    /// How many bytes these are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was not copied yet.
    pub(super) fn into_rest(self) -> Pin<Box<B>> {
        self.body
    }

    /// Frames that were copied so far.
    pub(super) fn frames(&self) -> &[Bytes] {
        &self.frames
    }
}

/// A body's next bytes, or how it ended. What it panicked with is its own client's.
pub(super) fn poll_data<B: Body>(
    body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Result<Bytes, Over<B::Error>>> {
    let frame = match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
        Ok(frame) => ready!(frame),
        Err(panic) => return Poll::Ready(Err(Over::Panicked(panic))),
    };
    Poll::Ready(match frame {
        None => Err(Over::End(None)),
        Some(Err(error)) => Err(Over::Failed(error)),
        // Trailers are the last frame.
        Some(Ok(frame)) => {
            shared(frame).into_data().map_err(|frame| Over::End(frame.into_trailers().ok()))
        }
    })
}

/// The writing half: the fill tells those who read what comes.
pub(super) struct Writer<B: Body> {
    stream: Stream,
    own: Arc<Mutex<Option<Own<B>>>>,
}

/// The reading half, inside the body of the client that began the fill.
pub(super) struct Reader<B: Body> {
    state: ReaderState<B>,
    read: u64,
    size: SizeHint,
}

enum ReaderState<B: Body> {
    Copy { place: Place, own: Arc<Mutex<Option<Own<B>>>> },
    Rest(Pin<Box<B>>),
    Fed(Fed<B>),
    Done,
}

/// What only the client that began the fill gets.
pub(super) enum Own<B: Body> {
    // The client's task panics as it would have without a cache.
    Over(Over<B::Error>),
    // The copy was given up.
    Rest(Pin<Box<B>>),
    // It goes on, and is not kept.
    Fed(Fed<B>),
}

/// A body that the fill goes on reading, as it reaches the client.
pub(super) struct Fed<B: Body> {
    data: mpsc::Receiver<Bytes>,
    end: oneshot::Receiver<Own<B>>,
}

/// The other side of it.
pub(super) struct Feed<B: Body> {
    pub(super) data: mpsc::Sender<Bytes>,
    pub(super) end: oneshot::Sender<Own<B>>,
}

/// What a panic threw.
pub(super) type Panic = Box<dyn Any + Send>;

// How many frames the fill reads ahead of a client that it feeds.
const FRAMES_AHEAD: usize = 8;

// The runtime is shutting down; what reads ends with it.
const LOST: &str = "the fill of a cached response was lost";

/// A pair, beginning with these frames. `size` is what is known of the whole body.
pub(super) fn pair<B: Body>(
    frames: impl IntoIterator<Item = Bytes>,
    size: SizeHint,
) -> (Writer<B>, Reader<B>) {
    let (stream, place) = Stream::new(frames);
    let own = Arc::new(Mutex::new(None));
    let state = ReaderState::Copy { place, own: own.clone() };
    (Writer { stream, own }, Reader { state, read: 0, size })
}

impl<B: Body> Writer<B> {
    pub(super) fn push(&self, frame: Bytes) {
        self.stream.push(frame);
    }

    /// The copy, for others to read.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn complete(self, trailers: Option<HeaderMap>) {
        self.stream.end(End::Complete(trailers));
    }

    /// The copy is given up: the rest of the body goes to the client that began the fill.
    pub(super) fn hand_over(self, rest: Pin<Box<B>>) {
        self.end(Own::Rest(rest));
    }

    /// The same, unless others read the copy.
    pub(super) fn hand_over_alone(self, rest: Pin<Box<B>>) -> Result<(), (Self, Pin<Box<B>>)> {
        *self.own.lock() = Some(Own::Rest(rest));
        if self.stream.end_alone() {
            return Ok(());
        }
        // Nobody looks there before the end.
        let own = self.own.lock().take();
        let Some(Own::Rest(rest)) = own else { unreachable!("it was put there") };
        Err((self, rest))
    }

    /// The copy is given up, and the fill goes on reading: the client gets what it is fed.
    pub(super) fn feed(self) -> Feed<B> {
        let ((feed, data), (told, end)) = (mpsc::channel(FRAMES_AHEAD), oneshot::channel());
        self.end(Own::Fed(Fed { data, end }));
        Feed { data: feed, end: told }
    }

    /// Ends as a body did that is not what it said: its own client gets it as it is.
    pub(super) fn broken(self, over: Over<B::Error>) {
        self.end(Own::Over(over));
    }

    /// Ends as the body did.
    pub(super) fn over(self, over: Over<B::Error>) {
        match over {
            Over::End(trailers) => self.complete(trailers),
            over => self.end(Own::Over(over)),
        }
    }

    fn end(&self, own: Own<B>) {
        self.own.lock().get_or_insert(own);
        self.stream.end(End::Broken);
    }
}

impl<B: Body> Drop for Writer<B> {
    fn drop(&mut self) {
        // Unless it has ended.
        self.end(Own::Over(Over::Panicked(Box::new(LOST))));
    }
}

impl<B: Body> Reader<B> {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B::Error: Into<BoxError>,
    {
        loop {
            match &mut self.state {
                ReaderState::Done => return Poll::Ready(None),
                ReaderState::Rest(body) => {
                    let frame = ready!(body.as_mut().poll_frame(cx));
                    return Poll::Ready(frame.map(|frame| frame.map(shared).map_err(Into::into)));
                }
                ReaderState::Fed(fed) => {
                    if let Some(data) = ready!(fed.data.poll_recv(cx)) {
                        self.read += data.len() as u64;
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    let own = ready!(Pin::new(&mut fed.end).poll(cx));
                    if let Some(last) = self.ended(own.ok()) {
                        return Poll::Ready(last.map(|last| last.map_err(Into::into)));
                    }
                }
                ReaderState::Copy { place, own } => match ready!(place.poll_next(cx)) {
                    Next::Frame(frame) => {
                        self.read += frame.len() as u64;
                        return Poll::Ready(Some(Ok(Frame::data(frame))));
                    }
                    Next::Lost => {
                        self.state = ReaderState::Done;
                        return Poll::Ready(Some(Err(BrokenOff.into())));
                    }
                    Next::End(End::Complete(trailers)) => {
                        self.state = ReaderState::Done;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Next::End(End::Broken) => {
                        let own = own.lock().take();
                        if let Some(last) = self.ended(own) {
                            return Poll::Ready(last.map(|last| last.map_err(Into::into)));
                        }
                    }
                },
            }
        }
    }

    // What comes last; `None` where something else goes on.
    fn ended(&mut self, own: Option<Own<B>>) -> Option<Option<Result<Frame<Bytes>, B::Error>>> {
        self.state = ReaderState::Done;
        match own {
            Some(Own::Over(Over::End(trailers))) => {
                Some(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(Own::Over(Over::Failed(error))) => Some(Some(Err(error))),
            Some(Own::Over(Over::Panicked(panic))) => resume_unwind(panic),
            Some(Own::Rest(body)) => {
                self.state = ReaderState::Rest(body);
                None
            }
            Some(Own::Fed(fed)) => {
                self.state = ReaderState::Fed(fed);
                None
            }
            None => panic!("{LOST}"),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match &self.state {
            ReaderState::Done => true,
            ReaderState::Rest(body) => body.is_end_stream(),
            ReaderState::Copy { .. } | ReaderState::Fed(_) => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if let ReaderState::Rest(body) = &self.state {
            return body.size_hint();
        }
        let mut left = SizeHint::new();
        left.set_lower(self.size.lower().saturating_sub(self.read));
        if let Some(upper) = self.size.upper() {
            left.set_upper(upper.saturating_sub(self.read));
        }
        left
    }
}
