//! The bodies: of requests that are handed on, and of responses.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::gather::shared;
use crate::record::Call;
use crate::status;
use crate::writes::Drops;

/// What was read of a body, and what is to come after it.
pub(crate) struct Replay<B: Body> {
    frames: VecDeque<Bytes>,
    end: End<B>,
}

pub(crate) enum End<B: Body> {
    Trailers(Option<HeaderMap>),
    Failed(Option<B::Error>),
    /// It was not read to its end.
    Rest(Pin<Box<B>>),
}

impl<B: Body> Replay<B> {
    pub(crate) fn new(frames: impl IntoIterator<Item = Bytes>, end: End<B>) -> Self {
        Replay { frames: frames.into_iter().collect(), end }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        match &mut self.end {
            End::Trailers(trailers) => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            End::Failed(error) => Poll::Ready(error.take().map(Err)),
            End::Rest(body) => {
                Poll::Ready(ready!(body.as_mut().poll_frame(cx)).map(|frame| frame.map(shared)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
            && match &self.end {
                End::Trailers(trailers) => trailers.is_none(),
                End::Failed(error) => error.is_none(),
                End::Rest(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let frames = self.frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        let rest = match &self.end {
            End::Trailers(None) => SizeHint::with_exact(0),
            End::Trailers(Some(_)) | End::Failed(_) => SizeHint::new(),
            End::Rest(body) => body.size_hint(),
        };
        let mut left = SizeHint::new();
        left.set_lower(rest.lower().saturating_add(frames));
        if let Some(upper) = rest.upper() {
            left.set_upper(upper.saturating_add(frames));
        }
        left
    }
}

pin_project! {
    /// The body of a request as the inner service gets it: the caller's own, or the message that was read from it.
    pub struct RequestBody<B>
    where
        B: Body,
    {
        #[pin]
        kind: RequestKind<B>,
    }
}

pin_project! {
    #[project = RequestKindProj]
    enum RequestKind<B>
    where
        B: Body,
    {
        Passed { #[pin] body: B },
        Replayed { replay: Replay<B> },
    }
}

impl<B: Body> RequestBody<B> {
    pub(crate) fn passed(body: B) -> Self {
        RequestBody { kind: RequestKind::Passed { body } }
    }

    pub(crate) fn replayed(replay: Replay<B>) -> Self {
        RequestBody { kind: RequestKind::Replayed { replay } }
    }

    /// One message, with its prefix.
    pub(crate) fn message(message: Bytes) -> Self {
        Self::replayed(Replay::new([message], End::Trailers(None)))
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            RequestKindProj::Passed { body } => {
                Poll::Ready(ready!(body.poll_frame(cx)).map(|frame| frame.map(shared)))
            }
            RequestKindProj::Replayed { replay } => replay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            RequestKind::Passed { body } => body.is_end_stream(),
            RequestKind::Replayed { replay } => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            RequestKind::Passed { body } => body.size_hint(),
            RequestKind::Replayed { replay } => replay.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            RequestKind::Passed { .. } => "RequestBody(passed)",
            RequestKind::Replayed { .. } => "RequestBody(read)",
        })
    }
}

pin_project! {
    /// The body of a response that went through [`Cached`](crate::Cached).
    ///
    /// Its data is [`Bytes`]; of a stored message every reader shares the same ones. Trailers come as they were.
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B>
    where
        B: Body,
    {
        Stored { message: Option<Bytes>, call: Option<Arc<Call>> },
        Passed { #[pin] body: B },
        Replayed { replay: Replay<B> },
        Writing { #[pin] body: B, drops: Drops, held: Option<Frame<Bytes>>, ended: bool },
    }
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn stored(call: Arc<Call>) -> Self {
        ResponseBody {
            kind: Kind::Stored { message: Some(call.message.clone()), call: Some(call) },
        }
    }

    pub(crate) fn passed(body: B) -> Self {
        ResponseBody { kind: Kind::Passed { body } }
    }

    pub(crate) fn replayed(replay: Replay<B>) -> Self {
        ResponseBody { kind: Kind::Replayed { replay } }
    }

    /// The end of this body waits until what the call has changed is dropped.
    pub(crate) fn writing(body: B, drops: Drops) -> Self {
        ResponseBody { kind: Kind::Writing { body, drops, held: None, ended: false } }
    }
}

impl<B: Body> Default for ResponseBody<B> {
    /// No body: layers outside that answer by themselves ask for it.
    fn default() -> Self {
        ResponseBody { kind: Kind::Stored { message: None, call: None } }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Stored { message, call } => {
                if let Some(message) = message.take() {
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                let call = call.take();
                Poll::Ready(call.map(|call| Ok(Frame::trailers(call.trailers.clone()))))
            }
            KindProj::Passed { body } => {
                Poll::Ready(ready!(body.poll_frame(cx)).map(|frame| frame.map(shared)))
            }
            KindProj::Replayed { replay } => replay.poll_frame(cx),
            KindProj::Writing { body, drops, held, ended } => {
                if !*ended {
                    match ready!(body.poll_frame(cx)) {
                        Some(Ok(frame)) if frame.is_data() => {
                            return Poll::Ready(Some(Ok(shared(frame))));
                        }
                        Some(Ok(frame)) => {
                            let frame = shared(frame);
                            drops.answered(frame.trailers_ref().and_then(status::code));
                            *held = Some(frame);
                        }
                        // What became of the call is not known.
                        Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                        None => {}
                    }
                    *ended = true;
                }
                ready!(drops.poll_done(cx));
                Poll::Ready(held.take().map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Stored { message, call } => message.is_none() && call.is_none(),
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Replayed { replay } => replay.is_end_stream(),
            Kind::Writing { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Stored { message: None, call: None } => SizeHint::with_exact(0),
            Kind::Stored { message, .. } => {
                // Not exact: what translates trailers into a message of their own sends more.
                let mut left = SizeHint::new();
                left.set_lower(message.as_ref().map_or(0, |message| message.len() as u64));
                left
            }
            Kind::Passed { body } | Kind::Writing { body, .. } => body.size_hint(),
            Kind::Replayed { replay } => replay.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Stored { .. } => "ResponseBody(stored)",
            Kind::Passed { .. } => "ResponseBody(passed)",
            Kind::Replayed { .. } => "ResponseBody(read)",
            Kind::Writing { .. } => "ResponseBody(writing)",
        })
    }
}
