//! Channels over TLS and HTTP/2: the same messages, and the same end.

use crate::harness::channel::subscribe;
use crate::harness::publish::{post, publish, subscribers};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, wait_until, with_http2};
use crate::tls::http2::Scenario;

every_mpm!(over_tls);
with_http2!(over_http2);

fn httpd(mpm: Mpm) -> Httpd {
    Httpd::new(mpm)
        .module("authz_host")
        .config("<Location \"/news\">\n  WebSocketHandler channel news\n</Location>")
        .config("<Location \"/publish\">\n  SetHandler websocket-publish\n  Require local\n</Location>")
}

/// Text, bytes, nothing, and much.
fn messages() -> [(&'static str, Frame); 4] {
    [
        ("text/plain", Frame::text("caf\u{e9}")),
        ("application/octet-stream", Frame::binary(b"\xff\x00")),
        ("text/plain", Frame::text("")),
        ("text/plain", Frame::text(vec![b'x'; 1 << 20])),
    ]
}

fn publish_all(server: &Server) {
    for (content_type, frame) in messages() {
        assert_eq!(post(server, "/publish?channel=news", content_type, &frame.payload).status, 201);
    }
}

fn delete(server: &Server) {
    let request = Handshake::page("/publish?channel=news&code=4001&reason=over").method("DELETE").version("HTTP/1.0");
    assert_eq!(Raw::answer(server, &request).status, 200);
}

fn over_tls(mpm: Mpm) {
    let server = httpd(mpm).tls().start();
    let mut clients = [(); 2].map(|()| subscribe(&server, &Handshake::new("/news"), "news"));
    publish_all(&server);
    for client in &mut clients {
        messages().iter().for_each(|(_, frame)| client.expect(frame));
    }
    delete(&server);
    for mut client in clients {
        client.expect(&Frame::close(4001, "over"));
        client.send(&Frame::close(4001, ""));
        client.expect_end();
    }
}

fn over_http2(mpm: Mpm) {
    let server = httpd(mpm).workers(20).http2().start();
    let mut client = Scenario::start(&server, "channel");
    client.says("two are subscribed");
    wait_until("the engine knows it", PATIENCE, || subscribers(&server, "news") == 2);
    publish_all(&server);
    client.go_on();
    client.says("one has left");
    wait_until("the engine knows it", PATIENCE, || subscribers(&server, "news") == 1);
    (0..3).for_each(|n| drop(publish(&server, "news", &n.to_string())));
    client.go_on();
    client.says("it is back");
    delete(&server);
    client.go_on();
    client.ends_well();
}
