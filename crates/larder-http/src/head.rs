//! A request's head, as closures see it.

use http::{Extensions, HeaderMap, Method, Request, Uri};

/// A request's method, target, headers and extensions: what partitions and variants may be made from.
///
/// ```
/// use larder_http::RequestHead;
///
/// let request = http::Request::get("/cart").header("x-tenant", "blue").body(()).unwrap();
/// let tenant = |head: RequestHead<'_>| head.headers().get("x-tenant").cloned();
/// assert_eq!(tenant(RequestHead::from(&request)).unwrap(), "blue");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The method.
    pub fn method(self) -> &'a Method {
        self.method
    }

    /// The target, as the client sent it: a nested router's shortening is undone with the feature `axum`.
    pub fn uri(self) -> &'a Uri {
        self.uri
    }

    /// The header fields.
    pub fn headers(self) -> &'a HeaderMap {
        self.headers
    }

    /// What outer layers put into the request.
    pub fn extensions(self) -> &'a Extensions {
        self.extensions
    }
}

impl<'a, B> From<&'a Request<B>> for RequestHead<'a> {
    fn from(request: &'a Request<B>) -> Self {
        RequestHead {
            method: request.method(),
            uri: original(request.extensions()).unwrap_or(request.uri()),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl<'a> From<&'a Snapshot> for RequestHead<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        RequestHead {
            method: &snapshot.method,
            uri: &snapshot.uri,
            headers: &snapshot.headers,
            extensions: &snapshot.extensions,
        }
    }
}

/// A head that outlives its request, which moves on to the handler.
pub(crate) struct Snapshot {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

impl Snapshot {
    /// The head of a GET that is the same otherwise.
    pub(crate) fn into_get(self) -> Self {
        Snapshot { method: Method::GET, ..self }
    }
}

impl<B> From<&Request<B>> for Snapshot {
    fn from(request: &Request<B>) -> Self {
        let head = RequestHead::from(request);
        Snapshot {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            extensions: head.extensions.clone(),
        }
    }
}

#[cfg(feature = "axum")]
fn original(extensions: &Extensions) -> Option<&Uri> {
    extensions.get::<axum::extract::OriginalUri>().map(|original| &original.0)
}

#[cfg(not(feature = "axum"))]
fn original(_: &Extensions) -> Option<&Uri> {
    None
}
