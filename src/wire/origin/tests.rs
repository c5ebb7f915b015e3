//! Which origins are the same, and what an administrator's words admit.

use super::*;
use proptest::prelude::*;

fn is_same(origin: &str, scheme: &str, host: &str) -> bool {
    let page = Origin::of_page(origin);
    page.is_some() && page == Origin::of_site(scheme, host)
}

#[test]
fn the_same_origin_in_all_its_spellings() {
    for (origin, scheme, host) in [
        ("http://example.com", "http", "example.com"),
        ("http://example.com", "http", "EXAMPLE.com:80"),
        ("HTTP://Example.COM:80", "http", "example.com"),
        ("http://example.com:", "http", "example.com:"),
        ("https://example.com", "https", "example.com:443"),
        ("https://example.com:443", "https", "example.com"),
        ("https://example.com:8443", "https", "example.com:8443"),
        ("http://example.com:443", "http", "example.com:443"),
        ("http://127.0.0.1:8080", "http", "127.0.0.1:8080"),
        ("http://[::1]", "http", "[::1]:80"),
        ("http://[::1]:8080", "http", "[::1]:8080"),
        ("http://[2001:db8::a]", "http", "[2001:DB8:0:0::A]"),
        ("http://my_host-1", "http", "my_host-1"),
        ("gopher://example.com", "gopher", "example.com"),
        // What clients write that are no browsers: the URL of their socket, or a slash.
        ("ws://example.com", "http", "example.com"),
        ("wss://example.com", "https", "example.com"),
        ("WSS://example.com:443", "https", "example.com"),
        ("ws://example.com:8080/chat?room=1#x", "http", "example.com:8080"),
        ("http://example.com/", "http", "example.com"),
        ("http://example.com:80/", "http", "example.com"),
        ("ws://[::1]/", "http", "[::1]:80"),
        ("http://a/b", "http", "a"),
        // A name of another alphabet comes as its ASCII form in both, and a final dot where the page's URL has it.
        ("https://xn--bcher-kva.example", "https", "XN--BCHER-KVA.example"),
        ("http://example.com.", "http", "example.com."),
    ] {
        assert!(is_same(origin, scheme, host), "{origin} at {scheme}://{host}");
        assert_eq!(difference(origin, scheme, host), None);
    }
}

#[test]
fn another_origin_is_another() {
    for (origin, scheme, host) in [
        ("http://evil.example", "http", "example.com"),
        ("http://example.com.evil.example", "http", "example.com"),
        ("http://evil.example/example.com", "http", "example.com"),
        ("http://www.example.com", "http", "example.com"),
        ("https://example.com", "http", "example.com"),
        ("wss://example.com", "http", "example.com"),
        ("ws://example.com", "https", "example.com"),
        ("https://example.com:80", "http", "example.com"),
        ("http://example.com", "https", "example.com"),
        ("http://example.com", "http", "example.com:443"),
        ("http://example.com", "https", "example.com:80"),
        ("http://example.com:8080", "http", "example.com"),
        ("http://example.com", "http", "example.com:8080"),
        ("http://example.com.", "http", "example.com"),
        ("http://[::2]", "http", "[::1]"),
        ("http://[::1]:81", "http", "[::1]"),
    ] {
        assert!(!is_same(origin, scheme, host), "{origin} at {scheme}://{host}");
        assert!(difference(origin, scheme, host).is_some(), "{origin} at {scheme}://{host}");
    }
}

#[test]
fn what_cannot_be_read_is_equal_to_nothing_not_even_to_itself() {
    for (origin, scheme, host) in [
        ("null", "http", "example.com"),
        ("", "http", "example.com"),
        ("example.com", "http", "example.com"),
        ("//example.com", "http", "example.com"),
        ("://example.com", "http", "example.com"),
        ("1://example.com", "1", "example.com"),
        ("http://", "http", "example.com"),
        ("http:///", "http", "example.com"),
        ("http:example.com", "http", "example.com"),
        ("http://me@example.com", "http", "example.com"),
        ("http://me:secret@example.com", "http", "example.com"),
        ("http://me@example.com", "http", "me@example.com"),
        ("http://example.com:80@evil.example", "http", "example.com"),
        ("http://example.com\\@evil.example", "http", "example.com"),
        ("http://example.com:80:80", "http", "example.com"),
        ("http://example.com:+80", "http", "example.com"),
        ("http://example.com:65616", "http", "example.com"), // 80, modulo 65536
        ("http://example.com http://example.com", "http", "example.com"),
        ("http://example.com, http://example.com", "http", "example.com"),
        ("http://example.com/, http://example.com", "http", "example.com"),
        ("http://example.com/ http://example.com", "http", "example.com"),
        ("http://example.com/é", "http", "example.com"),
        ("http://example.com?x", "http", "example.com"),
        ("http://a/b", "http", "a/b"),
        ("http://", "http", ""),
        ("http://[::1", "http", "[::1"),
        ("http://[]", "http", "[]"),
        ("http://[::1]x", "http", "[::1]x"),
        ("http://::1", "http", "::1"),
        ("http://[fe80::1%eth0]", "http", "[fe80::1%eth0]"),
        ("http://é", "http", "é"),
    ] {
        assert!(!is_same(origin, scheme, host), "{origin} at {scheme}://{host}");
        assert_eq!(difference(origin, scheme, host), None, "{origin} at {scheme}://{host}");
    }
}

#[test]
fn a_difference_says_what_is_different() {
    let parts = |origin, scheme, host| {
        let Difference { scheme, host, port } = difference(origin, scheme, host).expect("a difference");
        [scheme, host, port]
    };
    // TLS that ends in front of httpd: the port is that of the scheme.
    assert_eq!(parts("https://www.example.com", "http", "www.example.com"), [true, false, false]);
    assert_eq!(parts("https://www.example.com:8443", "http", "www.example.com:8443"), [true, false, false]);
    assert_eq!(parts("https://www.example.com:8443", "http", "www.example.com"), [true, false, true]);
    assert_eq!(parts("https://www.example.com", "http", "10.0.0.5:8080"), [true, true, true]);
    assert_eq!(parts("http://www.example.com:8080", "http", "www.example.com"), [false, false, true]);
    assert_eq!(parts("http://www.example.com", "http", "www.example.org"), [false, true, false]);
}

fn trusted(word: &str) -> Trusted {
    Trusted::parse(word).unwrap_or_else(|expected| panic!("{word}: expected {expected}"))
}

#[test]
fn trusted_origins_are_compared_as_origins() {
    for word in [
        "https://www.example.com",
        "https://www.example.com:443",
        "HTTPS://WWW.Example.com",
        "https://www.example.com/",
        "wss://www.example.com",
    ] {
        let trusted = trusted(word);
        for origin in ["https://www.example.com", "https://WWW.example.com:443/", "wss://www.example.com/chat"] {
            assert!(trusted.admits(origin), "{word}: {origin}");
        }
        for origin in [
            "http://www.example.com",
            "https://www.example.com:80",
            "https://example.com",
            "https://www.example.com.",
            "https://www.example.com.evil.example",
            "https://www.example.com@evil.example",
            "https://evil.example/www.example.com",
            "https://www.example.com, https://www.example.com",
            "null",
            "",
        ] {
            assert!(!trusted.admits(origin), "{word}: {origin}");
        }
    }
    for word in ["http://localhost/", "http://localhost:80", "http://localhost"] {
        assert!(trusted(word).admits("http://localhost") && !trusted(word).admits("http://localhost:8080"), "{word}");
    }
    assert!(trusted("http://[2001:DB8::0:A]:8080").admits("http://[2001:db8::a]:8080"));
    assert!(trusted("https://xn--bcher-kva.example").admits("https://xn--bcher-kva.example"));
    assert!(trusted("https://www.example.com.").admits("https://www.example.com."));
}

#[test]
fn other_schemes_are_compared_exactly() {
    for word in [
        "file://",
        "file:///",
        "capacitor://localhost",
        "app://.",
        "ionic://localhost",
        "null",
        "chrome-extension://ab",
    ] {
        assert!(trusted(word).admits(word), "{word}");
        for other in ["", "null:", "file:", "FILE://", "app://..", "capacitor://localhost/", "ionic://localhost:80"] {
            assert!(!trusted(word).admits(other), "{word}: {other}");
        }
    }
    assert!(!trusted("file://").admits("file:///"));
}

#[test]
fn a_star_is_one_label_or_a_whole_host() {
    let example = trusted("https://*.Example.com");
    for origin in ["https://a.example.com", "https://A.example.com:443", "wss://xn--bcher-kva.example.com/"] {
        assert!(example.admits(origin), "{origin}");
    }
    for origin in [
        "https://example.com",
        "https://.example.com",
        "https://a.b.example.com",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://a.example.com.",
        "https://a.example.com.evil.example",
        "https://aexample.com",
        "https://evil.example/.example.com",
        "https://a@b.example.com",
        "https://[::1].example.com",
        "null",
    ] {
        assert!(!example.admits(origin), "{origin}");
    }
    let port = trusted("http://*.dev.example.com:8080/");
    assert!(port.admits("http://a.dev.example.com:8080") && !port.admits("http://a.dev.example.com"));

    let extension = trusted("moz-extension://*");
    assert!(extension.admits("moz-extension://2b7ae8f0-8e3b-4f2a-9a3e-6d0c6c0f8f8e"));
    for origin in [
        "moz-extension://",
        "moz-extension://a/b",
        "moz-extension://a:80",
        "moz-extension://me@a",
        "moz-extension://a, moz-extension://b",
        "moz-extensions://a",
        "https://a",
    ] {
        assert!(!extension.admits(origin), "{origin}");
    }
}

#[test]
fn what_would_never_match_is_refused() {
    for (word, expected) in [
        ("www.example.com", "scheme://host"),
        ("", "scheme://host"),
        ("*", "scheme://host"),
        ("://x", "scheme://host"),
        ("https://", "scheme://host"),
        ("https://a b", "scheme://host"),
        ("https://a,https://b", "scheme://host"),
        ("https://example.com:99999", "scheme://host"),
        ("file://a,b", "scheme://host"),
        ("*://example.com", "scheme://host"),
        ("https://www.example.com/chat", "without a path"),
        ("https://www.example.com//", "without a path"),
        ("https://me:secret@example.com", "without user name"),
        ("https://bücher.example", "xn--"),
        ("https://*", "first of three"),
        ("http://*:8080", "first of three"),
        ("wss://*", "first of three"),
        ("https://*.com", "first of three"),
        ("https://*.com.", "first of three"),
        ("https://*.example.com.", "first of three"),
        ("https://*.", "first of three"),
        ("https://*..example.com", "first of three"),
        ("https://*.*.example.com", "first of three"),
        ("https://a*.example.com", "first of three"),
        ("https://a.*.example.com", "first of three"),
        ("https://*example.com", "first of three"),
        ("https://*.168.0.1", "first of three"),
        ("https://*.example.com/chat", "first of three"),
        ("https://example.com:*", "first of three"),
        ("moz-extension://*/", "first of three"),
        ("moz-extension://a*", "first of three"),
    ] {
        let got = Trusted::parse(word);
        assert!(got.as_ref().is_err_and(|error| error.contains(expected)), "{word}: {got:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn same_origin_means_same_scheme_host_and_port(
        a in (any::<bool>(), any::<bool>(), 0_usize..3, 0_usize..4, 0_usize..3),
        b in (any::<bool>(), any::<bool>(), 0_usize..3, 0_usize..4, 0_usize..3),
    ) {
        let parts = |(tls, socket, host, port, path): (bool, bool, usize, usize, usize)| {
            let scheme = ["http", "https", "ws", "wss"][usize::from(tls) + 2 * usize::from(socket)];
            let host = ["example.com", "127.0.0.1", "[::1]"][host];
            let port = [None, Some(80), Some(443), Some(8080)][port];
            let written = port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
            (scheme, written, ["", "/", "/a/b"][path], (tls, host, port.unwrap_or(if tls { 443 } else { 80 })))
        };
        let (scheme, host, path, page) = parts(a);
        let (site_scheme, site_host, _, site) = parts(b);
        let origin = format!("{scheme}://{host}{path}");
        prop_assert_eq!(is_same(&origin, site_scheme, &site_host), page == site);
        prop_assert_eq!(difference(&origin, site_scheme, &site_host).is_none(), page == site);
    }

    #[test]
    fn whatever_may_be_trusted_admits_itself(word in "(https?|wss?|file|app)://[a-z*.@:/0-9é]{0,16}") {
        if let Ok(trusted) = Trusted::parse(&word) {
            prop_assert!(word.contains('*') || trusted.admits(&word), "{:?}", trusted);
        }
    }

    #[test]
    fn nothing_that_is_joined_is_admitted(
        words in prop::collection::vec("(https?|file)://[a-z.]{1,8}/?", 2..4),
        trusted in "https://[a-z*.]{1,8}|file://[*a-z.]{1,8}",
    ) {
        let joined = words.join(", ");
        if let Ok(trusted) = Trusted::parse(&trusted) {
            prop_assert!(!trusted.admits(&joined), "{:?}", trusted);
        }
        prop_assert_eq!(Origin::of_page(&joined), None);
    }
}
