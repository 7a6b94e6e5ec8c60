//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::body::ResponseBody;
use super::verdict::Told;

pub(super) type Boxed<B, E> =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, E>> + Send>>;

pin_project! {
    /// The future of [`Cached`](super::Cached).
    ///
    /// A hit in memory is ready at once, what does not concern the cache is the inner future itself, and only the rest
    /// is boxed.
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
        Hit { response: Option<Response<ResponseBody<B>>> },
        Passed { #[pin] inner: F, told: Told },
        Boxed { inner: Boxed<B, E> },
    }
}

impl<F, B: Body, E> ResponseFuture<F, B, E> {
    pub(super) fn hit(response: Response<ResponseBody<B>>) -> Self {
        ResponseFuture { kind: Kind::Hit { response: Some(response) } }
    }

    pub(super) fn passed(inner: F, told: Told) -> Self {
        ResponseFuture { kind: Kind::Passed { inner, told } }
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
            KindProj::Hit { response } => {
                // As every future, not to be polled again after it was ready.
                let response = response.take().expect("polled after completion");
                Poll::Ready(Ok(response))
            }
            KindProj::Passed { inner, told } => {
                let mut response = ready!(inner.poll(cx))?.map(ResponseBody::passed);
                told.forwarded(&mut response, false);
                Poll::Ready(Ok(response))
            }
            KindProj::Boxed { inner } => inner.as_mut().poll(cx),
        }
    }
}

impl<F, B: Body, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Hit { .. } => "ResponseFuture(hit)",
            Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Boxed { .. } => "ResponseFuture(boxed)",
        })
    }
}
