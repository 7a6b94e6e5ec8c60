//! The Redis and Valkey backend of Larder.
