//! Hits of responses that lie on a server, or as the bytes that a server would have.
//!
//! Instructions and allocations are those of this process: the server is another one.

use std::hint::black_box;
use std::sync::Arc;

use larder::Cache;
use larder::core::envelope::{Envelope, TimeBase};
use larder::core::{Backend, Clock, Key, Namespace, Prefix};
use larder::http::CacheLayer;
use larder_testkit::reference::Reference;
use larder_testkit::servers::RedisServer;
use redis::AsyncCommands;

use crate::http::{Origin, bare, larder_on_server, larder_over};
use crate::{Case, Run, WARM_UP, runtime};

/// The rows, in the table's order.
pub const CASES: &[Case] = &[
    Case { name: "bare inner service", make: bare },
    Case { name: "Redis, bare client", make: client },
    Case { name: "Larder, Redis", make: redis },
    Case { name: "Larder, entries in a map", make: entries },
    Case { name: "Larder, their bytes in a map", make: records },
];

/// The row that others are compared with.
pub const BASELINE: &str = "bare inner service";

/// Two rows whose difference is what decoding a record costs: without and with it.
pub const DECODED: [&str; 2] = ["Larder, entries in a map", "Larder, their bytes in a map"];

// As much as is stored for a body of that size, and nothing else.
fn client(size: usize) -> Run {
    let runtime = runtime();
    let server = runtime.block_on(RedisServer::start());
    let client = redis::Client::open(server.url()).expect("a URL");
    // The time limit is not the connection's, as with Larder.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = runtime.block_on(connection).expect("a server that was just started");
    let value = vec![b'x'; size + HEAD];
    runtime.block_on(connection.set::<_, _, ()>("key", value)).expect("stored");
    let mut run = move |times| {
        // Lives as long as it is asked.
        let _server = &server;
        runtime.block_on(async {
            for _ in 0..times {
                let found: Vec<u8> = connection.get("key").await.expect("an answer");
                black_box(found);
            }
        });
    };
    run(WARM_UP);
    Box::new(run)
}

// What a record has beside the body, about.
const HEAD: usize = 700;

fn redis(size: usize) -> Run {
    let runtime = runtime();
    let server = runtime.block_on(RedisServer::start());
    // A full machine is no outage, nor is one that counts every instruction.
    let url = format!(
        "{}/0?namespace=bench&response_timeout=60s&read_budget=60s&write_budget=60s",
        server.url()
    );
    let cache = runtime.block_on(Cache::connect(&url)).expect("a server that was just started");
    let mut run = larder_on_server(runtime, size, CacheLayer::new(&cache));
    Box::new(move |times| {
        let _server = &server;
        run(times);
    })
}

fn entries(size: usize) -> Run {
    held(size, false)
}

fn records(size: usize) -> Run {
    held(size, true)
}

// The same map on both sides; only what lies in it differs.
fn held(size: usize, as_bytes: bool) -> Run {
    let clock = Clock::system();
    let store = Reference::new(clock.clone());
    let cache = Cache::new(store.clone());
    let origin = Arc::new(Origin::new(size, false));
    let run = larder_over(&origin, CacheLayer::new(&cache));
    if as_bytes {
        let namespace: &Namespace = cache.store().namespace();
        let planted = async {
            let all = Prefix::new(namespace);
            let keys: Vec<Key> = store.page(&all, None, 100).await.expect("a page").keys;
            for key in keys {
                let found = store.get(&key, &[]).await.expect("what was listed").entry;
                let entry = found.filter(|entry| entry.as_counter().is_none());
                let Some(entry) = entry else { continue };
                // As the store reads it: written at whatever time it is.
                let base = TimeBase { millis: 0, at: clock.now() };
                let bytes = Envelope::default().encode(key.as_ref(), &entry, &base);
                store.plant(key, bytes.expect("a record"));
            }
        };
        runtime().block_on(planted);
    }
    run
}
