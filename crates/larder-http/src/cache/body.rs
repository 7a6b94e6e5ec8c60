//! The response body: stored, being copied, or passed through.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use larder_core::Key;
use pin_project_lite::pin_project;

use super::chunks;
use super::layer::Shared;
use super::shadow::Watch;
use super::stream::Follower;
use super::tee::{self, Reader};

/// Any error of a body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project! {
    /// The body of a response that went through [`Cached`](super::Cached).
    ///
    /// Its data is [`Bytes`]; of a stored body every reader shares the same ones. Its errors are the handler's, boxed, and
    /// [`BrokenOff`](super::BrokenOff) for requests that read another one's response as it comes.
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
        Stored { body: Option<Bytes>, trailers: Option<Arc<HeaderMap>> },
        Passed { #[pin] body: B },
        Watched { #[pin] body: B, watch: Watch },
        // Boxed, since hits had better be small.
        Copied { reader: Box<Reader<B>> },
        Followed { follower: Box<Follower> },
        Frames { frames: VecDeque<Bytes> },
        Chunked { reader: Box<chunks::Reader> },
    }
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn stored(body: Bytes, trailers: Option<Arc<HeaderMap>>) -> Self {
        let body = Some(body).filter(|body| !body.is_empty());
        ResponseBody { kind: Kind::Stored { body, trailers } }
    }

    pub(crate) fn empty() -> Self {
        Self::stored(Bytes::new(), None)
    }

    /// These, one after the other.
    pub(super) fn frames(frames: Vec<Bytes>) -> Self {
        ResponseBody { kind: Kind::Frames { frames: frames.into() } }
    }

    pub(crate) fn passed(body: B) -> Self {
        ResponseBody { kind: Kind::Passed { body } }
    }

    /// What comes behind these bytes.
    pub(super) fn behind(prefix: Bytes, rest: B) -> Self {
        let size = super::copy::longer(rest.size_hint(), prefix.len() as u64);
        let (writer, reader) = tee::pair([prefix], size);
        writer.hand_over(Box::pin(rest));
        Self::copied(reader)
    }

    /// The same, compared as it passes, if it is the handler's own.
    pub(super) fn watched(self, watch: Watch) -> Self {
        match self.kind {
            Kind::Passed { body } => ResponseBody { kind: Kind::Watched { body, watch } },
            kind => ResponseBody { kind },
        }
    }

    /// All of a stored body.
    pub(super) fn whole(self) -> Option<Bytes> {
        match self.kind {
            Kind::Stored { body, .. } => Some(body.unwrap_or_default()),
            _ => None,
        }
    }

    pub(super) fn copied(reader: Reader<B>) -> Self {
        ResponseBody { kind: Kind::Copied { reader: Box::new(reader) } }
    }

    /// What [`open`](ResponseBody::open) has to open.
    pub(super) fn chunked(reader: chunks::Reader) -> Self {
        ResponseBody { kind: Kind::Chunked { reader: Box::new(reader) } }
    }

    /// Reads the beginning of what is not here; false when it is not there either.
    pub(super) async fn open(&mut self, shared: &Shared, page: &Key) -> bool {
        match &mut self.kind {
            Kind::Chunked { reader } => reader.open(&shared.config.store, page).await,
            _ => true,
        }
    }

    pub(super) fn followed(follower: Follower) -> Self {
        ResponseBody { kind: Kind::Followed { follower: Box::new(follower) } }
    }
}

impl<B: Body> Default for ResponseBody<B> {
    /// No body: layers outside that answer by themselves ask for it.
    fn default() -> Self {
        Self::empty()
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Stored { body, trailers } => {
                if let Some(body) = body.take() {
                    return Poll::Ready(Some(Ok(Frame::data(body))));
                }
                let trailers = trailers.take().map(|trailers| (*trailers).clone());
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            KindProj::Passed { body } => Poll::Ready(
                ready!(body.poll_frame(cx)).map(|frame| frame.map(shared).map_err(Into::into)),
            ),
            KindProj::Watched { body, watch } => watch.poll_frame(body, cx).map_err(Into::into),
            KindProj::Copied { reader } => reader.poll_frame(cx),
            KindProj::Followed { follower } => follower.poll_frame(cx).map_err(Into::into),
            KindProj::Chunked { reader } => reader.poll_frame(cx).map_err(Into::into),
            KindProj::Frames { frames } => {
                Poll::Ready(frames.pop_front().map(|frame| Ok(Frame::data(frame))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Stored { body, trailers } => body.is_none() && trailers.is_none(),
            Kind::Passed { body } => body.is_end_stream(),
            // Who sees that it ends does not poll again, and the end is compared too.
            Kind::Watched { .. } => false,
            Kind::Copied { reader } => reader.is_end_stream(),
            Kind::Followed { follower } => follower.is_end_stream(),
            Kind::Chunked { reader } => reader.left() == 0,
            Kind::Frames { frames } => frames.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Stored { body, trailers } => {
                let length = body.as_ref().map_or(0, |body| body.len() as u64);
                let mut left = SizeHint::with_exact(length);
                if trailers.is_some() {
                    // HTTP/1.1 sends trailers only behind a body whose length was not announced.
                    left = SizeHint::new();
                    left.set_lower(length);
                }
                left
            }
            Kind::Passed { body } | Kind::Watched { body, .. } => body.size_hint(),
            Kind::Copied { reader } => reader.size_hint(),
            Kind::Followed { follower } => follower.size_hint(),
            Kind::Chunked { reader } => SizeHint::with_exact(reader.left()),
            Kind::Frames { frames } => {
                SizeHint::with_exact(frames.iter().map(|frame| frame.len() as u64).sum())
            }
        }
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Stored { .. } => "ResponseBody(stored)",
            Kind::Passed { .. } => "ResponseBody(passed)",
            Kind::Watched { .. } => "ResponseBody(watched)",
            Kind::Copied { .. } => "ResponseBody(copied)",
            Kind::Followed { .. } => "ResponseBody(followed)",
            Kind::Chunked { .. } => "ResponseBody(chunked)",
            Kind::Frames { .. } => "ResponseBody(frames)",
        })
    }
}

/// A frame with its data as `Bytes`: a reference count where it was `Bytes` before.
pub(crate) fn shared<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}
