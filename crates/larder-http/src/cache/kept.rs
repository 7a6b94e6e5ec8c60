//! Work that is carried on when whoever asked for it goes away: a client that leaves harms nobody.
//!
//! A fill runs inside of its client's future, which is dropped where the client leaves. What is in the middle of something
//! that is [kept](keep) moves into a task of its own then; all else is dropped.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tracing::{Instrument, Span};

tokio::task_local! {
    // While a future of this module is polled, and only then.
    static POLLED: Polled;
}

struct Polled {
    asked_for: bool,
    // Whether what the poll has ended in is kept.
    keep: Cell<bool>,
}

/// A boxed future that is carried on if it is dropped in the middle of what is kept.
pub(super) struct Kept<T> {
    future: Option<Pin<Box<dyn CarryOn<Output = T>>>>,
    // Where and as what it is carried on.
    keeper: Option<(Handle, Span)>,
}

trait CarryOn: Future + Send {
    fn carry_on(self: Pin<Box<Self>>, handle: &Handle, span: Span);
}

impl<T> Kept<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Kept { future: Some(Box::pin(future)), keeper: None }
    }
}

impl<T> Future for Kept<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken, so that what panics is not polled again.
        let (future, keeper) = (self.future.take(), self.keeper.take());
        // As every future, not to be polled again after it was ready.
        let mut future = future.expect("polled after completion");
        let (polled, keep) = poll_as(true, future.as_mut(), cx);
        if polled.is_pending() {
            self.future = Some(future);
            if keep {
                self.keeper = keeper.or_else(|| Some((Handle::current(), Span::current())));
            }
        }
        polled
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if let (Some(future), Some((handle, span))) = (self.future.take(), self.keeper.take()) {
            future.carry_on(&handle, span);
        }
    }
}

/// Begins what nobody waits for.
pub(super) fn spawn(work: impl Future + Send + 'static) {
    let work = async move { keep(std::pin::pin!(work)).await };
    Box::pin(work).carry_on(&Handle::current(), Span::current());
}

impl<F: Future + Send + 'static> CarryOn for F {
    fn carry_on(mut self: Pin<Box<Self>>, handle: &Handle, span: Span) {
        let work = poll_fn(move |cx| match poll_as(false, self.as_mut(), cx) {
            (Poll::Pending, true) => Poll::Pending,
            // What comes after what is kept would be for somebody who is not there.
            _ => Poll::Ready(()),
        });
        handle.spawn(work.instrument(span));
    }
}

fn poll_as<F: Future + ?Sized>(
    asked_for: bool,
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> (Poll<F::Output>, bool) {
    let polled = Polled { asked_for, keep: Cell::new(false) };
    POLLED.sync_scope(polled, || {
        let polled = future.poll(cx);
        (polled, POLLED.with(|polled| polled.keep.get()))
    })
}

/// Runs what is carried on to its end though its client leaves. There is no end for a client that has left.
pub(super) async fn keep<F: Future>(mut work: Pin<&mut F>) -> F::Output {
    poll_fn(|cx| {
        mark(true);
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            mark(false);
            if !is_asked_for() {
                return Poll::Pending;
            }
        }
        polled
    })
    .await
}

/// Within what is kept: something that only its client needs.
pub(super) async fn let_go<F: Future>(mut work: Pin<&mut F>) -> F::Output {
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        mark(polled.is_ready());
        polled
    })
    .await
}

/// Whether there is a client.
pub(super) fn is_asked_for() -> bool {
    POLLED.try_with(|polled| polled.asked_for).unwrap_or(true)
}

fn mark(keep: bool) {
    let _ = POLLED.try_with(|polled| polled.keep.set(keep));
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    // Pending until it is told to end; whether it got there.
    struct Work {
        end: oneshot::Sender<()>,
        ended: Arc<AtomicBool>,
    }

    impl Work {
        fn new() -> (Work, impl Future<Output = u8> + Send) {
            let (end, told) = oneshot::channel();
            let ended = Arc::new(AtomicBool::new(false));
            let work = Work { end, ended: ended.clone() };
            let future = async move {
                told.await.unwrap();
                ended.store(true, Ordering::SeqCst);
                7
            };
            (work, future)
        }

        async fn ends(self) -> bool {
            let told = self.end.send(()).is_ok();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert_eq!(told, self.ended.load(Ordering::SeqCst));
            told
        }
    }

    async fn poll_once<T>(kept: &mut Kept<T>) {
        poll_fn(|cx| {
            assert!(Pin::new(&mut *kept).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_kept_is_carried_on_and_what_comes_after_it_is_not() {
        let (work, future) = Work::new();
        let (after, later) = Work::new();
        let mut kept = Kept::new(async move {
            keep(pin!(future)).await;
            assert!(is_asked_for(), "nothing is done for a client that is not there");
            later.await
        });
        poll_once(&mut kept).await;
        drop(kept);
        assert!(work.ends().await);
        assert!(!after.ends().await);
    }

    #[tokio::test]
    async fn a_client_that_stays_gets_what_comes() {
        let (work, future) = Work::new();
        let mut kept = Kept::new(async move { keep(pin!(future)).await + 1 });
        poll_once(&mut kept).await;
        work.end.send(()).unwrap();
        assert_eq!(kept.await, 8);
    }

    #[tokio::test]
    async fn what_is_not_kept_is_dropped_with_its_client() {
        let (before, first) = Work::new();
        let mut kept = Kept::new(first);
        poll_once(&mut kept).await;
        drop(kept);
        assert!(!before.ends().await);

        let (within, second) = Work::new();
        let mut kept = Kept::new(async move {
            let work = async { let_go(pin!(second)).await };
            keep(pin!(work)).await
        });
        poll_once(&mut kept).await;
        drop(kept);
        assert!(!within.ends().await);
    }

    #[tokio::test]
    async fn what_is_let_go_ends_with_a_client_that_left_before() {
        let (work, future) = Work::new();
        let (within, second) = Work::new();
        let mut kept = Kept::new(async move {
            let work = async {
                future.await;
                assert!(!is_asked_for());
                let_go(pin!(second)).await
            };
            keep(pin!(work)).await
        });
        poll_once(&mut kept).await;
        drop(kept);
        assert!(work.ends().await);
        assert!(!within.ends().await);
    }

    #[tokio::test]
    async fn what_one_keeps_is_not_kept_by_who_waits_for_it() {
        let (work, future) = Work::new();
        let inner = Kept::new(async move { keep(pin!(future)).await });
        let mut outer = Kept::new(inner);
        poll_once(&mut outer).await;
        assert!(outer.keeper.is_none());
        drop(outer);
        assert!(work.ends().await, "the inner one is kept by itself");
    }

    #[tokio::test]
    async fn what_panicked_is_not_carried_on() {
        let mut kept = Kept::new(async {
            let work = async {
                tokio::task::yield_now().await;
                panic!("as it may");
            };
            keep(pin!(work)).await
        });
        poll_once(&mut kept).await;
        let polled = std::panic::AssertUnwindSafe(poll_fn(|cx| Pin::new(&mut kept).poll(cx)));
        let polled = futures_util::FutureExt::catch_unwind(polled).await;
        assert!(polled.is_err());
        assert!(kept.future.is_none() && kept.keeper.is_none());
    }
}
