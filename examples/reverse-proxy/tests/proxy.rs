//! The proxy before real connections: what goes through, what is answered, and what a person sees who mistypes.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::Parser;
use hyper_util::server::graceful::GracefulShutdown;
use larder::Cache;
use reverse_proxy::options::Options;
use reverse_proxy::origin::Origin;
use reverse_proxy::serve::accept;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An origin that answers each connection's one request with these bytes, and keeps what it was sent.
struct Site {
    proxy: String,
    sent: Arc<parking_lot::Mutex<Vec<String>>>,
    calls: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
}

async fn site(answer: &'static str, flags: &[&str]) -> Site {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", origin.local_addr().unwrap());
    let (sent, calls) =
        (Arc::<parking_lot::Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
    let up = Arc::new(AtomicBool::new(true));
    let (keeping, counting, upping) = (sent.clone(), calls.clone(), up.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = origin.accept().await {
            let (sent, calls, up) = (keeping.clone(), counting.clone(), upping.clone());
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !is_whole(&request) {
                    let mut bytes = [0; 4096];
                    match stream.read(&mut bytes).await {
                        Ok(1..) => {}
                        _ => return,
                    }
                    request.extend(bytes.iter().copied().take_while(|byte| *byte != 0));
                }
                calls.fetch_add(1, Ordering::SeqCst);
                sent.lock().push(String::from_utf8(request).unwrap());
                if up.load(Ordering::SeqCst) {
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    let options = [&["reverse-proxy", "--origin", &url][..], flags].concat();
    let options = Options::try_parse_from(options).unwrap();
    let cache = Cache::connect(&options.cache).await.unwrap();
    let to = Origin::new(&options.origin, options.preserve_host, options.timeout);
    let proxy = reverse_proxy::proxy(&cache, &options, to);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { accept(listener, proxy, &GracefulShutdown::new()).await });
    Site { proxy: address, sent, calls, up }
}

// Whether a request has come to its end: its head, and what that says comes behind it.
fn is_whole(request: &[u8]) -> bool {
    let request = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, content)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    content.len() >= length.map_or(0, |length| length.parse().unwrap())
}

impl Site {
    /// What comes back for these bytes, up to the connection's end.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.proxy).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, target: &str) -> String {
        self.raw(&format!(
            "GET {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

const FRESH: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nX-Kept: \u{e9}\r\n\r\nhello";

#[tokio::test]
async fn a_response_goes_through_once_and_comes_from_the_cache_then() {
    let site = site(FRESH, &[]).await;
    let first = site.get("/a%20b?q=1").await;
    assert!(
        first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("\r\n\r\nhello"),
        "{first}"
    );
    assert!(first.contains("cache-status: larder; fwd=uri-miss"), "{first}");
    assert!(first.contains("x-kept: \u{e9}\r\n") && !first.contains("x-hop"), "{first}");
    assert!(!first.contains("\r\nage:"), "nothing is made up on a miss: {first}");
    let second = site.get("/a%20b?q=1").await;
    assert!(
        second.contains("cache-status: larder; hit") && second.contains("\r\nage: 0\r\n"),
        "{second}"
    );
    assert_eq!(site.calls.load(Ordering::SeqCst), 1);
    let sent = site.sent.lock()[0].clone();
    assert!(sent.starts_with("GET /a%20b?q=1 HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("via: 1.1 larder\r\n") && !sent.contains("shop.example"), "{sent}");
}

#[tokio::test]
async fn large_files_come_in_chunks_out_of_a_folder_and_ranges_of_them() {
    // Three chunks, of which the second one begins in the middle of a number.
    let film: String = (0..200_000).map(|number| format!("{number:06} ")).collect();
    let length = film.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{film}"
    );
    let folder = tempfile::tempdir().unwrap();
    let cache = format!("file://{}?namespace=films", folder.path().display());
    let flags = ["--cache", &cache, "--max-body", "1000", "--max-chunked", "10000000"];
    let site = site(answer.leak(), &flags).await;
    let first = site.get("/film").await;
    assert!(first.ends_with(&film) && first.contains("; stored"), "{}", &first[..300]);
    // The client does not wait for the store.
    let mut second = site.get("/film").await;
    while !second.contains("larder; hit") {
        second = site.get("/film").await;
    }
    assert!(second.ends_with(&film) && second.contains(&format!("content-length: {length}\r\n")));
    let calls = site.calls.load(Ordering::SeqCst);
    let part = site
        .raw("GET /film HTTP/1.1\r\nHost: shop.example\r\nRange: bytes=524280-524300\r\nConnection: close\r\n\r\n")
        .await;
    assert!(part.starts_with("HTTP/1.1 206 "), "{part}");
    assert!(part.ends_with(&film[524_280..=524_300]), "{part}");
    assert_eq!(site.calls.load(Ordering::SeqCst), calls);
}

#[tokio::test]
async fn a_query_is_answered_by_its_content() {
    let site = site(FRESH, &[]).await;
    let ask = async |content: &str| {
        let length = content.len();
        site.raw(&format!(
            "QUERY /books HTTP/1.1\r\nHost: shop.example\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{content}"
        ))
        .await
    };
    let first = ask("by Ada").await;
    assert!(first.contains("larder; fwd=uri-miss") && first.ends_with("hello"), "{first}");
    let again = ask("by Ada").await;
    assert!(again.contains("larder; hit") && again.ends_with("hello"), "{again}");
    let other = ask("by Bob").await;
    assert!(other.contains("larder; fwd=uri-miss"), "{other}");
    let sent = site.sent.lock();
    assert_eq!(sent.len(), 2);
    assert!(sent[0].starts_with("QUERY /books") && sent[0].ends_with("\r\n\r\nby Ada"), "{sent:?}");
}

#[tokio::test]
async fn an_old_origin_does_not_make_the_proxy_old() {
    let old = "HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello";
    let site = site(old, &[]).await;
    for _ in 0..2 {
        let got = site.get("/").await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("hello"), "{got}");
    }
}

#[tokio::test]
async fn the_clients_host_goes_along_if_asked_to() {
    let site = site(FRESH, &["--preserve-host"]).await;
    site.get("/").await;
    assert!(site.sent.lock()[0].contains("host: shop.example\r\n"));
}

#[tokio::test]
async fn http_2_comes_in() {
    let site = site(FRESH, &[]).await;
    let stream = TcpStream::connect(&site.proxy).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let request = http::Request::get("http://shop.example/")
            .body(http_body_util::Empty::<bytes::Bytes>::new());
        let response = client.send_request(request.unwrap()).await.unwrap();
        assert_eq!(
            (response.status(), response.version()),
            (http::StatusCode::OK, http::Version::HTTP_2)
        );
    }
    assert_eq!(site.calls.load(Ordering::SeqCst), 1);
    assert!(site.sent.lock()[0].contains("via: 2 larder\r\n"));
}

#[tokio::test]
async fn hints_go_ahead_of_their_response_and_are_not_stored() {
    let site = site(
        "HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\nConnection: x-hop\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
        &[],
    )
    .await;
    let first = site.get("/").await;
    assert!(
        first.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </s.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{first}"
    );
    let second = site.get("/").await;
    assert!(second.starts_with("HTTP/1.1 200 OK\r\n") && !second.contains("link"), "{second}");
    // HTTP/1.0 knows none.
    let old = site.raw("GET /old HTTP/1.0\r\nHost: shop.example\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
}

#[tokio::test]
async fn an_origin_that_hangs_up_is_a_stale_response_or_504_and_is_asked_once() {
    let stale = "HTTP/1.1 200 OK\r\nCache-Control: max-age=1\r\nAge: 1\r\nETag: \"v\"\r\nContent-Length: 5\r\n\r\nhello";
    let site = site(stale, &[]).await;
    site.get("/").await;
    site.up.store(false, Ordering::SeqCst);
    let stood_in = site.get("/").await;
    assert!(stood_in.starts_with("HTTP/1.1 200 OK\r\n"), "{stood_in}");
    assert!(stood_in.contains("detail=stale-if-error"), "{stood_in}");
    let calls = site.calls.load(Ordering::SeqCst);
    let gone = site.get("/other").await;
    assert!(gone.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{gone}");
    assert_eq!(site.calls.load(Ordering::SeqCst), calls + 1, "nothing is tried twice");
    let post = site
        .raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        .await;
    assert!(post.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{post}");
    assert_eq!(site.calls.load(Ordering::SeqCst), calls + 2);
}

#[tokio::test]
async fn what_is_no_request_for_a_proxy_is_refused() {
    let site = site(FRESH, &[]).await;
    let connect = site.raw("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nConnection: close\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 405 "), "{connect}");
    assert_eq!(site.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn a_wrong_flag_says_what_to_write() {
    let program = env!("CARGO_BIN_EXE_reverse-proxy");
    for (flags, words) in [
        (&[][..], "--origin"),
        (&["--origin", "127.0.0.1:8000"], "http://127.0.0.1:8000"),
        (&["--origin", "http://127.0.0.1:8000/path"], "scheme, host and port"),
        (&["--origin", "http://user:pw@127.0.0.1:8000"], "scheme, host and port"),
        (&["--origin", "http://a", "--listen", "nowhere"], "127.0.0.1:8002"),
        (&["--origin", "http://a", "--profile", "strict"], "rfc9111"),
        (&["--origin", "http://a", "--timeout", "0"], "whole seconds"),
        (&["--origin", "http://a", "--cache", "redis://:secret@127.0.0.1:1/0"], "--cache"),
        (&["--origin", "http://a", "--cache", "nothing"], "memory://"),
    ] {
        let run = Command::new(program).args(flags).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && said.contains(words), "{flags:?}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
