//! Connections to who is asked, with TLS or without.

use super::{Application, Loopback};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long connecting may take, with TLS.
const CONNECTING: Duration = Duration::from_secs(5);

/// Where a connection goes, and what it must show: what of two requests is the same here can have one connection, one after the
/// other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    address: Address,
    tls: Option<Tls>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Address {
    Ip(SocketAddr),
    Name(String, u16),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tls {
    /// The name that is called for; `None`: none is.
    name: Option<String>,
    trust: Trust,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Trust {
    /// This certificate, by its SHA-256; `None`: no certificate will do.
    Pinned(Option<[u8; 32]>),
    /// What the system's authorities have signed for the name.
    Authorities,
}

/// A stream of bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Peer {
    pub(super) fn of(application: &Application) -> Peer {
        match application {
            Application::Here(Loopback { address, secure, server_name, certificate }) => {
                let tls = || Tls { name: server_name.clone(), trust: Trust::Pinned(*certificate) };
                Peer { address: Address::Ip(*address), tls: secure.then(tls) }
            }
            Application::Listener(address) => Peer { address: Address::Ip(*address), tls: None },
            Application::Elsewhere { host, port, secure } => {
                let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let tls = || Tls { name: Some(name.clone()), trust: Trust::Authorities };
                Peer { tls: secure.then(tls), address: Address::Name(name.clone(), *port) }
            }
        }
    }

    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let connected = tokio::time::timeout(CONNECTING, self.connected()).await;
        connected.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")))
    }

    async fn connected(&self) -> io::Result<Box<dyn Stream>> {
        let stream = match &self.address {
            Address::Ip(address) => TcpStream::connect(address).await?,
            Address::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
        };
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let address = stream.peer_addr()?;
        let name = match &tls.name {
            Some(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
            // Addresses are never called for.
            None => ServerName::IpAddress(address.ip().into()),
        };
        let stream = TlsConnector::from(tls.config()?).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}

impl Tls {
    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let Trust::Pinned(pin) = &self.trust else { return with_authorities() };
        let pin = pin.ok_or_else(|| {
            io::Error::other(
                "the certificate of the handshake is not known: name a listener without TLS by WebSocketLoopback",
            )
        })?;
        let verifier = PinnedVerifier { pin, provider: provider() };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Arc::new(speaking_http(builder.with_no_client_auth())))
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn with_authorities() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|why| why.to_string())?;
        Ok(Arc::new(speaking_http(builder.with_root_certificates(roots).with_no_client_auth())))
    });
    config.clone().map_err(io::Error::other)
}

fn speaking_http(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Takes one certificate, whoever has signed it and for however long: it is the one that the client has been shown.
#[derive(Debug)]
struct PinnedVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = ::ring::digest::digest(&::ring::digest::SHA256, end_entity);
        if shown.as_ref() == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
