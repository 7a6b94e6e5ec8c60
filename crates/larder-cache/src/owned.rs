//! Writes that run to their end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

type Write<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A write that has begun is carried on in a task of its own when its caller goes away, so that what has to follow it
/// follows all the same. One that was never polled has not begun.
///
/// It begins in its caller: what the same caller asks for later does not overtake it.
pub(crate) fn owned<T: Send + 'static>(
    write: impl Future<Output = T> + Send + 'static,
) -> Owned<T> {
    Owned { write: Some(Box::pin(write)), begun: false }
}

pub(crate) struct Owned<T: Send + 'static> {
    // `None` when it is done.
    write: Option<Write<T>>,
    begun: bool,
}

impl<T: Send + 'static> Future for Owned<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        // A panic of the write leaves nothing to be carried on.
        let Some(mut write) = self.write.take() else { return Poll::Pending };
        let polled = write.as_mut().poll(context);
        if polled.is_pending() {
            self.write = Some(write);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Owned<T> {
    fn drop(&mut self) {
        if let Some(write) = self.write.take()
            && self.begun
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(write);
        }
    }
}
