//! Whether a request comes from this machine, and what the configuration says of names and proxies.

use super::conftree;
use super::connection::Connection;
use super::pool::Pool;
use super::request::Request;
use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where the pool of the configuration keeps [`Written`].
const WRITTEN: &CStr = c"mod_websocket written";

/// What the configuration says of names and proxies, as it was written.
#[derive(Default)]
struct Written {
    /// Of `ServerName`.
    names: Vec<String>,
    /// Of `ServerAlias`.
    aliases: Vec<String>,
    /// Of `RemoteIPHeader`.
    headers: Vec<String>,
}

/// In httpd's parent, before it forks children: what requests are compared with.
pub(super) fn prepare(configuration: &Pool) {
    let all = |directive| {
        let lines = conftree::arguments_of(directive);
        lines.iter().flat_map(|line| words(line).map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let names = all("ServerName").iter().map(|name| bare(name).to_owned()).collect();
    let written = Written { names, aliases: all("ServerAlias"), headers: all("RemoteIPHeader") };
    configuration.keep(WRITTEN, written);
}

impl Connection {
    /// Who is at the other end of the socket, whatever a module makes of it.
    fn peer(&self) -> Option<SocketAddr> {
        let peer = rustix::net::getpeername(self.socket().ok()?).ok()?;
        SocketAddr::try_from(peer?).ok()
    }
}

impl Request {
    /// The other end of the socket is on this machine, and is the client as httpd sees it.
    pub fn is_from_this_machine(&self) -> bool {
        let connection = self.connection();
        let Some(peer) = connection.master().unwrap_or(connection).peer() else { return false };
        // A link-local address comes with its interface.
        let client = self.client_address();
        let client = client.split('%').next().unwrap_or_default().parse::<IpAddr>();
        client.is_ok_and(|client| client.to_canonical() == peer.ip().to_canonical()) && is_own(peer)
    }

    /// A module (mod_remoteip) has given it another client than the one at the other end of the socket, even one of the same
    /// address.
    pub fn has_given_client(&self) -> bool {
        // SAFETY: the request and its connection are valid.
        unsafe { (*self.as_ptr()).useragent_addr != (*(*self.as_ptr()).connection).client_addr }
    }

    /// The name of a header line is one by which the configuration lets proxies tell who the client is (`RemoteIPHeader`).
    pub fn is_header_of_remoteip(&self, name: &str) -> bool {
        self.written().is_some_and(|written| written.headers.iter().any(|header| header.eq_ignore_ascii_case(name)))
    }

    /// A `ServerName` or `ServerAlias` of the configuration has this name; not one that httpd has made up where there is none.
    pub fn is_written_name(&self, host: &str) -> bool {
        self.written().is_some_and(|written| {
            written.names.iter().any(|name| name.eq_ignore_ascii_case(host))
                || written.aliases.iter().any(|alias| is_of_alias(host, alias))
        })
    }

    fn written(&self) -> Option<&Written> {
        self.server().configuration_pool().kept(WRITTEN)
    }

    /// The name of the server that the client asks for, as httpd has understood it: from the request line, or the Host. In
    /// small letters, without a port, without brackets.
    pub fn host_name(&self) -> Option<String> {
        // SAFETY: NULL or a string that lives as long as the request.
        unsafe { super::request::text((*self.as_ptr()).hostname) }
            .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
    }
}

/// The address is the loopback's, or one that an interface of this machine has.
fn is_own(address: SocketAddr) -> bool {
    let own = address.ip().to_canonical();
    own.is_loopback() || interfaces().iter().any(|interface| is_same(*interface, address))
}

fn is_same(interface: SocketAddr, address: SocketAddr) -> bool {
    // The neighbours of two links may have the same address.
    let scope = |address: SocketAddr| match address {
        SocketAddr::V6(address) if address.ip().is_unicast_link_local() => address.scope_id(),
        _ => 0,
    };
    interface.ip().to_canonical() == address.ip().to_canonical() && scope(interface) == scope(address)
}

/// The addresses of this machine's interfaces; none where they cannot be asked for.
fn interfaces() -> Vec<SocketAddr> {
    struct List(*mut libc::ifaddrs);
    impl Drop for List {
        fn drop(&mut self) {
            // SAFETY: getifaddrs made it, and nobody looks at it any more.
            unsafe { libc::freeifaddrs(self.0) };
        }
    }
    let mut first = std::ptr::null_mut();
    // SAFETY: where this succeeds it leaves a list there that is ours to free.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Vec::new();
    }
    let list = List(first);
    let mut next = list.0;
    let mut found = Vec::new();
    // SAFETY: NULL or an entry of the list, whose address is NULL or a structure of its family.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: NULL or an address of its family.
        match unsafe { entry.ifa_addr.as_ref() }.map(|address| i32::from(address.sa_family)) {
            Some(libc::AF_INET) => {
                // SAFETY: the family says that it is one.
                let address = unsafe { *entry.ifa_addr.cast::<libc::sockaddr_in>() };
                found.push((Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()), 0).into());
            }
            Some(libc::AF_INET6) => {
                // SAFETY: the family says that it is one.
                let address = unsafe { *entry.ifa_addr.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                found.push(SocketAddrV6::new(ip, 0, 0, address.sin6_scope_id).into());
            }
            _ => {}
        }
        next = entry.ifa_next;
    }
    found
}

fn words(arguments: &str) -> impl Iterator<Item = &str> {
    arguments.split_whitespace().map(|word| word.trim_matches(['"', '\'']))
}

/// `ServerName [scheme://]name[:port]` without what is optional.
fn bare(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, name)| name);
    name.split(':').next().unwrap_or(name)
}

/// What a pattern matches counts where only names below a domain can match it: of `*.example.com`, not of `*`, `www.*`,
/// `*example.com` or `*.com`, for which others may register a name.
fn is_of_alias(host: &str, alias: &str) -> bool {
    let Some(wild) = alias.rfind(['*', '?']) else { return alias.eq_ignore_ascii_case(host) };
    let domain = &alias[wild + 1..];
    let is_domain = domain.starts_with('.') && domain[1..].split('.').filter(|label| !label.is_empty()).count() >= 2;
    is_domain && matches(alias.to_ascii_lowercase().as_bytes(), host.to_ascii_lowercase().as_bytes())
}

/// As ap_strcasecmp_match does it, for what is in small letters.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        ([b'*', rest @ ..], text) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        ([b'?', rest @ ..], [_, text @ ..]) => matches(rest, text),
        ([first, rest @ ..], [other, text @ ..]) => first == other && matches(rest, text),
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_and_the_interfaces_are_this_machine() {
        let is_own = |address: &str| is_own(format!("{address}:1").parse().unwrap());
        for address in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_own(address), "{address}");
        }
        for address in ["192.0.2.1", "[::]", "[::ffff:192.0.2.1]", "0.0.0.0", "[2001:db8::1]"] {
            assert!(!is_own(address), "{address}");
        }
        assert!(interfaces().iter().any(|address| address.ip() == Ipv4Addr::LOCALHOST), "{:?}", interfaces());
    }

    #[test]
    fn a_link_local_address_is_of_one_link() {
        let at = |scope| SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, scope).into();
        assert!(is_same(at(2), at(2)));
        assert!(!is_same(at(2), at(3)));
    }

    #[test]
    fn names_are_taken_out_of_their_directives() {
        for name in ["www.example", "www.example:8080", "https://www.example", "https://www.example:443"] {
            assert_eq!(bare(name), "www.example", "{name}");
        }
        assert_eq!(words(" \"a.example\"  b.example ").collect::<Vec<_>>(), ["a.example", "b.example"]);
    }

    #[test]
    fn patterns_count_below_a_domain() {
        for (host, alias) in [
            ("www.example.com", "WWW.example.com"),
            ("a.example.com", "*.example.com"),
            ("a.b.example.com", "*.Example.com"),
            ("web1.example.com", "web?.example.com"),
            ("web12.example.com", "web*.example.com"),
        ] {
            assert!(is_of_alias(host, alias), "{host} {alias}");
        }
        for (host, alias) in [
            ("evil.test", "*"),
            ("www.evil.test", "www.*"),
            ("evilexample.com", "*example.com"),
            ("evilexample.co.uk", "*example.co.uk"),
            ("evil.com", "*.com"),
            ("evil.com", "*.com."),
            ("evil.test", "*.*"),
            ("a.evil.test", "*.?.test"),
            ("example.com", "*.example.com"),
            ("web12.example.com", "web?.example.com"),
            ("www.example.org", "*.example.com"),
        ] {
            assert!(!is_of_alias(host, alias), "{host} {alias}");
        }
    }
}
