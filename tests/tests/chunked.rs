//! Bodies that are too large for one entry are stored in chunks, and served from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use larder_cache::Cache;
use larder_core::{Encoded, Entry, Key, Outcome, Prefix, Ttl, When};
use larder_http::cache::BrokenOff;
use larder_http::{CacheLayer, SessionMark};
use larder_memory::MemoryBackend;
use larder_testkit::servers::{MemcachedServer, PostgresServer, RedisServer};
use larder_tests::{
    Failure, Got, Larder, Origin, Site, Step, TestBody, answer, append, get, request, response,
    scripted, until,
};
use tower::{Layer, ServiceExt};

const CHUNK: usize = 512 * 1024;
/// Two chunks and a part of a third.
const LENGTH: usize = 2 * CHUNK + 12_345;

const FIELDS: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "\"1\"")];

/// No two stretches of it are alike.
fn film() -> Bytes {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"a film");
    let mut bytes = vec![0; LENGTH];
    hasher.finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// A body that comes in frames of that size.
fn framed(body: &Bytes, size: usize) -> TestBody {
    let frames: Vec<_> = (0..body.len())
        .step_by(size)
        .map(|at| body.slice(at..(at + size).min(body.len())))
        .map(|frame| Ok::<_, Failure>(Frame::data(frame)))
        .collect();
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn cinema() -> Origin {
    Origin::says(|_, request| {
        if request.headers().get("if-none-match").is_some_and(|etag| etag == "\"1\"") {
            return answer(304, FIELDS, "");
        }
        answer(200, FIELDS, "").map(|_| framed(&film(), 10_000))
    })
}

fn chunked(layer: CacheLayer) -> CacheLayer {
    layer.max_body_bytes(100_000).max_chunked_bytes(4 << 20)
}

fn site(origin: Origin) -> Arc<Site> {
    Arc::new(Site::with(origin, chunked))
}

async fn settled(site: &Site) {
    until("all fills have ended", || site.larder.flights() == 0).await;
}

/// The keys of all chunks that are stored.
async fn chunks(cache: &Cache) -> Vec<Key> {
    let store = cache.store();
    let (mut keys, mut from) = (Vec::new(), None);
    loop {
        let page = store.page(&Prefix::new(store.namespace()), from, 100).await.unwrap();
        keys.extend(page.keys);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    keys.retain(|key| key.as_ref().parts().any(|part| part == Some(b"c")));
    keys.sort_by_key(|key| key.as_ref().as_bytes().to_vec());
    keys
}

#[tokio::test]
async fn what_is_stored_in_chunks_answers_like_any_other_response_on_every_store() {
    let redis = RedisServer::start().await;
    let memcached = MemcachedServer::start().await;
    let postgres = PostgresServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let film = film();
    for url in [
        "memory://?namespace=a".to_owned(),
        format!("{}?namespace=a", redis.url()),
        format!("{}?namespace=a", memcached.url()),
        format!("{}?namespace=a&create=true", postgres.url()),
        format!("file://{path}/files?namespace=a"),
        format!("sqlite://{path}/cache.db?namespace=a&create=true"),
        format!("tiered:memory://?max_bytes=64MiB|{}?namespace=b", redis.url()),
    ] {
        let kind = url.split(':').next().unwrap().to_owned();
        // With time enough, so that a busy machine does not turn a slow answer into an outage.
        let url = format!("{url}&read_budget=120s&write_budget=120s");
        let cache = Cache::connect(&url).await.unwrap();
        let origin = cinema();
        let layer = chunked(CacheLayer::new(&cache)).cache_status("t");
        let service = layer.layer(origin.clone());
        let send = async |request: Request<TestBody>| {
            let got = Got::read(service.clone().oneshot(request).await.unwrap()).await.unwrap();
            until("all fills have ended", || cache.store().flights() == 0).await;
            got
        };
        let first = send(get("/film")).await;
        assert!(!first.hit() && first.told().contains("stored"), "{kind}: {}", first.told());
        assert!(first.body == film, "{kind}");
        let mut hit = send(get("/film")).await;
        // A store that a busy machine makes slow is left out.
        for _ in 0..20 {
            if hit.hit() {
                break;
            }
            hit = send(get("/film")).await;
        }
        assert!(hit.hit() && hit.body == film, "{kind}: {}", hit.told());
        let calls = origin.calls();
        let head = send(request("HEAD", "/film", &[])).await;
        assert!(head.hit() && head.body.is_empty(), "{kind}");
        assert_eq!(head.field("content-length"), Some(LENGTH.to_string()), "{kind}");
        let known = send(request("GET", "/film", &[("if-none-match", "\"1\"")])).await;
        assert!(known.hit() && known.status == 304, "{kind}");

        let last = LENGTH - 1;
        for (asked, from, to) in [
            ("bytes=0-0".to_owned(), 0, 1),
            (format!("bytes={}-{}", CHUNK - 1, CHUNK), CHUNK - 1, CHUNK + 1),
            (format!("bytes={CHUNK}-{}", 2 * CHUNK - 1), CHUNK, 2 * CHUNK),
            ("bytes=7-".to_owned(), 7, LENGTH),
            ("bytes=-20000".to_owned(), LENGTH - 20_000, LENGTH),
            (format!("bytes={last}-{}", u64::MAX), last, LENGTH),
        ] {
            let part = send(request("GET", "/film", &[("range", &asked)])).await;
            assert_eq!((part.status, part.hit()), (206, true), "{kind} {asked}");
            assert!(part.body == film[from..to], "{kind} {asked}");
            let range = format!("bytes {from}-{}/{LENGTH}", to - 1);
            assert_eq!(part.field("content-range"), Some(range), "{kind}");
            assert_eq!(part.field("content-length"), Some((to - from).to_string()), "{kind}");
        }
        let several = send(request("GET", "/film", &[("range", "bytes=0-0,9-9")])).await;
        assert!(several.status == 200 && several.hit() && several.body == film, "{kind}");
        let beyond = format!("bytes={LENGTH}-");
        let beyond = send(request("GET", "/film", &[("range", &beyond)])).await;
        assert!(beyond.status == 416 && beyond.hit(), "{kind}");
        assert_eq!(origin.calls(), calls, "{kind}");
    }
}

#[tokio::test]
async fn however_the_body_comes_it_is_cut_and_put_together_again() {
    for size in [LENGTH, 1, CHUNK, CHUNK - 1, CHUNK + 1, 100_000] {
        for announced in [false, true] {
            // A byte a frame is as much to do as it sounds.
            let film = if size == 1 { film().slice(..CHUNK + 3) } else { film() };
            let (given, length) = (film.clone(), film.len().to_string());
            let origin = Origin::says(move |_, _| {
                let mut response = answer(200, FIELDS, "").map(|_| framed(&given, size));
                if announced {
                    append(response.headers_mut(), &[("content-length", &length)]);
                }
                response
            });
            let site = site(origin);
            assert!(site.get("/").await.body == film, "{size}");
            settled(&site).await;
            assert_eq!(chunks(&site.larder.cache).await.len(), film.len().div_ceil(CHUNK));
            let hit = site.get("/").await;
            assert!(hit.hit() && hit.body == film, "{size}: {}", hit.told());
            assert_eq!(hit.body.len(), film.len(), "{size}");
        }
    }
}

/// A body that counts what was taken of it.
fn endless(taken: &Arc<AtomicU64>, frames: u64, frame: usize) -> TestBody {
    let (taken, frame) = (taken.clone(), Bytes::from(vec![7; frame]));
    let frames = (0..frames).map(move |_| {
        taken.fetch_add(frame.len() as u64, Ordering::SeqCst);
        Ok::<_, Failure>(Frame::data(frame.clone()))
    });
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

#[tokio::test]
async fn memory_holds_a_few_chunks_however_large_the_body_is() {
    let taken = Arc::new(AtomicU64::new(0));
    let counter = taken.clone();
    let origin = Origin::says(move |_, _| {
        answer(200, FIELDS, "").map(|_| endless(&counter, 10_000, 100_000))
    });
    let site = Arc::new(Site::with(origin, |layer| {
        layer.max_body_bytes(100_000).max_chunked_bytes(2 << 30)
    }));
    let mut response = site.head_of(get("/")).await.unwrap();
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
    let ahead = taken.load(Ordering::SeqCst);
    assert!(ahead < 4_000_000, "{ahead} bytes were taken for a client that reads nothing");
    let mut read = 0;
    for _ in 0..100 {
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        read += frame.data_ref().unwrap().len() as u64;
    }
    let ahead = taken.load(Ordering::SeqCst) - read;
    assert!(ahead < 4_000_000, "{ahead} bytes were taken for a client that reads slowly");
}

#[tokio::test]
async fn what_is_larger_than_allowed_is_passed_on_whole_and_leaves_nothing_behind() {
    for announced in [false, true] {
        let taken = Arc::new(AtomicU64::new(0));
        let origin = Origin::says(move |_, _| {
            let mut response = answer(200, FIELDS, "").map(|_| endless(&taken, 100, 100_000));
            if announced {
                append(response.headers_mut(), &[("content-length", "10000000")]);
            }
            response
        });
        let site = site(origin);
        let got = site.get("/").await;
        assert_eq!(got.body.len(), 10_000_000);
        settled(&site).await;
        assert_eq!(chunks(&site.larder.cache).await.len(), 0);
        assert!(!site.get("/").await.hit());
        assert_eq!(site.calls(), 2);
    }
}

#[tokio::test]
async fn b01_what_breaks_off_lies_or_has_trailers_is_not_stored() {
    let half = film().slice(..CHUNK + 1000);
    for (what, announced, ends) in [
        ("fails", None, Step::Fail),
        ("panics", None, Step::Panic),
        ("is shorter than announced", Some(LENGTH), Step::Data(Bytes::new())),
        ("is longer than announced", Some(CHUNK), Step::Data(Bytes::new())),
        (
            "has trailers",
            None,
            Step::Trailers([("x-a".parse().unwrap(), "1".parse().unwrap())].into_iter().collect()),
        ),
    ] {
        let first = std::sync::Mutex::new(Some(ends));
        let given = half.clone();
        let origin = Origin::says(move |call, _| {
            let (steps, body) = scripted();
            let mut response = answer(200, FIELDS, "").map(|_| body);
            if call > 1 {
                return answer(200, FIELDS, "new");
            }
            if let Some(length) = announced {
                append(response.headers_mut(), &[("content-length", &length.to_string())]);
            }
            for at in (0..given.len()).step_by(50_000) {
                let frame = given.slice(at..(at + 50_000).min(given.len()));
                steps.send(Step::Data(frame)).unwrap();
            }
            steps.send(first.lock().unwrap().take().unwrap()).unwrap();
            response
        });
        let site = site(origin);
        let own = site.clone();
        let read = tokio::spawn(async move {
            Got::read(own.head_of(get("/")).await.unwrap()).await.map(|got| got.body.len())
        });
        let read = read.await;
        match what {
            "fails" => assert!(read.unwrap().unwrap_err().downcast_ref::<Failure>().is_some()),
            "panics" => assert!(read.unwrap_err().is_panic()),
            _ => assert_eq!(read.unwrap().unwrap(), half.len(), "{what}"),
        }
        settled(&site).await;
        assert_eq!(chunks(&site.larder.cache).await.len(), 0, "{what}");
        let next = site.get("/").await;
        assert!(!next.hit() && next.text() == "new", "{what}: {}", next.told());
    }
}

#[tokio::test]
async fn a_client_that_leaves_does_not_keep_it_from_being_stored() {
    let site = site(cinema());
    let mut response = site.head_of(get("/")).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    settled(&site).await;
    let hit = site.get("/").await;
    assert!(hit.hit() && hit.body == film(), "{}", hit.told());
    assert_eq!(site.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_stored_others_go_to_the_handler_at_once() {
    let (steps, body) = scripted();
    let first = std::sync::Mutex::new(Some(body));
    let origin = Origin::says(move |_, _| {
        let body = first.lock().unwrap().take().unwrap_or_else(|| framed(&film(), 10_000));
        answer(200, FIELDS, "").map(|_| body)
    });
    let site = site(origin);
    let early = site.asked_by(1).await;
    let waiting = site.asked_by(3).await;
    assert!(waiting.iter().all(|asked| !asked.is_finished()), "they wait for the first one's");
    for at in (0..LENGTH).step_by(10_000) {
        let frame = film().slice(at..(at + 10_000).min(LENGTH));
        steps.send(Step::Data(frame)).unwrap();
    }
    // No second goes by on this clock: they wait for nothing.
    let began = tokio::time::Instant::now();
    for asked in waiting {
        asked.await.unwrap();
    }
    let late = site.get_with("/", &[("if-none-match", "\"2\"")]).await;
    assert!(late.because("body-too-large"), "{}", late.told());
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(site.calls(), 5);
    drop(steps);
    for asked in early {
        asked.await.unwrap();
    }
    settled(&site).await;
    assert!(site.get("/").await.hit());
}

#[tokio::test]
async fn what_is_invalidated_or_uses_its_session_meanwhile_is_not_stored() {
    for session in [false, true] {
        let (steps, body) = scripted();
        let mark = SessionMark::new();
        let given = mark.clone();
        let first = std::sync::Mutex::new(Some(body));
        let origin = Origin::says(move |_, _| {
            let Some(body) = first.lock().unwrap().take() else {
                return answer(200, FIELDS, "new");
            };
            let mut response = answer(200, FIELDS, "").map(|_| body);
            if session {
                response.extensions_mut().insert(given.clone());
            }
            response
        });
        let site = Arc::new(Site::with(origin, |layer| chunked(layer).tag("films")));
        let asked = site.asked_by(1).await;
        steps.send(Step::Data(film())).unwrap();
        until("a chunk is stored", || site.larder.entries() > 1).await;
        if session {
            mark.touch();
        } else {
            site.larder.cache.invalidate_tag("films").await.unwrap();
        }
        drop(steps);
        for asked in asked {
            asked.await.unwrap();
        }
        settled(&site).await;
        assert_eq!(chunks(&site.larder.cache).await.len(), 0, "session: {session}");
        assert_eq!(site.get("/").await.text(), "new", "session: {session}");
    }
}

#[tokio::test]
async fn a_store_that_does_not_take_it_is_left_out() {
    let (clock, hands) = larder_core::Clock::manual();
    let memory = MemoryBackend::builder().clock(clock).max_entry_bytes(300_000).build().unwrap();
    let cache = Cache::builder(memory.clone()).build();
    let site = Arc::new(Site::over(Larder { cache, memory, hands }, cinema(), chunked));
    for calls in 1..3 {
        let got = site.get("/").await;
        assert!(!got.hit() && got.body == film(), "{}", got.told());
        settled(&site).await;
        assert_eq!((site.calls(), chunks(&site.larder.cache).await.len()), (calls, 0));
    }
}

#[tokio::test]
async fn a_chunk_that_is_lost_makes_a_miss_and_never_a_short_success() {
    for lost in 0..3 {
        let site = site(cinema());
        let store = site.larder.cache.store().clone();
        site.get("/").await;
        settled(&site).await;
        let keys = chunks(&site.larder.cache).await;
        store.remove(&keys[lost], None).await.unwrap();
        let read = Got::read(site.head_of(get("/")).await.unwrap()).await;
        if lost == 0 {
            // It was noticed before anything was said.
            let got = read.unwrap();
            assert!(!got.hit() && got.body == film());
        } else {
            assert!(read.unwrap_err().downcast_ref::<BrokenOff>().is_some());
            assert!(!site.get("/").await.hit(), "the next one finds nothing");
        }
        settled(&site).await;
        let hit = site.get("/").await;
        assert!(hit.hit() && hit.body == film());
        assert_eq!(site.calls(), 2);
    }
}

#[tokio::test]
async fn another_bodys_chunk_or_a_cut_one_is_no_chunk() {
    for case in 0..6 {
        let site = site(cinema());
        let store = site.larder.cache.store().clone();
        for path in ["/a", "/b"] {
            site.get(path).await;
            settled(&site).await;
        }
        let keys = chunks(&site.larder.cache).await;
        assert_eq!(keys.len(), 6);
        let entry = async |key: &Key| store.get(key, &[]).await.unwrap().entry.unwrap();
        let own = entry(&keys[0]).await.encoded().unwrap();
        let planted = match case {
            0 => entry(&keys[3]).await,
            1 => entry(&keys[1]).await,
            2 => Entry::wire(Encoded { body: own.body.slice(1..), ..own }),
            3 => Entry::wire(Encoded { codec: own.codec - 1, ..own }),
            4 => Entry::wire(Encoded { head: own.head.slice(1..), ..own }),
            _ => Entry::wire(own),
        };
        let ttl = Ttl::For(Duration::from_secs(600));
        let outcome = store.put(&keys[0], planted, ttl, When::Always).await.unwrap();
        assert_eq!(outcome, Outcome::Stored);
        // It is the first of one of the two.
        for path in ["/a", "/b"] {
            assert!(site.get(path).await.body == film());
            settled(&site).await;
        }
        // The last one was its own.
        assert_eq!(site.calls(), if case == 5 { 2 } else { 3 }, "case {case}");
    }
}

#[tokio::test]
async fn what_the_handler_says_is_good_lives_on_with_all_its_chunks() {
    let site = site(cinema());
    site.get("/").await;
    settled(&site).await;
    // Far beyond what its first lifetime gave the chunks.
    for calls in 2..12 {
        site.later(61);
        let got = site.get("/").await;
        assert!(got.body == film() && got.told().contains("fwd=stale"), "{}", got.told());
        assert!(got.told().contains("fwd-status=304"), "{}", got.told());
        settled(&site).await;
        assert!(site.get("/").await.hit());
        assert_eq!(site.calls(), calls);
    }
    // Without one of them, the handler is not asked for a yes that nothing could follow.
    let keys = chunks(&site.larder.cache).await;
    site.larder.cache.store().remove(&keys[1], None).await.unwrap();
    site.later(61);
    let got = site.get("/").await;
    assert!(got.body == film() && got.told().contains("fwd-status=200"), "{}", got.told());
}

#[tokio::test]
async fn it_stands_in_for_a_handler_that_fails_and_is_refreshed_behind() {
    let origin = Origin::says(|call, _| {
        let fields =
            [("cache-control", "max-age=60, stale-if-error=600, stale-while-revalidate=30")];
        match call {
            1 | 3 => answer(200, &fields, "").map(|_| framed(&film(), 10_000)),
            _ => answer(500, &[], ""),
        }
    });
    let site = site(origin);
    site.get("/").await;
    settled(&site).await;
    site.later(100);
    let got = site.get("/").await;
    assert!(got.status == 200 && got.body == film(), "{}", got.told());
    site.later(2);
    assert!(!site.get("/").await.hit());
    settled(&site).await;
    site.later(70);
    assert!(site.get("/").await.body == film());
    settled(&site).await;
    assert_eq!(site.calls(), 4);
}

#[tokio::test]
async fn variants_and_purges_go_by_response_and_not_by_chunk() {
    let origin = Origin::says(|_, request| {
        let language = request.headers()["accept-language"].clone();
        let mut response = answer(200, FIELDS, "").map(|_| framed(&film(), 10_000));
        append(response.headers_mut(), &[("vary", "accept-language")]);
        response.headers_mut().insert("content-language", language);
        response
    });
    let site = site(origin);
    for _ in 0..2 {
        for language in ["de", "fr"] {
            let got = site.get_with("/", &[("accept-language", language)]).await;
            assert!(got.body == film() && got.field("content-language").unwrap() == language);
            settled(&site).await;
        }
    }
    assert_eq!(site.calls(), 2);
    // A page and one more variant.
    let url = "http://site.example/".parse().unwrap();
    assert_eq!(site.purger().expire(&url).await.unwrap(), 2);
    assert_eq!(site.purger().remove(&url).await.unwrap(), 2);
    assert!(!site.get_with("/", &[("accept-language", "fr")]).await.hit());
}

#[tokio::test]
async fn what_fits_into_one_entry_has_no_chunks_and_nothing_has_any_unless_it_is_asked_for() {
    let origin = Origin::says(|_, request| {
        let length: usize = request.uri().path()[1..].parse().unwrap();
        response("max-age=60", film().slice(..length))
    });
    let site = Site::with(origin, |layer| layer.max_body_bytes(100_000));
    for length in [100_000, 100_001] {
        site.get(&format!("/{length}")).await;
        settled(&site).await;
        assert_eq!(site.get(&format!("/{length}")).await.hit(), length == 100_000);
    }
    assert_eq!(chunks(&site.larder.cache).await.len(), 0);
    let site = Site::with(site.origin.clone(), chunked);
    for (length, count) in [(100_000, 0), (100_001, 1)] {
        site.get(&format!("/{length}")).await;
        settled(&site).await;
        assert!(site.get(&format!("/{length}")).await.hit());
        assert_eq!(chunks(&site.larder.cache).await.len(), count);
    }
    // How long it is, is told beforehand.
    let hit = site.head_of(get("/100001")).await.unwrap();
    assert_eq!(hit.body().size_hint().exact(), Some(100_001));
}
