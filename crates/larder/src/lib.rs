//! Layered caching and sessions for Rust services, as composable Tower layers over one backend trait.
