//! Messages as lines of JSON: `{"channel":NAME,"data":TEXT}`, or `"base64"` in the place of `"data"`, and perhaps `"content_type"`.

use super::media_type::{is_multipart, is_of_text, is_sent_as_text, told_type};
use crate::channels::History;
use crate::channels::api::{BatchMessage, PublishBatch};
use crate::channels::name::{MAX_NAME, is_decoded_name};
use crate::channels::publication::is_line;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// Messages of a request, at most.
pub(super) const MAX_MESSAGES: usize = 10_000;
/// Bytes of a media type, at most: it is kept with each message.
const MAX_TYPE: usize = 255;
/// Bytes of what is wrong with a line, at most: it may have what the line has in it.
const MAX_REASON: usize = 300;
const EXPECTED: &str =
    r#"expected {"channel":NAME,"data":TEXT} or {"channel":NAME,"base64":TEXT}, perhaps with "content_type":TYPE"#;

/// What holds for all lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// `text` or `binary`, where the query says so.
    pub requested: Option<&'a str>,
    /// Bytes of the longest message.
    pub longest: usize,
    /// Bytes of what is put before each name of a channel.
    pub prefix: usize,
    pub history: History,
}

/// Why nothing is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadBatch {
    /// Of HTTP.
    pub status: u16,
    /// The number of the line, the first being 1; `None`: it is none of them.
    pub line: Option<usize>,
    pub why: String,
}

/// The messages of a body, and their payloads one behind the other.
pub(super) fn parse(body: &[u8], rules: Rules<'_>) -> Result<(PublishBatch, Vec<u8>), BadBatch> {
    let body = std::str::from_utf8(body).map_err(|e| {
        let number = 1 + body[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        bad(number, "expected UTF-8")
    })?;
    // What holds for any message.
    if let Err(why) = is_sent_as_text(rules.requested, || true, || true) {
        return Err(BadBatch { status: 400, line: None, why: why.into() });
    }
    let mut builder =
        Builder { rules, channels: Index::default(), types: HashMap::new(), told: Vec::new(), payloads: Vec::new() };
    let mut messages = Vec::new();
    for (line, number) in body.split('\n').zip(1..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if messages.len() == MAX_MESSAGES {
            return Err(BadBatch {
                status: 413,
                ..bad(number, &format!("{MAX_MESSAGES} messages are allowed in a request"))
            });
        }
        let line = serde_json::from_str(line).map_err(|e| bad(number, &syntax(&e)))?;
        messages.push(builder.add(line).map_err(|(status, why)| BadBatch { status, ..bad(number, &why) })?);
    }
    if messages.is_empty() {
        return Err(BadBatch { status: 400, line: None, why: format!("the body has no line: {EXPECTED}, one a line") });
    }
    let Builder { channels, told, payloads, .. } = builder;
    let channels = channels.names.into_iter().map(Cow::into_owned).collect();
    Ok((PublishBatch { channels, content_types: told, messages, history: rules.history }, payloads))
}

fn bad(line: usize, why: &str) -> BadBatch {
    let why = begin(why, MAX_REASON);
    BadBatch { status: 400, line: Some(line), why: format!("line {line}: {why}") }
}

/// What it begins with.
fn begin(text: &str, bytes: usize) -> &str {
    let is_end = |end: &usize| text.is_char_boundary(*end);
    &text[..(0..=bytes.min(text.len())).rev().find(is_end).unwrap_or(0)]
}

/// What serde_json says, but for the line, which is always the first there.
fn syntax(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (why, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    let why = begin(why, MAX_REASON / 2);
    match error.classify() {
        serde_json::error::Category::Data => why.to_owned(),
        _ => format!("not JSON (column {}: {why}): {EXPECTED}", error.column()),
    }
}

#[derive(Default)]
struct Index<'a> {
    names: Vec<Cow<'a, str>>,
    places: HashMap<Cow<'a, str>, u32>,
}

/// A media type: whether it is of text, and its place among those that subscribers are told.
#[derive(Clone, Copy)]
struct Known {
    of_text: bool,
    told: Option<u32>,
}

struct Builder<'a> {
    rules: Rules<'a>,
    channels: Index<'a>,
    types: HashMap<Cow<'a, str>, Known>,
    told: Vec<String>,
    payloads: Vec<u8>,
}

/// A status, and what was expected.
type Refusal = (u16, String);

impl<'a> Builder<'a> {
    fn add(&mut self, line: Line<'a>) -> Result<BatchMessage, Refusal> {
        let Line { channel, payload, content_type } = line;
        let channel = self.channel(channel)?;
        let known = content_type.map(|content_type| self.content_type(content_type)).transpose()?;
        let before = self.payloads.len();
        // Bytes are bytes where nobody says otherwise, whatever they look like.
        let of_text = known.map_or(matches!(payload, Payload::Data(_)), |known| known.of_text);
        let is_utf8 = match payload {
            Payload::Data(text) => {
                self.payloads.extend_from_slice(text.as_bytes());
                true
            }
            Payload::Base64(code) => {
                let wrong = |e| (400, format!("expected base64 (RFC 4648 section 4, padded): {e}"));
                STANDARD.decode_vec(&*code, &mut self.payloads).map_err(wrong)?;
                std::str::from_utf8(&self.payloads[before..]).is_ok()
            }
        };
        let text =
            is_sent_as_text(self.rules.requested, || of_text, || is_utf8).map_err(|why| (400, why.to_owned()))?;
        let bytes = self.payloads.len() - before;
        if bytes > self.rules.longest {
            return Err((413, format!("the message is longer than {} bytes", self.rules.longest)));
        }
        Ok(BatchMessage { channel, content_type: known.and_then(|known| known.told), text, bytes: bytes as u32 })
    }

    fn channel(&mut self, name: Cow<'a, str>) -> Result<u32, Refusal> {
        let Index { names, places } = &mut self.channels;
        if let Some(place) = places.get(&*name) {
            return Ok(*place);
        }
        if !is_decoded_name(&name) || self.rules.prefix + name.len() > MAX_NAME {
            let longest = MAX_NAME.saturating_sub(self.rules.prefix);
            let shown: String = name.chars().take(50).collect();
            return Err((
                400,
                format!("{shown:?} is not a channel name: expected UTF-8 without blanks, 1 to {longest} bytes"),
            ));
        }
        let place = names.len() as u32;
        names.push(name.clone());
        places.insert(name, place);
        Ok(place)
    }

    fn content_type(&mut self, content_type: Cow<'a, str>) -> Result<Known, Refusal> {
        if let Some(known) = self.types.get(&*content_type) {
            return Ok(*known);
        }
        if !is_line(&content_type) || content_type.len() > MAX_TYPE {
            return Err((400, format!("expected content_type of 1 to {MAX_TYPE} bytes without control characters")));
        }
        let given = Some(&*content_type);
        if is_multipart(given) {
            return Err((415, "content_type is multipart: expected the type of the message itself".into()));
        }
        let told = told_type(given).map(|told| {
            self.told.push(told);
            self.told.len() as u32 - 1
        });
        let known = Known { of_text: is_of_text(given), told };
        self.types.insert(content_type, known);
        Ok(known)
    }
}

enum Payload<'a> {
    Data(Cow<'a, str>),
    Base64(Cow<'a, str>),
}

struct Line<'a> {
    channel: Cow<'a, str>,
    payload: Payload<'a>,
    content_type: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Line<'de>, D::Error> {
        deserializer.deserialize_map(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED.trim_start_matches("expected "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
        let (mut channel, mut payload, mut content_type) = (None, None, None);
        while let Some(Text(key)) = map.next_key()? {
            let is_new = match &*key {
                "channel" => channel.replace(map.next_value::<Text>()?.0).is_none(),
                "data" => payload.replace(Payload::Data(map.next_value::<Text>()?.0)).is_none(),
                "base64" => payload.replace(Payload::Base64(map.next_value::<Text>()?.0)).is_none(),
                "content_type" => content_type.replace(map.next_value::<Text>()?.0).is_none(),
                _ => {
                    let shown: String = key.chars().take(50).collect();
                    return Err(de::Error::custom(format_args!("the key {shown:?} means nothing: {EXPECTED}")));
                }
            };
            if !is_new {
                return Err(de::Error::custom(match &*key {
                    "data" | "base64" => "expected \"data\" or \"base64\", once",
                    "channel" => "expected \"channel\" once",
                    _ => "expected \"content_type\" once",
                }));
            }
        }
        let channel = channel.ok_or_else(|| de::Error::custom(format_args!("no channel: {EXPECTED}")))?;
        let payload = payload.ok_or_else(|| de::Error::custom(format_args!("no message: {EXPECTED}")))?;
        Ok(Line { channel, payload, content_type })
    }
}

/// A string, borrowed where JSON writes it as it is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::api::BatchEntry;
    use proptest::prelude::*;

    fn rules() -> Rules<'static> {
        Rules { requested: None, longest: 20, prefix: 2, history: History::default() }
    }

    fn refusal(body: &[u8]) -> (u16, Option<usize>, String) {
        let BadBatch { status, line, why } = parse(body, rules()).expect_err("a bad batch");
        (status, line, why)
    }

    /// Channel, media type, whether it is text, and the message.
    fn read(body: &str, rules: Rules<'_>) -> Vec<(String, Option<String>, bool, Vec<u8>)> {
        let (batch, payloads) = parse(body.as_bytes(), rules).expect("a batch");
        let owned = |entry: &BatchEntry<'_>| {
            let BatchEntry { channel, content_type, text, payload } = *entry;
            (channel.to_owned(), content_type.map(str::to_owned), text, payload.to_vec())
        };
        batch.entries(&payloads).expect("its payloads").iter().map(owned).collect()
    }

    fn message(
        channel: &str,
        content_type: Option<&str>,
        text: bool,
        payload: &[u8],
    ) -> (String, Option<String>, bool, Vec<u8>) {
        (channel.into(), content_type.map(str::to_owned), text, payload.to_vec())
    }

    #[test]
    fn a_line_is_a_message() {
        let body = concat!(
            r#"{"channel":"a","data":"x"}"#,
            "\r\n \t\n\n",
            r#" { "data" : "caf\u00e9\n" , "channel" : "room\/1" } "#,
            "\n",
            r#"{"channel":"a","base64":"eA==","content_type":"text/plain"}"#,
            "\r\n",
            r#"{"channel":"a","base64":"eA=="}"#,
            "\n",
            r#"{"channel":"b","data":"","content_type":"image/png"}"#,
            "\n",
            r#"{"channel":"a","base64":"/w==","content_type":"text/plain"}"#,
            "\n",
            r#"{"channel":"a","data":"{}","content_type":"application/x-www-form-urlencoded"}"#,
        );
        let expected = [
            message("a", None, true, b"x"),
            message("room/1", None, true, "caf\u{e9}\n".as_bytes()),
            message("a", Some("text/plain"), true, b"x"),
            message("a", None, false, b"x"),
            message("b", Some("image/png"), false, b""),
            message("a", Some("text/plain"), false, b"\xff"),
            message("a", None, true, b"{}"),
        ];
        assert_eq!(read(body, rules()), expected);
        let (batch, _) = parse(body.as_bytes(), rules()).unwrap();
        assert_eq!((batch.channels.len(), batch.content_types.len()), (3, 2));
        let line = r#"{"channel":"a","base64":"eA==","content_type":"image/png"}"#;
        for (requested, text) in [("text", true), ("binary", false)] {
            let rules = Rules { requested: Some(requested), ..rules() };
            assert_eq!(read(line, rules), [message("a", Some("image/png"), text, b"x")]);
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let long = "x".repeat(MAX_NAME - 1);
        for (line, status, why) in [
            ("{", 400, "not JSON (column 1"),
            ("hello", 400, r#"expected {"channel":NAME,"data":TEXT}"#),
            (r#"{"channel":"a","data":"x"},"#, 400, "column 27: trailing characters"),
            (r#"{"channel":"a","data":"x"}{"channel":"a","data":"x"}"#, 400, "trailing characters"),
            ("[]", 400, r#"expected {"channel":NAME,"data":TEXT}"#),
            ("7", 400, r#"expected {"channel":NAME,"data":TEXT}"#),
            ("\u{feff}{}", 400, "not JSON"),
            ("{}", 400, "no channel: expected"),
            (r#"{"data":"x"}"#, 400, "no channel: expected"),
            (r#"{"channel":"a"}"#, 400, "no message: expected"),
            (r#"{"channel":"a","data":"x","base64":"eA=="}"#, 400, r#"expected "data" or "base64", once"#),
            (r#"{"channel":"a","data":"x","data":"x"}"#, 400, r#"expected "data" or "base64", once"#),
            (r#"{"channel":"a","channel":"b","data":"x"}"#, 400, r#"expected "channel" once"#),
            (r#"{"channel":"a","content_type":"a/b","content_type":"a/b","data":""}"#, 400, "content_type\" once"),
            (r#"{"channel":"a","data":"x","id":7}"#, 400, r#"the key "id" means nothing: expected"#),
            (r#"{"channel":"a","data":{"goal":1}}"#, 400, "invalid type: map, expected a string"),
            (r#"{"channel":"a","data":null}"#, 400, "expected a string"),
            (r#"{"channel":7,"data":""}"#, 400, "expected a string"),
            (r#"{"channel":"a","data":"\ud800"}"#, 400, "not JSON"),
            (r#"{"channel":"a","base64":"eA"}"#, 400, "expected base64 (RFC 4648 section 4, padded)"),
            (r#"{"channel":"a","base64":"-_-_"}"#, 400, "expected base64"),
            (r#"{"channel":"","data":""}"#, 400, r#""" is not a channel name"#),
            (r#"{"channel":"a b","data":""}"#, 400, r#""a b" is not a channel name"#),
            (r#"{"channel":"\ufffd","data":""}"#, 400, "is not a channel name"),
            (&format!(r#"{{"channel":"{long}","data":""}}"#), 400, "1 to 1022 bytes"),
            (r#"{"channel":"a","data":"","content_type":""}"#, 400, "expected content_type of 1 to 255 bytes"),
            (r#"{"channel":"a","data":"","content_type":"a\nb"}"#, 400, "without control characters"),
            (r#"{"channel":"a","data":"","content_type":"multipart/mixed"}"#, 415, "content_type is multipart"),
            (r#"{"channel":"a","data":"123456789012345678901"}"#, 413, "the message is longer than 20 bytes"),
        ] {
            let good = r#"{"channel":"a","data":"x"}"#;
            let (got, number, reason) = refusal(format!("{good}\n\n{line}\n{good}\n").as_bytes());
            assert_eq!((got, number), (status, Some(3)), "{line}: {reason}");
            assert!(reason.starts_with("line 3: ") && reason.contains(why), "{line}: {reason}");
            assert!(reason.len() < MAX_REASON + 20 && !reason.contains("line 1"), "{line}: {reason}");
        }
        let (status, number, why) = refusal(b"{\"channel\":\"a\",\"data\":\"x\"}\n\xff");
        assert_eq!((status, number, &*why), (400, Some(2), "line 2: expected UTF-8"));
    }

    #[test]
    fn a_body_has_lines_but_not_too_many() {
        for body in ["", "\n", " \r\n\r\n"] {
            let (status, number, why) = refusal(body.as_bytes());
            assert_eq!((status, number), (400, None), "{body:?}");
            assert!(why.starts_with("the body has no line: expected"), "{why}");
        }
        let line = "{\"channel\":\"a\",\"data\":\"\"}\n";
        let many = line.repeat(MAX_MESSAGES);
        assert_eq!(read(&many, rules()).len(), MAX_MESSAGES);
        let (status, number, _) = refusal((many + line).as_bytes());
        assert_eq!((status, number), (413, Some(MAX_MESSAGES + 1)));
        let other = Rules { requested: Some("other"), ..rules() };
        assert_eq!(parse(line.as_bytes(), other).expect_err("a bad type").status, 400);
        let text = Rules { requested: Some("text"), ..rules() };
        let bytes = br#"{"channel":"a","base64":"/w=="}"#;
        assert_eq!(parse(bytes, text).expect_err("bytes as text").line, Some(1));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(lines in prop::collection::vec(("[a-c]{1,2}", any::<String>(), any::<bool>()), 1..20)) {
            let rules = Rules { longest: usize::MAX, ..rules() };
            let (mut body, mut expected) = (String::new(), Vec::new());
            for (channel, text, as_data) in &lines {
                let line = if *as_data {
                    serde_json::json!({ "channel": channel, "data": text })
                } else {
                    serde_json::json!({ "channel": channel, "base64": STANDARD.encode(text) })
                };
                body += &format!("{line}\n");
                expected.push(message(channel, None, *as_data, text.as_bytes()));
            }
            prop_assert_eq!(read(&body, rules), expected);
        }

        #[test]
        fn rubbish_is_refused_and_no_panic(body in prop::collection::vec(any::<u8>(), 0..200), cut in 0..60_usize) {
            let _ = parse(&body, rules());
            let line = r#"{"channel":"a","base64":"eA==","content_type":"a/b"}"#.as_bytes();
            let _ = parse(&[&line[..cut.min(line.len())], &body[..]].concat(), rules());
        }
    }
}
