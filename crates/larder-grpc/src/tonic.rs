//! For Tonic: names of services, and what takes Tonic's own body only.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Cached, GrpcCacheLayer};

impl<S: NamedService> NamedService for Cached<S> {
    const NAME: &'static str = S::NAME;
}

/// Gives an inner service Tonic's own request body, whatever the body is that it comes in.
///
/// Tonic's generated servers and `Routes` take any body and do not need it. A
/// [`Channel`](https://docs.rs/tonic/latest/tonic/transport/struct.Channel.html) and hand-written services for
/// `Request<tonic::body::Body>` do. It stands inside of [`GrpcCacheLayer`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TonicBodyLayer;

/// The service of [`TonicBodyLayer`].
#[derive(Clone, Debug)]
pub struct TonicBodies<S>(S);

impl<S> Layer<S> for TonicBodyLayer {
    type Service = TonicBodies<S>;

    fn layer(&self, inner: S) -> TonicBodies<S> {
        TonicBodies(inner)
    }
}

impl<S, B> Service<Request<B>> for TonicBodies<S>
where
    S: Service<Request<Body>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.0.call(request.map(Body::new))
    }
}

impl<S: NamedService> NamedService for TonicBodies<S> {
    const NAME: &'static str = S::NAME;
}

impl GrpcCacheLayer {
    /// Around a channel: what a generated client takes in its place.
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use larder_grpc::{GrpcCacheLayer, Read};
    /// use std::time::Duration;
    /// use tonic::transport::Channel;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let layer = GrpcCacheLayer::client(&Cache::memory(), "catalog.internal")
    ///     .read(Read::new("/catalog.Catalog/Get").ttl(Duration::from_secs(60)))
    ///     .build()?;
    /// let channel = Channel::from_static("http://catalog.internal:50051").connect_lazy();
    /// let client = tonic::client::Grpc::new(layer.channel(channel));
    /// # let _ = client;
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    pub fn channel<S>(&self, channel: S) -> Cached<TonicBodies<S>> {
        self.layer(TonicBodies(channel))
    }
}
