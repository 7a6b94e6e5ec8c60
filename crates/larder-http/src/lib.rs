//! Response caching for Tower services: CacheLayer, VaryLayer, CacheControlLayer.
