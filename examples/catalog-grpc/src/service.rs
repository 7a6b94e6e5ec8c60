//! The handlers. What they answer carries tags; what they change drops them.

use std::pin::Pin;

use futures_util::{Stream, stream};
use larder::grpc::Caching;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use crate::proto::catalog_server::Catalog;
use crate::proto::{GetRequest, ListRequest, ListResponse, Product, UpdateRequest, WatchRequest};
use crate::shelf::{CATEGORIES, Shelf};

/// The catalogue.
#[derive(Clone, Debug)]
pub struct Service(pub Shelf);

#[tonic::async_trait]
impl Catalog for Service {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Product>, Status> {
        let id = request.into_inner().id;
        let product = self.0.get(id).await.map_err(broken)?.ok_or_else(|| unknown(id))?;
        let mut response = Response::new(product);
        response.extensions_mut().insert(Caching::new().tag(one(id)));
        Ok(response)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { category, page } = request.into_inner();
        if !CATEGORIES.contains(&category.as_str()) {
            let words = format!("there is no category {category:?}; there are {CATEGORIES:?}");
            return Err(Status::invalid_argument(words));
        }
        let tag = all(&category);
        let mut response = Response::new(self.0.list(category, page).await.map_err(broken)?);
        response.extensions_mut().insert(Caching::new().tag(tag));
        Ok(response)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<Product, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let category = request.into_inner().category;
        let stopping = || Status::unavailable("the server is stopping");
        let changes = self.0.watch().ok_or_else(stopping)?;
        let changes = stream::unfold((changes, category), |(mut changes, category)| async {
            loop {
                match changes.recv().await {
                    Ok(product) if category.is_empty() || product.category == category => {
                        return Some((Ok(product), (changes, category)));
                    }
                    // Of another category; or this one was too slow, and has missed some.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<Product>, Status> {
        let UpdateRequest { id, price_cents } = request.into_inner();
        let changed = self.0.update(id, price_cents).await.map_err(broken)?;
        let product = changed.ok_or_else(|| unknown(id))?;
        let outdated = Caching::new().drops(one(id)).drops(all(&product.category));
        let mut response = Response::new(product);
        response.extensions_mut().insert(outdated);
        Ok(response)
    }
}

fn one(id: u32) -> String {
    format!("product:{id}")
}

fn all(category: &str) -> String {
    format!("category:{category}")
}

fn unknown(id: u32) -> Status {
    Status::not_found(format!("there is no product {id}"))
}

fn broken(_: rusqlite::Error) -> Status {
    Status::internal("the database failed")
}
