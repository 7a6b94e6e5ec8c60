//! HEAD that nothing stored answers: the handler's response fills nothing, and may tell about what is stored for GET
//! (RFC 9111 §4.3.5).

use std::pin::pin;

use http::{Request, Response, StatusCode};
use http_body::Body;
use larder_http_rules::validation::{self, Shown};
use tower_service::Service;

use super::body::ResponseBody;
use super::commit::{Commit, Permit};
use super::fill::Fill;
use super::miss::{There, alone};
use super::validate::Renewed;

impl Fill {
    /// Asks the handler. What is held goes if the response contradicts it, and is brought up to date if the two agree:
    /// under the conditions of a fill, so that what was invalidated meanwhile stays so.
    pub(super) async fn head<S, ReqB, ResB>(
        self,
        mut inner: S,
        request: Request<ReqB>,
    ) -> Result<Response<ResponseBody<ResB>>, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<ResB>>,
        ResB: Body,
    {
        let (Some(held), There::Page(revision, written, entry, page)) = (&self.held, &self.there)
        else {
            return alone(&self.shared, &mut inner, request, &self.told).await;
        };
        let config = &self.shared.config;
        let stored = &held.variant.response;
        let whole = held.whole && stored.part.is_none() && stored.status == StatusCode::OK;
        // Read before the handler is asked, as for every fill.
        let built_at = match whole && stored.terms.has_validator {
            true => config.store.marks(&config.watched).await.ok().map(|marks| marks.sequence),
            false => None,
        };
        let sent = self.wall();
        let call = pin!(alone(&self.shared, &mut inner, request, &self.told));
        let (response, read) = larder_cache::collect(&config.store, call).await;
        let response = response?;
        if response.status() != StatusCode::OK {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        match (validation::shown(&stored.headers, stored.length(), &parts.headers), built_at) {
            (Shown::Other, _) => {
                config.store.detach(&self.key);
                // If this fails, the next validation finds out.
                let _ = config.store.remove(&self.key, Some(*revision)).await;
            }
            (Shown::Same, Some(built_at)) => {
                let permit = Permit::Page(*revision, *written, entry.clone(), page.clone());
                let commit = Commit { built_at, permit, admitted: true, head_at: self.now() };
                let confirms = validation::Confirmed::Yes;
                match self.renewed(held, &mut parts, confirms, sent, &read) {
                    Ok(Ok(Renewed { variant, tags, .. })) => {
                        if self.shared.has_all(&self.key, &variant).await {
                            commit.run(&self.shared, &self.key, variant, tags, None).await;
                        }
                    }
                    // What is stored stays as it is.
                    Ok(Err(_)) => {}
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            _ => {}
        }
        Ok(Response::from_parts(parts, body))
    }
}
