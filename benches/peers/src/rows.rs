//! The rows.

use std::convert::Infallible;
use std::sync::Arc;

use cached::Cached;
use larder::Options;
use tokio::sync::Mutex;

use crate::{Counted, Job, List, ROOM, Run, TTL, crowd, drive, keys, list};

/// All tables.
pub const JOBS: &[Job] = &[
    Job {
        name: "a hit: a list of 50 products that would be computed otherwise",
        rows: &[
            ("moka (future), get_with", moka_hit),
            ("Larder", larder_hit),
            ("amalgam", amalgam_hit),
            ("cachet", cachet_hit),
            ("cached, in a mutex", cached_hit),
            ("foyer", foyer_hit),
        ],
    },
    Job {
        name: "a miss: a small value is computed and kept",
        rows: &[
            ("moka (future), get_with", moka_miss),
            ("Larder", larder_miss),
            ("amalgam", amalgam_miss),
            ("cachet", cachet_miss),
            ("cached, in a mutex", cached_miss),
            ("foyer", foyer_miss),
        ],
    },
    Job {
        name: "64 tasks on one cold key",
        rows: &[
            ("moka (future), get_with", moka_hot),
            ("Larder", larder_hot),
            ("amalgam", amalgam_hot),
            ("cachet", cachet_hot),
            ("cached, in a mutex", cached_hot),
            ("foyer", foyer_hot),
        ],
    },
    Job {
        name: "a batch of 50 hits",
        rows: &[
            ("moka (future), one by one", moka_batch),
            ("Larder, get_many", larder_batch),
            ("amalgam, one by one", amalgam_batch),
            ("cachet, one by one", cachet_batch),
            ("cached, in a mutex, one by one", cached_batch),
            ("foyer, one by one", foyer_batch),
        ],
    },
    Job {
        name: "a hit that carries three tags (moka has none)",
        rows: &[
            ("moka (future), get_with", moka_hit),
            ("Larder", larder_tagged),
            ("amalgam", amalgam_tagged),
        ],
    },
];

const TAGS: [&str; 3] = ["products", "shop:7", "list"];

fn moka<V: Clone + Send + Sync + 'static>() -> moka::future::Cache<String, V> {
    moka::future::Cache::builder().max_capacity(ROOM).time_to_live(TTL).build()
}

async fn moka_lists() -> (moka::future::Cache<String, List>, Vec<String>) {
    let cache = moka();
    for key in keys() {
        cache.insert(key, Arc::new(list())).await;
    }
    (cache, keys())
}

fn moka_hit() -> Run {
    drive(moka_lists(), async |(cache, _), _| {
        cache.get_with_by_ref("product:7", async { unreachable!("a hit") }).await
    })
}

fn moka_miss() -> Run {
    drive(async { moka() }, async |cache, n| {
        cache.get_with_by_ref(&format!("k{n}"), async { "value".to_owned() }).await
    })
}

fn moka_hot() -> Run {
    drive(async { moka() }, async |cache, n| {
        crowd(|counted: Counted| {
            move || async move { cache.get_with_by_ref(&format!("k{n}"), counted.compute()).await }
        })
        .await;
    })
}

fn moka_batch() -> Run {
    drive(moka_lists(), async |(cache, keys), _| {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(cache.get(key).await.expect("a hit"));
        }
        found
    })
}

fn larder() -> larder::Cache {
    larder::Cache::memory()
}

fn options() -> Options {
    Options::ttl(TTL)
}

async fn larder_lists() -> (larder::Cache, Vec<String>) {
    let cache = larder();
    for key in keys() {
        cache.set_with(key, list(), options()).await.expect("stored");
    }
    (cache, keys())
}

fn larder_hit() -> Run {
    drive(larder_lists(), async |(cache, _), _| {
        let compute = || async { Err::<Vec<crate::Product>, _>(std::io::Error::other("a hit")) };
        cache.get_or_compute("product:7", Options::default(), compute).await.expect("a hit")
    })
}

fn larder_miss() -> Run {
    drive(async { larder() }, async |cache, n| {
        let compute = || async { Ok::<_, Infallible>("value".to_owned()) };
        cache.get_or_compute(&format!("k{n}"), options(), compute).await.expect("a value")
    })
}

fn larder_hot() -> Run {
    drive(async { larder() }, async |cache, n| {
        crowd(|counted: Counted| {
            move || async move {
                let compute = move || async move { Ok::<_, Infallible>(counted.compute().await) };
                cache.get_or_compute(&format!("k{n}"), options(), compute).await.expect("a value")
            }
        })
        .await;
    })
}

fn larder_batch() -> Run {
    drive(larder_lists(), async |(cache, keys), _| {
        let found: std::collections::HashMap<&str, Arc<Vec<crate::Product>>> =
            cache.get_many(keys.iter().map(String::as_str)).await.expect("an answer");
        assert_eq!(found.len(), keys.len());
        found
    })
}

fn larder_tagged() -> Run {
    let made = async {
        let cache = larder();
        let options = TAGS.into_iter().fold(options(), Options::tag);
        cache.set_with("product:7", list(), options).await.expect("stored");
        cache
    };
    drive(made, async |cache, _| {
        let compute = || async { Err::<Vec<crate::Product>, _>(std::io::Error::other("a hit")) };
        cache.get_or_compute("product:7", Options::default(), compute).await.expect("a hit")
    })
}

async fn amalgam_lists() -> (amalgam::Cache<List>, Vec<String>) {
    let cache = amalgam::Cache::new();
    for key in keys() {
        cache.set(key, Arc::new(list())).await.expect("stored");
    }
    (cache, keys())
}

fn amalgam_hit() -> Run {
    drive(amalgam_lists(), async |(cache, _), _| {
        let compute = |_| async { Err::<List, _>(std::io::Error::other("a hit")) };
        cache.get_or_set("product:7", compute).await.expect("a hit")
    })
}

fn amalgam_miss() -> Run {
    drive(async { amalgam::Cache::new() }, async |cache: &amalgam::Cache<String>, n| {
        let compute = |_| async { Ok::<_, Infallible>("value".to_owned()) };
        cache.get_or_set(format!("k{n}"), compute).await.expect("a value")
    })
}

fn amalgam_hot() -> Run {
    drive(async { amalgam::Cache::new() }, async |cache: &'static amalgam::Cache<String>, n| {
        crowd(|counted: Counted| {
            move || async move {
                let compute = move |_| async move { Ok::<_, Infallible>(counted.compute().await) };
                cache.get_or_set(format!("k{n}"), compute).await.expect("a value")
            }
        })
        .await;
    })
}

fn amalgam_batch() -> Run {
    drive(amalgam_lists(), async |(cache, keys), _| {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(cache.try_get(key).await.expect("an answer").expect("a hit"));
        }
        found
    })
}

fn amalgam_tagged() -> Run {
    let made = async {
        let cache: amalgam::Cache<List> = amalgam::Cache::new();
        cache.set("product:7", Arc::new(list())).tags(TAGS).await.expect("stored");
        cache
    };
    drive(made, async |cache, _| {
        let compute = |_| async { Err::<List, _>(std::io::Error::other("a hit")) };
        cache.get_or_set("product:7", compute).await.expect("a hit")
    })
}

fn cachet<V: Clone + Send + Sync + 'static>() -> cachet::Cache<String, V> {
    let clock = tick::Clock::new_tokio();
    cachet::Cache::builder(clock).memory().ttl(TTL).stampede_protection().build()
}

async fn cachet_lists() -> (cachet::Cache<String, List>, Vec<String>) {
    let cache = cachet();
    for key in keys() {
        let _ = cache.insert(key, Arc::new(list())).await.expect("stored");
    }
    (cache, keys())
}

fn cachet_hit() -> Run {
    drive(cachet_lists(), async |(cache, _), _| {
        cache.get_or_insert("product:7", || async { unreachable!("a hit") }).await.expect("a hit")
    })
}

fn cachet_miss() -> Run {
    drive(async { cachet() }, async |cache, n| {
        let key = format!("k{n}");
        cache.get_or_insert(&key, || async { "value".to_owned() }).await.expect("a value")
    })
}

fn cachet_hot() -> Run {
    drive(async { cachet() }, async |cache: &'static cachet::Cache<String, String>, n| {
        crowd(|counted: Counted| {
            move || async move {
                let key = format!("k{n}");
                cache.get_or_insert(&key, || counted.compute()).await.expect("a value")
            }
        })
        .await;
    })
}

fn cachet_batch() -> Run {
    drive(cachet_lists(), async |(cache, keys), _| {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(cache.get(key).await.expect("an answer").expect("a hit"));
        }
        found
    })
}

type Locked<V> = Mutex<cached::TtlCache<String, V>>;

fn locked<V: Clone>() -> Locked<V> {
    Mutex::new(cached::TtlCache::with_ttl(TTL))
}

async fn cached_lists() -> (Locked<List>, Vec<String>) {
    let cache = locked();
    for key in keys() {
        cache.lock().await.cache_set(key, Arc::new(list()));
    }
    (cache, keys())
}

fn cached_hit() -> Run {
    drive(cached_lists(), async |(cache, _), _| {
        cache.lock().await.cache_get("product:7").cloned().expect("a hit")
    })
}

fn cached_miss() -> Run {
    drive(async { locked() }, async |cache, n| {
        let key = format!("k{n}");
        let mut cache = cache.lock().await;
        if let Some(value) = cache.cache_get(&key) {
            return String::clone(value);
        }
        cache.cache_set(key, "value".to_owned());
        "value".to_owned()
    })
}

// Whoever waits for any key waits for this one.
fn cached_hot() -> Run {
    drive(async { locked() }, async |cache: &'static Locked<String>, n| {
        crowd(|counted: Counted| {
            move || async move {
                let key = format!("k{n}");
                let mut cache = cache.lock().await;
                if let Some(value) = cache.cache_get(&key) {
                    return value.clone();
                }
                let value = counted.compute().await;
                cache.cache_set(key, value.clone());
                value
            }
        })
        .await;
    })
}

fn cached_batch() -> Run {
    drive(cached_lists(), async |(cache, keys), _| {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(cache.lock().await.cache_get(key).cloned().expect("a hit"));
        }
        found
    })
}

type Foyer<V> = foyer_memory::Cache<String, V>;

fn foyer<V: Clone + Send + Sync + 'static>() -> Foyer<V> {
    foyer_memory::CacheBuilder::new(ROOM as usize).build()
}

async fn foyer_lists() -> (Foyer<List>, Vec<String>) {
    let cache = foyer();
    for key in keys() {
        cache.insert(key, Arc::new(list()));
    }
    (cache, keys())
}

fn foyer_hit() -> Run {
    drive(foyer_lists(), async |(cache, _), _| {
        let compute = || async { Err::<List, _>(std::io::Error::other("a hit")) };
        cache.get_or_fetch("product:7", compute).await.expect("a hit")
    })
}

fn foyer_miss() -> Run {
    drive(async { foyer() }, async |cache: &'static Foyer<String>, n| {
        let compute = || async { Ok::<_, Infallible>("value".to_owned()) };
        cache.get_or_fetch(&format!("k{n}"), compute).await.expect("a value")
    })
}

fn foyer_hot() -> Run {
    drive(async { foyer() }, async |cache: &'static Foyer<String>, n| {
        crowd(|counted: Counted| {
            move || async move {
                let compute = || async move { Ok::<_, Infallible>(counted.compute().await) };
                cache.get_or_fetch(&format!("k{n}"), compute).await.expect("a value")
            }
        })
        .await;
    })
}

fn foyer_batch() -> Run {
    drive(foyer_lists(), async |(cache, keys), _| {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(cache.get(key).expect("a hit"));
        }
        found
    })
}
