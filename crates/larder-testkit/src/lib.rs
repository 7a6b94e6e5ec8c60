//! The public conformance suite for Larder backends, and the tools with which Larder tests itself.
//!
//! | you want | look at |
//! | --- | --- |
//! | to prove that a backend keeps the contract | [`conformance!`], [`Harness`], [`suite`] |
//! | a backend to test against | [`reference::Reference`] |
//! | a backend that fails, waits or hangs when told to | [`faulty::Faulty`] |
//! | a real server, on a free port, gone after the test | [`servers`] |
//! | a network that delays, swallows and cuts | [`proxy::FaultProxy`] |
//! | messages between nodes, lost, late, doubled | [`bus::LocalBus`] |
//! | to drop a future at its n-th poll | [`cancel`] |
//! | every verb in a row, while a server comes and goes | [`verbs`] |
//!
//! # Example
//!
//! ```
//! use larder_core::Clock;
//! use larder_testkit::{Harness, reference::Reference};
//!
//! async fn harness() -> Harness<Reference> {
//!     let (clock, hands) = Clock::manual();
//!     Harness::new(Reference::new(clock)).with_hands(hands)
//! }
//!
//! // One named `#[test]` for each check of the suite.
//! larder_testkit::conformance!(harness());
//! # fn main() {}
//! ```
//!
//! Nothing here is meant for production, and checks may be added in any release: a backend that fails a new one broke
//! the contract before.

pub mod bus;
pub mod cancel;
pub mod faulty;
mod harness;
pub mod proxy;
pub mod reference;
pub mod servers;
pub mod suite;
pub mod verbs;

pub use harness::{Harness, Sizes};
