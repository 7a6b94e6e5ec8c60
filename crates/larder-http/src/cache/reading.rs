//! Reading a body to its end, for those who must know all of it before its head goes out.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;

use super::body::ResponseBody;
use super::tee::{self, Copied, Copying, Over};

/// A body that is being read, up to a limit.
pub(crate) struct Reading<B: Body>(Copying<B>);

/// How reading it ended.
pub(crate) struct Read<E>(Copied<E>);

impl<B: Body> Reading<B> {
    pub(crate) fn new(body: B, limit: u64) -> Self {
        Reading(Copying::new(None, body, limit, None))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Read<B::Error>> {
        match ready!(self.0.poll_copy(cx, |_| {})) {
            Copied::Broken(Over::Panicked(panic)) => resume_unwind(panic),
            copied => Poll::Ready(Read(copied)),
        }
    }

    /// The body as it would have come, and its bytes if that is all of them.
    pub(crate) fn into_body(self, read: Read<B::Error>) -> (ResponseBody<B>, Option<Bytes>) {
        if let Read(Copied::Complete(whole, trailers)) = read {
            let body = ResponseBody::stored(whole.clone(), trailers.map(Arc::new));
            return (body, Some(whole));
        }
        let (frames, rest) = self.0.into_parts();
        let (writer, reader) = tee::pair(frames, rest.size_hint());
        match read.0 {
            Copied::Broken(over) => writer.over(over),
            _ => writer.hand_over(rest),
        }
        (ResponseBody::copied(reader), None)
    }
}
