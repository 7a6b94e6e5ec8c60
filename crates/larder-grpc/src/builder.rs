//! Configuration.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use larder_cache::{Cache, Passes, Store};
use larder_core::{Key, Result, Tag, Ttl};
use larder_http_rules::{CredentialRule, Policy};

use crate::layer::{CallHead, Choose, Config, GrpcCacheLayer, Partition, Rule, Shared};
use crate::methods::{Read, Write, check, wrong};

/// Says what is cached; made by [`GrpcCacheLayer::builder`].
///
/// Everything is checked in [`build`](GrpcCacheBuilder::build).
#[must_use]
pub struct GrpcCacheBuilder {
    store: Store,
    server: Option<String>,
    reads: Vec<Read>,
    chosen: Option<Choose>,
    writes: Vec<Write>,
    #[cfg(feature = "descriptor")]
    descriptors: Vec<Vec<u8>>,
    #[cfg(feature = "descriptor")]
    canonical: bool,
    ttl: Option<Duration>,
    default_ttl: Option<Duration>,
    tags: Vec<String>,
    tag_fields: Vec<HeaderName>,
    metadata: Vec<HeaderName>,
    seen: Vec<HeaderName>,
    credentials: Vec<HeaderName>,
    partition: Option<Partition>,
    public: bool,
    stale_while_revalidate: Duration,
    stale_on_unavailable: Duration,
    status_name: Option<Arc<str>>,
    max_message: usize,
    max_head: usize,
    wait: Duration,
    deadline: Duration,
    pass_for: Duration,
}

impl GrpcCacheBuilder {
    pub(crate) fn new(cache: &Cache, server: Option<&str>) -> Self {
        GrpcCacheBuilder {
            store: cache.store().clone(),
            server: server.map(str::to_owned),
            reads: Vec::new(),
            chosen: None,
            writes: Vec::new(),
            #[cfg(feature = "descriptor")]
            descriptors: Vec::new(),
            #[cfg(feature = "descriptor")]
            canonical: false,
            ttl: None,
            default_ttl: None,
            tags: Vec::new(),
            tag_fields: Vec::new(),
            metadata: Vec::new(),
            seen: Vec::new(),
            credentials: Vec::new(),
            partition: None,
            public: false,
            stale_while_revalidate: Duration::ZERO,
            stale_on_unavailable: Duration::ZERO,
            status_name: None,
            max_message: 4 * 1024 * 1024,
            max_head: 32 * 1024,
            wait: Duration::from_secs(3),
            deadline: Duration::from_secs(30),
            pass_for: Duration::from_secs(120),
        }
    }

    /// A unary method without side effects: a [`Read`], or only its full name, `/package.Service/Method`.
    pub fn read(mut self, method: impl Into<Read>) -> Self {
        self.reads.push(method.into());
        self
    }

    /// Several of them, with what is said for the whole layer.
    pub fn reads<M: Into<Read>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.reads.extend(methods.into_iter().map(Into::into));
        self
    }

    /// Also methods for which that says so, by their full name. It runs for each call of a method that is not named, and
    /// must be true of unary methods without side effects only.
    pub fn reads_if(mut self, choose: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.chosen = Some(Arc::new(choose));
        self
    }

    /// A method whose success drops tags.
    pub fn write(mut self, method: Write) -> Self {
        self.writes.push(method);
        self
    }

    /// Takes from a descriptor set (`protoc --descriptor_set_out --include_imports`, or what the build script made)
    /// which methods are unary and have the option `idempotency_level = NO_SIDE_EFFECTS`: those are cached. Methods that
    /// are named must be in it then, and must be unary.
    #[cfg(feature = "descriptor")]
    pub fn descriptor_set(mut self, encoded: impl Into<Vec<u8>>) -> Self {
        self.descriptors.push(encoded.into());
        self
    }

    /// Messages are compared as the descriptor set reads them: neither the order of fields nor fields that it does not
    /// know make a difference. Costs decoding each message. A message that does not decode, or that is compressed, is
    /// compared by its bytes.
    #[cfg(feature = "descriptor")]
    pub fn canonical(mut self) -> Self {
        self.canonical = true;
        self
    }

    /// The lifetime of answers whose method has none of its own. It comes before the answer's own `max-age`; an answer
    /// that restricts itself (`no-store`, `private`, `no-cache`, `max-age=0`) is obeyed all the same.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The lifetime of answers that neither state one nor are of a method that has one.
    pub fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = Some(ttl);
        self
    }

    /// Every stored answer also carries that tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Answers also carry the tags that they name in this metadata, apart by white space or commas. An answer with an
    /// unusable tag (more than 256 bytes) is not stored.
    pub fn tags_from(mut self, name: HeaderName) -> Self {
        self.tag_fields.push(name);
        self
    }

    /// That metadata is part of the key of every method; see [`Read::metadata`].
    pub fn metadata(mut self, name: HeaderName) -> Self {
        self.metadata.push(name);
        self
    }

    /// The handler sees that metadata, and it is no part of the key: it must not change an answer. A request id, for
    /// one. What is not declared is taken out of calls that fill the cache.
    pub fn pass_metadata(mut self, name: HeaderName) -> Self {
        self.seen.push(name);
        self
    }

    /// That metadata is a credential, besides those that are known.
    pub fn credential(mut self, name: HeaderName) -> Self {
        self.credentials.push(name);
        self
    }

    /// Keeps a cache for each identity that `identify` finds in a call, for instance in an extension that an outer layer
    /// made. With this, calls that carry credentials are stored and answered, each identity for itself; `None` is an
    /// identity too. It must tell apart everybody whose answers differ.
    pub fn partition_by(
        mut self,
        identify: impl Fn(CallHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.partition = Some(Arc::new(identify));
        self
    }

    /// An answer that says `public` or `s-maxage` in its `cache-control` is shared by callers with credentials, whoever
    /// they are. Off unless set: then calls with credentials pass the cache by, but for
    /// [partitions](GrpcCacheBuilder::partition_by) and credentials that are [keyed](Read::metadata).
    pub fn shared_when_public(mut self) -> Self {
        self.public = true;
        self
    }

    /// For so long after its end an answer is still given, while a new one is fetched behind. Off unless set, or unless
    /// the answer says it (`stale-while-revalidate`).
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// For so long after its end an answer stands in for a handler that is `UNAVAILABLE`, that fails without a status,
    /// or that takes longer than a fill may. Off unless set, or unless the answer says it (`stale-if-error`).
    pub fn stale_on_unavailable(mut self, window: Duration) -> Self {
        self.stale_on_unavailable = window;
        self
    }

    /// Tells every caller in the metadata `cache-status` (as RFC 9211), under that name, whether its answer came from
    /// here, and why not. Off unless set: it tells strangers too.
    pub fn cache_status(mut self, name: &str) -> Self {
        self.status_name = Some(name.into());
        self
    }

    /// The largest message that is read for a key or stored, 4 MiB unless set (as Tonic's limit). A larger one is passed
    /// on as it comes.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// The largest metadata that are stored, leading and trailing together, 32 KiB unless set.
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.max_head = bytes;
        self
    }

    /// How long a call waits for another one's fill before it asks the handler itself. 3 s unless set. A shorter
    /// `grpc-timeout` ends it earlier.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.min(Ttl::MAX);
        self
    }

    /// How long a fill may take, from the handler's call to the status, to be stored and waited for. 30 s unless set. No
    /// caller's `grpc-timeout` changes it: the handler sees this one instead.
    pub fn fill_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(Ttl::MAX);
        self
    }

    /// For how long a call whose answer could not be stored is not waited for (hit-for-miss). 2 minutes unless set.
    pub fn pass_for(mut self, hold: Duration) -> Self {
        self.pass_for = hold;
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`Configuration`](larder_core::ErrorKind::Configuration), in words that say what to do: nothing is declared, a
    /// name is not of the form `/package.Service/Method`, a method is declared twice or both as reading and as writing,
    /// or a tag is empty or longer than 256 bytes; with a descriptor set, that it cannot be read, or that a method is
    /// not in it or is a streaming one.
    pub fn build(mut self) -> Result<GrpcCacheLayer> {
        #[cfg(feature = "descriptor")]
        let pool = crate::descriptor::pool(&self.descriptors)?;
        #[cfg(feature = "descriptor")]
        if let Some(pool) = &pool {
            crate::descriptor::check(pool, &self.reads, &self.writes)?;
            let known: Vec<String> = self.reads.iter().map(|read| read.method.clone()).collect();
            let declared = crate::descriptor::without_side_effects(pool);
            self.reads.extend(declared.filter(|method| !known.contains(method)).map(Read::new));
        } else if self.canonical {
            return Err(wrong(
                "canonical() needs a descriptor_set that says how messages are read",
            ));
        }
        if self.reads.is_empty() && self.chosen.is_none() && self.writes.is_empty() {
            return Err(wrong(
                "no method is declared: name those without side effects with read(\"/package.Service/Method\")",
            ));
        }
        let mut reads = HashMap::default();
        for read in std::mem::take(&mut self.reads) {
            check(&read.method)?;
            let rule = self.rule(&read)?;
            #[cfg(feature = "descriptor")]
            let rule = Rule {
                input: pool
                    .as_ref()
                    .filter(|_| self.canonical)
                    .and_then(|pool| crate::descriptor::input(pool, &read.method)),
                ..rule
            };
            if reads.insert(read.method.as_str().into(), Arc::new(rule)).is_some() {
                return Err(wrong(format!("{} is declared twice", read.method)));
            }
        }
        let mut writes = HashMap::default();
        for write in &self.writes {
            check(&write.method)?;
            if reads.contains_key(write.method.as_str()) {
                let words = "is declared as free of side effects and as a write: it is one of them";
                return Err(wrong(format!("{} {words}", write.method)));
            }
            let tags = tags(&write.method, &write.drops)?;
            if writes.insert(write.method.as_str().into(), tags).is_some() {
                return Err(wrong(format!("{} is declared twice", write.method)));
            }
        }
        let every = Arc::new(self.rule(&Read::new(""))?);
        let mut policy = Policy::application();
        policy.extra_credentials = std::mem::take(&mut self.credentials);
        let room = match self.server.as_deref() {
            None => vec!["g", "s"],
            Some("") => return Err(wrong("a client's layer needs the name of its server")),
            Some(server) => vec!["g", "c", server],
        };
        let config = Config {
            room: Key::new(self.store.namespace(), room)?,
            client: self.server.is_some(),
            store: self.store,
            policy,
            reads,
            chosen: self.chosen.map(|choose| (choose, every)),
            writes,
            partition: self.partition,
            public: self.public,
            seen: self.seen,
            default_ttl: self.default_ttl,
            tag_fields: self.tag_fields,
            status_name: self.status_name,
            max_message: self.max_message,
            max_head: self.max_head,
            wait: self.wait,
            deadline: self.deadline,
            pass_for: self.pass_for,
        };
        let shared = Shared { config, passes: Passes::default(), resting: Passes::default() };
        Ok(GrpcCacheLayer(Arc::new(shared)))
    }

    // What holds for a method: its own, or the layer's.
    fn rule(&self, read: &Read) -> Result<Rule> {
        let mut keyed = [&self.metadata[..], &read.metadata].concat();
        keyed.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        keyed.dedup();
        let credentials = CredentialRule {
            partitioned: self.partition.is_some(),
            covered_headers: keyed.clone(),
            ..CredentialRule::default()
        };
        let window = |own: Option<Duration>, all| own.unwrap_or(all);
        Ok(Rule {
            ttl: read.ttl.or(self.ttl),
            tags: tags(&read.method, self.tags.iter().chain(&read.tags))?,
            keyed,
            credentials,
            stale_while_revalidate: window(
                read.stale_while_revalidate,
                self.stale_while_revalidate,
            ),
            stale_on_unavailable: window(read.stale_on_unavailable, self.stale_on_unavailable),
            #[cfg(feature = "descriptor")]
            input: None,
        })
    }
}

fn tags<'a>(method: &str, names: impl IntoIterator<Item = &'a String>) -> Result<Vec<Tag>> {
    let tag = |name: &'a String| {
        Tag::new(name)
            .map_err(|error| wrong(format!("a tag of {method:?} cannot be used: {error}")))
    };
    names.into_iter().map(tag).collect()
}

impl fmt::Debug for GrpcCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcCacheBuilder")
            .field("store", &self.store)
            .field("reads", &self.reads)
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_fails_while_configuring_and_says_what_to_do() {
        let builder = || GrpcCacheLayer::builder(&Cache::memory());
        let words = |builder: GrpcCacheBuilder| {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), larder_core::ErrorKind::Configuration);
            error.to_string()
        };
        assert!(words(builder()).contains("read(\"/package.Service/Method\")"));
        assert!(words(builder().read("Get")).contains("full name"));
        assert!(words(builder().write(Write::new("/Get"))).contains("full name"));
        let twice = builder().reads(["/a.B/C", "/a.B/C"]);
        assert!(words(twice).contains("declared twice"));
        let both = builder().read("/a.B/C").write(Write::new("/a.B/C"));
        assert!(words(both).contains("one of them"));
        assert!(words(builder().read(Read::new("/a.B/C").tag(""))).contains("a tag of \"/a.B/C\""));
        let nameless = GrpcCacheLayer::client(&Cache::memory(), "").read("/a.B/C");
        assert!(words(nameless).contains("name of its server"));
        let long = Write::new("/a.B/C").drops("x".repeat(257));
        assert!(words(builder().write(long)).contains("tag"));
        let _ = builder().reads_if(|method| method.starts_with("/a.B/Get")).build().unwrap();
    }
}
