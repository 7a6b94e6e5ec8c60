//! Another secret: sessions move to its names, each in one step, and nothing that was ended comes back.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{Browser, Stand, exchange};
use larder_core::{Clock, ErrorKind as StoreError};
use larder_session::{ErrorKind, Event, Expiry, KeyRing, Sealed, Session, SessionLayer};
use larder_testkit::faulty::{Fault, Verb};

const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [9; 32];

/// The layers of a change: before it, ready for it, in the middle of it, and after it.
struct Change {
    stand: Stand,
    before: SessionLayer,
    ready: SessionLayer,
    middle: SessionLayer,
    after: SessionLayer,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Change {
    fn new() -> Self {
        let stand = Stand::new();
        let events = Arc::new(Mutex::new(Vec::new()));
        let tells = events.clone();
        let layer =
            || SessionLayer::new(&stand.cache).evictable().tombstone(Duration::from_secs(300));
        let middle = layer().secret(&NEW).accept_secret(&OLD).unwrap();
        Change {
            before: layer().secret(&OLD),
            ready: layer().secret(&OLD).accept_secret(&NEW).unwrap(),
            middle: middle.on_event(move |event| tells.lock().unwrap().push(event)),
            after: layer().secret(&NEW),
            events,
            stand,
        }
    }

    fn heard(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    fn count(&self, verbs: &[Verb]) -> usize {
        verbs.iter().map(|verb| self.stand.faults.count(*verb)).sum()
    }
}

async fn put(session: Session) -> larder_session::Result<()> {
    session.insert("n", &1).await
}

async fn read(session: Session) -> larder_session::Result<()> {
    session.contains("n").await.map(drop)
}

async fn value(layer: &SessionLayer, cookie: &str) -> Option<i32> {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let ask = |session: Session| async move {
        let _ = told.send(session.get("n").await?);
        Ok(())
    };
    assert_eq!(exchange(layer, Some(cookie), ask).await.status, 200);
    tells.recv().await.flatten()
}

async fn begun(layer: &SessionLayer) -> Browser {
    let mut browser = Browser::new(layer);
    assert_eq!(browser.send(put).await.status, 200);
    browser
}

fn over(browser: &Browser, layer: &SessionLayer) -> Browser {
    Browser { layer: layer.clone(), cookie: browser.cookie.clone() }
}

#[tokio::test]
async fn s14_a_session_under_an_old_secret_goes_on_under_the_new_one_and_needs_the_old_no_more() {
    for writes in [false, true] {
        let change = Change::new();
        let browser = begun(&change.before).await;
        let cookie = browser.cookie.clone().unwrap();
        assert_eq!(value(&change.after, &cookie).await, None, "that is what accepting is for");
        let mut moving = over(&browser, &change.middle);
        let got = match writes {
            true => moving.send(|session| async move { session.insert("m", &2).await }).await,
            false => moving.send(read).await,
        };
        assert_eq!((got.status.as_u16(), got.set_cookie().is_some()), (200, true));
        assert_eq!(moving.cookie.as_deref(), Some(&*cookie), "the id stays");
        assert_eq!(value(&change.after, &cookie).await, Some(1));
        assert_eq!(value(&change.middle, &cookie).await, Some(1));
        // A node that accepts the new one has it, too, and one that does not says that it is elsewhere.
        assert_eq!(value(&change.ready, &cookie).await, Some(1));
        assert_eq!(over(&browser, &change.before).send(put).await.status, 409);
        // Once: it is not moved again, by either side.
        let before = change.count(&[Verb::Put]);
        over(&browser, &change.middle).send(read).await;
        over(&browser, &change.ready).send(read).await;
        assert_eq!(value(&change.after, &cookie).await, Some(1));
        assert_eq!(change.count(&[Verb::Put]) - before, 1, "one that is refused");
    }
}

#[tokio::test]
async fn s14_an_old_secret_ends_when_it_was_said_and_those_that_moved_stay() {
    let (clock, hands) = Clock::manual();
    let memory = larder_memory::MemoryBackend::builder().clock(clock.clone()).build().unwrap();
    let cache = common::patient(memory, "shop");
    let layer = || SessionLayer::new(&cache).evictable();
    let end = clock.wall() + Duration::from_secs(3600);
    let old = layer().secret(&OLD);
    let new = layer().secret(&NEW).accept_secret_until(&OLD, end).unwrap();
    let mut browsers = Vec::new();
    for _ in 0..20 {
        browsers.push(begun(&old).await.cookie.unwrap());
    }
    for cookie in &browsers[..10] {
        assert_eq!(value(&new, cookie).await, Some(1));
    }
    hands.advance(Duration::from_secs(3599));
    assert_eq!(value(&new, &browsers[10]).await, Some(1), "in the overlap");
    hands.advance(Duration::from_secs(1));
    for (at, cookie) in browsers.iter().enumerate() {
        assert_eq!(value(&new, cookie).await, (at <= 10).then_some(1), "{at}");
    }
}

#[tokio::test]
async fn the_time_before_there_was_a_secret_can_be_accepted() {
    let stand = Stand::new();
    let cookie = begun(&stand.layer).await.cookie.unwrap();
    let layer = stand.layer.clone().secret(&NEW);
    assert_eq!(value(&layer, &cookie).await, None);
    assert_eq!(value(&layer.clone().accept_secret(None).unwrap(), &cookie).await, Some(1));
    assert_eq!(value(&layer, &cookie).await, Some(1));
}

#[tokio::test]
async fn an_unknown_id_is_one_round_trip_however_many_secrets_are_accepted() {
    let change = Change::new();
    let layer = change.middle.clone().accept_secret(&[3; 32]).unwrap();
    let before = change.stand.faults.total();
    let guess = format!("__Host-id={:064x}", 7);
    assert_eq!(exchange(&layer, Some(&guess), read).await.set_cookie(), None);
    assert_eq!(change.stand.faults.total() - before, 1);
    assert_eq!(change.heard(), [Event::UnknownId]);
    assert_eq!(change.stand.memory.usage().entries, 0);
    // Nothing for nothing, as ever.
    assert_eq!(exchange(&layer, Some(&guess), |_| async { Ok(()) }).await.status, 200);
    assert_eq!(exchange(&layer, None, read).await.status, 200);
    assert_eq!(change.stand.faults.total() - before, 1);
    // One that has moved is one round trip, too.
    let cookie = begun(&layer).await.cookie.unwrap();
    let before = change.stand.faults.total();
    assert_eq!(value(&layer, &cookie).await, Some(1));
    assert_eq!(change.stand.faults.total() - before, 1);
}

#[tokio::test]
async fn what_was_ended_under_either_name_stays_ended() {
    let destroy = |session: Session| async move { session.destroy().await };
    let rotate = |session: Session| async move { session.rotate().await };
    // By a node of before, in the middle, without and after having read; the session moved or not.
    for moved in [false, true] {
        for reads in [false, true] {
            let change = Change::new();
            let browser = begun(&change.before).await;
            let cookie = browser.cookie.clone().unwrap();
            if moved {
                over(&browser, &change.middle).send(read).await;
            }
            let mut leaving = over(&browser, &change.middle);
            let got = leaving
                .send(move |session| async move {
                    if reads {
                        session.contains("n").await?;
                    }
                    session.destroy().await
                })
                .await;
            assert_eq!((got.status.as_u16(), leaving.cookie), (200, None));
            for layer in [&change.before, &change.ready, &change.middle, &change.after] {
                assert_eq!(value(layer, &cookie).await, None, "moved {moved}, read {reads}");
            }
            // Nor when the stones are gone.
            change.stand.later(Duration::from_secs(301));
            for layer in [&change.before, &change.ready, &change.middle, &change.after] {
                assert_eq!(value(layer, &cookie).await, None, "moved {moved}, read {reads}");
            }
        }
        let change = Change::new();
        let browser = begun(&change.before).await;
        let old = browser.cookie.clone().unwrap();
        let mut moving = over(&browser, &change.middle);
        if moved {
            moving.send(read).await;
        }
        moving.send(rotate).await;
        let new = moving.cookie.clone().unwrap();
        assert_ne!(old, new);
        assert_eq!(value(&change.after, &new).await, Some(1));
        for layer in [&change.before, &change.ready, &change.middle, &change.after] {
            assert_eq!(value(layer, &old).await, None);
        }
        // A sign-out with the id from before follows.
        over(&browser, &change.middle).send(destroy).await;
        assert_eq!(value(&change.middle, &new).await, None);
    }
}

#[tokio::test]
async fn a_request_that_was_slower_than_the_move_merges_or_fails_and_loses_nothing() {
    let change = Change::new();
    let browser = begun(&change.before).await;
    let mut mover = over(&browser, &change.middle);
    let got = over(&browser, &change.ready)
        .send(|session| async move {
            session.insert("slow", &1).await?;
            session.update("n", |n: &mut i32| *n += 1).await?;
            mover
                .send(|session| async move {
                    session.insert("quick", &1).await?;
                    session.update("n", |n: &mut i32| *n += 1).await.map(drop)
                })
                .await;
            Ok(())
        })
        .await;
    assert_eq!(got.status, 200, "{got:?}");
    over(&browser, &change.after)
        .send(|session| async move {
            assert_eq!(session.keys().await?, ["n", "quick", "slow"]);
            assert_eq!(session.get("n").await?, Some(3));
            Ok(())
        })
        .await;
    // One that does not know of the new secret cannot bring the old record back.
    let browser = begun(&change.before).await;
    let mut mover = over(&browser, &change.middle);
    let got = over(&browser, &change.before)
        .send(|session| async move {
            session.insert("slow", &1).await?;
            mover.send(read).await;
            Ok(())
        })
        .await;
    assert_eq!(got.error, Some(ErrorKind::Gone));
}

/// The mover fails at each of its writes: before, behind and without an answer. Whatever it leaves behind, the session is
/// there, once, and an end of it is one.
#[tokio::test]
async fn a_move_that_dies_half_way_loses_nothing_and_brings_nothing_back() {
    let failed = Fault::Fail(StoreError::Unavailable);
    for fails in 1..=3 {
        for (late, signed_in) in [(false, false), (true, false), (false, true), (true, true)] {
            for ends in [false, true] {
                let what = format!("put {fails}, done all the same {late}, a user's {signed_in}");
                let change = Change::new();
                let mut browser = begun(&change.before).await;
                if signed_in {
                    browser
                        .send(|session| async move { session.sign_in_as("ada", "x").await })
                        .await;
                }
                let cookie = browser.cookie.clone().unwrap();
                // The copy, the list of a user's, the stone, its list again, the last step.
                let puts = if signed_in { [1, 3, 5][fails - 1] } else { fails };
                let fault = if late { Fault::Lose(StoreError::Unavailable) } else { failed };
                change.stand.faults.inject_times(1, fault, &[Verb::Put]);
                change.stand.faults.inject_times(
                    puts - 1,
                    Fault::Delay(Duration::ZERO),
                    &[Verb::Put],
                );
                let got = over(&browser, &change.middle).send(read).await;
                assert_eq!(got.status, 200, "{what}");
                change.stand.faults.heal();
                if ends {
                    let leave = |session: Session| async move { session.destroy().await };
                    assert_eq!(over(&browser, &change.middle).send(leave).await.status, 200);
                    for later in [0, 301] {
                        change.stand.later(Duration::from_secs(later));
                        for layer in [&change.before, &change.ready, &change.middle, &change.after]
                        {
                            assert_eq!(value(layer, &cookie).await, None, "{what}");
                        }
                    }
                    continue;
                }
                assert_eq!(value(&change.ready, &cookie).await, Some(1), "{what}");
                // Who comes next saves it; who comes when the copy is old enough moves it.
                let more = |session: Session| async move { session.insert("n", &2).await };
                assert_eq!(over(&browser, &change.middle).send(more).await.status, 200, "{what}");
                change.stand.later(Duration::from_secs(301));
                assert_eq!(value(&change.middle, &cookie).await, Some(2), "{what}");
                assert_eq!(value(&change.after, &cookie).await, Some(2), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_users_sessions_are_one_list_to_everybody_while_they_move() {
    let change = Change::new();
    let enter = |device: &'static str| {
        move |session: Session| async move {
            session.sign_in_as("ada", device).await?;
            session.insert("n", &1).await
        }
    };
    let signed_in = async |layer: &SessionLayer, device| {
        let mut browser = Browser::new(layer);
        assert_eq!(browser.send(enter(device)).await.status, 200);
        change.stand.later(Duration::from_secs(1));
        browser
    };
    let (phone, laptop) =
        (signed_in(&change.before, "phone").await, signed_in(&change.before, "laptop").await);
    let tablet = signed_in(&change.middle, "tablet").await;
    let users = change.middle.users();
    let labels = async || {
        let list = users.devices("ada").await.unwrap();
        list.into_iter().map(|device| device.label).collect::<Vec<_>>()
    };
    assert_eq!(labels().await, ["phone", "laptop", "tablet"]);
    let mut phone = over(&phone, &change.middle);
    let old = phone.cookie.clone();
    phone.send(read).await;
    assert_ne!(phone.cookie, old, "the cookie says where the list is");
    assert_eq!(labels().await, ["phone", "laptop", "tablet"]);
    // With either cookie it is the same session; with the new one, one round trip.
    assert_eq!(value(&change.middle, &old.unwrap()).await, Some(1));
    let before = change.stand.faults.total();
    assert_eq!(value(&change.middle, phone.cookie.as_ref().unwrap()).await, Some(1));
    assert_eq!(change.stand.faults.total() - before, 1);

    // It ends all others, wherever they are, and stays; also one that has not moved itself.
    let others = |session: Session| async move {
        assert_eq!(session.devices().await?.iter().filter(|device| device.current).count(), 1);
        assert_eq!(session.revoke_other_devices().await?, 2);
        Ok(())
    };
    let mut laptop = over(&laptop, &change.middle);
    assert_eq!(laptop.send(others).await.status, 200);
    assert_eq!(labels().await, ["laptop"]);
    for (browser, there) in [(&phone, false), (&tablet, false), (&laptop, true)] {
        let found = value(&change.middle, browser.cookie.as_ref().unwrap()).await;
        assert_eq!(found.is_some(), there);
    }
    // One by its own id, which is a sign-out, and by another's.
    let other = signed_in(&change.before, "other").await;
    let id = users.devices("ada").await.unwrap().pop().unwrap().id;
    assert!(users.revoke("ada", &id).await.unwrap());
    assert_eq!(value(&change.middle, &other.cookie.unwrap()).await, None);
    assert_eq!(users.revoke_all("ada").await.unwrap(), 1);
    assert_eq!(value(&change.middle, laptop.cookie.as_ref().unwrap()).await, None);
    assert_eq!(users.revoke_all("ada").await.unwrap(), 0);
}

#[tokio::test]
async fn a_token_of_a_page_from_before_holds_as_long_as_the_secret_is_accepted() {
    let change = Change::new();
    let (told, tells) = std::sync::mpsc::channel();
    let mut browser = Browser::new(&change.before);
    browser
        .send(|session| async move {
            told.send(session.csrf_token().await?).unwrap();
            Ok(())
        })
        .await;
    let token = tells.recv().unwrap();
    for (layer, holds) in [(&change.middle, true), (&change.after, false)] {
        let token = token.clone();
        let got = over(&browser, layer)
            .send(|session| async move { session.verify_csrf(&token).await })
            .await;
        assert_eq!(got.status == 200, holds, "{got:?}");
    }
}

#[tokio::test]
async fn lifetimes_hold_while_sessions_move() {
    let change = Change::new();
    let minute = Duration::from_secs(60);
    let mut browser = Browser::new(&change.before);
    browser
        .send(|session| async move {
            session.set_expiry(Expiry::idle(10 * minute).at_most(25 * minute)).await?;
            session.insert("n", &1).await
        })
        .await;
    let cookie = browser.cookie.clone().unwrap();
    change.stand.later(9 * minute);
    // Moving keeps it alive.
    assert_eq!(value(&change.middle, &cookie).await, Some(1));
    change.stand.later(9 * minute);
    assert_eq!(value(&change.middle, &cookie).await, Some(1));
    over(&browser, &change.middle).send(put).await;
    change.stand.later(minute / 60);
    assert_eq!(value(&change.middle, &cookie).await, Some(1));
    change.stand.later(7 * minute);
    assert_eq!(value(&change.middle, &cookie).await, None, "the absolute end is the first one's");
    // What has ended is not moved.
    let cookie = begun(&change.before).await.cookie.unwrap();
    change.stand.later(100 * 24 * 60 * minute);
    assert_eq!(value(&change.middle, &cookie).await, None);
}

#[test]
fn what_cannot_be_accepted_is_told_with_what_to_do_instead() {
    let ring = KeyRing::new(&std::array::from_fn(|at| at as u8));
    let sealed = SessionLayer::in_cookie(Sealed::signed(ring)).unwrap();
    let error = sealed.accept_secret(&OLD).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("KeyRing"), "{error}");
    let mut layer = SessionLayer::new(&larder_cache::Cache::memory()).evictable();
    for n in 0..3 {
        layer = layer.accept_secret_until(&[n; 32], SystemTime::UNIX_EPOCH).unwrap();
    }
    let error = layer.accept_secret(&OLD).unwrap_err();
    assert!(error.to_string().contains("take the oldest one out"), "{error}");
}
