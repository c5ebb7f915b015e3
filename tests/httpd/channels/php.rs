//! A page in PHP publishes: `examples/php`, run by the httpd that has the channels.

use crate::harness::php::by_action;
use crate::harness::{Client, Httpd, Mpm, Raw, every_mpm};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

every_mpm!(a_page_publishes);

const CHANNELS: &str = r#"
<Location "/news">
    WebSocketHandler channel news
</Location>
<Location "/publish">
    SetHandler websocket-publish
    Require local
</Location>
"#;

fn a_page_publishes(mpm: Mpm) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/php/publish.php");
    let server = by_action(Httpd::new(mpm))
        .module("authz_host")
        .module("env")
        .file("htdocs/publish.php", fs::read(example).expect("the example"))
        .config("SetEnv PUBLISH_URL \"http://127.0.0.1:{port}/publish\"")
        .config(CHANNELS)
        .start();
    let page = || Raw::page(&server, "/publish.php").text();
    assert!(page().ends_with(":1 went to 0 subscribers.\n"));

    let mut bare = Client::open(&server, "/news");
    let mut request = server.url("/news?last_event_id=*").into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "channels.v1".parse().expect("a header"));
    let mut v1 = Client::open_with(&server, request);
    let mut said = || match v1.message() {
        Message::Text(text) => serde_json::from_str::<Value>(&text).expect("JSON"),
        other => panic!("not a text: {other:?}"),
    };
    assert_eq!(said()["type"], "subscribed");
    let event = r#"{"event":"order","number":4711,"for":"Zo\u00eb"}"#;
    // What was published before is kept.
    assert_eq!(said()["data"], event);

    let told = page();
    let id = told.strip_prefix("Message ").and_then(|rest| rest.strip_suffix(" went to 2 subscribers.\n"));
    let id = id.unwrap_or_else(|| panic!("{told}"));
    assert_eq!(bare.message(), Message::text(event));
    let expected = json!({
        "type": "message", "channel": "news", "id": id, "content_type": "application/json", "data": event,
    });
    assert_eq!(said(), expected);
    bare.close();
    v1.close();
}
