//! How one value is cached.

use std::time::Duration;

use larder_core::{Moment, Result, Tag, Times, Ttl};

/// For how long, under which tags and with which limits a value is cached.
///
/// ```
/// use larder_cache::Options;
/// use std::time::Duration;
///
/// let options = Options::ttl(Duration::from_secs(300)).tag("products").tag("featured");
///
/// // A source that is slow or down at times: the last good value bridges up to an hour.
/// let bridged = Options::ttl(Duration::from_secs(60))
///     .stale_for(Duration::from_secs(3600))
///     .soft_timeout(Duration::from_millis(100));
/// # let _ = (options, bridged);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) ttl: Ttl,
    pub(crate) tags: Vec<String>,
    pub(crate) wait: Duration,
    pub(crate) deadline: Duration,
    pub(crate) stale_for: Duration,
    pub(crate) throttle: Duration,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) refresh_after: Option<Duration>,
    pub(crate) early_refresh: f64,
    pub(crate) jitter: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ttl: Ttl::Default,
            tags: Vec::new(),
            wait: Duration::from_secs(3),
            deadline: Duration::from_secs(30),
            stale_for: Duration::ZERO,
            throttle: Duration::from_secs(30),
            soft_timeout: None,
            hard_timeout: None,
            refresh_after: None,
            early_refresh: 0.0,
            jitter: 0.0,
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

    /// How long a value is kept beyond its lifetime, for [`get_or_compute`](crate::Cache::get_or_compute) alone: when
    /// a new one cannot be computed, callers who also say `stale_for` get the last good one. Not at all unless set.
    ///
    /// To every other verb a stale value is absent. One that was invalidated is never used, however fresh; one that was
    /// [expired](crate::Cache::expire_tag) is stale from then on.
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.stale_for = stale_for;
        self
    }

    /// After a failed computation the stale value counts as fresh for so long, and nothing is computed meanwhile. It
    /// does not live longer for it. 30 s unless set.
    pub fn throttle(mut self, throttle: Duration) -> Self {
        self.throttle = throttle;
        self
    }

    /// How long a caller waits for a new value while there is a stale one; then it takes that, and the computation goes
    /// on in the background. Without a stale value it means nothing. As long as it takes unless set.
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = Some(timeout);
        self
    }

    /// How long a caller waits in all; then it gets an [error](crate::Failure::is_timeout), or the stale value if there
    /// is one. The computation goes on in the background, and what comes of it is stored. As long as it takes unless
    /// set.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = Some(timeout);
        self
    }

    /// From that age on, a hit starts a new computation in the background, one at a time, and does not wait for it.
    /// Never unless set.
    pub fn refresh_after(mut self, age: Duration) -> Self {
        self.refresh_after = Some(age);
        self
    }

    /// Has a hit near its end start a new computation in the background with a probability that grows towards the end,
    /// the earlier the longer the last computation took: so a value that is read often is replaced before it ends, and
    /// rarely by two nodes at once. `1.0` is a good choice; more is earlier, infinity at every hit; none unless set.
    ///
    /// After Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention" (VLDB 2015). It does
    /// nothing for integers, which are kept plain and do not know what they cost.
    pub fn early_refresh(mut self, beta: f64) -> Self {
        self.early_refresh = if beta.is_nan() { 0.0 } else { beta.max(0.0) };
        self
    }

    /// Shortens the lifetime of each computed value by a random part of that share, so that what was computed together
    /// does not end together. At most a tenth, and none unless set.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = if share.is_nan() { 0.0 } else { share.clamp(0.0, 0.1) };
        self
    }

    pub(crate) fn checked_tags(&self) -> Result<Vec<Tag>> {
        self.tags.iter().map(|tag| Tag::new(tag)).collect()
    }

    /// The tags as an entry carries them: what is kept as a stale one outlasts being expired.
    pub(crate) fn carried(&self, tags: &[Tag]) -> Vec<Tag> {
        match self.stale_for.is_zero() {
            true => tags.to_vec(),
            false => tags.iter().map(Tag::lasting).collect(),
        }
    }

    /// The tags of which an entry that carries these depends in one way or another.
    pub(crate) fn watched(&self, tags: &[Tag]) -> Vec<Tag> {
        match self.stale_for.is_zero() {
            true => tags.to_vec(),
            false => Tag::with_lasting(tags),
        }
    }

    /// Whether a fresh value of these times is to be computed anew while it is used. `cost` tells how long the last
    /// computation took.
    pub(crate) fn refreshes(
        &self,
        times: Option<&Times>,
        now: Moment,
        cost: impl FnOnce() -> Duration,
    ) -> bool {
        let Some(times) = times else { return false };
        if self.refresh_after.is_some_and(|after| now.since(times.written) >= after) {
            return true;
        }
        // Asked first: hardly anybody wants it, and drawing a number costs more than the rest of a hit.
        if self.early_refresh == 0.0 {
            return false;
        }
        let Some(end) = times.fresh_until.or(times.expires) else { return false };
        if self.early_refresh.is_infinite() {
            return true;
        }
        let drawn = -(1.0 - rand::random::<f64>()).ln();
        cost().as_secs_f64() * self.early_refresh * drawn >= end.since(now).as_secs_f64()
    }

    /// For how long a value with that lifetime is kept, and for how long it is fresh: `None` for all of it.
    pub(crate) fn kept(&self, ttl: Ttl, default: Ttl) -> (Ttl, Option<Duration>) {
        // What is refreshed stays until its successor can take its place: those who miss it meanwhile wait for that one.
        let refreshes = self.refresh_after.is_some() || self.early_refresh > 0.0;
        let refreshing = if refreshes { self.deadline } else { Duration::ZERO };
        let beyond = self.stale_for.max(refreshing);
        match ttl.resolve(default) {
            Some(fresh) if !beyond.is_zero() && !fresh.is_zero() => {
                (Ttl::For(fresh.saturating_add(beyond)), Some(fresh))
            }
            _ => (ttl, None),
        }
    }

    /// A computed value's lifetime, jitter taken off.
    pub(crate) fn jittered(&self, ttl: Ttl, default: Ttl) -> Ttl {
        match ttl.resolve(default) {
            Some(ttl) if self.jitter > 0.0 => {
                Ttl::For(ttl.mul_f64(1.0 - self.jitter * rand::random::<f64>()))
            }
            _ => ttl,
        }
    }
}
