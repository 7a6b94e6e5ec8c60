//! How one value is cached.

use std::time::Duration;

use larder_core::{Result, Tag, Ttl};

/// For how long, under which tags and with which limits a value is cached.
///
/// ```
/// use larder_cache::Options;
/// use std::time::Duration;
///
/// let options = Options::ttl(Duration::from_secs(300)).tag("products").tag("featured");
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) ttl: Ttl,
    pub(crate) tags: Vec<String>,
    pub(crate) wait: Duration,
    pub(crate) deadline: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ttl: Ttl::Default,
            tags: Vec::new(),
            wait: Duration::from_secs(3),
            deadline: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// The cache's default lifetime and no tags.
    pub fn new() -> Self {
        Options::default()
    }

    /// With that lifetime.
    pub fn ttl(ttl: impl Into<Ttl>) -> Self {
        Options { ttl: ttl.into(), ..Options::default() }
    }

    /// Also under that tag. An empty tag, or one of more than 256 bytes, is an error when the options are used.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Also under these tags.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// How long a caller waits for another caller's computation before it computes for itself. 3 s unless set.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long a computation may take; then it is given up and its callers get an error. 30 s unless set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn checked_tags(&self) -> Result<Vec<Tag>> {
        self.tags.iter().map(|tag| Tag::new(tag)).collect()
    }
}
