//! What nodes tell each other: that something changed, never to what.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use larder_core::{Key, Namespace, Sequence, Tag};

/// A message and who sent it. Each sender numbers its messages without gaps, so that lost ones are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) sender: u128,
    pub(super) number: u64,
    pub(super) news: News,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new: the sender lives, and so many messages came before.
    Beat,
    /// These keys were written or removed.
    Keys(Vec<Key>),
    /// These tags were invalidated, with that number in their namespace's sequence; `None` when it is not known.
    Tags { namespace: Namespace, tags: Vec<Tag>, number: Option<Sequence> },
    /// A namespace was cleared.
    Cleared(Namespace),
    /// More happened than can be told.
    Everything,
}

// Other versions are not read: whoever hears one trusts nothing that it has.
const VERSION: u8 = 1;

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u8(VERSION);
        bytes.put_u128(self.sender);
        bytes.put_u64(self.number);
        match &self.news {
            News::Beat => bytes.put_u8(0),
            News::Keys(keys) => {
                bytes.put_u8(1);
                keys.iter().for_each(|key| put(&mut bytes, key.as_ref().as_bytes()));
            }
            News::Tags { namespace, tags, number } => {
                bytes.put_u8(2);
                bytes.put_i64(number.map_or(0, Sequence::get));
                put(&mut bytes, namespace.as_str().as_bytes());
                tags.iter().for_each(|tag| put(&mut bytes, tag.as_str().as_bytes()));
            }
            News::Cleared(namespace) => {
                bytes.put_u8(3);
                put(&mut bytes, namespace.as_str().as_bytes());
            }
            News::Everything => bytes.put_u8(4),
        }
        bytes.freeze()
    }

    /// `None` for what no node of this version sent.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let sender = bytes.try_get_u128().ok()?;
        let number = bytes.try_get_u64().ok()?;
        let news = match bytes.try_get_u8().ok()? {
            0 => News::Beat,
            1 => {
                let mut keys = Vec::new();
                while !bytes.is_empty() {
                    keys.push(Key::from_framed(take(&mut bytes)?)?);
                }
                News::Keys(keys)
            }
            2 => {
                let number = Sequence::from_i64(bytes.try_get_i64().ok()?);
                let namespace = namespace(&mut bytes)?;
                let mut tags = Vec::new();
                while !bytes.is_empty() {
                    tags.push(Tag::written(std::str::from_utf8(take(&mut bytes)?).ok()?).ok()?);
                }
                News::Tags { namespace, tags, number }
            }
            3 => News::Cleared(namespace(&mut bytes)?),
            4 => News::Everything,
            _ => return None,
        };
        bytes.is_empty().then_some(Message { sender, number, news })
    }
}

fn put(bytes: &mut BytesMut, part: &[u8]) {
    // Keys are at most 64 KiB, and everything else is shorter.
    bytes.put_u32(part.len() as u32);
    bytes.put_slice(part);
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = bytes.try_get_u32().ok()? as usize;
    let (part, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(part)
}

fn namespace(bytes: &mut &[u8]) -> Option<Namespace> {
    Namespace::new(std::str::from_utf8(take(bytes)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        let shop = Namespace::new("shop").unwrap();
        let tags = Tag::with_lasting(&[Tag::new("a").unwrap(), Tag::new("ü b").unwrap()]);
        let keys = vec![Key::new(&shop, ["x"]).unwrap(), Key::new(&shop, ["y", ""]).unwrap()];
        let number = Some(Sequence::start());
        [
            News::Beat,
            News::Keys(Vec::new()),
            News::Keys(keys),
            News::Tags { namespace: shop.clone(), tags: tags.clone(), number },
            News::Tags { namespace: shop.clone(), tags, number: None },
            News::Cleared(shop),
            News::Everything,
        ]
        .into_iter()
        .zip(7..)
        .map(|(news, number)| Message { sender: u128::MAX - 5, number, news })
        .collect()
    }

    #[test]
    fn what_is_sent_is_what_is_heard() {
        for message in all() {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn what_is_cut_lengthened_or_of_another_version_is_refused_or_another_message() {
        for message in all() {
            let bytes = message.encode();
            for end in 0..bytes.len() {
                // A list may end early and still be one; it is never more than was sent.
                if let Some(shorter) = Message::decode(&bytes[..end]) {
                    assert!(shorter.encode().len() < bytes.len());
                }
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert_eq!(Message::decode(&longer), None);
            longer.pop();
            longer[0] = 2;
            assert_eq!(Message::decode(&longer), None);
        }
        // A length that lies allocates nothing.
        let mut lying = all()[2].encode().to_vec();
        lying[26..30].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(Message::decode(&lying), None);
    }
}
