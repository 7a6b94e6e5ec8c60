//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response};
use http_body::Body;
use pin_project_lite::pin_project;

use super::body::ResponseBody;
use super::explain::KEY;
use super::fill::Answered;
use super::kept::Kept;
use super::verdict::Told;

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
        // Boxed, since hits had better be small.
        key: Option<Box<HeaderValue>>,
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
        Kept { inner: Kept<Answered<B, E>> },
    }
}

impl<F, B: Body, E> ResponseFuture<F, B, E> {
    pub(super) fn hit(response: Response<ResponseBody<B>>) -> Self {
        Kind::Hit { response: Some(response) }.into()
    }

    pub(super) fn passed(inner: F, told: Told) -> Self {
        Kind::Passed { inner, told }.into()
    }

    pub(super) fn kept(inner: impl Future<Output = Answered<B, E>> + Send + 'static) -> Self {
        Kind::Kept { inner: Kept::new(inner) }.into()
    }

    /// Also tells what the request was looked up by.
    pub(super) fn with_key(mut self, key: Option<Box<HeaderValue>>) -> Self {
        self.key = key;
        self
    }
}

impl<F, B: Body, E> From<Kind<F, B, E>> for ResponseFuture<F, B, E> {
    fn from(kind: Kind<F, B, E>) -> Self {
        ResponseFuture { kind, key: None }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.kind.project() {
            KindProj::Hit { response } => {
                // As every future, not to be polled again after it was ready.
                let response = response.take().expect("polled after completion");
                if this.key.is_none() {
                    return Poll::Ready(Ok(response));
                }
                response
            }
            KindProj::Passed { inner, told } => {
                let mut response = ready!(inner.poll(cx))?.map(ResponseBody::passed);
                told.forwarded(&mut response, false);
                response
            }
            KindProj::Kept { inner } => ready!(Pin::new(inner).poll(cx))?,
        };
        if let Some(key) = this.key.take() {
            response.headers_mut().insert(KEY, *key);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F, B: Body, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Hit { .. } => "ResponseFuture(hit)",
            Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Kept { .. } => "ResponseFuture(boxed)",
        })
    }
}
