//! Every way in which a configuration has mod_proxy carry WebSockets, and where `WebSocketProxyHandoff` may stand.

use super::{await_taken, left, site, taken};
use crate::harness::back_end::{BackEnd, echo};
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Server, every_mpm};

every_mpm!(each_way_is_taken_over);

#[track_caller]
fn echoes(server: &Server, handshake: &Handshake) {
    let mut client = Raw::open_with(server, handshake);
    client.echo(&Frame::text("hello"));
    client.echo(&Frame::binary(vec![7; 70_000]));
    client.close();
}

fn each_way_is_taken_over(mpm: Mpm) {
    let (pass, upgrade, other) = (BackEnd::echo(), BackEnd::echo(), BackEnd::echo());
    let (member, unix) = (BackEnd::echo(), BackEnd::unix(echo));
    let server = site(mpm)
        .module("rewrite")
        .module("slotmem_shm")
        .module("proxy_balancer")
        .module("lbmethod_byrequests")
        .config(format!(
            "ProxyPass \"/pass\" \"ws://{}/echo\"\n\
             ProxyPass \"/upgrade/\" \"http://{}/\" upgrade=websocket\n\
             ProxyPass \"/unix\" \"unix:{}|ws://localhost/unix\"\n\
             <Proxy \"balancer://app\">\n  BalancerMember \"ws://{}\"\n</Proxy>\n\
             ProxyPass \"/balanced\" \"balancer://app/balanced\"",
            pass.address,
            upgrade.address,
            unix.socket().display(),
            member.address
        ))
        .config(format!(
            "RewriteEngine On\nRewriteRule \"^/rewritten$\" \"ws://{0}/rewritten\" [P]\n\
             <Location \"/handler\">\n  SetHandler \"proxy:ws://{0}\"\n</Location>\n\
             <Directory \"{{root}}/htdocs/folder\">\n  AllowOverride FileInfo\n  Options FollowSymLinks\n</Directory>",
            other.address
        ))
        .file(
            "htdocs/folder/.htaccess",
            format!("RewriteEngine On\nRewriteRule \"^socket$\" \"ws://{}/htaccess\" [P]\n", other.address),
        )
        .start();
    let ways = [
        ("/pass", "/echo"),
        ("/upgrade/room/7?a=b", "/room/7?a=b"),
        ("/unix", "/unix"),
        ("/balanced", "/balanced"),
        ("/rewritten", "/rewritten"),
        ("/folder/socket", "/htaccess"),
    ];
    for (path, _) in ways {
        echoes(&server, &Handshake::new(path));
    }
    // Of it mod_proxy makes the name of a file.
    echoes(&server, &Handshake::new("/handler"));
    await_taken(&server, ways.len() + 1);
    let heads = [&pass, &upgrade, &unix, &member, &other].map(BackEnd::heads).concat();
    for (_, asked) in ways {
        assert!(heads.iter().any(|head| head.starts_with(&format!("GET {asked} HTTP/1.1\r\n"))), "{asked}: {heads:#?}");
    }
}

#[test]
fn a_virtual_host_and_a_section_say_it_for_themselves() {
    let back_end = BackEnd::echo();
    let server = Httpd::new(Mpm::Event)
        .module("proxy")
        .module("proxy_http")
        .module("rewrite")
        .config(format!(
            "<VirtualHost 127.0.0.1:{{port}}>\n  ServerName on.test\n  WebSocketProxyHandoff On\n  RewriteEngine On\n  \
             RewriteRule \"^/\" \"ws://{0}/\" [P]\n</VirtualHost>\n\
             <VirtualHost 127.0.0.1:{{port}}>\n  ServerName off.test\n  ProxyPass \"/\" \"ws://{0}/\"\n  \
             <Location \"/on\">\n    WebSocketProxyHandoff On\n  </Location>\n</VirtualHost>",
            back_end.address
        ))
        .start();
    let at = |host: &str, path: &str| echoes(&server, &Handshake::new(path).header("Host", host));
    at("on.test", "/");
    await_taken(&server, 1);
    at("off.test", "/");
    at("off.test", "/on");
    await_taken(&server, 2);
    assert_eq!((taken(&server), left(&server).len()), (2, 0));
}

#[test]
fn a_htaccess_file_may_not_say_it() {
    let server = site(Mpm::Event)
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride All\n</Directory>")
        .file("htdocs/.htaccess", "WebSocketProxyHandoff On\n")
        .start();
    server.tolerate_log("WebSocketProxyHandoff not allowed here");
    assert_eq!(Raw::page(&server, "/index.html").status, 500);
}
