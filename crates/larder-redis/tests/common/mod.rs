//! A real server, and looks at it past the backend.
#![allow(dead_code)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use larder_core::{Generation, Key};
use larder_redis::{Builder, RedisBackend};
use redis::aio::MultiplexedConnection;

pub struct Server {
    child: Child,
    pub port: u16,
    dir: PathBuf,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(args: &[&str]) -> Self {
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = std::env::temp_dir().join(format!("larder-redis-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let child = Self::spawn(port, &dir, args);
            let mut server = Server { child, port, dir };
            if server.ready().await {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    fn spawn(port: u16, dir: &PathBuf, args: &[&str]) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    async fn ready(&mut self) -> bool {
        for _ in 0..300 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn builder(&self) -> Builder {
        RedisBackend::builder().url(&self.url()).unwrap()
    }

    pub async fn raw(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Under which name the backend keeps a key; makes the namespace's generation if there is none.
pub async fn wire_name(raw: &mut MultiplexedConnection, key: &Key) -> String {
    let place = format!("{}:generation", key.namespace());
    let new = Generation::random().to_string();
    let there: Option<String> =
        redis::cmd("SET").arg(&place).arg(&new).arg("NX").arg("GET").query_async(raw).await.unwrap();
    let generation = Generation::parse(&there.unwrap_or(new)).unwrap();
    key.as_ref().wire_name(generation)
}
