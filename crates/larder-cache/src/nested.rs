//! Tags that go up: what is read while a value is made is part of it, so what drops the one drops the other.

use std::collections::BTreeSet;
use std::future::Future;

use larder_core::Tag;
use parking_lot::Mutex;

use crate::Store;

tokio::task_local! {
    // What is being made in this task, if anything is.
    static MAKING: Option<Making>;
}

struct Making {
    store: Store,
    tags: Mutex<BTreeSet<Tag>>,
}

/// Runs a future and tells, beside its output, which tags the entries carry that it read from that store and namespace
/// in this task. For layers that store what the future makes: its number in the sequence must have been
/// [read](Store::marks) before.
///
/// What is read in tasks that the future spawns is not seen, nor are other stores and namespaces.
pub async fn collect<F: Future>(store: &Store, future: F) -> (F::Output, Vec<Tag>) {
    let making = Making { store: store.clone(), tags: Mutex::default() };
    let mut scope = std::pin::pin!(MAKING.scope(Some(making), future));
    let output = scope.as_mut().await;
    let making = scope.as_mut().take_value().flatten();
    let tags = making.map(|making| making.tags.into_inner().into_iter().collect());
    (output, tags.unwrap_or_default())
}

/// Runs a future whose reads hand no tags up: what is made with them stays although they are invalidated.
///
/// ```
/// use larder_cache::{Cache, Options, untracked};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::memory();
/// cache.set_with("visitors", 12_i64, Options::new().tag("visitors")).await?;
/// let inner = cache.clone();
/// let page = move || async move {
///     let visitors = untracked(inner.get::<i64>("visitors")).await?;
///     Ok::<_, larder_core::Error>(format!("{} visitors", visitors.as_deref().unwrap_or(&0)))
/// };
/// cache.get_or_compute("page", Options::new(), page).await?;
/// cache.invalidate_tag("visitors").await?;
/// assert!(cache.contains("page").await?);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub async fn untracked<F: Future>(future: F) -> F::Output {
    MAKING.scope(None, future).await
}

/// Notes that an entry with these tags was read.
#[inline]
pub(crate) fn note(store: &Store, tags: &[Tag]) {
    if !tags.is_empty() {
        hand_up(store, tags);
    }
}

fn hand_up(store: &Store, tags: &[Tag]) {
    let _ = MAKING.try_with(|making| {
        if let Some(making) = making
            && making.store.is_same(store)
        {
            // Whoever makes something of it decides anew whether that outlasts being expired.
            let tags = tags.iter().map(|tag| tag.expiring().unwrap_or_else(|| tag.clone()));
            making.tags.lock().extend(tags);
        }
    });
}
