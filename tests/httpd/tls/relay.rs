//! What a relayed session must not cost: memory a message, a connection that nobody reads from; and what is relayed or not,
//! and works: a rewritten request, filters.

use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Httpd, Mpm, Raw, Server, every_mpm, heavy, wait_until};
use std::time::Duration;

every_mpm!(
    messages_leave_no_memory_behind,
    one_that_never_reads_is_given_up,
    a_request_that_httpd_redirects,
    a_site_full_of_filters,
);

fn children_kib(server: &Server) -> u64 {
    server.children().iter().map(|child| child.resident_kib()).sum()
}

fn messages_leave_no_memory_behind(mpm: Mpm) {
    let _turn = heavy();
    let server = Httpd::new(mpm).tls().relayed().echo().start();
    let mut client = Raw::open(&server, "/echo");
    let batch: Vec<Frame> = (0..50).map(|number| Frame::text(format!("message {number}"))).collect();
    let mut echo = |batches: usize| {
        for _ in 0..batches {
            // One record each, so that each is a read and a write of its own for the relay.
            for frame in &batch {
                client.send(frame);
            }
            for frame in &batch {
                client.expect(frame);
            }
        }
    };
    echo(100);
    let before = children_kib(&server);
    echo(1000);
    let after = children_kib(&server);
    // 32 bytes a read and a write would be more than this.
    assert!(after < before + 1024, "from {before} to {after} KiB for 50,000 messages");
    client.close();
}

/// Sends until the server takes no more, and reads nothing.
fn fill(client: &mut Raw) {
    let message = Frame::binary(vec![b'x'; 64 * 1024]).masked();
    let mut sent = 0;
    while let Some(written) = client.write_some(&message[sent % message.len()..], Duration::from_millis(500)) {
        if written == 0 {
            break;
        }
        sent += written;
    }
}

fn one_that_never_reads_is_given_up(mpm: Mpm) {
    let httpd = Httpd::new(mpm).tls().relayed().config("WebSocketPing 1 1\nWebSocketSendBuffer 65536").echo();
    let server = httpd.start();
    let sockets = || server.children().iter().map(|child| child.network_sockets().len()).sum::<usize>();
    wait_until("the children listen", PATIENCE, || sockets() > 0);
    let mut client = Raw::open(&server, "/echo");
    fill(&mut client);
    let children = server.children();
    wait_until("the session has ended", PATIENCE, || server.error_log().contains("no answer to a ping"));
    // The client is still connected; its connection in httpd must go all the same.
    wait_until("the connection has ended in httpd", 2 * PATIENCE, || server.access_log().contains("GET /echo"));
    for child in children {
        assert!(child.is_running());
    }
    drop(client);
}

fn a_request_that_httpd_redirects(mpm: Mpm) {
    for httpd in Httpd::tls_both_ways(mpm) {
        let server = httpd
            .module("rewrite")
            .config("<Directory \"{root}/htdocs\">\n  RewriteEngine On\n  RewriteRule ^old$ /echo\n</Directory>")
            .echo()
            .start();
        let mut client = Raw::open(&server, "/old");
        client.echo(&Frame::text("by way of ap_internal_redirect"));
        client.close();
    }
}

/// Filters of every kind around the connection and the request: they may slow a session, and not break it.
fn a_site_full_of_filters(mpm: Mpm) {
    for httpd in Httpd::tls_both_ways(mpm) {
        full_of_filters(httpd);
    }
}

fn full_of_filters(httpd: Httpd) {
    let server =
        ["dumpio", "deflate", "filter", "ratelimit", "env", "substitute", "headers", "reqtimeout", "ext_filter"]
            .into_iter()
            .fold(httpd, Httpd::module)
            .config(
                "DumpIOInput On\nDumpIOOutput On\nRequestReadTimeout header=20 body=20\n\
             ExtFilterDefine cat mode=output cmd=/bin/cat\n\
             <Location \"/\">\n  SetOutputFilter DEFLATE;RATE_LIMIT;SUBSTITUTE;cat\n  SetEnv rate-limit 4000\n  \
             Substitute s/message/gap/\n  Header always set X-Site filtered\n  SetInputFilter DEFLATE\n</Location>",
            )
            .echo()
            .start();
    let mut client = Raw::open(&server, "/echo");
    for number in 0..50 {
        client.echo(&Frame::text(format!("message {number}")));
    }
    client.echo(&Frame::binary(vec![9; 1 << 20]));
    client.close();
}
