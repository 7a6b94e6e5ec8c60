//! Bodies: whole or not stored, bounded, streamed as they come, with their trailers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use larder_http::CacheLayer;
use larder_tests::server::Server;
use larder_tests::{
    Failure, Got, Larder, Origin, Site, Step, TestBody, answer, append, get, request, response,
    scripted, until,
};
use tower::{Layer, ServiceExt};

/// A body of these steps, which are all ready from the start.
fn steps(steps: impl IntoIterator<Item = Step>) -> TestBody {
    let (sender, body) = scripted();
    for step in steps {
        sender.send(step).unwrap();
    }
    body
}

/// A body that is never ready when it is first asked.
struct Hesitant(VecDeque<Step>, bool);

impl Body for Hesitant {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(match self.0.pop_front() {
            None => None,
            Some(Step::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail) => Some(Err("failed".into())),
            Some(Step::Panic) => panic!("as told"),
        })
    }
}

fn data(bytes: impl Into<Bytes>) -> Step {
    Step::Data(bytes.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn b01_a_body_that_fails_at_any_byte_is_never_stored() {
    const WHOLE: usize = 1024;
    let calls = Arc::new(AtomicUsize::new(0));
    let site = Site::new(Origin::says(move |_, request| {
        let query: Vec<usize> = request
            .uri()
            .query()
            .unwrap()
            .split('-')
            .map(|number| number.parse().unwrap())
            .collect();
        let [bytes, length, hesitant] = query[..] else { panic!() };
        let mut response = response("public, max-age=60", "");
        if length > 0 {
            append(response.headers_mut(), &[("content-length", &length.to_string())]);
        }
        let script = (bytes > 0).then(|| data(vec![b'x'; bytes])).into_iter().chain([Step::Fail]);
        *response.body_mut() = if hesitant == 1 {
            Hesitant(script.collect(), false).boxed_unsync()
        } else {
            steps(script)
        };
        calls.fetch_add(1, Ordering::SeqCst);
        response
    }));
    let server = Server::start(site.service()).await;
    for bytes in 0..=WHOLE {
        for length in [0, WHOLE + 1] {
            let hesitant = bytes % 2;
            let mut http1 = server.http1().await;
            let target = format!("/?{bytes}-{length}-{hesitant}");
            http1.write(format!("GET {target} HTTP/1.1\r\nHost: site.example\r\n\r\n")).await;
            assert_eq!(
                http1.try_response(false).await,
                None,
                "{target}: a short body as if it were whole"
            );
        }
    }
    assert_eq!(site.calls(), 2 * (WHOLE + 1));
    until("all fills have ended", || site.larder.flights() == 0).await;
    assert_eq!(site.larder.entries(), 0);
    // HTTP/2 tells of it by a reset.
    let mut http2 = server.http2().await;
    for target in ["/?0-0-0", "/?0-0-1", "/?700-0-1", "/?700-1025-0"] {
        let got = match http2.head_of(get(target)).await {
            Ok(response) => Got::read(response).await.map_err(drop),
            Err(_) => Err(()),
        };
        assert_eq!(got, Err(()), "{target}");
    }
    until("all fills have ended", || site.larder.flights() == 0).await;
    assert_eq!(site.larder.entries(), 0);
}

#[tokio::test]
async fn b01_a_body_that_fails_at_any_frame_is_never_stored() {
    let frames: Vec<usize> = vec![1, 0, 63, 64, 65, 1000, 4096, 0, 1, 16_384, 7, 65_536, 2];
    for fail_after in 0..=frames.len() {
        for (around, hesitant) in
            [(-2_i64, false), (-1, true), (0, false), (0, true), (1, true), (2, false)]
        {
            let frames = frames.clone();
            let site = Site::new(Origin::says(move |_, _| {
                let mut script: VecDeque<Step> =
                    frames[..fail_after].iter().map(|length| data(vec![b'x'; *length])).collect();
                if let Some(Step::Data(last)) = script.back_mut() {
                    let length = usize::try_from((last.len() as i64 + around).max(0)).unwrap();
                    *last = Bytes::from(vec![b'x'; length]);
                }
                script.push_back(Step::Fail);
                let mut response = response("max-age=60", "");
                *response.body_mut() =
                    if hesitant { Hesitant(script, false).boxed_unsync() } else { steps(script) };
                response
            }));
            let head = site.head_of(get("/")).await.unwrap();
            assert!(Got::read(head).await.is_err());
            until("the fill has ended", || site.larder.flights() == 0).await;
            assert_eq!(site.larder.entries(), 0, "failed after {fail_after} frames");
        }
    }
}

#[tokio::test]
async fn b01_a_length_that_does_not_match_is_never_stored() {
    for hesitant in [true, false] {
        for (length, sent, stored) in [
            (10, 9, false),
            (10, 11, false),
            (10, 0, false),
            (1, 10, false),
            (10, 10, true),
            (0, 0, true),
        ] {
            let site = Site::new(Origin::says(move |_, _| {
                let mut response = response("max-age=60", "");
                append(response.headers_mut(), &[("content-length", &length.to_string())]);
                let script = VecDeque::from([data(vec![b'x'; sent])]);
                *response.body_mut() =
                    if hesitant { Hesitant(script, false).boxed_unsync() } else { steps(script) };
                response
            }));
            assert_eq!(site.get("/").await.body.len(), sent);
            assert_eq!(site.get("/").await.hit(), stored, "{length} said, {sent} sent");
        }
    }
}

#[tokio::test]
async fn b01_a_client_that_leaves_mid_body_leaves_a_whole_entry_or_none() {
    for read in 0..5 {
        let (steps, body) = scripted();
        let body = std::sync::Mutex::new(Some(body));
        let site = Site::new(Origin::says(move |_, _| {
            let mut response = response("max-age=60", "");
            *response.body_mut() = body.lock().unwrap().take().unwrap();
            response
        }));
        let mut response = site.head_of(get("/")).await.unwrap();
        for n in 0..read {
            steps.send(data(format!("{n}"))).unwrap();
            assert_eq!(
                response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(),
                n.to_string()
            );
        }
        drop(response);
        assert_eq!(site.larder.entries(), 0, "half a body");
        for n in read..5 {
            steps.send(data(format!("{n}"))).unwrap();
        }
        tokio::task::yield_now().await;
        assert_eq!(site.larder.entries(), 0, "nobody said that it was the end");
        drop(steps);
        until("the fill has ended", || site.larder.flights() == 0).await;
        let got = site.get("/").await;
        assert!(got.hit() && got.text() == "01234", "{got:?}");
    }
}

/// Bytes that count while they live.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

/// A large body: how many frames of which size; what lives of it, and the most that ever did.
struct Large {
    frames: usize,
    size: usize,
    made: usize,
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Body for Large {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.made == self.frames {
            return Poll::Ready(None);
        }
        let bytes = large_frame(self.made, self.size);
        self.made += 1;
        let alive = self.alive.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        self.most.fetch_max(alive, Ordering::SeqCst);
        let counted = Counted(bytes, self.alive.clone());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(counted)))))
    }
}

fn large_frame(number: usize, size: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; size];
    let stamp = number.to_be_bytes();
    let stamped = stamp.len().min(size);
    frame[..stamped].copy_from_slice(&stamp[stamp.len() - stamped..]);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_gibibyte_passes_through_a_mebibyte() {
    const FRAME: usize = 64 << 10;
    const FRAMES: usize = 16 << 10;
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (living, peak) = (alive.clone(), most.clone());
    let site = Site::with(
        Origin::says(move |_, request| {
            let mut response = response("public, max-age=60", "");
            if request.uri().path() == "/declared" {
                append(
                    response.headers_mut(),
                    &[("content-length", &(FRAME * FRAMES).to_string())],
                );
            }
            let (alive, most) = (living.clone(), peak.clone());
            *response.body_mut() =
                Large { frames: FRAMES, size: FRAME, made: 0, alive, most }.boxed_unsync();
            response
        }),
        |layer| layer.max_body_bytes(1 << 20),
    );
    let mut expected = blake3::Hasher::new();
    for number in 0..FRAMES {
        expected.update(&large_frame(number, FRAME));
    }
    let server = Server::start(site.service()).await;
    for target in ["/declared", "/chunked"] {
        let mut http1 = server.http1().await;
        http1.write(format!("GET {target} HTTP/1.1\r\nHost: site.example\r\n\r\n")).await;
        let (status, headers) = http1.head().await.unwrap();
        assert_eq!(status, 200);
        assert!(
            headers["cache-status"].to_str().unwrap().ends_with("body-too-large"),
            "{headers:?}"
        );
        let (mut hash, mut length) = (blake3::Hasher::new(), 0);
        while length < FRAME * FRAMES {
            let bytes = if target == "/declared" {
                http1.some().await.unwrap()
            } else {
                http1.chunk().await.unwrap()
            };
            length += bytes.len();
            hash.update(&bytes);
        }
        assert_eq!(hash.finalize(), expected.finalize(), "{target}");
        let most = most.swap(0, Ordering::SeqCst);
        assert!(most < 8 << 20, "{target}: {most} bytes were held");
    }
    until("the fill has ended", || site.larder.flights() == 0).await;
    assert_eq!(site.larder.entries(), 0);
    until("everything was freed", || alive.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn b03_nothing_is_allocated_on_the_word_of_a_length() {
    // Declared beyond every memory, and within the limit but never sent.
    for length in [u64::MAX, 1 << 50, 900 << 20] {
        let site = Site::with(
            Origin::says(move |_, _| {
                let mut response = response("max-age=60", "short");
                append(response.headers_mut(), &[("content-length", &length.to_string())]);
                response
            }),
            |layer| layer.max_body_bytes(1 << 30),
        );
        assert_eq!(site.get("/").await.text(), "short");
        assert_eq!(site.larder.entries(), 0);
    }
    // The limit is inclusive.
    for (length, stored) in [(99, true), (100, true), (101, false)] {
        let site = Site::with(
            Origin::says(move |_, _| {
                let mut response = response("max-age=60", "");
                *response.body_mut() = steps([data(vec![b'x'; length])]);
                response
            }),
            |layer| layer.max_body_bytes(100),
        );
        assert_eq!(site.get("/").await.body.len(), length);
        assert_eq!(site.get("/").await.hit(), stored, "{length}");
    }
}

#[tokio::test]
async fn b07_floods_of_tiny_and_empty_frames_are_bounded() {
    // A million bytes in frames of one: each costs more than its byte.
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (living, peak) = (alive.clone(), most.clone());
    let site = Site::new(Origin::says(move |_, _| {
        let mut response = response("max-age=60", "");
        let (alive, most) = (living.clone(), peak.clone());
        *response.body_mut() =
            Large { frames: 1_000_000, size: 1, made: 0, alive, most }.boxed_unsync();
        response
    }));
    let mut response = site.head_of(get("/")).await.unwrap();
    let mut length = 0;
    while let Some(frame) = response.body_mut().frame().await {
        length += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, 1_000_000);
    let most = most.load(Ordering::SeqCst);
    assert!(most <= (1 << 20) / 64 + 1, "{most} frames were held");
    assert_eq!(site.larder.entries(), 0);

    // Empty ones are neither kept nor waited for without end.
    let most = Arc::new(AtomicUsize::new(0));
    struct Empties(Arc<AtomicUsize>);
    impl Body for Empties {
        type Data = Bytes;
        type Error = Failure;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
            let made = self.0.fetch_add(1, Ordering::SeqCst);
            Poll::Ready((made < 3_000_000).then(|| Ok(Frame::data(Bytes::new()))))
        }
    }
    let made = most.clone();
    let site = Site::new(Origin::says(move |_, _| {
        let mut response = larder_tests::response("max-age=60", "");
        *response.body_mut() = Empties(made.clone()).boxed_unsync();
        response
    }));
    let head = site.head_of(get("/")).await.unwrap();
    let made = most.load(Ordering::SeqCst);
    assert!(made < 100_000, "{made} empty frames before the head");
    assert_eq!(Got::read(head).await.unwrap().text(), "");

    // Some of them hurt nobody.
    for hesitant in [true, false] {
        let site = Site::new(Origin::says(move |_, _| {
            let mut response = larder_tests::response("max-age=60", "");
            let script: VecDeque<Step> = ["", "a", "", "", "b", ""].into_iter().map(data).collect();
            *response.body_mut() =
                if hesitant { Hesitant(script, false).boxed_unsync() } else { steps(script) };
            response
        }));
        assert_eq!(site.get("/").await.text(), "ab");
        let hit = site.get("/").await;
        assert!(hit.hit() && hit.text() == "ab");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_events_come_as_they_are_made() {
    let storable = "public, max-age=60";
    for (cache_control, kind) in [
        ("no-store", "text/event-stream"),
        ("private", "text/event-stream"),
        ("", "text/event-stream"),
        (storable, "text/event-stream"),
        (storable, "application/x-ndjson"),
    ] {
        let (steps, body) = scripted();
        let body = std::sync::Mutex::new(Some(body));
        let site = Site::new(Origin::says(move |_, _| {
            let mut response = response(cache_control, "");
            append(response.headers_mut(), &[("content-type", kind)]);
            *response.body_mut() = body.lock().unwrap().take().unwrap();
            response
        }));
        let server = Server::start(site.service()).await;
        let mut http1 = server.http1().await;
        http1.write("GET /events HTTP/1.1\r\nHost: site.example\r\n\r\n").await;
        // The head comes before there is any event, and each event before the next is made.
        let (status, _) = http1.head().await.unwrap();
        assert_eq!(status, 200);
        for n in 0..100 {
            let event = format!("data: {n}\n\n");
            steps.send(data(event.clone())).unwrap();
            assert_eq!(http1.chunk().await.unwrap(), event.into_bytes(), "{cache_control}");
        }
        // Past the limit they go on.
        let big = vec![b'e'; 512 << 10];
        for _ in 0..4 {
            steps.send(data(big.clone())).unwrap();
            assert_eq!(http1.chunk().await.unwrap(), big, "{cache_control}");
        }
        steps.send(data("data: last\n\n")).unwrap();
        assert_eq!(http1.chunk().await.unwrap(), b"data: last\n\n");
        assert_eq!(site.larder.entries(), 0);
        // And a client that goes away ends them.
        drop(http1);
        until("the stream has ended", || steps.send(data("x")).is_err()).await;
        until("the fill has ended", || site.larder.flights() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn b04_everybody_has_a_stream_of_events_of_its_own_at_once() {
    let hands = Arc::new(std::sync::Mutex::new(Vec::new()));
    let given = hands.clone();
    let site = Site::with(
        Origin::says(move |_, _| {
            let (steps, body) = scripted();
            given.lock().unwrap().push(steps);
            let mut response = response("public, max-age=600", "");
            append(response.headers_mut(), &[("content-type", "text/event-stream")]);
            response.map(|_| body)
        }),
        |layer| layer.ttl(Duration::from_secs(60)),
    );
    let begun = tokio::time::Instant::now();
    for n in 0..3 {
        let mut listener = site.head_of(get("/events")).await.unwrap();
        hands.lock().unwrap()[n].send(data("own")).unwrap();
        let event = listener.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, "own");
    }
    assert_eq!((site.calls(), site.larder.flights()), (3, 0));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn b04_an_endless_body_is_given_up_at_the_deadline_and_goes_on() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let site = Site::with(
        Origin::says(move |_, _| {
            let (steps, body) = scripted();
            sender.send(steps).unwrap();
            let mut response = response("max-age=600", "");
            *response.body_mut() = body;
            response
        }),
        |layer| layer.fill_deadline(Duration::from_secs(30)).wait(Duration::from_secs(3)),
    );
    let mut first = site.head_of(get("/")).await.unwrap();
    let steps = receiver.try_recv().unwrap();
    steps.send(data("one")).unwrap();
    let mut frame = async || first.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame().await, "one");
    // Another client does not wait for its end.
    let begun = tokio::time::Instant::now();
    let mut second = site.head_of(get("/")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    let frame_of_second = second.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame_of_second.into_data().unwrap(), "one");
    drop(second);

    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(site.larder.flights(), 0);
    for event in ["two", "three"] {
        steps.send(data(event)).unwrap();
        assert_eq!(frame().await, event);
    }
    drop(steps);
    assert!(first.body_mut().frame().await.is_none());
    assert_eq!(site.larder.entries(), 0);
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    append(&mut trailers, &[("x-sum", "1"), ("x-sum", "2"), ("grpc-status", "0")]);
    trailers
}

#[tokio::test]
async fn b05_trailers_come_on_miss_hit_and_bypass() {
    for hesitant in [false, true] {
        for bodies in [vec!["some", "data"], vec!["one"], vec![]] {
            let frames = bodies.clone();
            let site = Site::new(Origin::says(move |_, _| {
                let mut response = response("public, max-age=60", "");
                append(response.headers_mut(), &[("trailer", "x-sum, grpc-status")]);
                let script: VecDeque<Step> = frames
                    .iter()
                    .map(|text| data(*text))
                    .chain([Step::Trailers(trailers())])
                    .collect();
                *response.body_mut() =
                    if hesitant { Hesitant(script, false).boxed_unsync() } else { steps(script) };
                response
            }));
            let server = Server::start(site.service()).await;
            let mut http1 = server.http1().await;
            let mut http2 = server.http2().await;
            let mut ask = async |method: &str, target: &str| {
                let text = format!(
                    "{method} {target} HTTP/1.1\r\nHost: site.example\r\nTE: trailers\r\nContent-Length: 0\r\n\r\n"
                );
                http1.write(text).await;
                let one = http1.response().await;
                let two = http2.send(request(method, &format!("{target}h2"), &[])).await;
                let three = http2.send(request(method, target, &[])).await;
                for (protocol, got) in
                    [("HTTP/1.1", &one), ("HTTP/2", &two), ("HTTP/2 after 1", &three)]
                {
                    let what =
                        format!("{protocol} {method} {target}, hesitant: {hesitant}, {bodies:?}");
                    assert_eq!(got.trailers, Some(trailers()), "{what}: {got:?}");
                    assert_eq!(got.text(), bodies.concat(), "{what}");
                }
                (one.hit(), two.hit(), three.hit())
            };
            assert_eq!(ask("GET", "/p").await, (false, false, true));
            assert_eq!(ask("GET", "/p").await, (true, true, true));
            assert_eq!(ask("POST", "/p").await, (false, false, false));
            // Those who wait for a fill get them too.
            let (one, two) = tokio::join!(site.get("/both"), site.get("/both"));
            assert_eq!((one.trailers, two.trailers), (Some(trailers()), Some(trailers())));
            // A HEAD has neither body nor trailers.
            let head = site.send(request("HEAD", "/both", &[])).await;
            assert!(head.hit() && head.trailers.is_none() && head.body.is_empty());
        }
    }
}

#[tokio::test]
async fn b05_a_cookie_in_the_trailers_is_not_replayed() {
    for hesitant in [false, true] {
        let site = Site::new(Origin::says(move |_, _| {
            let mut late = HeaderMap::new();
            append(&mut late, &[("set-cookie", "session=anna")]);
            let script = VecDeque::from([data("body"), Step::Trailers(late)]);
            let mut response = response("public, max-age=60", "");
            *response.body_mut() =
                if hesitant { Hesitant(script, false).boxed_unsync() } else { steps(script) };
            response
        }));
        assert!(site.get("/").await.trailers.is_some());
        assert!(!site.get("/").await.hit());
        assert_eq!(site.larder.entries(), 0);
    }
}

#[tokio::test]
async fn c75_length_and_coding_survive_a_hit() {
    let site = Site::new(Origin::says(|_, request| {
        let mut response = answer(
            200,
            &[("cache-control", "max-age=60"), ("content-encoding", "gzip")],
            "0123456789",
        );
        if request.uri().path() == "/said" {
            append(response.headers_mut(), &[("content-length", "10")]);
        }
        response
    }));
    let server = Server::start(site.service()).await;
    let mut http1 = server.http1().await;
    for target in ["/said", "/unsaid"] {
        for _ in 0..3 {
            let got = http1.get("site.example", target).await;
            assert_eq!(got.field("content-length").as_deref(), Some("10"), "{target}");
            assert_eq!(got.field("content-encoding").as_deref(), Some("gzip"));
            assert_eq!(got.field("transfer-encoding"), None);
        }
    }
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn bodies_of_other_buffers_are_read_as_they_are() {
    type Buffer = std::io::Cursor<Vec<u8>>;
    let larder = Larder::new();
    let service = CacheLayer::new(&larder.cache).cache_status("t").layer(tower::service_fn(
        |_: Request<TestBody>| async {
            let mut buffer = Buffer::new(b"skipped and read".to_vec());
            buffer.set_position(12);
            let mut response = Response::new(http_body_util::Full::new(buffer));
            append(response.headers_mut(), &[("cache-control", "max-age=60")]);
            Ok::<_, Failure>(response)
        },
    ));
    for hit in [false, true] {
        let got = Got::read(service.clone().oneshot(get("/")).await.unwrap()).await.unwrap();
        assert_eq!((got.hit(), &*got.text()), (hit, "read"));
    }
}
