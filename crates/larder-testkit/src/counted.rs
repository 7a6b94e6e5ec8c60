//! How often something was computed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts how often a computation runs, and says so where a test expected otherwise. A clone counts for the same one.
///
/// ```
/// use larder_testkit::counted::Counted;
///
/// let loads = Counted::new("the price list");
/// let load = loads.counting(|| vec![1999, 2499]);
/// loads.assert_never();
/// assert_eq!(load().len(), 2);
/// loads.assert_once();
///
/// loads.note();
/// loads.assert_times(2);
/// let words = std::panic::catch_unwind(|| loads.assert_once()).unwrap_err();
/// let words = words.downcast::<String>().unwrap();
/// assert_eq!(*words, "the price list was computed 2 times; expected: once");
/// ```
#[derive(Clone)]
pub struct Counted(Arc<Inner>);

struct Inner {
    name: String,
    runs: AtomicUsize,
}

impl Counted {
    /// Counts something of that name, which a failed assertion begins with.
    pub fn new(name: impl Into<String>) -> Self {
        Counted(Arc::new(Inner { name: name.into(), runs: AtomicUsize::new(0) }))
    }

    /// The same computation, counted when it is called: what `get_or_compute`, `get_or_compute_sync` and fragments are
    /// given. It makes a value or a future, and is counted even if that one fails, panics or is dropped.
    pub fn counting<R, F: FnOnce() -> R>(&self, compute: F) -> impl FnOnce() -> R + use<R, F> {
        let counted = self.clone();
        move || {
            counted.note();
            compute()
        }
    }

    /// The same for a computation that is given something, such as the previous value in `get_or_compute_with`.
    pub fn counting_with<A, R, F: FnOnce(A) -> R>(
        &self,
        compute: F,
    ) -> impl FnOnce(A) -> R + use<A, R, F> {
        let counted = self.clone();
        move |given| {
            counted.note();
            compute(given)
        }
    }

    /// Counts one run: for computations that are called several times, such as that of `get_or_compute_many`, and for
    /// handlers.
    pub fn note(&self) {
        self.0.runs.fetch_add(1, Ordering::SeqCst);
    }

    /// How often it has run.
    pub fn count(&self) -> usize {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// Counts from zero again.
    pub fn forget(&self) {
        self.0.runs.store(0, Ordering::SeqCst);
    }

    /// It has run once.
    ///
    /// # Panics
    ///
    /// When it has not run, or more often.
    #[track_caller]
    pub fn assert_once(&self) {
        self.assert_times(1);
    }

    /// It has not run.
    ///
    /// # Panics
    ///
    /// When it has.
    #[track_caller]
    pub fn assert_never(&self) {
        self.assert_times(0);
    }

    /// It has run so often.
    ///
    /// # Panics
    ///
    /// When it has run more or less often.
    #[track_caller]
    pub fn assert_times(&self, expected: usize) {
        let found = self.count();
        assert!(
            found == expected,
            "{} was {}computed {}; expected: {}",
            self.0.name,
            if found == 0 { "not " } else { "" },
            if found == 0 { "at all".to_owned() } else { times(found) },
            times(expected)
        );
    }
}

fn times(count: usize) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counted({}: {})", self.0.name, times(self.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(counted: &Counted, expected: usize) -> String {
        let asserted = std::panic::AssertUnwindSafe(|| counted.assert_times(expected));
        *std::panic::catch_unwind(asserted).unwrap_err().downcast::<String>().unwrap()
    }

    #[test]
    fn a_failed_assertion_says_what_was_found_and_what_was_expected() {
        let counted = Counted::new("a row");
        assert_eq!(words(&counted, 1), "a row was not computed at all; expected: once");
        counted.note();
        assert_eq!(words(&counted, 0), "a row was computed once; expected: never");
        counted.note();
        assert_eq!(words(&counted, 3), "a row was computed 2 times; expected: 3 times");
        counted.forget();
        counted.assert_never();
    }

    #[test]
    fn a_computation_counts_when_it_is_called_and_for_every_clone() {
        let counted = Counted::new("a row");
        let other = counted.clone();
        let unused = other.counting(|| 1);
        drop(unused);
        counted.assert_never();
        assert_eq!(other.counting(|| 1)() + other.counting_with(|given: u8| given)(2), 3);
        counted.assert_times(2);
    }
}
