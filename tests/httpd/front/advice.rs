//! Advice at startup, where the settings cannot carry what `WebSocketMaxConnections` allows over TLS, or `WebSocketHttpMax`.

use crate::harness::{Httpd, Mpm, Server, every_mpm};

every_mpm!(what_is_wanted_is_compared_with_what_is_there);

const WANTED: &str = "<Location \"/echo\">\n  WebSocketHandler echo\n  WebSocketMaxConnections 500\n</Location>";

fn warnings(server: &Server) -> Vec<String> {
    let log = server.error_log();
    log.lines().filter(|line| line.contains("WS022")).map(str::to_owned).collect()
}

fn what_is_wanted_is_compared_with_what_is_there(mpm: Mpm) {
    // Without TLS, or with the engine's, no worker is held, and nothing is to be said.
    assert_eq!(warnings(&Httpd::new(mpm).workers(10).config(WANTED).start()), Vec::<String>::new());

    let handed_over = Httpd::new(mpm).workers(10).tls().config(WANTED).start();
    assert_eq!(warnings(&handed_over), Vec::<String>::new());

    let server = Httpd::new(mpm).workers(10).tls().relayed().config(WANTED).start();
    let (id, advice) = match mpm {
        Mpm::Event => ("WS0223", "set AsyncRequestWorkerFactor to 50 or more"),
        Mpm::Worker | Mpm::Prefork => ("WS0222", "set MaxRequestWorkers to more than 500"),
    };
    server.expect_log(id);
    let warnings = warnings(&server);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(id) && warnings[0].contains(advice), "{warnings:?}");

    if mpm == Mpm::Event {
        let enough =
            Httpd::new(mpm).workers(10).tls().relayed().config("AsyncRequestWorkerFactor 50").config(WANTED).start();
        assert_eq!(self::warnings(&enough), Vec::<String>::new());
    }
}

#[test]
fn requests_of_the_engine_leave_threads_for_others() {
    let application = |url: &str| format!("<Location \"/chat\">\n  WebSocketHandler http {url}\n</Location>");
    let many = Httpd::new(Mpm::Event).workers(10).config("WebSocketHttpMax 5").config(application("/app.php")).start();
    many.expect_log("WS0225");
    assert!(warnings(&many)[0].contains("set WebSocketHttpMax to less than 5"), "{:?}", warnings(&many));
    for (max, url) in [(4, "/app.php"), (5, "http://127.0.0.1:1/")] {
        let max = format!("WebSocketHttpMax {max}");
        let few = Httpd::new(Mpm::Event).workers(10).config(max).config(application(url)).start();
        assert_eq!(warnings(&few), Vec::<String>::new(), "{url}");
    }
}
