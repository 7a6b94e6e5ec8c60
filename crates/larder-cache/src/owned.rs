//! Writes that run to their end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use larder_core::order::{Keys, Order, Waiting};
use tokio::runtime::Handle;

type Write<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A write that has begun is carried on in a task of its own when its caller goes away, so that what has to follow it
/// follows all the same. One that was never polled has not begun.
///
/// It begins in its caller, and after those for the same keys that were given up before: a later write comes later.
pub(crate) fn owned<T: Send + 'static>(
    order: &Order,
    keys: Keys,
    write: impl Future<Output = T> + Send + 'static,
) -> Owned<'_, T> {
    let (waiting, mut running) = order.begin(keys);
    let write = async move {
        running.turn().await;
        write.await
    };
    Owned { write: Some(Box::pin(write)), begun: false, waiting: Some(waiting) }
}

/// Waits for the writes of these keys that were given up, where what comes now is not carried on itself.
pub(crate) async fn after(order: &Order, keys: Keys) {
    let (waiting, mut running) = order.begin(keys);
    // It is no write itself: nobody has to wait for it.
    waiting.answered();
    running.turn().await;
}

pub(crate) struct Owned<'a, T: Send + 'static> {
    // `None` when it is done.
    write: Option<Write<T>>,
    begun: bool,
    waiting: Option<Waiting<'a>>,
}

impl<T: Send + 'static> Future for Owned<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        // A panic of the write leaves nothing to be carried on.
        let Some(mut write) = self.write.take() else { return Poll::Pending };
        let polled = write.as_mut().poll(context);
        if polled.is_pending() {
            self.write = Some(write);
        } else if let Some(waiting) = self.waiting.take() {
            waiting.answered();
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Owned<'_, T> {
    fn drop(&mut self) {
        if let Some(write) = self.write.take()
            && self.begun
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(write);
        }
    }
}
