//! What the route says about queries, before anybody looks at one.

use http::uri::PathAndQuery;
use http::{Request, Uri};
use larder_http_rules::query::QueryRule;

/// Takes out of a request's target what does not matter, for the key and for the handler alike.
pub(super) fn rewrite<B>(rule: &QueryRule, request: &mut Request<B>) {
    if let Some(uri) = rewritten(rule, request.uri()) {
        *request.uri_mut() = uri;
    }
    #[cfg(feature = "axum")]
    if let Some(original) = request.extensions_mut().get_mut::<axum::extract::OriginalUri>()
        && let Some(uri) = rewritten(rule, &original.0)
    {
        original.0 = uri;
    }
}

// `None` where nothing changes.
fn rewritten(rule: &QueryRule, uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let left = rule.apply(query);
    if left.as_deref() == Some(query) {
        return None;
    }
    let target = match left {
        Some(left) => format!("{}?{left}", uri.path()),
        None => uri.path().to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    // Made of pieces of a valid one.
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}
