//! The public conformance suite for Larder backends, fault tools and real servers for tests.
