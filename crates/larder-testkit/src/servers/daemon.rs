//! A server that runs in the background: its process, its port, its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    end: &'static str,
    family: bool,
}

impl Daemon {
    /// One that is not started yet.
    pub(super) fn new(name: &str, binary: &Path) -> Self {
        Daemon {
            process: None,
            port: Port::reserve(),
            directory: Directory::new(name),
            binary: binary.to_owned(),
            end: "KILL",
            family: false,
        }
    }

    /// Ended together with all that it has started.
    pub(super) fn with_its_family(mut self) -> Self {
        self.family = true;
        self
    }

    /// Ended by that signal, where being killed leaves something behind.
    pub(super) fn ended_by(mut self, signal: &'static str) -> Self {
        self.end = signal;
        self
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
        let mut process = Process::start(&self.binary, args, &log, self.end, self.family);
        let until = Instant::now() + START;
        loop {
            if process.ended() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                // PostgreSQL says so too, and goes on to say that it could not create its sockets.
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

    /// The numbers of its children.
    pub(super) fn children(&self) -> Vec<u32> {
        let id = self.process.as_ref().expect("the server was killed").id();
        let listed = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let listed = listed.unwrap_or_else(|_| {
            let output = Command::new("pgrep").args(["-P", &id.to_string()]).output();
            let output = output.expect("where there is no /proc, there is pgrep");
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
        listed.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    }

    pub(super) fn kill(&mut self) {
        self.process = None;
    }
}

// A busy machine is no reason to fail.
const START: Duration = Duration::from_secs(60);
