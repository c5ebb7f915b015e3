//! The handler that says nothing.

use crate::harness::{Frame, Httpd, Mpm, Raw, every_mpm};

every_mpm!(nothing_comes_back);

fn nothing_comes_back(mpm: Mpm) {
    let server = Httpd::new(mpm).config("<Location \"/discard\">\n  WebSocketHandler discard\n</Location>").start();
    let mut client = Raw::open(&server, "/discard");
    for message in [Frame::text("to nobody"), Frame::binary(vec![7; 100_000]), Frame::text("")] {
        client.send(&message);
    }
    // The answer comes after what was sent before it was read.
    client.send(&Frame::ping("still there?"));
    client.expect(&Frame::pong("still there?"));
    client.close();
}
