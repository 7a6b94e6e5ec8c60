//! What a hit on a server may allocate in this process, its client's tasks included. A count, so the same on every machine.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use larder::Cache;
use larder::http::CacheLayer;
use larder_benches::runtime;
use larder_testkit::servers::RedisServer;
use tower::{Layer, Service, ServiceExt, service_fn};

const TIMES: u64 = 500;

type Answer = Response<Full<Bytes>>;

async fn origin(_: Request<Full<Bytes>>) -> Result<Answer, Infallible> {
    let answer = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "max-age=3600");
    Ok(answer.body(Full::new(Bytes::from_static(&[b'x'; 1024]))).expect("a response"))
}

fn request() -> Request<Full<Bytes>> {
    Request::get("http://shop.test/products/7").body(Full::default()).expect("a request")
}

/// Allocations of one exchange, all of this thread's: with a runtime of one thread there is no other.
fn each<S, B>(runtime: &tokio::runtime::Runtime, service: &S) -> f64
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let rounds = |times: u64| {
        runtime.block_on(async {
            for _ in 0..times {
                let response = service.clone().oneshot(request()).await.expect("an answer");
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                assert_eq!(body.len(), 1024);
            }
        });
    };
    rounds(100);
    allocation_counter::measure(|| rounds(TIMES)).count_total as f64 / TIMES as f64
}

#[test]
fn a_hit_of_a_small_response_on_redis_stays_within_its_budget() {
    let runtime = runtime();
    let server = runtime.block_on(RedisServer::start());
    let url = format!("{}/0?namespace=bench&read_budget=60s&write_budget=60s", server.url());
    let cache = runtime.block_on(Cache::connect(&url)).expect("a server that was just started");
    let service = CacheLayer::new(&cache).layer(service_fn(origin));
    runtime.block_on(async {
        // The client of a miss does not wait for the store.
        while !service.clone().oneshot(request()).await.unwrap().headers().contains_key(header::AGE)
        {
            tokio::task::yield_now().await;
        }
    });
    let (hit, bare) = (each(&runtime, &service), each(&runtime, &service_fn(origin)));
    let own = hit - bare;
    assert!(
        own <= BUDGET,
        "a hit on Redis makes {own:.1} allocations of its own, its budget is {BUDGET}: find what allocates on its way"
    );
    assert!(own > 5.0, "{own:.1} allocations are those of a hit in memory: Redis was not asked");
}

// The aim of 20; what it makes today is 19.2.
const BUDGET: f64 = 20.0;
