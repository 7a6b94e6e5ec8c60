//! Configuration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use http::header::HeaderName;
use larder_cache::{Cache, Store};
use larder_core::{Clock, Key, Namespace, Ttl};
use tokio::sync::{Mutex, MutexGuard, watch};
use tower_layer::Layer;

use crate::carrier;
use crate::cookie::{Jar, MAX_PAIR, SessionCookie};
use crate::csrf::Origins;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Hook};
use crate::expiry::{Expiry, Refresh};
use crate::id::{Accepted, Entropy, Names};
use crate::seal::{Seal, Sealed};
use crate::service::Sessions;
use crate::users::Users;

/// Gives every request a [`Session`](crate::Session); see the [crate's documentation](crate).
#[derive(Clone)]
#[must_use]
pub struct SessionLayer {
    config: Config,
    common: Arc<Common>,
}

#[derive(Clone)]
pub(crate) struct Config {
    /// Where sessions are, or, if they are in their cookies, the lists of users' sessions. `None` where neither is.
    pub(crate) store: Option<Store>,
    pub(crate) namespace: Namespace,
    pub(crate) clock: Clock,
    /// What seals sessions in their cookies, if that is where they are.
    pub(crate) seal: Option<Seal>,
    pub(crate) origins: Origins,
    pub(crate) jar: Jar,
    /// The metadata of gRPC calls that brings their ids instead of the cookie.
    pub(crate) metadata: Option<HeaderName>,
    pub(crate) names: Names,
    /// Other secrets', whose names are looked up, too.
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) expiry: Expiry,
    pub(crate) refresh: Refresh,
    pub(crate) max_bytes: usize,
    pub(crate) tombstone: Duration,
    pub(crate) save_on_server_errors: bool,
    pub(crate) read_only_on_outage: bool,
    pub(crate) hook: Hook,
    pub(crate) entropy: Entropy,
    sealed: Option<Sealed>,
    secret: Vec<u8>,
    secrets: Vec<(Vec<u8>, Option<SystemTime>)>,
    evictable: bool,
}

impl Config {
    pub(crate) fn store(&self) -> Result<&Store> {
        let words = "sessions that live in their cookies have no list of users': say Sealed::revocable(&cache)";
        self.store.as_ref().ok_or_else(|| Error::saying(ErrorKind::Configuration, words))
    }
}

/// What all services made by one layer share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) common: Arc<Common>,
}

/// What clones of a layer share, however they are configured.
pub(crate) struct Common {
    // Whoever saves a session takes its turn, so that requests of one node do not spend their tries on each other.
    turns: [Mutex<()>; TURNS],
    running: watch::Sender<usize>,
    warned: AtomicBool,
}

const SPLITS: &str = "sessions cannot live in a store that another one stands in for (failover:), where \
     what was ended in the one would go on in the other; give them a cache of their own over one store";

const DELAYED: &str = "sessions cannot live in a store whose reads may be behind (read=replica), where what was \
     ended would go on for a while; give them a cache of their own that reads the primary";
const FORGETS: &str = "sessions cannot live in a store that keeps nothing (null://): nobody could ever be signed in; \
     give them memory:// while you develop";

/// Why sessions, and the lists of them, cannot be kept in a store.
pub(crate) fn unfit(store: &Store) -> Option<&'static str> {
    let abilities = store.abilities();
    if abilities.splits {
        Some(SPLITS)
    } else if !abilities.read_delay.is_zero() {
        Some(DELAYED)
    } else if abilities.forgets {
        Some(FORGETS)
    } else {
        None
    }
}

const TURNS: usize = 64;
const MAX_ACCEPTED: usize = 3;
// Room for the envelope and the key.
const OVERHEAD: u64 = 1024;

impl SessionLayer {
    /// Sessions in the cache's store, in a namespace of their own, which `clear` of the cache never touches.
    ///
    /// A store that evicts may end sessions before their time: visitors are signed out, and nothing worse. That is
    /// warned of; [`evictable`](SessionLayer::evictable) says that it is known. Sessions that share their room with
    /// cached pages are evicted by them, so give them a cache of their own:
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use larder_session::SessionLayer;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::connect("memory://?max_bytes=32MiB").await?;
    /// let sessions = SessionLayer::new(&cache).evictable();
    /// # let _ = sessions;
    /// # Ok::<(), larder_core::Error>(()) }).unwrap();
    /// ```
    ///
    /// A session lives in one store, or in a durable one with a cache before it (`writethrough:`); memory before a store
    /// (`tiered:`) keeps no copy of one.
    ///
    /// # Panics
    ///
    /// When the store [is in more than one place](larder_core::Abilities::splits), as one with a stand-in (`failover:`)
    /// is: a session that was ended in the one place would go on in the other. When its reads
    /// [may be behind](larder_core::Abilities::read_delay), as those from a replica are. And when it
    /// [keeps nothing](larder_core::Abilities::forgets) (`null://`).
    pub fn new(cache: &Cache) -> Self {
        if let Some(words) = unfit(cache.store()) {
            panic!("SessionLayer::new: {words}");
        }
        let store = own_namespace(cache.store());
        let clock = store.clock().clone();
        SessionLayer::with_place(Some(store), clock, None)
    }

    /// Sessions in their own cookies, sealed, and in no store: see [`Sealed`] for what that gives and what it takes.
    ///
    /// ```
    /// use larder_session::{KeyRing, Sealed, SessionLayer};
    ///
    /// # let key = std::array::from_fn(|at| at as u8);
    /// let sessions = SessionLayer::in_cookie(Sealed::encrypted(KeyRing::new(&key)))?;
    /// # let _ = sessions;
    /// # Ok::<(), larder_session::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) when a key cannot be one, or when the lists of users' sessions
    /// are where a session [cannot be](SessionLayer::new); the words say what to change.
    pub fn in_cookie(sealed: Sealed) -> Result<Self> {
        sealed.check()?;
        let users = sealed.users.as_ref().map(own_namespace);
        let clock = sealed.clock.clone();
        Ok(SessionLayer::with_place(users, clock, Some(sealed)).named())
    }

    fn with_place(store: Option<Store>, clock: Clock, sealed: Option<Sealed>) -> Self {
        let jar = SessionCookie::default().check().unwrap_or_else(|_| unreachable!("the default"));
        let room = match (&store, &sealed) {
            (_, Some(_)) => MAX_PAIR as u64,
            (Some(store), None) => store.abilities().max_bytes.unwrap_or(u64::MAX),
            (None, None) => unreachable!("sessions are somewhere"),
        };
        let room = if sealed.is_none() { room.saturating_sub(OVERHEAD) } else { room };
        let namespace = store.as_ref().map(|store| store.namespace().clone());
        let nowhere = || Namespace::new("sessions").unwrap_or_else(|_| unreachable!("letters"));
        let config = Config {
            namespace: namespace.unwrap_or_else(nowhere),
            clock,
            seal: None,
            origins: Origins::default(),
            sealed,
            names: Names::new(&[], &jar.name),
            accepted: Vec::new(),
            jar,
            metadata: None,
            expiry: Expiry::default(),
            refresh: Refresh::default(),
            max_bytes: room.min(64 << 10) as usize,
            tombstone: Duration::from_secs(300),
            save_on_server_errors: false,
            read_only_on_outage: false,
            hook: Hook::default(),
            entropy: Entropy::default(),
            secret: Vec::new(),
            secrets: Vec::new(),
            evictable: false,
            store,
        };
        let common = Common {
            turns: std::array::from_fn(|_| Mutex::default()),
            running: watch::Sender::new(0),
            warned: AtomicBool::new(false),
        };
        SessionLayer { config, common: Arc::new(common) }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sessions may be evicted, and their visitors signed out: that is known and wanted. Ends the warning.
    pub fn evictable(self) -> Self {
        self.with(|config| config.evictable = true)
    }

    /// The cookie: [`SessionCookie::default`] unless set. Layers whose cookies have different names share no session.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) when browsers would refuse such a cookie; the words say what
    /// to change.
    pub fn cookie(mut self, cookie: SessionCookie) -> Result<Self> {
        self.config.jar = cookie.check()?;
        Ok(self.named())
    }

    /// gRPC calls bring the id in that metadata entry, such as `session-id`, and get it there: native clients keep no
    /// cookies. The answer's initial metadata has the entry when the client is to keep another id from now on, and has
    /// it empty when the client is to forget the one that it has. Sessions are the same ones.
    ///
    /// A call is one whose content type is `application/grpc`. Its cookies are not looked at, so that a script cannot
    /// read from an answer what is in a cookie that is hidden from it. All other requests have the cookie, gRPC-Web's
    /// among them, as long as the session layer is outside of the one that translates them
    /// (`Server::builder().layer(sessions).layer(GrpcWebLayer::new())`).
    ///
    /// Put it outside of a layer that caches calls, too: what such a layer does not know as a credential its handlers do
    /// not see.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use larder_cache::Cache;
    /// use larder_session::{Session, SessionLayer};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let sessions = SessionLayer::new(&Cache::memory()).evictable().metadata("session-id")?;
    /// let service = sessions.layer(service_fn(async |call: Request<()>| {
    ///     let session = call.extensions().get::<Session>().expect("the layer is there");
    ///     let calls = session.update("calls", |calls: &mut u32| *calls += 1).await?;
    ///     Ok::<_, larder_session::Error>(Response::new(calls.to_string()))
    /// }));
    /// let call = || Request::post("/shop.Shop/Buy").header("content-type", "application/grpc");
    /// let first = service.clone().oneshot(call().body(())?).await?;
    /// let again = call().header("session-id", &first.headers()["session-id"]).body(())?;
    /// let answer = service.oneshot(again).await?;
    /// assert!(!answer.headers().contains_key("session-id"), "the client has it");
    /// assert_eq!(http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes(), "2");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) for a name that metadata cannot have or that has another
    /// meaning.
    pub fn metadata(mut self, name: &str) -> Result<Self> {
        self.config.metadata = Some(carrier::checked(name)?);
        Ok(self)
    }

    /// Keys the names under which sessions are stored, so that they mean nothing to whoever reads the store without
    /// it. All nodes need the same; another one ends all sessions, unless the one before is
    /// [accepted](SessionLayer::accept_secret). Ids have 256 random bits, so that nobody finds an id from its stored name
    /// without it either.
    pub fn secret(self, secret: &[u8; 32]) -> Self {
        self.with(|config| config.secret = secret.to_vec()).named()
    }

    /// Finds sessions under the names of another [secret](SessionLayer::secret), too, as long as it is in the
    /// configuration; `None` for those from before there was one. A session that is used moves to the present secret's
    /// name, once, keeping its id: nobody is signed out, and nothing that was ended comes back. Moving counts as keeping
    /// alive.
    ///
    /// Where several nodes share sessions, let all of them accept the new secret first, then make it the present one
    /// while the old one is accepted, and take the old one out when the longest idle time has passed:
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use larder_session::SessionLayer;
    ///
    /// # let (old, new) = ([7; 32], [8; 32]);
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::connect("memory://?max_bytes=32MiB").await?;
    /// let first = SessionLayer::new(&cache).evictable().secret(&old).accept_secret(&new)?;
    /// let second = SessionLayer::new(&cache).evictable().secret(&new).accept_secret(&old)?;
    /// let last = SessionLayer::new(&cache).evictable().secret(&new);
    /// # let _ = (first, second, last);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// While secrets are accepted, reading a session takes one round trip as before, with one key more for each of them;
    /// the request that moves it takes three more to save it, and seven more if it is a user's.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) when sessions live in their cookies (their keys are in a
    /// [`KeyRing`](crate::KeyRing)), or when there are more than three.
    pub fn accept_secret<'a>(self, secret: impl Into<Option<&'a [u8; 32]>>) -> Result<Self> {
        self.accept(secret.into(), None)
    }

    /// [Finds](SessionLayer::accept_secret) sessions under the names of another secret, too, until then.
    ///
    /// # Errors
    ///
    /// As [`accept_secret`](SessionLayer::accept_secret).
    pub fn accept_secret_until<'a>(
        self,
        secret: impl Into<Option<&'a [u8; 32]>>,
        end: SystemTime,
    ) -> Result<Self> {
        self.accept(secret.into(), Some(end))
    }

    fn accept(self, secret: Option<&[u8; 32]>, until: Option<SystemTime>) -> Result<Self> {
        let wrong = |words| Err(Error::saying(ErrorKind::Configuration, words));
        if self.config.sealed.is_some() {
            return wrong(
                "sessions that live in their cookies have a KeyRing: accept older keys there",
            );
        }
        if self.config.secrets.len() == MAX_ACCEPTED {
            return wrong(
                "every secret that is accepted makes looking up dearer: take the oldest one out",
            );
        }
        let secret = secret.map(|secret| secret.to_vec()).unwrap_or_default();
        Ok(self.with(|config| config.secrets.push((secret, until))).named())
    }

    fn named(self) -> Self {
        self.with(|config| {
            config.names = Names::new(&config.secret, &config.jar.name);
            // The present one is in use already, however it is spelled.
            let others = config.secrets.iter().filter(|(secret, _)| *secret != config.secret);
            config.accepted = others
                .map(|(secret, until)| Accepted {
                    names: Names::new(secret, &config.jar.name),
                    until: *until,
                })
                .collect();
            config.seal = config.sealed.as_ref().map(|sealed| sealed.seal(&config.jar.name));
        })
    }

    /// Refuses requests that change something (any method but GET, HEAD, OPTIONS and TRACE) and were sent by a page of
    /// another origin: 403, and the handler is not called. Browsers say where a request comes from in `Sec-Fetch-Site`,
    /// older ones in `Origin`; what says neither is no browser and passes.
    ///
    /// Behind a proxy that changes `Host`, name the site's own origin with [`trust_origin`](SessionLayer::trust_origin).
    ///
    /// With it, forms of the site's own need no [token](crate::Session::csrf_token) in any browser of the last years.
    pub fn same_origin_only(self) -> Self {
        self.with(|config| config.origins.checked = true)
    }

    /// The [same](SessionLayer::same_origin_only), but for pages of that origin, such as `https://pay.example.com`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](crate::ErrorKind::Configuration) when it is no origin.
    pub fn trust_origin(mut self, origin: &str) -> Result<Self> {
        self.config.origins.trust(origin)?;
        Ok(self)
    }

    /// The sessions of users, for those who are not that user: an administrator, a job, a changed password.
    pub fn users(&self) -> Users {
        Users(Arc::new(self.shared()))
    }

    /// How long sessions live: idle for two weeks and at most 90 days, unless set here or by
    /// [`Session::set_expiry`](crate::Session::set_expiry).
    pub fn expiry(self, expiry: Expiry) -> Self {
        self.with(|config| config.expiry = expiry)
    }

    /// What keeps a session alive: [changes](Refresh::OnChange) unless set.
    pub fn refresh(self, refresh: Refresh) -> Self {
        self.with(|config| config.refresh = refresh)
    }

    /// The bytes that a session's keys and values may have, encoded: 64 KiB unless set, or what the store takes if that
    /// is less. A session has at most 1024 keys, of at most 256 bytes each.
    pub fn max_bytes(self, bytes: usize) -> Self {
        self.with(|config| config.max_bytes = bytes)
    }

    /// How long it is remembered that an id was destroyed or rotated: 5 minutes unless set. Should be longer than the
    /// longest request, so that every one of them is told.
    pub fn tombstone(self, duration: Duration) -> Self {
        self.with(|config| config.tombstone = duration.clamp(Duration::from_secs(1), Ttl::MAX))
    }

    /// Saves what handlers changed although they answer with a server error (5xx). Unless set, nothing is saved then.
    pub fn save_on_server_errors(self) -> Self {
        self.with(|config| config.save_on_server_errors = true)
    }

    /// Serves routes to visitors whose session cannot be read, as if they had none, instead of answering 503. Changes
    /// fail all the same. For pages that look the same to everybody but for a corner.
    pub fn read_only_on_outage(self) -> Self {
        self.with(|config| config.read_only_on_outage = true)
    }

    /// Calls this for what is worth counting. It runs inside of requests, so it had better be quick.
    pub fn on_event(self, hook: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.with(|config| config.hook = Hook(Some(Arc::new(hook))))
    }

    /// Waits until no session is being saved. After the server has stopped taking requests: what handlers changed for
    /// clients that left is saved then, too.
    ///
    /// ```
    /// # use larder_cache::Cache;
    /// # use larder_session::SessionLayer;
    /// # use std::time::{Duration, SystemTime};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let sessions = SessionLayer::new(&Cache::memory()).evictable();
    /// // axum::serve(listener, app.layer(sessions.clone())).with_graceful_shutdown(signal).await?;
    /// tokio::time::timeout(Duration::from_secs(10), sessions.drained()).await?;
    /// # Ok::<(), tokio::time::error::Elapsed>(()) }).unwrap();
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops the waiting and nothing else.
    pub async fn drained(&self) {
        // The sender lives as long as `self`.
        let _ = self.common.running.subscribe().wait_for(|running| *running == 0).await;
    }

    pub(crate) fn shared(&self) -> Shared {
        Shared { config: self.config.clone(), common: self.common.clone() }
    }

    #[cfg(test)]
    pub(crate) fn entropy(self, entropy: Entropy) -> Self {
        self.with(|config| config.entropy = entropy)
    }
}

// `shop` has its sessions in `shop-sessions`. A name that is too long for that is cut, and told apart by a hash.
fn own_namespace(store: &Store) -> Store {
    let name = store.namespace().as_str();
    let cut = || {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!("{}-{}-sessions", &name[..14], &hash[..8])
    };
    let own = Namespace::new(&format!("{name}-sessions")).or_else(|_| Namespace::new(&cut()));
    store.in_namespace(own.unwrap_or_else(|_| unreachable!("it has allowed characters only")))
}

impl Shared {
    /// Waits until nobody else on this node saves that session.
    pub(crate) async fn turn(&self, key: &Key) -> MutexGuard<'_, ()> {
        // The key ends in a hash.
        let last = key.as_ref().as_bytes().last().copied().unwrap_or_default();
        self.common.turns[usize::from(last) % TURNS].lock().await
    }

    /// Says that a session is being saved, until it is dropped.
    pub(crate) fn running(&self) -> Running {
        self.common.running.send_modify(|running| *running += 1);
        Running(self.common.clone())
    }
}

pub(crate) struct Running(Arc<Common>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = Sessions<S>;

    fn layer(&self, inner: S) -> Sessions<S> {
        let Config { store, evictable, .. } = &self.config;
        if let Some(store) = store
            && store.abilities().evicts
            && !evictable
            && !self.common.warned.swap(true, Relaxed)
        {
            tracing::warn!(
                backend = store.backend_name(),
                "sessions are in a store that may evict them, and their visitors are signed out then; \
                 give it room enough, and say SessionLayer::evictable()"
            );
        }
        Sessions::new(inner, Arc::new(self.shared()))
    }
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("store", &self.config.store)
            .field("sealed", &self.config.sealed)
            .field("cookie", &self.config.jar)
            .field("expiry", &self.config.expiry)
            .field("refresh", &self.config.refresh)
            .finish_non_exhaustive()
    }
}
