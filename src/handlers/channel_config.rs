//! What the directives of channels say to other handlers than theirs, whose sessions have channels as well.

pub(crate) use super::channel::config::ChannelConfig;
