//! The parts of a URL, and what stands in them.

use larder_core::{Error, Result};
use url::Host;

use crate::config::{PORT, wrong};
use crate::dial::Address;

/// A URL taken apart. `Url` would refuse several hosts.
pub(crate) struct Parts<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    pub(crate) hosts: &'a str,
    // Without the slash at its start, or at its end.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(url: &'a str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(no_url)?;
        if url.contains('#') || url.contains(char::is_whitespace) {
            return Err(no_url());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (username, password) = match login.map(|login| login.split_once(':')) {
            Some(Some((username, password))) => (Some(username), Some(password)),
            Some(None) => (login, None),
            None => (None, None),
        };
        Ok(Parts { scheme, username, password, hosts, path: path.trim_end_matches('/'), query })
    }

    pub(crate) fn one_host(&self) -> Result<Address> {
        if self.hosts.contains(',') {
            return Err(wrong(
                "the URL names several hosts; write redis+cluster:// for a cluster's nodes, redis+sentinel:// for sentinels",
            ));
        }
        host(self.hosts, PORT)
    }

    pub(crate) fn socket(&self) -> Result<Address> {
        if !self.hosts.is_empty() || self.path.is_empty() {
            return Err(wrong(
                "a socket's URL has three slashes; write redis+unix:///path/to/socket",
            ));
        }
        Ok(Address::Unix(format!("/{}", decoded(self.path)?).into()))
    }
}

pub(crate) fn addresses<S: AsRef<str>>(
    hosts: impl IntoIterator<Item = S>,
    port: u16,
) -> Result<Vec<Address>> {
    let addresses: Vec<Address> =
        hosts.into_iter().map(|text| host(text.as_ref(), port)).collect::<Result<_>>()?;
    if addresses.is_empty() { Err(no_host()) } else { Ok(addresses) }
}

// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host(text: &str, otherwise: u16) -> Result<Address> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(no_host)?,
        None => otherwise,
    };
    let host = match Host::parse(name).map_err(|_| no_host())? {
        Host::Domain(name) => name,
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    };
    Ok(Address::Tcp { host, port })
}

fn no_host() -> Error {
    wrong("a host of the URL is missing or cannot be read; write redis://host:6379/0")
}

fn no_url() -> Error {
    wrong(
        "the URL cannot be read; write redis://user:password@host:6379/0, characters other than letters and digits of the password percent-encoded",
    )
}

pub(crate) fn decoded(text: &str) -> Result<String> {
    // `+` is a plus in these parts of a URL, so this is not form decoding.
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) if byte == b'%' => {
                bytes.push(value);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong("a percent-encoded part of the URL is not UTF-8"))
}

pub(crate) fn database(text: &str, otherwise: i64) -> Result<i64> {
    if text.is_empty() {
        return Ok(otherwise);
    }
    text.parse::<u16>()
        .map(i64::from)
        .map_err(|_| wrong("the URL's path is the number of a database; write redis://host:6379/0"))
}
