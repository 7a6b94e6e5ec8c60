//! Using a session: what handlers see, what the browser is told, what it costs.

mod common;

use std::collections::BTreeMap;

use common::{Browser, Stand, exchange};
use http::StatusCode;
use http::header::{CACHE_CONTROL, VARY};
use larder_core::{Encoded, Namespace};
use larder_session::{ErrorKind, Expiry, Session, SessionCookie, SessionLayer};
use larder_testkit::faulty::Verb;
use serde::{Deserialize, Serialize};
use std::time::Duration;

async fn put(session: Session) -> larder_session::Result<()> {
    session.insert("user", &7).await
}

#[tokio::test]
async fn s08_and_c121_who_brings_no_cookie_and_writes_nothing_costs_nothing() {
    let stand = Stand::new();
    let requests = std::env::var("LARDER_REQUESTS").ok().and_then(|many| many.parse().ok());
    for _ in 0..requests.unwrap_or(1000) {
        let got = stand.browser().send(|_| async { Ok(()) }).await;
        assert!(got.headers.is_empty(), "{got:?}");
        // Looking into a session that is not there, and signing out of it.
        let got = stand
            .browser()
            .send(|session| async move {
                assert_eq!(session.get::<u8>("user").await?, None);
                assert!(!session.remove("user").await?);
                assert!(!session.contains("user").await?);
                assert!(session.is_empty().await? && session.keys().await?.is_empty());
                assert_eq!(session.id_hash().await?, None);
                session.clear().await?;
                session.rotate().await?;
                session.set_expiry(Expiry::fixed(Duration::from_secs(1))).await?;
                session.destroy().await
            })
            .await;
        assert!(got.is_marked() && got.set_cookie().is_none());
    }
    assert_eq!(stand.faults.total(), 0);
    assert_eq!(stand.memory.usage().entries, 0);
}

#[tokio::test]
async fn c106_reading_is_one_round_trip_and_writing_one_load_and_one_save() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    let cost = |verbs: &[Verb]| {
        let seen: Vec<Verb> = stand.faults.calls().iter().map(|call| call.verb).collect();
        assert_eq!(seen, verbs);
        stand.faults.forget();
    };
    let got = browser.send(put).await;
    assert!(got.set_cookie().is_some());
    cost(&[Verb::Put]);

    // Not used: not even looked at.
    let got = browser.send(|_| async { Ok(()) }).await;
    assert!(got.headers.is_empty());
    cost(&[]);

    let got = browser
        .send(|session| async move {
            for _ in 0..5 {
                assert_eq!(session.get("user").await?, Some(7));
                assert!(session.contains("user").await?);
            }
            Ok(())
        })
        .await;
    assert!(got.set_cookie().is_none() && got.is_marked());
    assert_eq!(got.field(CACHE_CONTROL), Some("private"));
    cost(&[Verb::Get]);

    browser
        .send(|session| async move {
            for n in 0..5 {
                session.insert("n", &n).await?;
                session.update("m", |m: &mut Vec<u8>| m.push(1)).await?;
            }
            Ok(())
        })
        .await;
    cost(&[Verb::Get, Verb::Put]);

    // What becomes what it was is no change.
    let got = browser
        .send(|session| async move {
            session.insert("user", &7).await?;
            session.insert("n", &0).await?;
            session.insert("n", &4).await?;
            session.update("m", |m: &mut Vec<u8>| m.sort_unstable()).await?;
            session.set_expiry(None).await
        })
        .await;
    assert!(got.set_cookie().is_none());
    cost(&[Verb::Get]);

    // A new id: one put for it, one for the stone over the old one.
    browser.send(|session| async move { session.rotate().await }).await;
    cost(&[Verb::Get, Verb::Put, Verb::Put]);
    browser.send(|session| async move { session.destroy().await }).await;
    cost(&[Verb::Get, Verb::Put]);
    assert_eq!(browser.cookie, None);
}

#[tokio::test]
async fn c109_what_is_taken_is_shown_once_and_a_sign_in_changes_the_id() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    let notice = |session: Session| async move {
        session.update("notices", |notices: &mut Vec<u8>| notices.push(1)).await.map(drop)
    };
    browser.send(notice).await;
    browser.send(notice).await;
    let before = browser.cookie.clone();
    browser.send(|session| async move { session.sign_in("user", "Ada").await }).await;
    assert_ne!(browser.cookie, before);
    for shown in [Some(vec![1, 1]), None] {
        browser
            .send(|session| async move {
                assert!(session.take::<u8>("user").await.is_err(), "it is text");
                assert_eq!(session.take::<Vec<u8>>("notices").await?, shown);
                assert_eq!(session.get::<String>("user").await?.as_deref(), Some("Ada"));
                Ok(())
            })
            .await;
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    name: Option<String>,
    cart: BTreeMap<String, Vec<u32>>,
}

#[tokio::test]
async fn c108_nested_changes_are_noticed_and_other_keys_stay() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    browser
        .send(|session| async move {
            session
                .update_typed(|visitor: &mut Visitor| {
                    visitor.cart.entry("tea".into()).or_default().push(1);
                })
                .await
        })
        .await;
    browser
        .send(|session| async move {
            let deep = |visitor: &mut Visitor| visitor.cart.get_mut("tea").unwrap()[0] += 41;
            session.update_typed(deep).await
        })
        .await;
    stand.faults.forget();
    browser
        .send(|session| async move {
            let visitor: Visitor = session.typed().await?;
            assert_eq!(visitor.cart["tea"], [42]);
            assert_eq!(session.get("user").await?, Some(7));
            // Looked at with a closure, and nothing changed.
            session.update_typed(|visitor: &mut Visitor| visitor.name = None).await
        })
        .await;
    assert_eq!(stand.faults.count(Verb::Put), 0);
}

#[tokio::test]
async fn s01_and_c107_a_clients_id_is_never_adopted() {
    let stand = Stand::new();
    let mut victim = stand.browser();
    victim.send(put).await;
    let after_logout = victim.cookie.clone().unwrap();
    victim.send(|session| async move { session.destroy().await }).await;
    let mut expired = stand.browser();
    expired.send(put).await;
    let after_expiry = expired.cookie.clone().unwrap();
    stand.later(Duration::from_secs(91 * 86400));
    let forged = format!("__Host-id={}", "ab".repeat(32));
    for chosen in [forged, after_logout, after_expiry] {
        for malformed in [false, true] {
            let chosen = if malformed { chosen.to_uppercase() } else { chosen.clone() };
            let mut browser = Browser::with_cookie(&stand.layer, &chosen);
            let reading = |session: Session| async move {
                assert_eq!(session.get::<i32>("user").await?, None);
                Ok(())
            };
            // No removal either, or two requests of one browser would fight over the cookie.
            assert_eq!(browser.send(reading).await.set_cookie(), None);
            assert!(browser.send(put).await.set_cookie().is_some());
            assert_ne!(browser.cookie.as_deref(), Some(&*chosen));
            assert_eq!(exchange(&stand.layer, Some(&chosen), reading).await.status, 200);
        }
    }
}

#[tokio::test]
async fn s02_and_c109_rotation_is_kept_whatever_follows_and_the_old_id_is_dead() {
    type Step = &'static [&'static str];
    let orders: [Step; 6] = [
        &["rotate"],
        &["rotate", "insert"],
        &["insert", "rotate"],
        &["rotate", "remove"],
        &["rotate", "clear"],
        &["rotate", "save", "insert"],
    ];
    for steps in orders {
        let stand = Stand::new();
        let mut browser = stand.browser();
        browser.send(put).await;
        let old = browser.cookie.clone().unwrap();
        let got = browser
            .send(|session| async move {
                for step in steps {
                    match *step {
                        "rotate" => session.rotate().await?,
                        "insert" => session.insert("n", &1).await?,
                        "remove" => assert!(session.remove("user").await?),
                        "clear" => session.clear().await?,
                        _ => session.save().await?,
                    }
                }
                Ok(())
            })
            .await;
        let new = browser.cookie.clone().unwrap();
        assert_ne!(old, new, "{steps:?}");
        assert!(got.field(CACHE_CONTROL).unwrap().contains("no-store"));
        let kept = !steps.contains(&"remove") && !steps.contains(&"clear");
        for (cookie, user) in [(&old, None), (&new, kept.then_some(7))] {
            exchange(&stand.layer, Some(cookie), |session| async move {
                assert_eq!(session.get::<i32>("user").await?, user, "{steps:?}");
                Ok(())
            })
            .await;
        }
        // Who writes with the old id is told, instead of getting another session in the way of the new one.
        let got = exchange(&stand.layer, Some(&old), put).await;
        assert_eq!((got.status, got.set_cookie()), (StatusCode::CONFLICT, None));
        // But who never got the new one, since the response was lost, can sign in again.
        let mut lost = Browser::with_cookie(&stand.layer, &old);
        let again = |session: Session| async move {
            session.rotate().await?;
            assert!(session.is_empty().await?);
            session.insert("user", &8).await
        };
        assert_eq!(lost.send(again).await.status, 200);
        assert!(![&old, &new].contains(&lost.cookie.as_ref().unwrap()));
    }
}

#[tokio::test]
async fn s02_what_begins_after_a_destruction_has_a_new_id() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    let old = browser.cookie.clone().unwrap();
    let flush = |session: Session| async move {
        session.destroy().await?;
        assert!(session.is_empty().await?);
        session.insert("n", &1).await
    };
    browser.send(flush).await;
    assert_ne!(browser.cookie.as_deref(), Some(&*old));
    browser
        .send(|session| async move {
            assert_eq!(session.keys().await?, ["n"]);
            Ok(())
        })
        .await;
    // Twice in one exchange, and begun and ended in one.
    let got = browser
        .send(|session| async move {
            session.destroy().await?;
            session.insert("n", &2).await?;
            session.save().await?;
            session.destroy().await
        })
        .await;
    assert!(got.set_cookie().unwrap().contains("Max-Age=0"));
    let got = stand
        .browser()
        .send(|session| async move {
            session.insert("n", &2).await?;
            session.save().await?;
            session.destroy().await
        })
        .await;
    assert_eq!(got.set_cookie(), None);
}

#[tokio::test]
async fn s13_a_value_moved_to_another_cookie_or_another_layer_is_nothing() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    let value = browser.cookie.unwrap();
    let admin = SessionLayer::new(&stand.cache).cookie(SessionCookie::new("admin")).unwrap();
    let keyed = SessionLayer::new(&stand.cache).secret(&[7; 32]);
    let other = SessionLayer::new(&stand.cache.namespace("other").unwrap());
    let renamed = value.replace("__Host-id", "__Host-admin");
    for (layer, cookie) in
        [(&admin, &renamed), (&admin, &value), (&keyed, &value), (&other, &value)]
    {
        exchange(layer, Some(cookie), |session| async move {
            assert!(session.is_empty().await?);
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn s19_of_two_cookies_with_a_session_each_none_is_used() {
    let stand = Stand::new();
    let (mut one, mut two) = (stand.browser(), stand.browser());
    one.send(put).await;
    two.send(put).await;
    let (one, two) = (one.cookie.unwrap(), two.cookie.unwrap());
    let unknown = format!("__Host-id={}", "0".repeat(64));
    for (cookies, user) in [
        (format!("{one}; {two}"), None),
        (format!("{two}; a=b; {one}"), None),
        (format!("{unknown}; {one}"), Some(7)),
        (format!("{one}; {unknown}; __Host-id=x"), Some(7)),
    ] {
        stand.faults.forget();
        let got = exchange(&stand.layer, Some(&cookies), |session| async move {
            assert_eq!(session.get::<i32>("user").await?, user);
            Ok(())
        })
        .await;
        assert_eq!(got.set_cookie(), None);
        assert_eq!(stand.faults.total(), 1, "one round trip for all");
    }
    // Signing out ends both.
    let got = exchange(&stand.layer, Some(&format!("{one}; {two}")), |session| async move {
        session.destroy().await
    })
    .await;
    assert!(got.set_cookie().unwrap().contains("Max-Age=0"));
    for cookie in [&one, &two] {
        exchange(&stand.layer, Some(cookie), |session| async move {
            assert!(session.is_empty().await?);
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn s20_and_c110_headers_are_right_on_set_refresh_and_removal_and_stricter_ones_stay() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    for (handler, cookie) in [("put", true), ("read", false), ("put", true), ("destroy", true)] {
        let got = browser
            .send(|session| async move {
                match handler {
                    "put" => session.update("n", |n: &mut u8| *n += 1).await.map(drop),
                    "read" => session.contains("n").await.map(drop),
                    _ => session.destroy().await,
                }
            })
            .await;
        assert_eq!(got.set_cookie().is_some(), cookie, "{handler}");
        let control = got.field(CACHE_CONTROL).unwrap();
        assert_eq!(control, if cookie { "no-store, private" } else { "private" });
        assert_eq!(got.field(VARY), Some("cookie"));
    }
}

#[tokio::test]
async fn s23_a_session_over_its_limits_is_an_error_and_nothing_is_cut() {
    let stand = Stand::with(|layer| layer.max_bytes(64 << 10));
    let mut browser = stand.browser();
    // A key of one byte, lengths of six, MessagePack's own three.
    let fits = (64 << 10) - 7 - 3;
    for (length, ok) in [(fits - 1, true), (fits, true), (fits + 1, false), (10 << 20, false)] {
        browser
            .send(|session| async move {
                let put = session.insert("k", &"x".repeat(length)).await;
                assert_eq!(put.is_ok(), ok, "{length}");
                if let Err(error) = put {
                    assert_eq!(error.kind(), ErrorKind::TooLarge);
                    assert_eq!(session.get::<String>("k").await?.unwrap().len(), fits);
                }
                Ok(())
            })
            .await;
        let stored = length.min(fits);
        browser
            .send(|session| async move {
                assert_eq!(session.get::<String>("k").await?.unwrap().len(), stored);
                Ok(())
            })
            .await;
    }
    let got = stand
        .browser()
        .send(|session| async move {
            assert!(session.insert(&"k".repeat(257), &1).await.is_err());
            for n in 0..1024 {
                session.insert(&n.to_string(), &n).await?;
            }
            assert!(session.insert("one more", &1).await.is_err());
            Ok(())
        })
        .await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn what_is_not_of_the_type_is_an_error_and_changes_nothing() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    browser
        .send(|session| async move {
            let kind = |error: larder_session::Error| error.kind();
            assert_eq!(session.get::<String>("user").await.map_err(kind), Err(ErrorKind::Value));
            let update = session.update("user", |text: &mut String| text.clear()).await;
            assert_eq!(update.map_err(kind), Err(ErrorKind::Value));
            assert_eq!(session.get::<i32>("user").await?, Some(7));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn undecodable_records_are_no_session_and_are_left_alone() {
    let stand = Stand::new();
    let mut browser = stand.browser();
    browser.send(put).await;
    let store = stand.cache.store().in_namespace(Namespace::new("shop-sessions").unwrap());
    let put_call = stand.faults.calls().into_iter().find(|call| call.verb == Verb::Put).unwrap();
    let key = put_call.keys[0].clone();
    for (codec, head) in [(20, vec![2; 27]), (20, vec![]), (99, vec![1; 27]), (20, vec![255; 4096])]
    {
        let entry = larder_core::Entry::wire(Encoded {
            codec,
            head: head.into(),
            body: vec![255; 100].into(),
        });
        let always = larder_core::When::Always;
        let _ = store.put(&key, entry, larder_core::Ttl::Forever, always).await.unwrap();
        let got = browser
            .clone()
            .send(|session| async move {
                assert!(session.is_empty().await?);
                session.insert("n", &1).await
            })
            .await;
        assert!(got.set_cookie().is_some());
    }
}

#[tokio::test]
async fn clearing_the_cache_leaves_sessions_alone() {
    for name in ["shop", "a-namespace-of-thirty-two-letters"] {
        let cache =
            common::patient(larder_memory::MemoryBackend::default(), &name[..name.len().min(32)]);
        let layer = SessionLayer::new(&cache).evictable();
        let mut browser = Browser::new(&layer);
        browser.send(put).await;
        cache.set("n", 1).await.unwrap();
        cache.clear().await.unwrap();
        browser
            .send(|session| async move {
                assert_eq!(session.get("user").await?, Some(7));
                Ok(())
            })
            .await;
    }
}

#[tokio::test]
async fn c108_nothing_is_saved_on_a_server_error_unless_that_is_wanted() {
    for wanted in [false, true] {
        let stand = Stand::with(|layer| if wanted { layer.save_on_server_errors() } else { layer });
        let mut browser = stand.browser();
        let failing = |session: Session| async move {
            session.insert("n", &1).await?;
            let unreadable = session.get::<String>("n").await;
            unreadable.map(drop)
        };
        let got = browser.send(failing).await;
        assert_eq!(got.status, 500);
        assert_eq!(got.set_cookie().is_some(), wanted);
        assert_eq!(stand.memory.usage().entries, u64::from(wanted));
        assert!(got.is_marked());
        // A sign-out that failed leaves the visitor signed in, with their cookie.
        browser.send(put).await;
        let got = browser
            .send(|session| async move {
                session.destroy().await?;
                session.insert("n", &1).await?;
                session.get::<String>("n").await.map(drop)
            })
            .await;
        assert_eq!(got.set_cookie().is_some(), wanted);
    }
}
