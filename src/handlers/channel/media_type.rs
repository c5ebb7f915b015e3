//! What the media type of a message says: whether it is text, and what subscribers are told of it.

use crate::channels::publication::is_line;

/// What curl says of -d, PHP of a body, and fetch of parameters, without being asked.
const FORM: &str = "application/x-www-form-urlencoded";

/// True when the body is text: as the query says, or its media type.
pub(super) fn is_text(requested: Option<&str>, content_type: Option<&str>, body: &[u8]) -> Result<bool, &'static str> {
    is_sent_as_text(requested, || is_of_text(content_type), || std::str::from_utf8(body).is_ok())
}

/// True when a message is text: as the query says; else where something says that it is `of_text`, and it can be.
pub(super) fn is_sent_as_text(
    requested: Option<&str>,
    of_text: impl FnOnce() -> bool,
    is_utf8: impl Fn() -> bool,
) -> Result<bool, &'static str> {
    match requested {
        Some("binary") => Ok(false),
        Some("text") if is_utf8() => Ok(true),
        Some("text") => Err("the message is not UTF-8, so it cannot be text"),
        Some(_) => Err("type is text or binary"),
        None => Ok(of_text() && is_utf8()),
    }
}

/// True for a media type of text, and without one.
pub(super) fn is_of_text(content_type: Option<&str>) -> bool {
    match &*essence(content_type) {
        "" | FORM | "application/json" | "application/xml" | "application/graphql" => true,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => true,
        other => other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml"),
    }
}

/// True for a body of several parts.
pub(super) fn is_multipart(content_type: Option<&str>) -> bool {
    essence(content_type).starts_with("multipart/")
}

/// The media type without its parameters, in small letters; empty where there is none.
pub(super) fn essence(content_type: Option<&str>) -> String {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What subscribers are told of the media type: nothing where nobody has chosen it.
pub(super) fn told_type(content_type: Option<&str>) -> Option<String> {
    let content_type = content_type?;
    (is_line(content_type) && essence(Some(content_type)) != FORM).then(|| content_type.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_text_where_its_type_and_bytes_say_so() {
        for (requested, content_type, body, expected) in [
            (None, None, &b"x"[..], Some(true)),
            (None, Some("application/x-www-form-urlencoded"), b"x", Some(true)),
            (None, Some("Text/Plain; charset=utf-8"), b"x", Some(true)),
            (None, Some("application/activity+json"), b"x", Some(true)),
            (None, Some("application/json"), b"\xff", Some(false)),
            (None, Some("image/png"), b"x", Some(false)),
            (None, Some("application/x-www-form-urlencoded;charset=UTF-8"), b"x", Some(true)),
            (None, Some("image/svg+xml"), b"x", Some(true)),
            (None, Some("application/soap+xml; charset=utf-8"), b"x", Some(true)),
            (None, Some("application/XML"), b"x", Some(true)),
            (None, Some("application/x-ndjson"), b"x", Some(true)),
            (None, Some("application/graphql"), b"x", Some(true)),
            (None, Some("application/graphql-response+json"), b"x", Some(true)),
            (None, Some("application/octet-stream"), b"x", Some(false)),
            (Some("text"), Some("image/png"), b"x", Some(true)),
            (Some("binary"), None, b"x", Some(false)),
            (Some("text"), None, b"\xff", None),
            (Some("other"), None, b"x", None),
        ] {
            assert_eq!(is_text(requested, content_type, body).ok(), expected, "{requested:?} {content_type:?}");
        }
        assert_eq!(told_type(Some("text/plain")).as_deref(), Some("text/plain"));
        assert_eq!([told_type(Some("a\nb")), told_type(Some("application/x-www-form-urlencoded"))], [None, None]);
        assert_eq!(told_type(Some("Application/X-WWW-Form-Urlencoded; charset=UTF-8")), None);
    }
}
