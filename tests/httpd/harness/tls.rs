//! TLS for the tests: the certificates of clients, and a client that checks the server's.

use super::certificate::openssl;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// Where a server's certificate lies under its ServerRoot.
pub(crate) const CERTIFICATE: &str = "conf/certificate.pem";
/// The key to it.
pub(crate) const KEY: &str = "conf/key.pem";
/// The authority that signs clients' certificates.
pub(crate) const CLIENT_AUTHORITY: &str = "conf/client-authority.pem";

/// Writes an authority, and the certificate of a client that it has signed.
pub(super) fn make_client_certificate(root: &Path) {
    let conf = root.join("conf");
    openssl(&conf, "-subj /CN=Clients -keyout client-authority-key.pem -out client-authority.pem");
    openssl(
        &conf,
        "-subj /CN=alice -CA client-authority.pem -CAkey client-authority-key.pem \
         -addext basicConstraints=critical,CA:FALSE -keyout client-key.pem -out client.pem",
    );
}

/// A client that trusts the certificate of the server under `root` and no other.
pub(crate) fn client(
    root: &Path,
    versions: &[&'static SupportedProtocolVersion],
    with_certificate: bool,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(root.join(CERTIFICATE)).expect("the server's certificate");
    roots.add(certificate).expect("a certificate to trust");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    let builder = builder.with_root_certificates(roots);
    let mut config = if with_certificate {
        let certificate = CertificateDer::from_pem_file(root.join("conf/client.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(root.join("conf/client-key.pem")).expect("its key");
        builder.with_client_auth_cert(vec![certificate], key).expect("a pair of them")
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A client's connection: TCP, or TLS on it.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// With TLS if there is a configuration of it. The TLS handshake comes with the first byte that is written.
    pub(super) fn new(tcp: TcpStream, tls: Option<&Arc<ClientConfig>>) -> Self {
        let Some(config) = tls else { return Self::Plain(tcp) };
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let connection = ClientConnection::new(config.clone(), name).expect("a TLS client");
        Self::Tls(Box::new(StreamOwned::new(connection, tcp)))
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    pub(super) fn tls(&mut self) -> Option<&mut ClientConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(&mut tls.conn),
        }
    }
}

/// What rustls's own stream does, but it would not read as long as it has something to write that the server does not take.
fn read_tls(connection: &mut ClientConnection, tcp: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let patience = tcp.read_timeout()?.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: 0 });
    loop {
        match connection.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, connection.wants_write());
        let mut ready = [PollFd::new(&*tcp, flags)];
        if poll(&mut ready, patience.as_ref())? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let ready = ready[0].revents();
        if ready.contains(PollFlags::OUT) {
            tcp.set_nonblocking(true)?;
            let written = connection.write_tls(tcp);
            tcp.set_nonblocking(false)?;
            if let Err(error) = written
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Err(error);
            }
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            connection.read_tls(tcp)?;
            connection.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Read for Stream {
    /// The end of the stream is the peer's close_notify, if this is TLS; an end of TCP without it is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => read_tls(&mut tls.conn, &mut tls.sock, buffer),
        }
    }
}

impl Write for Stream {
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
