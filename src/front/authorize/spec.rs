//! What the engine gets to ask an application again while a session lasts.

use super::{ApplicationConfig, GRACE, Said, said};
use crate::apache::request::Request;
use crate::engine::application::grip_sig::GripKey;
use crate::engine::application::loopback::Application;
use crate::engine::application::reserved::is_replayed;
use crate::engine::application::{ApplicationSpec, Loopback};
use crate::front::WebSocket;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Of a session whose application was asked at its handshake; `has_prefix`: its channels are below one. Cookies and the like are in it only where they will be needed.
pub(crate) fn of(request: &Request, has_prefix: bool) -> Option<Box<ApplicationSpec>> {
    let Said { answer, connection, url, is_from_htaccess, .. } = said(request)?;
    let config = request.config::<WebSocket>().of::<ApplicationConfig>().into_owned();
    let recheck = url.as_ref().and_then(|_| config.recheck(answer));
    let spec = ApplicationSpec {
        connection: connection.clone(),
        authorize: url.clone(),
        headers: recheck.map(|_| replayed(request)).unwrap_or_default(),
        meta: answer.meta.iter().filter(|(_, value)| !value.is_empty()).cloned().collect(),
        recheck,
        expires: answer.expires,
        here: recheck.and_then(|_| here(request)),
        secure: request.connection().is_tls(),
        says_channels: has_prefix || !is_from_htaccess,
    };
    Some(Box::new(spec))
}

/// How often, and how patiently, an application is asked again that was not asked by `WebSocketAuthorize`. It may say more of that.
pub(crate) fn own_recheck(request: &Request) -> (Option<Duration>, Duration) {
    let config = request.config::<WebSocket>().of::<ApplicationConfig>().into_owned();
    (config.recheck.flatten(), config.grace.unwrap_or(GRACE))
}

/// The key with which applications elsewhere are told who asks.
pub(crate) fn grip_key(request: &Request) -> Option<GripKey> {
    request.config::<WebSocket>().of::<ApplicationConfig>().into_owned().grip_key.flatten()
}

/// The lines of the handshake that go with later requests.
pub(crate) fn replayed(request: &Request) -> Vec<(String, Vec<u8>)> {
    let lines = request.headers_in().lines();
    let lines = lines.filter_map(|(name, value)| Some((name.to_str().ok()?.to_owned(), value.to_bytes().to_vec())));
    lines.filter(|(name, _)| is_replayed(name)).collect()
}

/// Where the engine asks this httpd: at the listener that the configuration names, or where the handshake has come in; `None` where
/// that is no address, as a Unix socket's.
pub(crate) fn here(request: &Request) -> Option<Application> {
    let config = request.config::<WebSocket>().of::<ApplicationConfig>().into_owned();
    match config.listener.flatten() {
        Some(listener) => Some(Application::Listener(listener)),
        None => loopback(request).map(Application::Here),
    }
}

fn loopback(request: &Request) -> Option<Loopback> {
    let (_, (address, port)) = request.addresses();
    let address: IpAddr = address.parse().ok()?;
    let secure = request.connection().is_tls();
    Some(Loopback {
        address: SocketAddr::new(address, port),
        secure,
        server_name: request.tls_variable(c"SSL_TLS_SNI").filter(|name| !name.is_empty()).map(String::from),
        certificate: request.tls_variable(c"SSL_SERVER_CERT").and_then(|pem| fingerprint(&pem)),
    })
}

/// Of a certificate's PEM (RFC 7468).
fn fingerprint(pem: &str) -> Option<[u8; 32]> {
    let lines = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let der = STANDARD.decode(lines.collect::<String>()).ok().filter(|der| !der.is_empty())?;
    digest(&SHA256, &der).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_known_by_its_der() {
        let pem = "-----BEGIN CERTIFICATE-----\nYWJj\nZGVm\n-----END CERTIFICATE-----\n";
        let expected: [u8; 32] = digest(&SHA256, b"abcdef").as_ref().try_into().unwrap();
        assert_eq!(fingerprint(pem), Some(expected));
        assert_eq!(fingerprint("-----BEGIN CERTIFICATE-----\n"), None);
        assert_eq!(fingerprint("no PEM"), None);
    }
}
