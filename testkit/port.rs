//! A loopback port that stays ours from the moment it is chosen until the test is over.

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

/// A port of 127.0.0.1 that nobody else will be given.
///
/// The socket that reserves it is bound and never listens. The kernel then neither hands the port to another
/// `bind(0)` nor uses it for an outgoing connection, while httpd, which sets SO_REUSEADDR as we do, may listen on it.
pub(crate) struct Port {
    number: u16,
    _reservation: OwnedFd,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("a socket to reserve a port with");
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a free port on 127.0.0.1");
        sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR");
        let address = getsockname(&socket).expect("the reserved address");
        let address = SocketAddrV4::try_from(address).expect("an IPv4 address");
        Self { number: address.port(), _reservation: socket }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
