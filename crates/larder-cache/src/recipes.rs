//! The classic patterns, each as a program that runs.
//!
//! # Cache-aside
//!
//! Read from the cache, or else from the source, and keep it. That is [`get_or_compute`](crate::Cache::get_or_compute):
//! one computation however many ask, and nothing old is kept when the value is dropped meanwhile.
//!
//! ```
//! use larder_cache::{Cache, Options};
//! use std::time::Duration;
//! # #[derive(Clone)] struct Db;
//! # impl Db { async fn product(&self, id: u64) -> std::io::Result<String> { Ok(format!("Product {id}")) } }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let db = Db;
//! let cache = Cache::memory();
//! let id = 7_u64;
//! let options = Options::ttl(Duration::from_secs(300)).tag(format!("product:{id}"));
//! let product = cache.get_or_compute(("product", id), options, move || async move { db.product(id).await }).await?;
//! assert_eq!(*product, "Product 7");
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Write-through
//!
//! Write to the database first, then to the cache. Whoever computes the value at the same time does not overwrite what is
//! set here. If the cache cannot be reached, `delete` says so, and the key reads as empty on this node until the removal is
//! confirmed; with [`strict`](crate::Cache::strict) `set` says so too.
//!
//! ```
//! use larder_cache::Cache;
//! # struct Db; impl Db { async fn save(&self, _: u64, _: &str) -> std::io::Result<()> { Ok(()) } }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let db = Db;
//! let cache = Cache::memory();
//! db.save(7, "Lamp").await?;
//! if cache.strict().set(("product", 7), "Lamp".to_owned()).await.is_err() {
//!     cache.delete(("product", 7)).await?;
//! }
//! assert_eq!(*cache.get::<String>(("product", 7)).await?.unwrap(), "Lamp");
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! Where others cache something that is made of the product, drop what shows it instead: its tag, in one call.
//!
//! # Versioned keys
//!
//! The form of a value changes with a release, and old and new nodes run side by side for a while: each reads and writes
//! its own. For what is derived from a row, the row's own version makes a key that never has to be dropped.
//!
//! ```
//! use larder_cache::Cache;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::memory();
//! let (old, new) = (cache.version(1), cache.version(2));
//! old.set(("user", 7), "Ada".to_owned()).await?;
//! new.set(("user", 7), ("Ada".to_owned(), "Lovelace".to_owned())).await?;
//! assert_eq!(*old.get::<String>(("user", 7)).await?.unwrap(), "Ada");
//!
//! let (id, edited) = (7, 1_767_225_600_u64);
//! cache.set(("summary", id, edited), "…".to_owned()).await?;
//! assert!(!cache.contains(("summary", id, edited + 1)).await?);
//! # Ok::<(), larder_core::Error>(()) }).unwrap();
//! ```
//!
//! # A lock against stampedes
//!
//! Values need none: `get_or_compute` has one computation for each key, on all nodes together. For other work that many
//! would begin at once, take a [lock](crate::Cache::lock), and look again once you have it.
//!
//! ```
//! use larder_cache::Cache;
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::memory();
//! let hold = Duration::from_secs(10);
//! if let Some(lock) = cache.lock("reindex", hold, Duration::from_secs(60)).await? {
//!     if !cache.contains("reindexed").await? {
//!         // … the work, while lock.is_held() …
//!         cache.set("reindexed", true).await?;
//!     }
//!     lock.release().await?;
//! }
//! assert!(cache.contains("reindexed").await?);
//! # Ok::<(), larder_core::Error>(()) }).unwrap();
//! ```
//!
//! # Keys of a user
//!
//! Parts of a tuple never run into each other, whatever is in them. A tag for each user drops all that is theirs.
//!
//! ```
//! use larder_cache::{Cache, Options};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::memory();
//! let user = "ada:cart"; // no trick with separators
//! let options = Options::new().tag(format!("user:{user}"));
//! cache.set_with((user, "orders"), 3_i64, options).await?;
//! assert!(!cache.contains(("ada", "cart", "orders")).await?);
//! cache.invalidate_tag("user:ada:cart").await?;
//! assert!(!cache.contains((user, "orders")).await?);
//! # Ok::<(), larder_core::Error>(()) }).unwrap();
//! ```
//!
//! # Keys of a page
//!
//! Each page of a list under its own key and under the list's tag, and under a tag for each row that it shows: a change of
//! one row drops the pages that show it, and a new row drops them all.
//!
//! ```
//! use larder_cache::{Cache, Computed, Options};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::memory();
//! for page in 1..=3_u64 {
//!     let list = move |_| async move {
//!         let rows = vec![page * 10, page * 10 + 1];
//!         let tags: Vec<String> = rows.iter().map(|row| format!("product:{row}")).collect();
//!         Ok::<_, std::io::Error>(Computed::new(rows).tags(tags))
//!     };
//!     cache.get_or_compute_with(("products", page), Options::new().tag("products"), list).await?;
//! }
//! cache.invalidate_tag("product:21").await?;
//! assert!(cache.contains(("products", 1)).await?);
//! assert!(!cache.contains(("products", 2)).await?);
//! cache.invalidate_tag("products").await?;
//! assert!(!cache.contains(("products", 1)).await?);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # A fragment of a user's
//!
//! What a fragment shows of whom has to be in its key: [`vary`](crate::Rendering::vary) with the user's id.
//!
//! ```
//! use larder_cache::Cache;
//! use std::convert::Infallible;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let cache = Cache::memory();
//! for (id, name) in [(7, "Ada"), (8, "Grace")] {
//!     let greeting = cache.fragment("greeting").vary(id).vary("en");
//!     let html = greeting.render(|| Ok::<_, Infallible>(format!("<p>Hello, {name}</p>"))).await?;
//!     assert_eq!(&*html, format!("<p>Hello, {name}</p>"));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Tests
//!
//! What you build with the cache is tested with the cache itself, over a clock that the test drives and a store that fails
//! when it is told to; both, and the counter, are in `larder-testkit`.
//!
//! ```
//! use larder_cache::{Cache, Options};
//! use larder_core::{Clock, ErrorKind};
//! use larder_testkit::counted::Counted;
//! use larder_testkit::faulty::{Fault, Faulty, Verb};
//! use larder_testkit::reference::Reference;
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let (clock, hands) = Clock::manual();
//! let backend = Faulty::new(Reference::new(clock));
//! let faults = backend.faults();
//! let cache = Cache::new(backend);
//!
//! let loads = Counted::new("the price list");
//! let prices = || {
//!     let load = loads.counting(|| async { Ok::<_, std::io::Error>(vec![1999, 2499]) });
//!     cache.get_or_compute("prices", Options::ttl(Duration::from_secs(60)), load)
//! };
//!
//! // However many ask, and for a minute.
//! let (one, other) = tokio::join!(prices(), prices());
//! assert_eq!(one?, other?);
//! hands.advance(Duration::from_secs(59));
//! prices().await?;
//! loads.assert_once();
//! hands.advance(Duration::from_secs(1));
//! prices().await?;
//! loads.assert_times(2);
//!
//! // A store that is down costs computations, and no value. After five failures it is not even asked.
//! loads.forget();
//! faults.inject(Fault::Fail(ErrorKind::Unavailable), &Verb::ALL);
//! for _ in 0..20 {
//!     assert_eq!(prices().await?.len(), 2);
//! }
//! loads.assert_times(20);
//! faults.forget();
//! prices().await?;
//! assert_eq!(faults.total(), 0);
//!
//! // It is asked again by itself once it had a second.
//! faults.heal();
//! hands.advance(Duration::from_secs(1));
//! loads.forget();
//! prices().await?;
//! loads.assert_never();
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
