//! One connection: requests are gathered and written together, replies are handed out in the order of the requests.
//!
//! Who sends leaves the request's bytes and a place for its replies in one step, so both queues have one order. The
//! connection's task takes whatever has gathered, writes it at once, and reads. A caller that goes away leaves its place:
//! its replies are read and thrown away. Anything unexpected (a reply too many, of another request, of no known form)
//! ends the connection, and everybody who waits on it is told.
//!
//! The time limits of all requests are watched by one timer. The oldest request that is overdue ends the connection,
//! since whatever was asked after it is behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use larder_core::ErrorKind;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::outage::{Failure, Why};
use crate::protocol::{Replies, Request, take};

/// A connection, for those who send.
pub(crate) struct Link(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    // There is something to write.
    write: Notify,
    // There is a time limit to watch.
    watch: Notify,
    closed: watch::Sender<Option<Why>>,
}

#[derive(Default)]
struct State {
    out: BytesMut,
    waiting: VecDeque<Waiting>,
    // When the timer will ring; `None` when it is not set.
    rings: Option<Instant>,
    closed: Option<Why>,
}

// Whose replies come next.
struct Waiting {
    id: u32,
    missing: usize,
    replies: Replies,
    deadline: Instant,
    answer: oneshot::Sender<Result<Replies, Why>>,
}

impl Link {
    /// Makes one, and the task that must be run for it.
    pub(crate) fn new<R, W>(from: R, to: W) -> (Self, impl Future<Output = ()> + Send + 'static)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            write: Notify::new(),
            watch: Notify::new(),
            closed: watch::Sender::new(None),
        });
        // Whatever ends the task, even a runtime that stops, nobody waits any longer.
        let end = End(shared.clone());
        let task = async move {
            let shared = &*end.0;
            let why = tokio::select! {
                why = read(shared, from) => why,
                why = write(shared, to) => why,
                why = watch(shared) => why,
            };
            shared.close(&why);
        };
        (Link(shared), task)
    }

    /// Sends a request and waits for its replies: as many as it has commands.
    ///
    /// When the future is dropped, the request is carried out or not; its replies reach nobody.
    pub(crate) async fn send(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        let (answer, answered) = oneshot::channel();
        let (first, unset) = {
            let mut state = self.0.state.lock();
            if let Some(why) = &state.closed {
                return Err(Failure::unsent(why));
            }
            if state.out.len() > MOST {
                let words = "more is waiting to be sent to the server than it takes";
                return Err(Failure::unsent(&Why::unreachable(words)));
            }
            let first = state.out.is_empty();
            state.out.extend_from_slice(&request.bytes);
            state.waiting.push_back(Waiting {
                id: request.id,
                missing: request.count,
                replies: Replies::new(),
                deadline,
                answer,
            });
            let unset = state.rings.is_none_or(|rings| deadline < rings);
            if unset {
                state.rings = Some(deadline);
            }
            (first, unset)
        };
        if first {
            self.0.write.notify_one();
        }
        if unset {
            self.0.watch.notify_one();
        }
        match answered.await {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(why)) => Err(Failure::lost(&why)),
            Err(_) => Err(Failure::lost(&Why::closed())),
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.borrow().is_some()
    }

    /// Waits for its end, and tells why it came.
    pub(crate) async fn closed(&self) -> Why {
        let mut closed = self.0.closed.subscribe();
        let why = closed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(Why::closed)
    }

    /// Ends it.
    pub(crate) fn close(&self, why: &Why) {
        self.0.close(why);
    }
}

struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close(&Why::closed());
    }
}

impl Shared {
    fn close(&self, why: &Why) {
        let waiting = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(why.clone());
            state.out = BytesMut::new();
            std::mem::take(&mut state.waiting)
        };
        self.closed.send_replace(Some(why.clone()));
        let now = Instant::now();
        for one in waiting {
            // Those who were only behind a late reply may still have time to try again.
            let in_time = why.kind == ErrorKind::Timeout && one.deadline > now;
            let _ = one.answer.send(Err(if in_time { Why::closed() } else { why.clone() }));
        }
        // The task may be waiting for work.
        self.write.notify_one();
    }

    // Hands out every reply that is whole.
    fn deliver(&self, buffer: &mut BytesMut) -> Result<(), Why> {
        let mut done = Vec::new();
        let mut result = Ok(());
        {
            let mut state = self.state.lock();
            loop {
                let (id, reply) = match take(buffer) {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(_) => {
                        result = Err(Why::garbled());
                        break;
                    }
                };
                let Some(first) =
                    state.waiting.front_mut().filter(|first| id.is_none_or(|id| id == first.id))
                else {
                    result = Err(Why::garbled());
                    break;
                };
                first.replies.push(reply);
                first.missing -= 1;
                if first.missing == 0 {
                    done.extend(state.waiting.pop_front());
                }
            }
        }
        for one in done {
            let _ = one.answer.send(Ok(one.replies));
        }
        result
    }
}

async fn read(shared: &Shared, mut from: impl AsyncRead + Unpin) -> Why {
    let mut buffer = BytesMut::new();
    loop {
        // As much as the kernel has: with many requests under way, one call brings many replies.
        buffer.reserve(READ);
        match from.read_buf(&mut buffer).await {
            Ok(0) => return Why::closed(),
            Ok(_) => {}
            Err(error) => return Why::io(&error),
        }
        if let Err(why) = shared.deliver(&mut buffer) {
            return why;
        }
    }
}

async fn write(shared: &Shared, mut to: impl AsyncWrite + Unpin) -> Why {
    loop {
        shared.write.notified().await;
        // Those who are about to send do so first: one call carries them all.
        tokio::task::yield_now().await;
        let bytes = {
            let mut state = shared.state.lock();
            if let Some(why) = &state.closed {
                return why.clone();
            }
            state.out.split()
        };
        if let Err(error) = to.write_all(&bytes).await {
            return Why::io(&error);
        }
    }
}

async fn watch(shared: &Shared) -> Why {
    loop {
        let rings = shared.state.lock().rings;
        match rings {
            None => shared.watch.notified().await,
            Some(rings) => {
                tokio::select! {
                    () = sleep_until(rings) => {}
                    // An earlier one was set.
                    () = shared.watch.notified() => continue,
                }
                let mut state = shared.state.lock();
                let next = state.waiting.iter().map(|one| one.deadline).min();
                if next.is_some_and(|next| next <= Instant::now()) {
                    return Why::late();
                }
                state.rings = next;
            }
        }
    }
}

// What one call may read, about.
const READ: usize = 64 * 1024;

// What may wait to be written.
const MOST: usize = 256 * 1024 * 1024;
