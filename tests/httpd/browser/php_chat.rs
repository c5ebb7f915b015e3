//! The chat of `examples/php/chat`, used by two people, each in a browser of their own.

use super::chromium::Chromium;
use super::tab::Tab;
use crate::application::chat_example::serve;
use crate::harness::php::Fpm;
use crate::harness::{Handshake, Raw};
use serde_json::json;
use std::fs;
use std::ops::Deref;

/// The tab of somebody who is logged in. Each host has cookies of its own: they are as two browsers.
struct Visitor<'a>(Tab<'a>);

impl<'a> Deref for Visitor<'a> {
    type Target = Tab<'a>;

    fn deref(&self) -> &Tab<'a> {
        &self.0
    }
}

impl<'a> Visitor<'a> {
    /// Comes without a login, and logs in.
    #[track_caller]
    fn come(browser: &'a Chromium, url: &str, name: &str) -> Self {
        let visitor = Self(Tab::open(browser, url));
        visitor.is_at("/php-chat/login.php");
        browser.fill("name", name);
        browser.click("log-in");
        visitor.is_connected();
        assert_eq!(visitor.run("return document.getElementById('user').textContent;"), json!(name));
        visitor
    }

    #[track_caller]
    fn is_at(&self, path: &str) {
        self.turn().wait_until(&format!("location.pathname === {}", json!(path)));
    }

    #[track_caller]
    fn is_connected(&self) {
        self.turn().wait_until("document.getElementById('state')?.textContent === 'Connected.'");
    }

    #[track_caller]
    fn say(&self, text: &str) {
        let browser = self.turn();
        browser.fill("text", text);
        browser.click("send");
        // It is empty again when it was said.
        browser.wait_until("document.getElementById('text').value === ''");
    }

    /// Waits until the page shows this, and no more.
    #[track_caller]
    fn sees(&self, expected: &[&str]) {
        self.shows("#said > li", expected);
    }

    /// The page says that nobody is logged in, and so does the server.
    #[track_caller]
    fn is_logged_out(&self, url: &str) {
        let browser = self.turn();
        browser.wait_until("document.getElementById('note')?.textContent === 'You are logged out.'");
        browser.goto(url);
        self.is_at("/php-chat/login.php");
    }
}

#[test]
fn users_talk_and_log_out() {
    let fpm = Fpm::start(4);
    let server = serve(&fpm);
    let chat = server.http_url("/php-chat/");
    let elsewhere = chat.replace("127.0.0.1", "localhost");
    let browser = Chromium::start();
    let ann = Visitor::come(&browser, &chat, "ann");
    let joe = Visitor::come(&browser, &elsewhere, "joe");

    ann.say("Hello, <i>Joe</i>");
    joe.sees(&["ann: Hello, <i>Joe</i>"]);
    joe.say("Привет 🚀");
    let said = ["ann: Hello, <i>Joe</i>", "joe: Привет 🚀"];
    ann.sees(&said);
    joe.sees(&said);

    // Who comes back sees what was said, and what is said then.
    ann.turn().goto(&chat);
    ann.is_connected();
    ann.sees(&said);
    joe.say("still there");
    let said = [said[0], said[1], "joe: still there"];
    ann.sees(&said);
    let second = Visitor(Tab::open(&browser, &chat));
    second.is_connected();
    second.sees(&said);

    // All tabs of hers, and nobody else's.
    ann.turn().click("log-out");
    ann.is_logged_out(&chat);
    second.is_logged_out(&chat);
    joe.say("alone");
    joe.sees(&[&said[..], &["joe: alone"]].concat());
    let again = Visitor::come(&browser, &chat, "joe");
    again.turn().click("log-out");
    again.is_logged_out(&chat);
    joe.is_logged_out(&elsewhere);

    // Nobody closes the sockets at another logout: the page finds out when it comes back.
    let cem = Visitor::come(&browser, &chat, "cem");
    fs::write(server.path("data/logout-cem"), "9999999999").expect("a mark");
    let closed = Raw::answer(&server, &Handshake::page("/php-chat/publish?user=cem&code=1012").method("DELETE"));
    assert_eq!(closed.status, 200, "{closed:?}");
    cem.is_logged_out(&chat);
    assert_eq!(browser.console(), [""; 0]);
}
