//! `WebSocketHandler channel NAME …`: what is published to a channel reaches every client that is subscribed to it.
//!
//! * [`call`]: what httpd and this handler say to each other

pub mod call;
