//! The rule of `marking.rs`, step by step: somebody stands between a node and its server, and does the worst at the
//! worst moment, just before a certain request is carried out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{builder, over, shop};
use larder_core::{Backend, Key, Sequence, Tag};
use larder_memcached::MemcachedBackend;
use larder_testkit::servers::MemcachedServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

mod common;

// Requests with these words in one line wait until they are let go, once.
type Words = [&'static str; 2];

struct Between {
    port: u16,
    words: Arc<Mutex<Option<Words>>>,
    // A place to answer for each request that waits.
    stopped: mpsc::Receiver<tokio::sync::oneshot::Sender<()>>,
}

impl Between {
    async fn new(server: &MemcachedServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), server.address());
        let words: Arc<Mutex<Option<Words>>> = Arc::default();
        let (stop, stopped) = mpsc::channel(1);
        let looked_for = words.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The scene's server goes before its nodes do.
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let (mut from, mut to) = client.into_split();
                let (mut answers, mut requests) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to).await });
                let (words, stop) = (looked_for.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65536];
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                        let hit = |words: &mut Words| {
                            text.lines().any(|line| words.iter().all(|word| line.contains(word)))
                        };
                        let found = words.lock().unwrap().take_if(hit).is_some();
                        if found {
                            let (go, gone) = tokio::sync::oneshot::channel();
                            stop.send(go).await.unwrap();
                            gone.await.unwrap();
                        }
                        requests.write_all(&buffer[..count]).await.unwrap();
                    }
                });
            }
        });
        Between { port, words, stopped }
    }

    // Does something while the next request with these words waits.
    async fn before(&mut self, words: Words, action: impl AsyncFnOnce()) {
        *self.words.lock().unwrap() = Some(words);
        let stopped = tokio::time::timeout(Duration::from_secs(60), self.stopped.recv()).await;
        let go = stopped.expect("there is such a request").unwrap();
        action().await;
        go.send(()).unwrap();
    }
}

struct Scene {
    server: MemcachedServer,
    between: Between,
    here: MemcachedBackend,
    there: MemcachedBackend,
    tags: [Tag; 1],
}

impl Scene {
    async fn new() -> Self {
        let server = MemcachedServer::start().await;
        let between = Between::new(&server).await;
        let here = builder(&server.url_at(between.port)).connect().await.unwrap();
        let there = over(&[&server]).await;
        here.marks(&shop(), &[]).await.unwrap();
        Scene { between, here, there, tags: [Tag::new("t").unwrap()], server }
    }

    fn record(&self) -> Key {
        Key::tag(&shop(), &self.tags[0])
    }
}

// The last invalidation as the server has it.
async fn recorded(backend: &MemcachedBackend, record: Key) -> Option<Sequence> {
    let found = backend.get(&common::key("none"), &[record]).await.unwrap();
    found.counters[0].and_then(Sequence::from_i64)
}

async fn lose(server: &MemcachedServer, backend: &MemcachedBackend, key: &Key) {
    let (_, name) = backend.place(key).await.unwrap();
    assert_eq!(server.send(format!("md {name}\r\n").as_bytes()).await.unwrap(), b"HD\r\n");
}

// While one node makes a tag's record, another one invalidates the tag, and the record may be lost again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_made_late_does_not_undo_an_invalidation() {
    for words in [["mg ", " N"], ["ms ", ":t:"]] {
        for lost in [false, true] {
            let mut scene = Scene::new().await;
            let (shop, record) = (shop(), scene.record());
            let mut next = Sequence::NONE;
            // The first reading of the record finds nothing, and comes before both.
            let (marks, ()) = tokio::join!(
                scene.here.marks(&shop, &scene.tags),
                scene.between.before(words, async || {
                    next = scene.there.invalidate(&shop, &scene.tags).await.unwrap();
                    if lost {
                        lose(&scene.server, &scene.there, &record).await;
                    }
                })
            );
            let marks = marks.unwrap();
            let there = recorded(&scene.there, record).await;
            let what = format!("{words:?}, lost: {lost}");
            assert!(there.is_some_and(|there| there >= next), "{what}: {there:?} after {next:?}");
            assert!(marks.tags[0] >= next, "{what}: {marks:?} after {next:?}");
        }
    }
}

// While one node invalidates, the sequence is lost, and another node invalidates in the new epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_of_a_lost_epoch_takes_a_number_of_the_present_one() {
    let mut scene = Scene::new().await;
    let shop = shop();
    let sequence = Key::sequence(&shop);
    let mut theirs = Sequence::NONE;
    // Its record is missing: before it is written, the sequence is read.
    let (ours, ()) = tokio::join!(
        scene.here.invalidate(&shop, &scene.tags),
        scene.between.before(["mg ", ":q:"], async || {
            lose(&scene.server, &scene.there, &sequence).await;
            theirs = scene.there.invalidate(&shop, &scene.tags).await.unwrap();
        })
    );
    let ours = ours.unwrap();
    assert!(ours.same_epoch(theirs), "{ours:?} beside {theirs:?}");
    let there = recorded(&scene.there, scene.record()).await;
    assert!(there.is_some_and(|there| there >= theirs && there >= ours), "{there:?}");
}

// Two invalidations at once: the smaller number never overwrites the larger one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_number_does_not_overwrite_a_larger_one() {
    let mut scene = Scene::new().await;
    let shop = shop();
    scene.here.marks(&shop, &scene.tags).await.unwrap();
    let mut theirs = Sequence::NONE;
    let (ours, ()) = tokio::join!(
        scene.here.invalidate(&shop, &scene.tags),
        scene.between.before(["ms ", ":t:"], async || {
            theirs = scene.there.invalidate(&shop, &scene.tags).await.unwrap();
        })
    );
    assert!(ours.unwrap() < theirs);
    assert_eq!(recorded(&scene.there, scene.record()).await, Some(theirs));
}
