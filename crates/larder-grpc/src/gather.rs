//! Reading one message, with a limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use smallvec::SmallVec;

/// The flag and the length before each message.
pub(crate) const PREFIX: usize = 5;

/// A body as far as it was read. It is not copied unless it came in several pieces, and nothing is allocated on the word
/// of a length that a peer claims.
pub(crate) struct Gather {
    frames: SmallVec<[Bytes; 2]>,
    bytes: usize,
    seen: usize,
    /// The first message with its prefix, once that is there.
    expected: Option<usize>,
    limit: usize,
}

/// What reading came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Gathered<E> {
    /// The body was exactly one message; this is it, with its prefix.
    Message(Bytes, Option<HeaderMap>),
    /// It ended, and was something else: nothing, or not a whole message.
    Ended(Option<HeaderMap>),
    /// There is more than one message.
    Stream,
    /// The message is larger than the limit, or it comes in absurdly many pieces.
    TooLarge,
    /// The body failed.
    Failed(E),
}

// What a frame costs beside its bytes, so that a flood of empty ones meets the limit too.
const FRAME_COST: usize = 64;

impl Gather {
    pub(crate) fn new(limit: usize) -> Self {
        Gather { frames: SmallVec::new(), bytes: 0, seen: 0, expected: None, limit }
    }

    /// Reads on. What was read is kept, also when this is given up.
    pub(crate) fn poll<B: Body>(
        &mut self,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Gathered<B::Error>> {
        loop {
            let frame = match ready!(body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(self.ended(None)),
                Some(Err(error)) => return Poll::Ready(Gathered::Failed(error)),
                Some(Ok(frame)) => shared(frame),
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                // Trailers are the last frame.
                Err(frame) => return Poll::Ready(self.ended(frame.into_trailers().ok())),
            };
            self.seen += 1;
            if !data.is_empty() {
                self.bytes += data.len();
                self.frames.push(data);
            }
            if self.expected.is_none() {
                self.expected = self.length().map(|length| PREFIX.saturating_add(length));
            }
            let whole = self.expected.unwrap_or(PREFIX);
            let cost = FRAME_COST * self.seen.saturating_sub(2);
            if whole > PREFIX + self.limit || cost > FRAME_COST + PREFIX + self.limit {
                return Poll::Ready(Gathered::TooLarge);
            }
            if self.bytes > whole {
                return Poll::Ready(Gathered::Stream);
            }
            if self.bytes == whole && body.is_end_stream() {
                return Poll::Ready(self.ended(None));
            }
        }
    }

    fn ended<E>(&mut self, trailers: Option<HeaderMap>) -> Gathered<E> {
        if self.expected != Some(self.bytes) {
            return Gathered::Ended(trailers);
        }
        if self.frames.len() > 1 {
            let mut whole = BytesMut::with_capacity(self.bytes);
            self.frames.iter().for_each(|frame| whole.extend_from_slice(frame));
            self.frames = SmallVec::from_iter([whole.freeze()]);
        }
        Gathered::Message(self.frames[0].clone(), trailers)
    }

    // What the first message's prefix says of its length.
    fn length(&self) -> Option<usize> {
        let mut bytes = self.frames.iter().flat_map(|frame| frame.iter().copied());
        let _flag = bytes.next()?;
        let mut length = 0_u32;
        for _ in 1..PREFIX {
            length = length << 8 | u32::from(bytes.next()?);
        }
        usize::try_from(length).ok()
    }

    /// Whether nothing was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What was read.
    pub(crate) fn into_frames(self) -> SmallVec<[Bytes; 2]> {
        self.frames
    }
}

/// A frame with its data as `Bytes`: a reference count where it was `Bytes` before.
pub(crate) fn shared<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Waker;

    use http::HeaderValue;
    use http_body_util::{BodyExt, Full, StreamBody};
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: Vec<Vec<u8>>, trailers: bool, limit: usize) -> Gathered<Infallible> {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", HeaderValue::from_static("0"));
        let trailers = trailers.then(|| Frame::trailers(fields));
        let frames = pieces.into_iter().map(|piece| Frame::data(Bytes::from(piece)));
        let frames: Vec<_> = frames.chain(trailers).map(Ok).collect();
        let mut body = StreamBody::new(futures_util::stream::iter(frames));
        let mut cx = Context::from_waker(Waker::noop());
        match Gather::new(limit).poll(Pin::new(&mut body), &mut cx) {
            Poll::Ready(gathered) => gathered,
            Poll::Pending => panic!("all of it is there"),
        }
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&[0], &length[..], payload].concat()
    }

    #[test]
    fn one_message_is_taken_at_the_limit_and_not_above() {
        for length in [0, 1, 99, 100] {
            let message = framed(&vec![7; length]);
            let Gathered::Message(read, Some(_)) = read(vec![message.clone()], true, 100) else {
                panic!("{length}")
            };
            assert_eq!(read, message);
        }
        assert_eq!(read(vec![framed(&[7; 101])], true, 100), Gathered::TooLarge);
        // A claim alone is enough, and costs nothing.
        assert_eq!(read(vec![vec![0, 255, 255, 255, 255]], false, 100), Gathered::TooLarge);
    }

    #[test]
    fn what_is_not_one_message_is_told_apart() {
        let two = [framed(b"a"), framed(b"b")];
        assert_eq!(read(two.to_vec(), false, 100), Gathered::Stream);
        assert_eq!(read(vec![two.concat()], false, 100), Gathered::Stream);
        assert_eq!(read(Vec::new(), false, 100), Gathered::Ended(None));
        let whole = framed(b"whole");
        for length in 0..whole.len() {
            let cut = whole[..length].to_vec();
            assert_eq!(read(vec![cut], false, 100), Gathered::Ended(None), "{length}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(read(vec![longer], false, 100), Gathered::Stream);
    }

    #[test]
    fn a_flood_of_empty_frames_ends() {
        assert_eq!(read(vec![Vec::new(); 1000], false, 100), Gathered::TooLarge);
    }

    #[test]
    fn a_message_in_one_frame_is_not_copied() {
        let message = Bytes::from(framed(b"payload"));
        let mut body = Full::new(message.clone()).map_err(|never: Infallible| never);
        let mut cx = Context::from_waker(Waker::noop());
        let gathered = Gather::new(100).poll(Pin::new(&mut body), &mut cx);
        let Poll::Ready(Gathered::Message(read, None)) = gathered else { panic!() };
        assert_eq!(read.as_ptr(), message.as_ptr());
    }

    proptest! {
        #[test]
        fn any_division_into_frames_is_the_same_message(
            payload in prop::collection::vec(any::<u8>(), 0..64),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let whole = framed(&payload);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| whole[cut[0]..cut[1]].to_vec()).collect();
            let Gathered::Message(read, Some(_)) = read(pieces, true, 1024) else { panic!() };
            prop_assert_eq!(&read[..], &whole[..]);
        }

        #[test]
        fn hostile_bytes_harm_nobody(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..16), 0..8)) {
            let _ = read(pieces, true, 32);
        }
    }
}
