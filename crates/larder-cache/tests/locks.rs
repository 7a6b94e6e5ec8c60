//! Locks: one holder at a time, whoever dies, waits or goes away.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{driven, faulty, settle};
use larder_cache::Cache;
use larder_core::{ErrorKind, Token};
use larder_memory::MemoryBackend;
use larder_testkit::faulty::{Fault, Verb};

const HOLD: Duration = Duration::from_secs(9);

#[tokio::test(start_paused = true)]
async fn a_second_owner_waits_and_gives_up_in_time() {
    let (cache, _) = driven();
    let lock = cache.try_lock("report", HOLD).await.unwrap().unwrap();
    assert!(lock.is_held());
    assert!(cache.try_lock("report", HOLD).await.unwrap().is_none());
    let begun = tokio::time::Instant::now();
    assert!(cache.lock("report", HOLD, Duration::from_secs(2)).await.unwrap().is_none());
    assert!(begun.elapsed() <= Duration::from_secs(2));
    assert!(cache.try_lock("another", HOLD).await.unwrap().is_some());

    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.lock("report", HOLD, Duration::from_secs(60)).await.unwrap() }
    });
    settle().await;
    assert!(lock.release().await.unwrap());
    assert!(waiting.await.unwrap().is_some_and(|lock| lock.is_held()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lock_is_free_and_a_living_one_is_renewed() {
    let (clock, hands) = larder_core::Clock::manual();
    let cache = Cache::new(MemoryBackend::builder().clock(clock).build().unwrap());
    let lock = cache.try_lock("report", HOLD).await.unwrap().unwrap();
    for _ in 0..20 {
        // Both clocks go on together, a third of the hold at a time.
        hands.advance(HOLD / 3);
        tokio::time::sleep(HOLD / 3 + Duration::from_millis(1)).await;
        settle().await;
        assert!(lock.is_held());
        assert!(cache.try_lock("report", HOLD).await.unwrap().is_none());
    }
    drop(lock);
    settle().await;
    assert!(cache.try_lock("report", HOLD).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_expired_lock_can_be_had_and_its_former_holder_notices() {
    let (cache, hands) = driven();
    let late = cache.try_lock("report", HOLD).await.unwrap().unwrap();
    // The holder was suspended: its marker ends without a renewal.
    hands.advance(HOLD + Duration::from_secs(1));
    let next = cache.try_lock("report", HOLD).await.unwrap().unwrap();
    tokio::time::timeout(HOLD, late.lost()).await.unwrap();
    assert!(!late.is_held());
    assert!(!late.release().await.unwrap(), "it must not free the new holder's");
    assert!(next.is_held());
    assert!(cache.try_lock("report", HOLD).await.unwrap().is_none());
    assert!(next.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_ends_the_belief_after_the_hold_and_not_before() {
    let (cache, faults, _) = faulty();
    let lock = cache.try_lock("report", HOLD).await.unwrap().unwrap();
    faults.inject(Fault::Fail(ErrorKind::Unavailable), &Verb::ALL);
    tokio::time::sleep(HOLD - Duration::from_millis(100)).await;
    assert!(lock.is_held());
    lock.lost().await;
    assert!(!lock.is_held());
    assert!(cache.try_lock("report", HOLD).await.is_err(), "nobody knows");
    assert!(lock.release().await.is_err());
}

#[tokio::test]
async fn a_token_moves_a_lock_to_another_process() {
    let (cache, _) = driven();
    let token = cache.try_lock("report", HOLD).await.unwrap().unwrap().hand_over();
    settle().await;
    assert!(cache.try_lock("report", HOLD).await.unwrap().is_none());
    assert!(cache.resume_lock("report", Token::random(), HOLD).await.unwrap().is_none());
    let there = Token::from_bytes(token.to_bytes());
    let lock = cache.resume_lock("report", there, HOLD).await.unwrap().unwrap();
    assert!(lock.release().await.unwrap());
    assert!(cache.resume_lock("report", token, HOLD).await.unwrap().is_none());
}

#[tokio::test]
async fn values_and_locks_of_one_name_do_not_meet() {
    let (cache, _) = driven();
    cache.set("report", 1_i64).await.unwrap();
    let lock = cache.try_lock("report", HOLD).await.unwrap().unwrap();
    assert_eq!(cache.get::<i64>("report").await.unwrap().as_deref(), Some(&1));
    cache.delete("report").await.unwrap();
    cache.set("report", 2_i64).await.unwrap();
    assert!(cache.try_lock("report", HOLD).await.unwrap().is_none());
    assert!(lock.release().await.unwrap());
    let error = cache.try_lock("report", Duration::from_millis(1)).await.unwrap_err();
    assert!(error.to_string().contains("30 ms"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_are_inside_at_once() {
    let cache = Cache::memory();
    let inside = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let (cache, inside, done) = (cache.clone(), inside.clone(), done.clone());
            tokio::spawn(async move {
                let lock =
                    cache.lock("till", HOLD, Duration::from_secs(300)).await.unwrap().unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
                drop(lock);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(done.load(Ordering::SeqCst), 40);
}
