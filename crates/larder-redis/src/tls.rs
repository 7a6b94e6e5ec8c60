//! TLS, by rustls with a provider chosen here: the process-wide one may be ambiguous or missing, and rustls panics then.

use larder_core::Result;

use crate::config::wrong;

#[cfg(feature = "tls")]
pub(crate) use enabled::Tls;

#[cfg(not(feature = "tls"))]
pub(crate) use disabled::Tls;

/// What a URL says of certificates: the paths of files in PEM form.
#[derive(Default)]
pub(crate) struct Files {
    root_certificate: Option<String>,
    client_certificate: Option<String>,
    client_key: Option<String>,
}

impl Files {
    /// Whether it is a parameter of theirs.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> bool {
        let place = match name {
            "root_certificate" => &mut self.root_certificate,
            "client_certificate" => &mut self.client_certificate,
            "client_key" => &mut self.client_key,
            _ => return false,
        };
        *place = Some(value.to_owned());
        true
    }

    /// Reads them.
    pub(crate) fn read(self, tls: Option<Tls>) -> Result<Option<Tls>> {
        let Files { root_certificate, client_certificate, client_key } = self;
        if root_certificate.is_none() && client_certificate.is_none() && client_key.is_none() {
            return Ok(tls);
        }
        let mut tls = tls.ok_or_else(|| {
            wrong(
                "root_certificate, client_certificate and client_key are for TLS; write rediss://",
            )
        })?;
        if let Some(path) = root_certificate {
            tls = tls.with_roots(&file("root_certificate", &path)?)?;
        }
        match (client_certificate, client_key) {
            (Some(certificate), Some(key)) => {
                let certificate = file("client_certificate", &certificate)?;
                tls.with_client(&certificate, &file("client_key", &key)?).map(Some)
            }
            (None, None) => Ok(Some(tls)),
            _ => Err(wrong("client_certificate and client_key belong together; give both")),
        }
    }
}

fn file(name: &str, path: &str) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| wrong(format!("{name}: the file cannot be read ({})", error.kind())))
}

#[cfg(feature = "tls")]
mod enabled {
    use std::io;
    use std::sync::Arc;

    use larder_core::Result;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use crate::config::wrong;

    type Stream = tokio_rustls::client::TlsStream<TcpStream>;

    type Chain = Vec<CertificateDer<'static>>;

    #[derive(Clone)]
    pub(crate) struct Tls {
        roots: Arc<RootCertStore>,
        client: Option<Arc<(Chain, PrivateKeyDer<'static>)>>,
        config: Arc<ClientConfig>,
    }

    impl Tls {
        pub(crate) fn new() -> Result<Self> {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            Self::with(Arc::new(roots), None)
        }

        fn with(
            roots: Arc<RootCertStore>,
            client: Option<Arc<(Chain, PrivateKeyDer<'static>)>>,
        ) -> Result<Self> {
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|_| wrong("TLS cannot be set up: no common protocol version"))?
                .with_root_certificates(roots.clone());
            let config = match client.as_deref() {
                None => config.with_no_client_auth(),
                Some((chain, key)) => {
                    config.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|_| {
                        wrong("the client's certificate and key do not belong together")
                    })?
                }
            };
            Ok(Tls { roots, client, config: Arc::new(config) })
        }

        pub(crate) fn with_roots(self, pem: &[u8]) -> Result<Self> {
            let mut roots = RootCertStore::empty();
            for certificate in chain(pem)? {
                roots.add(certificate).map_err(|_| no_certificate())?;
            }
            Self::with(Arc::new(roots), self.client)
        }

        pub(crate) fn with_client(self, certificate: &[u8], key: &[u8]) -> Result<Self> {
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|_| wrong("the text holds no private key in PEM form"))?;
            Self::with(self.roots, Some(Arc::new((chain(certificate)?, key))))
        }

        pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Stream> {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            TlsConnector::from(self.config.clone()).connect(name, stream).await
        }
    }

    fn chain(pem: &[u8]) -> Result<Chain> {
        let chain: Chain = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| no_certificate())?;
        if chain.is_empty() { Err(no_certificate()) } else { Ok(chain) }
    }

    fn no_certificate() -> larder_core::Error {
        wrong("the text holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    }
}

#[cfg(not(feature = "tls"))]
mod disabled {
    use std::io;

    use larder_core::Result;
    use tokio::net::TcpStream;

    use crate::config::wrong;

    type Stream = TcpStream;

    // Cannot be made.
    #[derive(Clone)]
    pub(crate) enum Tls {}

    impl Tls {
        pub(crate) fn new() -> Result<Self> {
            Err(wrong(
                "rediss:// needs the feature `tls` of larder-redis; enable it, or write redis://",
            ))
        }

        pub(crate) fn with_roots(self, _: &[u8]) -> Result<Self> {
            match self {}
        }

        pub(crate) fn with_client(self, _: &[u8], _: &[u8]) -> Result<Self> {
            match self {}
        }

        pub(crate) async fn connect(&self, _: &str, _: TcpStream) -> io::Result<Stream> {
            match *self {}
        }
    }
}
