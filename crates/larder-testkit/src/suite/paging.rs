//! Paging through keys by prefix.

use std::collections::BTreeSet;

use larder_core::{Backend, Cursor, Entry, ErrorKind, Key, KeyBuf, Prefix, When};

use super::steps::{LONG, expect_error, text};
use crate::Harness;

// All keys of a prefix, or `None` where paging is declared missing and says so.
async fn all<B: Backend>(h: &Harness<B>, prefix: &Prefix, limit: usize) -> Option<BTreeSet<Key>> {
    if !h.abilities().pages {
        let result = h.backend().page(prefix, None, limit).await;
        expect_error(result, ErrorKind::Unsupported, "paging that is declared missing");
        return None;
    }
    let (mut keys, mut from) = (BTreeSet::new(), None);
    // A server may answer with empty pages; it may not go on for ever.
    for _ in 0..100_000 {
        let page = h.backend().page(prefix, from, limit).await.expect("page");
        for key in page.keys {
            assert!(prefix.matches(key.as_ref()), "{key:?} does not begin like that");
            keys.insert(key);
        }
        from = page.next;
        if from.is_none() {
            return Some(keys);
        }
    }
    panic!("the paging does not end");
}

fn key<B: Backend>(h: &Harness<B>, parts: &[&str]) -> Key {
    Key::new(h.namespace(), parts).expect("the key is short")
}

/// What is declared missing answers `Unsupported`; what is there finds an entry.
pub async fn declared_is_done<B: Backend>(h: &Harness<B>) {
    let key = h.key("paged");
    h.store(&key, text("paged"), LONG).await;
    if let Some(found) = all(h, &Prefix::new(h.namespace()), 10).await {
        assert!(found.contains(&key), "an entry that is there is found");
    }
}

/// Every entry that stays in place is found, however small the pages are.
pub async fn everything_is_found<B: Backend>(h: &Harness<B>) {
    let keys: BTreeSet<Key> = (0..60).map(|n| key(h, &["page", &format!("item {n}")])).collect();
    for key in &keys {
        h.store(key, text("paged"), LONG).await;
    }
    let prefix = Prefix::new(h.namespace()).part("page");
    for limit in [1, 7, 59, 60, 1000] {
        let Some(found) = all(h, &prefix, limit).await else { return };
        assert!(found == keys, "in pages of {limit}: {} of {} are found", found.len(), keys.len());
    }
}

/// Entries that stay are found while others come and go between the pages.
pub async fn found_among_changes<B: Backend>(h: &Harness<B>) {
    if !h.abilities().pages {
        return;
    }
    let stay: BTreeSet<Key> = (0..30).map(|n| key(h, &["page", &format!("stays {n}")])).collect();
    let passing: Vec<Key> = (0..30).map(|n| key(h, &["page", &format!("goes {n}")])).collect();
    for key in stay.iter().chain(&passing) {
        h.store(key, text("paged"), LONG).await;
    }
    let prefix = Prefix::new(h.namespace()).part("page");
    let (mut found, mut from) = (BTreeSet::new(), None);
    for round in 0..100_000 {
        let page = h.backend().page(&prefix, from, 3).await.expect("page");
        found.extend(page.keys);
        from = page.next;
        if from.is_none() {
            break;
        }
        if let Some(gone) = passing.get(round) {
            h.remove(gone).await;
            h.store(&key(h, &["page", &format!("comes {round}")]), text("new"), LONG).await;
        }
    }
    assert!(from.is_none(), "the paging ends");
    assert!(stay.is_subset(&found), "what stayed the whole time was reported");
}

/// A prefix is literal: what means something in a pattern means itself.
pub async fn prefixes_are_literal<B: Backend>(h: &Harness<B>) {
    let starts =
        ["*", "?", "[ab]", "\\", "%", "_", "a*b", "{a,b}", "a", "A", "^a", "%%", "ü", "\r\n", ":"];
    for start in starts {
        for tail in ["", "x", "yy"] {
            h.store(&key(h, &["literal", &format!("{start}{tail}")]), text("paged"), LONG).await;
        }
    }
    for start in starts {
        let prefix = Prefix::new(h.namespace()).part("literal").starting_with(start);
        let Some(found) = all(h, &prefix, 100).await else { return };
        let expected: BTreeSet<Key> = starts
            .iter()
            .flat_map(|other| ["", "x", "yy"].map(|tail| format!("{other}{tail}")))
            .filter(|part| part.starts_with(start))
            .map(|part| key(h, &["literal", &part]))
            .collect();
        assert!(found == expected, "{start:?} finds {} of {}", found.len(), expected.len());
    }
    let nobody = Prefix::new(h.namespace()).part("literal").starting_with("nobody");
    let found = all(h, &nobody, 100).await.unwrap_or_default();
    assert!(found.is_empty(), "nothing begins like that");
}

/// A prefix ends where a part ends, and long ones are told apart beyond what a server's name shows.
pub async fn prefixes_respect_parts<B: Backend>(h: &Harness<B>) {
    let long = "x".repeat(300);
    let (one, two) = (format!("{long}1"), format!("{long}2"));
    let lists: [&[&str]; 9] = [
        &["a", "b"],
        &["ab"],
        &["a", "b", "c"],
        &["ab", "c"],
        &["a:b", "c"],
        &["a"],
        &[&one, "c"],
        &[&two, "c"],
        &["A", "b"],
    ];
    for parts in lists {
        h.store(&key(h, parts), text("paged"), LONG).await;
    }
    let absent = KeyBuf::new(h.namespace()).part("a").optional(None::<&str>).part("z").key();
    let absent = absent.expect("the key is short");
    h.store(&absent, text("paged"), LONG).await;
    let new = || Prefix::new(h.namespace());
    let prefixes = [
        new(),
        new().starting_with("a"),
        new().part("a"),
        new().part("a").starting_with("b"),
        new().part("a").part("b"),
        new().part(&long),
        new().starting_with(&long),
        new().part(&one),
        new().starting_with(&two),
        new().part("A"),
    ];
    for (index, prefix) in prefixes.iter().enumerate() {
        let Some(found) = all(h, prefix, 2).await else { return };
        let keys = lists.iter().map(|parts| key(h, parts)).chain([absent.clone()]);
        let expected: BTreeSet<Key> = keys.filter(|key| prefix.matches(key.as_ref())).collect();
        assert!(found == expected, "prefix {index} finds {} of {}", found.len(), expected.len());
    }
}

/// Another namespace's keys are not reported.
pub async fn other_namespaces_are_not_reported<B: Backend>(h: &Harness<B>) {
    let (mine, theirs) = (h.key("mine"), h.other_key("theirs"));
    h.store(&mine, text("mine"), LONG).await;
    h.store(&theirs, text("theirs"), LONG).await;
    for (namespace, expected) in [(h.namespace(), mine), (h.other(), theirs)] {
        let prefix = Prefix::new(namespace).part("kit");
        let Some(found) = all(h, &prefix, 10).await else { return };
        assert!(found == BTreeSet::from([expected]), "each namespace reports its own keys");
    }
}

/// What is absent is not reported: removed, expired, cleared, never filled.
pub async fn absent_is_not_reported<B: Backend>(h: &Harness<B>) {
    let (kept, removed, expired) = (h.key("kept"), h.key("removed"), h.key("expired"));
    let (filling, refused) = (h.key("filling"), h.key("refused"));
    for key in [&kept, &removed] {
        h.store(key, text("there"), LONG).await;
    }
    h.store(&expired, text("expired"), h.tick()).await;
    h.token(&filling, LONG).await;
    let _ = h.put(&refused, Entry::integer(1), LONG, When::Present).await;
    assert!(h.remove(&removed).await, "it was there");
    h.outlive(h.tick()).await;
    let prefix = Prefix::new(h.namespace()).part("kit");
    let Some(found) = all(h, &prefix, 10).await else { return };
    assert!(found == BTreeSet::from([kept]), "only what is there is reported: {found:?}");
    h.backend().clear(h.namespace()).await.expect("clear");
    let found = all(h, &prefix, 10).await.unwrap_or_default();
    assert!(found.is_empty(), "what was cleared is not reported");
}

/// A cursor that nobody gave is an error or a page, and harms nothing.
pub async fn foreign_cursors_are_harmless<B: Backend>(h: &Harness<B>) {
    let key = h.key("there");
    h.store(&key, text("there"), LONG).await;
    let prefix = Prefix::new(h.namespace());
    for bytes in [vec![], vec![0], vec![0xff; 9], b"not a cursor\r\n".to_vec(), vec![0x41; 5000]] {
        let result = h.backend().page(&prefix, Some(Cursor(bytes)), 10).await;
        if !h.abilities().pages {
            expect_error(result, ErrorKind::Unsupported, "paging that is declared missing");
        } else if let Ok(page) = result {
            assert!(page.keys.iter().all(|key| prefix.matches(key.as_ref())), "only its own keys");
        }
    }
    h.expect_body(&key, "there", "a foreign cursor harms nothing").await;
}
