//! The peers that are Rust libraries: the benchmark's own binary becomes their echo server, on one thread.
//!
//! Each is what the library's own example does, and listens on 127.0.0.1, behind tokio-rustls if it is to be TLS.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use fastwebsockets::{FragmentCollector, OpCode, upgrade};
use futures_util::{StreamExt, TryStreamExt, future};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;

use super::Result;
use super::testkit::process::raise_descriptor_limit;

/// The argument with which the benchmark's own binary becomes a peer; after it come the library, the port, and for TLS
/// the files of a certificate and of its key.
pub(crate) const SERVE_PEER: &str = "--serve-peer";

pub(crate) const TOKIO_TUNGSTENITE: &str = "tokio-tungstenite";
pub(crate) const FASTWEBSOCKETS: &str = "fastwebsockets";

/// Serves as the arguments of this program say, until it is killed.
pub(crate) fn serve_peer() -> Result<()> {
    raise_descriptor_limit();
    let arguments: Vec<String> = std::env::args().skip_while(|argument| argument != SERVE_PEER).skip(1).collect();
    let (library, port, tls) = match arguments.as_slice() {
        [library, port] => (library, port, None),
        [library, port, certificate, key] => (library, port, Some(acceptor(certificate.as_ref(), key.as_ref())?)),
        _ => return Err(format!("{SERVE_PEER} LIBRARY PORT [CERTIFICATE KEY]").into()),
    };
    let fast = library == FASTWEBSOCKETS;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            // As httpd does for each of its connections.
            stream.set_nodelay(true)?;
            match tls.clone() {
                None => drop(tokio::spawn(echo(fast, stream))),
                Some(tls) => drop(tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        echo(fast, stream).await;
                    }
                })),
            }
        }
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<std::result::Result<Vec<_>, _>>()?;
    let configuration = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(configuration)))
}

/// Serves one connection. A client that goes without a closing handshake is an error to both libraries, and none here.
async fn echo<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(fast: bool, stream: S) {
    if fast {
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(upgraded));
        let _ = connection.with_upgrades().await;
        return;
    }
    // As in that project's `examples/echo-server.rs`.
    let Ok(websocket) = accept_async(stream).await else { return };
    let (write, read) = websocket.split();
    let data = read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
    let _ = data.forward(write).await;
}

/// As in `examples/echo_server.rs` of fastwebsockets.
async fn upgraded(
    mut request: Request<Incoming>,
) -> std::result::Result<Response<http_body_util::Empty<Bytes>>, fastwebsockets::WebSocketError> {
    let (response, upgrade) = upgrade::upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(async move {
        let Ok(websocket) = upgrade.await else { return };
        let mut websocket = FragmentCollector::new(websocket);
        while let Ok(frame) = websocket.read_frame().await {
            let echoed = match frame.opcode {
                OpCode::Close => break,
                OpCode::Text | OpCode::Binary => websocket.write_frame(frame).await,
                _ => Ok(()),
            };
            if echoed.is_err() {
                break;
            }
        }
    }));
    Ok(response)
}
