//! Conditional writes, against everything that may be there.

use larder_core::{Backend, Key, Outcome, Revision, Token, When};

use super::steps::{LONG, text};
use crate::Harness;

// What is there when a condition is looked at.
struct Scene {
    what: &'static str,
    key: Key,
    body: Option<&'static str>,
    revision: Revision,
    token: Token,
}

// Seven keys: missing, removed, an entry, an expired entry, a marker, an expired marker, a pass.
async fn scenes<B: Backend>(h: &Harness<B>) -> Vec<Scene> {
    let mut scenes: Vec<Scene> = Vec::new();
    for what in ["missing", "removed", "entry", "expired", "marker", "expired marker", "pass"] {
        let (revision, token) = (Revision::random(), Token::random());
        scenes.push(Scene { what, key: h.key(what), body: None, revision, token });
    }
    for scene in &mut scenes {
        let entry = text("old").with_revision(scene.revision);
        match scene.what {
            "removed" => {
                h.store(&scene.key, entry, LONG).await;
                assert!(h.remove(&scene.key).await, "it was there");
            }
            "entry" => {
                h.store(&scene.key, entry, LONG).await;
                scene.body = Some("old");
            }
            "expired" => h.store(&scene.key, entry, h.tick()).await,
            "marker" => scene.token = h.token(&scene.key, LONG).await,
            "expired marker" => scene.token = h.token(&scene.key, h.tick()).await,
            "pass" => {
                scene.token = h.token(&scene.key, LONG).await;
                let released = h.backend().release(&scene.key, scene.token, Some(LONG)).await;
                assert!(released.expect("release"), "the marker was there");
            }
            _ => {}
        }
    }
    h.outlive(h.tick()).await;
    scenes
}

async fn table<B: Backend>(h: &Harness<B>, when: impl Fn(&Scene) -> When, stores: &[&str]) {
    for scene in scenes(h).await {
        let when = when(&scene);
        let outcome = h.put(&scene.key, text("new"), LONG, when).await;
        let expected =
            if stores.contains(&scene.what) { Outcome::Stored } else { Outcome::Refused };
        assert_eq!(outcome, expected, "{when:?} over {:?}", scene.what);
        let body = h.body(&scene.key).await;
        let expected = if outcome == Outcome::Stored { Some("new") } else { scene.body };
        assert_eq!(body.as_deref(), expected, "after {when:?} over {:?}", scene.what);
    }
}

const ABSENT: [&str; 6] = ["missing", "removed", "expired", "marker", "expired marker", "pass"];

/// `Always` stores whatever is there.
pub async fn always<B: Backend>(h: &Harness<B>) {
    let all = [&ABSENT[..], &["entry"]].concat();
    table(h, |_| When::Always, &all).await;
}

/// `Absent` stores where there is no entry: expired entries and markers are none.
pub async fn absent<B: Backend>(h: &Harness<B>) {
    table(h, |_| When::Absent, &ABSENT).await;
}

/// `Present` stores over an entry, and over nothing else.
pub async fn present<B: Backend>(h: &Harness<B>) {
    table(h, |_| When::Present, &["entry"]).await;
}

/// `Revision` stores over an entry of that revision.
pub async fn revision<B: Backend>(h: &Harness<B>) {
    table(h, |scene| When::Revision(scene.revision), &["entry"]).await;
}

/// `Revision` refuses where the entry has another one.
pub async fn another_revision<B: Backend>(h: &Harness<B>) {
    table(h, |_| When::Revision(Revision::random()), &[]).await;
}

/// `Token` stores over that very marker.
pub async fn token<B: Backend>(h: &Harness<B>) {
    table(h, |scene| When::Token(scene.token), &["marker"]).await;
}

/// `Token` refuses where the marker is another one, or lost.
pub async fn another_token<B: Backend>(h: &Harness<B>) {
    table(h, |_| When::Token(Token::random()), &[]).await;
}

/// Conditions hold for integers as they do for bytes.
pub async fn integers_have_conditions_too<B: Backend>(h: &Harness<B>) {
    let key = h.key("integer");
    let five = || larder_core::Entry::integer(5);
    assert_eq!(h.put(&key, five(), LONG, When::Present).await, Outcome::Refused, "none is there");
    assert_eq!(h.put(&key, five(), LONG, When::Absent).await, Outcome::Stored, "none is there");
    assert_eq!(h.put(&key, five(), LONG, When::Absent).await, Outcome::Refused, "one is there");
    assert_eq!(h.put(&key, five(), LONG, When::Present).await, Outcome::Stored, "one is there");
    // Not even the one that integers are read with: it says nothing of what was added since.
    for revision in [Revision::random(), Revision::NONE] {
        let when = When::Revision(revision);
        assert_eq!(h.put(&key, five(), LONG, when).await, Outcome::Refused, "no such revision");
        let removed = h.backend().remove(&key, Some(revision)).await.expect("remove");
        assert!(!removed, "no such revision");
    }
    let when = When::Token(Token::random());
    assert_eq!(h.put(&key, five(), LONG, when).await, Outcome::Refused, "no such marker");
}

/// A refused write changes neither value nor revision nor lifetime.
pub async fn a_refusal_changes_nothing<B: Backend>(h: &Harness<B>) {
    let refused =
        || [When::Absent, When::Revision(Revision::random()), When::Token(Token::random())];
    // By a clock that goes on by itself, the entry could be gone before it is refused.
    if h.moving_hands().is_some() {
        let key = h.key("refused");
        h.store(&key, text("kept"), h.tick()).await;
        for when in refused() {
            let outcome = h.put(&key, text("refused"), LONG, when).await;
            assert_eq!(outcome, Outcome::Refused, "{when:?} over another entry");
        }
        h.outlive(h.tick()).await;
        h.expect_absent(&key, "a refusal must not prolong a lifetime").await;
    }

    let key = h.key("refused, long");
    let entry = text("kept");
    let revision = entry.revision();
    h.store(&key, entry, LONG).await;
    for when in refused() {
        let outcome = h.put(&key, text("refused"), h.tick(), when).await;
        assert_eq!(outcome, Outcome::Refused, "{when:?} over another entry");
    }
    h.outlive(h.tick()).await;
    let read = h.get(&key).await.expect("a refusal must not shorten a lifetime");
    assert_eq!(super::steps::body(&read), "kept", "a refusal must leave the value alone");
    assert_eq!(read.revision(), revision, "a refusal must leave the revision alone");
}

/// A lifetime of zero removes where its condition holds, says `Stored`, and leaves nothing.
pub async fn zero_follows_the_condition<B: Backend>(h: &Harness<B>) {
    let zero = std::time::Duration::ZERO;
    for scene in scenes(h).await {
        let absent = scene.what != "entry";
        let outcome = h.put(&scene.key, text("zero"), zero, When::Absent).await;
        let expected = if absent { Outcome::Stored } else { Outcome::Refused };
        assert_eq!(outcome, expected, "a zero `Absent` put over {:?}", scene.what);
        assert_eq!(h.body(&scene.key).await.as_deref(), scene.body, "over {:?}", scene.what);
        if !absent {
            let wrong = When::Revision(Revision::random());
            let outcome = h.put(&scene.key, text("zero"), zero, wrong).await;
            assert_eq!(outcome, Outcome::Refused, "a zero put of another revision");
            h.expect_body(&scene.key, "old", "a refused zero put removes nothing").await;
            let right = When::Revision(scene.revision);
            let outcome = h.put(&scene.key, text("zero"), zero, right).await;
            assert_eq!(outcome, Outcome::Stored, "a zero put of that revision");
            h.expect_absent(&scene.key, "a zero put leaves nothing").await;
        }
    }
}
