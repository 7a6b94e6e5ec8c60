//! The program as it is served, and as it is called.

use std::process::{Command, Stdio};
use std::time::Duration;

use catalog_grpc::proto::catalog_client::CatalogClient;
use catalog_grpc::proto::{GetRequest, ListRequest, UpdateRequest, WatchRequest};
use catalog_grpc::serve::serve_shelf;
use catalog_grpc::shelf::Shelf;
use larder::Cache;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Response};

const PROGRAM: &str = env!("CARGO_BIN_EXE_catalog-grpc");

struct Served {
    client: CatalogClient<Channel>,
    shelf: Shelf,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<Result<(), String>>,
    address: std::net::SocketAddr,
}

async fn served() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shelf = Shelf::new().unwrap();
    let (stop, stopped) = oneshot::channel();
    let (own, closing) = (shelf.clone(), shelf.clone());
    let serving = tokio::spawn(async move {
        let stop = async move {
            let _ = stopped.await;
            closing.close();
        };
        serve_shelf(listener, own, Some(&Cache::memory()), stop).await
    });
    let client = CatalogClient::connect(format!("http://{address}")).await.unwrap();
    Served { client, shelf, stop, serving, address }
}

fn hit<T>(response: &Response<T>) -> bool {
    let verdict = response.metadata().get("cache-status").unwrap();
    verdict.to_str().unwrap().starts_with("catalog; hit")
}

#[tokio::test]
async fn an_update_drops_what_shows_the_product_and_nothing_else() {
    let mut served = served().await;
    let client = &mut served.client;
    let get = |id| GetRequest { id };
    let list = |category: &str| ListRequest { category: category.to_owned(), page: 0 };
    let before = client.get(get(7)).await.unwrap();
    assert!(!hit(&before));
    let category = before.get_ref().category.clone();
    client.get(get(8)).await.unwrap();
    client.list(list(&category)).await.unwrap();
    client.list(list("Music")).await.unwrap();
    assert_ne!(category, "Music");
    assert!(hit(&client.get(get(7)).await.unwrap()));
    assert!(hit(&client.list(list(&category)).await.unwrap()));

    let changed = client.update(UpdateRequest { id: 7, price_cents: 1 }).await.unwrap();
    assert_eq!(changed.get_ref().price_cents, 1);
    let after = client.get(get(7)).await.unwrap();
    assert_eq!((hit(&after), after.get_ref().price_cents), (false, 1));
    let page = client.list(list(&category)).await.unwrap();
    assert_eq!((hit(&page), page.get_ref().products[0].id), (false, 7));
    assert!(hit(&client.get(get(8)).await.unwrap()));
    assert!(hit(&client.list(list("Music")).await.unwrap()));
}

#[tokio::test]
async fn failures_are_told_and_not_stored() {
    let mut served = served().await;
    let client = &mut served.client;
    for _ in 0..2 {
        let unknown = client.get(GetRequest { id: 0 }).await.unwrap_err();
        assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "there is no product 0"));
        let request = ListRequest { category: "Shoes".to_owned(), page: 0 };
        assert_eq!(client.list(request).await.unwrap_err().code(), Code::InvalidArgument);
        let update = UpdateRequest { id: 0, price_cents: 1 };
        assert_eq!(client.update(update).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_stream_comes_as_it_is_made_and_ends_with_the_server() {
    let Served { mut client, shelf, stop, serving, .. } = served().await;
    let watching = WatchRequest { category: String::new() };
    let mut changes = client.watch(watching).await.unwrap().into_inner();
    for price_cents in [10, 20] {
        client.update(UpdateRequest { id: 7, price_cents }).await.unwrap();
        let change = changes.message().await.unwrap().unwrap();
        assert_eq!((change.id, change.price_cents), (7, price_cents));
    }
    assert!(shelf.watch().is_some());
    stop.send(()).unwrap();
    assert_eq!(changes.message().await.unwrap(), None);
    drop(client);
    serving.await.unwrap().unwrap();
}

fn program(arguments: &[&str]) -> (bool, String) {
    let done = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap();
    let words = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(words).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sub_commands_call_a_server() {
    let served = served().await;
    let server = format!("http://{}", served.address);
    let call = async |arguments: &[&str]| {
        let arguments: Vec<String> =
            arguments.iter().chain(&["--server", &server]).map(|one| (*one).to_owned()).collect();
        let calling = tokio::task::spawn_blocking(move || {
            program(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        });
        calling.await.unwrap()
    };
    let (_, first) = call(&["get", "7"]).await;
    let (good, second) = call(&["get", "7"]).await;
    assert!(good && first.contains("fwd=uri-miss; stored"), "{first}");
    assert!(second.contains("catalog; hit") && second.contains("thing 7"), "{second}");
    let (good, page) = call(&["list", "Kitchen", "--page", "2"]).await;
    assert!(good && page.contains("of 2000 in Kitchen"), "{page}");
    let (good, updated) = call(&["update", "7", "1999"]).await;
    assert!(good && updated.contains("19.99"), "{updated}");
    let (good, missing) = call(&["get", "0"]).await;
    assert!(!good && missing.contains("there is no product 0"), "{missing}");
}

#[test]
fn wrong_flags_are_answered_with_what_to_write() {
    for (arguments, words) in [
        (&["serve", "--listen", "here"][..], "127.0.0.1:50051"),
        (&["serve", "--cache", "memroy://"], "--cache 'memory://"),
        (&["bench", "--seconds", "0"], "from 0.01 to 600"),
        (&["bench", "--connections", "0"], "1..=1024"),
        (&["get", "7", "--server", "localhost"], "http://127.0.0.1:50051"),
        (&["get", "7", "--server", "http://127.0.0.1:1"], "catalog-grpc -- serve"),
        (&["buy"], "unrecognized subcommand"),
        (&[], "Usage: catalog-grpc"),
    ] {
        let (good, told) = program(arguments);
        assert!(!good && told.contains(words), "{arguments:?}: {told}");
    }
}

#[test]
fn the_bench_prints_before_and_after() {
    let (good, table) = program(&["bench", "--seconds", "0.1", "--connections", "2"]);
    assert!(good, "{table}");
    for method in ["| Get |", "| List |"] {
        assert!(
            table.lines().any(|line| line.starts_with(method) && line.contains('×')),
            "{table}"
        );
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_server() {
    use std::io::{BufRead, BufReader};
    let mut serving = Command::new(PROGRAM)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Listening on http://127.0.0.1:")));
    let killed = Command::new("kill").args(["-INT", &serving.id().to_string()]).status().unwrap();
    assert!(killed.success());
    for _ in 0..1000 {
        if let Some(status) = serving.try_wait().unwrap() {
            assert!(status.success());
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    serving.kill().unwrap();
    panic!("it did not stop");
}
