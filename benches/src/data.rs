//! Hits and writes of caches of values.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cached::Cached;
use larder::{Cache, MemoryBackend, Options, Tiered};
use larder_testkit::faulty::Faulty;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Case, Run, WARM_UP, runtime};

/// The rows, in the table's order. The first is the harness itself.
pub const CASES: &[Case] = &[
    Case { name: "harness only, shared value", make: harness },
    Case { name: "moka get", make: moka_get },
    Case { name: "moka get_with", make: moka_get_with },
    Case { name: "cached TtlCache in a mutex, get", make: cached_get },
    Case { name: "Larder get", make: larder_get },
    Case { name: "Larder get, key of two parts", make: larder_get_parts },
    Case { name: "Larder get, near a remote store", make: larder_get_near },
    Case { name: "Larder get_or_compute", make: larder_compute },
    Case { name: "moka insert", make: moka_insert },
    Case { name: "making the value for a set", make: make_value },
    Case { name: "Larder set, making included", make: larder_set },
];

/// The row that others are compared with.
pub const BASELINE: &str = "moka get";

const KEY: &str = "product:184467";

/// A product as a shop has it; its description makes it as large as asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Product {
    id: u64,
    name: String,
    slug: String,
    price: f64,
    currency: String,
    stock: u32,
    tags: Vec<String>,
    images: Vec<String>,
    description: String,
}

thread_local! {
    static DECODED: Cell<u64> = const { Cell::new(0) };
}

/// How many products were decoded so far on this thread, on which each of the runs here stays.
pub fn decoded() -> u64 {
    DECODED.get()
}

/// What two readers of one stored product get.
pub fn two_readers() -> (Arc<Product>, Arc<Product>) {
    let cache = larder_with(1024);
    let read = || {
        let value = runtime().block_on(cache.get::<Product>(KEY));
        value.expect("an answer").expect("a hit")
    };
    (read(), read())
}

impl<'de> Deserialize<'de> for Product {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            id: u64,
            name: String,
            slug: String,
            price: f64,
            currency: String,
            stock: u32,
            tags: Vec<String>,
            images: Vec<String>,
            description: String,
        }
        DECODED.set(DECODED.get() + 1);
        let p = Plain::deserialize(deserializer)?;
        Ok(Product {
            id: p.id,
            name: p.name,
            slug: p.slug,
            price: p.price,
            currency: p.currency,
            stock: p.stock,
            tags: p.tags,
            images: p.images,
            description: p.description,
        })
    }
}

impl Product {
    /// A product of about that many bytes.
    pub fn new(size: usize) -> Self {
        Product {
            id: 184_467,
            name: "Teapot with a long spout".to_owned(),
            slug: "teapot-with-a-long-spout".to_owned(),
            price: 34.9,
            currency: "EUR".to_owned(),
            stock: 12,
            tags: ["kitchen", "tea", "ceramics"].map(str::to_owned).into(),
            images: (0..4).map(|n| format!("https://shop.example.com/i/184467-{n}.webp")).collect(),
            description: "x".repeat(size.saturating_sub(400)),
        }
    }
}

// One operation after the other, on a runtime as a server has one.
fn drive(operation: impl AsyncFn() + 'static) -> Run {
    let runtime = runtime();
    let mut run: Run = Box::new(move |times| {
        runtime.block_on(async {
            for _ in 0..times {
                operation().await;
            }
        });
    });
    run(WARM_UP);
    run
}

/// Handing out a shared value: the harness's share of what is counted.
pub fn harness(size: usize) -> Run {
    let value = Arc::new(Product::new(size));
    drive(async move || {
        black_box(value.clone());
    })
}

fn moka_with(size: usize) -> moka::sync::Cache<String, Arc<Product>> {
    let cache = moka::sync::Cache::builder()
        .max_capacity(10_000)
        .time_to_live(Duration::from_secs(300))
        .build();
    cache.insert(KEY.to_owned(), Arc::new(Product::new(size)));
    cache
}

fn moka_get(size: usize) -> Run {
    let cache = moka_with(size);
    drive(async move || {
        black_box(cache.get(black_box(KEY)).expect("a hit"));
    })
}

fn moka_get_with(size: usize) -> Run {
    let cache = moka_with(size);
    drive(async move || {
        black_box(cache.get_with_by_ref(black_box(KEY), || unreachable!("a hit")));
    })
}

fn moka_insert(size: usize) -> Run {
    let cache = moka_with(size);
    let value = Arc::new(Product::new(size));
    drive(async move || cache.insert(black_box(KEY).to_owned(), value.clone()))
}

fn cached_get(size: usize) -> Run {
    let mut cache = cached::TtlCache::with_ttl(Duration::from_secs(300));
    cache.cache_set(KEY.to_owned(), Arc::new(Product::new(size)));
    let cache = Mutex::new(cache);
    drive(async move || {
        black_box(
            cache.lock().expect("no panic").cache_get(black_box(KEY)).cloned().expect("a hit"),
        );
    })
}

fn larder_with(size: usize) -> Cache {
    let cache = Cache::memory();
    runtime().block_on(async {
        cache.set(KEY, Product::new(size)).await.expect("stored");
        cache.set(("product", 184_467), Product::new(size)).await.expect("stored");
    });
    cache
}

/// A hit.
pub fn larder_get(size: usize) -> Run {
    let cache = larder_with(size);
    drive(async move || {
        let value = cache.get::<Product>(black_box(KEY)).await.expect("an answer");
        black_box(value.expect("a hit"));
    })
}

/// Gets a value that is near: memory before a store that may have to wait.
pub fn larder_get_near(size: usize) -> Run {
    let remote = Faulty::new(MemoryBackend::default());
    let near = Tiered::builder(remote).ceiling(Duration::from_secs(1 << 30)).without_bus();
    let cache = Cache::new(near.expect("a store"));
    let setting = async {
        cache.set(KEY, Product::new(size)).await.expect("it is set");
        // The first read decodes it for itself and keeps it near; the second one decodes it there, for all that follow.
        for _ in 0..2 {
            assert!(cache.get::<Product>(KEY).await.expect("an answer").is_some());
        }
    };
    runtime().block_on(setting);
    drive(async move || {
        let value = cache.get::<Product>(black_box(KEY)).await.expect("an answer");
        black_box(value.expect("a hit"));
    })
}

fn larder_get_parts(size: usize) -> Run {
    let cache = larder_with(size);
    drive(async move || {
        let value = cache.get::<Product>(black_box(("product", 184_467))).await;
        black_box(value.expect("an answer").expect("a hit"));
    })
}

/// A hit of what would be computed otherwise.
pub fn larder_compute(size: usize) -> Run {
    let cache = larder_with(size);
    drive(async move || {
        let compute = || async { Err::<Product, _>(std::io::Error::other("not a hit")) };
        let value = cache.get_or_compute(black_box(KEY), Options::default(), compute).await;
        black_box(value.expect("a hit"));
    })
}

fn make_value(size: usize) -> Run {
    let value = Product::new(size);
    drive(async move || drop(black_box(value.clone())))
}

fn larder_set(size: usize) -> Run {
    let cache = Cache::memory();
    let value = Product::new(size);
    drive(async move || {
        cache.set(black_box(KEY), value.clone()).await.expect("stored");
    })
}
