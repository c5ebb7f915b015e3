use super::*;
use proptest::prelude::*;

fn parse(lines: &[(&str, &str)]) -> Result<Answer, BadAnswer> {
    Answer::parse(lines.iter().map(|(name, value)| (*name, value.as_bytes())))
}

fn pattern(text: &str) -> Pattern {
    Pattern(text.split('*').map(str::to_owned).collect())
}

#[test]
fn all_that_can_be_said_is_understood() {
    let answer =
        parse(&[("WebSocket-Channel", "news, user/joe%2Csmith"), ("websocket-channel", "room%20, ,news,caf%C3%A9")]);
    // A blank is in no name, however it is written.
    assert!(answer.is_err());
    let answer = parse(&[
        ("WebSocket-Channel", "news, user/joe%2Csmith"),
        ("websocket_channel", "caf%C3%A9, ,news"),
        ("Grip-Channel", "grip; prev-id=5, other"),
        ("WebSocket-Allow", "room/*, a%2Ab*"),
        ("WebSocket-Rights", "publish"),
        ("WebSocket-Rights", "Presence"),
        ("WebSocket-Member", "Jos%C3%A9"),
        ("WebSocket-User", "a%40b%20c"),
        ("WebSocket-Recheck", "300"),
        ("WebSocket-Expires", " 3600 "),
        ("WebSocket-Close", "4401 logged out"),
        ("Set-Meta-User", "joe"),
        ("Set_Meta_Other_Name", ""),
        ("Sec-WebSocket-Protocol", "chat.v2"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2; Path=/"),
        ("X-Any", ""),
    ]);
    let text = str::to_owned;
    assert_eq!(
        answer.unwrap(),
        Answer {
            channels: Some(["news", "user/joe,smith", "café", "grip", "other"].map(text).to_vec()),
            allowed: Some(vec![pattern("room/*"), Pattern(vec![text("a*b"), text("")])]),
            rights: Some(Rights { publish: true, presence: true }),
            member: Some(text("José")),
            user: Some(text("a@b c")),
            recheck: Some(Some(Duration::from_secs(300))),
            expires: Some(Duration::from_secs(3600)),
            close: Some(close(CloseCode::from(4401), "logged out")),
            meta: vec![(text("user"), text("joe")), (text("other-name"), text(""))],
            protocol: Some(text("chat.v2")),
            headers: vec![
                (text("Set-Cookie"), b"a=1".to_vec()),
                (text("Set-Cookie"), b"b=2; Path=/".to_vec()),
                (text("X-Any"), Vec::new()),
            ],
        }
    );
}

#[test]
fn nothing_said_is_nothing_meant() {
    assert_eq!(parse(&[]), Ok(Answer::default()));
    assert_eq!(
        parse(&[("Content-Type", "text/html"), ("Server", "x"), ("Grip-Hold", "stream")]),
        Ok(Answer::default())
    );
    let none =
        parse(&[("WebSocket-Channel", "none"), ("WebSocket-Allow", "None"), ("WebSocket-Rights", "none")]).unwrap();
    assert_eq!((none.channels, none.allowed, none.rights), (Some(vec![]), Some(vec![]), Some(Rights::default())));
    // One of that name is written otherwise, or is not alone.
    assert_eq!(parse(&[("WebSocket-Channel", "%6Eone")]).unwrap().channels, Some(vec!["none".to_owned()]));
    assert_eq!(parse(&[("WebSocket-Recheck", "off")]).unwrap().recheck, Some(None));
}

#[test]
fn what_is_not_understood_is_an_error() {
    let long = "x".repeat(MAX_NAME + 1);
    let (meta, reason) = ("x".repeat(MAX_META), "x".repeat(MAX_REASON + 1));
    let reason = format!("4000 {reason}");
    for (name, value) in [
        ("WebSocket-Channel", ""),
        ("WebSocket-Channel", " , "),
        ("WebSocket-Channel", "a b"),
        ("WebSocket-Channel", "a%0Ab"),
        ("WebSocket-Channel", "a%20b"),
        ("WebSocket-Channel", "%"),
        ("WebSocket-Channel", "%2"),
        ("WebSocket-Channel", "%ff"),
        ("WebSocket-Channel", &long),
        ("Grip-Channel", "a; filter=skip-self"),
        ("WebSocket-Allow", ""),
        ("WebSocket-Allow", "room /*"),
        ("WebSocket-Allow", &long),
        ("WebSocket-Rights", ""),
        ("WebSocket-Rights", "publish, admin"),
        ("WebSocket-Rights", "publish, none"),
        ("WebSocket-Member", ""),
        ("WebSocket-User", ""),
        ("WebSocket-User", "a, b"),
        ("WebSocket-User", "a b"),
        ("WebSocket-User", "a%00b"),
        ("WebSocket-User", &long),
        ("WebSocket-Recheck", "9"),
        ("WebSocket-Recheck", "+10"),
        ("WebSocket-Recheck", "1e3"),
        ("WebSocket-Recheck", "86401"),
        ("WebSocket-Recheck", "-1"),
        ("WebSocket-Expires", "0"),
        ("WebSocket-Expires", "Off"),
        ("WebSocket-Expires", "99999999999999999999999"),
        ("WebSocket-Close", "1005"),
        ("WebSocket-Close", "1006 gone"),
        ("WebSocket-Close", "999"),
        ("WebSocket-Close", "5000"),
        ("WebSocket-Close", "logged out"),
        ("WebSocket-Close", &reason),
        ("WebSocket-Chanel", "a"),
        ("WebSocket-Event", "open"),
        ("Sec-WebSocket-Protocol", "a, b"),
        ("Sec-WebSocket-Protocol", ""),
        ("Set-Meta-", "x"),
        ("Set-Meta-A", &meta),
        ("X-Any", "a\r\nb: c"),
        ("X-Any", "a\0"),
        ("X Any", "a"),
        ("X-Any\r\nX", "a"),
        ("", "a"),
    ] {
        let error = parse(&[(name, value)]).expect_err(&format!("{name}: {value:?}"));
        let text = error.to_string();
        assert!(text.len() < 300 && !text.contains(['\r', '\n', '\0']), "{text:?}");
    }
    for name in ["WebSocket-User", "WebSocket-Member", "WebSocket-Recheck", "WebSocket-Expires", "Set-Meta-A"] {
        assert!(parse(&[(name, "10")]).is_ok(), "{name}");
        assert!(parse(&[(name, "10"), (name, "10")]).is_err(), "{name}");
    }
    assert!(Answer::parse([("WebSocket-User", &b"\xe9"[..])]).is_err());
}

#[test]
fn answers_have_bounds() {
    let many: Vec<(String, String)> = (0..=MAX_META_NAMES).map(|n| (format!("Set-Meta-{n}"), String::new())).collect();
    let lines: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert!(parse(&lines[1..]).is_ok());
    assert!(parse(&lines).is_err());
    let value = "x".repeat(MAX_FIELDS);
    assert!(parse(&[("X-Any", &value[6..])]).is_ok());
    assert!(parse(&[("X-Any", &value[3..]), ("X-Any", "")]).is_err());
}

#[test]
fn the_answers_own_lines_stay_behind() {
    for name in [
        "Connection",
        "Upgrade",
        "Transfer-Encoding",
        "Content-Length",
        "Content_Type",
        "Content-Security-Policy",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Grip-Hold",
        "Meta-User",
        "Connection-Id",
        "Keep-Alive-Interval",
        "Date",
        "Status",
    ] {
        assert_eq!(parse(&[(name, "1")]), Ok(Answer::default()), "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(lines in prop::collection::vec((field(), prop::collection::vec(any::<u8>(), 0..60)), 0..6)) {
        check(Answer::parse(lines.iter().map(|(name, value)| (name.as_str(), value.as_slice()))))?;
    }

    #[test]
    fn lists_may_be_cut_anywhere(names in prop::collection::vec("[a-z%0-9/*]{1,6}", 1..6), cut in any::<prop::sample::Index>()) {
        for header in ["WebSocket-Channel", "WebSocket-Allow", "Grip-Channel"] {
            let at = cut.index(names.len());
            let (one, (first, second)) = (names.join(", "), (names[..at].join(","), names[at..].join(" ,")));
            let lines = [(header, first.as_str()), (header, second.as_str())];
            let lines = if at == 0 { &lines[1..] } else { &lines[..] };
            // Alone, `none` is another word.
            prop_assume!(!names.iter().any(|name| name == NONE));
            let (one, two) = (parse(&[(header, one.as_str())]), parse(lines));
            prop_assert_eq!(one.ok(), two.ok());
        }
    }
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("WebSocket-Channel".to_owned()),
        Just("WebSocket-Allow".to_owned()),
        Just("WebSocket-Rights".to_owned()),
        Just("WebSocket-User".to_owned()),
        Just("WebSocket-Close".to_owned()),
        Just("Grip-Channel".to_owned()),
        Just("Set-Meta-Name".to_owned()),
        Just("Set-Cookie".to_owned()),
        ".{0,12}",
    ]
}

fn check(answer: Result<Answer, BadAnswer>) -> Result<(), TestCaseError> {
    let Ok(answer) = answer else { return Ok(()) };
    prop_assert!(answer.channels.iter().flatten().all(|name| is_name(name)));
    prop_assert!(answer.allowed.iter().flatten().all(|pattern| !pattern.0.is_empty()));
    let is_line = |value: &[u8]| !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
    prop_assert!(answer.headers.iter().all(|(name, value)| is_token(name) && is_line(value)));
    prop_assert!(answer.meta.iter().all(|(name, value)| is_token(name) && is_line(value.as_bytes())));
    prop_assert!(answer.user.iter().chain(&answer.member).all(|id| !id.is_empty() && !id.contains(char::is_control)));
    prop_assert!(answer.protocol.iter().all(|protocol| is_token(protocol)));
    Ok(())
}
