//! What is stored of a call.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::Body;
use larder_core::{Encoded, Live, Result as StoreResult};

use crate::body::ResponseBody;
use crate::wire;

/// How long an answer may be used, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) lifetime: Duration,
    /// How old it was when it came: another cache gave it.
    pub(crate) age: Duration,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_on_unavailable: Duration,
    /// The answer says `public` or `s-maxage`.
    pub(crate) public: bool,
}

impl Terms {
    /// How long it is kept, counted from when it is stored.
    pub(crate) fn kept_for(&self) -> Duration {
        let stale = self.stale_while_revalidate.max(self.stale_on_unavailable);
        self.lifetime.saturating_add(stale).saturating_sub(self.age)
    }
}

/// A whole answer: the head, one message with its prefix, the trailers.
pub(crate) struct Call {
    pub(crate) headers: HeaderMap,
    pub(crate) message: Bytes,
    pub(crate) trailers: HeaderMap,
    pub(crate) terms: Terms,
    /// Other caches are told by it how long it is fresh, so that its age must be told too.
    pub(crate) tells_age: bool,
}

impl Call {
    pub(crate) fn new(
        mut headers: HeaderMap,
        message: Bytes,
        trailers: HeaderMap,
        terms: Terms,
    ) -> Self {
        headers.remove(AGE);
        let tells_age = headers.contains_key(CACHE_CONTROL);
        Call { headers, message, trailers, terms, tells_age }
    }

    /// The answer, so long after it was stored.
    pub(crate) fn respond<B: Body>(
        self: &Arc<Self>,
        resident: Duration,
    ) -> Response<ResponseBody<B>> {
        let mut response = Response::new(ResponseBody::stored(self.clone()));
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = self.headers.clone();
        if self.tells_age {
            let age = self.terms.age.saturating_add(resident).as_secs();
            response.headers_mut().insert(AGE, HeaderValue::from(age));
        }
        response
    }
}

impl Live for Call {
    fn encode(&self) -> StoreResult<Encoded> {
        Ok(wire::encode(self))
    }

    fn weight(&self) -> usize {
        let fields = |map: &HeaderMap| {
            let text: usize = map.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
            112 * map.len() + text
        };
        size_of::<Self>() + self.message.len() + fields(&self.headers) + fields(&self.trailers)
    }
}
