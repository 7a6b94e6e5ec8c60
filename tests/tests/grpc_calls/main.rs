//! Cached gRPC calls over real HTTP/2, with Tonic on both sides.

mod fills;
mod keys;
mod neighbours;
mod statuses;
mod support;
mod writes;
