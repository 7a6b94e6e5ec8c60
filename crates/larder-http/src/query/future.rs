//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pub(super) type Boxed<R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;

pin_project! {
    /// The future of [`Queried`](super::Queried).
    ///
    /// What is not read is the inner future itself; only a QUERY is boxed.
    pub struct ResponseFuture<F, R, E> {
        #[pin]
        kind: Kind<F, R, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, R, E> {
        Passed { #[pin] inner: F },
        Boxed { inner: Boxed<R, E> },
    }
}

impl<F, R, E> ResponseFuture<F, R, E> {
    pub(super) fn passed(inner: F) -> Self {
        ResponseFuture { kind: Kind::Passed { inner } }
    }

    pub(super) fn boxed(inner: Boxed<R, E>) -> Self {
        ResponseFuture { kind: Kind::Boxed { inner } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R, E>
where
    F: Future<Output = Result<R, E>>,
{
    type Output = Result<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Passed { inner } => inner.poll(cx),
            KindProj::Boxed { inner } => inner.as_mut().poll(cx),
        }
    }
}

impl<F, R, E> fmt::Debug for ResponseFuture<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Boxed { .. } => "ResponseFuture(boxed)",
        })
    }
}
