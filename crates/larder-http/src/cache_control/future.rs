//! The response future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
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
        }
        Poll::Ready(Ok(response))
    }
}
