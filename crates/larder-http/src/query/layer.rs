//! Configuration.

use std::time::Duration;

use tower_layer::Layer;

use super::service::Queried;

/// Lets QUERY requests be cached by their content; see the [module's documentation](super).
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct QueryLayer {
    config: Config,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) max_content: usize,
    pub(super) read_within: Duration,
}

impl QueryLayer {
    /// Reads contents of up to 64 KiB, for up to 10 s.
    pub fn new() -> Self {
        let (max_content, read_within) = (64 * 1024, Duration::from_secs(10));
        QueryLayer { config: Config { max_content, read_within } }
    }

    /// The largest content that is read, 64 KiB unless set. Each request that is read holds so much in memory at most. A
    /// larger one goes on unread, and is not cached.
    pub fn max_content_bytes(mut self, bytes: usize) -> Self {
        self.config.max_content = bytes;
        self
    }

    /// How long a content may take to come, 10 s unless set. One that takes longer goes on as it comes, and is not
    /// cached.
    pub fn read_within(mut self, time: Duration) -> Self {
        self.config.read_within = time;
        self
    }
}

impl Default for QueryLayer {
    fn default() -> Self {
        QueryLayer::new()
    }
}

impl<S> Layer<S> for QueryLayer {
    type Service = Queried<S>;

    fn layer(&self, inner: S) -> Queried<S> {
        Queried::new(inner, self.config)
    }
}
