//! Many at the same time.

use std::sync::Arc;

use bytes::Bytes;
use larder_core::{
    Backend, Begin, Counter, Encoded, Entry, Key, Outcome, Remaining, Revision, Token, When,
};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use super::steps::{CODEC, LONG, body, text};
use crate::Harness;

// Starts so many tasks at once and gives what they return, in order.
async fn together<B: Backend, T: Send + 'static, F>(
    h: &Harness<B>,
    tasks: usize,
    task: impl Fn(usize, Arc<B>) -> F,
) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(tasks));
    let spawn = |n| {
        let (future, barrier) = (task(n, h.shared()), barrier.clone());
        tokio::spawn(async move {
            barrier.wait().await;
            future.await
        })
    };
    let handles: Vec<JoinHandle<T>> = (0..tasks).map(spawn).collect();
    let mut outputs = Vec::with_capacity(tasks);
    for handle in handles {
        outputs.push(handle.await.expect("a task must not panic"));
    }
    outputs
}

// Puts with one condition from many tasks; exactly one may store, and its value is there.
async fn expect_one_winner<B: Backend>(h: &Harness<B>, key: &Key, tasks: usize, when: When) {
    let outcomes = together(h, tasks, |n, backend| {
        let (key, entry) = (key.clone(), text(format!("writer {n}")));
        async move { backend.put(&key, entry, LONG.into(), when).await.expect("put") }
    })
    .await;
    let winners: Vec<_> = (0..tasks).filter(|n| outcomes[*n] == Outcome::Stored).collect();
    let [winner] = winners[..] else { panic!("{when:?}: {} of {tasks} stored", winners.len()) };
    h.expect_body(key, &format!("writer {winner}"), "the winner's value is there").await;
}

/// A hundred writers insert if absent: one succeeds.
pub async fn one_absent_put_wins<B: Backend>(h: &Harness<B>) {
    for round in 0..5 {
        expect_one_winner(h, &h.key(format!("absent {round}")), 100, When::Absent).await;
    }
    let expired = h.key("expired");
    h.store(&expired, text("old"), h.tick()).await;
    h.outlive(h.tick()).await;
    expect_one_winner(h, &expired, 100, When::Absent).await;
}

/// Fifty writers replace one revision: one succeeds.
pub async fn one_revision_put_wins<B: Backend>(h: &Harness<B>) {
    for round in 0..5 {
        let key = h.key(format!("revision {round}"));
        let revision = Revision::random();
        h.store(&key, text("old").with_revision(revision), LONG).await;
        expect_one_winner(h, &key, 50, When::Revision(revision)).await;
    }
}

/// Fifty writers use one token: one succeeds.
pub async fn one_token_put_wins<B: Backend>(h: &Harness<B>) {
    for round in 0..5 {
        let key = h.key(format!("token {round}"));
        let token = h.token(&key, LONG).await;
        expect_one_winner(h, &key, 50, When::Token(token)).await;
    }
}

/// Fifty begin to fill one key: one gets the token, the others hear that somebody is busy.
pub async fn one_begin_wins<B: Backend>(h: &Harness<B>) {
    for round in 0..5 {
        let key = h.key(format!("begin {round}"));
        let begins = together(h, 50, |_, backend| {
            let key = key.clone();
            async move { backend.begin(&key, LONG).await.expect("begin") }
        })
        .await;
        let tokens = begins.iter().filter(|begin| matches!(begin, Begin::Token(_))).count();
        let busy = begins.iter().filter(|begin| matches!(begin, Begin::Busy)).count();
        assert_eq!((tokens, busy), (1, 49), "one token, and everybody else is told");
    }
}

/// A hundred remove one entry: one has removed it.
pub async fn one_remove_wins<B: Backend>(h: &Harness<B>) {
    for round in 0..5 {
        let key = h.key(format!("remove {round}"));
        h.store(&key, text("there"), LONG).await;
        let removed = together(h, 100, |_, backend| {
            let key = key.clone();
            async move { backend.remove(&key, None).await.expect("remove") }
        })
        .await;
        let winners = removed.iter().filter(|removed| **removed).count();
        assert_eq!(winners, 1, "one entry can be removed once");
    }
}

/// A thousand additions sum up, and every sum is answered once.
pub async fn additions_sum_up<B: Backend>(h: &Harness<B>) {
    let key = h.key("counter");
    let mut sums = together(h, 100, |_, backend| {
        let key = key.clone();
        async move {
            let mut sums = Vec::new();
            for _ in 0..10 {
                let create = Some(Counter { initial: 0, ttl: LONG.into() });
                let sum = backend.add(&key, 1, create).await.expect("add");
                sums.push(sum.expect("it is created"));
            }
            sums
        }
    })
    .await
    .concat();
    sums.sort_unstable();
    assert!(sums.iter().copied().eq(1..=1000), "every addition counts once");
    let read = h.get(&key).await.expect("it is there");
    assert_eq!(read.as_counter(), Some(1000), "the sum is exact");
    assert_ne!(h.remaining(&key).await, Remaining::Forever, "it has the end that it was given");
}

// Begins a fill, lets it race with something else, and looks at what is left.
async fn race_a_fill<B: Backend, F>(
    h: &Harness<B>,
    rival: impl Fn(Arc<B>, Key) -> F,
    expected: Option<&str>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let key = h.key("race");
    for round in 0..h.sizes().races {
        let token = h.token(&key, LONG).await;
        let (backend, filled) = (h.shared(), key.clone());
        let fill = async move {
            backend.put(&filled, text("stale"), LONG.into(), When::Token(token)).await.expect("put")
        };
        let rival = rival(h.shared(), key.clone());
        // Either may come first, on another thread.
        let outcome = if round % 2 == 0 {
            let fill = tokio::spawn(fill);
            rival.await;
            fill.await.expect("a fill must not panic")
        } else {
            let rival = tokio::spawn(rival);
            let outcome = fill.await;
            rival.await.expect("the rival must not panic");
            outcome
        };
        let found = h.body(&key).await;
        assert_eq!(found.as_deref(), expected, "round {round}: the fill was {outcome:?}");
        h.remove(&key).await;
    }
}

/// Whatever the order, a fill that began before a removal does not survive it.
pub async fn no_fill_survives_a_remove<B: Backend>(h: &Harness<B>) {
    let rival = |backend: Arc<B>, key: Key| async move {
        backend.remove(&key, None).await.expect("remove");
    };
    race_a_fill(h, rival, None).await;
}

/// Whatever the order, a fill that began before a put does not replace what was put.
pub async fn no_fill_replaces_a_put<B: Backend>(h: &Harness<B>) {
    let rival = |backend: Arc<B>, key: Key| async move {
        let outcome = backend.put(&key, text("new"), LONG.into(), When::Always).await;
        assert_eq!(outcome.expect("put"), Outcome::Stored, "an unconditional put stores");
    };
    race_a_fill(h, rival, Some("new")).await;
}

/// Whatever the order, a fill that began before a clear does not survive it.
pub async fn no_fill_survives_a_clear<B: Backend>(h: &Harness<B>) {
    let namespace = h.namespace().clone();
    let rival = move |backend: Arc<B>, _: Key| {
        let namespace = namespace.clone();
        async move { backend.clear(&namespace).await.expect("clear") }
    };
    race_a_fill(h, rival, None).await;
}

// Lets two operations on a stored entry race; the entry must be gone whatever the order.
async fn race_a_remove<B: Backend, F>(h: &Harness<B>, rival: impl Fn(Arc<B>, Key) -> F, why: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = h.key("race");
    for round in 0..h.sizes().races / 2 {
        h.store(&key, text("old"), LONG).await;
        let rival = tokio::spawn(rival(h.shared(), key.clone()));
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        h.remove(&key).await;
        rival.await.expect("the rival must not panic");
        assert!(h.get(&key).await.is_none(), "round {round}: {why}");
    }
}

/// Whatever the order, a touch does not bring back what is removed.
pub async fn no_touch_survives_a_remove<B: Backend>(h: &Harness<B>) {
    let rival = |backend: Arc<B>, key: Key| async move {
        backend.touch(&key, (LONG * 2).into()).await.expect("touch");
    };
    race_a_remove(h, rival, "a touch must not bring back what is removed").await;
}

/// Whatever the order, a put over what is present does not bring back what is removed.
pub async fn no_present_put_survives_a_remove<B: Backend>(h: &Harness<B>) {
    let rival = |backend: Arc<B>, key: Key| async move {
        let outcome = backend.put(&key, text("new"), LONG.into(), When::Present).await;
        let _ = outcome.expect("put");
    };
    race_a_remove(h, rival, "a put over what is present must not bring back what is removed").await;
}

/// Whatever the order, an addition does not bring back what is removed.
pub async fn no_addition_survives_a_remove<B: Backend>(h: &Harness<B>) {
    let key = h.key("race");
    for round in 0..h.sizes().races / 2 {
        h.store(&key, Entry::integer(1), LONG).await;
        let (backend, counter) = (h.shared(), key.clone());
        let rival = tokio::spawn(async move { backend.add(&counter, 1, None).await });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        h.remove(&key).await;
        let added = rival.await.expect("the rival must not panic").expect("add");
        assert!(matches!(added, None | Some(2)), "round {round}: {added:?}");
        assert!(h.get(&key).await.is_none(), "round {round}: it was removed");
    }
}

/// Nobody sees half of a write: head, body and revision are always of one.
pub async fn nobody_sees_half<B: Backend>(h: &Harness<B>) {
    let key = h.key("whole");
    let rounds = (h.sizes().races / 4).max(100);
    let write = |writer: u8, round: usize| {
        let mark = [writer; 16];
        let size = 100 + (round * 37 + writer as usize * 1001) % 5000;
        let head = Bytes::copy_from_slice(&mark);
        let encoded = Encoded { codec: CODEC, head, body: Bytes::from(vec![writer; size]) };
        Entry::wire(encoded).with_revision(Revision::from_bytes(mark))
    };
    h.store(&key, write(1, 0), LONG).await;
    together(h, 4, |n, backend| {
        let key = key.clone();
        async move {
            for round in 0..rounds {
                // A local backend would let one task come to its end first.
                tokio::task::yield_now().await;
                if n < 2 {
                    let entry = write(n as u8 + 1, round);
                    let outcome = backend.put(&key, entry, LONG.into(), When::Always).await;
                    assert_eq!(outcome.expect("put"), Outcome::Stored, "it stores");
                    continue;
                }
                let found = backend.get(&key, &[]).await.expect("get").entry;
                let read = found.expect("there is always one of the two");
                let encoded = read.encoded().expect("it encodes");
                let mark = encoded.head[0];
                assert_eq!(read.revision().to_bytes(), [mark; 16], "the revision is the head's");
                assert!(encoded.body.iter().all(|byte| *byte == mark), "the body is the head's");
            }
        }
    })
    .await;
}

/// Different keys do not get into each other's way.
pub async fn keys_do_not_mix<B: Backend>(h: &Harness<B>) {
    let keys: Arc<Vec<Key>> = Arc::new((0..16).map(|n| h.key(format!("own {n}"))).collect());
    together(h, 16, |n, backend| {
        let keys = keys.clone();
        async move {
            for round in 0..50 {
                let value = format!("task {n} round {round}");
                let outcome = backend.put(&keys[n], text(&value), LONG.into(), When::Always).await;
                assert_eq!(outcome.expect("put"), Outcome::Stored, "it stores");
                let read = backend.get(&keys[n], &[]).await.expect("get").entry;
                let read = read.as_ref().map(body);
                assert_eq!(read, Some(value), "a task reads what it wrote");
                let many = backend.get_many(&keys).await.expect("get_many");
                for (at, entry) in many.iter().enumerate() {
                    let Some(entry) = entry else { continue };
                    let own = body(entry).starts_with(&format!("task {at} "));
                    assert!(own, "an answer is another key's: {}", body(entry));
                }
            }
        }
    })
    .await;
}

/// Two clients of one store race as two tasks of one client do.
pub async fn two_clients_race<B: Backend>(h: &Harness<B>) {
    let Some(second) = h.second().await else { return };
    let (key, counter) = (h.key("race"), h.key("counter"));
    for round in 0..20 {
        let writers = [h.shared(), second.clone()].map(|backend| {
            let (key, counter) = (key.clone(), counter.clone());
            tokio::spawn(async move {
                let create = Some(Counter { initial: 0, ttl: LONG.into() });
                for _ in 0..5 {
                    backend.add(&counter, 1, create).await.expect("add");
                }
                backend.put(&key, text("one"), LONG.into(), When::Absent).await.expect("put")
            })
        });
        let mut stored = 0;
        for writer in writers {
            let outcome = writer.await.expect("a writer must not panic");
            stored += usize::from(outcome == Outcome::Stored);
        }
        assert_eq!(stored, 1, "round {round}: one of two clients stores");
        assert!(h.remove(&key).await, "round {round}: it is there");
    }
    let sum = h.backend().add(&counter, 0, None).await.expect("add");
    assert_eq!(sum, Some(200), "what both clients added counts");
    let token = Token::random();
    let outcome = second.put(&key, text("no"), LONG.into(), When::Token(token)).await;
    assert_eq!(outcome.expect("put"), Outcome::Refused, "nobody gave that token");
}
