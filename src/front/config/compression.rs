//! What is compressed, and how.

use super::words::{Words, bytes, on_off, one, set, within};
use super::{Config, directives};
use crate::wire::deflate::Compression;
use crate::wire::extension::{self, MAX_WINDOW_BITS, MIN_KEPT_WINDOW_BITS, Parameters};

const DEFAULT_LEVEL: u8 = 3;
/// The window, in bits, of clients that need not refer to earlier messages, and do all the same: what it saves them for its
/// memory is measured in `docs/protocol.md`.
const DEFAULT_CLIENT_WINDOW: u8 = 11;
/// Bytes; see [`Config::compression`].
const DEFAULT_MIN_SIZE: u32 = 256;

/// Which side's compressor may refer to earlier messages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Takeover {
    server: bool,
    client: bool,
}

directives! { pub(super) DIRECTIVES =
    c"WebSocketCompression" "On|Off" in Everywhere, else "Off" => |config, words| set(&mut config.compression, on_off(words)),
        c"Whether messages are compressed (permessage-deflate) for clients that can: 'On' or 'Off'";
    c"WebSocketCompressionLevel" "level" in Everywhere, else "3" => |config, words| set(&mut config.compression_level, within(words, "a level", 1..=9)),
        c"How hard the server compresses: from 1 (fast) to 9 (small)";
    c"WebSocketCompressionMinSize" "bytes" in Everywhere, else "256" => compression_min_size,
        c"Bytes of the smallest message that the server compresses";
    c"WebSocketCompressionContextTakeover" "Off|Server|Client|Both" in Everywhere, else "Off" => compression_takeover,
        c"Which side may refer to earlier messages when it compresses one: neither ('Off'), 'Server', 'Client' or 'Both'";
    c"WebSocketCompressionWindow" "bits [client's bits]" in Everywhere, else "15 11" => compression_window,
        c"How far back the compressor of the server, and that of a client, may refer, in bits: from 9 (512 bytes) to 15 (32 KB)";
}

impl Config {
    pub(super) fn wish(&self) -> Option<extension::Config> {
        self.compression.unwrap_or(false).then(|| {
            let takeover = self.compression_takeover.unwrap_or(Takeover { server: false, client: false });
            let clients = if takeover.client { MAX_WINDOW_BITS } else { DEFAULT_CLIENT_WINDOW };
            let (server_window_bits, client_window_bits) =
                self.compression_window.unwrap_or((MAX_WINDOW_BITS, clients));
            extension::Config { server_context_takeover: takeover.server, server_window_bits, client_window_bits }
        })
    }

    /// How a session compresses that has agreed on these parameters.
    pub(crate) fn compression(&self, parameters: Parameters) -> Compression {
        Compression {
            parameters,
            level: self.compression_level.unwrap_or(DEFAULT_LEVEL),
            min_size: self.compression_min_size.unwrap_or(DEFAULT_MIN_SIZE),
        }
    }
}

fn compression_window(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bits = |words| within(words, "a number of bits", MIN_KEPT_WINDOW_BITS..=MAX_WINDOW_BITS);
    config.compression_window = Some(match words {
        [_, _] => (bits(&words[..1])?, bits(&words[1..])?),
        _ => (bits(words)?, bits(words)?),
    });
    Ok(())
}

fn compression_min_size(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.compression_min_size = u32::try_from(bytes(words)?).ok();
    Ok(())
}

fn compression_takeover(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "Off, Server, Client or Both")?;
    let (server, client) = match word.to_ascii_lowercase().as_str() {
        "off" => (false, false),
        "server" => (true, false),
        "client" => (false, true),
        "both" => (true, true),
        _ => return Err(format!("expected Off, Server, Client or Both, got \"{word}\"")),
    };
    config.compression_takeover = Some(Takeover { server, client });
    Ok(())
}
