use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens before a server at that address, forwards to it, and keeps everything that was sent to it: a list of bytes for
/// each connection. Gives its port on this machine.
///
/// # Panics
///
/// When it finds no port.
pub async fn recorder(server: String) -> (u16, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    let sent: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let keep = sent.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.expect("the server is there");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let (keep, place) = (keep.clone(), {
                let mut all = keep.lock().expect("nobody panics with it");
                all.push(Vec::new());
                all.len() - 1
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    let bytes = &buffer[..count];
                    keep.lock().expect("nobody panics with it")[place].extend_from_slice(bytes);
                    if to_server.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, sent)
}
