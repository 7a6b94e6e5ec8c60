//! A server that runs in the background: its process, its port, its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::port::Port;
use super::process::{Directory, Process};

/// A server's process, which may be stopped, killed and started again on the same port.
#[derive(Debug)]
pub(super) struct Daemon {
    // First, so that it ends before its port is given back and its directory goes.
    process: Option<Process>,
    port: Port,
    directory: Directory,
    binary: PathBuf,
}

impl Daemon {
    /// One that is not started yet.
    pub(super) fn new(name: &str, binary: &Path) -> Self {
        Daemon {
            process: None,
            port: Port::reserve(),
            directory: Directory::new(name),
            binary: binary.to_owned(),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts it, again if it runs, and waits until it is ready. False when somebody who asks nobody took the port.
    pub(super) async fn run(&mut self, args: &[String], ready: impl AsyncFn() -> bool) -> bool {
        self.kill();
        let log = self.directory().join("log");
        let mut process = Process::start(&self.binary, args, &log);
        let until = Instant::now() + START;
        loop {
            if process.ended() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                if log.contains("Address already in use") {
                    return false;
                }
                panic!("the server does not start with {args:?}:\n{log}");
            }
            if ready().await && !process.ended() {
                self.process = Some(process);
                return true;
            }
            assert!(Instant::now() < until, "the server did not answer within {START:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn signal(&self, name: &str) {
        self.process.as_ref().expect("the server was killed").signal(name);
    }

    pub(super) fn kill(&mut self) {
        self.process = None;
    }
}

// A busy machine is no reason to fail.
const START: Duration = Duration::from_secs(60);
