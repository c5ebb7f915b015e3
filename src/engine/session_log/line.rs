//! The line that a session leaves in the session log when it ends. `docs/operations/logging.md` documents its fields.

use crate::engine::summary::Summary;
use jiff::Zoned;
use std::fmt::Write;

/// The line, newline included, of session `id` that ended at `time`.
///
/// Each field is one word, or stands in quotes, whatever the client sent.
pub(super) fn line(id: u64, summary: &Summary, host: &str, time: &Zoned) -> String {
    let Summary { spec, received, sent, end, open } = summary;
    let mut out = String::with_capacity(160 + spec.uri().len());
    // Writing to a String cannot fail.
    let _ = write!(out, "{}", time.strftime("[%d/%b/%Y:%H:%M:%S %z]"));
    for field in [Some(spec.client()), spec.user(), Some(host)] {
        out.push(' ');
        word(&mut out, field);
    }
    out.push_str(" \"");
    let with_query = spec.log.as_ref().is_some_and(|log| log.query);
    escape(&mut out, if with_query { spec.uri() } else { spec.uri().split('?').next().unwrap_or_default() });
    out.push('"');
    for field in [Some(spec.handler.name.as_str()), spec.protocol.as_deref()] {
        out.push(' ');
        word(&mut out, field);
    }
    let _ = writeln!(
        out,
        " {}.{:03} {} {} {} {} {} {} {id}",
        open.as_secs(),
        open.subsec_millis(),
        received.messages,
        received.bytes,
        sent.messages,
        sent.bytes,
        end.code(),
        end.who(),
    );
    out
}

/// A field without quotes: "-" for none, as httpd does, and `""` for an empty one. A blank in it would end it.
fn word(out: &mut String, field: Option<&str>) {
    match field {
        None => out.push('-'),
        Some("") => out.push_str("\"\""),
        Some(text) => {
            for (number, piece) in text.split(' ').enumerate() {
                if number > 0 {
                    out.push_str("\\x20");
                }
                escape(out, piece);
            }
        }
    }
}

/// As httpd's access log escapes (ap_escape_logitem): quotes, backslashes, and what is not printable ASCII.
fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b'\x08' => out.push_str("\\b"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'\x0b' => out.push_str("\\v"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::summary::{End, Traffic};
    use crate::engine::{KeptSpec, LogSpec, SessionSpec, testing};
    use crate::wire::{CloseCode, close};
    use proptest::prelude::*;
    use std::time::Duration;

    fn spec() -> SessionSpec {
        SessionSpec {
            server: "whatever.the.client.says".into(),
            uri: "/echo?a=b".into(),
            log: Some(Box::new(LogSpec { query: true, name: "logs/ws.log".into(), host: "www.example.com".into() })),
            ..testing::spec("echo")
        }
    }

    fn summary(end: End) -> Summary {
        of(spec(), end)
    }

    fn of(spec: SessionSpec, end: End) -> Summary {
        Summary {
            spec: KeptSpec::new(spec),
            received: Traffic { messages: 3, bytes: 120 },
            sent: Traffic { messages: 2, bytes: 5_000_000_000 },
            end,
            open: Duration::from_micros(61_002_900),
        }
    }

    fn at() -> Zoned {
        "2026-11-23T04:54:07.9-05:30[-05:30]".parse().unwrap()
    }

    #[test]
    fn a_line_has_all_its_fields() {
        let end = || End::Client(Some(close(CloseCode::Normal, "bye")));
        let summary = summary(end());
        assert_eq!(
            line(17, &summary, "www.example.com", &at()),
            "[23/Nov/2026:04:54:07 -0530] 192.0.2.1 - www.example.com \"/echo?a=b\" echo - 61.002 3 120 2 5000000000 \
             1000 client 17\n"
        );
        let spec = SessionSpec { user: Some("alice".into()), protocol: Some("chat".into()), ..spec() };
        let summary = of(spec, end());
        let line = line(u64::MAX, &summary, "", &at());
        assert!(line.contains(" 192.0.2.1 alice \"\" \"/echo?a=b\" echo chat 61.002 "), "{line}");
        assert!(line.ends_with(" client 18446744073709551615\n"), "{line}");
    }

    #[test]
    fn who_closed_and_how() {
        let frame = |code| close(code, "");
        for (end, expected) in [
            (End::Client(None), "1005 client"),
            (End::Violation(frame(CloseCode::Protocol)), "1002 violation"),
            (End::Engine(frame(CloseCode::Away)), "1001 server"),
            (End::Handler(frame(CloseCode::Library(4000))), "4000 handler"),
            (End::Lost(std::io::ErrorKind::UnexpectedEof.into()), "1006 lost"),
        ] {
            let line = line(1, &summary(end), "h", &at());
            assert!(line.ends_with(&format!(" {expected} 1\n")), "{line}");
        }
    }

    #[test]
    fn what_a_client_sends_is_escaped() {
        let uri = "/a \"b\" \\ \n\r\t\x08\x0b\x00\x1b\x7f\u{e9}".into();
        let summary = of(SessionSpec { uri, user: Some("al ice\"\n".into()), ..spec() }, End::Client(None));
        let line = line(1, &summary, "h", &at());
        assert!(line.contains(r#" al\x20ice\"\n h "/a \"b\" \\ \n\r\t\b\v\x00\x1b\x7f\xc3\xa9" echo "#), "{line}");
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_of_fourteen_fields(uri in any::<String>(), user in any::<String>(), host in any::<String>()) {
            let summary = of(SessionSpec { uri, user: Some(user), ..spec() }, End::Client(None));
            let line = line(1, &summary, &host, &at());
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            prop_assert!(line.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            // Before the URI, which stands in the quotes that follow a blank and are not an empty field, and after it.
            let (rest, after) = line.rsplit_once("\" echo ").unwrap();
            prop_assert_eq!(after.split_whitespace().count(), 9);
            let before: Vec<&str> = rest.splitn(6, ' ').collect();
            prop_assert_eq!(before.len(), 6);
            prop_assert!(before[5].starts_with('"'));
        }
    }
}
