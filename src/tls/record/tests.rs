//! rustls is the client, and was the server until the handshake was done; or the other way round.

mod client_role;

use super::*;
use proptest::prelude::*;
use rustls::crypto::ring::{self as provider, cipher_suite};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ConnectionCommon, Error, RootCertStore, ServerConfig,
    ServerConnection,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

pub(crate) const SUITES: [rustls::SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

#[derive(Debug, Default)]
struct Log(Mutex<HashMap<String, Vec<u8>>>);

impl rustls::KeyLog for Log {
    fn log(&self, label: &str, _random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().insert(label.into(), secret.into());
    }
}

/// A client and a server that know each other, and the secrets that they will have.
fn ends(suite: rustls::SupportedCipherSuite) -> (ClientConnection, ServerConnection, Arc<Log>) {
    let provider =
        Arc::new(rustls::crypto::CryptoProvider { cipher_suites: vec![suite], ..provider::default_provider() });
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let log = Arc::new(Log::default());
    server.key_log = log.clone();
    server.enable_secret_extraction = true;
    let server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap(), server, log)
}

impl Log {
    fn keys(&self, suite: rustls::SupportedCipherSuite, client: u64, server: u64) -> Keys {
        let direction =
            |label: &str, sequence| Direction { secret: Secret(self.0.lock().unwrap()[label].clone()), sequence };
        Keys {
            suite: suite.suite().into(),
            client: direction("CLIENT_TRAFFIC_SECRET_0", client),
            server: direction("SERVER_TRAFFIC_SECRET_0", server),
        }
    }
}

/// A client, and what its server has to go on with.
pub(crate) fn connect(suite: rustls::SupportedCipherSuite) -> (ClientConnection, Keys) {
    let (mut client, mut server, log) = ends(suite);
    while client.wants_write() || server.wants_write() {
        hear_client(&mut server, &said(&mut client));
        hear(&mut client, &said(&mut server)).unwrap();
    }
    let secrets = server.dangerous_extract_secrets().unwrap();
    (client, log.keys(suite, secrets.rx.0, secrets.tx.0))
}

/// A server, what its client has to go on with, and what the server has said since the handshake was done: its tickets.
pub(crate) fn serve(suite: rustls::SupportedCipherSuite) -> (ServerConnection, Keys, Vec<u8>) {
    let (mut client, mut server, log) = ends(suite);
    while client.is_handshaking() || client.wants_write() {
        hear_client(&mut server, &said(&mut client));
        if client.is_handshaking() {
            hear(&mut client, &said(&mut server)).unwrap();
        }
    }
    let tickets = said(&mut server);
    let secrets = client.dangerous_extract_secrets().unwrap();
    (server, log.keys(suite, secrets.tx.0, secrets.rx.0), tickets)
}

fn hear_client(server: &mut ServerConnection, mut wire: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    while !wire.is_empty() {
        server.read_tls(&mut wire).unwrap();
        let ready = server.process_new_packets().unwrap().plaintext_bytes_to_read();
        let start = heard.len();
        heard.resize(start + ready, 0);
        server.reader().read_exact(&mut heard[start..]).unwrap();
    }
    heard
}

fn said<T>(side: &mut ConnectionCommon<T>) -> Vec<u8> {
    let mut wire = Vec::new();
    while side.wants_write() {
        side.write_tls(&mut wire).unwrap();
    }
    wire
}

fn say(client: &mut ClientConnection, data: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in data.chunks(10_000) {
        client.writer().write_all(piece).unwrap();
        wire.extend(said(client));
    }
    wire
}

fn hear(client: &mut ClientConnection, mut wire: &[u8]) -> Result<Vec<u8>, Error> {
    let mut heard = Vec::new();
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        let ready = client.process_new_packets()?.plaintext_bytes_to_read();
        let start = heard.len();
        heard.resize(start + ready, 0);
        client.reader().read_exact(&mut heard[start..]).unwrap();
    }
    Ok(heard)
}

/// Opens what comes in pieces; the last of what it came to, with all data.
fn open(opener: &mut Opener, wire: &[u8], piece: usize) -> Result<(Vec<u8>, Opened), Alert> {
    let (mut data, mut buffer, mut last) = (Vec::new(), Vec::new(), Opened::default());
    for piece in wire.chunks(piece) {
        buffer.extend_from_slice(piece);
        last = opener.open(&mut buffer)?;
        data.extend_from_slice(&buffer[..last.plain]);
        buffer = buffer[last.rest.clone()].to_vec();
    }
    Ok((data, last))
}

fn seal(sealer: &mut Sealer, data: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.seal(data, &mut out);
    out
}

fn clients(keys: &Keys) -> Sealer {
    Keys { server: keys.client.clone(), ..keys.clone() }.split().unwrap().1
}

/// A record as a client could send it, with its keys.
fn forged(keys: &Keys, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    clients(keys).record(kind, &mut out, |out| out.extend_from_slice(content));
    out
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn a_conversation_goes_on_with_every_suite() {
    for suite in SUITES {
        let (mut client, keys) = connect(suite);
        let (mut opener, mut sealer) = keys.split().unwrap();
        for (count, piece) in [(1, 1), (1000, 3), (16_384, 16_384), (16_385, 5000), (200_000, 65_536)] {
            let data = bytes(count);
            let (received, last) = open(&mut opener, &say(&mut client, &data), piece).unwrap();
            assert!(received == data && last.rest.is_empty() && !last.is_end, "{suite:?}: {count} bytes");
            let (one, two) = data.split_at(count / 3);
            let wire = seal(&mut sealer, &[one, &[], two, &[]]);
            assert_eq!(wire.len(), count + count.div_ceil(MAX_PLAIN) * (HEADER + 1 + TAG));
            assert!(hear(&mut client, &wire).unwrap() == data, "{suite:?}: {count} bytes");
        }
    }
}

#[test]
fn keys_are_renewed() {
    for suite in SUITES {
        let (mut client, keys) = connect(suite);
        let (mut opener, mut sealer) = keys.split().unwrap();
        let mut wire = say(&mut client, b"one");
        client.refresh_traffic_keys().unwrap();
        wire.extend(say(&mut client, b"two"));
        assert_eq!(open(&mut opener, &wire, 10).unwrap().0, b"onetwo");

        // Asked for, with what was on its way before.
        sealer.update();
        assert!(sealer.mark().is_none());
        let wire = seal(&mut sealer, &[b"new"]);
        assert_eq!(wire.len(), 2 * (HEADER + 1 + TAG) + 5 + 3, "a KeyUpdate goes before it");
        assert_eq!(hear(&mut client, &wire).unwrap(), b"new");
        assert_eq!(hear(&mut client, &seal(&mut sealer, &[b"more"])).unwrap(), b"more");
    }
}

#[test]
fn a_client_may_ask_for_new_keys() {
    let (_, keys) = connect(SUITES[0]);
    let (mut opener, _) = keys.split().unwrap();
    let opened = open(&mut opener, &forged(&keys, HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1]), 100).unwrap().1;
    assert!(opened.wants_update);
    let (mut opener, _) = keys.split().unwrap();
    let opened = open(&mut opener, &forged(&keys, HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0]), 100).unwrap().1;
    assert!(!opened.wants_update);
}

#[test]
fn records_without_data_are_counted() {
    let (_, keys) = connect(SUITES[0]);
    let records = |count: u32, kind: u8, content: &[u8], after: &[u8]| {
        let mut sealer = clients(&keys);
        let mut out = Vec::new();
        for _ in 0..count {
            sealer.record(kind, &mut out, |out| out.extend_from_slice(content));
            if kind == HANDSHAKE {
                sealer.keys.update().unwrap();
            }
        }
        sealer.record(APPLICATION_DATA, &mut out, |out| out.extend_from_slice(after));
        open(&mut keys.split().unwrap().0, &out, 1000).map(|(data, _)| data)
    };
    for (kind, content) in
        [(APPLICATION_DATA, &b""[..]), (HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0]), (ALERT, &[1, USER_CANCELED])]
    {
        assert_eq!(records(MAX_EMPTY, kind, content, b"x"), Ok(b"x".to_vec()));
        assert_eq!(records(MAX_EMPTY, kind, content, b""), Err(Alert::UnexpectedMessage));
    }
}

#[test]
fn no_key_seals_too_many_records() {
    let (_, keys) = connect(SUITES[1]);
    let direction = Direction { sequence: RECORDS_PER_KEY - 1, ..keys.server };
    let (mut opener, mut sealer) = Keys { client: direction.clone(), server: direction, ..keys }.split().unwrap();
    let wire: Vec<u8> = (0..3).flat_map(|_| seal(&mut sealer, &[b"x"])).collect();
    assert_eq!(wire.len(), 3 * (HEADER + 1 + TAG + 1) + HEADER + 1 + TAG + 5);
    assert_eq!(open(&mut opener, &wire, 1000).unwrap().0, b"xxx");
    assert_eq!((opener.keys.sequence, sealer.keys.sequence), (2, 2));
}

#[test]
fn each_side_ends_by_itself() {
    let (mut client, keys) = connect(SUITES[0]);
    let (mut opener, mut sealer) = keys.split().unwrap();
    let mut wire = say(&mut client, b"last words");
    client.send_close_notify();
    wire.extend(said(&mut client));
    wire.extend(b"rubbish");
    let (data, last) = open(&mut opener, &wire, 1000).unwrap();
    assert_eq!((&data[..], last.is_end, last.rest), (&b"last words"[..], true, 0..0));
    let mut wire = seal(&mut sealer, &[b"mine"]);
    sealer.seal_end(&mut wire);
    assert_eq!(hear(&mut client, &wire).unwrap(), b"mine");
    assert_eq!(client.reader().read(&mut [0]).unwrap(), 0, "an end that was said");
}

#[test]
fn what_was_not_sent_is_as_if_it_had_not_been() {
    let (mut client, keys) = connect(SUITES[2]);
    let (_, mut sealer) = keys.split().unwrap();
    let mark = sealer.mark().unwrap();
    seal(&mut sealer, &[&bytes(40_000)]);
    sealer.go_back(&mark);
    assert_eq!(hear(&mut client, &seal(&mut sealer, &[b"sent"])).unwrap(), b"sent");
}

#[test]
fn what_may_not_come_is_answered_with_its_alert() {
    let (_, keys) = connect(SUITES[0]);
    let opened = |wire: &[u8]| open(&mut keys.split().unwrap().0, wire, 1 << 20).map(|(_, opened)| opened);
    let good = forged(&keys, APPLICATION_DATA, b"x");
    assert_eq!(opened(&good).map(|opened| opened.plain), Ok(1));
    for at in 0..good.len() {
        // The version in the header is fixed, and under the tag as the rest is.
        let mut wrong = good.clone();
        wrong[at] ^= 1;
        let expected = match at {
            0 => Err(Alert::UnexpectedMessage),
            3 => Ok(0),
            // Longer by one: not complete; a bit less: cut.
            4 if wrong[4] > good[4] => Ok(0),
            _ => Err(Alert::BadRecordMac),
        };
        assert_eq!(opened(&wrong).map(|opened| opened.plain), expected, "byte {at}");
    }
    assert_eq!(opened(&[&good[..], &good].concat()), Err(Alert::BadRecordMac), "played again");
    let mut long = vec![APPLICATION_DATA, 3, 3, 0x41, 1];
    assert_eq!(opened(&long), Err(Alert::RecordOverflow), "seen at the header");
    long[4] = 0;
    assert_eq!(opened(&long).map(|opened| opened.rest), Ok(0..5));
    assert_eq!(opened(&[20, 3, 3, 0, 1, 1]), Err(Alert::UnexpectedMessage), "ChangeCipherSpec");
    let cases: [(u8, &[u8], Alert); 9] = [
        (0, &[0; 10], Alert::UnexpectedMessage),
        (20, &[1], Alert::UnexpectedMessage),
        (24, b"x", Alert::UnexpectedMessage),
        (HANDSHAKE, &[1, 0, 0, 0], Alert::UnexpectedMessage),
        (HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2], Alert::DecodeError),
        (HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0, 1], Alert::DecodeError),
        (HANDSHAKE, &[], Alert::UnexpectedMessage),
        (ALERT, &[2], Alert::DecodeError),
        (ALERT, &[2, 40], Alert::Theirs),
    ];
    for (kind, content, alert) in cases {
        assert_eq!(opened(&forged(&keys, kind, content)), Err(alert), "{kind} {content:?}");
    }
    assert_eq!(opened(&forged(&keys, APPLICATION_DATA, &bytes(MAX_PLAIN))).map(|opened| opened.plain), Ok(MAX_PLAIN));
    let more = forged(&keys, APPLICATION_DATA, &bytes(MAX_PLAIN + 1));
    assert_eq!(opened(&more), Err(Alert::RecordOverflow));
    assert_eq!(opened(&forged(&keys, ALERT, &[1, USER_CANCELED])), Ok(Opened { rest: 24..24, ..Opened::default() }));
}

#[test]
fn clients_hear_why() {
    for (alert, description) in [
        (Alert::BadRecordMac, AlertDescription::BadRecordMac),
        (Alert::UnexpectedMessage, AlertDescription::UnexpectedMessage),
        (Alert::RecordOverflow, AlertDescription::RecordOverflow),
        (Alert::DecodeError, AlertDescription::DecodeError),
    ] {
        let (mut client, keys) = connect(SUITES[0]);
        let mut wire = Vec::new();
        keys.split().unwrap().1.seal_alert(alert, &mut wire);
        assert_eq!(hear(&mut client, &wire), Err(Error::AlertReceived(description)));
    }
    let (_, keys) = connect(SUITES[0]);
    let mut wire = Vec::new();
    keys.split().unwrap().1.seal_alert(Alert::Theirs, &mut wire);
    assert!(wire.is_empty());
}

#[test]
fn keys_of_nothing_known_are_refused() {
    let (_, keys) = connect(SUITES[0]);
    assert!(Keys { suite: 0x1304, ..keys.clone() }.split().is_err());
    assert!(Keys { suite: 0x1302, ..keys.clone() }.split().is_err(), "a secret that is too short");
    assert!(Keys::knows(0x1303) && !Keys::knows(0xc02f));
    let shown = format!("{keys:?}");
    assert!(shown.contains("Secret(32 bytes)"), "{shown}");
}

proptest! {
    #[test]
    fn rubbish_is_an_alert_and_no_panic(mut wire in prop::collection::vec(any::<u8>(), 0..300), real in any::<bool>()) {
        let direction = Direction { secret: Secret(vec![1; 32]), sequence: 0 };
        let keys = Keys { suite: 0x1303, client: direction.clone(), server: direction };
        if real {
            // What is in a record that the keys fit.
            let kind = wire.first().copied().unwrap_or(0);
            wire = forged(&keys, kind, &wire);
        }
        if let Ok(opened) = keys.split().unwrap().0.open(&mut wire.clone()) {
            prop_assert!(opened.plain <= wire.len() && opened.rest.end <= wire.len());
        }
    }
}
