//! `cargo run --release -p pages`: the smallest cached Axum application. `scripts/bench-servers` measures it.
// It is a program: what it has to say goes to its terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::process::ExitCode;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Parser;
use larder::Cache;
use larder::http::CacheLayer;
use tokio::net::TcpListener;

const EXAMPLES: &str = "\
Examples:
  pages                     cached, in memory
  pages --bare              the same without the layer
  curl -i http://127.0.0.1:8004/pages/1024";

/// Pages of any size, cached for an hour.
#[derive(Debug, Parser)]
#[command(name = "pages", version, after_help = EXAMPLES)]
struct Options {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8004")]
    listen: SocketAddr,

    /// Without the cache
    #[arg(long)]
    bare: bool,
}

/// The largest page.
const MOST: usize = 1024 * 1024;

async fn page(Path(bytes): Path<usize>) -> impl IntoResponse {
    if bytes > MOST {
        return Err((StatusCode::BAD_REQUEST, format!("a page has at most {MOST} bytes\n")));
    }
    let fields = [(CACHE_CONTROL, "public, max-age=3600"), (CONTENT_TYPE, "text/plain")];
    Ok((fields, "larder ".chars().cycle().take(bytes).collect::<String>()))
}

fn pages(cache: Option<&Cache>) -> Router {
    let pages = Router::new().route("/pages/{bytes}", get(page));
    match cache {
        Some(cache) => pages.layer(CacheLayer::new(cache).cache_status("pages")),
        None => pages,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    match serve(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("{words}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &Options) -> Result<(), String> {
    let cache = Cache::connect("memory://?max_bytes=64MiB").await.map_err(|e| e.to_string())?;
    let app = pages(Some(&cache).filter(|_| !options.bare));
    let listen = options.listen;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|e| format!("cannot listen on {listen}: {e}; try --listen"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    println!("Listening on http://{address}: try curl -i http://{address}/pages/1024");
    let stop = async {
        // Without it, whoever started this has other means.
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_page_is_a_hit_the_second_time_and_never_without_the_layer() {
        let cache = Cache::memory();
        for (app, told) in [
            (pages(Some(&cache)), [Some("fwd=uri-miss"), Some("; hit;")]),
            (pages(None), [None, None]),
        ] {
            for told in told {
                let request =
                    Request::get("http://pages.example/pages/1024").body(Body::empty()).unwrap();
                let response = app.clone().oneshot(request).await.unwrap();
                let status = response.headers().get("cache-status");
                let status = status.map(|status| status.to_str().unwrap().to_owned());
                match told {
                    Some(told) => assert!(status.unwrap().contains(told)),
                    None => assert_eq!(status, None),
                }
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1024);
            }
        }
        let request =
            Request::get("http://pages.example/pages/99999999").body(Body::empty()).unwrap();
        let response = pages(None).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}
