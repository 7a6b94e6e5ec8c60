//! What a store gives back, at random: envelopes, heads of responses, keys.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use larder_cache::Cache;
use larder_core::envelope::{Envelope, TimeBase};
use larder_core::{Clock, Encoded, Entry, Generation, Key, Namespace, Prefix, Times, Ttl, When};
use larder_http::CacheLayer;
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt, service_fn};

fn shop() -> Namespace {
    Namespace::new("shop").unwrap()
}

#[test]
fn envelopes() {
    let (clock, _) = Clock::manual();
    let (envelope, base) = (Envelope::default(), TimeBase { at: clock.now(), millis: 1_000_000 });
    let key = Key::new(&shop(), ["k"]).unwrap();
    let entry = Entry::wire(Encoded { codec: 7, body: "hello".into(), ..Encoded::default() });
    let entry = entry.with_times(Times::starting(clock.now(), None, None));
    let good = envelope.encode(key.as_ref(), &entry, &base).unwrap();
    bolero::check!().with_type::<(Vec<u8>, u16, bool)>().for_each(|(noise, at, whole)| {
        // All of it at random, or a good one with something in it overwritten.
        let mut bytes = if *whole { noise.clone() } else { good.to_vec() };
        if !whole {
            let at = usize::from(*at) % bytes.len();
            let end = (at + noise.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&noise[..end - at]);
        }
        // The body and its checksum are looked at only where that is asked for; everything else always is.
        let verified = |bytes: &[u8]| {
            let head = bytes.len().checked_sub("hello".len())?;
            Some([bytes.get(..96)?, bytes.get(100..head)?].concat())
        };
        let same = bytes.len() == good.len() && verified(&bytes) == verified(&good);
        let read = envelope.decode(bytes.into(), key.as_ref(), &base);
        assert_eq!(read.is_ok(), same, "{read:?}");
    });
}

#[test]
fn keys() {
    bolero::check!().with_type::<Vec<Option<Vec<u8>>>>().for_each(|parts| {
        let mut buf = larder_core::KeyBuf::new(&shop());
        parts.iter().for_each(|part| buf.push_optional(part.as_deref()));
        let Ok(key) = buf.key() else { return };
        let read: Vec<Option<Vec<u8>>> =
            key.as_ref().parts().map(|part| part.map(<[u8]>::to_vec)).collect();
        assert_eq!(&read, parts);
        // What a server sees is short and plain.
        let name = key.as_ref().wire_name(Generation::random());
        assert!(name.len() <= 200 && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
    });
}

#[test]
fn heads_of_responses() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = Cache::memory();
    let layer = CacheLayer::new(&cache);
    let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
        let response = Response::builder()
            .header("cache-control", "max-age=60")
            .header("vary", "accept-language")
            .header("etag", "\"1\"");
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from("hello"))).unwrap())
    }));
    let ask = move |runtime: &Runtime| {
        let request = Request::get("http://site.example/p").header("accept-language", "de");
        let request = request.body(Full::default()).unwrap();
        runtime.block_on(async {
            let response = service.clone().oneshot(request).await.unwrap();
            (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
        })
    };
    ask(&runtime);
    let store = cache.store().clone();
    let prefix = Prefix::new(store.namespace());
    let key = runtime.block_on(store.page(&prefix, None, 10)).unwrap().keys.remove(0);
    let found = runtime.block_on(store.get(&key, &[])).unwrap().entry.unwrap();
    let good = found.encoded().unwrap();
    // Nobody looks at it after a panic.
    let kept = AssertUnwindSafe((runtime, store, key, good, ask));
    bolero::check!().with_type::<(Vec<u8>, u16, bool)>().for_each(|(noise, at, whole)| {
        let AssertUnwindSafe((runtime, store, key, good, ask)) = &kept;
        let mut head = if *whole { noise.clone() } else { good.head.to_vec() };
        if !whole {
            let at = usize::from(*at) % head.len();
            let end = (at + noise.len()).min(head.len());
            head[at..end].copy_from_slice(&noise[..end - at]);
        }
        let encoded = Encoded { head: head.into(), ..good.clone() };
        let ttl = Ttl::For(Duration::from_secs(60));
        let put = store.put(key, Entry::wire(encoded), ttl, When::Always);
        let _ = runtime.block_on(put).unwrap();
        // A status and fields may have been changed into other valid ones: on a server, checksums find that out.
        let (status, body) = ask(runtime);
        assert!((100..1000).contains(&status) && (body == "hello" || body.is_empty()));
    });
}
