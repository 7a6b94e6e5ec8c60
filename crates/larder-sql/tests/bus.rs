//! Messages between nodes, over a real PostgreSQL.
#![cfg(feature = "postgres")]

use std::time::Duration;

use bytes::Bytes;
use larder_core::{Bus, Heard, Namespace};
use larder_sql::PostgresBackend;
use larder_testkit::proxy::{Direction, FaultProxy, Mode};
use larder_testkit::servers::PostgresServer;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SILENCE: Duration = Duration::from_secs(60);

struct Ear(UnboundedReceiver<Heard>, tokio::task::AbortHandle);

impl Ear {
    async fn next(&mut self) -> Heard {
        let next = tokio::time::timeout(SILENCE, self.0.recv()).await;
        next.expect("something is heard").expect("it listens")
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.1.abort();
    }
}

fn listen(bus: impl Bus, silence: Duration) -> Ear {
    let (said, heard) = unbounded_channel();
    let listening =
        tokio::spawn(async move { bus.listen(silence, |one| drop(said.send(one))).await });
    Ear(heard, listening.abort_handle())
}

async fn backend(url: &str) -> PostgresBackend {
    let builder = PostgresBackend::builder().url(url).unwrap().create(true);
    let builder = builder.connect_timeout(SILENCE).response_timeout(SILENCE);
    builder.connect().await.unwrap()
}

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_listener_hears_every_message_whole_and_in_order() {
    let server = PostgresServer::start().await;
    let (one, two) = (backend(&server.url()).await, backend(&server.url()).await);
    let mut ears = [&one, &two].map(|backend| listen(backend.bus(&shop()), SILENCE));
    let mut stranger = listen(one.bus(&Namespace::new("other").unwrap()), SILENCE);
    for ear in ears.iter_mut().chain([&mut stranger]) {
        assert_eq!(ear.next().await, Heard::Connected);
    }
    let bus = one.bus(&shop());
    let messages: Vec<Bytes> = [0, 1, 5_700, 100_000, 1 << 20, 3]
        .map(|length| (0..length).map(|at: usize| (at % 253) as u8).collect())
        .into();
    // The same once more is another message.
    for message in messages.iter().chain(&messages) {
        bus.publish(message.clone()).await.unwrap();
    }
    for ear in &mut ears {
        for message in messages.iter().chain(&messages) {
            assert_eq!(ear.next().await, Heard::Message(message.clone()));
        }
    }
    // What is too long is no secret.
    bus.publish(vec![0; (1 << 20) + 1].into()).await.unwrap();
    bus.publish("after".into()).await.unwrap();
    for ear in &mut ears {
        assert_eq!(ear.next().await, Heard::Lost);
        assert_eq!(ear.next().await, Heard::Connected);
        assert_eq!(ear.next().await, Heard::Message("after".into()));
    }
    assert!(stranger.0.try_recv().is_err(), "it is another namespace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_a_gap_and_it_listens_again_by_itself() {
    let mut server = PostgresServer::start().await;
    let backend = backend(&server.url()).await;
    let mut ear = listen(backend.bus(&shop()), SILENCE);
    assert_eq!(ear.next().await, Heard::Connected);
    for round in 0..3 {
        if round < 2 {
            let mut database = PgConnection::connect(&server.url()).await.unwrap();
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'";
            sqlx::query(kill).execute(&mut database).await.unwrap();
        } else {
            server.kill();
            assert_eq!(ear.next().await, Heard::Lost);
            assert!(backend.bus(&shop()).publish("nobody".into()).await.is_err());
            server.restart().await;
        }
        if round < 2 {
            assert_eq!(ear.next().await, Heard::Lost);
        }
        assert_eq!(ear.next().await, Heard::Connected);
        while backend.bus(&shop()).publish("hello".into()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(ear.next().await, Heard::Message("hello".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_is_given_up() {
    let server = PostgresServer::start().await;
    let proxy = FaultProxy::start(server.address()).await;
    let backend = backend(&server.url_at(proxy.port())).await;
    let mut ear = listen(backend.bus(&shop()), Duration::from_millis(300));
    assert_eq!(ear.next().await, Heard::Connected);
    proxy.set(Direction::Replies, Mode::Hold);
    assert_eq!(ear.next().await, Heard::Lost);
}
