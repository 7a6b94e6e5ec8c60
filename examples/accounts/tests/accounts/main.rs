//! The accounts example as its visitors see it: over HTTP, and as a command.

mod browser;
mod chromium;
mod command;
mod refusals;
mod story;
