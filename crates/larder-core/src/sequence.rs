//! The numbers that order invalidations.

use std::fmt;

/// A number of a namespace's invalidation sequence, issued by the backend and never by a clock.
///
/// Nineteen decimal digits: nine of a random *epoch*, ten of a counter. A server can add to it, compare two of an epoch
/// as text, and a sequence that was lost (evicted, flushed) comes back under another epoch, so that nothing built
/// before it looks valid again.
///
/// An entry that was built when the sequence stood at `b` is valid for a tag whose last invalidation was `m` when both
/// are of one epoch and `m <= b`:
///
/// ```
/// use larder_core::Sequence;
///
/// let before = Sequence::start();
/// let after = before.next();
/// assert!(before.covers(Some(before)));      // built, and not invalidated since
/// assert!(!before.covers(Some(after)));      // invalidated since
/// assert!(!before.covers(None));             // the tag's record was lost: not valid
/// assert!(!before.covers(Some(Sequence::start())) || before == Sequence::start());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(i64);

impl Sequence {
    /// What one epoch is worth.
    pub const EPOCH: i64 = 10_000_000_000;

    const FIRST_EPOCH: i64 = 100_000_000;
    const LAST_EPOCH: i64 = 899_999_999;

    /// "Never": the number of an entry that carries no tags. It covers nothing.
    pub const NONE: Sequence = Sequence(0);

    /// The first number of a new, random epoch.
    pub fn start() -> Self {
        let epochs = (Self::LAST_EPOCH - Self::FIRST_EPOCH + 1).unsigned_abs();
        let epoch = Self::FIRST_EPOCH + (rand::random::<u64>() % epochs).cast_signed();
        Sequence(epoch * Self::EPOCH + 1)
    }

    /// The number with that value, `None` if it is not one of a sequence.
    pub fn from_i64(value: i64) -> Option<Self> {
        let epoch = value / Self::EPOCH;
        (Self::FIRST_EPOCH..=Self::LAST_EPOCH + 1).contains(&epoch).then_some(Sequence(value))
    }

    /// The plain number: what is stored and compared.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The number after this one. After 10^10 of them the epoch changes, and everything tagged is a miss once.
    #[must_use]
    pub fn next(self) -> Self {
        Sequence(self.0 + 1)
    }

    /// True when both are of one epoch.
    pub fn same_epoch(self, other: Sequence) -> bool {
        self.0 / Self::EPOCH == other.0 / Self::EPOCH
    }

    /// Whether something built at `self` is valid for a tag that was last invalidated at `mark`.
    pub fn covers(self, mark: Option<Sequence>) -> bool {
        mark.is_some_and(|mark| self.same_epoch(mark) && mark.0 <= self.0)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / Self::EPOCH, self.0 % Self::EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_nineteen_digits_so_that_text_compares_like_numbers() {
        for _ in 0..1000 {
            let start = Sequence::start();
            assert_eq!(start.get().to_string().len(), 19);
            assert!(start.get().to_string() < start.next().get().to_string());
            assert_eq!(Sequence::from_i64(start.get()), Some(start));
        }
    }

    #[test]
    fn another_epoch_covers_nothing() {
        let old = Sequence(150_000_000 * Sequence::EPOCH + 77);
        let new = Sequence(250_000_000 * Sequence::EPOCH + 5);
        assert!(!old.covers(Some(new)));
        assert!(!new.covers(Some(old)));
    }

    #[test]
    fn foreign_numbers_are_refused() {
        for value in [i64::MIN, -1, 0, 1, 42, i64::MAX] {
            assert_eq!(Sequence::from_i64(value), None, "{value}");
        }
    }
}
