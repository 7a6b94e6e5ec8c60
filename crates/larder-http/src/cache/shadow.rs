//! Running beside a handler without answering for it: what would have been served is compared with what the handler says.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use tower_service::Service;

use super::body::{ResponseBody, shared};
use super::layer::Shared;
use super::miss::alone;
use super::verdict::Told;
use crate::RequestHead;

/// A hit that would have been wrong; from [`CacheLayer::shadow`](super::CacheLayer::shadow).
///
/// [`Display`](fmt::Display) is one line for a log. It tells the path, and not the query, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What was asked.
    pub method: Method,
    /// For what.
    pub uri: Uri,
    /// How the two responses differ.
    pub what: Differs,
}

/// How what was stored differs from what the handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Differs {
    /// In the status.
    Status {
        /// What would have been served.
        stored: StatusCode,
        /// What the handler says.
        handler: StatusCode,
    },
    /// In the body, from this byte on: one of them may end there.
    Body {
        /// Counted from 0.
        at: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.method, self.uri.path())?;
        match self.what {
            Differs::Status { stored, handler } => {
                let (stored, handler) = (stored.as_u16(), handler.as_u16());
                write!(f, "stored is {stored}, the handler says {handler}")
            }
            Differs::Body { at } => write!(f, "the bodies differ from byte {at} on"),
        }
    }
}

pub(super) type Report = Arc<dyn Fn(&Difference) + Send + Sync>;

/// Asks the handler, and compares what it says with what would have been the answer.
pub(super) async fn compare<S, ReqB, ResB>(
    shared: &Shared,
    report: &Report,
    inner: &mut S,
    request: Request<ReqB>,
    answer: Response<ResponseBody<ResB>>,
    told: &Told,
) -> Result<Response<ResponseBody<ResB>>, S::Error>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body,
{
    let head = RequestHead::from(&request);
    let (method, uri) = (head.method().clone(), head.uri().clone());
    let for_head = *head.method() == Method::HEAD;
    let response = alone(shared, inner, request, told).await?;
    let differs = |what| Difference { method, uri, what };
    let (stored, handler) = (answer.status(), response.status());
    // A cache may answer conditions and ranges by itself, so only whole answers can be compared.
    let partial = |status: StatusCode| matches!(status.as_u16(), 206 | 304 | 416);
    if partial(stored) || partial(handler) {
        return Ok(response);
    }
    if stored != handler {
        tell(report, &differs(Differs::Status { stored, handler }));
        return Ok(response);
    }
    match answer.into_body().whole() {
        Some(expected) if !for_head => {
            let report = report.clone();
            let watch = Watch {
                expected,
                at: 0,
                tell: Some(Box::new(move |at| tell(&report, &differs(Differs::Body { at })))),
            };
            Ok(response.map(|body| body.watched(watch)))
        }
        _ => Ok(response),
    }
}

fn tell(report: &Report, difference: &Difference) {
    tracing::warn!(target: "larder_http", "in earnest this hit would have been wrong: {difference}");
    report(difference);
}

/// Compares a body with another one as it passes.
pub(super) struct Watch {
    expected: Bytes,
    at: usize,
    // Until it was told.
    tell: Option<Box<dyn FnOnce(u64) + Send>>,
}

impl Watch {
    fn see(&mut self, data: &[u8]) {
        let left = &self.expected[self.at..];
        let same = data.iter().zip(left).take_while(|(one, other)| one == other).count();
        self.at += same;
        if same < data.len() {
            self.differs();
        }
    }

    fn end(&mut self) {
        if self.at < self.expected.len() {
            self.differs();
        }
    }

    fn differs(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.at as u64);
        }
    }

    pub(super) fn poll_frame<B: Body>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(body.poll_frame(cx)).map(|frame| frame.map(shared));
        match &frame {
            Some(Ok(frame)) if self.tell.is_some() => match frame.data_ref() {
                Some(data) => self.see(data),
                // Trailers are the last frame.
                None => self.end(),
            },
            Some(_) => {}
            None => self.end(),
        }
        Poll::Ready(frame)
    }
}
