//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::ResponseBody;
use crate::mark::Caching;
use crate::status;
use crate::verdict::Told;
use crate::writes::Drops;

pub(crate) type Boxed<B, E> =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, E>> + Send>>;

pin_project! {
    /// The future of [`Cached`](crate::Cached).
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
        Writing { #[pin] inner: F, writing: Option<Drops>, told: Told },
        // A write that was answered by nothing but a status.
        Dropping { response: Option<Response<ResponseBody<B>>>, drops: Drops },
        Boxed { inner: Boxed<B, E> },
    }
}

impl<F, B: Body, E> ResponseFuture<F, B, E> {
    pub(crate) fn hit(response: Response<ResponseBody<B>>) -> Self {
        ResponseFuture { kind: Kind::Hit { response: Some(response) } }
    }

    pub(crate) fn passed(inner: F, told: Told) -> Self {
        ResponseFuture { kind: Kind::Passed { inner, told } }
    }

    pub(crate) fn writing(inner: F, drops: Drops, told: Told) -> Self {
        ResponseFuture { kind: Kind::Writing { inner, writing: Some(drops), told } }
    }

    pub(crate) fn boxed(inner: Boxed<B, E>) -> Self {
        ResponseFuture { kind: Kind::Boxed { inner } }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project().kind.project() {
                // As every future, not to be polled again after it was ready.
                KindProj::Hit { response } => {
                    return Poll::Ready(Ok(response.take().expect("polled after completion")));
                }
                KindProj::Passed { inner, told } => {
                    let mut response = ready!(inner.poll(cx))?.map(ResponseBody::passed);
                    told.forwarded(&mut response, false);
                    return Poll::Ready(Ok(response));
                }
                KindProj::Writing { inner, writing, told } => {
                    let response = ready!(inner.poll(cx))?;
                    let mut drops = writing.take().expect("polled after completion");
                    if let Some(hints) = response.extensions().get::<Caching>() {
                        drops.also(&hints.drops);
                    }
                    if response.headers().contains_key(status::STATUS) {
                        drops.answered(status::code(response.headers()));
                        let mut response = response.map(ResponseBody::passed);
                        told.forwarded(&mut response, false);
                        Kind::Dropping { response: Some(response), drops }
                    } else {
                        let mut response = response.map(|body| ResponseBody::writing(body, drops));
                        told.forwarded(&mut response, false);
                        return Poll::Ready(Ok(response));
                    }
                }
                KindProj::Dropping { response, drops } => {
                    ready!(drops.poll_done(cx));
                    return Poll::Ready(Ok(response.take().expect("polled after completion")));
                }
                KindProj::Boxed { inner } => return inner.as_mut().poll(cx),
            };
            self.as_mut().project().kind.set(next);
        }
    }
}

impl<F, B: Body, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Hit { .. } => "ResponseFuture(hit)",
            Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Writing { .. } | Kind::Dropping { .. } => "ResponseFuture(writing)",
            Kind::Boxed { .. } => "ResponseFuture(boxed)",
        })
    }
}
