//! For Axum: `Session` as an extractor, `Error` as a response.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;

use crate::error::{Error, ErrorKind};
use crate::session::Session;

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        // Taking it out of the request reads nothing.
        parts.extensions.get().cloned().ok_or_else(|| Error::new(ErrorKind::NoLayer))
    }
}

impl IntoResponse for Error {
    /// The status that fits, and no body: what went wrong is the log's business.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
