//! The client's end of a connection: TCP, or TLS on it.
//!
//! Both are read and written alike, blocking or not. What differs is that TLS may hold back what was written, see
//! [`Socket::write`], and that a buffer of less than 64 KiB may not take all that has come from TCP: then something stays
//! behind where epoll does not see it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::Result;

/// A connected socket.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

/// TLS 1.3, or what the server has, with whatever certificate it shows.
pub(crate) struct Tls {
    connection: ClientConnection,
    tcp: TcpStream,
}

impl Socket {
    /// On a blocking connection, with the TLS handshake done if it is to be TLS.
    pub(crate) fn new(tcp: TcpStream, tls: bool) -> Result<Self> {
        let mut socket = Self::begin(tcp, tls)?;
        if let Self::Tls(tls) = &mut socket {
            while tls.connection.is_handshaking() {
                tls.connection.complete_io(&mut tls.tcp)?;
            }
        }
        Ok(socket)
    }

    /// The TLS handshake comes with what is written and read.
    pub(crate) fn begin(tcp: TcpStream, tls: bool) -> Result<Self> {
        if !tls {
            return Ok(Self::Plain(tcp));
        }
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let connection = ClientConnection::new(configuration()?, name)?;
        Ok(Self::Tls(Box::new(Tls { connection, tcp })))
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.tcp,
        }
    }

    /// Whether something that was written is still here. The next write, or flush, goes on with it, once epoll says that
    /// the socket can be written.
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.connection.wants_write(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp().as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Socket {
    /// What TLS takes may leave later, see [`Socket::wants_write`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl Tls {
    /// Reads from TCP until there is something, then takes as much of it as the buffer holds.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut length = 0;
            // Its reader gives one record at a time.
            while length < buffer.len() {
                match self.connection.reader().read(&mut buffer[length..]) {
                    Ok(0) => return Ok(length),
                    Ok(n) => length += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock || length > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            self.connection.read_tls(&mut self.tcp)?;
            self.connection.process_new_packets().map_err(io::Error::other)?;
            // The handshake's next step.
            match self.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One write at a time under way, or what does not fit would be encrypted in ever smaller pieces.
        self.flush()?;
        let taken = self.connection.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}

fn configuration() -> Result<Arc<ClientConfig>> {
    static CONFIGURATION: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(configuration) = CONFIGURATION.get() {
        return Ok(configuration.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut configuration = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every handshake is a whole one, as of a client that comes for the first time.
    configuration.resumption = Resumption::disabled();
    Ok(CONFIGURATION.get_or_init(|| Arc::new(configuration)).clone())
}

/// Any certificate will do: the servers are the benchmark's own.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
