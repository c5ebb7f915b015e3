//! What `.htaccess` files may do: on a server that many share, what is the administrator's stays his.

use crate::harness::channel::{ask, offering, open, request, said};
use crate::harness::publish::{json, post, publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until};
use serde_json::{Value, json};

every_mpm!(channels_below_a_prefix, quotas_count_beside_each_other);

/// A site whose folders may have .htaccess files, and where the administrator publishes to all channels.
fn site(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .module("dir")
        .config("DirectoryIndex index.html\n<Directory \"{root}/htdocs\">\n  AllowOverride All\n</Directory>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n</Location>")
}

/// A folder with an .htaccess file, and a file `publish`.
fn folder(httpd: Httpd, name: &str, htaccess: &str) -> Httpd {
    httpd
        .file(&format!("htdocs/{name}/.htaccess"), htaccess)
        .file(&format!("htdocs/{name}/index.html"), "a page")
        .file(&format!("htdocs/{name}/publish"), "")
}

const EVERYTHING: &str = "WebSocketHandler channel news\nWebSocketChannelAllow *\nWebSocketChannelPublish On\n\
    WebSocketChannelPresence On\nWebSocketChannelMember %{HTTP:X-Name}\n\
    <Files \"publish\">\n  WebSocketHandler Off\n  SetHandler websocket-publish\n</Files>\n";

/// What comes next, but for what is said of somebody's coming.
fn message(client: &mut Raw) -> Value {
    loop {
        let said = said(client);
        if said["type"] != "join" && said["type"] != "leave" {
            return said;
        }
    }
}

/// What is called `news` in the folder is `hosts/ann/news`, and nobody in it writes or sees that.
fn channels_below_a_prefix(mpm: Mpm) {
    let server = folder(site(mpm), "ann", EVERYTHING)
        .config("<Directory \"{root}/htdocs/ann\">\n  WebSocketChannelPrefix hosts/ann\n</Directory>")
        .config("<Location \"/all\">\n  WebSocketHandler channel hosts/ann/news\n  WebSocketChannelPresence On\n</Location>")
        .config("<Location \"/inner\">\n  WebSocketHandler channel ann/news\n  WebSocketChannelPrefix hosts\n</Location>")
        .start();
    publish(&server, "secret", "nobody in the folder sees this");
    publish(&server, "hosts/ann/news", "kept");
    let v1 = |path: &str| offering(path, "channels.v1");
    let (mut ann, _) = open(&server, &v1("/ann/?last_event_id=*").header("X-Name", "ann"));
    let subscribed = said(&mut ann);
    assert_eq!((&subscribed["type"], &subscribed["channel"]), (&json!("subscribed"), &json!("news")));
    let kept = said(&mut ann);
    assert_eq!((&kept["data"], &kept["channel"]), (&json!("kept"), &json!("news")));
    assert_eq!(ask(&mut ann, &json!({"type": "subscribe", "channel": "news", "presence": true}))["channel"], "news");
    let presence = said(&mut ann);
    assert_eq!(presence["channel"], "news");
    assert_eq!(presence["members"], json!([{"member": "ann", "connections": 1}]));

    // Who is elsewhere calls the same channel otherwise, and gets the same messages.
    let (mut outside, _) = open(&server, &v1("/all"));
    assert_eq!(said(&mut outside)["channel"], "hosts/ann/news");
    let (mut inner, _) = open(&server, &v1("/inner"));
    assert_eq!(said(&mut inner)["channel"], "ann/news");
    let (mut bob, _) = open(&server, &offering("/ann/", "ws+meta.nchan").header("X-Name", "bob"));
    let join = said(&mut ann);
    assert_eq!((&join["type"], &join["channel"], &join["member"]), (&json!("join"), &json!("news"), &json!("bob")));
    wait_until("all are there", PATIENCE, || subscribers(&server, "hosts/ann/news") == 4);
    for (from, channel) in [("/publish", "hosts/ann/news"), ("/ann/publish", "news")] {
        let response = post(&server, &format!("{from}?channel={channel}"), "text/plain", b"hello");
        assert_eq!((response.status, &json(&response)[channel]["subscribers"]), (201, &json!(4)), "{from}");
        for (client, name) in [(&mut ann, "news"), (&mut outside, "hosts/ann/news"), (&mut inner, "ann/news")] {
            let said = message(client);
            assert_eq!((&said["data"], &said["channel"]), (&json!("hello"), &json!(name)), "{from}");
        }
        let head = String::from_utf8(bob.frame().payload.to_vec()).expect("text");
        assert!(head.ends_with("\n\nhello") && !head.contains("hosts"), "{head}");
    }
    // A whole name is one more name below the prefix.
    for (wish, kind, channel) in [
        ("subscribe", "subscribed", "secret"),
        ("subscribe", "subscribed", "hosts/ann/news"),
        ("unsubscribe", "unsubscribed", "hosts/ann/news"),
        ("presence", "presence", "secret"),
        ("unsubscribe", "unsubscribed", "secret"),
    ] {
        let answer = ask(&mut ann, &json!({"type": wish, "channel": channel}));
        assert_eq!((&answer["type"], &answer["channel"]), (&json!(kind), &json!(channel)));
    }
    request(&mut ann, &json!({"type": "publish", "channel": "news", "data": "said", "ref": 1}));
    let answers = [message(&mut ann), message(&mut ann)];
    assert!(answers.iter().all(|said| said["channel"] == "news"), "{answers:?}");
    assert_eq!(message(&mut outside)["data"], "said");
    assert_eq!(message(&mut inner)["channel"], "ann/news");
    bob.frame();
    bob.send(&Frame::text("from bob"));
    assert_eq!(message(&mut outside)["data"], "from bob");
    assert_eq!(message(&mut ann)["channel"], "news");

    // The same for publishers.
    let get = |query: &str| Raw::page(&server, &format!("/ann/publish{query}"));
    post(&server, "/ann/publish?channel=a", "text/plain", b"x");
    let list = json(&get(""));
    let names = |list: &Value| -> Vec<Value> {
        list["channels"].as_array().expect("a list").iter().map(|channel| channel["channel"].clone()).collect()
    };
    assert_eq!(names(&list).iter().filter(|name| **name == "a" || **name == "news").count(), 2, "{list}");
    assert!(!list.to_string().contains("hosts/ann/news\"") && !list.to_string().contains("nobody"), "{list}");
    let first = json(&get("?limit=1"));
    assert_eq!((names(&first), &first["next"]), (vec![json!("a")], &json!("a")));
    assert!(!names(&json(&get("?after=a"))).contains(&json!("a")));
    assert_eq!(names(&json(&get("?prefix=new"))), ["news"]);
    let info = json(&get("?channel=news"));
    assert_eq!((&info["channel"], &info["subscribers"]), (&json!("news"), &json!(4)));
    assert_eq!(get("?channel=ann/news").status, 404);
    assert_eq!(get(&format!("?channel={}", "x".repeat(1020))).status, 400);
    let delete = Handshake::page("/ann/publish?channel=news&channel=a").method("DELETE").version("HTTP/1.0");
    let deleted = json(&Raw::answer(&server, &delete));
    assert_eq!((&deleted["news"]["channel"], &deleted["a"]["channel"]), (&json!("news"), &json!("a")));
    // Those who are sent away close in their own time.
    for mut client in [ann, outside, inner, bob] {
        assert_eq!(client.close_code(), Some(1000));
        client.send(&Frame::close(1000, ""));
    }
    assert_eq!(subscribers(&server, "secret"), 0);
    assert_eq!(json(&Raw::page(&server, "/publish?channel=secret"))["messages"], 1);
}

/// Without a prefix, what an .htaccess file says of channels holds nowhere; what it says else is no reason to refuse.
#[test]
fn channels_need_a_prefix() {
    let httpd = site(Mpm::Event)
        .module("mime")
        .module("rewrite")
        .config("TypesConfig /dev/null")
        .config("<Location \"/allow\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/off\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/mine\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/mine/publish\">\n  WebSocketHandler Off\n  SetHandler websocket-publish\n</Location>");
    let server = [
        ("channel", "WebSocketHandler channel news\n"),
        ("allow", "WebSocketChannelAllow *\n"),
        ("off", "WebSocketChannelAllow Off\nWebSocketChannelPublish Off\nWebSocketChannelMax 1\n"),
        ("plain", "SetHandler websocket-publish\n"),
        ("files", "<Files \"publish\">\n  SetHandler websocket-publish\n</Files>\n"),
        ("if", "<If \"true\">\n  SetHandler websocket-publish\n</If>\n"),
        ("add", "AddHandler websocket-publish .publish\n"),
        ("rewrite", "RewriteEngine On\nRewriteRule .* - [H=websocket-publish]\n"),
        ("mine", "WebSocketHandler channel other\nSetHandler none\n"),
    ]
    .into_iter()
    .fold(httpd, |httpd, (name, htaccess)| folder(httpd, name, htaccess))
    .file("htdocs/add/x.publish", "")
    .start();
    let handshake = |path: &str| Raw::answer(&server, &Handshake::new(path)).status;
    assert_eq!([handshake("/channel/"), handshake("/allow/")], [500, 500]);
    assert_eq!([handshake("/off/"), handshake("/mine/")], [101, 101]);
    assert_eq!(Raw::page(&server, "/channel/").status, 200);
    server.expect_log("WS0015: refused with 500: an .htaccess file says something of channels");
    for path in ["/plain/publish", "/files/publish", "/if/publish", "/add/x.publish", "/rewrite/publish"] {
        assert_eq!(post(&server, &format!("{path}?channel=news"), "text/plain", b"").status, 500, "{path}");
    }
    server.expect_log("WS0037: an .htaccess file says SetHandler websocket-publish, which it may only where");
    // The administrator's word, beside an .htaccess file of somebody else.
    assert_eq!(post(&server, "/mine/publish?channel=news", "text/plain", b"").status, 202);
}

/// No .htaccess file says where it belongs to.
#[test]
fn prefixes_are_the_administrators() {
    let server = folder(site(Mpm::Event), "own", "WebSocketChannelPrefix own\n").start();
    server.expect_log("WebSocketChannelPrefix not allowed here");
    assert_eq!(Raw::page(&server, "/own/").status, 500);
}

/// The code with which a message of that many bytes is answered; `None`: it comes back.
fn refused(server: &Server, path: &str, bytes: usize) -> Option<u16> {
    let mut client = Raw::open(server, path);
    let message = Frame::text("x".repeat(bytes));
    client.send(&message);
    let answer = client.frame();
    if answer.opcode == Frame::CLOSE {
        return answer.close_code();
    }
    assert!(answer == message);
    client.close();
    None
}

#[test]
fn limits_get_smaller_only() {
    let httpd = site(Mpm::Event)
        .config("<Directory \"{root}/htdocs\">\n  WebSocketHandler echo\n</Directory>")
        .config("<Directory \"{root}/htdocs/set\">\n  WebSocketMaxMessageSize 1000\n</Directory>");
    let server = [
        ("default", "WebSocketMaxMessageSize 2000000\n"),
        ("default/less", "WebSocketMaxMessageSize 100\n"),
        ("set", "MaxMessageSize 5000\n"),
        ("set/less", "<If \"true\">\n  WebSocketMaxMessageSize 100\n</If>\nWebSocketPing Off\n"),
    ]
    .into_iter()
    .fold(httpd, |httpd, (name, htaccess)| folder(httpd, name, htaccess))
    .start();
    for (path, most) in [("/default/", 1 << 20), ("/default/less/", 100), ("/set/", 1000), ("/set/less/", 100)] {
        assert_eq!(refused(&server, path, most), None, "{path}");
        assert_eq!(refused(&server, path, most + 1), Some(1009), "{path}");
    }
}

fn quotas_count_beside_each_other(mpm: Mpm) {
    let httpd = site(mpm)
        .config("<Directory \"{root}/htdocs\">\n  WebSocketHandler echo\n  WebSocketMaxConnections 3\n</Directory>");
    let server = [
        ("off", "WebSocketMaxConnections Off\n"),
        ("more", "WebSocketMaxConnections 100\nWebSocketMaxConnectionsPerClient 100\n"),
        ("one", "WebSocketMaxConnections 1\n"),
    ]
    .into_iter()
    .fold(httpd, |httpd, (name, htaccess)| folder(httpd, name, htaccess))
    .start();
    let status = |path: &str| Raw::answer(&server, &Handshake::new(path)).status;
    let one = Raw::open(&server, "/one/");
    assert_eq!(status("/one/"), 503);
    let others = ["/off/", "/more/"].map(|path| Raw::open(&server, path));
    assert_eq!(["/off/", "/more/", "/one/", "/"].map(status), [503; 4]);
    // A place of both is free again.
    one.close();
    wait_until("there is room", PATIENCE, || status("/one/") == 101);
    others.into_iter().for_each(Raw::close);
}

/// Who may write `SetEnv` runs no code of his own in the administrator's program.
#[test]
fn programs_get_no_variables_of_loaders() {
    let server = folder(
        site(Mpm::Event).module("env"),
        "program",
        "SetEnv LD_PRELOAD /nothing.so\nSetEnv BASH_ENV x\nSetEnv ENV x\nSetEnv PYTHONPATH x\nSetEnv PERL5LIB x\nSetEnv RUBYOPT x\n\
         SetEnv NODE_OPTIONS x\nSetEnv NODE_ENV production\nSetEnv ENVIRONMENT test\n",
    )
    .environment("PYTHONHASHSEED", "7")
    .config("PassEnv PYTHONHASHSEED")
    .config("<Directory \"{root}/htdocs/program\">\n  WebSocketHandler exec /usr/bin/env\n</Directory>")
    .start();
    let mut client = Raw::open(&server, "/program/");
    let mut lines = Vec::new();
    while let Some(frame) = client.frame_or_end().filter(|frame| frame.opcode == Frame::TEXT) {
        lines.push(String::from_utf8(frame.payload.to_vec()).expect("UTF-8"));
    }
    for line in ["NODE_ENV=production", "ENVIRONMENT=test", "PYTHONHASHSEED=7", "REQUEST_METHOD=GET"] {
        assert!(lines.iter().any(|known| known == line), "{line} in {lines:?}");
    }
    for name in ["LD_PRELOAD=", "BASH_ENV=", "ENV=", "PYTHONPATH=", "PERL5LIB=", "RUBYOPT=", "NODE_OPTIONS="] {
        assert!(!lines.iter().any(|line| line.starts_with(name)), "{name} in {lines:?}");
    }
    client.send(&Frame::close(1000, ""));
    let log = server.error_log();
    assert!(log.contains("WS0038: not given to the program: ") && log.contains("LD_PRELOAD"), "{log}");
}
