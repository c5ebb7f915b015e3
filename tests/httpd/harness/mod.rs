//! A private httpd for each test, the clients that talk to it, and the checks no test can forget.
//!
//! ```ignore
//! let server = Httpd::new(Mpm::Event).echo().start();
//! let mut client = Raw::open(&server, "/echo");
//! client.send(&Frame::text("hello"));
//! client.expect(&Frame::text("hello"));
//! // Dropping the server stops it, and fails the test on an unexpected line in the error log, a crashed child, a socket
//! // the engine still holds, or a process left behind.
//! ```

pub(crate) mod back_end;
pub(crate) mod channel;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod log;
pub(crate) mod php;
pub(crate) mod plugin;
pub(crate) mod publish;
pub(crate) mod python;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod server;
pub(crate) mod tls;

#[path = "../../../testkit/mod.rs"]
mod testkit;

pub(crate) use testkit::{certificate, frame, handshake, installation, port, process, wait};

pub(crate) use client::Client;
pub(crate) use config::{Httpd, Mpm};
pub(crate) use frame::Frame;
pub(crate) use handshake::{Handshake, Response};
pub(crate) use installation::module_under_test;
pub(crate) use process::Process;
pub(crate) use raw::Raw;
pub(crate) use server::Server;
pub(crate) use wait::{heavy, wait_until};

/// `every_mpm!(sizes)` makes the tests `sizes::event`, `sizes::worker` and `sizes::prefork` of `fn sizes(mpm: Mpm)`.
macro_rules! every_mpm {
    ($($test:ident),+ $(,)?) => {
        $($crate::harness::mpms!($test: event Event, worker Worker, prefork Prefork);)+
    };
}
pub(crate) use every_mpm;

/// As `every_mpm!`, of event and worker alone: mod_http2 is for them.
macro_rules! with_http2 {
    ($($test:ident),+ $(,)?) => {
        $($crate::harness::mpms!($test: event Event, worker Worker);)+
    };
}
pub(crate) use with_http2;

macro_rules! mpms {
    ($test:ident: $($name:ident $mpm:ident),+) => {
        mod $test {
            $(
                #[test]
                fn $name() {
                    super::$test($crate::harness::Mpm::$mpm);
                }
            )+
        }
    };
}
pub(crate) use mpms;
