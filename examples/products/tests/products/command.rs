//! The command line, as the binary itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use larder_testkit::servers::RedisServer;
use products::database::Database;
use serde_json::Value;

fn products(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_products"));
    command.args(args).stdin(Stdio::null());
    command
}

// What a command that ends by itself says.
fn run(args: &[&str]) -> (Output, String, String) {
    let output = products(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

fn fails(args: &[&str], words: &[&str]) -> String {
    let (output, out, err) = run(args);
    assert!(!output.status.success(), "{args:?}: {out}");
    for words in words {
        assert!(err.contains(words), "{args:?} does not say {words:?}: {err}");
    }
    assert!(!err.contains("panicked"), "{err}");
    err
}

fn small(folder: &Path) -> String {
    let path = folder.join("small.db");
    Database::open_with(&path, 120).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_tells_of_every_option() {
    let (output, out, _) = run(&["--help"]);
    assert!(output.status.success());
    for words in
        ["--cache <URL>", "--listen <ADDR>", "--database <PATH>", "measure", "redis://", "none"]
    {
        assert!(out.contains(words), "{words}: {out}");
    }
    let (output, out, _) = run(&["measure", "--help"]);
    assert!(output.status.success());
    for words in ["--seconds", "--connections", "--json", "--cache <URL>"] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[test]
fn wrong_options_are_told() {
    fails(&["--cahce", "none"], &["unexpected argument '--cahce'", "--cache"]);
    fails(&["--listen", "3000"], &["127.0.0.1:3000"]);
    fails(&["mesure"], &["unrecognized subcommand", "measure"]);
    fails(&["measure", "--seconds", "0"], &["from 0.01"]);
    fails(&["measure", "--connections", "0"], &["--connections"]);
    fails(&["measure", "--cache", "none"], &["without and with a cache"]);
}

#[test]
fn a_wrong_cache_url_is_explained_and_not_repeated() {
    for (url, words) in [
        ("redis://user:hunter2@127.0.0.1:1/0", "needs a namespace"),
        ("memcached://user:hunter2@127.0.0.1/?namespace=shop", "log in"),
        ("memcached://127.0.0.1:1,hunter2", "needs a namespace"),
        ("mysql://user:hunter2@127.0.0.1/", "memory://, redis://"),
        ("redis://user:hunter2@[::x/?namespace=shop", "cannot be read"),
        ("hunter2", "not a URL"),
        ("memory://?max_bytes=hunter2", "number of bytes"),
        ("memory://?hunter2=1", "max_bytes"),
        ("redis://user:hunter2@127.0.0.1:1/0?namespace=shop", "--cache"),
    ] {
        let err = fails(&["--cache", url], &[words, "--cache none"]);
        assert!(!err.contains("hunter2"), "{url}: {err}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_repeated() {
    let server = RedisServer::options().password("right").start().await;
    let url = format!("redis://:hunter2@{}/0?namespace=shop", server.address());
    let err = fails(&["--cache", &url], &["--cache"]);
    assert!(!err.contains("hunter2") && !err.contains("right"), "{err}");
}

#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&["--listen", &address], &[&address, "in use", "--listen 127.0.0.1:"]);
}

#[test]
fn a_file_that_is_no_database_of_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("letter.txt");
    std::fs::write(&text, "Dear Ada, this is not a database, and it is long enough to see.")
        .unwrap();
    let foreign = folder.path().join("foreign.db");
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection
        .execute_batch("CREATE TABLE precious (id); INSERT INTO precious VALUES (1)")
        .unwrap();
    drop(connection);
    for path in [&text, &foreign, &folder.path().join("no/such/folder.db")] {
        let before = std::fs::read(path).ok();
        let path_text = path.to_str().unwrap();
        fails(
            &["--listen", "127.0.0.1:0", "--database", path_text],
            &["cannot use", path_text, "--database PATH"],
        );
        assert!(std::fs::read(path).ok() == before, "{path_text} was changed");
    }
}

/// A child that does not outlive its test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_says_where_and_stops_on_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = products(&["--listen", "127.0.0.1:0", "--database", &small(folder.path())]);
    let mut served = Served(served.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(served.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("120 products in "));
    let line = lines.next().unwrap();
    let address = line.strip_prefix("Listening on http://").unwrap().split(' ').next().unwrap();
    let curls: Vec<String> =
        lines.by_ref().skip(2).take(6).filter(|line| line.starts_with("  curl ")).collect();
    assert_eq!(curls.len(), 5, "{curls:?}");
    assert!(curls.iter().all(|curl| curl.contains(address)), "{curls:?}");

    // An open connection that says nothing must not keep it.
    let idle = std::net::TcpStream::connect(address).unwrap();
    let status = Command::new("kill").args(["-INT", &served.0.id().to_string()]).status().unwrap();
    assert!(status.success());
    let until = Instant::now() + Duration::from_secs(20);
    let ended = loop {
        if let Some(ended) = served.0.try_wait().unwrap() {
            break ended;
        }
        assert!(Instant::now() < until, "it does not stop");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success());
    drop(idle);
}

// What a browser would be given: the whole response, as text.
fn page(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[tokio::test]
async fn it_serves_from_the_server_that_the_command_line_names() {
    let server = RedisServer::start().await;
    let limits = "response_timeout=60s&read_budget=60s&write_budget=60s";
    let cache = format!("{}/0?namespace=products&{limits}", server.url());
    let folder = tempfile::tempdir().unwrap();
    let database = small(folder.path());
    let args = ["--listen", "127.0.0.1:0", "--database", &database, "--cache", &cache];
    // A second process finds what the first one has stored.
    for is_first in [true, false] {
        let mut served = Served(products(&args).stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(served.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = lines.skip_while(|line| !line.starts_with("Listening on "));
        let line = lines.next().unwrap();
        let address = line.strip_prefix("Listening on http://").unwrap().split(' ').next().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let response = page(address, "/api/products/7");
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
            assert!(response.contains("\"id\":7,"), "{response}");
            if response.contains("cache-status: products; hit") {
                break;
            }
            // The client of a miss does not wait for the store.
            assert!(is_first && Instant::now() < until, "it is not cached there: {response}");
        }
    }
    let keys = server.command(&["DBSIZE"]).await.unwrap();
    assert_ne!(keys, b":0\r\n", "it lies on that server");
}

#[test]
fn a_second_start_finds_what_the_first_one_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.db");
    for expected in ["Filling", ""] {
        let mut command = products(&["--listen", "127.0.0.1:0", "--database"]);
        command.arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut served = Served(command.spawn().unwrap());
        let mut first = String::new();
        let mut out = BufReader::new(served.0.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        assert!(first.starts_with("10000 products in "), "{first}");
        served.0.kill().unwrap();
        let mut err = String::new();
        served.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(err.starts_with(expected) && err.is_empty() == expected.is_empty(), "{err}");
    }
}

#[test]
fn measure_compares_every_page() {
    let folder = tempfile::tempdir().unwrap();
    let database = small(folder.path());
    // A busy machine may answer nothing in so short a time, and is told to take longer.
    let measured = |more: &[&str]| {
        let of = |seconds| {
            ["measure", "--seconds", seconds, "--connections", "4", "--database", &database]
        };
        let short = run(&[&of("0.3"), more].concat());
        match short.2.contains("give it more --seconds") {
            true => run(&[&of("5"), more].concat()),
            false => short,
        }
    };
    let (output, out, err) = measured(&["--json"]);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("[14/14] home page, with the cache"), "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let pages = report["pages"].as_array().unwrap();
    let names: Vec<_> = pages.iter().map(|page| page["page"].as_str().unwrap()).collect();
    let lists = ["list, page 1", "list, page 3", "list, all pages"];
    assert_eq!(names[..3], lists);
    assert_eq!(names[3..], ["detail", "search", "featured", "home page"]);
    for page in pages {
        for side in ["before", "after"] {
            for number in ["requests", "requests_per_second", "p50_ms", "p99_ms"] {
                assert!(page[side][number].as_f64() > Some(0.0), "{page}");
            }
        }
    }
    assert_eq!(pages[2]["paths"], 3);
    assert!(report["overall"]["ratio"].as_f64() > Some(1.0), "{report}");

    let (output, out, err) = measured(&[]);
    assert!(output.status.success(), "{err}");
    let head = out.lines().next().unwrap();
    assert_eq!(head.matches('|').count(), 7, "{out}");
    assert!(out.contains("| equal parts of all "), "{out}");
}
