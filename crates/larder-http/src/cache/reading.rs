//! Reading a body to its end, for those who must know all of it before its head goes out.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;

use super::body::ResponseBody;
use super::copy::longer;
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
        let read_already = self.0.bytes();
        let (frames, rest) = self.0.into_parts();
        let (writer, reader) = tee::pair(frames, longer(rest.size_hint(), read_already));
        match read.0 {
            Copied::Broken(over) => writer.over(over),
            _ => writer.hand_over(rest),
        }
        (ResponseBody::copied(reader), None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::Waker;

    use http_body::{Frame, SizeHint};

    use super::*;

    // Ten bytes in frames of one; the seventh fails, or none.
    struct Ten(VecDeque<Result<Bytes, &'static str>>);

    impl Ten {
        fn new(fails: bool) -> Self {
            let frame = |at| if fails && at == 6 { Err("it failed") } else { Ok("x".into()) };
            Ten((0..10).map(frame).collect())
        }
    }

    impl Body for Ten {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.pop_front().map(|frame| frame.map(Frame::data)))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.len() as u64)
        }
    }

    #[test]
    fn what_is_not_whole_says_how_long_it_was_to_be() {
        let cx = &mut Context::from_waker(Waker::noop());
        // It fails, or is larger than the limit: frames count, too.
        for (fails, limit) in [(true, 1000), (false, 200)] {
            let mut reading = Reading::new(Ten::new(fails), limit);
            let Poll::Ready(read) = reading.poll(cx) else { panic!("it is ready") };
            let (mut body, whole) = reading.into_body(read);
            assert!(whole.is_none());
            // One of what was left has failed.
            let said = if fails { 9 } else { 10 };
            assert_eq!(body.size_hint().exact(), Some(said), "fails: {fails}");
            let mut got = 0;
            let ended = loop {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => got += frame.into_data().unwrap().len(),
                    Poll::Ready(Some(Err(_))) => break false,
                    Poll::Ready(None) => break true,
                    Poll::Pending => panic!("it is ready"),
                }
            };
            assert_eq!((got, ended), if fails { (6, false) } else { (10, true) });
        }
    }
}
