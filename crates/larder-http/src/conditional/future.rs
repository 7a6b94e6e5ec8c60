//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::cache::ResponseBody;

pub(super) type Boxed<B, E> =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, E>> + Send>>;

pin_project! {
    /// The future of [`Conditional`](super::Conditional).
    ///
    /// What the layer has no part in is the inner future itself; the rest is boxed.
    pub struct ResponseFuture<F, B, E>
    where
        B: Body,
    {
        #[pin]
        kind: Kind<F, B, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, B, E>
    where
        B: Body,
    {
        Passed { #[pin] inner: F },
        Boxed { inner: Boxed<B, E> },
    }
}

impl<F, B: Body, E> ResponseFuture<F, B, E> {
    pub(super) fn passed(inner: F) -> Self {
        ResponseFuture { kind: Kind::Passed { inner } }
    }

    pub(super) fn boxed(inner: Boxed<B, E>) -> Self {
        ResponseFuture { kind: Kind::Boxed { inner } }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Passed { inner } => {
                Poll::Ready(Ok(ready!(inner.poll(cx))?.map(ResponseBody::passed)))
            }
            KindProj::Boxed { inner } => inner.as_mut().poll(cx),
        }
    }
}

impl<F, B: Body, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Boxed { .. } => "ResponseFuture(boxed)",
        })
    }
}
