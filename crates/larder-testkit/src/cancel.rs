//! Futures that are dropped on purpose.

use std::pin::pin;
use std::task::Poll;

/// Polls a future at most `polls` times and drops it then; `None` if it was not ready by that time.
///
/// With `polls` of zero it is dropped without ever having been polled.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use larder_testkit::cancel::drop_after;
///
/// assert_eq!(drop_after(1, async { 7 }).await, Some(7));
/// assert_eq!(drop_after(0, async { 7 }).await, None);
/// assert_eq!(drop_after(1, tokio::task::yield_now()).await, None);
/// # }
/// ```
pub async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    if polls == 0 {
        drop(future);
        return None;
    }
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Like [`drop_after`], but holds the future for so many turns of the runtime, unpolled, before it drops it: a reply
/// may arrive that nobody takes.
pub async fn drop_later<F: Future>(polls: usize, turns: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Some(output) = drop_after(polls, future.as_mut()).await {
        return Some(output);
    }
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
    None
}
