//! Serving until Ctrl-C.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use larder::http::cache::ResponseBody;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tracing::Instrument;
use tracing_subscriber::EnvFilter;

use crate::Proxy;
use crate::hints::{Hinting, Hints};
use crate::options::Options;
use crate::origin::{NoAnswer, Origin};

// Open requests get that long to end once Ctrl-C was pressed.
const GRACE: Duration = Duration::from_secs(5);

/// Serves as the options say, until Ctrl-C.
///
/// # Errors
///
/// Words that say what is wrong and what to do.
pub fn run(options: &Options) -> Result<(), String> {
    let usual = if options.explain { "warn,larder_http=trace,reverse_proxy=debug" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    // Only fails if there is one already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(io::stderr)
        .try_init();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let served = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(options: &Options) -> Result<(), String> {
    let cache = options.connect().await?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        let free = "Listen elsewhere, for instance --listen 127.0.0.1:0 for any port that is free";
        format!("cannot listen on {}: {error}\n\n  {free}", options.listen)
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let origin = Origin::new(&options.origin, options.preserve_host, options.timeout);
    let proxy = crate::proxy(&cache, options, origin);
    // From here on a signal does not kill any more.
    let interrupted =
        interrupted().map_err(|error| format!("cannot listen for Ctrl-C: {error}"))?;
    println!("Listening on http://{address}  (Ctrl-C stops)");
    println!("Before {}, responses in {}", options.origin, options.store_name());
    println!("\nThe header Cache-Status of each response says what was done. Try\n");
    println!("  curl -si http://{address}/ | grep -i -e ^http -e ^cache-status -e ^age");

    let graceful = GracefulShutdown::new();
    let accepting = accept(listener, proxy, &graceful);
    tokio::select! {
        () = accepting => {}
        () = interrupted => {}
    }
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

/// Accepts connections for ever, and lets `graceful` end them.
pub async fn accept(listener: TcpListener, proxy: Proxy, graceful: &GracefulShutdown) {
    let server = auto::Builder::new(TokioExecutor::new());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, most likely: others must close some first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (stream, hints) = Hinting::<TcpStream>::new(stream);
        let proxy = proxy.clone();
        let service =
            service_fn(move |request| answer(proxy.clone(), request, hints.clone(), peer));
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

type Answer = Response<Either<ResponseBody<Incoming>, Full<Bytes>>>;

async fn answer(
    proxy: Proxy,
    mut request: Request<Incoming>,
    hints: Hints,
    peer: SocketAddr,
) -> Result<Answer, Infallible> {
    let span =
        tracing::info_span!("request", method = %request.method(), target = %request.uri(), %peer);
    if request.method() == Method::CONNECT {
        return Ok(words(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy"));
    }
    let hint = hints.open();
    if request.version() == Version::HTTP_11 {
        request.extensions_mut().insert(hint.clone());
    }
    let answered = proxy.oneshot(request).instrument(span).await;
    hint.close();
    Ok(match answered {
        Ok(response) => response.map(Either::Left),
        Err(NoAnswer { .. }) => words(StatusCode::GATEWAY_TIMEOUT, "the origin did not answer"),
    })
}

/// A response of the proxy's own.
fn words(status: StatusCode, words: &'static str) -> Answer {
    let mut response = Response::new(Either::Right(Full::from(format!("{words}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(unix)]
fn interrupted() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut pressed = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = pressed.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn interrupted() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
