//! The subprotocol `channels.v1`: JSON objects in text messages. `docs/channels/protocol-v1.md` documents it for clients.

use crate::channels::Id;
use crate::channels::call::Receipt;
use crate::engine::Broadcast;
use crate::wire::Message;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// What a client wants, and what it calls that.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The wish.
    pub wish: Wish,
    /// Comes back with the answer.
    pub reference: Option<Value>,
}

/// What a client may want.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// To get what is published to a channel.
    Subscribe {
        /// The channel.
        channel: String,
        /// The id after which it begins; "*" for all that is kept.
        since: Option<String>,
        /// With joins and leaves, or without them; `None`: as it was.
        presence: Option<bool>,
    },
    /// To get no more of it.
    Unsubscribe {
        /// The channel.
        channel: String,
    },
    /// To know who is there.
    Presence {
        /// The channel.
        channel: String,
    },
    /// To publish.
    Publish {
        /// The channel.
        channel: String,
        /// Text, or what was in base64.
        payload: Payload,
    },
}

/// What a client publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// `data`
    Text(String),
    /// `base64`
    Binary(Vec<u8>),
}

/// Why a client did not get what it wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It cannot be understood.
    BadRequest,
    /// Not here.
    Forbidden,
    /// There is a limit.
    TooMany,
    /// It needs a subscription.
    NotSubscribed,
    /// Not now.
    Unavailable,
    /// It was done, or will be, or not: the broker has not answered.
    Unknown,
}

/// Why, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// For the program.
    pub code: Code,
    /// For who reads its log.
    pub message: String,
}

impl Problem {
    /// With that code, in these words.
    pub fn new(code: Code, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into() }
    }
}

/// A request as it is written, all of whose fields may be missing.
#[derive(Deserialize)]
struct Written {
    r#type: String,
    channel: String,
    since: Option<String>,
    presence: Option<bool>,
    data: Option<String>,
    base64: Option<String>,
}

/// Reads a client's message; where it is none, what is wrong, and the reference that it has.
///
/// # Errors
/// It is not a request of this subprotocol.
pub fn read(text: &str) -> Result<Request, (Problem, Option<Value>)> {
    let bad = |message: String| Problem::new(Code::BadRequest, message);
    let value: Value = serde_json::from_str(text).map_err(|e| (bad(format!("not JSON: {e}")), None))?;
    let reference = value.get("ref").cloned().filter(|reference| !reference.is_object() && !reference.is_array());
    let wish = Written::deserialize(&value).map_err(|e| bad(e.to_string())).and_then(|written| {
        let Written { r#type, channel, since, presence, data, base64 } = written;
        Ok(match &*r#type {
            "subscribe" => Wish::Subscribe { channel, since, presence },
            "unsubscribe" => Wish::Unsubscribe { channel },
            "presence" => Wish::Presence { channel },
            "publish" => {
                let payload = match (data, base64) {
                    (Some(text), None) => Payload::Text(text),
                    (None, Some(code)) => {
                        Payload::Binary(STANDARD.decode(code).map_err(|e| bad(format!("base64: {e}")))?)
                    }
                    _ => return Err(bad("publish takes either data or base64".into())),
                };
                Wish::Publish { channel, payload }
            }
            other => {
                return Err(bad(format!("type {other:?} is none of subscribe, unsubscribe, presence and publish")));
            }
        })
    });
    match wish {
        Ok(wish) => Ok(Request { wish, reference }),
        Err(problem) => Err((problem, reference)),
    }
}

/// What the server says, but for messages.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Say<'a> {
    /// The subscription begins.
    Subscribed {
        /// To this channel.
        channel: &'a str,
        /// After this one nothing is missed. Missing where it had begun before.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// All that came after the client's id is there.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
    },
    /// It has ended.
    Unsubscribed {
        /// The channel.
        channel: &'a str,
    },
    /// The client's message was published.
    Published {
        /// Where.
        channel: &'a str,
        /// As this.
        id: &'a str,
        /// To so many connections.
        subscribers: u64,
    },
    /// Who is there.
    Presence {
        /// In this channel.
        channel: &'a str,
        /// They.
        members: Vec<Member<'a>>,
        /// And so many connections, those of nobody in particular included.
        subscribers: u64,
    },
    /// A member has come.
    Join {
        /// Into this channel.
        channel: &'a str,
        /// Its name.
        member: &'a str,
    },
    /// A member has gone.
    Leave {
        /// From this channel.
        channel: &'a str,
        /// Its name.
        member: &'a str,
    },
    /// It is not done.
    Error {
        /// Why.
        code: Code,
        /// In words.
        message: &'a str,
    },
}

/// Somebody who is there.
#[derive(Debug, Serialize)]
pub struct Member<'a> {
    /// Its name.
    pub member: &'a str,
    /// Its connections.
    pub connections: u32,
}

impl<'a> Say<'a> {
    /// Of a receipt, for a channel that the client calls so.
    pub fn published(channel: &'a str, receipt: &'a Receipt) -> Say<'a> {
        Say::Published { channel, id: &receipt.id, subscribers: receipt.subscribers }
    }

    /// Of a list.
    pub fn presence(channel: &'a str, members: &'a [(Arc<str>, u32)], subscribers: u64) -> Say<'a> {
        let members = members.iter().map(|(member, connections)| Member { member, connections: *connections });
        Say::Presence { channel, members: members.collect(), subscribers }
    }

    /// For whom it is no answer.
    pub fn to_all(&self) -> Broadcast {
        Broadcast::text(json(self))
    }

    /// As the answer to a request of that reference.
    pub fn answer(&self, reference: Option<&Value>) -> Message {
        #[derive(Serialize)]
        struct Answer<'a> {
            #[serde(flatten)]
            say: &'a Say<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            r#ref: Option<&'a Value>,
        }
        Message::text(json(&Answer { say: self, r#ref: reference }))
    }
}

/// A message of a channel.
pub fn message(channel: &str, id: &Id, content_type: Option<&str>, is_text: bool, payload: &[u8]) -> Broadcast {
    #[derive(Serialize)]
    struct Written<'a> {
        r#type: &'static str,
        channel: &'a str,
        id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        content_type: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    }
    let data = if is_text { std::str::from_utf8(payload).ok() } else { None };
    let base64 = data.is_none().then(|| STANDARD.encode(payload));
    Broadcast::text(json(&Written { r#type: "message", channel, id: id.to_string(), content_type, data, base64 }))
}

/// All of what is written here can be written in JSON: no map has keys that are no strings.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_read() {
        let subscribe = r#"{"type":"subscribe","channel":"a","since":"e:1","presence":true,"ref":7,"more":[]}"#;
        let Request { wish, reference } = read(subscribe).unwrap();
        let (channel, since) = ("a".to_owned(), Some("e:1".to_owned()));
        assert_eq!(wish, Wish::Subscribe { channel: channel.clone(), since, presence: Some(true) });
        assert_eq!(reference, Some(json!(7)));
        let publish = |body: &str| read(&format!(r#"{{"type":"publish","channel":"a",{body}}}"#)).map(|r| r.wish);
        let published = |payload| Ok(Wish::Publish { channel: channel.clone(), payload });
        assert_eq!(publish(r#""data":"x""#), published(Payload::Text("x".into())));
        assert_eq!(publish(r#""base64":"/wA=""#), published(Payload::Binary(vec![0xff, 0])));
        for body in [r#""data":"x","base64":"/wA=""#, r#""ref":1"#, r#""base64":"%""#, r#""data":1"#] {
            assert_eq!(publish(body).unwrap_err().0.code, Code::BadRequest, "{body}");
        }
        for (text, reference) in [
            ("", None),
            ("[]", None),
            (r#"{"type":"dance","channel":"a","ref":"r"}"#, Some(json!("r"))),
            (r#"{"type":"subscribe","ref":{"a":1}}"#, None),
        ] {
            let (problem, its) = read(text).unwrap_err();
            assert_eq!((problem.code, its), (Code::BadRequest, reference), "{text}");
        }
    }

    #[test]
    fn answers_carry_the_reference() {
        let say = Say::Subscribed { channel: "a", id: Some("e:1".into()), recovered: None };
        assert_eq!(say.answer(None), Message::text(r#"{"type":"subscribed","channel":"a","id":"e:1"}"#));
        let say = Say::Error { code: Code::TooMany, message: "no" };
        let text = r#"{"type":"error","code":"too_many","message":"no","ref":"x"}"#;
        assert_eq!(say.answer(Some(&json!("x"))), Message::text(text));
        let say = Say::presence("a", &[("joe".into(), 2)], 3).to_all();
        let text = r#"{"type":"presence","channel":"a","members":[{"member":"joe","connections":2}],"subscribers":3}"#;
        assert_eq!(say.payload()[..], *text.as_bytes());
    }
}
