//! A mux: one Unix stream socket between a child of httpd and an engine thread, which carries the bytes of all the
//! sessions that the child has to stay in between of.
//!
//! A socket for each session would cost two process switches and four system calls a message. A mux is read and written
//! once for whatever is there.
//!
//! * [`frame`]: what goes over it
//! * [`send_buffer`]: what is to go next
//! * [`flow`]: the bytes of one session, and how many may be under way
//! * `stream`: what becomes of it at one end
//! * [`endpoint`]: one end, without the socket
//!
//! Neither side sends more of a stream than the other has said that it takes ([`flow::WINDOW`]), so nothing that is read
//! off a mux has to wait: a slow client stalls nobody, and holds no more than that.
//!
//! A stream is known by the number of its session, and no number comes twice. It has no beginning of its own: either side
//! may hear the other's first bytes before it has heard of the session, and keeps them. It is over when both have said
//! that they are gone from it.

pub mod endpoint;
pub mod flow;
pub mod frame;
pub mod send_buffer;
mod stream;
