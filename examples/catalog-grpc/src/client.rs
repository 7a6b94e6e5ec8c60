//! The client: one call for each sub-command.

use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::options::{Get, List, Server, Update, Watch};
use crate::proto::catalog_client::CatalogClient;
use crate::proto::{GetRequest, ListRequest, Product, UpdateRequest, WatchRequest};
use crate::serve::stop;

/// `get`
///
/// # Errors
///
/// Words that say what went wrong.
pub fn get(options: &Get) -> Result<(), String> {
    block_on(async {
        let request = GetRequest { id: options.id };
        let response = connect(&options.server).await?.get(request).await.map_err(told)?;
        print_verdict(&response);
        print(response.get_ref());
        println!("\n{}", response.get_ref().description);
        Ok(())
    })
}

/// `list`
///
/// # Errors
///
/// Words that say what went wrong.
pub fn list(options: &List) -> Result<(), String> {
    block_on(async {
        let request = ListRequest { category: options.category.clone(), page: options.page };
        let response = connect(&options.server).await?.list(request).await.map_err(told)?;
        print_verdict(&response);
        response.get_ref().products.iter().for_each(print);
        println!("of {} in {}", response.get_ref().total, options.category);
        Ok(())
    })
}

/// `update`
///
/// # Errors
///
/// Words that say what went wrong.
pub fn update(options: &Update) -> Result<(), String> {
    block_on(async {
        let request = UpdateRequest { id: options.id, price_cents: options.price_cents };
        let response = connect(&options.server).await?.update(request).await.map_err(told)?;
        print_verdict(&response);
        print(response.get_ref());
        Ok(())
    })
}

/// `watch`
///
/// # Errors
///
/// Words that say what went wrong.
pub fn watch(options: &Watch) -> Result<(), String> {
    block_on(async {
        let request = WatchRequest { category: options.category.clone() };
        let response = connect(&options.server).await?.watch(request).await.map_err(told)?;
        println!("Waiting for changes  (Ctrl-C stops)");
        let mut changes = response.into_inner();
        let mut stopping = std::pin::pin!(stop()?);
        loop {
            tokio::select! {
                change = changes.message() => match change.map_err(told)? {
                    Some(product) => print(&product),
                    None => return Ok(()),
                },
                () = &mut stopping => return Ok(()),
            }
        }
    })
}

fn block_on(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

async fn connect(Server { server }: &Server) -> Result<CatalogClient<Channel>, String> {
    CatalogClient::connect(server.clone()).await.map_err(|_| {
        format!(
            "nobody answers at {server}\n\n  Start the server first:\n    \
             cargo run --release -p catalog-grpc -- serve\n  \
             or name another one with --server http://HOST:PORT"
        )
    })
}

fn told(status: Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

fn print_verdict<T>(response: &Response<T>) {
    if let Some(verdict) = response.metadata().get("cache-status") {
        println!("cache-status: {}", verdict.to_str().unwrap_or("?"));
    }
}

fn print(product: &Product) {
    let Product { id, name, category, price_cents, .. } = product;
    println!("{id:>6}  {:>4}.{:02}  {category:8}  {name}", price_cents / 100, price_cents % 100);
}
