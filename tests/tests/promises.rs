//! Who may share what, by a model of its own: two requests share an entry only if they agree in the key, in every input
//! that `Vary` or a `VaryLayer` names, and in every credential; and what answers was made for an equal selection.
//!
//! `PROPTEST_CASES` sets how many cases there are; `scripts/soak properties` runs a million.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use larder_http::cache::ResponseBody;
use larder_http::query::RequestBody;
use larder_http::rules::Policy;
use larder_http::{CacheLayer, QueryLayer, RequestHead, VaryLayer};
use larder_tests::{Failure, Got, Larder, Origin, TestBody, answer, full, request};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{TestRunner, contextualize_config};
use tokio::runtime::{Builder, Runtime};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

type Stack = BoxCloneSyncService<Request<TestBody>, Response<ResponseBody<TestBody>>, Failure>;

/// What a route is told.
#[derive(Clone, Debug)]
struct Route {
    proxy: bool,
    /// Keyed on the cookie `theme`, and on no other.
    keyed: bool,
    /// Ignores the cookies `_ga*`.
    ignores: bool,
    shared_cookies: bool,
    /// A cache for each `x-tenant`.
    partitioned: bool,
    /// A `VaryLayer` computes the first letter of `x-tier`.
    tiers: bool,
    /// What each of its responses says.
    says: Vec<(&'static str, Vec<&'static str>)>,
}

/// A request, small enough that two are often alike.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    target: String,
    content: &'static str,
    fields: BTreeMap<&'static str, &'static str>,
}

fn routes() -> impl Strategy<Value = Route> {
    let directives = select(vec![
        "max-age=60",
        "public, max-age=60",
        "s-maxage=60",
        "must-revalidate, max-age=60",
        "private, max-age=60",
        "no-store",
    ]);
    let vary = subsequence(vec!["x-a", "x-b", "accept-language"], 0..3);
    (
        (any::<bool>(), any::<bool>(), any::<bool>()),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.3), any::<bool>()),
        prop::collection::vec((directives, vary), 8),
    )
        .prop_map(|((proxy, keyed, ignores), (shared_cookies, partitioned, tiers), says)| {
            Route { proxy, keyed, ignores, shared_cookies, partitioned, tiers, says }
        })
}

fn requests() -> impl Strategy<Value = Asked> {
    let target = select(vec![
        "http://a.example/p",
        "http://a.example/p",
        "http://a.example/p",
        "http://a.example/p?q",
        "http://a.example/q",
        "http://b.example/p",
        "https://a.example/p",
        "http://a.example:81/p",
    ]);
    let field = |name: &'static str, values: &'static [&'static str]| {
        prop::option::weighted(0.25, select(values)).prop_map(move |value| Some((name, value?)))
    };
    let fields = (
        field("x-a", &["1", "2"]),
        field("x-b", &["1", ""]),
        field("accept-language", &["de", "fr"]),
        field("authorization", &["Bearer a", "Bearer b"]),
        field("cookie", &["theme=dark", "theme=light", "_ga=1", "id=1", "theme=dark; _ga_x=2"]),
        field("x-api-key", &["a"]),
        field("x-tenant", &["red", "blue"]),
        field("x-tier", &["gold", "good", "free"]),
        field("x-forwarded-host", &["c.example", "d.example"]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i)| {
            [a, b, c, d, e, f, g, h, i].into_iter().flatten().collect::<BTreeMap<_, _>>()
        });
    let method = select(vec!["GET", "GET", "GET", "HEAD", "QUERY"]);
    (method, target, select(vec!["", "1", "2"]), fields).prop_map(
        |(method, target, content, fields)| {
            let content = if method == "QUERY" { content } else { "" };
            Asked { method, target: target.to_owned(), content, fields }
        },
    )
}

impl Route {
    /// What tells requests apart before any response is known.
    fn key(&self, asked: &Asked) -> impl PartialEq + std::fmt::Debug {
        (
            asked.method == "QUERY",
            asked.target.clone(),
            asked.content,
            asked.fields.get("x-forwarded-host").copied(),
            self.partitioned.then(|| asked.fields.get("x-tenant").copied()),
        )
    }

    /// What selects one of the responses that say this.
    fn selection(&self, asked: &Asked, vary: &[&'static str]) -> impl PartialEq + std::fmt::Debug {
        let named: Vec<_> = vary.iter().map(|name| asked.fields.get(name).copied()).collect();
        let tier = asked.fields.get("x-tier").map(|tier| &tier[..1]);
        let theme = self
            .keyed
            .then(|| cookies(asked).find_map(|(name, value)| (name == "theme").then_some(value)));
        (named, self.tiers.then_some(tier), theme)
    }

    /// Whether a request carries something that may be one visitor's own and that the route does not speak of.
    fn credential(&self, asked: &Asked) -> bool {
        let cookie = cookies(asked).any(|(name, _)| {
            !(self.ignores && name.starts_with("_ga") || self.keyed && name == "theme")
        });
        let names =
            if self.proxy { &["authorization"][..] } else { &["authorization", "x-api-key"] };
        let other = names.iter().any(|name| asked.fields.contains_key(name));
        !self.partitioned && (other || (cookie && !self.shared_cookies))
    }

    /// Whether what was made for the one may answer the other.
    fn allows(&self, made: &Asked, asked: &Asked, directives: &str, vary: &[&'static str]) -> bool {
        let public = directives.contains("public") || directives.contains("s-maxage");
        let only_authorization = made.fields.contains_key("authorization")
            && (cookies(made).next().is_none()
                || !self.credential(&without(made, "authorization")));
        let may_fill = !self.credential(made)
            || public
            || (self.proxy && only_authorization && directives.contains("must-revalidate"));
        let may_read = !self.credential(asked) || public || self.proxy;
        made.method != "HEAD"
            && self.key(made) == self.key(asked)
            && self.selection(made, vary) == self.selection(asked, vary)
            && may_fill
            && may_read
            && !directives.contains("private")
            && !directives.contains("no-store")
    }
}

fn without(asked: &Asked, name: &str) -> Asked {
    let mut asked = asked.clone();
    asked.fields.remove(name);
    asked
}

fn cookies(asked: &Asked) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let line = asked.fields.get("cookie").copied().unwrap_or_default();
    line.split("; ").filter_map(|pair| pair.split_once('='))
}

fn stack(larder: &Larder, route: &Route, origin: Origin) -> Stack {
    let mut layer = CacheLayer::new(&larder.cache).cache_status("t");
    if route.proxy {
        layer = layer.policy(Policy::rfc9111());
    }
    if route.keyed {
        layer = layer.cookie("theme");
    }
    if route.ignores {
        layer = layer.ignore_cookies(["_ga*"]);
    }
    if route.shared_cookies {
        layer = layer.shared_despite_cookies();
    }
    if route.partitioned {
        layer = layer.partition_by(|head| Some(text(head.headers(), "x-tenant")?.to_owned()));
    }
    let tier = |head: RequestHead<'_>| Some(text(head.headers(), "x-tier")?[..1].to_owned());
    let vary = if route.tiers { VaryLayer::new().by("tier", tier) } else { VaryLayer::new() };
    let inside = |request: Request<RequestBody<TestBody>>| request.map(BodyExt::boxed_unsync);
    let service = ServiceBuilder::new().layer(QueryLayer::new()).layer(layer).layer(vary);
    BoxCloneSyncService::new(service.map_request(inside).service(origin))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What all cases share: where they run, a cache in which each has hosts of its own, and how often somebody else's answer
/// was shared, and how often by a request that is not the same.
struct Ground {
    runtime: Runtime,
    larder: Larder,
    cases: AtomicUsize,
    all: AtomicUsize,
    unlike: AtomicUsize,
}

fn shares_only_as_promised(
    route: &Route,
    asked: &[Asked],
    ground: &Ground,
) -> Result<(), TestCaseError> {
    let case = ground.cases.fetch_add(1, Ordering::Relaxed);
    ground.runtime.block_on(async {
        // Which request each call of the handler was made for.
        let made: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let now: Arc<Mutex<Option<Asked>>> = Arc::default();
        let (says, making, current) = (route.says.clone(), made.clone(), now.clone());
        let origin = Origin::says(move |call, request| {
            making.lock().unwrap().push(current.lock().unwrap().clone().unwrap());
            let (directives, vary) = &says[call - 1];
            let mut fields = vec![("cache-control", *directives)];
            fields.extend(vary.iter().map(|name| ("vary", *name)));
            let number = call.to_string();
            fields.push(("x-call", &number));
            let body = if request.method() == Method::HEAD { "" } else { "body" };
            answer(200, &fields, body)
        });
        let service = stack(&ground.larder, route, origin);
        for one in asked {
            *now.lock().unwrap() = Some(one.clone());
            let fields: Vec<_> = one.fields.iter().map(|(name, value)| (*name, *value)).collect();
            let target = one.target.replace(".example", &format!(".site-{case}.example"));
            let request = request(one.method, &target, &fields).map(|_| full(one.content));
            let calls = made.lock().unwrap().len();
            let got = Got::read(service.clone().oneshot(request).await.unwrap()).await.unwrap();
            let call: usize = got.field("x-call").unwrap().parse().unwrap();
            if call > calls {
                continue;
            }
            let made = made.lock().unwrap()[call - 1].clone();
            let (directives, vary) = &route.says[call - 1];
            prop_assert!(
                route.allows(&made, one, directives, vary),
                "{directives}, vary on {vary:?}: what was made for {made:?} answered {one:?}"
            );
            ground.all.fetch_add(1, Ordering::Relaxed);
            if made.fields != one.fields {
                ground.unlike.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })
}

/// Promise 2 of the design, with what it says of credentials (1), and P11: reuse implies that the selecting fields are equal.
#[test]
fn requests_share_an_entry_only_as_promised() {
    let config = contextualize_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let cases = config.cases as usize;
    let ground = Ground {
        runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        larder: Larder::new(),
        cases: AtomicUsize::new(0),
        all: AtomicUsize::new(0),
        unlike: AtomicUsize::new(0),
    };
    let strategy = (routes(), prop::collection::vec(requests(), 2..9));
    TestRunner::new(config)
        .run(&strategy, |(route, asked)| shares_only_as_promised(&route, &asked, &ground))
        .unwrap_or_else(|failure| panic!("{failure}"));
    let (all, unlike) = (ground.all.into_inner(), ground.unlike.into_inner());
    assert!(
        all > cases / 10 && unlike > cases / 20,
        "{all} shared, {unlike} among unlike requests"
    );
}
