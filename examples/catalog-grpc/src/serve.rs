//! Serving until Ctrl-C.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use larder::Cache;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing_subscriber::EnvFilter;

use crate::options::Serve;
use crate::proto::catalog_server::CatalogServer;
use crate::service::Service;
use crate::shelf::{PRODUCTS, Shelf};
use crate::{DESCRIPTORS, layer};

// Open calls get that long to end once Ctrl-C was pressed.
const GRACE: Duration = Duration::from_secs(5);

/// Serves as the options say, until Ctrl-C.
///
/// # Errors
///
/// Words that say what is wrong and what to do.
pub fn run(options: &Serve) -> Result<(), String> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Only fails if there is one already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let served = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(options: &Serve) -> Result<(), String> {
    let cache = options.connect().await?;
    let listener = bind(options.listen).await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let shelf = filled()?;
    let (stopping, giving_up) = (stop()?, stop()?);
    println!("{PRODUCTS} products, cache: {}", options.cache_name());
    println!("Listening on http://{address}  (Ctrl-C stops)\n\n{}", examples(address));
    let closing = shelf.clone();
    let stopping = async move {
        stopping.await;
        // Or those who watch would keep the server.
        closing.close();
    };
    let late = async {
        giving_up.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serve_shelf(listener, shelf, cache.as_ref(), stopping) => served,
        () = late => Ok(()),
    }
}

/// A full shelf, with words for people.
pub(crate) fn filled() -> Result<Shelf, String> {
    Shelf::new().map_err(|error| format!("cannot make the products: {error}"))
}

/// Serves a shelf on a listener until `stop`.
///
/// # Errors
///
/// Words that say why it cannot.
pub async fn serve_shelf(
    listener: TcpListener,
    shelf: Shelf,
    cache: Option<&Cache>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), String> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
    };
    let cannot = |error: &dyn std::error::Error| format!("cannot serve: {error}");
    let layer = cache.map(layer).transpose().map_err(|error| cannot(&error))?;
    // Clients ask for the one or the other version.
    let v1 = reflection().build_v1().map_err(|error| cannot(&error))?;
    let v1alpha = reflection().build_v1alpha().map_err(|error| cannot(&error))?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let catalog = CatalogServer::new(Service(shelf));
    let served = match layer {
        None => {
            let server = Server::builder().add_service(catalog);
            let server = server.add_service(v1).add_service(v1alpha);
            server.serve_with_incoming_shutdown(incoming, stop).await
        }
        Some(layer) => {
            let server = Server::builder().layer(layer).add_service(catalog);
            let server = server.add_service(v1).add_service(v1alpha);
            server.serve_with_incoming_shutdown(incoming, stop).await
        }
    };
    served.map_err(|error| cannot(&error))
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
            "cannot listen on {address}: {error}\n\n  Write for instance --listen 127.0.0.1:50051"
        ),
    })
}

fn examples(at: SocketAddr) -> String {
    format!(
        "Try, and watch cache-status:

  catalog-grpc get 7 --server http://{at}           # twice: miss, then hit
  catalog-grpc list Kitchen --server http://{at}
  catalog-grpc update 7 1999 --server http://{at}   # drops what shows product 7
  grpcurl -plaintext -v -d '{{\"id\": 7}}' {at} catalog.Catalog/Get"
    )
}

// Begins to listen for Ctrl-C and for what a supervisor sends; from here on they do not kill any more.
#[cfg(unix)]
pub(crate) fn stop() -> Result<impl Future<Output = ()> + Send + 'static, String> {
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
pub(crate) fn stop() -> Result<impl Future<Output = ()> + Send + 'static, String> {
    Ok(async {
        // Without it there is nothing to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
