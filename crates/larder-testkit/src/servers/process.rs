//! One child process and its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that is killed when this is dropped, or when the test's process ends in any other way.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    // A shell that reads from us until we end, and then kills the child.
    watcher: Option<Child>,
    // The signal that ends it.
    end: &'static str,
    // Whether what it has started ends with it.
    family: bool,
}

impl Process {
    /// Starts it, with its output in a file.
    ///
    /// `end` is the signal that ends it at once: `KILL`, or one after which it takes away what the system would keep.
    pub(super) fn start(
        binary: &Path,
        args: &[String],
        log: &Path,
        end: &'static str,
        family: bool,
    ) -> Self {
        let output = fs::File::create(log).expect("the log file can be made");
        let errors = output.try_clone().expect("a file can be opened twice");
        let mut command = Command::new(binary);
        command.args(args).stdin(Stdio::null()).stdout(output).stderr(errors);
        #[cfg(unix)]
        if family {
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        let watcher = Command::new("sh")
            .args(["-c", "read -r _; kill -CONT -- \"$1\"; kill -\"$2\" -- \"$1\"", "watcher"])
            .args([&target(&child, family), end])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok();
        Process { child, watcher, end, family }
    }

    /// Whether it has ended by itself.
    pub(super) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name.
    pub(super) fn signal(&self, name: &str) {
        let target = target(&self.child, self.family);
        let status = Command::new("kill").args([&format!("-{name}"), "--", &target]).status();
        assert!(status.is_ok_and(|status| status.success()), "the signal {name} cannot be sent");
    }
}

// Whom signals go to: a process, or the group that it leads.
fn target(child: &Child, family: bool) -> String {
    if family { format!("-{}", child.id()) } else { child.id().to_string() }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watcher goes first: it must not kill a later process of the same number.
        if let Some(mut watcher) = self.watcher.take() {
            let _ = watcher.kill();
            let _ = watcher.wait();
        }
        if self.end != "KILL" && !self.ended() {
            self.signal("CONT");
            self.signal(self.end);
            let until = Instant::now() + PATIENCE;
            while !self.ended() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if self.family {
            // Before its number is given to somebody else, which waiting for it allows.
            let target = target(&self.child, true);
            let _ = Command::new("kill").args(["-KILL", "--", &target]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A new directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("larder-{name}-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).expect("a temporary directory can be made");
        Directory(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first of these programs that is there: the environment's, or one on the path.
pub(super) fn find(variable: &str, names: &[&str], advice: &str) -> PathBuf {
    find_in(variable, names, &[], advice)
}

/// The same, looked for in some folders behind those of the path.
pub(super) fn find_in(
    variable: &str,
    names: &[&str],
    folders: &[PathBuf],
    advice: &str,
) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(path.exists(), "{variable} names {}, which is not there", path.display());
        return path;
    }
    on_path(names, folders)
        .unwrap_or_else(|| panic!("none of {names:?} is installed. {advice}, or set {variable}"))
}

/// The first of these programs that is on the path, or in one of these folders.
pub(super) fn on_path(names: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = names.iter().flat_map(|name| {
        let all = std::env::split_paths(&path).chain(folders.iter().cloned());
        all.map(move |folder| folder.join(name))
    });
    candidates.into_iter().find(|candidate| candidate.is_file())
}
