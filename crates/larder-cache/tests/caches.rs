//! Named caches, and what their set-ups risk.
#![cfg(all(
    feature = "memory",
    feature = "toml",
    feature = "file",
    feature = "redis",
    feature = "sqlite"
))]

use larder_cache::{CacheSettings, Caches, CachesSettings, Risk};
use larder_core::ErrorKind;
use larder_testkit::servers::RedisServer;

fn toml(text: &str) -> CachesSettings {
    CachesSettings::from_toml(text).unwrap()
}

async fn connect(settings: &CachesSettings) -> Caches {
    Caches::connect(settings).await.unwrap()
}

async fn risks(settings: &CachesSettings) -> Vec<(String, Risk)> {
    let caches = connect(settings).await;
    let mut risks: Vec<_> =
        caches.advice().iter().map(|one| (one.cache.clone(), one.risk)).collect();
    risks.sort();
    risks
}

#[tokio::test]
async fn each_cache_is_what_its_settings_say() {
    let settings = toml(
        r#"
        processes = 1
        [caches.default]
        url = "memory://?namespace=shop"
        [caches.fragments]
        url = "memory://?namespace=parts&max_bytes=1MiB"
        read_budget = "50ms"
        codec = "messagepack"
        strict = true
        "#,
    );
    let caches = connect(&settings).await;
    assert_eq!(caches.names().collect::<Vec<_>>(), ["default", "fragments"]);
    let (default, fragments) = (caches.get("default").unwrap(), caches.get("fragments").unwrap());
    default.set("a", 1_i64).await.unwrap();
    assert!(fragments.get::<i64>("a").await.unwrap().is_none());
    assert_eq!(fragments.store().namespace().as_str(), "parts");
    assert!(caches.advice().is_empty(), "{:?}", caches.advice());
    let error = caches.get("session").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("default, fragments"), "{error}");
}

#[tokio::test]
async fn the_environment_comes_before_the_file() {
    let settings =
        toml("[caches.default]\nurl = \"memory://?namespace=file\"\nread_budget = \"1s\"");
    let variables = [
        ("LARDER_PROCESSES", "3"),
        ("LARDER_CACHE_DEFAULT", "memory://?namespace=variable"),
        ("LARDER_CACHE_PAGES", "memory://?namespace=pages"),
        ("LARDER_CACHE_PAGES__STRICT", "true"),
        ("PATH", "/bin"),
    ];
    let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = settings.with_variables(owned).unwrap();
    assert_eq!(settings.processes, Some(3));
    assert_eq!(settings.caches["default"].read_budget.as_deref(), Some("1s"), "the file's stays");
    assert!(settings.caches["pages"].strict);
    let caches = connect(&settings).await;
    assert_eq!(caches.get("default").unwrap().store().namespace().as_str(), "variable");
    for (name, value, words) in [
        ("LARDER_PROCESSES", "0", "at least 1"),
        ("LARDER_CACHE_A__STRICT", "perhaps", "LARDER_CACHE_A__STRICT is true or false"),
        ("LARDER_CACHE_A__SIZE", "canary", "READ_BUDGET"),
    ] {
        let variables = [(name.to_owned(), value.to_owned())];
        let error = CachesSettings::default().with_variables(variables).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn errors_say_which_cache_and_which_setting_and_no_secret() {
    for (text, words) in [
        (
            "[caches.a]\nurl = \"redis://:canary@localhost/0\"",
            "cache `a`, setting `url`: a redis:// URL needs a namespace",
        ),
        ("[caches.a]\nurl = \"mysql://u:canary@h/d\"", "cache `a`, setting `url`: unknown kind"),
        ("[caches.a]\nstrict = true", "cache `a`, setting `url`: it is missing"),
        ("[caches.a]\nurl = \"memory://\"\ncodec = \"canary\"", "cache `a`, setting `codec`"),
        (
            "[caches.a]\nurl = \"memory://\"\nread_budget = \"canary\"",
            "cache `a`, setting `read_budget`",
        ),
        (
            "[caches.a]\nurl = \"memory://\"\nwrite_budget = \"0s\"",
            "cache `a`, setting `write_budget`",
        ),
        (
            "[caches.a]\nurl_env = \"LARDER_NOT_SET\"",
            "cache `a`, setting `url_env`: the environment variable",
        ),
        ("[caches.a]\nurl = \"memory://\"\nurl_env = \"X\"", "take one of them out"),
        (
            "[caches.a]\nurl = \"null://\"\nsessions = true",
            "cache `a`, setting `sessions`: sessions cannot live",
        ),
        (
            "[caches.a]\nurl = \"failover:memory://|memory://\"\nsessions = true",
            "cache `a`, setting `sessions`",
        ),
        ("[caches.\"Not Good\"]\nurl = \"memory://\"", "lower-case letters"),
    ] {
        let error = Caches::connect(&toml(text)).await.unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains(words) && !told.contains("canary"), "{text}: {told}");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
        assert!(!format!("{:?}", toml(text)).contains("canary@"), "the settings show no URL");
    }
    for (text, words) in [
        ("[caches.a]\nurl = canary", "line 2"),
        ("\n\n[caches.a]\nurl = \"redis://:canary@h\" x", "line 4"),
        ("[caches.a]\nurl = [\"canary\"]", "line 2"),
        ("[caches.a]\nlink = \"canary\"", "unknown field `link`"),
    ] {
        let error = CachesSettings::from_toml(text).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains(words) && !told.contains("canary"), "{text}: {told}");
    }
}

#[tokio::test]
async fn what_a_set_up_risks_is_told() {
    let server = RedisServer::start().await;
    let folder = std::env::temp_dir().join(format!("larder-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&folder).unwrap();
    let redis = format!("{}/0?namespace=shop&response_timeout=60s", server.url());
    let file = format!("file://{}/files?namespace=shop", folder.display());
    let sqlite = format!("sqlite://{}/c.db?namespace=sessions&busy_timeout=60s", folder.display());
    let of = |caches: Vec<(&str, CacheSettings)>| {
        caches.into_iter().fold(CachesSettings::default(), |all, (name, one)| all.with(name, one))
    };
    let alone = async |url: &str| risks(&of(vec![("a", CacheSettings::new(url))])).await;
    let one = |risk| vec![("a".to_owned(), risk)];

    assert_eq!(alone("null://").await, one(Risk::NothingKept));
    assert_eq!(
        alone(&format!("tiered:memory://?ceiling=1s|{file}")).await,
        one(Risk::NearWithoutBus)
    );
    assert_eq!(alone(&format!("tiered:memory://|{redis}")).await, []);
    assert_eq!(alone(&format!("{redis}&read_budget=3s")).await, one(Risk::SlowToFail));
    assert_eq!(alone(&redis).await, []);

    let mut several = of(vec![("a", CacheSettings::new("memory://"))]);
    assert_eq!(risks(&several).await, [], "nobody knows of other processes");
    several.processes = Some(2);
    assert_eq!(risks(&several).await, one(Risk::MemoryInSeveralProcesses));

    let sessions = CacheSettings::new("memory://").for_sessions();
    let evicting = [Risk::SessionsMayBeEvicted, Risk::SessionsEndWithTheStore];
    let expected: Vec<_> = evicting.map(|risk| ("a".to_owned(), risk)).into();
    assert_eq!(risks(&of(vec![("a", sessions)])).await, expected);

    // Pages and sessions on one server; and the same namespace twice.
    let other = redis.replace("namespace=shop", "namespace=sessions");
    let both = of(vec![
        ("pages", CacheSettings::new(&redis)),
        ("sessions", CacheSettings::new(&other).for_sessions()),
        ("twin", CacheSettings::new(&redis)),
    ]);
    let found = risks(&both).await;
    assert!(found.contains(&("sessions".to_owned(), Risk::SessionsShareRoom)), "{found:?}");
    assert!(found.contains(&("twin".to_owned(), Risk::SharedNamespace)), "{found:?}");
    assert!(!found.iter().any(|(name, _)| name == "pages"), "{found:?}");

    // Every store of ours makes room, so nothing that lives for ever makes it grow for ever.
    for url in [&redis, &file, &sqlite] {
        assert_eq!(alone(&format!("{url}&default_ttl=forever")).await, [], "{url}");
    }

    // A set-up without risk.
    let good = of(vec![
        ("default", CacheSettings::new(&redis)),
        ("sessions", CacheSettings::new(&sqlite).for_sessions()),
    ]);
    let found = risks(&good).await;
    assert!(!found.iter().any(|(_, risk)| *risk == Risk::SessionsShareRoom), "{found:?}");
    let advice = connect(&several).await.advice()[0].to_string();
    assert!(advice.starts_with("cache `a`: each process has a memory of its own"), "{advice}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_password_that_others_can_read_is_told_wherever_it_stands() {
    let server = RedisServer::options().password("canary").start().await;
    let rest = format!("{}/0?namespace=shop&response_timeout=60s", server.port());
    // Every address of this machine, which is not known to be near for that.
    let (open, near) =
        (format!("redis://:canary@0.0.0.0:{rest}"), format!("redis://:canary@127.0.0.1:{rest}"));
    let told = async |url: &str| {
        let settings = CachesSettings::default().with("a", CacheSettings::new(url));
        let caches = connect(&settings).await;
        caches.get("a").unwrap().strict().set("k", 1_i64).await.expect("it works all the same");
        let words: Vec<String> = caches.advice().iter().map(ToString::to_string).collect();
        assert!(!words.concat().contains("canary"), "{words:?}");
        caches.advice().iter().map(|one| one.risk).collect::<Vec<_>>()
    };
    assert_eq!(told(&near).await, []);
    for words in ["URL", "tiered:memory://|URL", "failover:URL|memory://"] {
        let url = words.replace("URL", &format!("{open}&read_budget=1s&write_budget=1s"));
        assert_eq!(told(&url).await, [Risk::ClearText], "{words}");
    }
}
