//! What lies under a name: entries, markers, counters, and the numbers of the sequence.
//!
//! A counter is text of its own, `#<value> <end>`: its value and the server's millisecond at which it ends, 0 for never.
//! Memcached's own arithmetic is not used for it: that is unsigned, wraps, stops at zero, and knows ends in whole seconds
//! only, while a counter has a sign, refuses to overflow, and ends when it was told to. So adding is reading and storing
//! what is still the same. Sequences and tags have no sign and no exact end; they are the decimal text that the server
//! adds to.

use bytes::Bytes;
use larder_core::envelope::{Damage, Envelope, Record, TimeBase, counter};
use larder_core::{Entry, Key, Moment, Revision, Sequence, Times, Token};

use crate::protocol::Item;

/// The kinds of records, as the server keeps them beside the value: what a removal reads instead of the value.
pub(crate) mod kind {
    pub(crate) const ENTRY: u32 = 1;
    pub(crate) const MARKER: u32 = 2;
}

/// What lies under a name.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    /// An entry that has not ended.
    Entry(Entry),
    /// A counter that has not ended, or a number of the sequence.
    Counter(Counter),
    /// Somebody fills it.
    Fill(Token),
    /// Filling it is of no use.
    Pass,
    /// What has ended, what is damaged or somebody else's.
    Nothing,
}

/// A plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counter {
    pub(crate) value: i64,
    /// The server's millisecond at which it ends.
    pub(crate) end: Option<u64>,
    /// The server adds to it by itself, and only the server knows its end.
    pub(crate) sequence: bool,
}

impl Counter {
    /// The counter as it is kept.
    pub(crate) fn text(&self) -> Bytes {
        match self.sequence {
            true => self.value.to_string().into(),
            false => format!("#{} {}", self.value, self.end.unwrap_or(0)).into(),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let Some(text) = bytes.strip_prefix(b"#") else {
            let value = sequence(bytes)?.get();
            return Some(Counter { value, end: None, sequence: true });
        };
        let (value, end) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        let value = counter(value.as_bytes())?;
        let end = u64::try_from(counter(end.as_bytes())?).ok()?;
        Some(Counter { value, end: (end != 0).then_some(end), sequence: false })
    }

    fn entry(&self, now: Moment, base: &TimeBase) -> Entry {
        let entry = Entry::integer(self.value).with_revision(Revision::NONE);
        if self.sequence {
            return entry;
        }
        let expires = self.end.map(|end| base.moment(end));
        entry.with_times(Times { written: now, fresh_until: None, expires })
    }
}

impl Look {
    /// Reads an item as the record of a key.
    pub(crate) fn at(
        item: &Item,
        key: &Key,
        envelope: &Envelope,
        base: &TimeBase,
        now: Moment,
    ) -> Result<Look, Damage> {
        if let Some(counter) = Counter::read(&item.data) {
            let ended = counter.end.is_some_and(|end| base.moment(end) <= now);
            return Ok(if ended { Look::Nothing } else { Look::Counter(counter) });
        }
        let marker_ended = || marker_end(&item.data).is_none_or(|end| base.moment(end) <= now);
        Ok(match envelope.decode(item.data.clone(), key.as_ref(), base)? {
            Record::Entry(entry) => match entry.times().copied() {
                Some(times) if !times.expired(now) && times.written <= now => Look::Entry(entry),
                Some(times) if !times.expired(now) => {
                    Look::Entry(entry.with_times(not_from_the_future(times, now)))
                }
                _ => Look::Nothing,
            },
            Record::Fill(token) if !marker_ended() => Look::Fill(token),
            Record::Pass(_) if !marker_ended() => Look::Pass,
            Record::Fill(_) | Record::Pass(_) => Look::Nothing,
        })
    }

    /// The entry that callers see, if there is one.
    pub(crate) fn entry(self, now: Moment, base: &TimeBase) -> Option<Entry> {
        match self {
            Look::Entry(entry) => Some(entry),
            Look::Counter(counter) => Some(counter.entry(now, base)),
            _ => None,
        }
    }

    /// Whether callers see an entry.
    pub(crate) fn is_entry(&self) -> bool {
        matches!(self, Look::Entry(_) | Look::Counter(_))
    }
}

/// A number of a sequence as the server keeps it. Where the server has added it may be padded with spaces.
pub(crate) fn sequence(bytes: &[u8]) -> Option<Sequence> {
    counter(bytes.trim_ascii_end()).and_then(Sequence::from_i64)
}

// Two nodes may differ by some milliseconds in what they take for the server's time. Nothing was written later than now,
// so nothing has more left than it was given.
fn not_from_the_future(times: Times, now: Moment) -> Times {
    let ahead = times.written.millis_since(now);
    if ahead <= 0 {
        return times;
    }
    let back = |moment: Moment| moment.shifted_millis(-ahead);
    Times {
        written: back(times.written),
        fresh_until: times.fresh_until.map(back),
        expires: times.expires.map(back),
    }
}

// Where a marker says when it ends.
fn marker_end(bytes: &[u8]) -> Option<u64> {
    bytes.get(24..32).and_then(|end| end.try_into().ok()).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::Clock;
    use std::time::Duration;

    #[test]
    fn counters_come_back_and_nothing_else_is_one() {
        for value in [0, 1, -1, i64::MIN, i64::MAX] {
            for end in [None, Some(1), Some(1_767_225_600_000)] {
                let counter = Counter { value, end, sequence: false };
                assert_eq!(Counter::read(&counter.text()), Some(counter));
            }
        }
        let number = Sequence::start().get();
        let expected = Counter { value: number, end: None, sequence: true };
        assert_eq!(Counter::read(number.to_string().as_bytes()), Some(expected));
        assert_eq!(Counter::read(format!("{number} ").as_bytes()), Some(expected));
        for text in ["", "#", "5", "#5", "#5 ", "# 5", "#05 0", "#5 -1", "#5 0 0", "#5 +1", "007"] {
            assert_eq!(Counter::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_was_written_in_the_future_was_written_now() {
        let (clock, _) = Clock::manual();
        let now = clock.now();
        let minute = Duration::from_secs(60);
        let times = Times::starting(now + minute, Some(minute), Some(minute / 2));
        let expected = Times::starting(now, Some(minute), Some(minute / 2));
        assert_eq!(not_from_the_future(times, now), expected);
        assert_eq!(not_from_the_future(expected, now + minute), expected);
    }
}
