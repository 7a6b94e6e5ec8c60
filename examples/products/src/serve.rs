//! Serving until Ctrl-C.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::database::Database;
use crate::options::Options;
use crate::shop::Shop;

// Open requests get that long to end once Ctrl-C was pressed.
const GRACE: Duration = Duration::from_secs(5);

/// Serves as the options say, until Ctrl-C.
///
/// # Errors
///
/// Words that say what is wrong and what to do.
pub fn run(options: &Options) -> Result<(), String> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Only fails if there is one already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let served = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(options: &Options) -> Result<(), String> {
    // What may be wrong with the command line comes first, and the database, which may have to be filled, last.
    let cache = options.connect().await?;
    let listener = bind(options.listen).await?;
    let path = options.database.as_deref().unwrap_or(Path::new("products.db"));
    let database = open(path)?;
    let count = database.count().await.map_err(|problem| problem.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (stopping, giving_up) = (stop()?, stop()?);
    println!("{count} products in {}, cache: {}", path.display(), options.cache_name());
    println!("Listening on http://{address}  (Ctrl-C stops)\n\n{}", examples(address));

    let serving = serve_app(listener, app(Shop::new(database, cache)), stopping);
    let late = async {
        giving_up.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served.map_err(|error| format!("cannot serve: {error}")),
        () = late => Ok(()),
    }
}

/// Serves on a listener until `stop`.
pub(crate) async fn serve_app(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Without this, small answers may wait for the client's acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

/// Opens the database, with words for people.
pub(crate) fn open(path: &Path) -> Result<Database, String> {
    if !path.exists() {
        eprintln!("Filling {} with products, once …", path.display());
    }
    Database::open(path).map_err(|error| {
        format!(
            "cannot use {} as the database: {error}\n\n  Name another file with --database PATH",
            path.display()
        )
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another program\n\n  Stop that one, or listen elsewhere: \
             --listen {}:{}",
            address.ip(),
            address.port().wrapping_add(1).max(1024)
        ),
        _ => format!(
            "cannot listen on {address}: {error}\n\n  Write for instance --listen 127.0.0.1:3000"
        ),
    })
}

fn examples(at: SocketAddr) -> String {
    format!(
        "Try, and watch Cache-Status:

  curl -i 'http://{at}/api/products/?page=1'         # twice: miss, then hit
  curl -i  http://{at}/api/products/9999
  curl -i 'http://{at}/api/search?q=teapot'
  curl -i  http://{at}/api/products/featured
  curl -i -X PUT http://{at}/api/products/9999 -H 'Content-Type: application/json' -d '{{\"name\": \"Golden \
         Teapot\", \"description\": \"Pours gold.\", \"category\": \"Kitchen\", \"price_cents\": 4990, \"stock\": 3}}'

The last one drops what shows product 9999, and nothing else. A home page is at http://{at}/"
    )
}

// Begins to listen for Ctrl-C and for what a supervisor sends; from here on they do not kill any more.
#[cfg(unix)]
fn stop() -> Result<impl Future<Output = ()> + Send + 'static, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for Ctrl-C: {error}"));
    let mut interrupted = listen(SignalKind::interrupt())?;
    let mut terminated = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop() -> Result<impl Future<Output = ()> + Send + 'static, String> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
