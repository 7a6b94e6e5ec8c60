//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, VARY};
use larder_http_rules::{CacheControl, vary};
use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use crate::body::ResponseBody;
use crate::carrier::Way;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Session, joined};
use crate::state::Effect;

pin_project! {
    /// The future of [`Sessions`](crate::Sessions).
    ///
    /// Dropped before the handler has returned, nothing is saved; dropped afterwards, saving goes on.
    pub struct ResponseFuture<F>
    where
        F: Future,
    {
        // None if the handler is not to be called.
        #[pin]
        inner: Option<F>,
        session: Session,
        // The handler's answer, while the session is being saved.
        saving: Option<Saving<F::Output>>,
    }
}

struct Saving<T> {
    output: T,
    task: JoinHandle<Result<Effect>>,
}

impl<F: Future> ResponseFuture<F> {
    pub(crate) fn new(inner: F, session: Session) -> Self {
        ResponseFuture { inner: Some(inner), session, saving: None }
    }

    /// Of a request that another site's page sent.
    pub(crate) fn refused(session: Session) -> Self {
        ResponseFuture { inner: None, session, saving: None }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.saving.is_none() {
            let Some(inner) = this.inner.as_pin_mut() else {
                return Poll::Ready(Ok(refusal(Error::new(ErrorKind::CrossSite))));
            };
            let output = ready!(inner.poll(cx));
            let Ok(response) = &output else { return Poll::Ready(output.map(passed)) };
            let config = &this.session.shared().config;
            let discards = response.status().is_server_error() && !config.save_on_server_errors;
            if !this.session.was_used() {
                // From now on every use is an error: nothing of the session can get into the response.
                return Poll::Ready(output.map(passed));
            }
            if let Some(ended) = this.session.finish_at_once(discards) {
                return Poll::Ready(output.map(|response| finished(this.session, response, ended)));
            }
            // In a task of its own: from here on it is saved, whoever goes away.
            let task = this.session.clone().finish(discards);
            *this.saving = Some(Saving { output, task });
        }
        let Some(saving) = this.saving else { unreachable!("it was put there") };
        let ended = joined(ready!(Pin::new(&mut saving.task).poll(cx)));
        let output = this.saving.take().map(|saving| saving.output);
        let Some(output) = output else { unreachable!("it was there") };
        Poll::Ready(output.map(|response| finished(this.session, response, ended)))
    }
}

fn passed<B>(response: Response<B>) -> Response<ResponseBody<B>> {
    response.map(ResponseBody::passed)
}

// The mark for a cache outside, which sees responses only.
fn told<B>(session: &Session, mut response: Response<B>) -> Response<B> {
    response.extensions_mut().insert(session.mark());
    response
}

/// The response of an exchange that used its session.
fn finished<B>(
    session: &Session,
    response: Response<B>,
    ended: Result<Effect>,
) -> Response<ResponseBody<B>> {
    let (mut response, effect) = match ended {
        Ok(effect) => (passed(response), effect),
        Err(error) => {
            // A handler that told of a failure itself has the word.
            let failed = response.status().is_server_error();
            (if failed { passed(response) } else { refusal(error) }, Effect::Keep)
        }
    };
    write_head(session, response.headers_mut(), effect);
    told(session, response)
}

// Instead of an answer that claims what was not saved.
fn refusal<B>(error: Error) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = error.status();
    response.extensions_mut().insert(error);
    response
}

fn write_head(session: &Session, headers: &mut HeaderMap, effect: Effect) {
    let (config, way) = (&session.shared().config, session.way());
    let (giving, bringing) = config.fields(way);
    let id = match effect {
        Effect::Keep => None,
        Effect::Set(id) => Some(id),
        Effect::Remove => Some(config.take_away(way)),
    };
    let mut control = CacheControl::new().private();
    let mut usual = "private";
    if let Some(id) = id {
        headers.append(giving, id);
        // Whoever keeps this response keeps somebody's key.
        control = control.no_store();
        usual = "no-store, private";
    }
    if [CACHE_CONTROL, VARY].iter().all(|name| !headers.contains_key(name)) {
        // Nothing to take apart, and nothing to put together.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(usual));
        headers.insert(
            VARY,
            match way {
                Way::Cookie => HeaderValue::from_static("cookie"),
                Way::Metadata => HeaderValue::from(bringing.clone()),
            },
        );
        return;
    }
    control.apply(headers, config.clock.wall());
    vary::append(headers, std::slice::from_ref(bringing));
}

impl<F: Future> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.saving.is_some() { "saving" } else { "running" };
        write!(f, "ResponseFuture({state})")
    }
}
