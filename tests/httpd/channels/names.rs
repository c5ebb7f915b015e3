//! What a client is subscribed to: where it cannot be what the administrator meant, it is refused. What works is in
//! `subscriptions`.

use crate::harness::publish::{json, post, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm, wait_until};
use serde_json::Value;

every_mpm!(names_follow_the_request);

const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";

fn httpd(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .login()
        .module("authz_host")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>\nWebSocketChannelHistory Off")
}

fn answer(server: &Server, handshake: &Handshake) -> Response {
    Raw::answer(server, handshake)
}

/// True when a subscriber with this handshake gets what is published to `channel` (as it stands in a query).
fn hears(server: &Server, handshake: &Handshake, channel: &str) -> bool {
    let before = subscribers(server, channel);
    let mut client = Raw::open_with(server, handshake);
    // The engine knows of it before it is heard, or never: the Close comes after all that was to come.
    client.send(&Frame::ping("are you there?"));
    client.expect(&Frame::pong("are you there?"));
    let is_there = subscribers(server, channel) > before;
    if is_there {
        assert_eq!(post(server, &format!("/publish?channel={channel}"), "text/plain", b"x").status, 201);
        client.expect(&Frame::text("x"));
    }
    client.close();
    wait_until("it has gone", PATIENCE, || subscribers(server, channel) == before);
    is_there
}

fn names_follow_the_request(mpm: Mpm) {
    let server = httpd(mpm)
        .config(
            "<Location \"/login\">\n  AuthType Basic\n  AuthName x\n  AuthUserFile \"{root}/conf/users\"\n  Require valid-user\n  \
             WebSocketHandler channel user/%{REMOTE_USER} \"host/%{tolower:%{HTTP_HOST}} all\" all\n</Location>",
        )
        .config("<LocationMatch \"^/rooms/(?<ROOM>[^/]+)$\">\n  WebSocketHandler channel room/%{env:MATCH_ROOM}\n</LocationMatch>")
        .config("<Location \"/query\">\n  WebSocketHandler channel %{QUERY_STRING}\n</Location>")
        .config("<Location \"/query/plain\">\n  WebSocketHandler channel fixed\n</Location>")
        .start();
    let alice = Handshake::new("/login").header("Authorization", ALICE).header("Host", "WWW.example");
    for channel in ["user/alice", "host/www.example", "all"] {
        assert!(hears(&server, &alice, channel), "{channel}");
    }
    assert!(hears(&server, &Handshake::new("/rooms/a+b%3Fc"), "room/a%2Bb%3Fc"));
    assert!(hears(&server, &Handshake::new("/query?a=1&b=2"), "a%3D1%26b%3D2"));
    // What goes on where it was has the same name as what begins.
    assert!(hears(&server, &Handshake::new("/query?last_event_id=x:1&a"), "a"));
    assert!(hears(&server, &Handshake::new("/query?a&last_event_id=x:1&b"), "a%26b"));
    assert!(hears(&server, &Handshake::new("/query?a&last%5Fevent_id=x:1"), "a"));
    assert!(!hears(&server, &Handshake::new("/query/plain?b"), "b"));
    // The query is the client's again where httpd writes it down.
    let log = server.access_log();
    assert!(log.contains("GET /query?a&last_event_id=x:1&b HTTP/1.1\" 101"), "{log}");
}

/// What makes no name, or two of one, makes no subscription.
#[test]
fn blanks_that_a_client_brings_do_not_separate_names() {
    let server = httpd(Mpm::Event)
        .config("<Location \"/query\">\n  WebSocketHandler channel \"room/%{QUERY_STRING} all\"\n</Location>")
        .config("<Location \"/header\">\n  WebSocketHandler channel \"room/%{HTTP:X-Room}\"\n</Location>")
        .config("<Location \"/empty\">\n  WebSocketHandler channel all %{HTTP:X-Room}\n</Location>")
        .start();
    for query in
        ["a%20admin", "a%09admin", "a%0Aadmin", "a%C2%A0admin", "a%E2%80%A8admin", "a%00", "%7F", "%C3", "%ED%A0%80"]
    {
        assert_eq!(answer(&server, &Handshake::new(&format!("/query?{query}"))).status, 400, "{query}");
    }
    for room in ["a admin", "a\tadmin", "caf\u{e9} admin"] {
        assert_eq!(answer(&server, &Handshake::new("/header").header("X-Room", room)).status, 400, "{room}");
    }
    assert_eq!(answer(&server, &Handshake::new("/empty")).status, 403);
    assert_eq!(answer(&server, &Handshake::new("/empty").header("X-Room", "x")).status, 101);
    for (length, status) in [(1019, 101), (1020, 400)] {
        let path = format!("/query?{}", "x".repeat(length));
        assert_eq!(answer(&server, &Handshake::new(&path)).status, status, "{length}");
    }
    assert_eq!(subscribers(&server, "admin"), 0);
}

/// A channel that is named twice counts once.
#[test]
fn as_many_channels_as_may_be() {
    let server = httpd(Mpm::Event)
        .config(
            "<Location \"/two\">\n  WebSocketHandler channel a %{QUERY_STRING} a\n  WebSocketChannelMax 2\n</Location>",
        )
        .config("<Location \"/two/one\">\n  WebSocketChannelMax 1\n</Location>")
        .config("<Location \"/two/off\">\n  WebSocketHandler Off\n</Location>")
        .start();
    assert_eq!(answer(&server, &Handshake::new("/two?b")).status, 101);
    assert_eq!(answer(&server, &Handshake::new("/two/one?a")).status, 101);
    assert_eq!(answer(&server, &Handshake::new("/two/one?b")).status, 400);
    assert_eq!(answer(&server, &Handshake::new("/two/off?b")).status, 404);
}

fn said(client: &mut Raw) -> Value {
    serde_json::from_slice(&client.frame().payload).expect("JSON")
}

fn live(server: &Server, path: &str) -> Raw {
    let mut client = Raw::connect(server);
    let answer = client.ask(&Handshake::new(path).header("Sec-WebSocket-Protocol", "channels.v1"));
    answer.assert_accepted();
    assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("channels.v1"));
    assert_eq!(said(&mut client)["type"], "subscribed");
    client
}

/// Asks for a subscription; what the answer is, or what is wrong.
fn subscribe(client: &mut Raw, channel: &str) -> String {
    client.send(&Frame::text(serde_json::json!({"type": "subscribe", "channel": channel}).to_string()));
    let answer = said(client);
    answer.get("code").unwrap_or(&answer["type"]).as_str().expect("a word").to_owned()
}

/// What a request does not have opens no pattern.
#[test]
fn patterns_are_as_wide_as_they_are_written() {
    let server = httpd(Mpm::Event)
        .config(
            "<Location \"/live\">\n  WebSocketHandler channel lobby\n  \
             WebSocketChannelAllow %{REMOTE_USER}* of/%{REMOTE_USER}/* %{HTTP:X-Pattern}\n  \
             WebSocketChannelAllow \"room/* *-%{QUERY_STRING}-*\" \\*\n</Location>",
        )
        .config("<Location \"/live/none\">\n  WebSocketChannelAllow Off\n</Location>")
        .start();
    let mut client = live(&server, "/live?*");
    for (channel, answer) in [
        ("room/1", "subscribed"),
        ("room/", "subscribed"),
        ("a-*-b", "subscribed"),
        ("a-x-b", "forbidden"),
        ("*", "subscribed"),
        ("anything", "forbidden"),
        ("a b", "bad_request"),
    ] {
        assert_eq!(subscribe(&mut client, channel), answer, "{channel}");
    }
    client.close();
    let mut client = live(&server, "/live/none");
    assert_eq!(subscribe(&mut client, "room/1"), "forbidden");
    assert_eq!(subscribe(&mut client, "lobby"), "subscribed");
    client.close();
}

/// A variable that is empty makes no name and no pattern, whatever stands around it.
#[test]
fn what_a_request_lacks_is_no_name() {
    let server = httpd(Mpm::Event)
        .config("<Location \"/user\">\n  WebSocketHandler channel user/%{REMOTE_USER}\n</Location>")
        .config("<Location \"/hash\">\n  WebSocketHandler channel user/%{md5:%{REMOTE_USER}}\n</Location>")
        .config("<Location \"/header\">\n  WebSocketHandler channel all x%{base64:%{tolower:%{HTTP:X-Room}}}x\n</Location>")
        .config("<Location \"/both\">\n  WebSocketHandler channel %{HTTP:X-Room}-%{env:SEAT}\n  SetEnvIf X-Seat (.+) SEAT=$1\n</Location>")
        .config("<Location \"/query\">\n  WebSocketHandler channel room/%{QUERY_STRING}\n</Location>")
        .config("<LocationMatch \"^/match/(.*)$\">\n  WebSocketHandler channel \"room/%{tolower:$1}\"\n</LocationMatch>")
        .config("<Location \"/money\">\n  WebSocketHandler channel \"room/\\$1\"\n</Location>")
        .config(
            "<Location \"/live\">\n  WebSocketHandler channel lobby\n  WebSocketChannelAllow user/%{REMOTE_USER}* \
             of/%{md5:%{REMOTE_USER}}/* \"back/$1*\" room/%{QUERY_STRING}* *%{HTTP:X-Room}-%{HTTP:X-Seat}/ open/*\n</Location>",
        )
        .module("setenvif")
        .start();
    let status = |handshake: Handshake| answer(&server, &handshake).status;
    for path in ["/user", "/hash", "/header", "/both", "/query", "/query?last_event_id=*", "/query?", "/match/a"] {
        assert_eq!(status(Handshake::new(path)), 403, "{path}");
    }
    for (path, room, seat, expected) in [
        ("/header", "A", "", 101),
        ("/both", "A", "", 403),
        ("/both", "", "1", 403),
        ("/both", "A", "1", 101),
        ("/query?0", "", "", 101),
    ] {
        let handshake = Handshake::new(path).header("X-Room", room).header("X-Seat", seat);
        assert_eq!(status(handshake), expected, "{path} {room} {seat}");
    }
    assert!(hears(&server, &Handshake::new("/money"), "room/$1"));
    let handshake = Handshake::new("/live").header("Sec-WebSocket-Protocol", "channels.v1").header("X-Seat", "1");
    let mut client = Raw::open_with(&server, &handshake);
    assert_eq!(said(&mut client)["type"], "subscribed");
    for channel in ["user/alice", "user/", "of/d41d8cd98f00b204e9800998ecf8427e/x", "back/x", "room/1", "a-1/", "-1/"] {
        assert_eq!(subscribe(&mut client, channel), "forbidden", "{channel}");
    }
    assert_eq!(subscribe(&mut client, "open/1"), "subscribed");
    client.close();
}

/// What belongs to `ann/x` is not below `ann`.
#[test]
fn users_with_slashes_have_no_channels_of_their_own() {
    let login = "AuthType Basic\n  AuthName x\n  AuthUserFile \"{root}/conf/slashes\"\n  Require valid-user";
    let location = |path: &str, lines: &str| {
        format!("<Location \"{path}\">\n  {login}\n  WebSocketHandler channel {lines}\n</Location>")
    };
    let server = httpd(Mpm::Event)
        .file("conf/slashes", "alice:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\nann/x:{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=\n")
        .config(location("/name", "user/%{REMOTE_USER}"))
        .config(location("/inner", "all user/%{tolower:%{remote_user}}"))
        .config(location("/pattern", "all\n  WebSocketChannelAllow user/%{REMOTE_USER}/*"))
        .config(location("/none", "all\n  WebSocketChannelAllow Off"))
        .start();
    // ann/x:open sesame
    for (user, statuses) in [(ALICE, [101; 4]), ("Basic YW5uL3g6b3BlbiBzZXNhbWU=", [403, 403, 403, 101])] {
        for (path, status) in ["/name", "/inner", "/pattern", "/none"].into_iter().zip(statuses) {
            let handshake = Handshake::new(path).header("Authorization", user);
            assert_eq!(answer(&server, &handshake).status, status, "{path} {user}");
        }
    }
    server.expect_log("WS0036: refused with 403: \"user/%{REMOTE_USER}\": the user's name contains a /");
    server.expect_log("WS0036: refused with 403: \"user/%{tolower:%{remote_user}}\": the user's name contains a /");
    server.expect_log("WS0036: refused with 403: \"user/%{REMOTE_USER}/\": the user's name contains a /");
}

/// The subprotocols of the handler need no directive; one that says otherwise is obeyed.
#[test]
fn subprotocols_are_the_handlers_unless_something_else_is_said() {
    let server = httpd(Mpm::Event)
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/news/nchan\">\n  WebSocketProtocols ws+meta.nchan\n</Location>")
        .config("<Location \"/news/own\">\n  WebSocketProtocols chat\n</Location>")
        .config("<Location \"/news/echo\">\n  WebSocketHandler echo\n</Location>")
        .start();
    let chosen = |path: &str, offer: &str| {
        let answer = answer(&server, &Handshake::new(path).header("Sec-WebSocket-Protocol", offer));
        answer.assert_accepted();
        answer.header("Sec-WebSocket-Protocol").map(str::to_owned)
    };
    assert_eq!(chosen("/news", "ws+meta.nchan, channels.v1").as_deref(), Some("channels.v1"));
    assert_eq!(chosen("/news", "chat, ws+meta.nchan").as_deref(), Some("ws+meta.nchan"));
    assert_eq!(chosen("/news", "chat"), None);
    assert_eq!(chosen("/news/nchan", "channels.v1, ws+meta.nchan").as_deref(), Some("ws+meta.nchan"));
    assert_eq!(chosen("/news/own", "channels.v1, chat").as_deref(), Some("chat"));
    assert_eq!(chosen("/news/echo", "channels.v1"), None);
}

/// An .htaccess file may name channels, and is read again with each request.
#[test]
fn htaccess_files() {
    let server = httpd(Mpm::Event)
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride AuthConfig\n</Directory>")
        .config("<Directory \"{root}/htdocs/room\">\n  WebSocketChannelPrefix site\n</Directory>")
        .file("htdocs/room/.htaccess", "WebSocketHandler channel \"room/%{QUERY_STRING}\"\n")
        .file("htdocs/room/index.html", "")
        .file("htdocs/broken/.htaccess", "WebSocketHandler channel \"%{nothing:x}\"\n")
        .start();
    for _ in 0..3 {
        assert!(hears(&server, &Handshake::new("/room/?1"), "site/room/1"));
    }
    server.expect_log("/htdocs/broken/.htaccess: WebSocketHandler: \"%{nothing:x}\" is not an expression");
    assert_eq!(answer(&server, &Handshake::new("/broken/")).status, 500);
}

/// As whom somebody is there.
#[test]
fn members_are_who_the_directive_says() {
    let server = httpd(Mpm::Event)
        .config("<Location \"/guest\">\n  WebSocketHandler channel lobby\n  WebSocketChannelMember %{HTTP:X-Name}\n</Location>")
        .start();
    let member = |name: &str| {
        let client = Raw::open_with(&server, &Handshake::new("/guest").header("X-Name", name));
        wait_until("it is there", PATIENCE, || subscribers(&server, "lobby") == 1);
        let info = Raw::page(&server, "/publish?channel=lobby");
        client.close();
        wait_until("it has gone", PATIENCE, || subscribers(&server, "lobby") == 0);
        json(&info)["members"].clone()
    };
    assert_eq!(member("joe the first"), serde_json::json!([{"member": "joe the first", "connections": 1}]));
    assert_eq!(member("caf\u{e9}"), serde_json::json!([{"member": "caf\u{e9}", "connections": 1}]));
    assert_eq!(member(""), serde_json::json!([]));
    let long = Handshake::new("/guest").header("X-Name", &"x".repeat(1025));
    assert_eq!(answer(&server, &long).status, 400);
}
