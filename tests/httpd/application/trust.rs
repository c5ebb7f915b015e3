//! Whom an application believes: what only this module may say comes from nobody else.

use super::{APP, dumped, known};
use crate::harness::php::Fpm;
use crate::harness::{Handshake, Httpd, Mpm, Raw};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

const DUMP: &str = "/app.php?q=status%3D403%26dump%3D1";

fn forged(path: &str) -> Handshake {
    [
        ("Connection-Id", "1"),
        ("Meta-User", "admin"),
        ("meta_user", "admin"),
        ("WebSocket-Event", "message"),
        ("WebSocket_Token", "0"),
        ("WebSocket-Token", ""),
        ("WebSocket-Client", "192.0.2.1"),
        ("WebSocket-Secure", "on"),
        ("Content-Bytes-Replayed", "1"),
        ("Grip-Feature", "x"),
        ("X-Meta-User", "kept"),
    ]
    .into_iter()
    .fold(Handshake::page(path), |request, (name, value)| request.header(name, value))
}

#[track_caller]
fn is_believed(seen: &Value) -> bool {
    let names = ["CONNECTION_ID", "META_USER", "CONTENT_BYTES_REPLAYED", "GRIP_FEATURE"];
    let believed = names.map(|name| seen.get(format!("HTTP_{name}")).is_some());
    assert!(believed.iter().all(|one| *one == believed[0]), "{seen}");
    for name in ["HTTP_WEBSOCKET_EVENT", "HTTP_WEBSOCKET_TOKEN", "HTTP_WEBSOCKET_CLIENT", "WEBSOCKET_TRUSTED", "HTTPS"]
    {
        assert!(seen.get(name).is_none(), "{name}: {seen}");
    }
    assert_eq!((&seen["HTTP_X_META_USER"], &seen["REMOTE_ADDR"]), (&"kept".into(), &"127.0.0.1".into()));
    believed[0]
}

fn grip_sig(key: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the time").as_secs() as i64;
    let claims = format!(r#"{{"iss":"pushpin","exp":{}}}"#, now + seconds);
    let signed = [r#"{"typ":"JWT","alg":"HS256"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[test]
fn nobody_else_says_it() {
    let fpm = Fpm::start(1);
    let server = Fpm::modules(Httpd::new(Mpm::Event))
        .module("rewrite")
        .file("htdocs/app.php", APP)
        .file("htdocs/guarded/app.php", APP)
        .file("htdocs/moved/index.php", APP)
        .config(fpm.config())
        .config("<Directory \"{root}/htdocs/guarded\">\nRequire env WEBSOCKET_TRUSTED\n</Directory>")
        .config("<Directory \"{root}/htdocs/moved\">\nRewriteEngine On\nRewriteRule !index.php index.php [L]\n</Directory>")
        .config("<Location \"/echo\">\nWebSocketHandler echo\nWebSocketAuthorize /guarded/app.php?q=%{QUERY_STRING}\n</Location>")
        .config(
            "<VirtualHost *>\nServerName plain.example\n</VirtualHost>\n\
             <VirtualHost *>\nServerName grip.example\nWebSocketGripKey secret\n</VirtualHost>",
        )
        .config("<VirtualHost *>\nServerName none.example\nWebSocketGripKey Off\n</VirtualHost>")
        .start();
    server.tolerate_log("AH01630");
    let page = |request: Handshake| known(&Raw::answer(&server, &request));
    // In every virtual host: an .htaccess file may ask an application anywhere. And where httpd redirects inside.
    assert!(!is_believed(&page(forged(DUMP))));
    assert!(!is_believed(&page(forged("/moved/x?q=status%3D403%26dump%3D1"))));
    for (host, key, seconds, believed) in [
        ("plain.example", "secret", 60, false),
        ("grip.example", "secret", 60, true),
        ("grip.example", "secret", -1, false),
        ("grip.example", "Secret", 60, false),
        ("none.example", "secret", 60, false),
    ] {
        let request = forged(DUMP).header("Host", host).header("Grip-Sig", &grip_sig(key, seconds));
        let seen = page(request);
        assert_eq!(is_believed(&seen), believed, "{host} {key} {seconds}");
        assert_eq!(seen.get("HTTP_GRIP_SIG").is_some(), believed);
    }
    // What an application has for this module alone is for nobody else.
    let guarded = "/guarded/app.php?q=status%3D403%26dump%3D1";
    assert!(Raw::answer(&server, &forged(guarded)).text().contains("Forbidden"));
    let seen = dumped(&server, &Handshake::new("/echo?status=403&dump=1"));
    assert_eq!(seen["WEBSOCKET_TRUSTED"], "1");
}
