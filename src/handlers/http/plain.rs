//! The plain mode: a message is the body of a request, and the body of the answer is a message.

use super::effect::{Effect, Unusable, beginning, lines, media_type, of_lines};
use crate::engine::application::loopback::HttpAnswer;
use crate::wire::{CloseCode, Message, Utf8Bytes, close};

/// What an answer asks for. At the opening its status was judged before.
///
/// # Errors
/// The session cannot go on.
pub fn effects(answer: HttpAnswer) -> Result<Vec<Effect>, Unusable> {
    let status = answer.status;
    let mut said = match lines(&answer) {
        Ok(said) => said,
        Err(why) if (200..300).contains(&status) => {
            return Err(Unusable { why: format!("its answer says {why}"), close: failed() });
        }
        Err(_) => Default::default(),
    };
    match status {
        200..=299 => {}
        // It means it: the session has no right any more, or nobody has.
        300..=399 | 401 | 403 | 404 | 410 => {
            let close = said.close.unwrap_or_else(|| close(CloseCode::Policy, "refused by the application"));
            return Err(Unusable { why: format!("it was answered with {status}"), close });
        }
        _ => {
            let why = format!("it was answered with {status}: \"{}\"", beginning(&answer.body));
            return Err(Unusable { why, close: failed() });
        }
    }
    let mut effects = of_lines(&mut said);
    effects.extend(message(answer).map(Effect::Send));
    effects.extend(said.close.map(Effect::Close));
    Ok(effects)
}

fn failed() -> crate::wire::CloseFrame {
    close(CloseCode::Error, "the application failed")
}

/// The message that a body is: text where its type and its bytes say so.
fn message(answer: HttpAnswer) -> Option<Message> {
    if answer.body.is_empty() || answer.status == 204 {
        return None;
    }
    let media_type = media_type(&answer);
    let is_text = match &*media_type {
        "application/json" | "application/xml" | "application/javascript" => true,
        other => other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml"),
    };
    let text = is_text.then(|| Utf8Bytes::try_from(answer.body.clone()).ok()).flatten();
    Some(text.map_or(Message::Binary(answer.body), Message::Text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
        let headers = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()));
        HttpAnswer { status, headers: headers.collect(), body: body.to_vec().into() }
    }

    #[test]
    fn a_body_is_a_message() {
        for (media_type, body, is_text) in [
            ("text/html; charset=UTF-8", "<b>é</b>".as_bytes(), true),
            ("application/json", b"{}", true),
            ("application/problem+json", b"{}", true),
            ("IMAGE/SVG+XML", b"<svg/>", true),
            ("text/plain", b"\xff", false),
            ("application/octet-stream", b"text", false),
            ("", b"text", false),
        ] {
            let effects = effects(answer(200, &[("Content-Type", media_type)], body)).unwrap();
            let [Effect::Send(message)] = &effects[..] else { panic!("{effects:?}") };
            assert_eq!(
                (message.is_text(), message.clone().into_data()),
                (is_text, body.to_vec().into()),
                "{media_type}"
            );
        }
        for (status, body) in [(200, ""), (204, ""), (204, "ignored"), (201, "")] {
            assert_eq!(effects(answer(status, &[], body.as_bytes())), Ok(vec![]));
        }
    }

    #[test]
    fn what_header_lines_ask_for_comes_in_order() {
        let headers = [
            ("Content-Type", "text/plain"),
            ("WebSocket-Close", "4001 bye"),
            ("WebSocket-Channel", "a, b"),
            ("Set-Meta-User", "1"),
        ];
        let expected = vec![
            Effect::Meta(vec![("user".into(), "1".into())]),
            Effect::Channels(vec!["a".into(), "b".into()]),
            Effect::Send(Message::text("last")),
            Effect::Close(close(4001.into(), "bye")),
        ];
        assert_eq!(effects(answer(200, &headers, b"last")), Ok(expected));
        // What is not known, or has no meaning here, is not passed over.
        for name in ["WebSocket-Chanel", "WebSocket-Allow", "WebSocket-Rights"] {
            let refused = effects(answer(200, &[(name, "presence")], b"")).unwrap_err();
            assert!(
                refused.close.code == CloseCode::Error
                    && refused.why.to_ascii_lowercase().contains(&name.to_ascii_lowercase()),
                "{}",
                refused.why
            );
        }
    }

    #[test]
    fn statuses_have_meanings() {
        let page = b"<html>Fatal error</html>";
        for (status, code) in [
            (301, CloseCode::Policy),
            (302, CloseCode::Policy),
            (401, CloseCode::Policy),
            (403, CloseCode::Policy),
            (404, CloseCode::Policy),
            (410, CloseCode::Policy),
            (400, CloseCode::Error),
            (429, CloseCode::Error),
            (500, CloseCode::Error),
            (503, CloseCode::Error),
        ] {
            assert_eq!(effects(answer(status, &[("Content-Type", "text/html")], page)).unwrap_err().close.code, code);
        }
        let said = effects(answer(403, &[("WebSocket-Close", "4003 logged out")], page)).unwrap_err();
        assert_eq!(said.close, close(4003.into(), "logged out"));
        let failed = effects(answer(500, &[("WebSocket-Close", "4003 logged out")], page)).unwrap_err();
        assert_eq!(failed.close.code, CloseCode::Error);
        assert!(failed.why.contains("500") && failed.why.contains("Fatal error"), "{}", failed.why);
    }
}
