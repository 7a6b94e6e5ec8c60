//! Configuration.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use larder_core::Clock;
use larder_http_rules::conditional::Validators;
use tower_layer::Layer;

use super::service::Conditional;
use crate::RequestHead;

/// Makes entity tags, and answers conditional requests; see the [module's documentation](super).
#[derive(Clone)]
#[must_use]
pub struct ConditionalLayer {
    config: Arc<Config>,
}

type Find = Arc<dyn Fn(RequestHead<'_>) -> Finding + Send + Sync>;
type Finding = Pin<Box<dyn Future<Output = Option<Current>> + Send>>;

#[derive(Clone)]
pub(super) struct Config {
    pub(super) tags: Tags,
    pub(super) max_body: u64,
    pub(super) find: Option<Find>,
    pub(super) clock: Clock,
}

/// Which entity tags are made from bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    Weak,
    Strong,
    None,
}

/// The validators of what a request is about, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    pub(super) etag: Option<HeaderValue>,
    pub(super) modified: Option<SystemTime>,
    pub(super) absent: bool,
}

impl Current {
    /// A strong entity tag: quotes go around it. What cannot be in one (quotes, control characters, spaces) is replaced
    /// by its number.
    ///
    /// ```
    /// use larder_http::Current;
    ///
    /// assert_ne!(Current::etag("a b"), Current::etag("a%b"));
    /// ```
    pub fn etag(version: impl fmt::Display) -> Self {
        let mut tag = String::from("\"");
        for character in version.to_string().chars() {
            match character {
                '%' | '"' | '\0'..=' ' | '\x7f'.. => {
                    let number = u32::from(character);
                    tag.push_str(&format!("%{number:x};"));
                }
                plain => tag.push(plain),
            }
        }
        tag.push('"');
        Current { etag: HeaderValue::try_from(tag).ok(), ..Current::default() }
    }

    /// The same, weak: equal for what means the same, though its bytes may differ.
    pub fn weak_etag(version: impl fmt::Display) -> Self {
        let strong = Current::etag(version).etag;
        let weak =
            strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok());
        Current { etag: weak, ..Current::default() }
    }

    /// When it was last modified; whole seconds count.
    pub fn modified(at: SystemTime) -> Self {
        Current { modified: Some(at), ..Current::default() }
    }

    /// This, and when it was last modified.
    #[must_use]
    pub fn and_modified(mut self, at: SystemTime) -> Self {
        self.modified = Some(at);
        self
    }

    /// There is nothing: `If-Match` fails, and `If-None-Match: *` holds.
    pub fn absent() -> Self {
        Current { absent: true, ..Current::default() }
    }

    pub(super) fn validators(&self) -> Option<Validators<'_>> {
        let validators = Validators { etag: self.etag.as_ref(), last_modified: self.modified };
        (!self.absent).then_some(validators)
    }
}

impl ConditionalLayer {
    /// Weak entity tags for bodies of up to 1 MiB.
    pub fn new() -> Self {
        let (tags, max_body, clock) = (Tags::Weak, 1024 * 1024, Clock::system());
        ConditionalLayer { config: Arc::new(Config { tags, max_body, find: None, clock }) }
    }

    fn change(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }

    /// Strong entity tags: equal tags, equal bytes. Only where no layer outside changes bodies, by compressing them for
    /// instance.
    pub fn strong(self) -> Self {
        self.change(|config| config.tags = Tags::Strong)
    }

    /// No entity tags from bodies: only what handlers and [`with_validators`](ConditionalLayer::with_validators) say.
    pub fn without_etags(self) -> Self {
        self.change(|config| config.tags = Tags::None)
    }

    /// The largest body that is read for its tag, 1 MiB unless set. Larger ones stream.
    pub fn max_body_bytes(self, bytes: u64) -> Self {
        self.change(|config| config.max_body = bytes)
    }

    /// Asks for the validators before the handler runs; `None` where they are not known. With them the handler is not
    /// called for what the client has already (304), nor for a change that was meant for another state (412). Answers to
    /// GET, HEAD and QUERY get them, unless the handler set its own.
    ///
    /// What it looks up must be what the handler would: an `If-Match` is only as good as that. Between the two somebody
    /// else may change it, so a handler that must not lose a change compares again when it writes.
    pub fn with_validators<F>(
        self,
        find: impl Fn(RequestHead<'_>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Option<Current>> + Send + 'static,
    {
        let find = move |head: RequestHead<'_>| -> Finding { Box::pin(find(head)) };
        self.change(|config| config.find = Some(Arc::new(find)))
    }

    /// The clock, for tests: two-digit years are told by it.
    pub fn clock(self, clock: Clock) -> Self {
        self.change(|config| config.clock = clock)
    }
}

impl Default for ConditionalLayer {
    fn default() -> Self {
        ConditionalLayer::new()
    }
}

impl<S> Layer<S> for ConditionalLayer {
    type Service = Conditional<S>;

    fn layer(&self, inner: S) -> Conditional<S> {
        Conditional::new(inner, self.config.clone())
    }
}

impl fmt::Debug for ConditionalLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConditionalLayer")
            .field("tags", &self.config.tags)
            .field("max_body", &self.config.max_body)
            .finish_non_exhaustive()
    }
}
