use super::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi";

/// What a server has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: std::sync::Mutex<Vec<String>>,
}

impl Seen {
    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers the requests of each connection with these, one after the other, and closes it; an empty one is no answer.
async fn server(answers: &'static [&'static str]) -> (SocketAddr, Arc<Seen>) {
    let (listener, seen) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(Seen::default()));
    let (address, shared) = (listener.local_addr().unwrap(), seen.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(converse(stream, answers, shared.clone()));
        }
    });
    (address, seen)
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: &[&str], seen: Arc<Seen>) {
    for answer in answers {
        let Some(request) = read_request(&mut stream).await else { return };
        seen.requests.lock().unwrap().push(request);
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return Some(text);
            }
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
}

/// What is asked.
#[derive(Clone)]
struct Asked {
    headers: Vec<(String, Vec<u8>)>,
    body: &'static [u8],
}

impl Asked {
    fn of(headers: &[(&str, &[u8])], body: &'static [u8]) -> Asked {
        token::set(&[0xa1; token::LENGTH]);
        Asked { headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(), body }
    }

    async fn ask(&self, application: &Application, max_body: usize) -> Result<HttpAnswer, AskError> {
        self.ask_within(application, max_body, TIMEOUT).await
    }

    async fn ask_within(
        &self,
        application: &Application,
        max_body: usize,
        time: Duration,
    ) -> Result<HttpAnswer, AskError> {
        let template = Template::new(application, "/app.php?a=b", &self.headers, "192.0.2.1", true)?;
        let inquiry = template.inquiry(Method::POST, [], Bytes::from_static(self.body));
        ask_within(&inquiry, max_body, time).await
    }
}

/// It has what it needs, and no more.
fn usual() -> Asked {
    Asked::of(&[("Host", b"site.example")], b"body")
}

fn plain(address: SocketAddr) -> Application {
    Application::Here(Loopback { address, secure: false, server_name: None, certificate: None })
}

async fn run<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

#[tokio::test]
async fn a_request_and_its_answer() {
    run(async {
        let (address, seen) =
            server(&[OK, OK, "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"]).await;
        let with_lengths =
            Asked::of(&[("Transfer-Encoding", b"chunked"), ("Content-Length", b"99"), ("Host", b"a")], b"");
        let utf8 = Asked::of(&[("Host", b"site.example"), ("Cookie", b"a=b")], b"body");
        let answer = utf8.ask(&plain(address), 2).await.unwrap();
        assert_eq!((answer.status, &*answer.body, answer.header("x-a")), (200, &b"hi"[..], Some("1")));
        assert_eq!(answer.headers.iter().filter(|(name, _)| name == "x-a").count(), 2);
        with_lengths.ask(&plain(address), 2).await.unwrap();
        let redirection = with_lengths.ask(&plain(address), 2).await.unwrap();
        assert_eq!((redirection.status, redirection.header("Location")), (302, Some("/login")));
        let requests = seen.requests();
        let token = token::value().unwrap();
        assert_eq!(
            requests[0],
            format!(
                "POST /app.php?a=b HTTP/1.1\r\nhost: site.example\r\ncookie: a=b\r\nwebsocket-token: {token}\r\n\
                 websocket-client: 192.0.2.1\r\nwebsocket-secure: on\r\ncontent-length: 4\r\n\r\nbody"
            )
        );
        assert!(requests[1].contains("\r\ncontent-length: 0\r\n") && !requests[1].contains("chunked"));
        assert_eq!((requests.len(), seen.connections.load(Ordering::Relaxed)), (3, 1));
    })
    .await;
}

#[tokio::test]
async fn the_token_is_for_this_httpd_alone() {
    run(async {
        let (address, seen) = server(&[OK]).await;
        let inquiry = usual();
        let elsewhere = Application::Elsewhere { host: "127.0.0.1".into(), port: address.port(), secure: false };
        inquiry.ask(&elsewhere, 100).await.unwrap();
        let request = seen.requests().remove(0);
        assert!(request.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", address.port())), "{request}");
        assert!(!request.contains("websocket-") && !request.contains("192.0.2.1"), "{request}");
    })
    .await;
}

#[tokio::test]
async fn only_what_was_not_sent_is_sent_again() {
    run(async {
        // Kept, and closed meanwhile.
        let (address, seen) = server(&[OK]).await;
        let inquiry = usual();
        for _ in 0..3 {
            inquiry.ask(&plain(address), 100).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((seen.requests().len(), seen.connections.load(Ordering::Relaxed)), (3, 3));
        // It was read, and that was all.
        let (address, seen) = server(&[""]).await;
        assert!(matches!(inquiry.ask(&plain(address), 100).await, Err(AskError::NoAnswer(_))));
        assert_eq!(seen.requests().len(), 1);
        // Nobody is there.
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(inquiry.ask(&plain(nobody), 100).await, Err(AskError::NotSent(_))));
    })
    .await;
}

#[tokio::test]
async fn answers_have_bounds() {
    run(async {
        let mut inquiry = usual();
        let (address, _) = server(&[OK]).await;
        assert_eq!(
            inquiry.ask(&plain(address), 1).await,
            Err(AskError::Broken("its answer has more than 1 bytes".into()))
        );
        let (address, _) = server(&["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"]).await;
        assert!(matches!(inquiry.ask(&plain(address), 100).await, Err(AskError::Broken(_))));
        let (address, _) = server(&["SSH-2.0-OpenSSH_10.0\r\n"]).await;
        assert!(matches!(inquiry.ask(&plain(address), 100).await, Err(AskError::NoAnswer(_))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (silent, time) = (plain(listener.local_addr().unwrap()), Duration::from_millis(20));
        assert_eq!(inquiry.ask_within(&silent, 100, time).await, Err(AskError::Late(time)));
        inquiry.headers.push(("X-A".into(), b"a\r\nX-B: c".to_vec()));
        assert!(matches!(inquiry.ask(&silent, 100).await, Err(AskError::Malformed(_))));
        inquiry.headers.clear();
        assert!(matches!(inquiry.ask(&silent, 100).await, Err(AskError::Malformed(_))));
    })
    .await;
}

#[tokio::test]
async fn only_the_certificate_of_the_handshake_will_do() {
    run(async {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["site.example".into()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let (listener, seen) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(Seen::default()));
        let (address, shared) = (listener.local_addr().unwrap(), seen.clone());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
                    shared.requests.lock().unwrap().push(name);
                    converse(stream, &[OK], shared.clone()).await;
                }
            }
        });
        let pin: [u8; 32] = ring::digest::digest(&ring::digest::SHA256, cert.der()).as_ref().try_into().unwrap();
        let here = |server_name: Option<&str>, certificate| {
            let server_name = server_name.map(str::to_owned);
            Application::Here(Loopback { address, secure: true, server_name, certificate })
        };
        let inquiry = usual();
        assert_eq!(inquiry.ask(&here(Some("site.example"), Some(pin)), 100).await.unwrap().status, 200);
        assert_eq!(inquiry.ask(&here(None, Some(pin)), 100).await.unwrap().status, 200);
        assert_eq!((&*seen.requests()[0], &*seen.requests()[2]), ("site.example", "none"));
        let before = seen.requests().len();
        for wrong in [Some([0; 32]), None] {
            let refused = inquiry.ask(&here(Some("site.example"), wrong), 100).await;
            assert!(matches!(refused, Err(AskError::NotSent(_))), "{refused:?}");
        }
        assert_eq!(seen.requests().len(), before);
    })
    .await;
}
