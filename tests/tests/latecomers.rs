//! Who comes after an invalidation gets nothing that was begun before it, whoever invalidated: a node that waits with
//! others for a response hears nothing of what another node does.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use larder_cache::Cache;
use larder_core::Clock;
use larder_http::{CacheLayer, Purger};
use larder_memory::MemoryBackend;
use larder_testkit::faulty::{Fault, Faulty, Verb};
use larder_testkit::servers::RedisServer;
use larder_tests::{Got, Origin, answer, get, settle, until};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};

/// A handler whose first answer is held back, and two nodes that know nothing of each other's fills.
struct Fleet {
    gate: Arc<Notify>,
    origin: Origin,
    nodes: [(Cache, CacheLayer); 2],
}

const OWN: HeaderName = HeaderName::from_static("surrogate-key");

const FIELDS: &[(&str, &str)] = &[
    ("cache-control", "max-age=60, stale-while-revalidate=600"),
    ("surrogate-key", "own"),
    ("etag", "\"1\""),
];

impl Fleet {
    fn over(nodes: [Cache; 2], waits: usize, configure: impl Fn(CacheLayer) -> CacheLayer) -> Self {
        let gate = Arc::new(Notify::new());
        let answers = |call: usize| answer(200, FIELDS, call.to_string());
        let origin = Origin::gated(&gate, move |call| call == waits, answers);
        let layer = |cache: &Cache| {
            let layer = CacheLayer::new(cache).tag("route").tags_from(OWN).cache_status("t");
            configure(layer)
        };
        let nodes = nodes.map(|cache| (cache.clone(), layer(&cache)));
        Fleet { gate, origin, nodes }
    }

    fn in_memory(waits: usize, configure: impl Fn(CacheLayer) -> CacheLayer) -> Self {
        let backend = MemoryBackend::default();
        Self::over([Cache::new(backend.clone()), Cache::new(backend)], waits, configure)
    }

    fn ask(&self, node: usize) -> JoinHandle<Got> {
        let service = self.nodes[node].1.layer(self.origin.clone());
        tokio::spawn(
            async move { Got::read(service.oneshot(get("/")).await.unwrap()).await.unwrap() },
        )
    }

    async fn asked(&self, node: usize) -> Got {
        let got = self.ask(node).await.unwrap();
        until("all is stored", || self.nodes[node].0.store().flights() == 0).await;
        got
    }

    fn purger(&self, node: usize) -> Purger {
        self.nodes[node].1.purger()
    }
}

fn url() -> Uri {
    get("/").uri().clone()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    RouteTag,
    OwnTag,
    SoftTag,
    Purge,
    SoftPurge,
    Clear,
}

const CHANGES: [Change; 6] = [
    Change::RouteTag,
    Change::OwnTag,
    Change::SoftTag,
    Change::Purge,
    Change::SoftPurge,
    Change::Clear,
];

impl Fleet {
    async fn change(&self, node: usize, change: Change) {
        let cache = &self.nodes[node].0;
        match change {
            Change::RouteTag => cache.invalidate_tag("route").await.unwrap(),
            Change::OwnTag => cache.invalidate_tag("own").await.unwrap(),
            Change::SoftTag => cache.expire_tag("own").await.unwrap(),
            Change::Purge => drop(self.purger(node).remove(&url()).await.unwrap()),
            Change::SoftPurge => drop(self.purger(node).expire(&url()).await.unwrap()),
            Change::Clear => cache.clear().await.unwrap(),
        }
    }

    /// One asks, something changes, another one comes; then the first answer comes.
    async fn change_meanwhile(&self, change: Change, from: usize) {
        let first = self.ask(0);
        until("the handler is asked", || self.origin.calls() == 1).await;
        self.change(from, change).await;
        let late = self.ask(0);
        settle().await;
        self.gate.notify_one();
        assert_eq!(first.await.unwrap().text(), "1");
        assert_eq!(late.await.unwrap().text(), "2", "{change:?} from node {from}");
        until("all is stored", || self.nodes[0].0.store().flights() == 0).await;
        assert_ne!(self.asked(0).await.text(), "1", "{change:?} from node {from}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_an_invalidation_does_not_get_what_was_begun_before_it() {
    for change in CHANGES {
        for from in [0, 1] {
            Fleet::in_memory(1, |layer| layer).change_meanwhile(change, from).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nor_what_is_not_admitted_to_the_store() {
    for change in CHANGES {
        for from in [0, 1] {
            let fleet = Fleet::in_memory(1, |layer| layer.admit_after(3));
            fleet.change_meanwhile(change, from).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_came_before_it_and_those_who_come_undisturbed_share_one_answer() {
    for admit_after in [1, 3] {
        let fleet = Fleet::in_memory(1, |layer| layer.admit_after(admit_after));
        // A tag that nobody has ever asked for counts as invalidated when it is asked for first.
        fleet.nodes[0].0.invalidate_tag("own").await.unwrap();
        let crowd: Vec<_> = (0..100).map(|_| fleet.ask(0)).collect();
        settle().await;
        // Something else.
        fleet.nodes[1].0.invalidate_tag("another").await.unwrap();
        fleet.gate.notify_one();
        for one in crowd {
            assert_eq!(one.await.unwrap().text(), "1");
        }
        assert_eq!(fleet.origin.calls(), 1, "admitted after {admit_after}");
    }
}

#[tokio::test]
async fn over_redis() {
    let server = RedisServer::start().await;
    for change in CHANGES {
        let namespace = format!("{change:?}").to_lowercase();
        let url = format!(
            "{}?namespace={namespace}&response_timeout=60s&connect_timeout=20s&read_budget=60s&write_budget=60s",
            server.url()
        );
        let nodes = [Cache::connect(&url).await.unwrap(), Cache::connect(&url).await.unwrap()];
        let fleet = Fleet::over(nodes, 1, |layer| layer.wait(Duration::from_secs(60)));
        fleet.change_meanwhile(change, 1).await;
    }
}

// What is there is stale already, and is being refreshed from what the handler read before.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_began_before_a_soft_purge_makes_nothing_fresh() {
    for from in [0, 1] {
        let fleet = Fleet::in_memory(2, |layer| layer);
        assert_eq!(fleet.asked(0).await.text(), "1");
        assert_eq!(fleet.purger(0).expire(&url()).await.unwrap(), 1);
        let stale = fleet.ask(0);
        assert_eq!(stale.await.unwrap().text(), "1");
        until("it is refreshed", || fleet.origin.calls() == 2).await;
        // The data changes again.
        assert_eq!(fleet.purger(from).expire(&url()).await.unwrap(), 1);
        fleet.gate.notify_one();
        until("the refresh is over", || fleet.nodes[0].0.store().flights() == 0).await;
        let stale = fleet.ask(0).await.unwrap();
        assert!(stale.told().contains("ttl=0"), "purged by node {from}: {stale:?}");
        until("it is refreshed again", || fleet.origin.calls() == 3).await;
        until("all is stored", || fleet.nodes[0].0.store().flights() == 0).await;
        assert_eq!(fleet.asked(0).await.text(), "3");
    }
}

// What is being stored is nobody's to share any more, and the handler is not asked again for it either.
#[tokio::test]
async fn who_comes_while_it_is_stored_waits_for_that_and_gets_what_is_stored() {
    let (clock, hands) = Clock::manual();
    let backend = Faulty::new(MemoryBackend::builder().clock(clock).build().unwrap());
    let faults = backend.faults();
    let cache = Cache::new(backend);
    let fields = [("cache-control", "max-age=60"), ("etag", "\"1\"")];
    let answers = move |call| match call {
        1 => answer(200, &fields, "1"),
        _ => answer(304, &fields, ""),
    };
    let fleet = Fleet {
        nodes: [(); 2].map(|()| (cache.clone(), CacheLayer::new(&cache).cache_status("t"))),
        origin: Origin::says(move |call, _| answers(call)),
        gate: Arc::default(),
    };
    for (calls, what) in [(1, "a first fill"), (2, "a refresh")] {
        faults.inject(Fault::Hang, &[Verb::Put]);
        let first = fleet.ask(0);
        until("it is being stored", || faults.waiting() == 1).await;
        let late = fleet.ask(0);
        settle().await;
        assert!(!late.is_finished(), "{what}");
        faults.heal();
        assert_eq!(first.await.unwrap().text(), "1");
        let late = late.await.unwrap();
        assert!(late.hit() && late.text() == "1", "{what}: {late:?}");
        assert_eq!(fleet.origin.calls(), calls, "{what}");
        hands.advance(Duration::from_secs(61));
    }
}
