//! A request's body: passed through, or what was read of it before the rest.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::cache::{longer, shared};

pin_project! {
    /// The body of a request that went through [`Queried`](super::Queried).
    ///
    /// Its data is [`Bytes`], its errors are those of the body that came.
    pub struct RequestBody<B>
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
        Passed { #[pin] body: B },
        // What was read, and what comes behind it, unless that is nothing.
        Read { frames: VecDeque<Outcome<B>>, rest: Option<Pin<Box<B>>> },
    }
}

type Outcome<B> = Result<Frame<Bytes>, <B as Body>::Error>;

impl<B: Body> RequestBody<B> {
    pub(super) fn passed(body: B) -> Self {
        RequestBody { kind: Kind::Passed { body } }
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
            KindProj::Passed { body } => {
                Poll::Ready(ready!(body.poll_frame(cx)).map(|frame| frame.map(shared)))
            }
            KindProj::Read { frames, rest } => match (frames.pop_front(), rest) {
                (None, Some(rest)) => {
                    Poll::Ready(ready!(rest.as_mut().poll_frame(cx)).map(|frame| frame.map(shared)))
                }
                (frame, _) => Poll::Ready(frame),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Read { frames, rest } => {
                frames.is_empty() && rest.as_ref().is_none_or(|rest| rest.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Read { frames, rest } => {
                let data = |frame: &Outcome<B>| Some(frame.as_ref().ok()?.data_ref()?.len() as u64);
                let read: u64 = frames.iter().filter_map(data).sum();
                let rest = rest.as_ref().map_or(SizeHint::with_exact(0), |rest| rest.size_hint());
                longer(rest, read)
            }
        }
    }
}

impl<B: Body> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passed { .. } => "RequestBody(passed)",
            Kind::Read { .. } => "RequestBody(read)",
        })
    }
}

/// A content that is being read, up to a limit.
pub(super) struct Reading<B: Body> {
    body: Pin<Box<B>>,
    read: BytesMut,
    frames: usize,
    limit: usize,
}

/// How reading it ended.
pub(super) enum Read<B: Body> {
    /// All of it is there.
    Whole,
    /// It is none that could be a key: this comes behind what was read, and perhaps more.
    Other(Outcome<B>),
}

// A flood of tiny or empty frames is no content.
const MOST_FRAMES: usize = 4096;

impl<B: Body> Reading<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Reading { body: Box::pin(body), read: BytesMut::new(), frames: 0, limit }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Read<B>> {
        loop {
            let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(Read::Whole),
                Some(Err(error)) => return Poll::Ready(Read::Other(Err(error))),
                Some(Ok(frame)) => shared(frame),
            };
            self.frames += 1;
            match frame.data_ref() {
                Some(data)
                    if self.frames <= MOST_FRAMES && data.len() <= self.limit - self.read.len() =>
                {
                    self.read.extend_from_slice(data);
                }
                _ => return Poll::Ready(Read::Other(Ok(frame))),
            }
        }
    }

    /// What was read so far.
    pub(super) fn content(&self) -> &[u8] {
        &self.read
    }

    /// The body as it came; `None` where reading it was given up.
    pub(super) fn into_body(self, read: Option<Read<B>>) -> RequestBody<B> {
        let mut frames = VecDeque::with_capacity(2);
        if !self.read.is_empty() {
            frames.push_back(Ok(Frame::data(self.read.freeze())));
        }
        let rest = match read {
            Some(Read::Whole) => None,
            Some(Read::Other(next)) => {
                frames.push_back(next);
                Some(self.body)
            }
            None => Some(self.body),
        };
        RequestBody { kind: Kind::Read { frames, rest } }
    }
}
