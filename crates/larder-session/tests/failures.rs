//! Stores that fail, handlers that panic, clients that leave.

mod common;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use common::{Browser, Stand, exchange, request};
use http::{Request, Response};
use larder_cache::{Cache, WriteThrough};
use larder_core::{Clock, ErrorKind as StoreError};
use larder_session::{ErrorKind, Event, KeyRing, Sealed, Session, SessionLayer};
use larder_testkit::cancel::drop_after;
use larder_testkit::faulty::{Fault, Faulty, Verb};
use larder_testkit::reference::Reference;
use tower::{Layer, Service, ServiceExt, service_fn};

async fn put(session: Session) -> larder_session::Result<()> {
    session.insert("user", &7).await
}

#[tokio::test]
async fn o06_an_outage_is_503_without_any_cookie_whatever_the_handler_makes_of_it() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    stand.faults.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    type Handler =
        fn(Session) -> std::pin::Pin<Box<dyn Future<Output = larder_session::Result<()>>>>;
    let handlers: [Handler; 5] = [
        |session| Box::pin(async move { session.get::<i32>("user").await.map(drop) }),
        // An outage that a handler keeps to itself would be a silent anonymous visitor.
        |session| {
            Box::pin(async move {
                session.get::<i32>("user").await.ok();
                Ok(())
            })
        },
        |session| {
            Box::pin(async move {
                session.insert("n", &1).await.ok();
                Ok(())
            })
        },
        |session| Box::pin(async move { session.destroy().await }),
        |session| {
            Box::pin(async move {
                session.save().await.and(session.get::<i32>("n").await).ok();
                Ok(())
            })
        },
    ];
    for handler in handlers {
        let got = browser.send(handler).await;
        assert_eq!((got.status.as_u16(), got.set_cookie()), (503, None));
        assert!(got.is_marked());
    }
    // Not used, not asked.
    assert_eq!(browser.send(|_| async { Ok(()) }).await.status, 200);
    stand.faults.heal();
    browser
        .send(|session| async move {
            assert_eq!(session.get("user").await?, Some(7));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn o06_routes_may_serve_the_anonymous_during_an_outage_but_write_nothing() {
    let stand = Stand::with(|layer| layer.read_only_on_outage());
    let mut browser = stand.browser();
    browser.send(put).await;
    stand.faults.inject(Fault::Fail(StoreError::Timeout), &Verb::ALL);
    let got = browser
        .send(|session| async move {
            assert_eq!(session.get::<i32>("user").await?, None);
            assert_eq!(session.insert("user", &8).await.unwrap_err().kind(), ErrorKind::Store);
            assert_eq!(session.rotate().await.unwrap_err().kind(), ErrorKind::Store);
            Ok(())
        })
        .await;
    assert_eq!((got.status.as_u16(), got.set_cookie()), (200, None));
    let got = browser.send(|session| async move { session.destroy().await }).await;
    assert_eq!((got.status.as_u16(), got.set_cookie()), (503, None));
}

#[tokio::test]
async fn s22_a_save_that_fails_sets_no_cookie_and_leaves_no_part_of_a_record() {
    for fault in
        [StoreError::Unavailable, StoreError::Timeout, StoreError::TooLarge, StoreError::Other]
    {
        for (step, existing) in
            [("insert", false), ("insert", true), ("rotate", true), ("destroy", true)]
        {
            let stand = Stand::new();
            let mut browser = stand.browser();
            if existing {
                browser.send(put).await;
            }
            let entries = stand.memory.usage().entries;
            stand.faults.inject(Fault::Fail(fault), &[Verb::Put]);
            let got = browser
                .send(|session| async move {
                    match step {
                        "insert" => session.insert("user", &8).await,
                        "rotate" => session.rotate().await,
                        _ => session.destroy().await,
                    }
                })
                .await;
            assert_eq!((got.status.as_u16(), got.set_cookie()), (503, None), "{step}");
            assert_eq!(got.error, Some(ErrorKind::Store));
            assert_eq!(stand.memory.usage().entries, entries);
            stand.faults.heal();
            browser
                .send(|session| async move {
                    assert_eq!(session.get("user").await?, existing.then_some(7), "{step}");
                    Ok(())
                })
                .await;
        }
    }
}

#[tokio::test]
async fn s22_a_rotation_that_fails_half_way_leaves_the_old_session_and_nothing_else() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    // The new record is stored, the stone over the old one is not.
    let entries = stand.memory.usage().entries;
    let faults = stand.faults.clone();
    let got = browser
        .send(|session| async move {
            session.rotate().await?;
            // The later rule counts first; each is used up by one call.
            faults.inject_times(1, Fault::Fail(StoreError::Unavailable), &[Verb::Put]);
            faults.inject_times(1, Fault::Delay(std::time::Duration::ZERO), &[Verb::Put]);
            Ok(())
        })
        .await;
    assert_eq!((got.status.as_u16(), got.set_cookie()), (503, None));
    assert_eq!(stand.memory.usage().entries, entries);
    browser
        .send(|session| async move {
            assert_eq!(session.get("user").await?, Some(7));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_refresh_that_fails_costs_nothing_but_the_refresh() {
    let stand = Stand::with(|layer| layer.refresh(larder_session::Refresh::Always));
    let mut browser = stand.browser();
    browser.send(put).await;
    stand.faults.inject(Fault::Fail(StoreError::Unavailable), &[Verb::Touch]);
    let got = browser.send(|session| async move { session.contains("user").await.map(drop) }).await;
    assert_eq!((got.status.as_u16(), got.set_cookie()), (200, None));
}

#[tokio::test]
async fn s24_unknown_ids_are_counted_and_take_no_room() {
    let counted = Arc::new(AtomicUsize::new(0));
    let counts = counted.clone();
    let stand = Stand::with(|layer| {
        layer.on_event(move |event| {
            assert_eq!(event, Event::UnknownId);
            counts.fetch_add(1, Ordering::SeqCst);
        })
    });
    let guesses = std::env::var("LARDER_GUESSES").ok().and_then(|many| many.parse().ok());
    let guesses = guesses.unwrap_or(10_000);
    for n in 0..guesses {
        let guess = format!("__Host-id={n:064x}");
        let got = exchange(&stand.layer, Some(&guess), |session| async move {
            session.contains("user").await.map(drop)
        })
        .await;
        assert_eq!(got.set_cookie(), None);
    }
    assert_eq!(counted.load(Ordering::SeqCst), guesses);
    assert_eq!(stand.memory.usage().entries, 0);
}

#[tokio::test]
async fn every_event_is_told_to_the_hook() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tells = told.clone();
    let stand = Stand::with(|layer| layer.on_event(move |event| tells.lock().unwrap().push(event)));
    let heard = || std::mem::take(&mut *told.lock().unwrap());
    let read = |session: Session| async move { session.contains("user").await.map(drop) };
    let (mut one, mut two) = (stand.browser(), stand.browser());
    one.send(put).await;
    two.send(put).await;
    assert_eq!(heard(), [Event::Began, Event::Began]);
    let both = format!("{}; {}", one.cookie.clone().unwrap(), two.cookie.clone().unwrap());
    exchange(&stand.layer, Some(&both), read).await;
    exchange(&stand.layer, Some("__Host-id=x"), read).await;
    assert_eq!(heard(), [Event::Ambiguous, Event::Malformed]);

    let (rotated, destroyed) = (one.cookie.clone(), two.cookie.clone());
    one.send(|session| async move { session.rotate().await }).await;
    two.send(|session| async move { session.destroy().await }).await;
    exchange(&stand.layer, rotated.as_deref(), read).await;
    exchange(&stand.layer, destroyed.as_deref(), read).await;
    assert_eq!(heard(), [Event::DeadId, Event::DeadId]);

    stand.faults.inject(Fault::Fail(StoreError::Unavailable), &[Verb::Put]);
    one.send(|session| async move { session.insert("user", &8).await }).await;
    stand.faults.heal();
    stand.faults.inject(Fault::Fail(StoreError::Unavailable), &[Verb::Get]);
    one.send(read).await;
    stand.faults.heal();
    assert_eq!(heard(), [Event::Failed, Event::Failed]);
}

#[tokio::test]
async fn a_handler_that_panics_saves_nothing() {
    let stand = Stand::new();
    let layer = stand.layer.clone();
    let panicking = tokio::spawn(async move {
        exchange(&layer, None, |session| async move {
            session.insert("user", &7).await?;
            panic!("as it was told to")
        })
        .await
    });
    assert!(panicking.await.unwrap_err().is_panic());
    stand.layer.drained().await;
    assert_eq!(stand.faults.total(), 0);
}

#[tokio::test]
async fn a_closure_that_panics_when_it_is_run_again_is_a_panic_and_saves_nothing() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    let (layer, mut other) = (stand.layer.clone(), browser.clone());
    let cookie = browser.cookie.clone();
    let panicking = tokio::spawn(async move {
        exchange(&layer, cookie.as_deref(), |session| async move {
            let mut runs = 0;
            let update = move |n: &mut u8| {
                runs += 1;
                assert!(runs < 2, "as it was told to");
                *n += 1;
            };
            session.update("n", update).await?;
            other.send(|session| async move { session.insert("m", &1).await }).await;
            Ok(())
        })
        .await
    });
    assert!(panicking.await.unwrap_err().is_panic());
    stand.layer.drained().await;
    browser
        .send(|session| async move {
            assert_eq!(session.keys().await?, ["m", "user"]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn s21_whenever_the_client_leaves_all_is_saved_or_nothing() {
    for polls in 0..40 {
        let stand = Stand::new();
        let mut browser = stand.browser();
        browser.send(put).await;
        // Every call of the store takes a turn of the runtime.
        stand.faults.inject(Fault::Delay(std::time::Duration::ZERO), &[Verb::Get, Verb::Put]);
        let returned = Arc::new(AtomicUsize::new(0));
        let returns = returned.clone();
        let leaving = exchange(&stand.layer, browser.cookie.as_deref(), |session| async move {
            session.insert("user", &8).await?;
            tokio::task::yield_now().await;
            session.insert("n", &1).await?;
            returns.store(1, Ordering::SeqCst);
            Ok(())
        });
        drop_after(polls, leaving).await;
        stand.layer.drained().await;
        let saved = returned.load(Ordering::SeqCst) == 1;
        browser
            .send(|session| async move {
                assert_eq!(session.get("user").await?, Some(if saved { 8 } else { 7 }));
                assert_eq!(session.contains("n").await?, saved, "after {polls} polls");
                Ok(())
            })
            .await;
    }
}

#[tokio::test]
async fn d18_a_call_that_was_dropped_is_made_wholly_or_not_at_all_and_the_next_one_works() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    stand.faults.inject(Fault::Delay(std::time::Duration::ZERO), &Verb::ALL);
    for polls in 0..8 {
        browser
            .send(|session| async move {
                let _ = drop_after(polls, session.get::<i32>("user")).await;
                let made = drop_after(polls, session.update("n", |n: &mut u8| *n += 1)).await;
                let before = session.get::<u8>("n").await?.unwrap_or(0);
                if let Some(made) = made {
                    assert_eq!(made?, before);
                }
                let _ = drop_after(polls, session.insert("m", &polls)).await;
                let _ = drop_after(polls, session.rotate()).await;
                let _ = drop_after(polls, session.save()).await;
                assert_eq!(session.get("user").await?, Some(7));
                Ok(())
            })
            .await;
    }
}

#[tokio::test]
async fn d19_what_was_saved_for_clients_that_left_is_waited_for() {
    let stand = Stand::new();
    stand.faults.inject(Fault::Hang, &[Verb::Put]);
    let leaving = exchange(&stand.layer, None, put);
    assert!(drop_after(1, leaving).await.is_none());
    let mut drained = pin!(stand.layer.drained());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let mut context = Context::from_waker(Waker::noop());
    assert!(drained.as_mut().poll(&mut context).is_pending());
    stand.faults.heal();
    drained.await;
    assert_eq!(stand.memory.usage().entries, 1);
}

#[tokio::test]
async fn what_comes_after_the_head_is_an_error_and_changes_nothing() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    for used in [false, true] {
        let kept = Arc::new(std::sync::Mutex::new(None));
        let keeps = kept.clone();
        browser
            .send(|session| async move {
                if used {
                    session.insert("user", &7).await?;
                }
                *keeps.lock().unwrap() = Some(session);
                Ok(())
            })
            .await;
        let session = kept.lock().unwrap().take().unwrap();
        let kind = |error: larder_session::Error| error.kind();
        for _ in 0..2 {
            assert_eq!(session.insert("n", &1).await.map_err(kind), Err(ErrorKind::Late));
            assert_eq!(session.remove("user").await.map_err(kind), Err(ErrorKind::Late));
            assert_eq!(session.clear().await.map_err(kind), Err(ErrorKind::Late));
            assert_eq!(session.rotate().await.map_err(kind), Err(ErrorKind::Late));
            assert_eq!(session.destroy().await.map_err(kind), Err(ErrorKind::Late));
            assert_eq!(session.set_expiry(None).await.map_err(kind), Err(ErrorKind::Late));
            assert_eq!(session.save().await.map_err(kind), Err(ErrorKind::Late));
            // A body may go on reading a session that the head told of.
            let read = session.get::<i32>("user").await.map_err(kind);
            assert_eq!(read, if used { Ok(Some(7)) } else { Err(ErrorKind::Late) });
        }
        stand.layer.drained().await;
    }
    assert_eq!(stand.faults.count(Verb::Put), 1);
}

/// Fails when it is called without having been polled ready. A clone is not ready.
struct Strict(bool);

impl Clone for Strict {
    fn clone(&self) -> Self {
        Strict(false)
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<common::Body>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.0 = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let ready = std::mem::take(&mut self.0);
        std::future::ready(match (ready, request.method().as_str()) {
            (false, _) => Err("called without being ready"),
            (true, "PUT") => Err("no PUT today"),
            (true, _) => Ok(Response::new(common::Body::new())),
        })
    }
}

#[tokio::test]
async fn d17_the_service_that_is_called_was_polled_ready_and_its_errors_come_through() {
    let stand = Stand::new();
    let mut service = stand.layer.layer(Strict(false));
    for _ in 0..3 {
        service.ready().await.unwrap().call(request(None)).await.unwrap();
        service.clone().oneshot(request(None)).await.unwrap();
    }
    assert_eq!(service.call(request(None)).await.unwrap_err(), "called without being ready");
    let mut refused = request(None);
    *refused.method_mut() = http::Method::PUT;
    assert_eq!(service.oneshot(refused).await.unwrap_err(), "no PUT today");
}

#[tokio::test]
async fn futures_stay_small_and_types_can_be_sent() {
    fn shared<T: Send + Sync + Clone + std::fmt::Debug>(_: &T) {}
    let stand = Stand::new();
    shared(&stand.layer);
    let mut service = stand.layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(common::Body::new()))
    }));
    let future = service.call(request(None));
    assert!(size_of_val(&future) <= 256, "{}", size_of_val(&future));
    let cookie = larder_session::SessionCookie::new("");
    shared(&stand.layer.cookie(cookie).unwrap_err());
}

#[tokio::test]
#[should_panic(expected = "sessions cannot live in a store that another one stands in for")]
async fn sessions_refuse_a_store_that_another_one_stands_in_for() {
    let cache = Cache::connect("failover:memory://|memory://").await.unwrap();
    let _ = SessionLayer::new(&cache);
}

#[tokio::test]
#[should_panic(expected = "sessions cannot live in a store that keeps nothing")]
async fn sessions_refuse_a_store_that_keeps_nothing() {
    let _ = SessionLayer::new(&Cache::connect("null://").await.unwrap());
}

#[tokio::test]
async fn lists_of_users_sessions_refuse_it_too() {
    let list_in = async |url| {
        let cache = Cache::connect(url).await.unwrap();
        let ring = KeyRing::new(&std::array::from_fn(|at| at as u8));
        SessionLayer::in_cookie(Sealed::signed(ring).revocable(&cache)).map(drop)
    };
    list_in("writethrough:memory://|memory://").await.unwrap();
    let error = list_in("failover:memory://|memory://").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("stands in for (failover:)"), "{error}");
    let error = list_in("null://").await.unwrap_err();
    assert!(error.to_string().contains("keeps nothing (null://)"), "{error}");
}

/// Two nodes over the same two stores, each with its own way to them.
struct Pair {
    here: SessionLayer,
    there: SessionLayer,
    cache: larder_testkit::faulty::Faults,
    hands: larder_core::ManualClock,
}

impl Pair {
    fn new() -> Self {
        let (clock, hands) = Clock::manual();
        let (near, far) = (Reference::new(clock.clone()), Reference::new(clock));
        let node = || {
            let (cache, durable) = (Faulty::new(near.clone()), Faulty::new(far.clone()));
            let pair = WriteThrough::builder(cache, durable).build().unwrap();
            let faults = pair.cache().faults();
            (SessionLayer::new(&common::patient(pair, "shop")), faults)
        };
        let ((here, cache), (there, _)) = (node(), node());
        Pair { here, there, cache, hands }
    }

    /// The cache is back, and its breaker has noticed.
    fn heal(&self) {
        self.cache.heal();
        self.hands.advance(std::time::Duration::from_secs(2));
    }

    async fn begun(&self) -> Browser {
        let mut browser = Browser::new(&self.here);
        let enter = |session: Session| async move {
            session.sign_in_as("ada", "phone").await?;
            session.insert("user", &7).await
        };
        assert_eq!(browser.send(enter).await.status, 200);
        // Both records have a copy.
        let plain = browser.cookie.as_ref().unwrap();
        let plain = &plain[..plain.len() - 32];
        assert!(is_there(&self.there, plain).await);
        browser
    }
}

async fn is_there(layer: &SessionLayer, cookie: &str) -> bool {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let ask = |session: Session| async move {
        let _ = told.send(session.contains("user").await?);
        Ok(())
    };
    assert_eq!(exchange(layer, Some(cookie), ask).await.status, 200);
    tells.recv().await.unwrap_or(false)
}

async fn leave(session: Session) -> larder_session::Result<()> {
    session.destroy().await
}

#[tokio::test(start_paused = true)]
async fn c116_a_sign_out_that_the_cache_did_not_hear_of_is_503_and_is_done_when_it_is_repeated() {
    for (elsewhere, reads) in [(false, false), (false, true), (true, false), (true, true)] {
        let pair = Pair::new();
        let mut browser = pair.begun().await;
        let cookie = browser.cookie.clone().unwrap();
        pair.cache.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
        for _ in 0..2 {
            let got = browser
                .send(move |session| async move {
                    if reads {
                        session.contains("user").await?;
                    }
                    session.destroy().await
                })
                .await;
            assert_eq!((got.status.as_u16(), got.set_cookie()), (503, None));
        }
        assert!(!is_there(&pair.here, &cookie).await, "the durable store has done it");
        let plain = &cookie[..cookie.len() - 32];
        assert!(
            is_there(&pair.there, plain).await,
            "and a copy elsewhere says otherwise, for a while"
        );
        if elsewhere {
            browser.layer = pair.there.clone();
        } else {
            pair.heal();
        }
        assert_eq!(browser.send(leave).await.status, 200);
        assert_eq!(browser.cookie, None);
        for layer in [&pair.here, &pair.there] {
            assert!(!is_there(layer, &cookie).await && !is_there(layer, plain).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c116_a_rotation_that_the_cache_cannot_hear_of_is_503_and_changes_nothing() {
    let pair = Pair::new();
    let mut browser = pair.begun().await;
    let cookie = browser.cookie.clone();
    pair.cache.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    for enters in [false, true] {
        let got = browser
            .send(move |session| async move {
                match enters {
                    true => session.sign_in_as("bob", "phone").await,
                    false => session.rotate().await,
                }
            })
            .await;
        assert_eq!((got.status.as_u16(), got.set_cookie()), (503, None));
        assert!(is_there(&pair.here, browser.cookie.as_ref().unwrap()).await);
    }
    // What begins and what is changed does not need the cache.
    assert_eq!(browser.send(put).await.status, 200);
    assert_eq!(Browser::new(&pair.here).send(put).await.status, 200);
    pair.heal();
    assert_eq!(browser.send(|session| async move { session.rotate().await }).await.status, 200);
    assert_ne!(browser.cookie, cookie);
    for layer in [&pair.here, &pair.there] {
        assert!(!is_there(layer, cookie.as_ref().unwrap()).await);
        assert!(is_there(layer, browser.cookie.as_ref().unwrap()).await);
    }
}

#[tokio::test(start_paused = true)]
async fn c116_a_revocation_that_the_cache_did_not_hear_of_is_an_error_and_is_done_when_it_is_repeated()
 {
    let pair = Pair::new();
    let browser = pair.begun().await;
    let cookie = browser.cookie.as_ref().unwrap();
    let plain = &cookie[..cookie.len() - 32];
    pair.cache.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    let users = pair.here.users();
    for _ in 0..2 {
        assert_eq!(users.revoke_all("ada").await.unwrap_err().kind(), ErrorKind::Store);
    }
    assert!(!is_there(&pair.here, cookie).await);
    assert!(is_there(&pair.there, plain).await, "a copy elsewhere");
    pair.heal();
    assert_eq!(users.revoke_all("ada").await.unwrap(), 0);
    assert!(!is_there(&pair.there, plain).await && !is_there(&pair.there, cookie).await);
}

/// A save on an old copy finds out, and is made again on what the durable store has.
#[tokio::test(start_paused = true)]
async fn c116_a_change_made_on_an_old_copy_is_made_again_and_not_given_up() {
    let pair = Pair::new();
    let mut browser = Browser::new(&pair.here);
    browser.send(put).await;
    assert!(is_there(&pair.there, browser.cookie.as_ref().unwrap()).await);
    pair.cache.inject(Fault::Fail(StoreError::Unavailable), &Verb::ALL);
    browser.send(|session| async move { session.insert("here", &1).await }).await;
    browser.layer = pair.there.clone();
    let got = browser.send(|session| async move { session.insert("there", &1).await }).await;
    assert_eq!(got.status, 200, "{got:?}");
    browser
        .send(|session| async move {
            assert_eq!(session.keys().await?, ["here", "there", "user"]);
            Ok(())
        })
        .await;
}

// 116. A cache before the durable store costs round trips when it is gone, and loses nothing.
#[tokio::test(start_paused = true)]
async fn c116_sessions_live_in_a_durable_store_with_a_cache_before_it() {
    let (clock, _hands) = Clock::manual();
    let store = || Faulty::new(Reference::new(clock.clone()));
    let pair = WriteThrough::builder(store(), store()).build().unwrap();
    let (cache, durable) = (pair.cache().faults(), pair.durable().faults());
    let mut browser = Browser::new(&SessionLayer::new(&common::patient(pair, "shop")));
    let down = Fault::Fail(StoreError::Unavailable);
    let visit = async |browser: &mut Browser, expected: u64| {
        let got = browser
            .send(async move |session: Session| {
                session.update("visits", |visits: &mut u64| *visits += 1).await?;
                assert_eq!(session.get::<u64>("visits").await?, Some(expected));
                Ok(())
            })
            .await;
        got.status
    };
    assert_eq!(visit(&mut browser, 1).await, 200);
    assert_eq!(visit(&mut browser, 2).await, 200);
    cache.inject(down, &Verb::ALL);
    assert_eq!(visit(&mut browser, 3).await, 200, "the cache is gone");
    assert_eq!(visit(&mut browser, 4).await, 200);
    cache.heal();
    assert_eq!(visit(&mut browser, 5).await, 200, "what it kept from then is not read");
    durable.inject(down, &Verb::ALL);
    let got = browser.send(put).await;
    assert_eq!(got.status, 503, "the durable store is gone");
    durable.heal();
    let stolen = browser.clone();
    browser.send(async |session: Session| session.destroy().await).await;
    let mut thief = stolen;
    let seen = thief.send(async |session: Session| {
        assert_eq!(session.get::<u64>("visits").await?, None, "what was ended is nowhere");
        Ok(())
    });
    assert_eq!(seen.await.status, 200);
}

/// What [the documentation](larder_session#which-store) says of Redis: a replica takes over without what it had not
/// received. Here it is cut off first, which is what a partition does.
#[tokio::test(flavor = "multi_thread")]
async fn o05_what_a_replica_had_not_received_is_lost_when_it_takes_over_as_the_documentation_says()
{
    use larder_redis::RedisBackend;
    use larder_testkit::servers::RedisServer;

    let primary = RedisServer::start().await;
    let port = primary.port().to_string();
    let replica =
        RedisServer::options().directive("replicaof", &["127.0.0.1", &port]).start().await;
    let layer_over = async |server: &RedisServer| {
        let url = format!("{}?response_timeout=120s&connect_timeout=20s", server.url());
        let backend = RedisBackend::connect(&url).await.expect("a connection");
        SessionLayer::new(&common::patient(backend, "shop")).evictable()
    };
    let before = layer_over(&primary).await;
    let begun = async || {
        let mut browser = Browser::new(&before);
        assert_eq!(browser.send(put).await.status, 200);
        browser
    };
    let (kept, mut left) = (begun().await, begun().await);
    primary.replicated(1).await;
    replica.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    // Acknowledged, and never seen by what takes over.
    let lost = begun().await;
    let signed_out = left.cookie.clone().unwrap();
    assert_eq!(left.send(leave).await.status, 200);
    assert!(!is_there(&before, &signed_out).await);

    let after = layer_over(&replica).await;
    assert!(is_there(&after, kept.cookie.as_ref().unwrap()).await);
    assert!(!is_there(&after, lost.cookie.as_ref().unwrap()).await, "they sign in again");
    assert!(is_there(&after, &signed_out).await, "they have to sign out again");
}
