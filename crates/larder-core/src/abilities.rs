//! What a backend can do, as data.

use std::time::Duration;

use crate::Ttl;

/// What a backend can do and what it cannot.
///
/// The conformance suite reads this and demands exactly what is declared: an operation that is declared missing must
/// answer [`Unsupported`](crate::ErrorKind::Unsupported), never success. The default is the strictest store: nothing
/// optional, nothing lost.
///
/// ```
/// use larder_core::Abilities;
///
/// let abilities = Abilities { pages: true, evicts: true, ..Abilities::default() };
/// assert!(!abilities.local);
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct Abilities {
    /// Answers without I/O: [`peek`](crate::Backend::peek) never says `Ask`, and futures are ready when first polled.
    pub local: bool,
    /// May drop entries before their time, to keep within its size.
    pub evicts: bool,
    /// Can page through keys by prefix.
    pub pages: bool,
    /// Other processes see what this one writes.
    pub shared: bool,
    /// What is stored outlives the server's restart.
    pub durable: bool,
    /// Lifetimes follow the [`Clock`](crate::Clock) that the backend was given, so that a test can drive them.
    pub follows_clock: bool,
    /// The smallest step of a lifetime.
    pub precision: Duration,
    /// The largest value in bytes, key and envelope included, where there is a limit.
    pub max_bytes: Option<u64>,
    /// For how long other nodes may still see a namespace as it was before [`clear`](crate::Backend::clear). What they store
    /// or remove in that time may be stored in, or removed from, what was cleared: a value that somebody stored since is
    /// then still there.
    pub clear_delay: Duration,
    /// For how long reads may still see what was there before an acknowledged write, where they are answered by something
    /// that follows the store. Conditions, counters, tags and fills are exact all the same. Sessions and near copies do
    /// not belong where this is not zero.
    pub read_delay: Duration,
    /// Is in more than one place, one after the other, and conditions hold within one of them: what must not be lost or
    /// brought back, a session or a lock that protects more than work, does not belong here.
    pub splits: bool,
    /// Reads may be answered by copies elsewhere. A removal drops those of its key, and fails if it cannot, although the
    /// entry is gone; what replaces an entry tries to.
    pub copies: bool,
    /// Keeps nothing: what is put is checked and gone at once, and nothing is ever found. For development and tests;
    /// what must not be lost does not belong here.
    pub forgets: bool,
    /// What [`Ttl::Default`] stands for here.
    pub default_ttl: Ttl,
}

impl Default for Abilities {
    fn default() -> Self {
        Abilities {
            local: false,
            evicts: false,
            pages: false,
            shared: false,
            durable: false,
            follows_clock: false,
            precision: Duration::from_millis(1),
            max_bytes: None,
            clear_delay: Duration::ZERO,
            read_delay: Duration::ZERO,
            splits: false,
            copies: false,
            forgets: false,
            default_ttl: Ttl::STANDARD,
        }
    }
}
