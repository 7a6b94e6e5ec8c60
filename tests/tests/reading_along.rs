//! Requests that wait for another one's fill read along while its body comes, where that can be told to be theirs, too.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use larder_cache::Cache;
use larder_http::cache::{BrokenOff, ResponseBody};
use larder_http::{CacheLayer, SessionMark};
use larder_testkit::servers::RedisServer;
use larder_tests::{
    Failure, Got, Larder, Origin, Site, Step, Steps, TestBody, get, request, response, scripted,
    settle, until,
};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};
use tower::{Layer, ServiceExt};

type Answer = Result<Response<ResponseBody<TestBody>>, Failure>;

/// The hands that steer the bodies of an origin's answers, the first one first.
#[derive(Clone, Default)]
struct Hands(Arc<Mutex<Vec<Option<Steps>>>>);

impl Hands {
    fn data(&self, call: usize, text: &str) {
        self.step(call, Step::Data(Bytes::from(text.to_owned())));
    }

    fn step(&self, call: usize, step: Step) {
        let hands = self.0.lock().unwrap();
        let steps = hands[call - 1].as_ref().expect("it has not ended");
        steps.send(step).expect("somebody reads it");
    }

    fn end(&self, call: usize) {
        self.0.lock().unwrap()[call - 1] = None;
    }
}

/// An origin whose bodies come as they are told to, and have these fields.
fn origin(fields: &'static [(&'static str, &'static str)]) -> (Hands, Origin) {
    let hands = Hands::default();
    let given = hands.clone();
    let origin = Origin::new(move |_, _| {
        let (steps, body) = scripted();
        given.0.lock().unwrap().push(Some(steps));
        let mut response = response("max-age=60", "").map(|_| body);
        larder_tests::append(response.headers_mut(), fields);
        async move { Ok(response) }
    });
    (hands, origin)
}

const TEN: &[(&str, &str)] = &[("content-length", "10")];

async fn head(site: &Site) -> Response<ResponseBody<TestBody>> {
    site.head_of(get("/")).await.expect("a response")
}

/// One that comes to its head when it can.
async fn asking(site: &Arc<Site>) -> JoinHandle<Answer> {
    let own = site.clone();
    let asking = tokio::spawn(async move { own.head_of(get("/")).await });
    settle().await;
    asking
}

/// What is there to be read without waiting.
async fn piece(response: &mut Response<ResponseBody<TestBody>>) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(3600), response.body_mut().frame()).await;
    let frame = frame.expect("it is there").expect("more").expect("no failure");
    String::from_utf8(frame.into_data().expect("data").to_vec()).unwrap()
}

async fn rest(response: Response<ResponseBody<TestBody>>) -> Got {
    Got::read(response).await.expect("a whole body")
}

/// After `first` and `later`, of one call.
async fn is_stored_whole(site: &Site) {
    until("it is stored", || site.larder.flights() == 0).await;
    let hit = site.get("/").await;
    assert!(hit.hit() && hit.text() == "firstlater", "{hit:?}");
    assert_eq!(site.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_read_along_from_the_beginning() {
    let (hands, origin) = origin(TEN);
    let site = Arc::new(Site::new(origin));
    let mut leader = head(&site).await;
    hands.data(1, "first");
    let mut follower = asking(&site).await.await.unwrap().unwrap();
    assert_eq!(piece(&mut follower).await, "first");
    assert_eq!(follower.headers()["content-length"], "10");
    assert_eq!(follower.headers()["age"], "0");
    let told = follower.headers()["cache-status"].to_str().unwrap();
    assert!(told.contains("fwd=uri-miss") && told.contains("collapsed"), "{told}");
    assert_eq!(follower.body().size_hint().exact(), Some(5));
    assert_eq!(piece(&mut leader).await, "first");

    hands.data(1, "later");
    assert_eq!(piece(&mut follower).await, "later");
    hands.end(1);
    assert_eq!(
        (rest(follower).await.text(), rest(leader).await.text()),
        ("".into(), "later".into())
    );
    is_stored_whole(&site).await;
}

#[tokio::test(start_paused = true)]
async fn c57_nobody_waits_for_a_client_that_reads_slowly_or_leaves() {
    for slow_leader in [true, false] {
        for leaves in [true, false] {
            let (hands, origin) = origin(TEN);
            let site = Arc::new(Site::new(origin));
            let leader = head(&site).await;
            let follower = asking(&site).await.await.unwrap().unwrap();
            let (slow, quick) = if slow_leader { (leader, follower) } else { (follower, leader) };
            let slow = if leaves { None } else { Some(slow) };
            hands.data(1, "first");
            hands.data(1, "later");
            hands.end(1);
            assert_eq!(rest(quick).await.text(), "firstlater");
            until("it is stored", || site.larder.flights() == 0).await;
            assert!(site.get("/").await.hit());
            if let Some(slow) = slow {
                assert_eq!(rest(slow).await.text(), "firstlater");
            }
            assert_eq!(site.calls(), 1, "slow leader: {slow_leader}, leaves: {leaves}");
        }
    }
}

/// One that has waited as long as it would.
async fn patient(site: &Arc<Site>) -> JoinHandle<Answer> {
    let asking = asking(site).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    settle().await;
    asking
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_length_is_not_told_is_waited_for() {
    let (hands, origin) = origin(&[]);
    let site = Arc::new(Site::new(origin));
    let leader = head(&site).await;
    hands.data(1, "first");
    let waiting = asking(&site).await;
    assert!(!waiting.is_finished());
    hands.end(1);
    assert_eq!(rest(waiting.await.unwrap().unwrap()).await.text(), "first");
    assert_eq!((rest(leader).await.text(), site.calls()), ("first".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_it_long_enough_reads_along_instead_of_asking_the_handler() {
    let (hands, origin) = origin(&[]);
    let site = Arc::new(Site::new(origin));
    let leader = head(&site).await;
    hands.data(1, "first");
    let mut follower = patient(&site).await.await.unwrap().unwrap();
    assert_eq!(piece(&mut follower).await, "first");
    assert!(!follower.headers().contains_key("content-length"));
    assert_eq!(follower.body().size_hint().exact(), None);
    hands.data(1, "later");
    assert_eq!(piece(&mut follower).await, "later");
    hands.end(1);
    assert_eq!(rest(follower).await.text(), "");
    assert_eq!(rest(leader).await.text(), "firstlater");
    is_stored_whole(&site).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_for_what_was_invalidated_meanwhile_asks_the_handler() {
    let (hands, origin) = origin(&[("surrogate-key", "own")]);
    let larder = Larder::new();
    let cache = larder.cache.clone();
    let site = Arc::new(Site::over(larder, origin, |layer| {
        layer.tags_from(HeaderName::from_static("surrogate-key"))
    }));
    let leader = head(&site).await;
    hands.data(1, "older");
    let waiting = asking(&site).await;
    cache.invalidate_tag("own").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    until("the handler is asked", || site.calls() == 2).await;
    hands.data(2, "newer");
    hands.end(2);
    assert_eq!(rest(waiting.await.unwrap().unwrap()).await.text(), "newer");
    hands.end(1);
    assert_eq!(rest(leader).await.text(), "older");
}

/// An origin whose body begins, and goes on with a thousand frames when it is told to. It counts those that somebody has.
#[derive(Clone, Default)]
struct Flood {
    go_on: Arc<Notify>,
    alive: Arc<AtomicUsize>,
}

struct Alive(Box<[u8]>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Alive {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

const FRAME: usize = 1024;
const FRAMES: usize = 1000;
// What the copy has room for.
const LIMIT: usize = 64;

impl Flood {
    fn frame(&self, at: usize) -> Bytes {
        self.alive.fetch_add(1, SeqCst);
        Bytes::from_owner(Alive(vec![at as u8; FRAME].into(), self.alive.clone()))
    }

    fn site(&self) -> Arc<Site> {
        let flood = self.clone();
        let origin = Origin::new(move |_, _| {
            let flood = flood.clone();
            let frames = stream::iter(0..FRAMES).then(move |at| {
                let flood = flood.clone();
                async move {
                    if at == 1 {
                        flood.go_on.notified().await;
                    }
                    Ok::<_, Failure>(Frame::data(flood.frame(at)))
                }
            });
            let response = response("max-age=60", "");
            async move { Ok(response.map(|_| StreamBody::new(frames).boxed_unsync())) }
        });
        let limit = (FRAME * LIMIT) as u64;
        Arc::new(Site::with(origin, |layer| layer.max_body_bytes(limit)))
    }

    /// One that began the fill, and one that reads along.
    async fn two(&self, site: &Arc<Site>) -> [Response<ResponseBody<TestBody>>; 2] {
        let leader = head(site).await;
        [leader, patient(site).await.await.unwrap().unwrap()]
    }

    fn alive(&self) -> usize {
        self.alive.load(SeqCst)
    }
}

fn is_whole(got: &Got) -> bool {
    got.body.len() == FRAME * FRAMES
        && got.body.chunks(FRAME).enumerate().all(|(at, frame)| frame == [at as u8; FRAME])
}

#[tokio::test(start_paused = true)]
async fn what_outgrows_its_copy_is_read_to_its_end_by_those_who_keep_up() {
    let flood = Flood::default();
    let site = flood.site();
    let readers = flood.two(&site).await.map(|reader| tokio::spawn(Got::read(reader)));
    settle().await;
    flood.go_on.notify_one();
    for reader in readers {
        let got = reader.await.unwrap().unwrap();
        assert!(is_whole(&got));
    }
    assert_eq!((site.larder.entries(), site.larder.flights(), site.calls()), (0, 0, 1));
    // Those who come now go by themselves, since nobody knows whether it will be as large again.
    for calls in 2..5 {
        let next = head(&site).await;
        assert_eq!((site.calls(), site.larder.flights()), (calls, 0));
        drop(next);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_behind_those_who_have_left_is_waited_for_by_nobody() {
    for slow_leader in [true, false] {
        let flood = Flood::default();
        let site = flood.site();
        let [leader, follower] = flood.two(&site).await;
        let (slow, mut quick) = if slow_leader { (leader, follower) } else { (follower, leader) };
        flood.go_on.notify_one();
        settle().await;
        // It reads all that is there, waits for more, and leaves.
        while let Some(frame) = quick.body_mut().frame().now_or_never() {
            frame.unwrap().unwrap();
        }
        settle().await;
        drop(quick);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(is_whole(&rest(slow).await), "slow leader: {slow_leader}");
    }
}

#[tokio::test(start_paused = true)]
async fn c57_what_outgrows_its_copy_waits_for_nobody_and_keeps_no_more_than_the_limit() {
    for slow_leader in [true, false] {
        let flood = Flood::default();
        let site = flood.site();
        let [leader, follower] = flood.two(&site).await;
        let (slow, mut quick) = if slow_leader { (leader, follower) } else { (follower, leader) };
        flood.go_on.notify_one();
        let mut read = 0;
        while let Some(frame) = quick.body_mut().frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert_eq!(&data[..], [(read / FRAME) as u8; FRAME]);
            read += data.len();
            let alive = flood.alive();
            assert!(alive <= LIMIT + 4, "{alive} frames are kept");
        }
        assert_eq!(read, FRAME * FRAMES, "slow leader: {slow_leader}");
        let error = Got::read(slow).await.unwrap_err();
        assert!(error.is::<BrokenOff>(), "never a short success: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_outgrows_its_copy_goes_on_without_those_who_leave() {
    for leader_leaves in [true, false] {
        for before in [true, false] {
            let flood = Flood::default();
            let site = flood.site();
            let [leader, follower] = flood.two(&site).await;
            let (leaves, stays) =
                if leader_leaves { (leader, follower) } else { (follower, leader) };
            let mut leaves = Some(leaves).filter(|_| !before);
            flood.go_on.notify_one();
            let stays = tokio::spawn(Got::read(stays));
            if let Some(leaves) = &mut leaves {
                for _ in 0..LIMIT + 10 {
                    leaves.body_mut().frame().await.unwrap().unwrap();
                }
            }
            drop(leaves);
            assert!(is_whole(&stays.await.unwrap().unwrap()), "{leader_leaves} {before}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_of_it_that_nobody_wants() {
    let flood = Flood::default();
    let site = flood.site();
    let [leader, follower] = flood.two(&site).await;
    flood.go_on.notify_one();
    settle().await;
    let read = flood.alive();
    assert!((LIMIT - 4..LIMIT + 4).contains(&read), "{read} of {FRAMES}");
    drop(leader);
    settle().await;
    assert_eq!(flood.alive(), read);
    drop(follower);
    settle().await;
    assert_eq!(flood.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_depends_on_the_whole_body_waits_for_it() {
    for field in [("range", "bytes=2-3"), ("if-none-match", "\"other\"")] {
        let (hands, origin) = origin(&[("content-length", "10"), ("etag", "\"e\"")]);
        let site = Arc::new(Site::new(origin));
        let leader = head(&site).await;
        let own = site.clone();
        let waiting = tokio::spawn(async move { own.send(request("GET", "/", &[field])).await });
        settle().await;
        hands.data(1, "0123456789");
        hands.end(1);
        assert_eq!(rest(leader).await.text(), "0123456789");
        let text = waiting.await.unwrap().text();
        assert_eq!(text, if field.0 == "range" { "23" } else { "0123456789" });
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_an_invalidation_never_reads_along() {
    for change in ["purge", "tag of the route", "tag of the handler", "soft", "clear"] {
        let (hands, origin) = origin(&[("content-length", "5"), ("surrogate-key", "own")]);
        let larder = Larder::new();
        let cache = larder.cache.clone();
        let site = Arc::new(Site::over(larder, origin, |layer| {
            layer.tag("route").tags_from(HeaderName::from_static("surrogate-key"))
        }));
        let leader = head(&site).await;
        let before = asking(&site).await.await.unwrap().unwrap();
        match change {
            "purge" => assert_eq!(site.purger().remove(get("/").uri()).await.unwrap(), 0),
            "tag of the route" => cache.invalidate_tag("route").await.unwrap(),
            "tag of the handler" => cache.invalidate_tag("own").await.unwrap(),
            "soft" => cache.expire_tag("own").await.unwrap(),
            _ => cache.clear().await.unwrap(),
        }
        let after = asking(&site).await;
        hands.data(1, "older");
        hands.end(1);
        for earlier in [leader, before] {
            assert_eq!(rest(earlier).await.text(), "older", "{change}");
        }
        until("the handler is asked again", || site.calls() == 2).await;
        hands.data(2, "newer");
        hands.end(2);
        assert_eq!(rest(after.await.unwrap().unwrap()).await.text(), "newer", "{change}");
    }
}

#[tokio::test]
async fn an_invalidation_on_another_node_is_seen_by_who_comes_after_it() {
    let server = RedisServer::start().await;
    let url = format!(
        "{}?namespace=along&response_timeout=60s&connect_timeout=20s&read_budget=60s&write_budget=60s",
        server.url()
    );
    let (here, there) = (Cache::connect(&url).await.unwrap(), Cache::connect(&url).await.unwrap());
    let (hands, origin) = origin(&[("content-length", "5"), ("surrogate-key", "own")]);
    let layer = CacheLayer::new(&here)
        .tags_from(HeaderName::from_static("surrogate-key"))
        .cache_status("t");
    let service = layer.layer(origin.clone());
    let ask = || tokio::spawn(service.clone().oneshot(get("/")));
    let leader = ask().await.unwrap().unwrap();
    let before = ask().await.unwrap().unwrap();
    assert_eq!(origin.calls(), 1, "it reads along");
    there.invalidate_tag("own").await.unwrap();
    let after = ask();
    hands.data(1, "older");
    hands.end(1);
    for earlier in [leader, before] {
        assert_eq!(Got::read(earlier).await.unwrap().text(), "older");
    }
    until("the handler is asked again", || origin.calls() == 2).await;
    hands.data(2, "newer");
    hands.end(2);
    assert_eq!(Got::read(after.await.unwrap().unwrap()).await.unwrap().text(), "newer");
}

#[tokio::test(start_paused = true)]
async fn p07_a_response_that_may_turn_out_to_be_one_visitors_own_is_waited_for() {
    for touched in [false, true] {
        let (hands, origin) = origin(TEN);
        let site = Arc::new(Site::new(origin));
        let mark = SessionMark::new();
        let mut first = get("/");
        first.extensions_mut().insert(mark.clone());
        let leader = site.head_of(first).await.unwrap();
        hands.data(1, "Ada's");
        let waiting = asking(&site).await;
        assert!(!waiting.is_finished());
        if touched {
            mark.touch();
        }
        hands.data(1, " cart");
        hands.end(1);
        assert_eq!(rest(leader).await.text(), "Ada's cart");
        settle().await;
        assert_eq!(site.calls(), if touched { 2 } else { 1 });
        if touched {
            hands.data(2, "nobody's!!");
            hands.end(2);
        }
        let text = rest(waiting.await.unwrap().unwrap()).await.text();
        assert_eq!(text, if touched { "nobody's!!" } else { "Ada's cart" });
    }
}

#[tokio::test(start_paused = true)]
async fn b08_a_body_that_breaks_off_breaks_off_for_all_and_is_not_stored() {
    for how in ["fails", "panics", "is short", "is long"] {
        let (hands, origin) = origin(TEN);
        let site = Arc::new(Site::new(origin));
        let leader = head(&site).await;
        let follower = asking(&site).await.await.unwrap().unwrap();
        hands.data(1, "first");
        match how {
            "fails" => hands.step(1, Step::Fail),
            "panics" => hands.step(1, Step::Panic),
            "is short" => hands.end(1),
            _ => {
                hands.data(1, "longer than it said");
                hands.end(1);
            }
        }
        let leader = tokio::spawn(Got::read(leader));
        let followed = Got::read(follower).await;
        match how {
            "fails" => {
                let error = leader.await.unwrap().unwrap_err();
                assert!(error.is::<Failure>(), "{error}");
            }
            "panics" => assert!(leader.await.unwrap_err().is_panic()),
            _ => drop(leader.await.unwrap()),
        }
        assert_eq!(*followed.unwrap_err().downcast::<BrokenOff>().unwrap(), BrokenOff, "{how}");
        until("it is over", || site.larder.flights() == 0).await;
        assert_eq!(site.larder.entries(), 0, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_read_along_read_to_the_end_of_what_takes_too_long_to_be_stored() {
    for stays in ["both", "follower", "follower from before", "nobody"] {
        let (hands, origin) = origin(TEN);
        let configured = |layer: CacheLayer| layer.fill_deadline(Duration::from_secs(5));
        let site = Arc::new(Site::with(origin, configured));
        let mut leader = Some(head(&site).await);
        let follower = asking(&site).await.await.unwrap().unwrap();
        hands.data(1, "first");
        if stays == "follower from before" {
            leader = None;
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        let late = asking(&site).await;
        assert_eq!(site.calls(), 2, "nobody waits for it any more");
        drop(late);
        let (leader, follower) = match stays {
            "both" => (leader, Some(follower)),
            "follower" | "follower from before" => {
                drop(leader);
                (None, Some(follower))
            }
            _ => {
                drop((leader, follower));
                (None, None)
            }
        };
        settle().await;
        if leader.is_none() && follower.is_none() {
            let hands = hands.0.lock().unwrap();
            assert!(hands[0].as_ref().unwrap().is_closed(), "nobody reads it");
            continue;
        }
        hands.data(1, "later");
        hands.end(1);
        for reader in [leader, follower].into_iter().flatten() {
            assert_eq!(rest(reader).await.text(), "firstlater", "{stays}");
        }
        assert_eq!(site.larder.entries(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_are_everybodys_but_for_a_cookie() {
    let (hands, origin) = origin(TEN);
    let site = Arc::new(Site::new(origin));
    let leader = head(&site).await;
    let follower = asking(&site).await.await.unwrap().unwrap();
    hands.data(1, "0123456789");
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "7".parse().unwrap());
    trailers.insert("set-cookie", "id=ada".parse().unwrap());
    hands.step(1, Step::Trailers(trailers.clone()));
    assert_eq!(rest(leader).await.trailers, Some(trailers.clone()));
    trailers.remove("set-cookie");
    assert_eq!(rest(follower).await.trailers, Some(trailers));
    assert_eq!(site.larder.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_read_along_with_one() {
    let (hands, origin) = origin(TEN);
    let site = Arc::new(Site::new(origin));
    let leader = head(&site).await;
    let mut readers = Vec::new();
    for at in 0..1000 {
        if at == 500 {
            hands.data(1, "first");
        }
        let own = site.clone();
        readers.push(tokio::spawn(
            async move { Got::read(own.head_of(get("/")).await.unwrap()).await },
        ));
        yield_now().await;
    }
    settle().await;
    hands.data(1, "later");
    hands.end(1);
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().text(), "firstlater");
    }
    assert_eq!((rest(leader).await.text(), site.calls()), ("firstlater".to_owned(), 1));
}
