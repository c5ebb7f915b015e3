//! How clients and the engine speak of channels.

pub mod v1;
