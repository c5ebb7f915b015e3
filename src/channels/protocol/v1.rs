//! The subprotocol `channels.v1`: JSON objects in text messages. `docs/channels/protocol-v1.md` documents it for clients.

use super::{ClientCommand, ClientEvent, ClientRequest, CommandError, DecodeError, ErrorCode, Protocol, Reference};
use crate::engine::Broadcast;
use crate::wire::{CloseCode, Message, close};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub const NAME: &str = "channels.v1";

pub struct V1;

impl Protocol for V1 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn shows_channels(&self) -> bool {
        true
    }

    fn decode(&self, message: Message) -> Result<ClientRequest, DecodeError> {
        let Message::Text(text) = message else {
            return Err(DecodeError::Close(close(CloseCode::Unsupported, "channels.v1 is JSON in text messages")));
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|e| DecodeError::Reply(bad(format!("not JSON: {e}")), None))?;
        let reference = value.get("ref").cloned().filter(|reference| !reference.is_object() && !reference.is_array());
        let input = Input::deserialize(&value).map_err(|e| bad(e.to_string()));
        match input.and_then(Input::command) {
            Ok(command) => Ok(ClientRequest { command, reference }),
            Err(error) => Err(DecodeError::Reply(error, reference)),
        }
    }

    fn encode(&self, event: &ClientEvent<'_>, reference: Option<&Reference>) -> Option<Arc<Broadcast>> {
        let output = Output { r#ref: reference, ..Output::of(event) };
        // There is nothing in it that JSON cannot say: no map has keys that are no strings.
        Some(Arc::new(Broadcast::text(serde_json::to_string(&output).unwrap_or_default().into())))
    }
}

fn bad(message: impl Into<String>) -> CommandError {
    CommandError::new(ErrorCode::BadRequest, message)
}

#[derive(Deserialize)]
struct Input {
    r#type: String,
    channel: String,
    since: Option<String>,
    presence: Option<bool>,
    data: Option<String>,
    base64: Option<String>,
}

impl Input {
    fn command(self) -> Result<ClientCommand, CommandError> {
        let Input { r#type, channel, since, presence, data, base64 } = self;
        Ok(match &*r#type {
            "subscribe" => ClientCommand::Subscribe { channel, since, presence },
            "unsubscribe" => ClientCommand::Unsubscribe { channel },
            "presence" => ClientCommand::Presence { channel },
            "publish" => {
                let message = match (data, base64) {
                    (Some(text), None) => Message::text(text),
                    (None, Some(code)) => {
                        Message::binary(STANDARD.decode(code).map_err(|e| bad(format!("base64: {e}")))?)
                    }
                    _ => return Err(bad("publish takes either data or base64")),
                };
                ClientCommand::Publish { channel: Some(channel), message }
            }
            other => {
                return Err(bad(format!("expected type subscribe, unsubscribe, presence or publish, got {other:?}")));
            }
        })
    }
}

#[derive(Default, Serialize)]
struct Output<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<Member<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#ref: Option<&'a Reference>,
}

/// Somebody who is there, with so many connections.
#[derive(Serialize)]
struct Member<'a> {
    member: &'a str,
    connections: u32,
}

impl<'a> Output<'a> {
    fn of(event: &ClientEvent<'a>) -> Output<'a> {
        let of = |r#type, channel| Output { r#type, channel: Some(channel), ..Output::default() };
        match *event {
            ClientEvent::Message { channel, publication } => {
                let message = publication.message();
                let text = if message.is_text() { std::str::from_utf8(message.payload()).ok() } else { None };
                Output {
                    id: Some(publication.id().to_string()),
                    content_type: publication.content_type(),
                    data: text,
                    base64: text.is_none().then(|| STANDARD.encode(message.payload())),
                    ..of("message", channel)
                }
            }
            ClientEvent::Subscribed { channel, id, recovered } => {
                Output { id: id.map(ToString::to_string), recovered, ..of("subscribed", channel) }
            }
            ClientEvent::Unsubscribed { channel } => of("unsubscribed", channel),
            ClientEvent::Published { channel, id, subscribers } => {
                Output { id: Some(id.into()), subscribers: Some(subscribers), ..of("published", channel) }
            }
            ClientEvent::Presence { channel, members, subscribers } => {
                let members = members.iter().map(|(member, connections)| Member { member, connections: *connections });
                let members = Some(members.collect());
                Output { members, subscribers: Some(subscribers), ..of("presence", channel) }
            }
            ClientEvent::Join { channel, member } => Output { member: Some(member), ..of("join", channel) },
            ClientEvent::Leave { channel, member } => Output { member: Some(member), ..of("leave", channel) },
            ClientEvent::Error(CommandError { code, message }) => {
                Output { r#type: "error", code: Some(word(*code)), message: Some(message), ..Output::default() }
            }
        }
    }
}

fn word(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "bad_request",
        ErrorCode::Forbidden => "forbidden",
        ErrorCode::TooMany => "too_many",
        ErrorCode::NotSubscribed => "not_subscribed",
        ErrorCode::Unavailable => "unavailable",
        ErrorCode::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_read() {
        let read = |text: &str| V1.decode(Message::text(text));
        let subscribe = r#"{"type":"subscribe","channel":"a","since":"e:1","presence":true,"ref":7,"more":[]}"#;
        let ClientRequest { command, reference } = read(subscribe).unwrap();
        let (channel, since) = ("a".to_owned(), Some("e:1".to_owned()));
        assert_eq!(command, ClientCommand::Subscribe { channel: channel.clone(), since, presence: Some(true) });
        assert_eq!(reference, Some(json!(7)));
        let publish = |body: &str| read(&format!(r#"{{"type":"publish","channel":"a",{body}}}"#));
        let published = |message| {
            let command = ClientCommand::Publish { channel: Some(channel.clone()), message };
            Ok(ClientRequest { command, reference: None })
        };
        assert_eq!(publish(r#""data":"x""#), published(Message::text("x")));
        assert_eq!(publish(r#""base64":"/wA=""#), published(Message::binary(vec![0xff, 0])));
        for body in [r#""data":"x","base64":"/wA=""#, r#""ref":1"#, r#""base64":"%""#, r#""data":1"#] {
            assert!(matches!(publish(body), Err(DecodeError::Reply(error, _)) if error.code == ErrorCode::BadRequest));
        }
        for (text, reference) in [
            ("", None),
            ("[]", None),
            (r#"{"type":"dance","channel":"a","ref":"r"}"#, Some(json!("r"))),
            (r#"{"type":"subscribe","ref":{"a":1}}"#, None),
        ] {
            let Err(DecodeError::Reply(error, its)) = read(text) else { panic!("{text}") };
            assert_eq!((error.code, its), (ErrorCode::BadRequest, reference), "{text}");
        }
        assert!(matches!(V1.decode(Message::binary("{}")), Err(DecodeError::Close(_))));
    }

    #[test]
    fn events_are_written() {
        let written = |event: &ClientEvent<'_>, reference: Option<&Value>| {
            let broadcast = V1.encode(event, reference).unwrap();
            assert!(broadcast.is_text());
            String::from_utf8(broadcast.payload().to_vec()).unwrap()
        };
        let id = "e:1".parse().unwrap();
        let event = ClientEvent::Subscribed { channel: "a", id: Some(&id), recovered: None };
        assert_eq!(written(&event, None), r#"{"type":"subscribed","channel":"a","id":"e:1"}"#);
        let event = ClientEvent::Published { channel: "a", id: "e:1", subscribers: 2 };
        let text = r#"{"type":"published","channel":"a","id":"e:1","subscribers":2,"ref":1}"#;
        assert_eq!(written(&event, Some(&json!(1))), text);
        let error = CommandError::new(ErrorCode::TooMany, "no");
        let text = r#"{"type":"error","code":"too_many","message":"no","ref":"x"}"#;
        assert_eq!(written(&ClientEvent::Error(&error), Some(&json!("x"))), text);
        let event = ClientEvent::Presence { channel: "a", members: &[("joe".into(), 2)], subscribers: 3 };
        let text = r#"{"type":"presence","channel":"a","members":[{"member":"joe","connections":2}],"subscribers":3}"#;
        assert_eq!(written(&event, None), text);
        let event = ClientEvent::Leave { channel: "a", member: "joe" };
        assert_eq!(written(&event, None), r#"{"type":"leave","channel":"a","member":"joe"}"#);
    }
}
