//! The channel handler in an engine, with real sockets.
