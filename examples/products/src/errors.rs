//! What clients are told when something is wrong: `{"error": "…", "hint": "…"}` with a fitting status.

use std::fmt;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer that says what is wrong, and what to do instead.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The response's status.
    pub status: StatusCode,
    /// What is wrong.
    pub error: String,
    /// What to do instead.
    pub hint: String,
}

impl Problem {
    /// The request is wrong in itself: 400.
    pub fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem { status: StatusCode::BAD_REQUEST, error: error.into(), hint: hint.into() }
    }

    /// There is no such thing: 404.
    pub fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem { status: StatusCode::NOT_FOUND, error: error.into(), hint: hint.into() }
    }

    /// The request is readable, and what it asks for makes no sense: 422.
    pub fn invalid(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Problem { status: StatusCode::UNPROCESSABLE_ENTITY, error: error.into(), hint: hint.into() }
    }

    /// Our fault: 500. What happened goes to the log, not to the client.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!("{cause}");
        Problem {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            error: "the server failed".to_owned(),
            hint: "try again; if it persists, the server's log says more".to_owned(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
            hint: String,
        }
        (self.status, Json(Body { error: self.error, hint: self.hint })).into_response()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Problem {}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Problem::internal(format_args!("the database failed: {error}"))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let hint = match &rejection {
            JsonRejection::MissingJsonContentType(_) => {
                "send the header Content-Type: application/json"
            }
            JsonRejection::JsonSyntaxError(_) => "the body must be one JSON object",
            _ => {
                "a product is {\"name\": text, \"description\": text, \"category\": text, \
                 \"price_cents\": number, \"stock\": number}"
            }
        };
        Problem { status: rejection.status(), error: rejection.body_text(), hint: hint.to_owned() }
    }
}

/// For paths that are not there.
pub async fn unknown_path(uri: Uri) -> Problem {
    Problem::not_found(
        format!("there is nothing at {}", uri.path()),
        "there are /, /products/{id}, /api/products/, /api/products/{id}, /api/products/featured and /api/search?q=…",
    )
}

/// For methods that a path does not know. The header `Allow` names those that it does.
pub async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem {
        status: StatusCode::METHOD_NOT_ALLOWED,
        error: format!("{method} is not allowed on {}", uri.path()),
        hint: "the header Allow names the methods that are".to_owned(),
    }
}
