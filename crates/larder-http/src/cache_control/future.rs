//! The response future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Response};
use larder_http_rules::CacheControl;
use pin_project_lite::pin_project;

use super::layer::Control;

pin_project! {
    /// The future of [`ControlSet`](super::ControlSet).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        control: Arc<Control>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, control: Arc<Control>) -> Self {
        ResponseFuture { inner, control }
    }
}

impl Control {
    // What is said to one kind of cache alone. Not where it would allow that cache what everybody is denied.
    fn target(&self, headers: &mut HeaderMap) {
        if self.targeted.is_empty() {
            return;
        }
        let value = CacheControl::from_headers(headers);
        let said = value.directives();
        let denied = said.no_store
            || said.private.is_present()
            || said.no_cache.is_present()
            || said.max_age.or(said.s_maxage) == Some(Duration::ZERO)
            || said.s_maxage == Some(Duration::ZERO);
        for (field, value) in self.targeted.iter().filter(|_| !denied) {
            headers.entry(field).or_insert_with(|| value.to_header_value());
        }
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
        let said = this.control.value.directives();
        // An error page is not worth keeping because its route is.
        let forbids = said.no_store || said.private.is_present();
        if forbids || response.status().is_success() || response.status().is_redirection() {
            let now = this.control.clock.wall();
            this.control.value.apply(response.headers_mut(), now);
            this.control.target(response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}
