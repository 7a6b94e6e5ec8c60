//! Fragments: cached parts of pages.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use larder_core::{Key, KeyBuf, Result, Ttl};

use crate::{Cache, CacheKey, Computed, Failure, Options, key};

impl Cache {
    /// A part of a page, cached by its name and by everything that it [varies](Rendering::vary) with: what Django calls
    /// a template fragment.
    ///
    /// Its text is kept as it is and escapes nothing: what goes into it was escaped by whoever rendered it. Fragments
    /// have names of their own, apart from those of values.
    ///
    /// ```
    /// use larder_cache::Cache;
    /// use std::time::Duration;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// let cart = vec!["Teapot"];
    /// let fragment = || cache.fragment("cart").vary("user 7").vary("en").tag("cart:7").ttl(Duration::from_secs(60));
    /// // `render` may borrow, and is not called while the fragment is there.
    /// let html = fragment().render(|| Ok::<_, std::fmt::Error>(format!("<b>{}</b>", cart.join(", ")))).await?;
    /// assert_eq!(&*html, "<b>Teapot</b>");
    /// assert!(fragment().get().await?.is_some());
    ///
    /// cache.invalidate_tag("cart:7").await?;
    /// assert!(fragment().get().await?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn fragment(&self, name: impl CacheKey) -> Rendering {
        let mut buf = KeyBuf::new(self.store().namespace());
        buf.push(key::FRAGMENTS);
        buf.push_optional(self.inner().version.as_deref());
        name.write(&mut buf);
        Rendering { cache: self.clone(), key: buf, options: Options::default() }
    }
}

/// How a fragment is cached, and then its text; made by [`Cache::fragment`].
#[must_use = "a fragment is rendered by `render`, `compute` or `render_each`"]
pub struct Rendering {
    cache: Cache,
    key: KeyBuf,
    options: Options,
}

impl Rendering {
    /// Another fragment for each such value: the language, the user, the page. The order counts; an absent value is not
    /// an empty one.
    pub fn vary(mut self, value: impl CacheKey) -> Self {
        value.write(&mut self.key);
        self
    }

    /// With that lifetime. The store's default unless set.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.options.ttl = ttl.into();
        self
    }

    /// Also under that tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.options = self.options.tag(tag);
        self
    }

    /// Also under these tags.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.options = self.options.tags(tags);
        self
    }

    /// With these options in all, in place of what was set before.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The fragment, rendered here and now if it is not there: `render` may borrow, and runs to its end. It may give
    /// text, or a [`Computed`] text with tags and a lifetime of its own.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_compute`]. What could not be rendered is not stored.
    ///
    /// # Cancel safety
    ///
    /// As [`Cache::get_or_compute_sync`].
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn render<S, E>(
        self,
        render: impl FnOnce() -> Result<S, E>,
    ) -> Result<Fragment, Failure>
    where
        S: Into<Computed<String>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let computing = self.cache.computing_here(self.options);
        let render = || render().map(Into::into).map_err(Into::into);
        computing.one_here(self.key.key()?, render).await.map(Fragment)
    }

    /// One fragment for each item, in their order: all are read in one round trip, and those that are missing are
    /// rendered here and now. `vary` tells what an item's fragment varies with, beside what was said before.
    ///
    /// ```
    /// use larder_cache::{Cache, Computed};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::memory();
    /// let products = [(7, "Teapot"), (8, "Lamp")];
    /// let rows = cache
    ///     .fragment("row")
    ///     .render_each(
    ///         &products,
    ///         |(id, _)| *id,
    ///         |(id, name)| {
    ///             let row = Computed::new(format!("<li>{name}</li>")).tag(format!("product:{id}"));
    ///             Ok::<_, std::fmt::Error>(row)
    ///         },
    ///     )
    ///     .await?;
    /// assert_eq!(&*rows[1], "<li>Lamp</li>");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`render`](Rendering::render), for any of the items. What was rendered for the others is stored all the same.
    ///
    /// # Cancel safety
    ///
    /// As [`render`](Rendering::render).
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn render_each<I, K, S, E>(
        self,
        items: impl IntoIterator<Item = I>,
        vary: impl Fn(&I) -> K,
        mut render: impl FnMut(&I) -> Result<S, E>,
    ) -> Result<Vec<Fragment>, Failure>
    where
        K: CacheKey,
        S: Into<Computed<String>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let key = |item: &I| -> Result<Key> {
            let mut buf = KeyBuf::from(self.key.as_ref()?);
            vary(item).write(&mut buf);
            buf.key()
        };
        let keys = items
            .into_iter()
            .map(|item| key(&item).map(|key| (item, key)))
            .collect::<Result<Vec<_>>>()?;
        let computing = self.cache.computing_here(self.options);
        let render = |item: &I| render(item).map(Into::into).map_err(Into::into);
        let rendered = computing.here(keys, render).await?;
        Ok(rendered.into_iter().map(Fragment).collect())
    }

    /// The fragment, made by a future if it is not there: in a task of its own, as
    /// [`Cache::get_or_compute`] does. The tags of what it reads from the cache, other fragments included, are handed
    /// up.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_or_compute`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the computation running.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn compute<S, E, F, Fut>(self, compute: F) -> Result<Fragment, Failure>
    where
        S: Into<Computed<String>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<S, E>> + Send + 'static,
    {
        let key = self.key.key()?;
        let compute = move |_| {
            let computing = compute();
            async move { computing.await.map(Into::into) }
        };
        self.cache.compute_at(key, self.options, compute).await.map(Fragment)
    }

    /// The fragment, if it is there.
    ///
    /// # Errors
    ///
    /// As [`Cache::get`].
    pub async fn get(&self) -> Result<Option<Fragment>> {
        Ok(self.cache.get_at(self.key.as_ref()?).await?.map(Fragment))
    }

    /// Removes the fragment. True when there was one.
    ///
    /// # Errors
    ///
    /// As [`Cache::delete`].
    pub async fn delete(&self) -> Result<bool> {
        self.cache.delete_at(&self.key.key()?).await
    }
}

impl fmt::Debug for Rendering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendering").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The text of a fragment, shared with everybody who has it.
///
/// It is text that was rendered already: with the features `askama` and `minijinja` it stands in their templates as it
/// is, while everything else in them is escaped as ever.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fragment(Arc<String>);

impl Deref for Fragment {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Fragment {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Text that was rendered elsewhere, where there is no cache.
impl From<String> for Fragment {
    fn from(text: String) -> Self {
        Fragment(Arc::new(text))
    }
}

impl From<Fragment> for String {
    fn from(fragment: Fragment) -> String {
        Arc::unwrap_or_clone(fragment.0)
    }
}

impl fmt::Display for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fragment({} bytes)", self.0.len())
    }
}

#[cfg(feature = "askama")]
impl askama::filters::HtmlSafe for Fragment {}

#[cfg(feature = "minijinja")]
impl From<Fragment> for minijinja::Value {
    fn from(fragment: Fragment) -> Self {
        minijinja::Value::from_safe_string(fragment.into())
    }
}
