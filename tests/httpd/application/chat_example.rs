//! The chat of `examples/php/chat`: a login, a history, and a logout that closes sockets.

use super::rights::{alive, expect_close};
use crate::harness::php::Fpm;
use crate::harness::wait::PATIENCE;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, wait_until};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn example(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/php/chat").join(path)).expect("the example")
}

/// A form that is sent.
fn form(server: &Server, path: &str, cookie: &str, body: &str) -> Response {
    let request = Handshake::page(path).method("POST").version("HTTP/1.0").header("Cookie", cookie);
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    let mut client = Raw::connect(server);
    let request = request.header("Content-Length", &body.len().to_string());
    client.write(&[request.bytes(&client.host()), body.into()].concat());
    client.response(false)
}

/// A login; its cookie.
fn login(server: &Server, user: &str) -> String {
    let answer = form(server, "/php-chat/login.php", "", &format!("user={user}"));
    assert_eq!((answer.status, answer.header("Location")), (303, Some("/php-chat/")), "{}", answer.text());
    let cookies = answer.all("Set-Cookie");
    cookies.last().and_then(|cookie| cookie.split(';').next()).expect("a session").to_owned()
}

/// The example's site.
pub(crate) fn serve(fpm: &Fpm) -> Server {
    let mut httpd = Fpm::modules(Httpd::new(Mpm::Event));
    for module in ["alias", "authz_host", "dir", "env"] {
        httpd = httpd.module(module);
    }
    for file in ["auth.php", "chat.php", "history.php", "index.php", "login.php", "logout.php", "say.php"] {
        httpd = httpd.file(&format!("chat/{file}"), example(file));
    }
    let server = httpd
        .file("data/.keep", "")
        .config(format!("Define PHP_FPM {}", fpm.socket().display()))
        .config("Define PHP_CHAT {root}/chat\nDefine PHP_DATA {root}/data\nDefine PHP_SITE http://127.0.0.1:{port}")
        .config(String::from_utf8(example("httpd.conf")).expect("text"))
        .start();
    fs::set_permissions(server.path("data"), Permissions::from_mode(0o777)).expect("a folder for PHP");
    server
}

#[test]
fn the_chat_of_the_examples() {
    let fpm = Fpm::start(4);
    let server = serve(&fpm);
    let socket = |cookie: &str| {
        let handshake = Handshake::new("/php-chat/socket").header("Cookie", cookie);
        (Raw::connect(&server), handshake)
    };
    // Nobody without a login, and nobody but the module asks who that is.
    let (mut nobody, handshake) = socket("");
    assert_eq!(nobody.ask(&handshake).status, 403);
    assert_eq!(Raw::page(&server, "/php-chat/").status, 303);
    assert_eq!(Raw::page(&server, "/php-chat/auth.php").status, 403);
    server.expect_log("AH01630: client denied by server configuration");
    let (ann, joe) = (login(&server, "ann"), login(&server, "joe"));
    let mut clients: Vec<Raw> = [&ann, &ann, &joe]
        .into_iter()
        .map(|cookie| {
            let (mut client, handshake) = socket(cookie);
            client.ask(&handshake).assert_accepted();
            alive(&mut client);
            client
        })
        .collect();
    assert_eq!(form(&server, "/php-chat/say.php", "", "text=x").status, 403);
    assert_eq!(form(&server, "/php-chat/say.php", &ann, "text=").status, 400);
    assert_eq!(form(&server, "/php-chat/say.php", &ann, "text=Hello+%3C%2Fscript%3E").status, 200);
    for client in &mut clients {
        let frame = client.frame();
        let message: Value = serde_json::from_slice(&frame.payload).expect("JSON");
        assert_eq!((frame.opcode, &message["user"]), (Frame::TEXT, &json!("ann")));
        assert_eq!(message["text"], "Hello </script>");
    }
    // Who comes later reads it.
    let page = |path: &str, cookie: &str| {
        Raw::answer(&server, &Handshake::page(path).version("HTTP/1.0").header("Cookie", cookie))
    };
    let history: Value = serde_json::from_slice(&page("/php-chat/history.php", &joe).body).expect("JSON");
    assert_eq!((&history[0]["text"], &history[1]), (&json!("Hello </script>"), &Value::Null));
    assert_eq!(page("/php-chat/history.php", "").status, 403);

    // In another browser, too.
    let elsewhere = login(&server, "ann");
    assert_eq!(page("/php-chat/", &elsewhere).status, 200);
    let answer = form(&server, "/php-chat/logout.php", &ann, "");
    assert_eq!((answer.status, answer.header("Location")), (303, Some("login.php?logged-out")), "{}", answer.text());
    let mut joes = clients.pop().expect("three clients");
    clients.iter_mut().for_each(|client| expect_close(client, 4401, "logged out"));
    alive(&mut joes);
    for cookie in [&ann, &elsewhere] {
        let (mut late, handshake) = socket(cookie);
        assert_eq!(late.ask(&handshake).status, 403);
        assert_eq!(page("/php-chat/", cookie).status, 303);
    }
    assert_eq!(page("/php-chat/", &login(&server, "ann")).status, 200);
    joes.close();
    wait_until("they are gone", PATIENCE, || server.error_log().matches("WS0103").count() == 3);
}
