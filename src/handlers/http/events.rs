//! The mode of events: requests and answers are `application/websocket-events`, as GRIP's libraries read and write them.

use super::control;
use super::effect::{Effect, Unusable, beginning, lines, media_type, of_lines};
use crate::engine::application::loopback::HttpAnswer;
use crate::wire::websocket_events::{MEDIA_TYPE, WebSocketEvent, decode};
use crate::wire::{CloseCode, Message, Utf8Bytes, close};
use bytes::Bytes;
use log::{debug, info};
use std::time::Duration;

/// What texts begin with that are for us.
const CONTROL: &[u8] = b"c:";
/// What messages for the client begin with, where the application does not say it.
const PREFIX: &str = "m:";
/// The shortest interval in which the application is asked again.
const SHORTEST: Duration = Duration::from_secs(20);
/// The longest: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// After how long an application wants to be asked once more whether it wants a session: its first answer has no events, and says
/// `Keep-Alive-Interval`. Somebody waits for it, so that the shortest interval does not count.
pub fn postponed(answer: &HttpAnswer) -> Option<Duration> {
    let is_empty = answer.status == 204 || (answer.status == 200 && answer.body.is_empty());
    seconds(answer.header("keep-alive-interval")?).filter(|_| is_empty)
}

/// What is known of the application's way to speak.
#[derive(Debug, Default)]
pub struct EventsDialect {
    /// It speaks GRIP: what messages for the client begin with.
    prefix: Option<String>,
    /// Something unknown was said, and that was logged.
    has_told: bool,
}

impl EventsDialect {
    /// What the first answer asks for: one that begins with OPEN.
    ///
    /// # Errors
    /// It is none that opens a session.
    pub fn opening(&mut self, session: u64, answer: HttpAnswer) -> Result<Vec<Effect>, Unusable> {
        self.prefix = answer.header("sec-websocket-extensions").and_then(prefix);
        self.effects(session, answer, true)
    }

    /// What a later answer asks for.
    ///
    /// # Errors
    /// The session cannot go on.
    pub fn answer(&mut self, session: u64, answer: HttpAnswer) -> Result<Vec<Effect>, Unusable> {
        self.effects(session, answer, false)
    }

    fn effects(&mut self, session: u64, answer: HttpAnswer, opens: bool) -> Result<Vec<Effect>, Unusable> {
        let events = events(&answer).map_err(unusable)?;
        let mut said = lines(&answer).map_err(|why| unusable(format!("its answer says {why}")))?;
        let mut effects = of_lines(&mut said);
        effects.extend(interval(session, &answer));
        if let Some(accepted) = answer.header("content-bytes-accepted") {
            let count = accepted.parse();
            let wrong = || unusable(format!("its answer says Content-Bytes-Accepted: \"{}\"", accepted.escape_debug()));
            effects.push(Effect::Accepted(count.map_err(|_| wrong())?));
        }
        let (events, unknown) = events;
        if let Some(name) = unknown.filter(|_| !std::mem::replace(&mut self.has_told, true)) {
            info!(
                "WS0321: session {session}: the application says {name}, which is no event that is known (said once)"
            );
        }
        let mut events = events.into_iter();
        if opens && events.next() != Some(WebSocketEvent::Open) {
            return Err(unusable("its first answer does not begin with OPEN".into()));
        }
        for event in events {
            match event {
                WebSocketEvent::Open => return Err(unusable("its answer has OPEN where the session is open".into())),
                WebSocketEvent::Text(content) => effects.extend(self.content(session, true, content)),
                WebSocketEvent::Binary(content) => effects.extend(self.content(session, false, content)),
                WebSocketEvent::Ping(content) => effects.push(Effect::Ping(content)),
                WebSocketEvent::Pong(content) => effects.push(Effect::Pong(content)),
                WebSocketEvent::Close(frame) => {
                    effects.push(Effect::Close(frame.unwrap_or_else(|| close(CloseCode::Normal, ""))));
                }
                WebSocketEvent::Disconnect => effects.push(Effect::Cut),
            }
        }
        effects.extend(said.close.map(Effect::Close));
        Ok(effects)
    }

    /// A message of the application: for the client, or for us.
    fn content(&self, session: u64, is_text: bool, content: Bytes) -> Option<Effect> {
        let Some(prefix) = &self.prefix else { return Some(Effect::Send(message(is_text, content))) };
        if is_text && content.starts_with(CONTROL) {
            return match control::read(&content[CONTROL.len()..]) {
                Ok(effect) => effect,
                Err(why) => {
                    info!("WS0322: session {session}: a control message of the application is passed over: {why}");
                    None
                }
            };
        }
        if content.starts_with(prefix.as_bytes()) {
            return Some(Effect::Send(message(is_text, content.slice(prefix.len()..))));
        }
        debug!("WS0323: session {session}: a message of the application has neither \"{prefix}\" nor \"c:\" before it");
        None
    }
}

fn message(is_text: bool, content: Bytes) -> Message {
    match Utf8Bytes::try_from(content.clone()) {
        Ok(text) if is_text => Message::Text(text),
        _ => Message::Binary(content),
    }
}

fn unusable(why: String) -> Unusable {
    Unusable { why, close: close(CloseCode::Error, "the application failed") }
}

/// The events of an answer, and the first type in it that is not known.
fn events(answer: &HttpAnswer) -> Result<(Vec<WebSocketEvent>, Option<String>), String> {
    let HttpAnswer { status, body, .. } = answer;
    let shown = || beginning(body);
    match status {
        200 if body.is_empty() => return Ok((Vec::new(), None)),
        204 => return Ok((Vec::new(), None)),
        200 => {}
        status => return Err(format!("it was answered with {status}: \"{}\"", shown())),
    }
    let media_type = media_type(answer);
    if media_type != MEDIA_TYPE {
        return Err(format!("its answer is {media_type:?} and not {MEDIA_TYPE}: \"{}\"", shown()));
    }
    decode(body, body.len()).map_err(|why| format!("{why}, in its answer \"{}\"", shown()))
}

/// `Keep-Alive-Interval`.
fn interval(session: u64, answer: &HttpAnswer) -> Option<Effect> {
    let text = answer.header("keep-alive-interval")?;
    let interval = seconds(text);
    if interval.is_some_and(|interval| interval < SHORTEST) {
        let least = SHORTEST.as_secs();
        debug!("WS0324: session {session}: Keep-Alive-Interval is {text}, and {least} is the least: that is taken");
    }
    Some(Effect::Interval(interval.map(|interval| interval.clamp(SHORTEST, LONGEST))))
}

/// `None`: that turns it off.
fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.parse::<i64>().ok().and_then(|seconds| u64::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// What messages for the client begin with, by a `Sec-WebSocket-Extensions` with `grip`.
fn prefix(extensions: &str) -> Option<String> {
    let mut name = String::new();
    let mut extension = None;
    let (mut is_quoted, mut is_escaped) = (false, false);
    // Quotes may have commas and semicolons between them.
    for c in extensions.chars().chain([',']) {
        match c {
            c if is_escaped => {
                name.push(c);
                is_escaped = false;
            }
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' | ';' if !is_quoted => {
                let word = std::mem::take(&mut name);
                let found = match extension {
                    None if word.eq_ignore_ascii_case("grip") => Some(PREFIX.to_owned()),
                    Some(before) => Some(word.strip_prefix("message-prefix=").map_or(before, str::to_owned)),
                    None => None,
                };
                if c == ',' && found.is_some() {
                    return found;
                }
                extension = found;
            }
            c if c.is_whitespace() && !is_quoted => {}
            c => name.push(c),
        }
    }
    extension
}

#[cfg(test)]
mod tests {
    use super::*;
    use Effect::{Close, Cut, Interval, Ping, Send, Subscribe};

    fn answer(headers: &[(&str, &str)], body: &str) -> HttpAnswer {
        let own = [("content-type", MEDIA_TYPE)];
        // The first of a name counts.
        let headers =
            headers.iter().chain(&own).map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()));
        HttpAnswer { status: 200, headers: headers.collect(), body: body.to_owned().into() }
    }

    fn opened(extensions: &str) -> EventsDialect {
        let mut dialect = EventsDialect::default();
        let opening = dialect.opening(1, answer(&[("Sec-WebSocket-Extensions", extensions)], "OPEN\r\n"));
        assert_eq!(opening, Ok(vec![]));
        dialect
    }

    #[test]
    fn an_opening_begins_with_open() {
        let mut dialect = EventsDialect::default();
        let body = "OPEN\r\nTEXT 27\r\nc:{\"type\":\"subscribe\",\"channel\":\"room\"}\r\nTEXT 7\r\nm:hello\r\n";
        let grip = answer(&[("Sec-WebSocket-Extensions", "grip"), ("Keep-Alive-Interval", "120")], body);
        let expected =
            vec![Interval(Some(Duration::from_secs(120))), Subscribe("room".into()), Send(Message::text("hello"))];
        assert_eq!(dialect.opening(1, grip), Ok(expected));
        for body in ["", "TEXT 1\r\na\r\n", "OPEN\r\nOPEN\r\n", "<html>"] {
            assert!(EventsDialect::default().opening(1, answer(&[], body)).is_err(), "{body}");
        }
    }

    #[test]
    fn messages_are_bare_without_grip() {
        let events = "TEXT 3\r\nm:a\r\nTEXT 4\r\nc:{}\r\nPING 1\r\n!\r\n";
        let expected = vec![Send(Message::text("m:a")), Send(Message::text("c:{}")), Ping("!".into())];
        assert_eq!(opened("").answer(1, answer(&[], events)), Ok(expected));
        let expected = vec![Send(Message::text("a")), Ping("!".into())];
        assert_eq!(opened("grip").answer(1, answer(&[], events)), Ok(expected));
        let all = opened("grip; message-prefix=\"\"").answer(1, answer(&[], "BINARY 1\r\na\r\nTEXT 4\r\nc:{}\r\n"));
        assert_eq!(all, Ok(vec![Send(Message::binary(&b"a"[..]))]));
    }

    #[test]
    fn prefixes_are_quoted() {
        for (line, expected) in [
            ("grip", Some("m:")),
            ("GRIP", Some("m:")),
            ("permessage-deflate; x=1, grip", Some("m:")),
            ("grip; message-prefix=\"a;, \\\"b\"", Some("a;, \"b")),
            ("grip; x=1; message-prefix=\"\", other", Some("")),
            ("permessage-deflate", None),
            ("gripe", None),
            ("", None),
        ] {
            assert_eq!(prefix(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn answers_are_judged() {
        let (mut dialect, empty) = (opened("grip"), answer(&[], ""));
        assert_eq!(dialect.answer(1, empty.clone()), Ok(vec![]));
        assert_eq!(dialect.answer(1, HttpAnswer { status: 204, ..answer(&[], "x") }), Ok(vec![]));
        let charset = [("Content-Type", "Application/WebSocket-Events; charset=utf-8")];
        assert_eq!(dialect.answer(1, answer(&charset, "DISCONNECT\r\n")), Ok(vec![Cut]));
        let closing = vec![Close(close(4097.into(), "again later"))];
        assert_eq!(dialect.answer(1, answer(&[], "CLOSE d\r\n\u{10}\u{1}again later\r\n")), Ok(closing));
        assert_eq!(dialect.answer(1, answer(&[], "CLOSE\r\n")), Ok(vec![Close(close(CloseCode::Normal, ""))]));
        for (wrong, part) in [
            (HttpAnswer { status: 201, ..empty.clone() }, "201"),
            (HttpAnswer { status: 500, ..answer(&[], "<b>Fatal error</b>") }, "Fatal error"),
            (answer(&[("Content-Type", "text/html")], "<b>Notice</b>"), "text/html"),
            (answer(&[], "Notice: x"), "Notice: x"),
            (answer(&[], "OPEN\r\n"), "OPEN"),
            (answer(&[("Content-Bytes-Accepted", "-1")], ""), "-1"),
            (answer(&[("WebSocket-Member", "a b")], ""), "a b"),
        ] {
            let why = dialect.answer(1, wrong).unwrap_err();
            assert!(why.why.contains(part) && why.close.code == CloseCode::Error, "{why:?}");
        }
        for (text, expected) in
            [("19", Some(20)), ("1", Some(20)), ("3600", Some(3600)), ("0", None), ("-5", None), ("soon", None)]
        {
            let expected = vec![Interval(expected.map(Duration::from_secs))];
            assert_eq!(dialect.answer(1, answer(&[("Keep-Alive-Interval", text)], "")), Ok(expected), "{text}");
        }
    }
}
