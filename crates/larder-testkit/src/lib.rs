//! The public conformance suite for Larder backends, and the tools with which Larder tests itself, and users what they
//! build with it.
//!
//! | you want | look at |
//! | --- | --- |
//! | to say how often something was computed | [`counted::Counted`] |
//! | to prove that a backend keeps the contract | [`conformance!`], [`Harness`], [`suite`] |
//! | a backend to test against | [`reference::Reference`] |
//! | a backend that fails, waits or hangs when told to | [`faulty::Faulty`] |
//! | a real server, on a free port, gone after the test | [`servers`] |
//! | a network that delays, swallows and cuts | [`proxy::FaultProxy`] |
//! | messages between nodes, lost, late, doubled | [`bus::LocalBus`] |
//! | to drop a future at its n-th poll | [`cancel`] |
//! | every verb in a row, while a server comes and goes | [`verbs`] |
//!
//! # In your tests
//!
//! Add it under `[dev-dependencies]`. A test of a service with a cache wants to be quick, and neither to sleep nor to start
//! servers. Three tools do that, together or alone:
//!
//! * `Clock::manual()` of `larder-core` (`larder::core::Clock`) gives a clock that stands still, and the hands that move
//!   it: a backend that is built over it lets nothing expire before the test says so.
//! * [`Faulty`](faulty::Faulty) around that backend fails, hangs or loses answers when it is told to, and counts what it
//!   was asked. It is treated like a store behind a network. [`Reference`](reference::Reference) is a backend to put into it.
//! * [`Counted`](counted::Counted) around the computation says that it ran once, or how often.
//!
//! The cache over it is the real one, `Cache::new(backend)`. The recipe "Tests" of `larder-cache` (`larder::recipes`) is
//! such a test, whole. Where a test waits for budgets or time limits, let tokio's time be paused
//! (`#[tokio::test(start_paused = true)]`): they are on tokio's clock. Where it has to be the real server, take one of
//! [`servers`], behind a [`FaultProxy`](proxy::FaultProxy) if the network is to fail.
//!
//! # A backend's contract
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
pub mod counted;
pub mod faulty;
mod harness;
pub mod proxy;
pub mod reference;
pub mod servers;
pub mod suite;
pub mod verbs;

pub use harness::{Harness, Sizes};
