use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::daemon::Daemon;
use super::process::find_in;

/// How a [`PostgresServer`] is started.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    settings: Vec<String>,
}

impl PostgresOptions {
    /// One setting of `postgresql.conf`: `setting("max_connections", "10")`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.extend(["-c".to_owned(), format!("{name}={value}")]);
        self
    }

    /// Starts a server so.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start(self) -> PostgresServer {
        let installed = Installed::find();
        for _ in 0..10 {
            let daemon = Daemon::new("postgres", &installed.starter()).ended_by("QUIT");
            installed.fill(daemon.directory());
            let installed = installed.clone();
            let mut server = PostgresServer { daemon, options: self.clone(), installed };
            if server.run().await {
                return server;
            }
        }
        panic!("somebody takes every port before the server does");
    }
}

/// A PostgreSQL server of one's own, on a free port of 127.0.0.1, with the superuser `larder`.
///
/// `LARDER_POSTGRES_SERVER` names the binary `postgres`; otherwise it is looked for on the path and where Debian puts it,
/// `initdb` beside it. It refuses to be root: when the tests are, it runs as the user `postgres`. Making a server's
/// directory takes seconds, so the first test of a machine makes a template in the temporary directory, and the others
/// copy it.
///
/// ```no_run
/// # #[tokio::main]
/// # async fn main() {
/// use larder_testkit::servers::PostgresServer;
///
/// let server = PostgresServer::start().await;
/// println!("{}", server.url());
/// server.freeze(); // accepts connections, and answers nothing
/// server.thaw();
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    daemon: Daemon,
    options: PostgresOptions,
    installed: Installed,
}

impl PostgresServer {
    /// Starts one that does not wait for the disk.
    ///
    /// # Panics
    ///
    /// When no server is installed, or it does not start.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// Starts with options.
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// Where it listens, credentials included: `postgres://larder:…@127.0.0.1:40000/postgres`.
    pub fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// The same, through something that listens on another port of this machine, such as a
    /// [`FaultProxy`](crate::proxy::FaultProxy).
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres")
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// Its address, as text.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Stops it in its tracks, with the processes that serve its connections: those stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.daemon.signal("STOP");
        for child in self.daemon.children() {
            signal("STOP", child);
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        for child in self.daemon.children() {
            signal("CONT", child);
        }
        self.daemon.signal("CONT");
    }

    /// Ends it at once, as a crash would: what runs is not finished, what was committed is kept.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Kills it if it runs, and starts it again on the same port, with the same data.
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

    // False when the port was taken.
    async fn run(&mut self) -> bool {
        self.kill();
        let port = self.port();
        let data = self.daemon.directory().join(DATA);
        let _ = fs::remove_file(data.join("postmaster.pid"));
        let mut args = self.installed.before();
        args.extend(["-D".to_owned(), data.display().to_string()]);
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port.to_string()),
            ("unix_socket_directories", ""),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("synchronous_commit", "off"),
            ("shared_buffers", "16MB"),
            ("max_wal_size", "64MB"),
            ("jit", "off"),
            ("logging_collector", "off"),
        ];
        for (name, value) in fixed {
            args.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        args.extend(self.options.settings.clone());
        self.daemon.run(&args, async || ready(port).await.unwrap_or(false)).await
    }
}

// Whether it answers the beginning of a log-in by asking for a password, and not by saying that it is still starting.
async fn ready(port: u16) -> std::io::Result<bool> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let parameters = format!("user\0{USER}\0database\0postgres\0\0");
        let mut hello = (parameters.len() as u32 + 8).to_be_bytes().to_vec();
        hello.extend_from_slice(&196_608_u32.to_be_bytes()); // protocol 3.0
        hello.extend_from_slice(parameters.as_bytes());
        stream.write_all(&hello).await?;
        Ok(stream.read_u8().await? == b'R')
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await?
}

// The programs, and how they are called.
#[derive(Clone, Debug)]
struct Installed {
    postgres: PathBuf,
    // Another user for them, since they refuse to be root.
    user: Option<String>,
}

impl Installed {
    fn find() -> Self {
        // Debian keeps several versions side by side, none of them on the path.
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .collect();
        versions.sort();
        versions.reverse();
        let postgres = find_in(
            "LARDER_POSTGRES_SERVER",
            &["postgres"],
            &versions,
            "Install it with `apt-get install postgresql` or `brew install postgresql`",
        );
        let user = Command::new("id").arg("-u").output();
        let root = user.is_ok_and(|user| user.stdout.trim_ascii() == b"0");
        // What is on the path may be a link; `initdb` lies beside what it leads to.
        let postgres = fs::canonicalize(&postgres).unwrap_or(postgres);
        Installed { postgres, user: root.then(|| "postgres".to_owned()) }
    }

    fn starter(&self) -> PathBuf {
        match self.user {
            Some(_) => PathBuf::from("setpriv"),
            None => self.postgres.clone(),
        }
    }

    // Arguments of the starter that come first.
    fn before(&self) -> Vec<String> {
        self.program(&self.postgres).split_off(1)
    }

    // A program and its arguments so far, as the user that runs it. `setpriv` becomes the program; others wait for it.
    fn program(&self, program: &Path) -> Vec<String> {
        let program = program.display().to_string();
        match &self.user {
            Some(user) => vec![
                "setpriv".to_owned(),
                format!("--reuid={user}"),
                format!("--regid={user}"),
                "--clear-groups".to_owned(),
                "--".to_owned(),
                program,
            ],
            None => vec![program],
        }
    }

    // Puts a new server's data into a directory.
    fn fill(&self, directory: &Path) {
        let template = self.template();
        let data = directory.join(DATA);
        run(&["cp", "-R", &template.display().to_string(), &data.display().to_string()]);
        if let Some(user) = &self.user {
            // The directory above is made for its owner alone on some systems.
            run(&["chmod", "755", &directory.display().to_string()]);
            run(&["chown", "-R", &format!("{user}:"), &data.display().to_string()]);
        }
        run(&["chmod", "700", &data.display().to_string()]);
    }

    // The directory that others are copied from; made once for a machine, a version and a user.
    fn template(&self) -> PathBuf {
        let version = Command::new(&self.postgres).arg("--version").output();
        let version = version.map(|output| output.stdout).unwrap_or_default();
        let version: String = String::from_utf8_lossy(&version)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
            .collect();
        let me = Command::new("id").arg("-u").output().map(|output| output.stdout);
        let me = String::from_utf8_lossy(&me.unwrap_or_default()).trim().to_owned();
        let home = std::env::temp_dir().join(format!("larder-postgres-{me}"));
        fs::create_dir_all(&home).expect("a temporary directory can be made");
        let template = home.join(format!("{}-{FORMAT}", version.trim_end_matches('-')));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(home.join("lock"))
            .expect("a lock's file can be made");
        lock.lock().expect("a file can be locked");
        // What is there under this name is whole: it was renamed.
        if !template.exists() {
            self.make(&home, &template);
        }
        template
    }

    fn make(&self, home: &Path, template: &Path) {
        let begun = home.join(format!("begun-{:016x}", rand::random::<u64>()));
        fs::create_dir(&begun).expect("a temporary directory can be made");
        let (data, password) = (begun.join(DATA), begun.join("password"));
        fs::write(&password, PASSWORD).expect("a file can be written");
        if let Some(user) = &self.user {
            run(&["chmod", "755", &home.display().to_string(), &begun.display().to_string()]);
            run(&["chown", "-R", &format!("{user}:"), &begun.display().to_string()]);
        }
        let mut program = self.program(&self.postgres.with_file_name("initdb"));
        program.extend(["-D".to_owned(), data.display().to_string()]);
        program.extend([format!("--username={USER}"), format!("--pwfile={}", password.display())]);
        let fixed = [
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--wal-segsize=1",
        ];
        program.extend(fixed.map(str::to_owned));
        run(&program.iter().map(String::as_str).collect::<Vec<_>>());
        fs::rename(&data, template).expect("a directory can be renamed");
        let _ = fs::remove_dir_all(&begun);
    }
}

fn run(program: &[&str]) {
    let done = Command::new(program[0]).args(&program[1..]).output();
    let done = done.unwrap_or_else(|error| panic!("{} does not start: {error}", program[0]));
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{} fails: {errors}", program[0]);
}

fn signal(name: &str, process: u32) {
    // It may have ended by itself meanwhile.
    let _ = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).output();
}

const USER: &str = "larder";

const PASSWORD: &str = "for-tests";

const DATA: &str = "data";

// Another number makes another template.
const FORMAT: u32 = 1;
