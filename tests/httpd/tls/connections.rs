//! WebSockets over TLS: by the engine itself, and, where that cannot be (TLS 1.2) or is not wanted, through the child's relay
//! thread on event, on the worker thread with the other MPMs.

use crate::handlers::echo::{TEXTS, answer_closes, answer_pings, echo_fragments, echo_sizes};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, tls, wait_until};
use rustls::{ProtocolVersion, SupportedProtocolVersion, version};
use std::time::{Duration, Instant};

every_mpm!(
    messages_over_each_version,
    closing_handshakes,
    clients_that_vanish,
    certificates_of_clients,
    timeouts_of_httpd,
    the_line_in_the_access_log,
);

/// A WebSocket to /echo over this version of TLS.
#[track_caller]
fn open_over(server: &Server, version: &'static SupportedProtocolVersion) -> Raw {
    let config = tls::client(server.root(), &[version], false);
    let mut client = Raw::connect_by(server, Some(&config)).about(&format!("{:?}", version.version));
    client.ask(&Handshake::new("/echo")).assert_accepted();
    client
}

fn messages_over_each_version(mpm: Mpm) {
    Httpd::tls_both_ways(mpm).into_iter().for_each(|httpd| messages(&httpd.echo().start()));
}

fn messages(server: &Server) {
    assert_eq!(Raw::page(server, "/index.html").text(), "<p>A page of the site.</p>\n");
    for (version, expected) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut client = open_over(server, version);
        assert_eq!(client.tls_version(), Some(expected));
        echo_sizes(&mut client);
        for text in TEXTS {
            client.echo(&Frame::text(text));
        }
        client.echo(&Frame::text("汉字与emoji😀".repeat(20_000)));
        echo_fragments(&mut client);
        answer_pings(&mut client);
        let frames: Vec<Frame> = (0..500).map(|number| Frame::text(format!("message {number}"))).collect();
        client.send_all(&frames);
        for frame in &frames {
            client.expect(frame);
        }
        client.close();
    }
    // A request and the first messages in one TLS record: nothing is lost between httpd and the engine.
    let mut client = Raw::connect(server);
    let request = Handshake::new("/echo").bytes(&client.host());
    client.write(&[request, Frame::text("early").masked(), Frame::binary(vec![7; 3000]).masked()].concat());
    client.response(false).assert_accepted();
    client.expect(&Frame::text("early"));
    client.expect(&Frame::binary(vec![7; 3000]));
    client.close();
}

/// After the Close comes TLS's own end, close_notify: a client must be able to tell it from an attack (RFC 8446 section
/// 6.1). The TLS client of these tests takes an end without it for an error.
fn closing_handshakes(mpm: Mpm) {
    Httpd::tls_both_ways(mpm).into_iter().for_each(|httpd| closings(&httpd.echo().start()));
}

fn closings(server: &Server) {
    answer_closes(server);
    let mut client = Raw::open(server, "/echo");
    client.send(&Frame::text(b"\xFF\xFE".to_vec()));
    client.expect_failure(1007);
    for version in [&version::TLS12, &version::TLS13] {
        open_over(server, version).close();
    }
}

/// How many descriptors the children have together, and how many the engine has.
fn descriptors(server: &Server) -> (usize, usize) {
    let children = server.children();
    (children.iter().map(|child| child.descriptors().len()).sum(), server.engine().descriptors().len())
}

/// One client that goes away without a Close, in one of several ways.
fn vanish(server: &Server, number: usize) {
    let mut client = Raw::open(server, "/echo").about(&format!("way {} to vanish", number % 7));
    match number % 7 {
        // Idle; in the middle of a frame; with the answer unread; with much of it unread.
        0 => client.reset(),
        1 => {
            client.write(&Frame::text("hello").masked()[..4]);
            client.reset();
        }
        2 => {
            client.send(&Frame::text("hello"));
            client.reset();
        }
        3 => {
            client.send(&Frame::binary(vec![0; 1 << 20]));
            client.reset();
        }
        // The end of TCP without that of TLS, and both.
        4 => {
            client.end_tcp();
            client.await_hangup();
        }
        5 => {
            client.echo(&Frame::text("hello"));
            client.end_tcp();
            client.await_hangup();
        }
        _ => {
            client.end_sending();
            client.await_hangup();
        }
    }
}

fn clients_that_vanish(mpm: Mpm) {
    // A child has a mux to each engine thread that it has brought a session.
    Httpd::tls_both_ways(mpm)
        .into_iter()
        .for_each(|httpd| vanishing(mpm, &httpd.echo().config("WebSocketEngineThreads 1").start()));
}

fn vanishing(mpm: Mpm, server: &Server) {
    let mut neighbour = Raw::open(server, "/echo");
    // Until each child has its link to the engine.
    let with_a_link = |server: &Server| {
        let children = server.children();
        children.iter().all(|child| server.logged_by(*child).iter().any(|line| line.contains("is the engine's")))
    };
    wait_until("each child has served a WebSocket", PATIENCE, || {
        Raw::open(server, "/echo").close();
        with_a_link(server)
    });
    let idle = |server: &Server| {
        let began = server.error_log().matches(" begins: ").count();
        let ended = server.error_log().matches(" ended: ").count();
        began == ended + 1
    };
    wait_until("the neighbour is alone", PATIENCE, || idle(server));
    let mut before = (0, 0);
    // A keep-alive connection or a lingering one may be counted: the least of what is seen for a while is what stays.
    wait_until("the number of descriptors is settled", PATIENCE, || {
        let now = descriptors(server);
        std::mem::replace(&mut before, now) == now
    });
    for number in 0..56 {
        vanish(server, number);
        if number % 7 == 0 {
            neighbour.echo(&Frame::text(format!("unaffected by {number}")));
        }
    }
    wait_until("each session has ended", PATIENCE, || idle(server));
    // One that vanished at the wrong moment may have cost a child its link, and the next one got another.
    // And where a thread has not let go of a link when another needs one, there are two.
    let links = server.children().len() * if matches!(mpm, Mpm::Prefork) { 1 } else { 2 };
    wait_until("as many descriptors are open as before", PATIENCE, || {
        let now = descriptors(server);
        now.0 <= before.0 + links && now.1 <= before.1 + links
    });
    neighbour.close();
}

fn certificates_of_clients(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .tls()
        .client_certificate()
        .echo()
        .config(format!(
            "SSLVerifyClient require\nSSLVerifyDepth 1\nSSLCACertificateFile \"{{root}}/{}\"\n\
             <Location \"/echo\">\n  SSLRequireSSL\n  Require expr \"%{{SSL_CLIENT_S_DN_CN}} == 'alice'\"\n</Location>\n\
             <Location \"/bob\">\n  WebSocketHandler echo\n  Require expr \"%{{SSL_CLIENT_S_DN_CN}} == 'bob'\"\n</Location>",
            tls::CLIENT_AUTHORITY
        ))
        .start();
    server.expect_log("AH01630: client denied by server configuration");
    for version in [&version::TLS12, &version::TLS13] {
        let alice = tls::client(server.root(), &[version], true);
        let mut client = Raw::connect_by(&server, Some(&alice)).about(&format!("{:?}", version.version));
        client.ask(&Handshake::new("/echo")).assert_accepted();
        client.echo(&Frame::text("for alice"));
        client.close();
        assert_eq!(Raw::connect_by(&server, Some(&alice)).ask(&Handshake::new("/bob")).status, 403);
        // Over TLS 1.3 the client hears of it when it reads.
        let nobody = tls::client(server.root(), &[version], false);
        let mut client = Raw::connect_by(&server, Some(&nobody));
        let request = Handshake::new("/echo").bytes(&client.host());
        client.try_write(&request);
        client.await_hangup();
    }
    let log = server.access_log();
    assert_eq!(log.matches(" 101").count(), 2, "{log}");
}

fn timeouts_of_httpd(mpm: Mpm) {
    for httpd in Httpd::tls_both_ways(mpm) {
        let timeouts = "RequestReadTimeout header=2 body=2\nTimeout 2\nKeepAlive On\nKeepAliveTimeout 1";
        no_timeout_of(&httpd.workers(10).module("reqtimeout").config(timeouts).echo().start());
    }
}

fn no_timeout_of(server: &Server) {
    let mut idle = Raw::open(server, "/echo").about("idle");
    let mut talking = Raw::open(server, "/echo").about("idle after some messages");
    talking.echo(&Frame::text("hello"));
    let mut within = Raw::open(server, "/echo").about("in the middle of a frame");
    let frame = Frame::text("to be continued");
    within.write(&frame.masked_with([1, 2, 3, 4])[..9]);
    // What httpd has to send here does not get away for as long.
    let mut deaf = Raw::open(server, "/echo").about("deaf");
    let large = Frame::binary(vec![b'x'; 1 << 20]).masked();
    let (mut sent, mut rest) = (0, 0);
    while sent < 64 {
        match deaf.write_some(&large[rest..], Duration::from_millis(300)) {
            Some(0) => break,
            Some(count) => rest += count,
            None => panic!("the server gave up on a slow reader"),
        }
        if rest == large.len() {
            (sent, rest) = (sent + 1, 0);
        }
    }
    assert!(sent < 64, "the server took 64 MiB of a client that reads nothing");

    // Others who are silent are cut in that time, one after the other.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let mut slow = Raw::connect(server).about("a slow request");
        slow.write(b"GET /index.html HT");
        slow.await_hangup();
        let mut kept = Raw::connect(server).about("kept alive");
        assert_eq!(kept.ask(&Handshake::page("/index.html")).status, 200);
        kept.await_hangup();
    }

    idle.echo(&Frame::text("still here"));
    idle.close();
    talking.echo(&Frame::text("still here"));
    talking.close();
    within.write(&frame.masked_with([1, 2, 3, 4])[9..]);
    within.expect(&frame);
    within.close();
    for _ in 0..sent {
        deaf.expect(&Frame::binary(vec![b'x'; 1 << 20]));
    }
}

/// The access log's line of a relayed session comes when it is over, and tells of it.
fn the_line_in_the_access_log(mpm: Mpm) {
    let server = Httpd::new(mpm)
        .tls()
        .relayed()
        .echo()
        .config("CustomLog \"{root}/logs/sockets.log\" \"%U %>s %{WS_SESSION}e %{WS_SECONDS}e %{WS_BYTES_IN}e %{WS_BYTES_OUT}e\"")
        .start();
    let log = || std::fs::read_to_string(server.path("logs/sockets.log")).unwrap_or_default();
    let lines = |count: usize| {
        wait_until("the line is in the access log", PATIENCE, || log().lines().count() >= count);
        log().lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<String>>()).collect::<Vec<_>>()
    };
    let begin = Instant::now();
    let mut first = Raw::open(&server, "/echo");
    first.echo(&Frame::text("hello"));
    let mut second = Raw::open(&server, "/echo");
    second.echo(&Frame::text("hello"));
    assert_eq!(log(), "", "before the end of a session");

    first.close();
    let written = lines(1);
    let fields = &written[0];
    assert_eq!(fields[..2], ["/echo", "101"]);
    assert!(fields[2].parse::<u64>().is_ok_and(|session| session > 0), "{fields:?}");
    let seconds: f64 = fields[3].parse().expect("seconds");
    assert!(seconds <= begin.elapsed().as_secs_f64(), "{fields:?}");
    // "hello" and a Close with a code, with masks and without.
    assert_eq!(fields[4..], ["19", "11"], "{fields:?}");

    // A client that vanishes has a line as well.
    second.echo(&Frame::binary(vec![0; 1000]));
    second.reset();
    let written = lines(2);
    let fields = &written[1];
    assert_eq!(fields[..2], ["/echo", "101"]);
    assert_ne!(fields[2], written[0][2], "the numbers of two sessions");
    assert_eq!(fields[4..], ["1019", "1011"], "{fields:?}");

    assert_eq!(Raw::page(&server, "/index.html").status, 200);
    assert_eq!(lines(3)[2], ["/index.html", "200", "-", "-", "-", "-"]);
    assert_eq!(server.access_log().matches(" 101").count(), 2, "{}", server.access_log());
}
