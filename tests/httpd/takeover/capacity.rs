//! Sockets that outnumber the workers, and what is left of them.

use super::{await_taken, site, taken};
use crate::harness::back_end::{BackEnd, Conversation, accepting, echo};
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm, heavy, wait_until};
use std::sync::atomic::{AtomicUsize, Ordering};

every_mpm!(more_sockets_than_workers, whoever_goes_when_leaves_nothing);

const SOCKETS: usize = 300;
const WORKERS: usize = 10;

fn balanced(site: Httpd, back_end: &BackEnd) -> Httpd {
    ["slotmem_shm", "proxy_balancer", "lbmethod_bybusyness"].into_iter().fold(site, Httpd::module).config(format!(
        "<Proxy \"balancer://app\">\n  BalancerMember \"ws://{}\"\n</Proxy>\nProxyPass \"/ws\" \"balancer://app/\" \
         lbmethod=bybusyness\n<Location \"/balancers\">\n  SetHandler balancer-manager\n</Location>",
        back_end.address
    ))
}

fn more_sockets_than_workers(mpm: Mpm) {
    let _turn = heavy();
    let kinds: &[fn(Httpd) -> Httpd] = &[|site| site, Httpd::tls, |site| site.tls().relayed()];
    // Without TLS that the engine goes on with, only event lets go of a request.
    for kind in &kinds[..if mpm == Mpm::Event { 3 } else { 2 }] {
        let back_end = BackEnd::echo();
        let site = kind(balanced(site(mpm), &back_end));
        let sizing = if mpm == Mpm::Event { "AsyncRequestWorkerFactor 80" } else { "" };
        let server = site.workers(WORKERS).config(sizing).start();
        let mut sockets: Vec<Raw> = (0..SOCKETS).map(|_| Raw::open(&server, "/ws")).collect();
        await_taken(&server, SOCKETS);
        sockets.iter_mut().for_each(|socket| socket.echo(&Frame::text("before")));
        for _ in 0..2 * WORKERS {
            assert_eq!(Raw::page(&server, "/index.html").status, 200);
        }
        // A request that is suspended is not over.
        let is_relayed = server.error_log().contains("by SuspendedRelay");
        assert_eq!(elected_and_busy(&server), [SOCKETS, if is_relayed { SOCKETS } else { 0 }]);
        sockets.iter_mut().for_each(|socket| socket.echo(&Frame::text("after")));
        if !is_relayed {
            let children = || server.children().iter().map(|child| child.network_sockets().len()).sum::<usize>();
            wait_until("the children have let go of the sockets", PATIENCE, || children() < SOCKETS / 2);
        }
        sockets.into_iter().for_each(Raw::close);
    }
}

/// What the balancer's page says of its one member: how often it was chosen, and how many requests it has now.
fn elected_and_busy(server: &Server) -> [usize; 2] {
    // Without a Referer it takes no changes.
    server.tolerate_log("AH10187: ignoring params in balancer-manager");
    let page = Raw::page(server, "/balancers").text();
    let cells = page.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text.trim());
    let numbers: Vec<usize> =
        cells.skip_while(|cell| !cell.starts_with("ws://")).filter_map(|cell| cell.parse().ok()).collect();
    // Set, Elected, Busy, Load; Factor has a point.
    [numbers[1], numbers[2]]
}

fn whoever_goes_when_leaves_nothing(mpm: Mpm) {
    let _turn = heavy();
    let calls = AtomicUsize::new(0);
    let back_end = BackEnd::new(move |head: &str, conversation: &mut Conversation| {
        match calls.fetch_add(1, Ordering::Relaxed) % 6 {
            // Before the answer, in it, and behind it.
            0 => conversation.reset(),
            1 => conversation.say("HTTP/1.1 101 Switching"),
            2 => {
                conversation.say(accepting());
                conversation.reset();
            }
            3 => conversation.say(accepting()),
            _ => echo(head, conversation),
        }
    });
    let server = site(mpm).config(format!("ProxyPass \"/ws\" \"ws://{}/\" retry=0", back_end.address)).start();
    // Of mod_proxy, about back ends that answer nothing.
    for line in ["AH01102", "AH00898", "AH01110", "AH03308", "AH10221"] {
        server.tolerate_log(line);
    }
    let ask = |round: usize| {
        let mut socket = Raw::connect(&server);
        let host = socket.host();
        socket.write(&Handshake::new("/ws").bytes(&host));
        match round % 3 {
            // Before the answer, and behind it.
            0 => socket.reset(),
            1 => {
                socket.peek_until_readable();
                socket.reset();
            }
            _ => socket.try_write(&Frame::text("hello").masked()),
        }
    };
    let most = |server: &Server| {
        server.children().iter().chain([&server.engine()]).map(|process| process.descriptors().len()).max().unwrap_or(0)
    };
    (0..60).for_each(ask);
    let mut before = 0;
    wait_until("all of them have gone", PATIENCE, || {
        before = most(&server);
        server.engine().network_sockets().is_empty()
    });
    (0..180).for_each(ask);
    // A child has some links more to the engine where handshakes come right after each other.
    wait_until("nothing is left of them", PATIENCE, || {
        server.engine().network_sockets().is_empty() && most(&server) <= before + 8
    });
    assert!(taken(&server) > 20);
}
