//! Whether those who waited for a flight may have what came of it.

use larder_core::{Key, Sequence, Tag, When};

use crate::fill::HOLD;
use crate::{Closed, Store};

impl Closed {
    /// Whether what was made for a key holds [at this moment](Store::would_hold); `otherwise` where the store cannot be
    /// asked. Where nobody else waits nothing is asked.
    pub async fn may_share(
        self,
        store: &Store,
        key: &Key,
        when: When,
        tags: &[Tag],
        built_at: Sequence,
        otherwise: bool,
    ) -> bool {
        let asked = || store.would_hold(key, when, HOLD, tags, built_at);
        !self.others || asked().await.unwrap_or(otherwise)
    }

    /// The same where the store could not be asked at first: if it can be now, nobody knows what has happened since.
    pub async fn may_share_outage(self, store: &Store, key: &Key) -> bool {
        !self.others || store.get(key, &[]).await.is_err()
    }
}
