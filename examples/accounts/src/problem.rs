//! What can go wrong, as pages.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use larder::session::Error;

/// Why there is no page.
#[derive(Debug)]
pub enum Problem {
    /// The session cannot be used; its error knows the status.
    Session(Error),
    /// The program or its database got something wrong. The words are for the log.
    Internal(&'static str),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Session(error)
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(?error, "the database failed");
        Problem::Internal("the database failed")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match &self {
            Problem::Session(error) => error.status(),
            Problem::Internal(words) => {
                tracing::error!(words, "a request failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let words = match status {
            StatusCode::FORBIDDEN => {
                "This form is from an older page, or from another site. Go back, load the page again, and send it again."
            }
            StatusCode::CONFLICT => {
                "Something else in this browser was quicker. Load the page again."
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                "We cannot look up who you are just now. Try again in a moment."
            }
            _ => "Something went wrong, and it was not you.",
        };
        page(status, words)
    }
}

/// What the session layer answers instead of a handler has no body, and browsers show a page of their own then.
pub async fn shown(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let Some(error) = parts.extensions.get::<Error>().cloned() else {
        return Response::from_parts(parts, body);
    };
    let mut shown = Problem::from(error).into_response();
    shown.headers_mut().extend(parts.headers);
    shown
}

/// A page that says one thing.
pub fn page(status: StatusCode, words: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{status}</title>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <link rel=stylesheet href=/style.css>\
         <header><a class=brand href=/>Tea &amp; Larder</a></header>\
         <main><h1>{status}</h1><p>{words}</p>\
         <p><a class=button href=/>Home</a></p></main></html>"
    );
    (status, Html(html)).into_response()
}
