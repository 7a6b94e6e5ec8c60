//! How a file backend is configured: a URL, a builder, or both.

use std::fmt;
use std::path::PathBuf;

use larder_core::parse;
use larder_core::{Clock, Error, ErrorKind, Namespace, Result, Ttl};
use url::Url;

use crate::client::{Directory, charge};
use crate::{FileBackend, NAME};

/// Configures a [`FileBackend`].
///
/// What can be wrong fails here, in words that tell what to write instead. Neither an error nor the `Debug` text ever
/// holds the path.
///
/// ```
/// use larder_file::FileBackend;
///
/// let error = FileBackend::builder().url("file:///var/cache/app?size=1GiB").unwrap_err();
/// assert!(error.to_string().contains("max_bytes"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct Builder {
    pub(crate) path: Option<PathBuf>,
    pub(crate) namespace: Option<Namespace>,
    pub(crate) max_bytes: u64,
    pub(crate) max_files: u64,
    pub(crate) max_value_bytes: Option<u64>,
    pub(crate) default_ttl: Ttl,
    pub(crate) fsync: bool,
    pub(crate) clock: Clock,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            path: None,
            namespace: None,
            max_bytes: 1024 * 1024 * 1024,
            max_files: 100_000,
            max_value_bytes: None,
            default_ttl: Ttl::STANDARD,
            fsync: false,
            clock: Clock::system(),
        }
    }
}

impl Builder {
    /// Takes path and parameters from a URL: `file:///var/cache/app?max_bytes=1GiB`. What was set before and is not
    /// named in the URL stays.
    ///
    /// The parameters are named after the methods of this builder: `namespace`, `max_bytes`, `max_files`,
    /// `max_value_bytes`, `default_ttl` and `fsync`. Sizes are written `1024`, `512KiB`, `64MiB` or `2GiB`, lifetimes
    /// `250ms`, `5s`, `10m`, `2h`, `30d` or `forever`, and `fsync` is `true` or `false`. Characters of the path that
    /// mean something in a URL are percent-encoded.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when it is no such URL or has a parameter that does not exist.
    pub fn url(mut self, url: &str) -> Result<Self> {
        // A parser of URLs makes `file:cache` an absolute path, and another one than was meant.
        let scheme = url.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"));
        if !scheme || !url[5..].starts_with("//") {
            return Err(wrong(WRITE));
        }
        if !url[5..].starts_with("///") {
            return Err(wrong(
                "a file URL names no host, and its path begins at the root; write file:///var/cache/app, with three slashes",
            ));
        }
        let url = Url::parse(url).map_err(|_| wrong(WRITE))?;
        self.path = Some(url.to_file_path().map_err(|()| wrong(WRITE))?);
        for (name, value) in url.query_pairs() {
            self = self.parameter(&name, &value)?;
        }
        Ok(self)
    }

    fn parameter(mut self, name: &str, value: &str) -> Result<Self> {
        match name {
            "namespace" => self.namespace = Some(Namespace::new(value)?),
            "max_bytes" => self.max_bytes = parse::size(name, value)?,
            "max_files" => {
                self.max_files =
                    value.parse().map_err(|_| wrong("max_files is a number: 100000"))?;
            }
            "max_value_bytes" => self.max_value_bytes = Some(parse::size(name, value)?),
            "default_ttl" => self.default_ttl = parse::lifetime(name, value)?,
            "fsync" => self.fsync = parse::flag(name, value)?,
            _ => {
                return Err(wrong(format!(
                    "the URL has a parameter that Larder does not know; the known ones are {PARAMETERS}"
                )));
            }
        }
        Ok(self)
    }

    /// The directory, from the root of the file system. It is made if it is missing; everything of Larder's lies in
    /// `larder-v1` below it, and nothing else is touched.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The bytes that all files may have together, each counted in blocks of 4 KiB. 1 GiB unless set. See [the
    /// bounds](crate#bounds).
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many files there may be. 100,000 unless set. See [the bounds](crate#bounds).
    pub fn max_files(mut self, files: u64) -> Self {
        self.max_files = files;
        self
    }

    /// The largest value in bytes, key and envelope included. 64 MiB unless set, and not more than a quarter of
    /// [`max_bytes`](Builder::max_bytes).
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.max_value_bytes = Some(bytes);
        self
    }

    /// The lifetime of entries that are stored with [`Ttl::Default`]. 300 s unless set.
    pub fn default_ttl(mut self, ttl: Ttl) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// Whether every write waits until the disk has it. Off unless set: what was acknowledged survives the death of
    /// every process, and of the last seconds before a power failure anything may be lost, invalidations and clears
    /// included.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// The clock, for tests. All processes that use one directory must have the same wall time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The namespace that the URL named. The backend itself takes its namespaces from the keys.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Opens the directory. It takes a few system calls, however much the directory holds.
    ///
    /// # Errors
    ///
    /// [`Configuration`](ErrorKind::Configuration) when a setting cannot be, or the directory cannot be made, belongs
    /// to another user or cannot be written to.
    pub fn build(self) -> Result<FileBackend> {
        let Some(path) = &self.path else {
            return Err(wrong("there is no path; give one by path(\"/var/cache/app\") or a URL"));
        };
        if !path.is_absolute() {
            return Err(wrong("the path does not begin at the root; write it like /var/cache/app"));
        }
        if self.max_bytes < 64 * 1024 {
            return Err(wrong(
                "max_bytes is below 64KiB: hardly an entry would fit; give it more room",
            ));
        }
        if self.max_files < 16 {
            return Err(wrong("max_files is below 16: hardly an entry would fit; allow more"));
        }
        if charge(self.largest_value()) > self.max_bytes || self.largest_value() < 1024 {
            return Err(wrong("max_value_bytes must lie between 1KiB and max_bytes"));
        }
        Ok(FileBackend::with(Directory::open(path, self.fsync)?, self))
    }

    pub(crate) fn largest_value(&self) -> u64 {
        self.max_value_bytes.unwrap_or_else(|| (64 * 1024 * 1024).min(self.max_bytes / 4))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("path", &self.path.is_some())
            .field("namespace", &self.namespace)
            .field("max_bytes", &self.max_bytes)
            .field("max_files", &self.max_files)
            .field("max_value_bytes", &self.largest_value())
            .field("default_ttl", &self.default_ttl)
            .field("fsync", &self.fsync)
            .finish_non_exhaustive()
    }
}

pub(crate) fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, words).with_backend(NAME)
}

const WRITE: &str = "the URL cannot be read; write file:///var/cache/app, the path from the root of the file system";

const PARAMETERS: &str = "namespace, max_bytes, max_files, max_value_bytes, default_ttl and fsync";

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn parsed(url: &str) -> Builder {
        Builder::default().url(url).unwrap()
    }

    #[test]
    fn urls_are_taken_apart() {
        let builder = parsed(
            "file:///var/cache/my%20app?namespace=shop&max_bytes=2GiB&max_files=5000&max_value_bytes=3MiB&default_ttl=5m&fsync=true",
        );
        assert_eq!(builder.path.as_deref(), Some(Path::new("/var/cache/my app")));
        assert_eq!(builder.namespace().unwrap().as_str(), "shop");
        assert_eq!((builder.max_bytes, builder.max_files), (2 << 30, 5000));
        assert_eq!(builder.max_value_bytes, Some(3 << 20));
        assert_eq!(builder.default_ttl, Ttl::For(Duration::from_secs(300)));
        assert!(builder.fsync);

        let builder = parsed("FILE:///cache?default_ttl=forever");
        assert_eq!(builder.default_ttl, Ttl::Forever);
        assert!(!builder.fsync && builder.namespace().is_none());
        assert_eq!(builder.largest_value(), 64 << 20);
        assert_eq!(builder.max_bytes(1 << 20).largest_value(), 1 << 18);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_path() {
        for (url, words) in [
            ("canary", "file:///var/cache/app"),
            ("file:canary", "file:///var/cache/app"),
            ("file:/canary", "file:///var/cache/app"),
            ("file:./canary", "file:///var/cache/app"),
            ("file://canary", "three slashes"),
            ("file://localhost/canary", "three slashes"),
            ("http:///canary", "file:///var/cache/app"),
            ("file:///canary?canary=1", PARAMETERS),
            ("file:///canary?max_bytes=canary", "max_bytes"),
            ("file:///canary?max_files=canary", "max_files"),
            ("file:///canary?default_ttl=canary", "default_ttl"),
            ("file:///canary?fsync=canary", "true or false"),
            ("file:///canary?namespace=CANARY", "namespace"),
        ] {
            let error = Builder::default().url(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(words), "{url}: {text}");
            assert!(!text.to_lowercase().contains("canary"), "{text}");
        }
        assert!(!format!("{:?}", parsed("file:///canary")).contains("canary"));
    }

    #[test]
    fn settings_that_cannot_be_fail() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = file.path().join("canary");
        for (builder, words) in [
            (Builder::default(), "no path"),
            (Builder::default().path("canary"), "root"),
            (parsed("file:///canary?max_bytes=1KiB"), "64KiB"),
            (parsed("file:///canary?max_files=1"), "16"),
            (parsed("file:///canary?max_value_bytes=2GiB"), "max_value_bytes"),
            (parsed("file:///canary?max_value_bytes=1"), "max_value_bytes"),
            (Builder::default().path(file.path()), "leads to a file"),
            (Builder::default().path(below), "leads to a file"),
            (Builder::default().path("/proc/canary"), "the directory"),
        ] {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = format!("{error} {error:?}");
            assert!(text.contains(words) && !text.contains("canary"), "{text}");
        }
    }
}
