//! The in-memory backend of Larder, bounded in bytes.
