//! The service.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::future::ResponseFuture;
use crate::RequestHead;
use crate::mark::{VaryBy, VaryOutside};

/// A service whose responses say what they vary on; made by [`VaryLayer`](super::VaryLayer).
#[derive(Clone, Debug)]
pub struct VarySet<S> {
    inner: S,
    by: Arc<VaryBy>,
}

impl<S> VarySet<S> {
    pub(super) fn new(inner: S, by: Arc<VaryBy>) -> Self {
        VarySet { inner, by }
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for VarySet<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let head = RequestHead::from(&request);
        let values = self.by.values.iter().map(|input| (input.compute)(head)).collect();
        // A `CacheLayer` inside learns of it here.
        let mut outside = request.extensions_mut().remove::<VaryOutside>().unwrap_or_default();
        outside.0.push(self.by.clone());
        request.extensions_mut().insert(outside);
        ResponseFuture::new(self.inner.call(request), self.by.clone(), values)
    }
}
