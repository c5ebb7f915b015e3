//! The demo's chat, used by several visitors, each in a tab of one browser.

use super::chromium::Chromium;
use super::demo::{keep, serve};
use super::tab::Tab;
use super::{site, visit};
use crate::harness::Server;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::ops::Deref;
use std::process::Command;

// What the page shows, as selectors.
/// Messages with who said them, and what the page says itself.
const LINES: &str = "#messages > li";
/// The messages alone.
const MESSAGES: &str = "#messages > li:not(.note)";
/// What the page says itself.
const NOTES: &str = "#messages > .note";
/// Who is there.
const MEMBERS: &str = "#members > li";

/// The tab of a visitor who has entered the chat.
struct Visitor<'a>(Tab<'a>);

impl<'a> Deref for Visitor<'a> {
    type Target = Tab<'a>;

    fn deref(&self) -> &Tab<'a> {
        &self.0
    }
}

impl<'a> Visitor<'a> {
    /// Enters the room of this URL, in a new tab.
    #[track_caller]
    fn enter(browser: &'a Chromium, url: &str, name: &str) -> Self {
        let visitor = Self(Tab::open(browser, url));
        browser.fill("name", name);
        browser.click("enter");
        visitor.connected();
        visitor
    }

    #[track_caller]
    fn connected(&self) {
        self.turn().wait_until("document.getElementById('status').textContent === 'Connected.'");
    }

    /// Says something as a visitor does; the server may have it or not.
    #[track_caller]
    fn say(&self, text: &str) {
        let browser = self.turn();
        browser.fill("text", text);
        browser.click("send");
    }
}

/// Publishes as the page advises.
#[track_caller]
fn curl(visitor: &Visitor<'_>) -> Value {
    let line = visitor.run("return document.getElementById('curl').textContent;");
    let output = Command::new("sh").args(["-c", line.as_str().expect("a line")]).output().expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn lobby(server: &Server) -> String {
    server.http_url("/chat.html?room=lobby")
}

#[test]
fn visitors_talk() {
    let server = serve();
    let browser = Chromium::start();
    let ann = Visitor::enter(&browser, &lobby(&server), "Ann");
    ann.shows(MEMBERS, &["Ann you"]);
    let bob = Visitor::enter(&browser, &lobby(&server), "Bob & Söhne");
    bob.shows(MEMBERS, &["Ann", "Bob & Söhne you"]);
    ann.shows(MEMBERS, &["Ann you", "Bob & Söhne"]);

    ann.say("one");
    ann.say("<b onclick='alert()'>two</b><img src=x>");
    ann.shows(MESSAGES, &["Ann one", "Ann <b onclick='alert()'>two</b><img src=x>"]);
    bob.say("три 🚀");
    bob.shows(MESSAGES, &["Ann one", "Ann <b onclick='alert()'>two</b><img src=x>", "Bob & Söhne три 🚀"]);
    ann.say("four");
    assert_eq!(curl(&ann)["chat/lobby"]["subscribers"], json!(2));
    let told = ["Ann one", "Ann <b onclick='alert()'>two</b><img src=x>", "Bob & Söhne три 🚀", "Ann four", "hello"];
    bob.shows(LINES, &told);
    ann.shows(MESSAGES, &told);
    assert_eq!(ann.run("return document.querySelectorAll('#messages b, #messages img').length;"), json!(0));
    assert_eq!(ann.run("return document.querySelector('.nobody').textContent;"), json!("hello"));

    // Who comes late hears what was said.
    let cem = Visitor::enter(&browser, &server.http_url("/chat.html"), "Cem");
    cem.shows(LINES, &told);
    cem.shows(MEMBERS, &["Ann", "Bob & Söhne", "Cem you"]);
    cem.say("hello, all");
    bob.shows(MESSAGES, &[&told[..], &["Cem hello, all"]].concat());
    keep(&bob.turn().screenshot(), "chat.png");
    cem.turn().close_tab();
    ann.shows(MEMBERS, &["Ann you", "Bob & Söhne"]);
    let last = ["Bob & Söhne has come.", "Cem has come.", "Cem has left."];
    ann.shows(NOTES, &last);
    assert_eq!(ann.run("return document.querySelector('#messages').lastChild.textContent;"), json!("Cem has left."));
    assert_eq!(browser.console(), [""; 0]);
    for visitor in [bob, ann] {
        visitor.turn().click("leave");
    }
}

#[test]
fn rooms_are_changed_on_the_open_socket() {
    let server = serve();
    let browser = Chromium::start();
    let ann = Visitor::enter(&browser, &lobby(&server), "Ann");
    let bob = Visitor::enter(&browser, &lobby(&server), "Bob");
    ann.say("in the lobby");
    bob.shows(MESSAGES, &["Ann in the lobby"]);
    ann.run("document.querySelector('#rooms li:nth-child(2) a').click();");
    ann.connected();
    assert_eq!(ann.run("return location.search;"), json!("?room=kitchen"));
    ann.shows(MEMBERS, &["Ann you"]);
    ann.shows(LINES, &[]);
    bob.shows(MEMBERS, &["Bob you"]);
    bob.say("alone");
    ann.say("hungry");
    ann.shows(LINES, &["Ann hungry"]);
    bob.shows(LINES, &["Ann in the lobby", "Ann has left.", "Bob alone"]);

    // One that the page does not name, and the way back.
    let cafe = "Café_1";
    ann.turn().fill("other-room", cafe);
    browser.click("go");
    ann.shows(MEMBERS, &["Ann you"]);
    assert_eq!(curl(&ann)[format!("chat/{cafe}")]["subscribers"], json!(1));
    ann.shows(LINES, &["hello"]);
    ann.run("history.go(-2);");
    ann.shows(LINES, &["Ann in the lobby", "Bob alone"]);
    ann.shows(MEMBERS, &["Ann you", "Bob"]);
    assert_eq!(server.access_log().matches("GET /chat/").count(), 2, "{}", server.access_log());
    // A room of an URL is entered by the handshake.
    let cem = Visitor::enter(&browser, &server.http_url("/chat.html?room=Caf%C3%A9_1"), "Cem");
    cem.shows(LINES, &["hello"]);
    assert_eq!(browser.console(), [""; 0]);
}

/// Sockets over plain HTTP stay open.
#[test]
fn through_a_graceful_restart() {
    let server = serve();
    let browser = Chromium::start();
    let ann = Visitor::enter(&browser, &lobby(&server), "Ann");
    let bob = Visitor::enter(&browser, &lobby(&server), "Bob");
    ann.say("before");
    bob.shows(LINES, &["Ann before"]);
    server.graceful();
    ann.say("after");
    bob.say("indeed");
    for visitor in [&ann, &bob] {
        visitor.shows(MESSAGES, &["Ann before", "Ann after", "Bob indeed"]);
    }
    // Nobody has come or gone.
    ann.shows(LINES, &["Bob has come.", "Ann before", "Ann after", "Bob indeed"]);
    assert_eq!(server.access_log().matches("GET /chat/").count(), 2, "{}", server.access_log());
}

/// A connection that was lost, while the server was there: what was said in the meantime is caught up with, and what was
/// typed goes out.
#[test]
fn after_a_lost_connection() {
    let server = serve();
    let browser = Chromium::start();
    let ann = Visitor::enter(&browser, &lobby(&server), "Ann");
    let bob = Visitor::enter(&browser, &lobby(&server), "Bob");
    ann.say("before");
    ann.shows(MESSAGES, &["Ann before"]);
    // A silent server is asked whether it is there.
    ann.run("watch(); await until(() => !silent);");
    // Nobody has answered until the next time. No other attempt for now, so that there is time.
    ann.run("watch(); watch(); clearTimeout(retry);");
    bob.shows(MEMBERS, &["Bob you"]);
    bob.say("where is Ann?");
    bob.shows(LINES, &["Ann before", "Ann has left.", "Bob where is Ann?"]);
    ann.say("is it on?");
    ann.shows(LINES, &["Bob has come.", "Ann before", "Ann is it on?"]);
    assert_eq!(ann.run("return document.querySelector('.waiting').textContent;"), json!("Ann is it on?"));
    keep(&browser.screenshot(), "chat-lost.png");
    ann.turn().click("reconnect");
    ann.connected();
    let expected =
        ["Bob has come.", "Ann before", "Reconnected, nothing missed.", "Bob where is Ann?", "Ann is it on?"];
    ann.shows(LINES, &expected);
    assert_eq!(ann.run("return document.querySelector('.waiting');"), Value::Null);
    bob.shows(MESSAGES, &["Ann before", "Bob where is Ann?", "Ann is it on?"]);
    bob.shows(MEMBERS, &["Ann", "Bob you"]);
    assert_eq!(browser.console(), [""; 0]);
}

/// With the engine goes what it kept: the pages come back by themselves, and say so.
#[test]
fn after_a_lost_engine() {
    let server = serve();
    let browser = Chromium::start();
    let ann = Visitor::enter(&browser, &lobby(&server), "Ann");
    let bob = Visitor::enter(&browser, &lobby(&server), "Bob");
    ann.say("before");
    bob.shows(LINES, &["Ann before"]);
    let engine = server.engine();
    server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
    engine.signal(Signal::KILL);
    let missed = "Reconnected. Some messages may have been missed here.";
    let notes = "[...document.querySelectorAll('#messages > .note')].map((line) => line.textContent)";
    for visitor in [&ann, &bob] {
        visitor.turn().wait_until(&format!("{notes}.includes({})", json!(missed)));
        visitor.connected();
    }
    ann.shows(MEMBERS, &["Ann you", "Bob"]);
    bob.shows(MEMBERS, &["Ann", "Bob you"]);
    bob.say("after");
    ann.shows(MESSAGES, &["Ann before", "Bob after"]);
    bob.shows(MESSAGES, &["Ann before", "Bob after"]);
    keep(&browser.screenshot(), "chat-missed.png");
}

/// Who is sent away stays away, until the visitor wants to come back.
#[test]
fn a_room_is_closed() {
    let server = serve();
    let browser = Chromium::start();
    let ann = Visitor::enter(&browser, &lobby(&server), "Ann");
    ann.say("before");
    ann.shows(LINES, &["Ann before"]);
    let deleted = ann
        .run("return (await fetch('/publish?channel=chat/lobby&reason=Good%20night', { method: 'DELETE' })).status;");
    assert_eq!(deleted, json!(200));
    ann.turn().wait_until("document.getElementById('status').textContent === 'Closed by the server: Good night.'");
    // What the server does not take goes back to where it was typed.
    ann.say("typed");
    ann.run("answers.error({ message: 'the broker is away', ref: [...unsent.keys()][0] });");
    ann.shows(LINES, &["Ann before", "Not sent: the broker is away."]);
    assert_eq!(ann.run("return document.getElementById('text').value;"), json!("typed"));
    browser.click("reconnect");
    ann.connected();
    ann.shows(LINES, &["Ann before", "Not sent: the broker is away.", "Reconnected, nothing missed."]);
    let bob = Visitor::enter(&browser, &lobby(&server), "Bob");
    bob.shows(LINES, &[]);
    assert_eq!(browser.console(), [""; 0]);
}

/// A page that was left, and is kept for the way back, is not shown to others as if it read what they say.
#[test]
fn a_page_that_is_kept() {
    let server = serve();
    let browser = Chromium::that_keeps_pages();
    let ann = Visitor::enter(&browser, &lobby(&server), "Ann");
    let bob = Visitor::enter(&browser, &lobby(&server), "Bob");
    ann.run("window.kept = true; setTimeout(() => { location.href = '/index.html'; });");
    bob.shows(MEMBERS, &["Bob you"]);
    bob.say("where is Ann?");
    bob.shows(MESSAGES, &["Bob where is Ann?"]);
    ann.turn().wait_until("location.pathname === '/index.html'");
    ann.run("setTimeout(() => history.back());");
    ann.turn().wait_until("location.pathname === '/chat.html'");
    assert_eq!(ann.run("return window.kept;"), json!(true), "the browser did not keep the page");
    ann.connected();
    ann.shows(MESSAGES, &["Bob where is Ann?"]);
    bob.shows(MEMBERS, &["Ann", "Bob you"]);
}

/// The first block of this language in the guide to channels.
fn guide(language: &str) -> &'static str {
    let guide = include_str!("../../../docs/channels/guide.md");
    let block = guide.split_once(&format!("\n```{language}\n")).expect("a block").1;
    block.split_once("\n```").expect("its end").0
}

#[test]
fn the_example_of_the_guide() {
    let server = site().module("authz_host").config(guide("apache")).start();
    let publish = |text: &str| {
        let line = guide("sh").replace("http://localhost", &server.http_url("")).replace("Hello", text);
        let output = Command::new("sh").args(["-c", &line]).output().expect("a shell");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    publish("early");
    let page = visit(&server);
    page.run("window.shown = []; window.show = (text) => shown.push(text);");
    page.run_with("(0, eval)(arguments[0]);", vec![json!(guide("js"))]);
    page.wait_until("shown.length === 1");
    publish("Hello");
    page.wait_until("shown.length === 2");
    let engine = server.engine();
    server.expect_log(&format!("WS0201: the engine process {}", engine.pid));
    engine.signal(Signal::KILL);
    page.wait_until("shown.length === 3");
    publish("again");
    page.wait_until("shown.length === 4");
    let expected = json!(["early", "Hello", "(Some news may be missing here.)", "again"]);
    assert_eq!(page.run("return shown;"), expected);
}
