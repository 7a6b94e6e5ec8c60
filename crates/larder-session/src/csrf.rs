//! Requests that another site made the visitor's browser send: tokens, and where a request says that it comes from.

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::{Method, Uri};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Id, bytes, hex};

/// Makes and checks tokens, each bound to one id by a keyed hash.
#[derive(Clone)]
pub(crate) struct Tokens([u8; 32]);

pub(crate) const NONCE: usize = 16;

impl Tokens {
    pub(crate) fn new(material: &[u8]) -> Self {
        Tokens(blake3::derive_key(
            "larder-session v1: tokens against cross-site requests",
            material,
        ))
    }

    /// Another one each time: a page that is compressed does not betray it.
    pub(crate) fn make(&self, id: &Id, nonce: [u8; NONCE]) -> String {
        let mut text = self.mac(id, &nonce).to_hex().to_string();
        hex(&nonce, &mut text);
        text
    }

    /// In constant time, which is what comparing [`blake3::Hash`] takes.
    pub(crate) fn holds(&self, id: &Id, token: &str) -> bool {
        let Some((mac, nonce)) = token.as_bytes().split_at_checked(64) else { return false };
        let (Some(mac), Some(nonce)) = (bytes(mac), bytes(nonce)) else { return false };
        self.mac(id, &nonce) == blake3::Hash::from_bytes(mac)
    }

    fn mac(&self, id: &Id, nonce: &[u8; NONCE]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // Both have a fixed length.
        hasher.update(id.bytes()).update(nonce);
        hasher.finalize()
    }
}

/// Which pages may send requests that change something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    pub(crate) checked: bool,
    trusted: Vec<String>,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Origins {
    pub(crate) fn trust(&mut self, origin: &str) -> Result<()> {
        let uri: Option<Uri> = origin.parse().ok();
        let bare = uri.as_ref().is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.path() == "/"
                && uri.query().is_none()
                && !origin.ends_with('/')
                && !origin.contains('@')
        });
        if !bare {
            let words = "an origin is a scheme and a host, and a port if it has one, such as https://pay.example.com";
            return Err(Error::saying(ErrorKind::Configuration, words));
        }
        self.checked = true;
        // As browsers write it.
        self.trusted.push(origin.to_ascii_lowercase());
        Ok(())
    }

    /// Whether a page of this site, or nobody's page, sent that request.
    ///
    /// Browsers say so themselves in `Sec-Fetch-Site`; older ones say where they come from in `Origin`, which is
    /// compared with the host that they ask. What says neither is no browser that another site could use.
    pub(crate) fn allow(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
        if !self.checked || method.is_safe() {
            return true;
        }
        let Ok(origin) = only(headers, &ORIGIN) else { return false };
        if origin
            .is_some_and(|origin| self.trusted.iter().any(|trusted| trusted.as_bytes() == origin))
        {
            return true;
        }
        match (only(headers, &SEC_FETCH_SITE), origin) {
            (Err(()), _) => false,
            (Ok(Some(site)), _) => matches!(site, b"same-origin" | b"none"),
            (Ok(None), None) => true,
            (Ok(None), Some(origin)) => {
                let asked = uri.authority().map(|authority| authority.as_str().as_bytes());
                let asked = asked.or_else(|| only(headers, &HOST).ok().flatten());
                let at = origin.windows(3).position(|three| three == b"://");
                let host = at.map(|at| &origin[at + 3..]);
                host.zip(asked).is_some_and(|(host, asked)| host.eq_ignore_ascii_case(asked))
            }
        }
    }
}

// Several of a field that browsers send once are somebody's trick.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ()> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (one, None) => Ok(one.map(http::HeaderValue::as_bytes)),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Entropy;

    #[test]
    fn s25_a_token_holds_for_its_id_alone_and_no_character_of_it_may_differ() {
        let (tokens, others) = (Tokens::new(b"a"), Tokens::new(b"b"));
        let [id, other] = [(); 2].map(|()| Entropy::default().id().unwrap());
        let token = tokens.make(&id, [7; NONCE]);
        assert!(tokens.holds(&id, &token));
        assert!(!tokens.holds(&other, &token) && !others.holds(&id, &token));
        assert_ne!(token, tokens.make(&id, [8; NONCE]));
        for at in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(!tokens.holds(&id, &changed), "{at}, {bit}");
            }
            assert!(!tokens.holds(&id, &token[..at]));
        }
        for wrong in ["", "ä", &format!("{token}0"), &"é".repeat(48), &format!("+{}", &token[1..])]
        {
            assert!(!tokens.holds(&id, wrong));
        }
    }

    fn asked(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn requests_of_other_sites_are_refused_and_those_of_no_page_are_not() {
        let mut origins = Origins { checked: true, trusted: Vec::new() };
        origins.trust("https://pay.example").unwrap();
        let table: [(&[(&str, &str)], bool); 16] = [
            (&[], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "whatever")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://shop.example")], true),
            (&[("origin", "https://SHOP.example")], true),
            (&[("origin", "https://shop.example:8443")], false),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "https://shop.example"), ("origin", "https://evil.example")], false),
            (&[("origin", "https://pay.example"), ("sec-fetch-site", "cross-site")], true),
            (&[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], true),
            (&[("origin", "https://pay.example.evil")], false),
        ];
        for (fields, allowed) in table {
            let mut headers = asked(fields);
            headers.insert(HOST, "shop.example".parse().unwrap());
            let uri = Uri::from_static("/pay");
            assert_eq!(origins.allow(&Method::POST, &uri, &headers), allowed, "{fields:?}");
            assert!(origins.allow(&Method::GET, &uri, &headers));
            assert!(Origins::default().allow(&Method::POST, &uri, &headers));
            // HTTP/2 has the host in the target.
            headers.remove(HOST);
            let uri = Uri::from_static("https://shop.example/pay");
            assert_eq!(origins.allow(&Method::DELETE, &uri, &headers), allowed, "{fields:?}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_words() {
        for wrong in [
            "",
            "pay.example",
            "https://pay.example/",
            "https://pay.example/x",
            "ftp://a",
            "https://u@a",
            "*",
        ] {
            let error = Origins::default().trust(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
        }
    }
}
