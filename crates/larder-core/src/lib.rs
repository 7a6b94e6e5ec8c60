//! The storage contract of Larder.
//!
//! Everything that Larder keeps (cached values, responses, fragments, counters, fill markers, sessions) goes through
//! one trait, [`Backend`], as an [`Entry`] under a [`Key`]. This crate holds that contract and what every backend
//! needs to keep it, and nothing else: no runtime, no HTTP, no client library.
//!
//! | you want | look at |
//! | --- | --- |
//! | to write a backend | [`Backend`], then [`Abilities`], then the suite in `larder-testkit` |
//! | to know what is stored | [`Entry`], [`Live`], [`envelope`] |
//! | to name what is stored | [`Namespace`], [`Key`], [`KeyBuf`], [`Prefix`], [`Tag`] |
//! | to say how long | [`Ttl`], [`Clock`], [`Moment`] |
//! | to know what can go wrong | [`Error`], [`ErrorKind`] |
//!
//! # Example
//!
//! ```
//! use larder_core::{Key, Namespace};
//!
//! # fn main() -> Result<(), larder_core::Error> {
//! let shop = Namespace::new("shop")?;
//! // Parts are framed, so no two different lists of parts make the same key.
//! assert_ne!(Key::new(&shop, ["ab", "c"])?, Key::new(&shop, ["a", "bc"])?);
//! # Ok(())
//! # }
//! ```

mod abilities;
mod backend;
mod bus;
mod clock;
mod damages;
mod entry;
pub mod envelope;
mod error;
mod key;
mod name;
pub mod order;
pub mod parse;
mod sequence;
mod ttl;

pub use abilities::Abilities;
pub use backend::{
    Backend, Begin, Counter, Cursor, Found, Marks, Outcome, Page, Peek, Put, Remaining, Token, When,
};
pub use bus::{Bus, Heard};
pub use clock::{Clock, ManualClock, Moment};
pub use damages::Damages;
pub use entry::{Encoded, Entry, Live, Mark, Payload, Revision, Times};
pub use error::{Error, ErrorKind, Result};
pub use key::{Key, KeyBuf, KeyRef, Namespace, PartWriter, Prefix, Tag};
pub use name::Generation;
pub use sequence::Sequence;
pub use ttl::Ttl;
