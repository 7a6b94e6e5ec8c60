//! Serving until Ctrl-C.

use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::options::Options;
use crate::users::Users;

// Open requests get that long to end once Ctrl-C was pressed, and what they changed to be saved.
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
    let cache = options.connect().await?;
    let sessions = crate::sessions(&cache, options.https).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        let free = "Listen elsewhere, for instance --listen 127.0.0.1:0 for any port that is free";
        format!("cannot listen on {}: {error}\n\n  {free}", options.listen)
    })?;
    let users = Users::open(&options.database).map_err(|error| {
        let other = "Name another file with --database PATH";
        format!("cannot use {} for the users: {error}\n\n  {other}", options.database.display())
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // From here on a signal does not kill any more.
    let interrupted =
        interrupted().map_err(|error| format!("cannot listen for Ctrl-C: {error}"))?;
    println!("Users in {}, sessions: {}", options.database.display(), options.store_name());
    println!("Listening on http://{address}  (Ctrl-C stops)");
    println!("\nOpen it in two browsers, register, log in with both, and look at Devices.");

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let mut waiting = stopped.clone();
    tokio::spawn(async move {
        interrupted.await;
        let _ = stop.send(true);
    });
    let app = crate::app(users, sessions.clone());
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = waiting.wait_for(|stop| *stop).await;
    });
    let late = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving.into_future() => served.map_err(|error| format!("cannot serve: {error}"))?,
        () = late => {}
    }
    // What was changed for clients that have left is saved, too.
    let _ = tokio::time::timeout(GRACE, sessions.drained()).await;
    Ok(())
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
