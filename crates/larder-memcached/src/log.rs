//! What is logged: once for a burst, never with a key, an address or a credential.

use larder_core::envelope::Damage;
use larder_core::{Clock, Damages};

pub(crate) fn lost(server: usize, why: &str) {
    tracing::debug!(target: TARGET, server, why, "a connection is given up");
}

pub(crate) fn outage(server: usize, first: bool, why: &str) {
    if first {
        tracing::warn!(target: TARGET, server, why, "the server is not available; trying again in the background");
    } else {
        tracing::debug!(target: TARGET, server, why, "the server is still not available");
    }
}

pub(crate) fn recovered(server: usize, attempts: u32) {
    tracing::info!(target: TARGET, server, attempts, "connected to the server again");
}

/// Tells of damaged records now and then.
pub(crate) fn damaged(damages: &Damages, clock: &Clock, damage: Damage) {
    if let Some(count) = damages.seen(clock.now()) {
        tracing::warn!(target: TARGET, count, last = ?damage, "records that cannot be used were taken for absent");
    }
}

const TARGET: &str = "larder::memcached";
