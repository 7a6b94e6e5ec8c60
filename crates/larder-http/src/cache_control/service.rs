//! The service.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::future::ResponseFuture;
use super::layer::Control;

/// A service whose responses say how they may be cached; made by [`CacheControlLayer`](super::CacheControlLayer).
#[derive(Clone, Debug)]
pub struct ControlSet<S> {
    inner: S,
    control: Arc<Control>,
}

impl<S> ControlSet<S> {
    pub(super) fn new(inner: S, control: Arc<Control>) -> Self {
        ControlSet { inner, control }
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for ControlSet<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        ResponseFuture::new(self.inner.call(request), self.control.clone())
    }
}
