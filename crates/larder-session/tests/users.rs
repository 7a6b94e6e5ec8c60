//! Sessions by user: listed, ended one by one or all at once, and never back.

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::{Browser, Stand, exchange, patient};
use larder_core::{Key, Namespace};
use larder_memory::MemoryBackend;
use larder_redis::RedisBackend;
use larder_session::{Device, ErrorKind, Event, Result, Session, SessionLayer};
use larder_testkit::faulty::{Fault, Verb};
use larder_testkit::servers::RedisServer;

async fn ada(session: Session) -> Result<()> {
    session.sign_in_as("ada", "a browser").await
}

async fn signed_in(layer: &SessionLayer, user: &'static str, device: &'static str) -> Browser {
    let mut browser = Browser::new(layer);
    let enter = |session: Session| async move { session.sign_in_as(user, device).await };
    assert_eq!(browser.send(enter).await.status, 200);
    browser
}

async fn user(browser: &mut Browser) -> Option<String> {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let ask = |session: Session| async move {
        let _ = told.send(session.user().await?);
        Ok(())
    };
    assert_eq!(browser.send(ask).await.status, 200);
    tells.recv().await.flatten()
}

async fn devices(browser: &mut Browser) -> Vec<Device> {
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    browser
        .send(|session| async move {
            let _ = told.send(session.devices().await?);
            Ok(())
        })
        .await;
    tells.recv().await.expect("a list")
}

fn labels(devices: &[Device]) -> Vec<(&str, bool)> {
    devices.iter().map(|device| (device.label.as_str(), device.current)).collect()
}

async fn the_whole_story(layer: &SessionLayer) {
    let mut phone = signed_in(layer, "ada", "phone").await;
    let mut laptop = signed_in(layer, "ada", "lap\ntop").await;
    let mut tablet = signed_in(layer, "ada", "tablet").await;
    let mut stranger = signed_in(layer, "bob", "phone").await;
    assert_eq!(user(&mut phone).await.as_deref(), Some("ada"));
    let list = devices(&mut laptop).await;
    assert_eq!(labels(&list), [("phone", false), ("laptop", true), ("tablet", false)]);
    assert_eq!(devices(&mut stranger).await.len(), 1);

    // A rotation keeps the session's place, under another name.
    assert_eq!(laptop.send(|session| async move { session.rotate().await }).await.status, 200);
    let again = devices(&mut laptop).await;
    assert_eq!(again.len(), 3);
    assert!(again.iter().any(|device| device.label == "laptop" && device.current));
    assert!(list.iter().all(|old| !old.current || again.iter().all(|new| new.id != old.id)));

    // Nobody ends another user's, or what is not there.
    let id = list[2].id.clone();
    let theirs = id.clone();
    stranger
        .send(|session| async move {
            assert!(!session.revoke_device(&theirs).await?);
            assert!(!session.revoke_device("0000000000000000").await?);
            Ok(())
        })
        .await;
    assert_eq!(user(&mut tablet).await.as_deref(), Some("ada"));
    phone
        .send(|session| async move {
            assert!(session.revoke_device(&id).await?);
            assert!(!session.revoke_device(&id).await?);
            Ok(())
        })
        .await;
    assert_eq!(user(&mut tablet).await, None);
    assert_eq!(user(&mut phone).await.as_deref(), Some("ada"));

    // All but this one.
    let mut other = signed_in(layer, "ada", "other").await;
    laptop
        .send(|session| async move {
            assert_eq!(session.revoke_other_devices().await?, 2);
            assert_eq!(session.revoke_other_devices().await?, 0);
            Ok(())
        })
        .await;
    assert_eq!((user(&mut phone).await, user(&mut other).await), (None, None));
    assert_eq!(labels(&devices(&mut laptop).await), [("laptop", true)]);

    // All of them, by somebody else. Who signs in afterwards is in again.
    let users = layer.users();
    assert_eq!(users.devices("ada").await.unwrap().len(), 1);
    assert_eq!(users.revoke_all("ada").await.unwrap(), 1);
    assert_eq!(user(&mut laptop).await, None);
    assert_eq!(user(&mut stranger).await.as_deref(), Some("bob"));
    assert_eq!(laptop.send(ada).await.status, 200);
    assert_eq!(user(&mut laptop).await.as_deref(), Some("ada"));

    // One's own is a sign-out.
    let own = devices(&mut laptop).await.remove(0).id;
    laptop.send(|session| async move { session.revoke_device(&own).await.map(drop) }).await;
    assert_eq!(laptop.cookie, None);
    assert!(users.devices("ada").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_users_devices_are_listed_and_ended_one_by_one_and_all_at_once_in_memory() {
    the_whole_story(&Stand::new().layer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_devices_are_listed_and_ended_one_by_one_and_all_at_once_on_redis() {
    let server = RedisServer::start().await;
    let url = format!("{}?response_timeout=120s&connect_timeout=20s", server.url());
    let backend = RedisBackend::connect(&url).await.expect("a connection");
    the_whole_story(&SessionLayer::new(&patient(backend, "shop")).evictable()).await;
}

#[tokio::test]
async fn reading_a_users_session_is_one_round_trip() {
    let stand = Stand::new();
    let mut browser = signed_in(&stand.layer, "ada", "phone").await;
    let before = stand.faults.total();
    assert_eq!(user(&mut browser).await.as_deref(), Some("ada"));
    assert_eq!(stand.faults.total() - before, 1);
    assert_eq!(stand.faults.count(Verb::GetMany), 1);
}

#[tokio::test]
async fn the_cookie_only_says_where_to_look_and_is_not_believed() {
    let stand = Stand::new();
    let browser = signed_in(&stand.layer, "ada", "phone").await;
    let cookie = browser.cookie.clone().unwrap();
    let bob = signed_in(&stand.layer, "bob", "phone").await.cookie.unwrap();
    let (id, list) = cookie.split_at(cookie.len() - 32);
    let theirs = &bob[bob.len() - 32..];
    // Without the list's name, and with another user's, the right one is asked.
    for changed in [id.to_owned(), format!("{id}{theirs}"), format!("{id}{}", "0".repeat(32))] {
        let mut browser = Browser::with_cookie(&stand.layer, &changed);
        assert_eq!(user(&mut browser).await.as_deref(), Some("ada"));
    }
    stand.layer.users().revoke_all("ada").await.unwrap();
    for changed in [cookie.clone(), id.to_owned(), format!("{id}{theirs}")] {
        assert_eq!(user(&mut Browser::with_cookie(&stand.layer, &changed)).await, None);
    }
    // An anonymous session gains nothing by naming a list.
    let mut anonymous = stand.browser();
    anonymous.send(|session| async move { session.insert("n", &1).await }).await;
    let named = format!("{}{list}", anonymous.cookie.unwrap());
    assert_eq!(user(&mut Browser::with_cookie(&stand.layer, &named)).await, None);
}

#[tokio::test]
async fn a_list_that_was_lost_signs_out_and_never_brings_back() {
    let stand = Stand::new();
    let mut revoked = signed_in(&stand.layer, "ada", "phone").await;
    stand.layer.users().revoke_all("ada").await.unwrap();
    let mut browser = signed_in(&stand.layer, "ada", "laptop").await;
    let cookie = browser.cookie.clone().unwrap();
    let slot: Vec<u8> = (cookie.len() - 32..cookie.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&cookie[at..at + 2], 16).unwrap())
        .collect();
    let own = Namespace::new("shop-sessions").unwrap();
    let store = stand.cache.store().in_namespace(own);
    let key = Key::new(store.namespace(), [b"x".as_slice(), b"u", &slot]).unwrap();
    assert!(store.remove(&key, None).await.unwrap(), "that is where the list is");
    assert_eq!(user(&mut browser).await, None);
    // A new list has nobody in it who was not put in.
    let mut after = signed_in(&stand.layer, "ada", "tablet").await;
    assert_eq!(user(&mut after).await.as_deref(), Some("ada"));
    assert_eq!((user(&mut browser).await, user(&mut revoked).await), (None, None));
}

#[tokio::test]
async fn a_sign_in_whose_list_cannot_be_written_leaves_the_visitor_as_they_were() {
    let (told, tells) = std::sync::mpsc::channel();
    let stand = Stand::with(|layer| {
        layer.on_event(move |event| {
            let _ = told.send(event);
        })
    });
    let mut browser = stand.browser();
    browser.send(|session| async move { session.insert("cart", &1).await }).await;
    // The new record is the first put, the list the second, the stone over the old record the third.
    for fails in 1..=3 {
        // The later rule counts first; each is used up by one call.
        let fail = Fault::Fail(larder_core::ErrorKind::Unavailable);
        stand.faults.inject_times(1, fail, &[Verb::Put]);
        stand.faults.inject_times(fails - 1, Fault::Delay(Duration::ZERO), &[Verb::Put]);
        let got = browser.send(ada).await;
        assert_eq!((got.status.as_u16(), got.set_cookie()), (503, None), "put {fails}");
        stand.faults.heal();
        browser
            .send(|session| async move {
                assert_eq!(session.get("cart").await?, Some(1));
                assert_eq!(session.user().await?, None);
                Ok(())
            })
            .await;
        assert!(stand.layer.users().devices("ada").await.unwrap().is_empty(), "put {fails}");
    }
    assert_eq!(tells.try_iter().filter(|event| *event == Event::Failed).count(), 3);
}

#[tokio::test]
async fn of_too_many_sessions_of_a_user_the_oldest_ends_and_those_that_ended_go_first() {
    let stand = Stand::new();
    let mut first = signed_in(&stand.layer, "ada", "first").await;
    for _ in 0..40 {
        signed_in(&stand.layer, "ada", "old")
            .await
            .send(|session| async move { session.destroy().await })
            .await;
    }
    assert_eq!(user(&mut first).await.as_deref(), Some("ada"));
    let mut all = vec![];
    for _ in 0..64 {
        all.push(signed_in(&stand.layer, "ada", "new").await);
    }
    assert_eq!(user(&mut first).await, None);
    assert_eq!(user(&mut all[0]).await.as_deref(), Some("ada"));
    assert_eq!(devices(&mut all[63]).await.len(), 64);
    let long = |session: Session| async move { session.sign_in_as(&"x".repeat(257), "").await };
    assert_eq!(first.send(long).await.status, 500);
}

/// Everybody signs in at once, then everything is ended while they go on.
async fn at_once(nodes: Vec<SessionLayer>, rounds: usize) {
    for round in 0..rounds {
        let node = |n: usize| nodes[(round + n) % nodes.len()].clone();
        let entering = (0..12).map(|n| {
            let layer = node(n);
            tokio::spawn(async move { signed_in(&layer, "ada", "phone").await })
        });
        let mut browsers = Vec::new();
        for browser in entering.collect::<Vec<_>>() {
            browsers.push(browser.await.unwrap());
        }
        let users = node(0).users();
        let listed = users.devices("ada").await.unwrap();
        assert_eq!(listed.len(), browsers.len(), "nobody was lost in round {round}");
        let ids: HashSet<_> = listed.iter().map(|device| &device.id).collect();
        assert_eq!(ids.len(), browsers.len());

        let going_on = browsers.into_iter().enumerate().map(|(n, browser)| {
            tokio::spawn(async move {
                let mut browser = browser;
                let old = browser.cookie.clone();
                let got = browser
                    .send(|session| async move {
                        // Read, so that the change is made on a session that was alive.
                        if session.user().await?.is_none() {
                            return Ok(());
                        }
                        match n % 3 {
                            0 => session.rotate().await,
                            1 => session.insert("n", &n).await,
                            _ => session.destroy().await,
                        }
                    })
                    .await;
                let ended = [None, Some(ErrorKind::Gone)].contains(&got.error);
                assert!(ended, "{got:?}");
                [old, browser.cookie]
            })
        });
        let going_on: Vec<_> = going_on.collect();
        users.revoke_all("ada").await.unwrap();
        for cookies in going_on {
            for cookie in cookies.await.unwrap().into_iter().flatten() {
                let mut browser = Browser::with_cookie(&node(1), &cookie);
                assert_eq!(user(&mut browser).await, None, "it came back in round {round}");
            }
        }
        assert!(users.devices("ada").await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_lost_at_a_sign_in_and_nobody_comes_back_after_all_were_ended_in_memory() {
    let memory = MemoryBackend::default();
    let node = || SessionLayer::new(&patient(memory.clone(), "shop")).evictable();
    at_once(vec![node(), node()], 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_lost_at_a_sign_in_and_nobody_comes_back_after_all_were_ended_on_redis() {
    let server = RedisServer::start().await;
    let url = format!("{}?response_timeout=120s&connect_timeout=20s", server.url());
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let backend = RedisBackend::connect(&url).await.expect("a connection");
        nodes.push(SessionLayer::new(&patient(backend, "shop")).evictable());
    }
    at_once(nodes, 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s14_nobody_is_lost_and_nobody_comes_back_after_all_were_ended_while_the_secret_changes() {
    let memory = MemoryBackend::default();
    let node = |secret: [u8; 32], other: [u8; 32]| {
        let layer = SessionLayer::new(&patient(memory.clone(), "shop")).evictable();
        layer.secret(&secret).accept_secret(&other).expect("a secret")
    };
    at_once(vec![node([7; 32], [9; 32]), node([9; 32], [7; 32])], 200).await;
}

#[tokio::test]
async fn a_slow_request_of_a_revoked_session_saves_nothing_that_anybody_can_read() {
    let stand = Stand::new();
    let mut browser = signed_in(&stand.layer, "ada", "phone").await;
    let users = stand.layer.users();
    for rotates in [false, true] {
        let mut slow = browser.clone();
        let (users, layer) = (users.clone(), stand.layer.clone());
        let got = slow
            .send(|session| async move {
                assert!(session.user().await?.is_some());
                users.revoke_all("ada").await?;
                match rotates {
                    true => session.rotate().await,
                    false => session.insert("n", &1).await,
                }
            })
            .await;
        assert_eq!((got.error, got.set_cookie()), (Some(ErrorKind::Gone), None));
        let cookie = browser.cookie.clone();
        exchange(&layer, cookie.as_deref(), |session| async move {
            assert!(session.is_empty().await? && session.user().await?.is_none());
            Ok(())
        })
        .await;
        browser = signed_in(&stand.layer, "ada", "phone").await;
    }
}
