//! Sessions that live in their cookie: sealed, bound to what they are for, and over when they are over.

mod common;

use std::time::{Duration, SystemTime};

use common::{Browser, Stand, exchange, request};
use larder_core::{Clock, ManualClock};
use larder_session::{
    ErrorKind, Event, Expiry, KeyRing, Refresh, Result, Sealed, Session, SessionCookie,
    SessionLayer,
};
use tower::{Layer, ServiceExt, service_fn};

const NEW: [u8; 32] = key(1);
const OLD: [u8; 32] = key(2);

const fn key(first: u8) -> [u8; 32] {
    let mut key = [7; 32];
    key[0] = first;
    key
}

fn ring() -> KeyRing {
    KeyRing::new(&NEW)
}

fn both() -> [Sealed; 2] {
    [Sealed::encrypted(ring()), Sealed::signed(ring())]
}

fn layer(sealed: Sealed) -> SessionLayer {
    SessionLayer::in_cookie(sealed).expect("a configuration")
}

/// With a clock that stands still.
fn still(sealed: Sealed) -> (Sealed, ManualClock) {
    let (clock, hands) = Clock::manual();
    (sealed.clock(clock), hands)
}

async fn put(session: Session) -> Result<()> {
    session.insert("user", &7).await
}

async fn begun(layer: &SessionLayer) -> Browser {
    let mut browser = Browser::new(layer);
    assert_eq!(browser.send(put).await.status, 200);
    assert!(browser.cookie.is_some());
    browser
}

async fn is_in(layer: &SessionLayer, cookie: &str) -> bool {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let got = exchange(layer, Some(cookie), |session| async move {
        let _ = told.send(session.get::<i32>("user").await? == Some(7));
        Ok(())
    })
    .await;
    assert_eq!(got.status, 200);
    tells.recv().await.expect("an answer")
}

#[tokio::test]
async fn a_session_lives_in_its_cookie_through_all_that_handlers_do() {
    for sealed in both() {
        let layer = layer(sealed);
        let mut browser = begun(&layer).await;
        let first = browser.cookie.clone().unwrap();
        let got =
            browser.send(|session| async move { session.contains("user").await.map(drop) }).await;
        assert_eq!((got.set_cookie(), got.is_marked()), (None, true));
        let got = browser.send(put).await;
        assert_eq!(got.set_cookie(), None, "what is the same is not written");
        browser
            .send(
                |session| async move { session.update("n", |n: &mut u8| *n += 1).await.map(drop) },
            )
            .await;
        let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
        for rotates in [false, true, false] {
            let told = told.clone();
            browser
                .send(|session| async move {
                    if rotates {
                        session.rotate().await?;
                        session.save().await?;
                    }
                    assert_eq!(session.get::<u8>("n").await?, Some(1));
                    let _ = told.send(session.id_hash().await?);
                    Ok(())
                })
                .await;
        }
        let mut hashes = Vec::new();
        for _ in 0..3 {
            hashes.push(tells.recv().await.unwrap().unwrap());
        }
        assert!(hashes[0] != hashes[1] && hashes[1] == hashes[2]);
        assert_ne!(browser.cookie.as_ref(), Some(&first));
        let got = browser.send(|session| async move { session.destroy().await }).await;
        assert!(got.set_cookie().unwrap().contains("Max-Age=0"));
        assert_eq!(browser.cookie, None);
    }
}

#[tokio::test]
async fn who_brings_no_cookie_and_writes_nothing_is_sent_none() {
    let layer = layer(Sealed::encrypted(ring()));
    for destroys in [false, true] {
        let got = exchange(&layer, None, |session| async move {
            assert!(session.is_empty().await?);
            if destroys { session.destroy().await } else { Ok(()) }
        })
        .await;
        assert_eq!((got.status.as_u16(), got.set_cookie()), (200, None));
    }
}

#[tokio::test]
async fn c115_what_is_encrypted_says_nothing_and_what_is_signed_can_be_read() {
    use base64::Engine;
    for (sealed, readable) in both().into_iter().zip([false, true]) {
        let layer = layer(sealed);
        let mut browser = Browser::new(&layer);
        browser.send(|session| async move { session.insert("secret", "Rosebud").await }).await;
        let value = browser.cookie.unwrap().split_once('=').unwrap().1.to_owned();
        let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(value).unwrap();
        for word in ["secret", "Rosebud"] {
            let there = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert_eq!(there, readable, "{word}");
        }
    }
}

#[tokio::test]
async fn s13_a_cookie_moved_to_another_name_key_or_mode_is_nothing() {
    let value = begun(&layer(Sealed::encrypted(ring()))).await.cookie.unwrap();
    assert!(is_in(&layer(Sealed::encrypted(ring())), &value).await);
    let renamed = value.replace("__Host-id", "__Host-admin");
    let admin = || SessionCookie::new("admin");
    let other = layer(Sealed::encrypted(KeyRing::new(&OLD)));
    for (layer, cookie) in [
        (layer(Sealed::encrypted(ring())).cookie(admin()).unwrap(), &renamed),
        (layer(Sealed::signed(ring())), &value),
        (other, &value),
        (Stand::new().layer, &value),
    ] {
        assert!(!is_in(&layer, cookie).await);
    }
    // Nor is an id of a session in a store.
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    assert!(!is_in(&layer(Sealed::encrypted(ring())), &browser.cookie.unwrap()).await);
}

#[tokio::test]
async fn s14_an_old_key_opens_for_the_overlap_and_what_is_used_is_sealed_anew() {
    for make in [Sealed::encrypted, Sealed::signed] {
        let (clock, hands) = Clock::manual();
        let old = layer(make(KeyRing::new(&OLD)).clock(clock.clone()));
        let mut browsers = Vec::new();
        for _ in 0..50 {
            browsers.push(begun(&old).await);
        }
        let end = clock.wall() + Duration::from_secs(3600);
        let ring = || KeyRing::new(&NEW).accept_until(&OLD, end);
        let overlapping = layer(make(ring()).clock(clock.clone()));
        let without = layer(make(KeyRing::new(&NEW)).clock(clock.clone()));
        let (mut used, unused) = (browsers.split_off(25), browsers);
        for browser in &mut used {
            let before = browser.cookie.clone().unwrap();
            assert!(!is_in(&without, &before).await);
            browser.layer = overlapping.clone();
            // Left alone, it stays as it is; read, it comes back under the new key.
            assert_eq!(browser.send(|_| async { Ok(()) }).await.set_cookie(), None);
            let got = browser
                .send(|session| async move { session.contains("user").await.map(drop) })
                .await;
            assert!(got.set_cookie().is_some());
            let after = browser.cookie.clone().unwrap();
            assert!(is_in(&without, &after).await && !is_in(&old, &after).await);
            let got = browser
                .send(|session| async move { session.contains("user").await.map(drop) })
                .await;
            assert_eq!(got.set_cookie(), None, "once");
        }
        hands.advance(Duration::from_secs(3599));
        for browser in &unused {
            assert!(is_in(&overlapping, browser.cookie.as_ref().unwrap()).await, "in the overlap");
        }
        hands.advance(Duration::from_secs(1));
        for browser in &unused {
            assert!(!is_in(&overlapping, browser.cookie.as_ref().unwrap()).await, "after it");
        }
        for browser in &used {
            assert!(is_in(&overlapping, browser.cookie.as_ref().unwrap()).await);
        }
    }
}

#[tokio::test]
async fn s07_the_ends_are_inside_of_the_seal_and_hold_to_the_second() {
    let minute = Duration::from_secs(60);
    for make in [Sealed::encrypted, Sealed::signed] {
        for (expiry, lives) in [
            (Expiry::idle(minute), minute),
            (Expiry::fixed(minute * 2), minute * 2),
            (Expiry::idle(minute).at_most(minute / 2), minute / 2),
            (Expiry::idle(minute).until_browser_closes(), minute),
        ] {
            let (sealed, hands) = still(make(ring()));
            let layer = layer(sealed).expiry(expiry);
            let cookie = begun(&layer).await.cookie.unwrap();
            hands.advance(lives - Duration::from_secs(1));
            assert!(is_in(&layer, &cookie).await);
            hands.advance(Duration::from_secs(1));
            assert!(!is_in(&layer, &cookie).await);
            // Nor does a layer that lets them live longer bring it back.
            let longer = layer.expiry(Expiry::idle(minute * 1000));
            assert!(!is_in(&longer, &cookie).await);
        }
    }
}

#[tokio::test]
async fn keeping_alive_seals_anew_and_the_absolute_end_stays() {
    let minute = Duration::from_secs(60);
    let (sealed, hands) = still(Sealed::encrypted(ring()));
    let layer = layer(sealed)
        .expiry(Expiry::idle(minute * 2).at_most(minute * 5))
        .refresh(Refresh::AfterFraction(0.5));
    let mut browser = begun(&layer).await;
    let read = |session: Session| async move { session.contains("user").await.map(drop) };
    assert_eq!(browser.send(read).await.set_cookie(), None);
    for _ in 0..4 {
        hands.advance(minute);
        let got = browser.send(read).await;
        assert!(got.set_cookie().is_some());
        assert!(is_in(&layer, browser.cookie.as_ref().unwrap()).await);
    }
    hands.advance(minute);
    assert!(!is_in(&layer, browser.cookie.as_ref().unwrap()).await);
}

#[tokio::test]
async fn s07_a_larger_epoch_signs_everybody_out() {
    let (told, tells) = std::sync::mpsc::channel();
    let cookie = begun(&layer(Sealed::encrypted(ring()).epoch(3))).await.cookie.unwrap();
    for (epoch, lives) in [(3, true), (2, true), (4, false)] {
        let told = told.clone();
        let layer = layer(Sealed::encrypted(ring()).epoch(epoch))
            .on_event(move |event| told.send(event).expect("somebody listens"));
        assert_eq!(is_in(&layer, &cookie).await, lives, "{epoch}");
    }
    assert_eq!(tells.try_iter().collect::<Vec<_>>(), [Event::Revoked]);
}

#[tokio::test]
async fn s17_and_c115_a_session_that_fits_no_cookie_is_an_error_and_the_old_one_stays() {
    for sealed in both() {
        let layer = layer(sealed);
        let mut browser = begun(&layer).await;
        let before = browser.cookie.clone();
        // Each three bytes are four characters, so some lengths are skipped.
        let (mut largest, mut refused) = (0, 0);
        for length in 2700..3100 {
            let mut browser = browser.clone();
            let text = "x".repeat(length);
            let got =
                browser.send(|session| async move { session.insert("text", &text).await }).await;
            match got.set_cookie() {
                Some(line) => {
                    assert_eq!(got.status, 200);
                    largest = largest.max(line.split(';').next().unwrap().len() - 1);
                }
                None => {
                    assert_eq!((got.status.as_u16(), got.error), (500, Some(ErrorKind::TooLarge)));
                    refused += 1;
                }
            }
        }
        assert!((4090..=4096).contains(&largest) && refused > 0, "{largest}, {refused} refused");
        assert_eq!(browser.cookie, before);
        let got = browser
            .send(|session| async move { session.insert("text", &"x".repeat(5000)).await })
            .await;
        assert_eq!((got.status.as_u16(), got.set_cookie()), (500, None));
        assert!(is_in(&layer, browser.cookie.as_ref().unwrap()).await);
    }
}

#[tokio::test]
async fn revocable_ones_end_with_their_users_list_and_a_copy_ends_with_the_sign_out() {
    let stand = Stand::new();
    let layer = layer(Sealed::encrypted(ring()).revocable(&stand.cache));
    let enter = |session: Session| async move {
        session.insert("user", &7).await?;
        session.sign_in_as("ada", "phone").await
    };
    let (mut one, mut two) = (Browser::new(&layer), Browser::new(&layer));
    one.send(enter).await;
    two.send(enter).await;
    let copies = [one.cookie.clone().unwrap(), two.cookie.clone().unwrap()];
    let before = stand.faults.total();
    assert!(is_in(&layer, &copies[0]).await);
    assert_eq!(stand.faults.total() - before, 1);
    one.send(|session| async move { session.destroy().await }).await;
    assert!(!is_in(&layer, &copies[0]).await && is_in(&layer, &copies[1]).await);
    two.send(|session| async move {
        let devices = session.devices().await?;
        assert_eq!((devices.len(), devices[0].current), (1, true));
        Ok(())
    })
    .await;
    two.send(|session| async move { session.rotate().await }).await;
    assert!(!is_in(&layer, &copies[1]).await);
    assert!(is_in(&layer, two.cookie.as_ref().unwrap()).await);
    assert_eq!(layer.users().revoke_all("ada").await.unwrap(), 1);
    assert!(!is_in(&layer, two.cookie.as_ref().unwrap()).await);
    // An anonymous session asks nobody.
    let mut anonymous = begun(&layer).await;
    let before = stand.faults.total();
    anonymous.send(|session| async move { session.insert("user", &8).await }).await;
    assert_eq!(stand.faults.total(), before);
}

#[tokio::test]
async fn without_a_store_lists_say_what_is_missing_and_signing_in_works() {
    let layer = layer(Sealed::signed(ring()));
    let mut browser = Browser::new(&layer);
    let got = browser.send(|session| async move { session.sign_in_as("ada", "").await }).await;
    assert_eq!(got.status, 200);
    browser
        .send(|session| async move {
            assert_eq!(session.user().await?.as_deref(), Some("ada"));
            let error = session.devices().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains("Sealed::revocable"));
            Ok(())
        })
        .await;
}

#[test]
fn keys_that_are_none_are_refused_with_words_and_no_key_is_printed() {
    for (ring, word) in [
        (KeyRing::new(&[0; 32]), "random"),
        (KeyRing::new(&NEW).accept(&[9; 32]), "random"),
        (KeyRing::new(&NEW).accept(&NEW), "twice"),
    ] {
        let error = SessionLayer::in_cookie(Sealed::encrypted(ring)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(word), "{error}");
    }
    let ring = KeyRing::new(&NEW).accept_until(&OLD, SystemTime::now());
    let shown = format!("{:?} {:?}", ring, layer(Sealed::encrypted(ring.clone())));
    assert!(!shown.contains("7, 7") && !shown.contains("0707"), "{shown}");
}

#[tokio::test]
async fn s19_of_several_cookies_that_open_none_is_used_and_the_forged_do_not_count() {
    let layer = layer(Sealed::encrypted(ring()));
    let (one, two) = (begun(&layer).await.cookie.unwrap(), begun(&layer).await.cookie.unwrap());
    assert!(!is_in(&layer, &format!("{one}; {two}")).await);
    assert!(is_in(&layer, &format!("{one}; {one}")).await);
    for tossed in ["__Host-id=x", "__Host-id=AQIAAAAA", "__Host-id="] {
        assert!(is_in(&layer, &format!("{tossed}; {one}")).await);
        assert!(is_in(&layer, &format!("{one}; {tossed}")).await);
    }
    let five = format!("{one}; __Host-id=1; __Host-id=2; __Host-id=3; __Host-id=4");
    assert!(!is_in(&layer, &five).await);
}

#[tokio::test]
async fn extensions_and_errors_show_nothing_of_a_session() {
    let layer = layer(Sealed::encrypted(ring()));
    let cookie = begun(&layer).await.cookie.unwrap();
    let value = cookie.split_once('=').unwrap().1.to_owned();
    let service = layer.layer(service_fn(|request: http::Request<()>| async move {
        let session = request.extensions().get::<Session>().unwrap().clone();
        session.contains("user").await.unwrap();
        Ok::<_, std::convert::Infallible>(http::Response::new(format!(
            "{:?}",
            request.extensions()
        )))
    }));
    let response = service.oneshot(request(Some(&cookie))).await.unwrap();
    let shown = format!("{:?} {layer:?}", response);
    assert!(!shown.contains(&value[..16]) && !shown.contains("user"));
}
