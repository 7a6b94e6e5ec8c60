//! What `CacheControlLayer` says to others.

use std::convert::Infallible;
use std::time::Duration;

use http::{HeaderName, Request, Response};
use larder_http::CacheControlLayer;
use larder_http::rules::CacheControl;
use larder_tests::append;
use tower::{Layer, ServiceExt, service_fn};

// What a handler's response says to a CDN in the end.
async fn told(status: u16, own: &'static [(&'static str, &'static str)]) -> Option<String> {
    let hour = CacheControl::new().public().max_age(Duration::from_secs(3600));
    let service = CacheControlLayer::new(CacheControl::new().max_age(Duration::from_secs(60)))
        .targeted(HeaderName::from_static("cdn-cache-control"), hour)
        .layer(service_fn(move |_: Request<()>| async move {
            let mut response = Response::new(());
            *response.status_mut() = status.try_into().unwrap();
            append(response.headers_mut(), own);
            Ok::<_, Infallible>(response)
        }));
    let response = service.oneshot(Request::new(())).await.unwrap();
    response.headers().get("cdn-cache-control").map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_cdn_is_told_something_of_its_own_and_never_what_everybody_is_denied() {
    let hour = Some("public, max-age=3600".to_owned());
    for own in [&[][..], &[("cache-control", "max-age=10")], &[("cache-control", "public")]] {
        assert_eq!(told(200, own).await, hour, "{own:?}");
    }
    assert_eq!(told(301, &[]).await, hour);
    assert_eq!(told(500, &[]).await, None);
    for denied in [
        &[("cache-control", "no-store")][..],
        &[("cache-control", "private")],
        &[("cache-control", "private=\"x-user\"")],
        &[("cache-control", "no-cache")],
        &[("cache-control", "max-age=0")],
        &[("cache-control", "max-age=60, s-maxage=0")],
    ] {
        assert_eq!(told(200, denied).await, None, "{denied:?}");
    }
    let own = &[("cdn-cache-control", "max-age=5")];
    assert_eq!(told(200, own).await.as_deref(), Some("max-age=5"), "the handler's own word stays");
}
