//! Fragments, and what else is made in its caller.

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::{Calls, driven, faulty, minute, settle};
use larder_cache::{Cache, Computed, Fragment, Options};
use larder_testkit::cancel::drop_after;
use larder_testkit::faulty::Verb;
use tokio::sync::Notify;

fn text(text: &str) -> Result<String, Infallible> {
    Ok(text.to_owned())
}

#[tokio::test]
async fn the_key_is_the_name_and_each_value_with_its_boundaries() {
    let (cache, _) = driven();
    let named = |cache: &Cache| cache.fragment("cart");
    let all = [
        named(&cache),
        named(&cache).vary(""),
        named(&cache).vary(None::<&str>),
        named(&cache).vary("ab").vary("c"),
        named(&cache).vary("a").vary("bc"),
        named(&cache).vary("c").vary("ab"),
        named(&cache).vary(1_u8).vary(true),
        named(&cache).vary(true).vary(1_u8),
        cache.fragment("cartab").vary("c"),
        named(&cache.version(1)),
        cache.fragment("1").vary("cart"),
    ];
    for (n, rendering) in all.into_iter().enumerate() {
        assert!(rendering.get().await.unwrap().is_none(), "{n} is another's");
        assert_eq!(&*rendering.render(|| text(&n.to_string())).await.unwrap(), n.to_string());
    }
    // Nor is a value's key one of a fragment.
    assert!(!cache.contains("cart").await.unwrap());
    assert!(!cache.contains(("f", "cart")).await.unwrap());
    assert!(named(&cache).delete().await.unwrap());
    assert!(named(&cache).get().await.unwrap().is_none());
    assert!(named(&cache).vary("").get().await.unwrap().is_some());
}

#[tokio::test]
async fn it_is_rendered_once_until_it_ends_or_a_tag_is_dropped() {
    let (cache, hands) = driven();
    let calls = Calls::default();
    let render = async |options: Options| {
        let fragment = cache.fragment("sidebar").options(options);
        fragment.render(|| text(&format!("{}", calls.add()))).await.unwrap()
    };
    let options = || minute().tag("categories");
    let first = render(options()).await;
    assert_eq!((&*first, &*render(options()).await), ("1", "1"));
    hands.advance(Duration::from_secs(60));
    assert_eq!(&*render(options()).await, "2");
    cache.invalidate_tag("categories").await.unwrap();
    assert_eq!(&*render(options()).await, "3");
    hands.advance(Duration::from_secs(60));
    let forever = Options::ttl(larder_core::Ttl::Forever);
    assert_eq!(&*render(forever.clone()).await, "4");
    hands.advance(Duration::from_secs(1_000_000));
    assert_eq!(&*render(forever).await, "4");
}

#[tokio::test]
async fn an_error_or_a_panic_while_rendering_is_told_and_not_stored() {
    let (cache, _) = driven();
    let failure =
        cache.fragment("a").render(|| Err::<String, _>(std::fmt::Error)).await.unwrap_err();
    assert!(failure.downcast_ref::<std::fmt::Error>().is_some());
    let panicking = || -> Result<String, Infallible> { panic!("on purpose") };
    assert!(cache.fragment("a").render(panicking).await.unwrap_err().is_panic());
    assert_eq!(cache.store().flights(), 0);
    assert_eq!(&*cache.fragment("a").render(|| text("good")).await.unwrap(), "good");
}

#[tokio::test]
async fn an_outer_fragment_ends_with_the_tags_of_an_inner_one() {
    let (cache, _) = driven();
    let calls = Calls::default();
    let page = || {
        let (inner, calls) = (cache.clone(), calls.clone());
        cache.fragment("page").compute(move || async move {
            calls.add();
            let teapot = inner.fragment("row").vary(7).tag("product:7");
            let teapot = teapot.render(|| text("<li>Teapot</li>")).await?;
            let row = |(id, name): &(i32, &str)| {
                Ok::<_, Infallible>(
                    Computed::new(format!("<li>{name}</li>")).tag(format!("product:{id}")),
                )
            };
            let others = [(8, "Lamp"), (9, "Vase")];
            let rows = inner.fragment("row").render_each(others, |(id, _)| *id, row).await?;
            Ok::<_, larder_cache::Failure>(format!("<ul>{teapot}{}{}</ul>", rows[0], rows[1]))
        })
    };
    let html = "<ul><li>Teapot</li><li>Lamp</li><li>Vase</li></ul>";
    assert_eq!(&*page().await.unwrap(), html);
    assert_eq!(&*page().await.unwrap(), html);
    assert_eq!(calls.get(), 1);
    for (tag, renderings) in [("product:7", 2), ("product:9", 3), ("product:10", 3)] {
        cache.invalidate_tag(tag).await.unwrap();
        assert_eq!(&*page().await.unwrap(), html);
        assert_eq!(calls.get(), renderings, "{tag}");
    }
}

#[tokio::test]
async fn a_collection_is_read_in_one_batch_and_only_what_is_missing_is_rendered() {
    let (cache, faults, _) = faulty();
    let calls = Calls::default();
    let rows = async |ids: &[u32]| {
        let rows = cache.fragment("row").ttl(Duration::from_secs(60)).render_each(
            ids,
            |id| **id,
            |id| {
                calls.add();
                text(&format!("row {id}"))
            },
        );
        let rows: Vec<String> = rows.await.unwrap().into_iter().map(String::from).collect();
        rows
    };
    assert_eq!(rows(&[1, 2]).await, ["row 1", "row 2"]);
    assert_eq!(rows(&[3, 1, 2, 3]).await, ["row 3", "row 1", "row 2", "row 3"]);
    assert_eq!(calls.get(), 3);
    settle().await;
    faults.forget();
    assert_eq!(rows(&[2, 3, 1]).await, ["row 2", "row 3", "row 1"]);
    assert_eq!((calls.get(), faults.total(), faults.count(Verb::GetMany)), (3, 1, 1));
    assert_eq!(rows(&[]).await, [""; 0]);
    assert_eq!(faults.total(), 1);
}

#[tokio::test]
async fn what_is_invalidated_while_it_is_rendered_is_not_stored() {
    let (cache, _) = driven();
    let inner = cache.clone();
    let html = cache.fragment("a").tag("t").render(move || {
        // The closure cannot wait, but a memory cache's answers are there at once.
        let dropping = inner.invalidate_tag("t");
        assert!(futures_util::FutureExt::now_or_never(dropping).unwrap().is_ok());
        text("old")
    });
    assert_eq!(&*html.await.unwrap(), "old");
    settle().await;
    assert!(cache.fragment("a").get().await.unwrap().is_none());
}

#[tokio::test]
async fn those_who_ask_meanwhile_wait_and_a_caller_that_goes_away_leaves_nobody_behind() {
    let (cache, _, _) = faulty();
    // Dropped at every point where it can be.
    let mut rendered_and_dropped = 0;
    for polls in 0..12 {
        let calls = Calls::default();
        let name = format!("dropped {polls}");
        let render = || cache.fragment(name.as_str()).ttl(Duration::from_secs(60));
        let first = render().render(|| {
            calls.add();
            text("first")
        });
        let dropped = drop_after(polls, first).await.is_none();
        settle().await;
        assert_eq!(cache.store().flights(), 0, "after {polls} polls");
        rendered_and_dropped += usize::from(dropped && calls.get() == 1);
        let second = render().render(|| text("second")).await.unwrap();
        assert_eq!(&*second, if calls.get() == 1 { "first" } else { "second" }, "{polls} polls");
    }
    assert!(rendered_and_dropped > 0, "one was dropped between its rendering and its answer");

    // A computation of another verb is waited for.
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let computing = cache.fragment("shared").compute(move || async move {
        opened.notified().await;
        text("computed")
    });
    let computing = tokio::spawn(computing);
    settle().await;
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.fragment("shared").render(|| text("rendered")).await.unwrap() }
    });
    settle().await;
    gate.notify_one();
    assert_eq!(&*computing.await.unwrap().unwrap(), "computed");
    assert_eq!(&*waiting.await.unwrap(), "computed");
}

#[tokio::test]
async fn a_value_that_is_made_here_may_borrow_and_is_shared() {
    let (cache, hands) = driven();
    let words = String::from("to be or not to be");
    let calls = Calls::default();
    let count = async || {
        let make = || {
            calls.add();
            Ok::<_, Infallible>(words.split(" ").map(str::to_owned).collect::<Vec<_>>())
        };
        cache.get_or_compute_sync("words", minute(), make).await.unwrap()
    };
    assert!(Arc::ptr_eq(&count().await, &count().await));
    let other = cache
        .get_or_compute("words", minute(), || async { Ok::<_, Infallible>(Vec::<String>::new()) });
    assert_eq!(other.await.unwrap().len(), 6);
    hands.advance(Duration::from_secs(60));
    count().await;
    assert_eq!(calls.get(), 2);
    // The last good value stands in here too.
    let options = || minute().stale_for(Duration::from_secs(60));
    cache.set_with("bridged", 7_u32, options()).await.unwrap();
    hands.advance(Duration::from_secs(70));
    let failing = || Err::<u32, _>(std::fmt::Error);
    assert_eq!(*cache.get_or_compute_sync("bridged", options(), failing).await.unwrap(), 7);
}

#[cfg(feature = "askama")]
#[tokio::test]
async fn askama_takes_a_fragment_as_it_is_and_escapes_the_rest() {
    use askama::Template;

    #[derive(Template)]
    #[template(source = "{{ part }} {{ text }}", ext = "html")]
    struct Page<'a> {
        part: Fragment,
        text: &'a str,
    }

    #[derive(Template)]
    #[template(source = "<b>{{ name }}</b>", ext = "html")]
    struct Part<'a> {
        name: &'a str,
    }

    let (cache, _) = driven();
    let name = String::from("<script>");
    let part = cache.fragment("part").render(|| Part { name: &name }.render()).await.unwrap();
    let page = Page { part, text: "<i>" }.render().unwrap();
    assert_eq!(page, "<b>&#60;script&#62;</b> &#60;i&#62;");
}

#[cfg(feature = "minijinja")]
#[tokio::test]
async fn minijinja_takes_a_fragment_as_it_is_and_escapes_the_rest() {
    let mut pages = minijinja::Environment::new();
    pages.add_template("page.html", "{{ part }} {{ text }}").unwrap();
    let (cache, _) = driven();
    let part: Fragment = cache.fragment("part").render(|| text("<b>x</b>")).await.unwrap();
    let context = minijinja::context! { part => minijinja::Value::from(part), text => "<i>" };
    let page = pages.get_template("page.html").unwrap().render(context).unwrap();
    assert_eq!(page, "<b>x</b> &lt;i&gt;");
}
