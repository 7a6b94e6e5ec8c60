//! How a memory backend is configured.

use larder_core::{Clock, Error, ErrorKind, Result, Ttl};

use crate::MemoryBackend;

/// Configures a [`MemoryBackend`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(crate) max_bytes: u64,
    pub(crate) max_entry_bytes: Option<u64>,
    pub(crate) default_ttl: Ttl,
    pub(crate) clock: Clock,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            max_bytes: 64 * 1024 * 1024,
            max_entry_bytes: None,
            default_ttl: Ttl::STANDARD,
            clock: Clock::system(),
        }
    }
}

impl Builder {
    /// The bytes that all entries may occupy together: keys, values, tags and bookkeeping. 64 MiB unless set.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The bytes that one entry's key and value may have. A sixteenth of [`max_bytes`](Builder::max_bytes) and at most
    /// 4 MiB unless set; never more than a third of the whole.
    ///
    /// The room is divided into shards of equal size, each with a lock of its own, and the largest entry has to fit into
    /// one: the larger entries may be, the fewer shards there are.
    pub fn max_entry_bytes(mut self, bytes: u64) -> Self {
        self.max_entry_bytes = Some(bytes);
        self
    }

    /// The lifetime of entries that are stored with [`Ttl::Default`]. 300 s unless set.
    pub fn default_ttl(mut self, ttl: Ttl) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// The clock, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the backend.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when there is room for less than 4 KiB.
    pub fn build(self) -> Result<MemoryBackend> {
        let wrong = |words| Err(Error::new(ErrorKind::Configuration, words).with_backend("memory"));
        if self.max_bytes < 4096 {
            return wrong(
                "max_bytes is below 4096: not even one entry would fit; give it more room",
            );
        }
        // Its bytes may be there twice: as they were read and as readers use them.
        if self.max_entry_bytes.is_some_and(|bytes| bytes > self.max_bytes / 3) {
            return wrong(
                "max_entry_bytes is more than a third of max_bytes; lower it or raise max_bytes",
            );
        }
        Ok(MemoryBackend::with(self))
    }
}
