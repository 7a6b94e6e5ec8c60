//! What is logged: once for a burst, never with a key or a path.

use larder_core::envelope::Damage;
use larder_core::{Clock, Damages};

/// Tells of damaged records now and then.
pub(crate) fn damaged(damages: &Damages, clock: &Clock, damage: Damage) {
    if let Some(count) = damages.seen(clock.now()) {
        tracing::warn!(target: "larder::file", count, last = ?damage, "records that cannot be used were taken for absent");
    }
}
