//! Ids are in cookies, and nowhere else.

mod common;

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Arc, Mutex};

use common::{Stand, exchange, patient};
use http::{Request, Response};
use larder_core::ErrorKind as StoreError;
use larder_redis::RedisBackend;
use larder_session::{Session, SessionLayer};
use larder_testkit::faulty::{Fault, Verb};
use larder_testkit::servers::RedisServer;
use tower::{Layer, Service, service_fn};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::util::SubscriberInitExt;

/// Everything that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logging(log: &Log) -> DefaultGuard {
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .set_default()
}

/// Every encoding in which an id could have got somewhere.
fn encodings(cookie: &str) -> Vec<Vec<u8>> {
    let text = cookie.split_once('=').unwrap().1.to_owned();
    let bytes: Vec<u8> = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect();
    let decimal = format!("{:?}", &bytes[..8]).replace(['[', ']'], "");
    vec![text.to_uppercase().into(), text[..24].into(), decimal.into(), bytes]
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn s11_no_log_error_or_debug_form_holds_an_id() {
    let log = Log::default();
    let _guard = logging(&log);
    let stand = Stand::new();
    let mut shown = String::new();
    let mut cookies = Vec::new();
    for round in 0..20 {
        let mut browser = stand.browser();
        browser.send(|session| async move { session.insert("user", &round).await }).await;
        cookies.push(browser.cookie.clone().unwrap());
        let old = browser.cookie.clone();
        let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
        browser
            .send(|session| async move {
                session.rotate().await?;
                session.save().await?;
                let _ = told.send(format!("{session:?} {:?}", session.id_hash().await?));
                Ok(())
            })
            .await;
        cookies.push(browser.cookie.clone().unwrap());
        shown += &tells.recv().await.unwrap();
        let insert = |session: Session| async move { session.insert("user", &1000).await };
        for verb in [Verb::Get, Verb::Put] {
            stand.faults.inject(Fault::Fail(StoreError::Unavailable), &[verb]);
            assert_eq!(browser.send(insert).await.status, 503);
            stand.faults.heal();
        }
        assert_eq!(exchange(&stand.layer, old.as_deref(), insert).await.status, 409);
        exchange(&stand.layer, Some(&old.unwrap().to_uppercase()), insert).await;
        let mut service = stand.layer.layer(service_fn(|request: Request<()>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", request.extensions())))
        }));
        let future = service.call(common::request(browser.cookie.as_deref()));
        shown += &format!("{:?} {future:?}", stand.layer);
        shown += &format!("{:?}", stand.faults.calls());
        browser.send(|session| async move { session.destroy().await }).await;
    }
    let logged = log.0.lock().unwrap().clone();
    assert!(logged.len() > 1000, "something was logged");
    for cookie in cookies {
        for encoding in encodings(&cookie) {
            assert!(!holds(&logged, &encoding) && !holds(shown.as_bytes(), &encoding));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_dump_of_the_store_holds_no_id() {
    let server = RedisServer::start().await;
    let url = format!("{}?response_timeout=120s&connect_timeout=20s", server.url());
    let backend = RedisBackend::connect(&url).await.expect("a connection");
    let layer = SessionLayer::new(&patient(backend, "shop")).evictable();
    let mut cookies = Vec::new();
    for round in 0..1000 {
        let mut browser = common::Browser::new(&layer);
        browser.send(|session| async move { session.insert("user", &round).await }).await;
        cookies.push(browser.cookie.clone().unwrap());
        if round % 3 == 0 {
            browser.send(|session| async move { session.rotate().await }).await;
            cookies.push(browser.cookie.unwrap());
        }
    }
    let dump = r"
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local value = redis.pcall('GET', key)
  all[#all + 1] = key .. '=' .. (type(value) == 'string' and value or '')
end
return table.concat(all, ' ')";
    let dump = server.command(&["EVAL", dump, "0"]).await.unwrap();
    assert!(dump.len() > 1000 * 64);
    assert!(holds(&dump, b"user"), "records are in it");
    let windows: HashSet<&[u8]> = dump.windows(16).collect();
    for cookie in cookies {
        for encoding in encodings(&cookie) {
            assert!(!windows.contains(&encoding[..16]));
        }
    }
}
