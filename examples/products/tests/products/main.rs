//! The service as its clients meet it: a listening server, a real database file, a real HTTP client.

mod api;
mod caching;
mod command;
mod each_store;
mod file;
mod home;
mod memcached;
mod postgres;
mod redis;
mod service;
mod sqlite;
mod tiered;
mod wrong_input;
