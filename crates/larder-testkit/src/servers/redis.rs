use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::certificates::Certificates;
use super::daemon::Daemon;
use super::port::Port;
use super::process::{find, on_path};

/// How a [`RedisServer`] is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    args: Vec<String>,
    password: Option<String>,
    user: Option<(String, String)>,
    sentinel: bool,
    // On a port beside the plain one.
    tls: bool,
    // Another one than the usual.
    program: Option<PathBuf>,
}

impl RedisOptions {
    /// One more directive: `directive("maxmemory", &["1mb"])`.
    #[must_use]
    pub fn directive(mut self, name: &str, values: &[&str]) -> Self {
        self.args.push(format!("--{name}"));
        self.args.extend(values.iter().map(|value| (*value).to_owned()));
        self
    }

    /// At most so much memory, and what to do then (`noeviction`, `allkeys-lru` …).
    #[must_use]
    pub fn max_memory(self, bytes: &str, policy: &str) -> Self {
        self.directive("maxmemory", &[bytes]).directive("maxmemory-policy", &[policy])
    }

    /// The default user's password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.directive("requirepass", &[password])
    }

    /// A user with a password and ACL rules (`~* &* +@all`), who is the one in [`RedisServer::url`].
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        let secret = format!(">{password}");
        let words: Vec<&str> = [name, "on", &secret].into_iter().chain(rules.split(' ')).collect();
        self.directive("user", &words)
    }

    /// Speaks TLS too, on a port of its own ([`RedisServer::tls_port`]), with clients that show a certificate of the same
    /// authority. Replicas, nodes of a cluster and sentinels talk to each other so.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.tls = true;
        for (name, file) in TLS_FILES {
            self = self.directive(name, &[&certificates.path(file).display().to_string()]);
        }
        self.directive("tls-auth-clients", &["yes"]).directive("tls-replication", &["yes"])
    }

    /// The same with Valkey, where `valkey-server` is on the path; `None` where it is not.
    pub fn valkey(self) -> Option<Self> {
        let program = on_path(&["valkey-server"], &[])?;
        Some(RedisOptions { program: Some(program), ..self })
    }

    /// Starts a server so.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start(self) -> RedisServer {
        for _ in 0..10 {
            let mut server = self.clone().prepare();
            if server.run().await {
                return server;
            }
        }
        panic!("somebody takes every port before the server does");
    }

    /// A server that has its port and its directory, and does not run yet.
    pub(super) fn prepare(self) -> RedisServer {
        let program = self.program.clone().unwrap_or_else(binary);
        let daemon = Daemon::new("redis", &program);
        let tls = self.tls.then(Port::reserve);
        RedisServer { daemon, tls, options: self }
    }

    /// One that is a sentinel: all that it is told stands in the file `sentinel.conf` of its directory.
    pub(super) fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.tls
    }

    /// The directives, as a file has them.
    pub(super) fn as_lines(&self) -> String {
        self.args.join(" ").replace(" --", "\n").trim_start_matches("--").to_owned()
    }
}

/// A Redis or Valkey server of one's own.
///
/// `LARDER_REDIS_SERVER` names the binary; otherwise `redis-server` or `valkey-server` is looked for.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() {
/// use larder_testkit::servers::RedisServer;
///
/// let server = RedisServer::start().await;
/// println!("{}", server.url());
/// server.freeze(); // accepts connections, and answers nothing
/// server.thaw();
/// # }
/// ```
#[derive(Debug)]
pub struct RedisServer {
    daemon: Daemon,
    tls: Option<Port>,
    options: RedisOptions,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk and asks for no password.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// Starts with options.
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// Where it listens, credentials included: `redis://127.0.0.1:40000`.
    pub fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// The same, through something that listens on another port of this machine, such as a
    /// [`FaultProxy`](crate::proxy::FaultProxy).
    pub fn url_at(&self, port: u16) -> String {
        let login = match (&self.options.user, &self.options.password) {
            (Some((name, password)), _) => format!("{name}:{password}@"),
            (None, Some(password)) => format!(":{password}@"),
            (None, None) => String::new(),
        };
        format!("redis://{login}127.0.0.1:{port}")
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// The port where it speaks TLS.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn tls_port(&self) -> u16 {
        self.tls.as_ref().expect("a server that was started with `RedisOptions::tls`").number()
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "rediss" } else { "redis" }
    }

    /// The port that other servers know it by.
    pub(super) fn known_port(&self) -> u16 {
        self.tls.as_ref().map_or(self.port(), Port::number)
    }

    /// Its address, as text.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Stops it in its tracks: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.daemon.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.daemon.signal("CONT");
    }

    /// Kills it; everything that it held is lost.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Kills it if it runs, and starts it again on the same port, empty.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn restart(&mut self) {
        for _ in 0..1000 {
            if self.run().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("port {} was taken meanwhile", self.port());
    }

    /// Sends one command with the credentials of [`RedisServer::url`], and gives the raw reply.
    ///
    /// Enough to set up a test, not a client.
    ///
    /// # Errors
    ///
    /// When the server is not there, or does not answer within ten seconds.
    pub async fn command<P: AsRef<[u8]>>(&self, parts: &[P]) -> std::io::Result<Vec<u8>> {
        command_at(self.port(), &self.options, parts).await
    }

    /// Waits until so many replicas have all that was written to it so far, whoever wrote it. (`WAIT` speaks of what
    /// was written over its own connection only.)
    ///
    /// # Panics
    ///
    /// When the server is not there, or after a minute.
    pub async fn replicated(&self, replicas: usize) {
        let written = offset(&self.replication().await, "master_repl_offset:").unwrap_or(0);
        for _ in 0..600 {
            let status = self.replication().await;
            let acknowledged = status.lines().filter(|line| {
                line.starts_with("slave") && offset(line, "offset=").is_some_and(|at| at >= written)
            });
            if acknowledged.count() >= replicas {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{replicas} replicas did not get in a minute what was written");
    }

    async fn replication(&self) -> String {
        let status = self.command(&["INFO", "replication"]).await;
        let status = status.unwrap_or_else(|error| panic!("INFO replication: {error}"));
        String::from_utf8_lossy(&status).into_owned()
    }

    pub(super) fn directory(&self) -> &Path {
        self.daemon.directory()
    }

    fn args(&self) -> Vec<String> {
        if self.options.sentinel {
            let file = self.daemon.directory().join("sentinel.conf").display().to_string();
            return vec![file, "--sentinel".to_owned()];
        }
        let (port, folder) = (self.port(), self.daemon.directory().display().to_string());
        let fixed = [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &folder,
            "--daemonize",
            "no",
        ];
        let fixed = fixed.map(str::to_owned);
        let tls =
            self.tls.iter().flat_map(|port| ["--tls-port".to_owned(), port.number().to_string()]);
        fixed.into_iter().chain(tls).chain(self.options.args.clone()).collect()
    }

    // False when the port was taken.
    pub(super) async fn run(&mut self) -> bool {
        let (port, args) = (self.port(), self.args());
        // Any answer but "loading" will do; credentials may be wrong on purpose.
        let ready = async || {
            let reply = command_at(port, &self.options, &["PING"]).await;
            reply.is_ok_and(|reply| !reply.starts_with(b"-LOADING"))
        };
        self.daemon.run(&args, ready).await
    }
}

const TLS_FILES: [(&str, &str); 3] = [
    ("tls-cert-file", "server.crt"),
    ("tls-key-file", "server.key"),
    ("tls-ca-cert-file", "ca.crt"),
];

fn binary() -> PathBuf {
    find(
        "LARDER_REDIS_SERVER",
        &["redis-server", "valkey-server"],
        "Install it with `apt-get install redis-server` or `brew install redis`",
    )
}

// The number after a name.
fn offset(status: &str, name: &str) -> Option<u64> {
    let (_, after) = status.split_once(name)?;
    after.split(|next: char| !next.is_ascii_digit()).next()?.parse().ok()
}

async fn command_at<P: AsRef<[u8]>>(
    port: u16,
    options: &RedisOptions,
    parts: &[P],
) -> std::io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let login = match (&options.user, &options.password) {
            (Some((name, password)), _) => vec!["AUTH", name, password],
            (None, Some(password)) => vec!["AUTH", password],
            (None, None) => Vec::new(),
        };
        if !login.is_empty() {
            send(&mut stream, &login).await?;
        }
        send(&mut stream, parts).await
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await?
}

async fn send<P: AsRef<[u8]>>(stream: &mut TcpStream, parts: &[P]) -> std::io::Result<Vec<u8>> {
    let mut request = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts {
        let part = part.as_ref();
        request.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        request.extend_from_slice(part);
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request).await?;
    let mut reply = Vec::new();
    while !whole(&reply) {
        if stream.read_buf(&mut reply).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(reply)
}

// Whether a reply has come to its end.
fn whole(reply: &[u8]) -> bool {
    end(reply).is_some()
}

// Where the first value of these bytes ends, if it does.
fn end(reply: &[u8]) -> Option<usize> {
    let line = reply.windows(2).position(|two| two == b"\r\n")?;
    let number = || std::str::from_utf8(&reply[1..line]).ok()?.parse::<usize>().ok();
    let mut at = line + 2;
    match reply[0] {
        // A length below zero stands for nothing.
        b'$' => at += number().map_or(0, |length| length + 2),
        b'*' => {
            for _ in 0..number().unwrap_or(0) {
                at += end(reply.get(at..)?)?;
            }
        }
        _ => {}
    }
    (reply.len() >= at).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_where_they_end() {
        for text in [
            "+OK\r\n",
            "$-1\r\n",
            "$3\r\na\rb\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n:1\r\n*1\r\n$1\r\nx\r\n",
        ] {
            assert_eq!(end(text.as_bytes()), Some(text.len()), "{text:?}");
            for cut in 0..text.len() {
                assert!(!whole(&text.as_bytes()[..cut]), "{text:?} cut after {cut}");
            }
        }
    }
}
