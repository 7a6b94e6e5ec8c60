//! The response future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http::header::COOKIE;
use larder_http_rules::vary;
use pin_project_lite::pin_project;

use crate::mark::{VaryBy, VaryInside};

pin_project! {
    /// The future of [`VarySet`](super::VarySet).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        by: Arc<VaryBy>,
        values: Vec<Option<String>>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, by: Arc<VaryBy>, values: Vec<Option<String>>) -> Self {
        ResponseFuture { inner, by, values }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        vary::append(response.headers_mut(), &this.by.headers);
        if !this.by.cookies.is_empty() {
            vary::append(response.headers_mut(), &[COOKIE]);
        }
        // A `CacheLayer` outside learns of it here.
        let mut inside = response.extensions_mut().remove::<VaryInside>().unwrap_or_default();
        inside.0.push((this.by.clone(), std::mem::take(this.values)));
        response.extensions_mut().insert(inside);
        Poll::Ready(Ok(response))
    }
}
