//! Ports for servers that are told theirs before they listen.
//!
//! The usual way (listen on port 0, see what it was, close it, and have the server take it) leaves a moment in which
//! the system may give the same port to somebody else: another test's server, whose answers are then taken for ours, or
//! the near end of a connection. So the ports come from below those that systems give out by themselves, and while one
//! is in use, the lock of a file with its number is held; it is let go with the process, however that ends.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;

/// A port of 127.0.0.1 that no other test takes.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes one that nobody listens on.
    ///
    /// # Panics
    ///
    /// When all are taken, or no file can be made in the temporary directory.
    pub(super) fn reserve() -> Self {
        let locks = std::env::temp_dir().join("larder-ports");
        std::fs::create_dir_all(&locks).expect("a temporary directory can be made");
        for _ in 0..1000 {
            let number = rand::random_range(PORTS);
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(locks.join(number.to_string()))
                .expect("a lock's file can be made");
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no port of {PORTS:?} is free");
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

// Linux gives out those from 32768 by itself, others those from 49152.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_to_two() {
        let mut numbers: Vec<u16> = Vec::new();
        let ports: Vec<Port> = (0..200).map(|_| Port::reserve()).collect();
        numbers.extend(ports.iter().map(Port::number));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 200);
    }
}
