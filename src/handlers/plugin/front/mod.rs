//! C plugins written for the mod_websocket before this one: their binaries run here, thousands of sockets each.
//!
//! The plugin's code runs in httpd's children, where it has the request_rec, and the session in the engine, as for every
//! handler. Between the two goes a Unix stream socket with whole messages ([`crate::handlers::plugin`]).
//!
//! * [`abi`]: the binary interface: structures, the functions that a plugin calls, those that it has
//! * [`connection`]: one session, as the child sees it
//! * [`send_queue`]: what its plugin has sent and the engine has not taken
//! * [`executor`]: a child's threads: one that watches all the sockets to the engine, a few on which plugins' functions run
//! * [`watchdog`]: which of their functions are running, and for how long
//!
//! A connection's life: [`connection::Opening`] on the thread of the request, before the 101; [`connection::Connection`]
//! from then on. The request is kept until `on_disconnect` has returned: suspended on event, see [`crate::front::relay`], else by
//! its waiting thread.

#[allow(unsafe_code)] // The C interface: every block in it says who guarantees what it relies on.
pub mod abi;
pub mod connection;
pub mod executor;
pub mod send_queue;
pub mod watchdog;

pub use abi::{Loaded, Plugin};
pub use connection::{Connection, Opening};
