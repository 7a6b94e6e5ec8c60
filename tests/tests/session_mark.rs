//! A response whose session was used is one visitor's own, on whichever side of the cache the session layer stands.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use larder_http::{CacheLayer, SessionMark};
use larder_tests::{Failure, Got, Larder, Origin, Step, TestBody, get, response, scripted};
use tokio::sync::Notify;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

/// What a session layer does: a mark for the handler, which the cache sees in the request or in the response.
#[derive(Clone)]
struct Sessions<S>(S);

impl<S, B> Service<Request<TestBody>> for Sessions<S>
where
    S: Service<Request<TestBody>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<TestBody>) -> Self::Future {
        let mark = SessionMark::new();
        request.extensions_mut().insert(mark.clone());
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            response.extensions_mut().insert(mark);
            Ok(response)
        })
    }
}

type Boxed = BoxCloneSyncService<
    Request<TestBody>,
    Response<larder_http::cache::ResponseBody<TestBody>>,
    Failure,
>;

/// The session layer outside of the cache, inside, or on both sides.
fn stack(order: &str, larder: &Larder, origin: Origin) -> Boxed {
    let cache = CacheLayer::new(&larder.cache).cache_status("t");
    match order {
        "outside" => BoxCloneSyncService::new(Sessions(cache.layer(origin))),
        "inside" => BoxCloneSyncService::new(cache.layer(Sessions(origin))),
        _ => BoxCloneSyncService::new(Sessions(cache.layer(Sessions(origin)))),
    }
}

/// When the handler uses the session.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Touch {
    Never,
    AtOnce,
    BeforeHead,
    WhileStreaming,
    BeforeTheEnd,
}

fn origin(touch: Touch, gate: Arc<Notify>) -> Origin {
    Origin::new(move |call, request| {
        let gate = gate.clone();
        let mark = request.extensions().get::<SessionMark>().cloned().unwrap();
        if touch == Touch::AtOnce {
            mark.touch();
        }
        async move {
            gate.notified().await;
            if touch == Touch::BeforeHead {
                mark.touch();
            }
            let (steps, body) = scripted();
            let mut response = response("public, max-age=60", "");
            *response.body_mut() = body;
            tokio::spawn(async move {
                let _ = steps.send(Step::Data(format!("{call}").into()));
                gate.notified().await;
                if touch == Touch::WhileStreaming {
                    mark.touch();
                }
                let _ = steps.send(Step::Data(" and".into()));
                gate.notified().await;
                if touch == Touch::BeforeTheEnd {
                    mark.touch();
                }
            });
            Ok(response)
        }
    })
}

async fn go_on(gate: &Notify) {
    for _ in 0..32 {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
        gate.notify_waiters();
    }
}

#[tokio::test]
async fn p14_a_touched_session_is_never_stored_in_either_layer_order() {
    for order in ["outside", "inside", "both"] {
        for touch in [
            Touch::Never,
            Touch::AtOnce,
            Touch::BeforeHead,
            Touch::WhileStreaming,
            Touch::BeforeTheEnd,
        ] {
            let (larder, gate) = (Larder::new(), Arc::new(Notify::new()));
            let origin = origin(touch, gate.clone());
            let service = stack(order, &larder, origin.clone());
            let ask = || {
                let service = service.clone();
                tokio::spawn(async move {
                    Got::read(service.oneshot(get("/")).await.unwrap()).await.unwrap()
                })
            };
            // One asks, another one waits for it, and a third comes afterwards.
            let visitors = [ask(), ask()];
            go_on(&gate).await;
            let third = ask();
            go_on(&gate).await;
            let mut bodies = Vec::new();
            for visitor in visitors.into_iter().chain([third]) {
                bodies.push(visitor.await.unwrap().text());
            }
            let what = format!("session {order} of the cache, touched: {touch:?}");
            let own = if touch == Touch::Never { 1 } else { 3 };
            assert_eq!(origin.calls(), own, "{what}");
            bodies.sort();
            bodies.dedup();
            assert_eq!(bodies.len(), own, "{what}");
            assert_eq!(larder.entries(), u64::from(touch == Touch::Never), "{what}");
            assert_eq!(larder.flights(), 0);
        }
    }
}

#[tokio::test]
async fn p14_a_body_that_is_ready_at_once_and_touches_is_not_stored() {
    struct Touching(Option<SessionMark>);
    impl http_body::Body for Touching {
        type Data = bytes::Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|mark| {
                mark.touch();
                Ok(http_body::Frame::data("own".into()))
            }))
        }
    }
    for order in ["outside", "inside"] {
        let larder = Larder::new();
        let origin = Origin::says(|_, request| {
            let mark = request.extensions().get::<SessionMark>().cloned();
            let mut response = response("public, max-age=60", "");
            let body = http_body_util::BodyExt::map_err(Touching(mark), |never| match never {});
            *response.body_mut() = http_body_util::BodyExt::boxed_unsync(body);
            response
        });
        let service = stack(order, &larder, origin.clone());
        for calls in 1..4 {
            let got = Got::read(service.clone().oneshot(get("/")).await.unwrap()).await.unwrap();
            assert!(!got.hit());
            assert_eq!((origin.calls(), larder.entries()), (calls, 0), "{order}");
        }
    }
}

#[tokio::test]
async fn p14_what_others_left_is_read_without_touching_anybodys_session() {
    // An untouched session does not keep anybody from what is stored.
    for order in ["outside", "inside", "both"] {
        let larder = Larder::new();
        let origin = Origin::counting("max-age=60");
        let service = stack(order, &larder, origin.clone());
        for _ in 0..3 {
            Got::read(service.clone().oneshot(get("/")).await.unwrap()).await.unwrap();
        }
        assert_eq!(origin.calls(), 1, "{order}");
    }
}
