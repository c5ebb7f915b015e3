//! The examples of plugins in C and in Rust.

use crate::harness::plugin::{c_examples, rust_example};
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw};

#[test]
fn they_do_what_they_say() {
    let c = c_examples().display();
    let rust = rust_example().display();
    let server = Httpd::new(Mpm::Event)
        .config(format!(
            "<Location \"/c/echo\">\n  WebSocketHandler \"{c}/echo.so\" echo_init\n</Location>\n\
             <Location \"/c/counter\">\n  WebSocketHandler \"{c}/counter.so\" counter_init\n</Location>\n\
             <Location \"/rust/echo\">\n  WebSocketHandler \"{rust}\" echo_init\n</Location>\n\
             <Location \"/rust/counter\">\n  WebSocketHandler \"{rust}\" counter_init\n</Location>"
        ))
        .start();
    for language in ["/c", "/rust"] {
        let mut client = Raw::open(&server, &format!("{language}/echo"));
        client.echo(&Frame::text("hello"));
        client.echo(&Frame::binary(vec![0; 100_000]));
        client.echo(&Frame::text(""));
        client.close();

        let path = format!("{language}/counter");
        assert_eq!(Raw::answer(&server, &Handshake::new(&path)).status, 403);
        let mut client = Raw::connect(&server);
        let response = client.ask(&Handshake::new(&path).header("Sec-WebSocket-Protocol", "other, counter"));
        response.assert_accepted();
        assert_eq!(response.header("Sec-WebSocket-Protocol"), Some("counter"));
        for number in 0..5 {
            client.expect(&Frame::text(number.to_string()));
        }
        client.send(&Frame::text("reset"));
        let mut numbers = (0..100).map(|_| client.frame());
        assert!(numbers.any(|frame| frame == Frame::text("0")));
        client.send(&Frame::close(1000, ""));
        assert_eq!(client.close_code(), Some(1000));
    }
    server.graceful();
    let mut client = Raw::open(&server, "/rust/echo");
    client.echo(&Frame::text("after a restart"));
    client.close();
}
