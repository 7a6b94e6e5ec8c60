//! The service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use larder_http_rules::SessionMark;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::event::Event;
use crate::future::ResponseFuture;
use crate::layer::Shared;
use crate::session::Session;

/// A service whose requests have a [`Session`]; made by [`SessionLayer`](crate::SessionLayer).
#[derive(Clone)]
pub struct Sessions<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Sessions<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Sessions { inner, shared }
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Sessions<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
{
    type Response = Response<ResponseBody<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let config = &self.shared.config;
        let carried = config.pick(request.headers());
        let allowed = config.origins.allow(request.method(), request.uri(), request.headers());
        let outer = request.extensions().get::<SessionMark>().cloned();
        let session = Session::new(self.shared.clone(), outer, carried);
        if !allowed {
            self.shared.config.hook.tell(Event::CrossSite);
            return ResponseFuture::refused(session);
        }
        request.extensions_mut().insert(session.mark());
        request.extensions_mut().insert(session.clone());
        ResponseFuture::new(self.inner.call(request), session)
    }
}

impl<S: fmt::Debug> fmt::Debug for Sessions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("inner", &self.inner).finish_non_exhaustive()
    }
}
