//! What a hit costs.
//!
//! `cargo bench -p larder-benches` measures hits of Larder beside the bare service, a hand-written look-up and other
//! caches: allocations and bytes, instructions (where valgrind is installed) and time. Counts are exact and repeat;
//! times on a shared machine do not, so they are taken in interleaved rounds and compared within a round.
//!
//! * [`http`] has the response caches, [`data`] the caches of values, [`sessions`] the sessions, [`grpc`] gRPC calls, [`served`] whole
//!   requests through hyper.
//! * [`remote`] has responses on a server, and what decoding them costs.
//! * [`backends`] has the stores beside their bare clients, over real servers.
//! * [`memory`] has what entries occupy.
//! * [`outage`] has a Redis that dies, freezes and flaps under load.
//! * `peers`, a workspace of its own, has other caches that would be too much to build with the project.
//! * [`measure`] runs them. Allocations are counted in a program of their own (`src/bin/allocations.rs`), so that the
//!   counting allocator weighs on neither times nor instructions.
//! * `tests/budget.rs` fails when a hit allocates more than it may.

use std::fmt;

pub mod backends;
pub mod data;
pub mod grpc;
pub mod http;
pub mod measure;
pub mod memory;
pub mod outage;
pub mod remote;
pub mod served;
pub mod sessions;

/// Does that many operations; made warm, so that every one of them is a hit.
pub type Run = Box<dyn FnMut(u64)>;

/// One row of a table.
#[derive(Clone, Copy)]
pub struct Case {
    /// What the row is called.
    pub name: &'static str,
    /// Sets it up for bodies or values of that many bytes.
    pub make: fn(usize) -> Run,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The body and value sizes that are measured.
pub const SIZES: [usize; 2] = [1024, 64 * 1024];

/// Operations before anything is counted: lazily made tables exist then, and caches have settled.
pub const WARM_UP: u64 = 100;

/// A current-thread runtime with everything on.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
