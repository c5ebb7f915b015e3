//! A WebSocket over TLS: refused clearly, before any 101, while pages over TLS work.

use crate::harness::handshake::SAMPLE_KEY;
use crate::harness::port::Port;
use crate::harness::{Httpd, Mpm, every_mpm};
use std::process::Command;

every_mpm!(refused_over_tls);

/// What curl prints for a request over TLS: the body, and the status in the last line.
fn curl(port: &Port, path: &str, headers: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--insecure", "--http1.1", "--max-time", "60", "--write-out", "\n%{http_code}"]);
    for header in headers {
        curl.args(["--header", header]);
    }
    let output = curl.arg(format!("https://127.0.0.1:{}{path}", port.number())).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused_over_tls(mpm: Mpm) {
    let httpd = Httpd::new(mpm).module("socache_shmcb").module("ssl").echo();
    let [key, certificate] = ["conf/key.pem", "conf/certificate.pem"].map(|file| httpd.root().join(file));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = Port::reserve();
    let number = port.number();
    let server = httpd
        .config(format!(
            "Listen 127.0.0.1:{number}\nSSLSessionCache \"shmcb:{{root}}/run/cache(512000)\"\n\
             <VirtualHost 127.0.0.1:{number}>\n  ServerName localhost\n  SSLEngine On\n  \
             SSLCertificateFile \"{{root}}/conf/certificate.pem\"\n  \
             SSLCertificateKeyFile \"{{root}}/conf/key.pem\"\n</VirtualHost>"
        ))
        .start();
    // Whatever OpenSSL this machine has.
    server.tolerate_log("AH01882: Init: this version of mod_ssl was compiled against a newer library");
    assert_eq!(curl(&port, "/index.html", &[]), "<p>A page of the site.</p>\n\n200");
    let key = format!("Sec-WebSocket-Key: {SAMPLE_KEY}");
    let headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", &key];
    server.expect_log("WS0004");
    assert!(curl(&port, "/echo", &headers).ends_with("\n501"));
}
