//! Servers behind httpd, which do what a test wants of them.

use super::certificate::make_certificate;
use super::frame::Frame;
use super::handshake::SAMPLE_ACCEPT;
use super::raw::SILENCE;
use rustix::net::sockopt::set_socket_linger;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A server on a port of the loopback, or on a Unix socket. Its threads end with the tests.
pub(crate) struct BackEnd {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    folder: TempDir,
    heads: Arc<Mutex<Vec<String>>>,
}

impl BackEnd {
    /// What `serve` makes of each connection, once the head of its first request is there.
    pub(crate) fn new(serve: impl Fn(&str, &mut Conversation) + Send + Sync + 'static) -> Self {
        Self::start(None, serve)
    }

    /// Likewise, over TLS.
    pub(crate) fn tls(serve: impl Fn(&str, &mut Conversation) + Send + Sync + 'static) -> Self {
        let folder = folder();
        make_certificate(folder.path());
        let certificate = CertificateDer::from_pem_file(folder.path().join("certificate.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).expect("its key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_no_client_auth();
        let config = builder.with_single_cert(vec![certificate], key).expect("a pair of them");
        let mut back_end = Self::start(Some(Arc::new(config)), serve);
        back_end.folder = folder;
        back_end
    }

    /// Accepts every handshake, and says what it hears.
    pub(crate) fn echo() -> Self {
        Self::new(echo)
    }

    fn start(tls: Option<Arc<ServerConfig>>, serve: impl Fn(&str, &mut Conversation) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let heads = Arc::default();
        let accept = move || {
            let tcp = listener.accept()?.0;
            tcp.set_nodelay(true)?;
            tcp.set_read_timeout(Some(SILENCE))?;
            Ok(match &tls {
                None => Stream::Tcp(tcp),
                Some(config) => {
                    let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                    Stream::Tls(Box::new(StreamOwned::new(connection, tcp)))
                }
            })
        };
        run(accept, &heads, serve);
        Self { address, folder: folder(), heads }
    }

    /// The same on a Unix socket.
    pub(crate) fn unix(serve: impl Fn(&str, &mut Conversation) + Send + Sync + 'static) -> Self {
        let (folder, heads) = (folder(), Arc::default());
        let path = folder.path().join("back-end.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("its permissions");
        run(move || listener.accept().map(|(unix, _)| Stream::Unix(unix)), &heads, serve);
        Self { address: String::new(), folder, heads }
    }

    /// The path of the Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("back-end.sock")
    }

    /// What httpd checks its certificate by.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// The heads of the requests that have come, since this was asked last.
    pub(crate) fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The head of the one request that has come.
    #[track_caller]
    pub(crate) fn head(&self) -> String {
        let heads = self.heads();
        let [head] = &heads[..] else { panic!("one request, not {heads:#?}") };
        head.clone()
    }
}

/// For httpd's user to look into.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its permissions");
    folder
}

fn run(
    accept: impl Fn() -> io::Result<Stream> + Send + 'static,
    heads: &Arc<Mutex<Vec<String>>>,
    serve: impl Fn(&str, &mut Conversation) + Send + Sync + 'static,
) {
    let (heads, serve) = (heads.clone(), Arc::new(serve));
    thread::spawn(move || {
        while let Ok(stream) = accept() {
            let (heads, serve) = (heads.clone(), serve.clone());
            thread::spawn(move || {
                let mut conversation = Conversation { stream, received: Vec::new() };
                let Some(head) = conversation.head() else { return };
                heads.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
                serve(&head, &mut conversation);
            });
        }
    });
}

/// A client's frame from the start of `bytes`, and its length there.
fn from_client(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (length, header) = match second & 0x7F {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        length => (u64::from(length), 2),
    };
    assert_ne!(second & 0x80, 0, "an unmasked frame from a client (RFC 6455 section 5.1)");
    let key: [u8; 4] = *bytes.get(header..)?.first_chunk()?;
    let end = header + 4 + usize::try_from(length).expect("a length that fits");
    let masked = bytes.get(header + 4..end)?;
    let payload: Vec<u8> = masked.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let frame = Frame::new(first & 0x0F, payload);
    Some((if first & 0x80 == 0 { frame.unfinished() } else { frame }, end))
}

/// An answer that accepts the sample handshake.
pub(crate) fn accepting() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {SAMPLE_ACCEPT}\r\n\r\n"
    )
}

/// A server that accepts every handshake, and says what it hears.
pub(crate) fn echo(_head: &str, conversation: &mut Conversation) {
    conversation.say(accepting());
    while let Some(frame) = conversation.frame() {
        conversation.say(frame.unmasked());
        if frame.opcode == Frame::CLOSE {
            return;
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
    Unix(UnixStream),
}

/// A back end's connection with httpd, or with whoever it was given to.
pub(crate) struct Conversation {
    stream: Stream,
    received: Vec<u8>,
}

impl Conversation {
    /// Says something; who is not there any more does not hear it.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let _ = match &mut self.stream {
            Stream::Tcp(tcp) => tcp.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
            Stream::Unix(unix) => unix.write_all(bytes),
        };
    }

    /// The head of the next request, without the empty line; `None` at the end.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 4);
                return Some(head);
            }
            self.receive().ok().filter(|count| *count > 0)?;
        }
    }

    /// The next frame of a client's; `None` at the end.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = from_client(&self.received) {
                self.received.drain(..length);
                return Some(frame);
            }
            self.receive().ok().filter(|count| *count > 0)?;
        }
    }

    /// So many bytes; fewer where the end comes first.
    pub(crate) fn hear(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count && self.receive().is_ok_and(|count| count > 0) {}
        self.received.drain(..count.min(self.received.len())).collect()
    }

    /// Everything up to the end.
    pub(crate) fn hear_to_the_end(&mut self) -> Vec<u8> {
        while self.receive().is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.received)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 65536];
        let count = loop {
            let read = match &mut self.stream {
                Stream::Tcp(tcp) => tcp.read(&mut buffer),
                Stream::Tls(tls) => tls.read(&mut buffer),
                Stream::Unix(unix) => unix.read(&mut buffer),
            };
            match read {
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.received.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Says nothing any more, but listens.
    pub(crate) fn end_speaking(&mut self) {
        let _ = match &mut self.stream {
            Stream::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Stream::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.flush().and_then(|()| tls.sock.shutdown(Shutdown::Write))
            }
            Stream::Unix(unix) => unix.shutdown(Shutdown::Write),
        };
    }

    /// The connection ends with a reset.
    pub(crate) fn reset(&self) {
        let tcp = match &self.stream {
            Stream::Tcp(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
            Stream::Unix(_) => return,
        };
        set_socket_linger(tcp, Some(Duration::ZERO)).expect("SO_LINGER");
    }
}
