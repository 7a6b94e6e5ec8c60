//! The cookie: its attributes, reading it, setting it, removing it.

use std::fmt::Write;
use std::time::Duration;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use larder_http_rules::cookies;
use memchr::memmem::Finder;
use smallvec::SmallVec;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, Ticket};

/// Name and attributes of the session's cookie.
///
/// The default is `__Host-id; Path=/; Secure; HttpOnly; SameSite=Lax`. The prefix follows from the attributes: `__Host-`
/// makes browsers refuse the cookie from another host or over plain HTTP, `__Secure-` is what is left of that with a
/// domain or a path, and there is none for development over plain HTTP. It is always `HttpOnly`.
///
/// ```
/// use larder_cache::Cache;
/// use larder_session::{SameSite, SessionCookie, SessionLayer};
///
/// let cache = Cache::memory();
/// let layer = SessionLayer::new(&cache).cookie(SessionCookie::new("shop").same_site(SameSite::Strict))?;
/// # let _ = layer;
///
/// // What browsers would drop without a word is refused while configuring.
/// let none = SessionCookie::new("shop").same_site(SameSite::None).insecure_for_development();
/// assert!(SessionLayer::new(&cache).cookie(none).is_err());
/// # Ok::<(), larder_session::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionCookie {
    name: String,
    domain: Option<String>,
    path: String,
    same_site: SameSite,
    partitioned: bool,
    secure: bool,
}

/// When browsers send the cookie with requests that other sites cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// Never, not even when a link is followed.
    Strict,
    /// When a link is followed: GET at the top level.
    #[default]
    Lax,
    /// Always. Every form on every site can then act for the visitor: needs protection of its own.
    None,
}

impl Default for SessionCookie {
    fn default() -> Self {
        SessionCookie::new("id")
    }
}

impl SessionCookie {
    /// Of that name; the prefix comes by itself.
    pub fn new(name: &str) -> Self {
        SessionCookie {
            name: name.to_owned(),
            domain: None,
            path: "/".to_owned(),
            same_site: SameSite::default(),
            partitioned: false,
            secure: true,
        }
    }

    /// Also for that domain's subdomains, each of which can then set and read it.
    pub fn domain(mut self, domain: &str) -> Self {
        self.domain = Some(domain.to_owned());
        self
    }

    /// Below that path only. No protection: the site's other paths can read it all the same.
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// When browsers send it with requests that other sites cause. [`SameSite::Lax`] unless set.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// One for each site that embeds this one (`Partitioned`, CHIPS). Goes with [`SameSite::None`].
    pub fn partitioned(mut self) -> Self {
        self.partitioned = true;
        self
    }

    /// Also over plain HTTP: without `Secure` and prefix. For development only, since whoever is on the way can take
    /// the session.
    pub fn insecure_for_development(mut self) -> Self {
        self.secure = false;
        self
    }

    pub(crate) fn check(&self) -> Result<Jar> {
        let wrong = |words| Err(Error::saying(ErrorKind::Configuration, words));
        let prefixed = |prefix: &str| {
            self.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let (host, securely) = (prefixed("__Host-"), prefixed("__Secure-"));
        let at_home = self.domain.is_none() && self.path == "/";
        if self.name.is_empty() || !self.name.bytes().all(is_token) {
            return wrong("a cookie's name has ASCII letters, digits and !#$%&'*+-.^_`|~ only");
        }
        if !self.path.starts_with('/') || !is_attribute(&self.path) {
            return wrong(
                "a cookie's path starts with '/', and has at most 1024 visible characters but ';'",
            );
        }
        if self.domain.as_ref().is_some_and(|domain| !is_domain(domain)) {
            return wrong("a cookie's domain is a host's name, such as example.com");
        }
        if host && !at_home {
            return wrong(
                "a __Host- cookie has no domain, and / as its path: take the prefix off the name, or leave them out",
            );
        }
        if (host || securely) && !self.secure {
            return wrong(
                "a __Host- or __Secure- cookie needs HTTPS: take the prefix off the name for plain HTTP",
            );
        }
        if self.same_site == SameSite::None && !self.secure {
            return wrong("SameSite=None needs HTTPS: use SameSite::Lax for plain HTTP");
        }
        if self.partitioned && !self.secure {
            return wrong("Partitioned needs HTTPS: leave it out for plain HTTP");
        }
        let prefix = match () {
            () if host || securely || !self.secure => "",
            () if at_home => "__Host-",
            () => "__Secure-",
        };
        let name = format!("{prefix}{}", self.name);
        if name.len() + Ticket::LONGEST > MAX_PAIR {
            return wrong("browsers ignore a cookie of more than 4096 bytes: shorten its name");
        }
        let mut attributes = format!("; Path={}", self.path);
        if let Some(domain) = &self.domain {
            attributes.push_str("; Domain=");
            attributes.push_str(domain);
        }
        if self.secure {
            attributes.push_str("; Secure");
        }
        attributes.push_str("; HttpOnly; SameSite=");
        attributes.push_str(match self.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        });
        if self.partitioned {
            attributes.push_str("; Partitioned");
        }
        let finder = Finder::new(&name).into_owned();
        Ok(Jar { name, attributes, finder })
    }
}

/// The longest that browsers keep a cookie.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

// Name and value; browsers ignore longer ones.
pub(crate) const MAX_PAIR: usize = 4096;
const MAX_ATTRIBUTE: usize = 1024;
// More cookies of the one name are nobody's honest browser.
const MAX_CANDIDATES: usize = 4;

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_attribute(text: &str) -> bool {
    text.len() <= MAX_ATTRIBUTE && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';')
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A cookie whose attributes go together.
#[derive(Clone, Debug)]
pub(crate) struct Jar {
    pub(crate) name: String,
    attributes: String,
    // Finds the name.
    finder: Finder<'static>,
}

/// Those `Cookie` lines of a request that may hold the cookie. Most requests never use their session, so nothing is
/// read in them before the first use.
pub(crate) type Lines = SmallVec<[HeaderValue; 1]>;

/// The values of the cookies of the name.
pub(crate) type Values<'a> = SmallVec<[&'a [u8]; MAX_CANDIDATES]>;

/// What a cookie may hold: visible ASCII.
pub(crate) trait CookieValue {
    fn length(&self) -> usize;
    fn write(&self, text: &mut String);
}

impl<T: AsRef<str> + ?Sized> CookieValue for T {
    fn length(&self) -> usize {
        self.as_ref().len()
    }

    fn write(&self, text: &mut String) {
        text.push_str(self.as_ref());
    }
}

impl CookieValue for Ticket {
    fn length(&self) -> usize {
        if self.slot.is_some() { Ticket::LONGEST } else { Id::LENGTH }
    }

    fn write(&self, text: &mut String) {
        self.write_to(text);
    }
}

/// What a request brought.
#[derive(Default)]
pub(crate) struct Brought {
    /// A cookie of the name was there, whatever its value.
    pub(crate) any: bool,
    /// Well-formed ids, each once. None of sessions that live in their cookie.
    pub(crate) tickets: SmallVec<[Ticket; 1]>,
    /// There was one that is no id, or there were too many.
    pub(crate) malformed: bool,
}

/// These values, each once; `None` when there are too many.
pub(crate) fn each_once<'a>(all: impl Iterator<Item = &'a [u8]>) -> Option<Values<'a>> {
    let mut values = Values::new();
    for value in all {
        if values.contains(&value) {
            continue;
        }
        if values.len() == MAX_CANDIDATES {
            return None;
        }
        values.push(value);
    }
    Some(values)
}

impl Brought {
    /// `None` for too many.
    pub(crate) fn of(values: Option<Values<'_>>) -> Self {
        let Some(values) = values else {
            return Brought { any: true, malformed: true, ..Brought::default() };
        };
        let tickets: SmallVec<[Ticket; 1]> =
            values.iter().filter_map(|value| Ticket::parse(value)).collect();
        let malformed = tickets.len() < values.len();
        Brought { any: !values.is_empty(), tickets, malformed }
    }
}

impl Jar {
    pub(crate) fn pick(&self, headers: &HeaderMap) -> Lines {
        let mut lines = Lines::new();
        for line in headers.get_all(COOKIE) {
            if self.finder.find(line.as_bytes()).is_some() {
                lines.push(line.clone());
            }
        }
        lines
    }

    /// The cookie's values, each once; `None` when there are too many.
    pub(crate) fn values<'a>(&self, lines: &'a [HeaderValue]) -> Option<Values<'a>> {
        let ours = |(name, value)| (name == self.name.as_bytes()).then_some(value);
        each_once(lines.iter().flat_map(cookies::of).filter_map(ours))
    }

    /// `None` for the lifetime: until the browser closes.
    pub(crate) fn set<V: CookieValue + ?Sized>(
        &self,
        value: &V,
        lifetime: Option<Duration>,
    ) -> HeaderValue {
        let age = lifetime.map(|lifetime| {
            let lifetime = lifetime.min(MAX_AGE);
            // A started second is a whole one: zero would remove it.
            let seconds = lifetime.as_secs() + u64::from(lifetime.subsec_nanos() > 0);
            (seconds, seconds.checked_ilog10().unwrap_or(0) as usize + 1)
        });
        let age_room = age.map_or(0, |(_, digits)| "; Max-Age=".len() + digits);
        // To the byte: what is left over costs the header another allocation.
        let room = self.name.len() + 1 + value.length() + age_room + self.attributes.len();
        let mut text = String::with_capacity(room);
        text.extend([&self.name, "="]);
        value.write(&mut text);
        if let Some((seconds, _)) = age {
            // Writing to a string does not fail.
            let _ = write!(text, "; Max-Age={seconds}");
        }
        self.value(text)
    }

    pub(crate) fn remove(&self) -> HeaderValue {
        self.value(format!("{}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT", self.name))
    }

    fn value(&self, mut text: String) -> HeaderValue {
        text.push_str(&self.attributes);
        // Every part was checked to be visible ASCII.
        let mut value =
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jar(cookie: &SessionCookie) -> Jar {
        cookie.check().unwrap()
    }

    fn id() -> String {
        "7".repeat(64)
    }

    /// What rfc6265bis makes of a `Set-Cookie` line from an HTTPS page.
    fn browser_takes(line: &str) -> Result<String, &'static str> {
        let (pair, attributes) = line.split_once("; ").ok_or("no attributes")?;
        let (name, value) = pair.split_once('=').ok_or("no pair")?;
        let all: Vec<&str> = attributes.split("; ").collect();
        let has = |name: &str| all.contains(&name);
        let of = |name: &str| all.iter().find_map(|one| one.strip_prefix(name));
        if name.len() + value.len() > 4096 {
            return Err("too long");
        }
        if all.iter().filter_map(|one| one.split_once('=')).any(|(_, value)| value.len() > 1024) {
            return Err("a long attribute");
        }
        if (of("SameSite=") == Some("None") || has("Partitioned")) && !has("Secure") {
            return Err("not secure");
        }
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("__secure-") && !has("Secure") {
            return Err("__Secure-");
        }
        let home = has("Secure") && of("Path=") == Some("/") && of("Domain=").is_none();
        if lower.starts_with("__host-") && !home {
            return Err("__Host-");
        }
        let key = format!("{name}|{:?}|{:?}", of("Domain="), of("Path="));
        Ok(format!("{key}|{}", has("Partitioned")))
    }

    #[test]
    fn s16_every_combination_is_refused_or_taken_by_browsers_and_removed_by_the_same_key() {
        let (mut taken, mut refused) = (0, 0);
        for name in ["id", "__Host-id", "__Secure-id", "__HOST-id"] {
            for domain in [None, Some("example.com")] {
                for path in ["/", "/shop"] {
                    for same_site in [SameSite::Strict, SameSite::Lax, SameSite::None] {
                        for (partitioned, secure) in
                            [(false, false), (false, true), (true, false), (true, true)]
                        {
                            let cookie = SessionCookie {
                                name: name.into(),
                                domain: domain.map(Into::into),
                                path: path.into(),
                                same_site,
                                partitioned,
                                secure,
                            };
                            let Ok(jar) = cookie.check() else {
                                refused += 1;
                                continue;
                            };
                            taken += 1;
                            let set = jar.set(&id(), Some(MAX_AGE));
                            let removal = jar.remove();
                            let set = browser_takes(set.to_str().unwrap()).unwrap();
                            assert_eq!(Ok(set), browser_takes(removal.to_str().unwrap()));
                        }
                    }
                }
            }
        }
        assert!(taken > 50 && refused > 50, "{taken} taken, {refused} refused");
    }

    #[test]
    fn s16_and_c117_the_default_is_the_strictest_that_works() {
        let jar = jar(&SessionCookie::default());
        let ids = "7".repeat(64);
        assert_eq!(
            jar.set(&id(), Some(Duration::from_secs(60))),
            format!("__Host-id={ids}; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax")
        );
        assert_eq!(
            jar.set(&id(), None),
            format!("__Host-id={ids}; Path=/; Secure; HttpOnly; SameSite=Lax")
        );
        assert_eq!(
            jar.remove(),
            "__Host-id=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
        assert!(jar.set(&id(), None).is_sensitive());
    }

    #[test]
    fn s16_prefixes_follow_from_the_attributes() {
        for (cookie, name) in [
            (SessionCookie::new("a"), "__Host-a"),
            (SessionCookie::new("a").path("/x"), "__Secure-a"),
            (SessionCookie::new("a").domain("example.com"), "__Secure-a"),
            (SessionCookie::new("a").insecure_for_development(), "a"),
            (SessionCookie::new("__Host-a"), "__Host-a"),
            (SessionCookie::new("__Secure-a"), "__Secure-a"),
        ] {
            assert_eq!(jar(&cookie).name, name);
        }
    }

    #[test]
    fn s16_what_is_no_cookie_is_refused_with_words() {
        for (cookie, word) in [
            (SessionCookie::new(""), "name"),
            (SessionCookie::new("a b"), "name"),
            (SessionCookie::new("a=b"), "name"),
            (SessionCookie::new("ä"), "name"),
            (SessionCookie::new("a").path("x"), "path"),
            (SessionCookie::new("a").path("/;Domain=evil"), "path"),
            (SessionCookie::new("a").path("/\r\nx"), "path"),
            (SessionCookie::new("a").domain(""), "domain"),
            (SessionCookie::new("a").domain("a..b"), "domain"),
            (SessionCookie::new("a").domain("a;b"), "domain"),
            (SessionCookie::new("__Host-a").domain("example.com"), "__Host-"),
            (SessionCookie::new("__Secure-a").insecure_for_development(), "HTTPS"),
        ] {
            let error = cookie.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(word), "{cookie:?}: {error}");
        }
    }

    #[test]
    fn s17_sizes_and_lifetimes_stay_within_what_browsers_take() {
        for (length, fits) in [(4095, true), (4096, true), (4097, false)] {
            let name = "n".repeat(length - Ticket::LONGEST - "__Host-".len());
            assert_eq!(SessionCookie::new(&name).check().is_ok(), fits, "{length}");
        }
        let path =
            |length: usize| SessionCookie::new("a").path(&format!("/{}", "p".repeat(length - 1)));
        assert!(path(1024).check().is_ok() && path(1025).check().is_err());
        let jar = jar(&SessionCookie::default());
        for (days, told) in [(399, 399), (400, 400), (401, 400), (u64::MAX / 86400, 400)] {
            let set = jar.set(&id(), Some(Duration::from_secs(days * 86400)));
            let told = format!("Max-Age={};", told * 86400);
            assert!(set.to_str().unwrap().contains(&told), "{days} days");
        }
        for (lifetime, told) in [(Duration::from_nanos(1), 1), (Duration::MAX, 400 * 86400)] {
            let set = jar.set(&id(), Some(lifetime));
            assert!(set.to_str().unwrap().contains(&format!("Max-Age={told};")));
        }
    }

    #[test]
    fn s19_of_many_cookies_of_the_name_at_most_four_are_looked_at() {
        let jar = jar(&SessionCookie::default());
        let read = |lines: &[String]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, line.parse().unwrap());
            }
            let brought = Brought::of(jar.values(&jar.pick(&headers)));
            (brought.any, brought.tickets.len(), brought.malformed)
        };
        let one = |n: usize| format!("__Host-id={n:064x}");
        assert_eq!(read(&[]), (false, 0, false));
        assert_eq!(read(&["id=1; x__Host-id=2; __host-id=3".into()]), (false, 0, false));
        assert_eq!(read(&[one(1)]), (true, 1, false));
        assert_eq!(read(&[format!("a=b; {};c=d", one(1))]), (true, 1, false));
        assert_eq!(read(&[one(1), one(1)]), (true, 1, false));
        assert_eq!(read(&[one(1), format!("{}; {}", one(2), one(3))]), (true, 3, false));
        assert_eq!(read(&(0..4).map(one).collect::<Vec<_>>()), (true, 4, false));
        assert_eq!(read(&(0..5).map(one).collect::<Vec<_>>()), (true, 0, true));
        assert_eq!(read(&["__Host-id=".into()]), (true, 0, true));
        assert_eq!(read(&["__Host-id".into()]), (true, 0, true));
        assert_eq!(read(&["__Host-id=\"{}\"".into(), one(1)]), (true, 1, true));
    }
}
