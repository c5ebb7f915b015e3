//! Beside other modules of httpd: refusals in all their forms, the pages that go with them, and what is sent elsewhere.
//! docs/other-modules.md has the whole table.

use crate::handlers::plugin::journal;
use crate::harness::plugin::rules;
use crate::harness::{Frame, Handshake, Httpd, Mpm, Raw, Response, Server, every_mpm};
use crate::tls::http2::Scenario;
use serde_json::json;

every_mpm!(
    refusals_of_other_modules,
    pages_that_are_more_than_files,
    forms,
    our_own_refusals_have_their_page,
    front_controllers,
    requests_that_are_none,
    what_mod_ssl_refuses,
);

const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";

/// What is answered to a handshake, on a connection that goes on.
struct Site<'a> {
    server: &'a Server,
    client: Raw,
}

impl<'a> Site<'a> {
    fn new(server: &'a Server) -> Self {
        Self { server, client: Raw::connect(server) }
    }

    /// The answer to a handshake that is refused; the connection is one for pages afterwards, unless it is over.
    #[track_caller]
    fn refused(&mut self, handshake: &Handshake, status: u16, page: &str) -> Response {
        let response = self.client.ask(handshake);
        assert_eq!(response.status, status, "{handshake:?}: {response:?} {}", response.text());
        assert!(response.text().contains(page), "{handshake:?}: {response:?} {}", response.text());
        assert_eq!(response.header("Sec-WebSocket-Accept"), None, "{handshake:?}: {response:?}");
        if response.header("Connection") == Some("close") {
            self.client = Raw::connect(self.server);
        }
        let next = self.client.ask(&Handshake::page("/index.html"));
        assert_eq!(next.text(), "<p>A page of the site.</p>\n", "after {handshake:?}");
        response
    }

    #[track_caller]
    fn opens(&self, handshake: &Handshake) {
        let mut client = Raw::open_with(self.server, handshake);
        client.echo(&Frame::text("open"));
        client.close();
    }
}

fn with_modules(mpm: Mpm, modules: &[&str]) -> Httpd {
    let httpd = Httpd::new(mpm).config("KeepAlive On\nMaxKeepAliveRequests 0");
    modules.iter().fold(httpd, |httpd, name| httpd.module(name))
}

/// A location with a handler, and a page for that status in it.
fn guarded(httpd: Httpd, path: &str, status: u16, lines: &str) -> Httpd {
    httpd.file(&format!("htdocs{path}/page.html"), format!("the page of {path}")).config(format!(
        "<Location \"{path}\">\n  WebSocketHandler echo\n  ErrorDocument {status} {path}/page.html\n{lines}\n</Location>"
    ))
}

fn refusals_of_other_modules(mpm: Mpm) {
    let login = "AuthName x\nAuthUserFile \"{root}/conf/users\"\nRequire valid-user\n";
    let digest = "AuthType Digest\nAuthName x\nAuthUserFile \"{root}/conf/digests\"\nRequire valid-user";
    let deny = "Order deny,allow\nDeny from all";
    let httpd = with_modules(mpm, &["access_compat", "alias", "auth_digest", "setenvif"]);
    let httpd = httpd.login().file("conf/digests", "");
    let httpd = [
        ("/digest", 401, digest.to_owned()),
        ("/deny", 403, deny.to_owned()),
        ("/satisfy", 401, format!("AuthType Basic\n{login}{deny}\nSatisfy Any")),
        ("/both", 401, format!("AuthType Basic\n{login}Order allow,deny\nAllow from all\nSatisfy All")),
        (
            "/marked",
            403,
            "SetEnvIf Upgrade websocket marked\nOrder allow,deny\nAllow from all\nDeny from env=marked".to_owned(),
        ),
        ("/limit", 403, "<Limit GET>\n  Require all denied\n</Limit>".to_owned()),
        ("/expr", 403, "Require expr \"%{HTTP:Upgrade} != 'websocket'\"".to_owned()),
        (
            "/none",
            403,
            "<RequireAll>\nRequire all granted\n<RequireNone>\nRequire method GET\n</RequireNone>\n</RequireAll>"
                .to_owned(),
        ),
        ("/gone", 410, "</Location>\nRedirect gone /gone/x\n<Location \"/gone\">".to_owned()),
        ("/forbidden", 403, "</Location>\nRedirect 403 /forbidden/x\n<Location \"/forbidden\">".to_owned()),
        (
            "/moved",
            302,
            "</Location>\nRedirect 302 /moved/x http://elsewhere.example/\n<Location \"/moved\">".to_owned(),
        ),
    ]
    .into_iter()
    .fold(httpd, |httpd, (path, status, lines)| guarded(httpd, path, status, &lines));
    let server = httpd.start();
    server.tolerate_log("AH01630: client denied by server configuration");
    server.tolerate_log("AH01797: client denied by server configuration");
    let mut site = Site::new(&server);
    for (path, status) in [
        ("/digest", 401),
        ("/deny", 403),
        ("/satisfy", 401),
        ("/both", 401),
        ("/marked", 403),
        ("/limit", 403),
        ("/expr", 403),
        ("/none", 403),
        ("/gone", 410),
        ("/forbidden", 403),
        ("/moved", 302),
    ] {
        let refused = site.refused(&Handshake::new(&format!("{path}/x")), status, &format!("the page of {path}"));
        assert_eq!(refused.header("WWW-Authenticate").is_some(), status == 401, "{path}: {refused:?}");
        assert_eq!(refused.header("Location").is_some(), status == 302, "{path}: {refused:?}");
    }
    for path in ["/satisfy/x", "/both/x"] {
        site.opens(&Handshake::new(path).header("Authorization", ALICE));
    }
}

/// Error pages by programs, redirects and includes; of `.htaccess`; elsewhere; that are refused themselves.
fn pages_that_are_more_than_files(mpm: Mpm) {
    let httpd = with_modules(mpm, &["rewrite", "asis", "include", "filter", "mime"]).login().cgi();
    let deny = "Require all denied";
    let httpd = [
        ("/cgi", "/cgi-bin/page"),
        ("/cgi-to-socket", "/cgi-bin/to-socket"),
        ("/asis-to-socket", "/to-socket.asis"),
        ("/rewrite-to-socket", "/rewritten/socket"),
        ("/socket", "/open/socket"),
        ("/include", "/page.shtml"),
        ("/elsewhere", "http://elsewhere.example/"),
        ("/text", "\"just a text\""),
        ("/nested", "/nested-page/x"),
        ("/publish", "/open/publish?channel=news"),
    ]
    .into_iter()
    .fold(httpd, |httpd, (path, page)| {
        httpd.config(format!(
            "<Location \"{path}\">\n  WebSocketHandler echo\n  {deny}\n  ErrorDocument 403 {page}\n</Location>"
        ))
    });
    let server = httpd
        .program("cgi-bin/page", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nby a program: %s' \"$REDIRECT_STATUS\"\n")
        .program("cgi-bin/to-socket", "#!/bin/sh\nprintf 'Status: 200 OK\\nLocation: /open/x\\n\\n'\n")
        .file("htdocs/to-socket.asis", "Status: 200 OK\nLocation: /open/x\n\n")
        .file("htdocs/open/x", "a file beside a socket")
        .file("htdocs/open/socket", "a file beside a socket")
        .file("htdocs/open/publish", "a file beside a socket")
        .file("htdocs/page.shtml", "included: <!--#include virtual=\"/open/x\" -->, <!--#include virtual=\"/open/publish?channel=news\" -->")
        .file("htdocs/rewritten/file", "")
        .file("htdocs/htaccess/.htaccess", "ErrorDocument 403 /htaccess/page.html\nRequire expr \"%{REQUEST_URI} =~ /html$/\"\n")
        .file("htdocs/htaccess/page.html", "a page of .htaccess")
        .config("AddHandler send-as-is asis\nAddOutputFilter INCLUDES shtml\nTypesConfig /dev/null\nAddType text/html shtml")
        .config("<Directory \"{root}/htdocs\">\n  Options +Includes +FollowSymLinks\n</Directory>")
        .config("<Location \"/open\">\n  WebSocketHandler echo\n</Location>")
        .config("<Location \"/open/publish\">\n  WebSocketHandler Off\n  SetHandler websocket-publish\n  Require local\n</Location>")
        .config("<Location \"/nested-page\">\n  WebSocketHandler echo\n  Require user alice\n</Location>")
        .config("<Directory \"{root}/htdocs/rewritten\">\n  RewriteEngine On\n  RewriteRule ^socket$ /open/x\n</Directory>")
        .config("<Directory \"{root}/htdocs/htaccess\">\n  AllowOverride All\n  WebSocketHandler echo\n</Directory>")
        .module("authz_host")
        .start();
    server.tolerate_log("AH01630: client denied by server configuration");
    server.tolerate_log(
        "AH00027: No authentication done but request not allowed without authentication for /nested-page/x",
    );
    let mut site = Site::new(&server);
    let beside = "a file beside a socket";
    for (path, status, page) in [
        ("/cgi/x", 403, "by a program: 403"),
        ("/rewrite-to-socket/x", 403, beside),
        ("/socket/x", 403, beside),
        ("/include/x", 403, &format!("included: {beside}, {beside}")),
        ("/elsewhere/x", 302, "http://elsewhere.example/"),
        ("/text/x", 403, "just a text"),
        ("/nested/x", 403, "Forbidden"),
        ("/publish/x", 403, beside),
        ("/htaccess/x", 403, "a page of .htaccess"),
        // These say of themselves that nothing is wrong.
        ("/cgi-to-socket/x", 200, beside),
        ("/asis-to-socket/x", 200, beside),
        // Nothing is wrong here.
        ("/page.shtml", 200, &format!("included: {beside}, {beside}")),
    ] {
        site.refused(&Handshake::new(path), status, page);
    }
    site.opens(&Handshake::new("/open/x"));
}

/// A login by a form, with a session in a cookie: in the page of the refusal, or by a redirect to it, with a page as well.
fn forms(mpm: Mpm) {
    let httpd = with_modules(mpm, &["request", "session", "session_cookie", "auth_form"]).login();
    let form = "AuthType Form\nAuthFormProvider file\nAuthUserFile \"{root}/conf/users\"\nAuthName x\nSession On\n\
                SessionCookieName session path=/\n";
    let required = format!("{form}Require valid-user\n");
    let httpd = guarded(httpd, "/inline", 401, &required);
    let httpd =
        guarded(httpd, "/sent", 302, &format!("{required}AuthFormLoginRequiredLocation \"http://127.0.0.1/login\""));
    let server = httpd
        .config(format!(
            "<Location \"/login\">\n  SetHandler form-login-handler\n  Require all granted\n{form}</Location>"
        ))
        .start();
    let mut site = Site::new(&server);
    site.refused(&Handshake::new("/inline/x"), 401, "the page of /inline");
    let sent = site.refused(&Handshake::new("/sent/x"), 302, "the page of /sent");
    assert_eq!(sent.header("Location"), Some("http://127.0.0.1/login"));
    let credentials = "httpd_username=alice&httpd_password=open+sesame";
    let mut client = Raw::connect(&server);
    let login = Handshake::page("/login").method("POST").header("Content-Type", "application/x-www-form-urlencoded");
    let login = login.header("Content-Length", &credentials.len().to_string());
    client.write(&[login.bytes(&client.host()), credentials.into()].concat());
    let answer = client.response(false);
    let cookie = answer.all("Set-Cookie").first().and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
    let cookie = cookie.unwrap_or_else(|| panic!("no session: {answer:?}"));
    for path in ["/inline/x", "/sent/x"] {
        site.opens(&Handshake::new(path).header("Cookie", &cookie));
    }
}

/// What we refuse has its page, too, and the plugin or engine is asked once.
fn our_own_refusals_have_their_page(mpm: Mpm) {
    let httpd = with_modules(mpm, &[]);
    let rules = format!("WebSocketHandler \"{}\" rules_init", rules().display());
    let httpd = guarded(httpd, "/plugin", 403, &rules);
    let httpd = guarded(httpd, "/version", 400, "");
    let server = guarded(httpd, "/full", 503, "WebSocketMaxConnections 1").start();
    let mut site = Site::new(&server);
    site.refused(&Handshake::new("/plugin/x").header("X-Wish", "refuse"), 403, "the page of /plugin");
    assert_eq!(journal(&server).iter().filter(|line| *line == "refuse").count(), 1, "{:?}", journal(&server));
    let refused =
        site.refused(&Handshake::new("/version/x").with("Sec-WebSocket-Version", "12"), 400, "the page of /version");
    assert_eq!(refused.header("Sec-WebSocket-Version"), Some("13"));
    let first = Raw::open(&server, "/full/x");
    let refused = site.refused(&Handshake::new("/full/x"), 503, "the page of /full");
    assert_eq!(refused.header("Retry-After"), Some("5"));
    first.close();
}

/// Sites whose `.htaccess` sends everything that is no file to one script: the socket is an exception to that.
fn front_controllers(mpm: Mpm) {
    let rules = "RewriteEngine On\nRewriteCond %{REQUEST_FILENAME} !-f\nRewriteCond %{REQUEST_FILENAME} !-d\n\
                 RewriteRule . /index.html [L]\n";
    let server = with_modules(mpm, &["rewrite", "dir"])
        .file("htdocs/.htaccess", rules)
        .file("htdocs/fallback/file", "")
        .config("<Directory \"{root}/htdocs\">\n  AllowOverride FileInfo\n</Directory>")
        .config(
            "<Directory \"{root}/htdocs/fallback\">\n  RewriteEngine Off\n  FallbackResource /index.html\n</Directory>",
        )
        .config("<Location \"/socket\">\n  WebSocketHandler echo\n  RewriteEngine Off\n</Location>")
        .config("<Location \"/rewritten\">\n  WebSocketHandler echo\n</Location>")
        .config("<Location \"/fallback/socket\">\n  WebSocketHandler echo\n  FallbackResource disabled\n</Location>")
        .config("<Location \"/fallback/taken\">\n  WebSocketHandler echo\n</Location>")
        .start();
    let mut site = Site::new(&server);
    site.opens(&Handshake::new("/socket"));
    site.opens(&Handshake::new("/fallback/socket"));
    let page = "A page of the site.";
    for path in ["/anything", "/rewritten", "/fallback/anything", "/fallback/taken"] {
        site.refused(&Handshake::new(path), 200, page);
        site.refused(&Handshake::page(path), 200, page);
    }
    // The log says it of the handshake, and where it went.
    assert_eq!(
        server
            .error_log()
            .matches(
                "WS0030: left to httpd: a rewrite rule or another module sends this handshake to redirect:/index.html"
            )
            .count(),
        1
    );
}

/// What httpd cannot take for a request, and what is longer than it may be.
fn requests_that_are_none(mpm: Mpm) {
    let httpd = with_modules(mpm, &["reqtimeout", "authz_host"])
        .config("WebSocketHandler echo\nLimitRequestLine 500\nLimitRequestFields 20\nRequestReadTimeout header=1 body=20")
        .config("<Location \"/publish\">\n  WebSocketHandler Off\n  SetHandler websocket-publish\n  LimitRequestBody 5\n  Require local\n</Location>");
    let server = [400, 408, 413, 414, 417]
        .into_iter()
        .fold(httpd, |httpd, status| {
            // The page is where messages are published from, or sockets opened.
            let page = if status == 413 { "/publish/413".to_owned() } else { format!("/pages/{status}") };
            httpd
                .file(&format!("htdocs{page}"), format!("page {status}"))
                .config(format!("ErrorDocument {status} {page}"))
        })
        .start();
    let good = || Handshake::new("/x");
    let many = (0..30).fold(good(), |handshake, number| handshake.header(&format!("X-{number}"), "1"));
    for (handshake, status) in [
        (good().header("Host", "one.example").header("Host", "two.example"), 400),
        (good().header("a name with blanks", "1"), 400),
        (many, 400),
        (Handshake::new(&format!("/{}", "x".repeat(600))), 414),
        (good().header("Expect", "nonsense"), 417),
        (Handshake::page("/publish?channel=news").method("POST").header("Content-Length", "10"), 413),
    ] {
        let response = Raw::answer(&server, &handshake);
        assert_eq!((response.status, response.text()), (status, format!("page {status}")), "{handshake:?}");
    }
    let mut client = Raw::connect(&server);
    let whole = good().bytes(&client.host());
    client.write(&whole[..whole.len() - 2]);
    let late = client.response(false);
    assert_eq!((late.status, late.text().as_str()), (408, "page 408"));
    Raw::open(&server, "/x").close();
}

fn what_mod_ssl_refuses(mpm: Mpm) {
    for httpd in Httpd::tls_both_ways(mpm) {
        let httpd = httpd.config("KeepAlive On");
        let httpd = guarded(httpd, "/keys", 403, "SSLRequire %{SSL_CIPHER_USEKEYSIZE} >= 4096");
        let server = guarded(httpd, "/certificate", 403, "Require ssl-verify-client").start();
        server.tolerate_log("AH01630: client denied by server configuration");
        server.tolerate_log("AH02229: access to ");
        let mut site = Site::new(&server);
        for path in ["/keys", "/certificate"] {
            site.refused(&Handshake::new(&format!("{path}/x")), 403, &format!("the page of {path}"));
        }
    }
}

/// Over HTTP/2 a handshake comes by CONNECT; what is said of GET holds for it.
fn limits_over_http2(mpm: Mpm) {
    let httpd = Httpd::new(mpm).http2();
    let httpd = guarded(httpd, "/limit", 403, "<Limit GET>\n  Require all denied\n</Limit>");
    let httpd = guarded(httpd, "/others", 403, "<LimitExcept CONNECT>\n  Require all denied\n</LimitExcept>");
    let server = guarded(httpd, "/expr", 403, "Require expr \"%{HTTP:Upgrade} != 'websocket'\"").start();
    server.tolerate_log("AH01630: client denied by server configuration");
    let expected = ["/limit", "/others", "/expr"].map(|path| (format!("{path}/x"), 403, format!("the page of {path}")));
    Scenario::start_with(&server, "refused", &json!(expected).to_string()).ends_well();
}

mod http2 {
    use super::limits_over_http2;
    use crate::harness::Mpm;

    #[test]
    fn event() {
        limits_over_http2(Mpm::Event);
    }

    #[test]
    fn worker() {
        limits_over_http2(Mpm::Worker);
    }
}
