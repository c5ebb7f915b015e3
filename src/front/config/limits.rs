//! What a session may use, and how many there may be.

use super::words::{MAX_SECONDS, Words, bound, bytes, is_off, on_off, one, seconds, seconds_or, set};
use super::{Config, directives};
use crate::engine::{Limits, MessageTimeout, Ping, Quota};
use std::num::NonZeroU32;
use std::time::Duration;

/// The default of `WebSocketMaxMessageSize` where there is none, but for what is compressed: only whole ones can be decompressed.
const COMPRESSED_MESSAGE_SIZE: usize = 32 << 20;

directives! { pub(super) DIRECTIVES =
    c"WebSocketMaxMessageSize" "bytes" in Everywhere, else "1048576" => max_message_size,
        c"Bytes of the largest message that is accepted, its fragments added up";
    c"MaxMessageSize" "bytes" in Everywhere, else "none" => old_max_message_size,
        c"The older name of WebSocketMaxMessageSize";
    c"WebSocketPing" "interval [timeout]|Off" in Everywhere, else "30 10" => ping,
        c"Seconds of silence before a client is sent a Ping, and seconds after which an unanswered one ends the connection; or 'Off'";
    c"WebSocketIdleTimeout" "seconds|Off" in Everywhere, else "Off" => idle_timeout,
        c"Seconds without a message either way before a connection is closed, or 'Off'";
    c"WebSocketMessageTimeout" "seconds [rate]|Off" in Everywhere, else "60 500" => message_timeout,
        c"Seconds that a message may take to come once it has begun, and bytes of it that add a second; or 'Off'";
    c"WebSocketCloseTimeout" "seconds" in Everywhere, else "5" => close_timeout,
        c"Seconds that a client has to answer a Close of the server";
    c"WebSocketSendBuffer" "bytes" in Everywhere, else "1048576" => send_buffer,
        c"Bytes that may wait for a client before nothing more is read from it or it is given up";
    c"WebSocketAllowReservedStatusCodes" "On|Off" in Everywhere, else "Off" => |config, words| set(&mut config.reserved_close_codes, on_off(words)),
        c"Whether clients may close with the codes 1004, 1014 and 1016 to 2999: 'On' or 'Off'";
    c"WebSocketMaxConnections" "number|Off" in Everywhere, else "Off" => max_connections,
        c"Connections that may be open here at a time, or 'Off'";
    c"WebSocketMaxConnectionsPerClient" "number|Off" in Everywhere, else "Off" => max_connections_per_client,
        c"Connections that one client address may have open here at a time, or 'Off'";
    c"WebSocketDrainTimeout" "seconds" in Everywhere, else "60" => drain_timeout,
        c"How long sessions over TLS or HTTP/2 go on after a graceful restart, before they are closed with 1012";
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        let (largest, is_stream) = match self.handler() {
            Some(chosen) => (chosen.front.max_message_size(self), chosen.front.is_stream(self)),
            None => (default.max_message_size, false),
        };
        Limits {
            max_message_size: self.max_message_size.unwrap_or(largest),
            send_buffer: self.send_buffer.unwrap_or(default.send_buffer),
            close_timeout: self.close_timeout.unwrap_or(default.close_timeout),
            ping: self.ping.unwrap_or(default.ping),
            idle_timeout: self.idle_timeout.unwrap_or(default.idle_timeout),
            message_timeout: self.message_timeout.unwrap_or(default.message_timeout).filter(|_| !is_stream),
        }
    }

    /// What a session may use that compresses.
    pub(crate) fn limits_of_compressed(&self) -> Limits {
        let limits = self.limits();
        match limits.max_message_size {
            Limits::UNLIMITED => Limits { max_message_size: COMPRESSED_MESSAGE_SIZE, ..limits },
            _ => limits,
        }
    }

    /// Whether a client may close with a code that has no meaning yet.
    pub(crate) fn reserved_close_codes(&self) -> bool {
        self.reserved_close_codes.unwrap_or(false)
    }

    /// How long relayed sessions go on when their child of httpd is to end.
    pub(crate) fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(Duration::from_secs(60))
    }

    /// What a session of this client counts for, at a virtual host of this name.
    pub(crate) fn quotas(&self, host: &str, client: &str) -> Vec<Quota> {
        let all = self.max_connections.all();
        let all = all.map(|bound| bound.quota("WebSocketMaxConnections", host, None));
        let per_client = self.max_connections_per_client.all();
        let per_client = per_client.map(|bound| bound.quota("WebSocketMaxConnectionsPerClient", host, Some(client)));
        let own = self.handler().map(|chosen| chosen.front.quotas(self, host, client)).unwrap_or_default();
        per_client.chain(all).chain(own).collect()
    }
}

fn max_message_size(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.max_message_size.write(&config.place, bytes(words)?);
    Ok(())
}

fn old_max_message_size(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    // It took more than can be had, and so do the configurations that were written for it.
    let huge = matches!(words, [word] if word.parse::<u64>().is_ok_and(|size| size > i32::MAX as u64));
    let size = if huge { i32::MAX as usize } else { bytes(words)? };
    config.max_message_size.write(&config.place, size);
    Ok(())
}

fn ping(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let default = Ping::default();
    let ping = match words {
        [off] if is_off(off) => None,
        [interval] => Some(Ping { interval: seconds_or(interval, " or Off")?, ..default }),
        [interval, timeout] => Some(Ping { interval: seconds(interval)?, timeout: seconds(timeout)? }),
        _ => {
            return Err(
                "expected seconds of silence before a Ping, optionally followed by seconds for the answer; or Off"
                    .into(),
            );
        }
    };
    config.ping.write(&config.place, ping);
    Ok(())
}

fn idle_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds or Off")?;
    let timeout = if is_off(word) { None } else { Some(seconds_or(word, " or Off")?) };
    config.idle_timeout.write(&config.place, timeout);
    Ok(())
}

fn message_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let (word, rate) = match words {
        [off] if is_off(off) => {
            config.message_timeout.write(&config.place, None);
            return Ok(());
        }
        [word] => (word, "0"),
        [word, rate] => (word, &**rate),
        _ => {
            return Err(format!(
                "expected seconds, optionally followed by a rate; or Off; got {} arguments",
                words.len()
            ));
        }
    };
    let seconds = word.parse().ok().filter(|seconds: &NonZeroU32| u64::from(seconds.get()) <= MAX_SECONDS);
    let seconds = seconds.ok_or_else(|| format!("expected 1–{MAX_SECONDS} seconds or Off, got \"{word}\""))?;
    let known = words.len() < 2 || rate != "0";
    let rate = rate.parse().ok().filter(|rate| known && *rate <= i32::MAX as u32);
    let rate = rate.ok_or_else(|| format!("expected a rate of 1–{} bytes a second, got \"{}\"", i32::MAX, words[1]))?;
    config.message_timeout.write(&config.place, Some(MessageTimeout { seconds, rate }));
    Ok(())
}

fn close_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.close_timeout.write(&config.place, seconds(one(words, "a number of seconds")?)?);
    Ok(())
}

fn send_buffer(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    config.send_buffer.write(&config.place, bytes(words)?);
    Ok(())
}

fn max_connections(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bound = bound(config, words)?;
    config.max_connections.write(&config.place, bound);
    Ok(())
}

fn max_connections_per_client(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let bound = bound(config, words)?;
    config.max_connections_per_client.write(&config.place, bound);
    Ok(())
}

fn drain_timeout(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "a number of seconds")?;
    let seconds = word.parse().ok().filter(|seconds| *seconds <= MAX_SECONDS);
    let seconds = seconds.ok_or_else(|| format!("expected 0–{MAX_SECONDS} seconds, got \"{word}\""))?;
    config.drain_timeout.write(&config.place, Duration::from_secs(seconds));
    Ok(())
}
