//! The cache engine of Larder: typed values, single-flight, tags, fail-open.
