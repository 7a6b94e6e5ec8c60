//! One body for all: the bounded copy that is stored, and what the client that began the fill reads of it.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::body::shared;
use super::stream::{End, Next, Place, Stream};

/// A body that is being copied, as far as the copy has come.
///
/// The copy is made by the fill's own task and does not wait for the client. What the client has not read yet is in the
/// copy already; when the copy is given up, the rest of the body goes to the client as it comes.
pub(super) struct Copying<B: Body> {
    body: Pin<Box<B>>,
    frames: Vec<Bytes>,
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
    /// The body failed.
    Failed(E),
    /// It ended, and not where it had said.
    Truncated(Option<HeaderMap>),
}

// What a frame costs beside its bytes, so that a flood of tiny or empty frames meets the limit too.
const FRAME_COST: u64 = 64;

impl<B: Body> Copying<B> {
    /// `prefix` comes before the body; `expected` is what `Content-Length` says of both; nothing is allocated on its word.
    pub(super) fn new(prefix: Option<Bytes>, body: B, limit: u64, expected: Option<u64>) -> Self {
        let frames: Vec<Bytes> = prefix.into_iter().collect();
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
            let frame = match self.body.as_mut().poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(self.complete(None)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Copied::Failed(error)),
                Poll::Ready(Some(Ok(frame))) => shared(frame),
            };
            match frame.into_data() {
                Ok(data) => {
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
                // Trailers are the last frame.
                Err(frame) => {
                    return Poll::Ready(self.complete(frame.into_trailers().ok()));
                }
            }
        }
    }

    fn complete(&mut self, trailers: Option<HeaderMap>) -> Copied<B::Error> {
        if self.expected.is_some_and(|expected| expected != self.bytes) {
            return Copied::Truncated(trailers);
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
    pub(super) fn into_parts(self) -> (Vec<Bytes>, Pin<Box<B>>) {
        (self.frames, self.body)
    }

    /// Frames that were copied so far.
    pub(super) fn frames(&self) -> &[Bytes] {
        &self.frames
    }
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
    Fed(mpsc::Receiver<Fed<B::Error>>),
    Done,
}

/// What only the client that began the fill gets.
enum Own<B: Body> {
    Failed(B::Error),
    // The copy was given up.
    Rest(Pin<Box<B>>),
    // It goes on, and is not kept.
    Fed(mpsc::Receiver<Fed<B::Error>>),
    // The body panicked, or the fill was lost. The client's task panics as it would have without a cache.
    Panicked(Panic),
}

/// The rest of a body that the fill goes on reading, as it reaches the client.
pub(super) enum Fed<E> {
    Data(Bytes),
    End(Option<HeaderMap>),
    Failed(E),
    Panicked(Panic),
}

/// What a panic threw.
pub(super) type Panic = Box<dyn Any + Send>;

// How many frames the fill reads ahead of a client that it feeds.
const FRAMES_AHEAD: usize = 8;

/// A pair, beginning with these frames. `size` is what is known of the whole body.
pub(super) fn pair<B: Body>(frames: Vec<Bytes>, size: SizeHint) -> (Writer<B>, Reader<B>) {
    let stream = Stream::new(frames);
    let own = Arc::new(Mutex::new(None));
    let state = ReaderState::Copy { place: stream.place(), own: own.clone() };
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

    /// The copy is given up, and the fill goes on reading: the client gets what it is fed.
    pub(super) fn feed(self) -> mpsc::Sender<Fed<B::Error>> {
        let (feed, fed) = mpsc::channel(FRAMES_AHEAD);
        self.end(Own::Fed(fed));
        feed
    }

    /// Ends as the copy did; `rest` is what it has not read.
    pub(super) fn ended(self, copied: Result<Copied<B::Error>, Panic>, rest: Pin<Box<B>>) {
        match copied {
            Ok(Copied::Complete(_, trailers) | Copied::Truncated(trailers)) => {
                self.complete(trailers);
            }
            Ok(Copied::Failed(error)) => self.end(Own::Failed(error)),
            Ok(Copied::TooLarge) => self.hand_over(rest),
            Err(panic) => self.end(Own::Panicked(panic)),
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
        self.end(Own::Panicked(Box::new("the fill of a cached response was lost")));
    }
}

impl<B: Body> Reader<B> {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            match &mut self.state {
                ReaderState::Done => return Poll::Ready(None),
                ReaderState::Rest(body) => {
                    let frame = ready!(body.as_mut().poll_frame(cx));
                    return Poll::Ready(frame.map(|frame| frame.map(shared)));
                }
                ReaderState::Fed(fed) => {
                    let fed = ready!(fed.poll_recv(cx));
                    if let Some(Fed::Data(data)) = fed {
                        self.read += data.len() as u64;
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    self.state = ReaderState::Done;
                    return match fed {
                        Some(Fed::End(trailers)) => {
                            Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
                        }
                        Some(Fed::Failed(error)) => Poll::Ready(Some(Err(error))),
                        Some(Fed::Panicked(panic)) => std::panic::resume_unwind(panic),
                        _ => panic!("the fill of a cached response was lost"),
                    };
                }
                ReaderState::Copy { place, own } => match ready!(place.poll_next(cx)) {
                    Next::Frame(frame) => {
                        self.read += frame.len() as u64;
                        return Poll::Ready(Some(Ok(Frame::data(frame))));
                    }
                    Next::End(End::Complete(trailers)) => {
                        self.state = ReaderState::Done;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Next::End(End::Broken) => {
                        let own = own.lock().take();
                        self.state = ReaderState::Done;
                        match own {
                            Some(Own::Failed(error)) => return Poll::Ready(Some(Err(error))),
                            Some(Own::Panicked(panic)) => std::panic::resume_unwind(panic),
                            Some(Own::Rest(body)) => self.state = ReaderState::Rest(body),
                            Some(Own::Fed(fed)) => self.state = ReaderState::Fed(fed),
                            None => {}
                        }
                    }
                },
            }
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
