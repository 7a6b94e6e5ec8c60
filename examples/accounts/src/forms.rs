//! Forms, and the token that each of them carries.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use larder::session::Session;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, page};

/// The session, and a form that was made for it: nobody gets at the fields without the token having been looked at.
#[derive(Debug)]
pub struct Checked<T>(pub Session, pub T);

#[derive(Deserialize)]
struct Tokened<T> {
    #[serde(default)]
    token: String,
    #[serde(flatten)]
    fields: T,
}

/// A form without fields.
#[derive(Debug, Deserialize)]
pub struct Nothing {}

impl<S, T> FromRequest<S> for Checked<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let session = Session::from_request_parts(&mut parts, state).await;
        let session = session.map_err(IntoResponse::into_response)?;
        let request = Request::from_parts(parts, body);
        let form: Result<Form<Tokened<T>>, FormRejection> =
            Form::from_request(request, state).await;
        let Form(form) = form.map_err(|rejection| {
            let words = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "That is more than fits into this form.",
                _ => "This form is not one of ours, or something in it is missing.",
            };
            page(rejection.status(), words)
        })?;
        let verified = session.verify_csrf(&form.token).await;
        verified.map_err(|error| Problem::from(error).into_response())?;
        Ok(Checked(session, form.fields))
    }
}
