//! What an application may say of a session, and what comes of it in each handler.

use super::{APP, saying};
use crate::harness::channel::{ask, offering, open, request, said};
use crate::harness::php::Fpm;
use crate::harness::publish::{json as answered, publish};
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server};
use serde_json::json;

fn site(fpm: &Fpm) -> Httpd {
    let authorize = "WebSocketAuthorize /app.php?q=%{QUERY_STRING}";
    Fpm::modules(Httpd::new(Mpm::Event))
        .module("authz_host")
        .module("env")
        .file("htdocs/app.php", APP)
        .program("user.sh", "#!/bin/sh\necho \"user $REMOTE_USER\"\n")
        .config(fpm.config())
        .config(format!(
            "<Location \"/chat\">\nWebSocketHandler channel configured/%{{env:NOWHERE}}x\nWebSocketChannelAllow open/*\n\
             WebSocketChannelPresence On\n{authorize}\n</Location>\n\
             <Location \"/below\">\nWebSocketHandler channel configured\nWebSocketChannelPrefix site\n{authorize}\n</Location>\n\
             <Location \"/empty\">\nWebSocketHandler channel user/%{{REMOTE_USER}}\n{authorize}\n</Location>\n\
             <Location \"/program\">\nWebSocketHandler exec \"{{root}}/user.sh\"\n{authorize}\n</Location>\n\
             <Location \"/publish\">\nSetHandler websocket-publish\nRequire local\n</Location>"
        ))
}

/// What the next messages say it is subscribed to.
#[track_caller]
fn expect_channels(client: &mut Raw, names: &[&str]) {
    for name in names {
        let subscribed = said(client);
        assert_eq!((&subscribed["type"], &subscribed["channel"]), (&json!("subscribed"), &json!(name)), "{subscribed}");
    }
}

#[track_caller]
fn v1(server: &Server, path: &str, lines: &[&str]) -> Raw {
    open(server, &offering(&format!("{path}?{}", saying(lines)), "channels.v1")).0
}

#[test]
fn channels_rights_and_members() {
    let fpm = Fpm::start(2);
    let server = site(&fpm).start();

    // The answer's count in the place of the configuration's, which are not even looked at: one of them has nothing in it.
    let lines = [
        "WebSocket-Channel: news, user%2Fann",
        "WebSocket-Channel: caf%C3%A9",
        "Grip-Channel: grip; prev-id=1",
        "WebSocket-Allow: room/*",
        "WebSocket-Rights: publish, presence",
        "WebSocket-Member: Ann%20A",
        "WebSocket-User: ann",
    ];
    let mut ann = v1(&server, "/chat", &lines);
    expect_channels(&mut ann, &["news", "user/ann", "café", "grip"]);
    assert_eq!(ask(&mut ann, &json!({"type": "subscribe", "channel": "room/1"}))["type"], "subscribed");
    assert_eq!(ask(&mut ann, &json!({"type": "subscribe", "channel": "open/1"}))["type"], "error");
    let presence = ask(&mut ann, &json!({"type": "presence", "channel": "news"}));
    assert_eq!(presence["members"], json!([{"member": "Ann A", "connections": 1}]), "{presence}");
    request(&mut ann, &json!({"type": "publish", "channel": "news", "data": "hello"}));
    assert!(["message", "published"].map(|kind| json!(kind)).contains(&said(&mut ann)["type"]));

    // Nobody may publish, or look who is there, by default; and a user is no member by that.
    let mut quiet = v1(&server, "/chat", &["WebSocket-Channel: none", "WebSocket-Rights: none", "WebSocket-User: bob"]);
    request(&mut quiet, &json!({"type": "subscribe", "channel": "open/1"}));
    expect_channels(&mut quiet, &["open/1"]);
    assert_eq!(ask(&mut quiet, &json!({"type": "presence", "channel": "open/1"}))["type"], "error");
    assert_eq!(ask(&mut quiet, &json!({"type": "publish", "channel": "open/1", "data": "x"}))["type"], "error");
    let info = answered(&Raw::page(&server, "/publish?channel=open/1"));
    assert_eq!((&info["subscribers"], &info["members"]), (&json!(1), &json!([])), "{info}");

    // Below the prefix of the configuration, which the application does not see.
    let mut below = v1(&server, "/below", &["WebSocket-Channel: a", "WebSocket-Allow: b*"]);
    expect_channels(&mut below, &["a"]);
    assert_eq!(ask(&mut below, &json!({"type": "subscribe", "channel": "b1"}))["channel"], "b1");
    assert_eq!(publish(&server, "site/a", "x").1, 1);
    assert_eq!(publish(&server, "a", "x").1, 0);

    // REMOTE_USER is whom the application has named: for the configuration's own names, and for programs.
    let mut own = v1(&server, "/empty", &["WebSocket-User: carl"]);
    expect_channels(&mut own, &["user/carl"]);
    assert_eq!(Raw::answer(&server, &Handshake::new("/empty?x=1")).status, 403);
    let slashed = Raw::answer(&server, &Handshake::new(&format!("/empty?{}", saying(&["WebSocket-User: a%2Fb"]))));
    assert_eq!(slashed.status, 403);
    server.expect_log("WS0036");
    let mut program = Raw::open(&server, &format!("/program?{}", saying(&["WebSocket-User: dora"])));
    program.expect(&Frame::text("user dora"));
}
