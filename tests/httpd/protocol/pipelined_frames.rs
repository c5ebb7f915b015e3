//! What a client sends behind its handshake without waiting for the answer: httpd has then already read some of it.

use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, every_mpm};

every_mpm!(frames_with_the_request, half_a_frame_with_the_request, a_page_first, a_request_in_pieces);

/// The bytes of a handshake and of frames behind it.
fn request_and(client: &Raw, frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Handshake::new("/echo").bytes(&client.host());
    bytes.extend(frames.iter().flat_map(Frame::masked));
    bytes
}

fn frames_with_the_request(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let batches = [
        vec![Frame::text("no time to wait")],
        (0..100).map(|number| Frame::text(format!("message {number}"))).collect(),
        // More than httpd reads at once, and more than a socket buffer holds.
        vec![Frame::binary(vec![1; 9000]), Frame::text("between"), Frame::binary(vec![2; 300_000])],
        vec![Frame::text("in ").unfinished(), Frame::continuation("two")],
    ];
    for frames in batches {
        let mut client = Raw::connect(&server);
        let bytes = request_and(&client, &frames);
        client.write(&bytes);
        client.response(false).assert_accepted();
        if frames.iter().all(|frame| frame.fin) {
            for frame in &frames {
                client.expect(frame);
            }
        } else {
            client.expect(&Frame::text("in two"));
        }
        client.close();
    }
    // Even the Close, and then nothing more.
    let mut client = Raw::connect(&server);
    let bytes = request_and(&client, &[Frame::text("hello"), Frame::close(1000, "")]);
    client.write(&bytes);
    client.end_sending();
    client.response(false).assert_accepted();
    client.expect(&Frame::text("hello"));
    client.expect_failure(1000);
}

fn half_a_frame_with_the_request(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let frame = Frame::text("cut into two");
    let length = frame.masked().len();
    for cut in 1..length {
        let mut client = Raw::connect(&server);
        let bytes = request_and(&client, std::slice::from_ref(&frame));
        let (first, second) = bytes.split_at(bytes.len() - length + cut);
        client.write(first);
        client.response(false).assert_accepted();
        client.write(second);
        client.expect(&frame);
        client.close();
    }
}

fn a_page_first(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    // On a kept-alive connection, one after the other …
    let mut client = Raw::connect(&server);
    assert_eq!(client.ask(&Handshake::page("/index.html")).status, 200);
    client.ask(&Handshake::new("/echo")).assert_accepted();
    client.echo(&Frame::text("after a page"));
    client.close();
    // … and all in one packet.
    let mut client = Raw::connect(&server);
    let mut bytes = Handshake::page("/index.html").bytes(&client.host());
    bytes.extend(request_and(&client, &[Frame::text("pipelined")]));
    client.write(&bytes);
    assert_eq!(client.response(false).text(), "<p>A page of the site.</p>\n");
    client.response(false).assert_accepted();
    client.expect(&Frame::text("pipelined"));
    client.close();
}

fn a_request_in_pieces(mpm: Mpm) {
    let server = Httpd::new(mpm).echo().start();
    let mut client = Raw::connect(&server);
    for byte in request_and(&client, &[Frame::text("slow")]) {
        client.write(&[byte]);
    }
    client.response(false).assert_accepted();
    client.expect(&Frame::text("slow"));
    client.close();
}
