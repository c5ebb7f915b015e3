//! rustls is the server.

use super::*;

fn tell(server: &mut ServerConnection, data: &[u8]) -> Vec<u8> {
    server.writer().write_all(data).unwrap();
    said(server)
}

/// A record as a server could send it, with its keys.
fn from_server(sealer: &mut Sealer, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.record(kind, &mut out, |out| out.extend_from_slice(content));
    out
}

#[test]
fn a_conversation_goes_on_behind_tickets() {
    for suite in SUITES {
        let (mut server, keys, tickets) = serve(suite);
        assert!(!tickets.is_empty());
        let (mut opener, mut sealer) = keys.split_as_client().unwrap();
        let data = bytes(50_000);
        let wire = [tickets, tell(&mut server, &data)].concat();
        let (received, last) = open(&mut opener, &wire, 1000).unwrap();
        assert!(received == data && last.rest.is_empty() && !last.is_end && !last.wants_update, "{suite:?}");
        assert!(hear_client(&mut server, &seal(&mut sealer, &[&data])) == data, "{suite:?}");
    }
}

#[test]
fn the_keys_of_both_are_renewed() {
    let (mut server, keys, tickets) = serve(SUITES[0]);
    let (mut opener, mut sealer) = keys.split_as_client().unwrap();
    let mut wire = [tickets, tell(&mut server, b"one")].concat();
    server.refresh_traffic_keys().unwrap();
    wire.extend(tell(&mut server, b"two"));
    let (data, _) = open(&mut opener, &wire, 10).unwrap();
    assert_eq!(data, b"onetwo");
    sealer.update();
    assert_eq!(hear_client(&mut server, &seal(&mut sealer, &[b"new"])), b"new");
    assert_eq!(hear_client(&mut server, &seal(&mut sealer, &[b"more"])), b"more");
}

#[test]
fn an_end_comes_with_what_was_said_before_it() {
    let (mut server, keys, tickets) = serve(SUITES[0]);
    let (mut opener, mut sealer) = keys.split_as_client().unwrap();
    let mut wire = [tickets, tell(&mut server, b"last words")].concat();
    server.send_close_notify();
    wire.extend(said(&mut server));
    let (data, last) = open(&mut opener, &wire, 1 << 20).unwrap();
    assert_eq!((&data[..], last.is_end), (&b"last words"[..], true));
    let mut wire = seal(&mut sealer, &[b"mine"]);
    sealer.seal_end(&mut wire);
    assert_eq!(hear_client(&mut server, &wire), b"mine");
    assert_eq!(server.reader().read(&mut [0]).unwrap(), 0, "an end that was said");
}

#[test]
fn what_a_server_may_say_of_its_own() {
    let (_, keys, _) = serve(SUITES[0]);
    let ticket = [&[4, 0, 1, 0][..], &[7; 256]].concat();
    let update = [24, 0, 0, 1, 1];
    // The records, and whether keys change behind the last.
    let good: [&[&[u8]]; 5] = [
        &[&ticket],
        &[&[&ticket[..], &ticket].concat()],
        &[&ticket[..1], &ticket[1..3], &ticket[3..100], &[&ticket[100..], &ticket[..2]].concat(), &ticket[2..]],
        &[&[4, 0, 0, 0]],
        &[&[&ticket[..], &update].concat()],
    ];
    for records in good {
        let (mut opener, mut sealer) = (keys.split_as_client().unwrap().0, keys.split().unwrap().1);
        let mut wire: Vec<u8> = records.iter().flat_map(|record| from_server(&mut sealer, HANDSHAKE, record)).collect();
        let updates = records[0].ends_with(&update);
        if updates {
            sealer.keys.update().unwrap();
        }
        wire.extend(from_server(&mut sealer, APPLICATION_DATA, b"data"));
        let (data, last) = open(&mut opener, &wire, 1 << 20).unwrap();
        assert_eq!((&data[..], last.wants_update), (&b"data"[..], updates), "{records:?}");
    }
    type Records<'a> = &'a [(u8, &'a [u8])];
    let bad: [(Records<'_>, Alert); 7] = [
        // CertificateRequest, and what belongs into a handshake.
        (&[(HANDSHAKE, &[13, 0, 0, 3, 0, 0, 0])], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &[8])], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, b"")], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &ticket[..9]), (APPLICATION_DATA, b"x")], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &ticket[..2]), (ALERT, &[1, CLOSE_NOTIFY])], Alert::UnexpectedMessage),
        (&[(HANDSHAKE, &[24, 0, 0, 1, 2])], Alert::DecodeError),
        (&[(HANDSHAKE, &[&update[..], &ticket].concat())], Alert::DecodeError),
    ];
    for (records, alert) in bad {
        let (mut opener, mut sealer) = (keys.split_as_client().unwrap().0, keys.split().unwrap().1);
        let wire: Vec<u8> =
            records.iter().flat_map(|(kind, content)| from_server(&mut sealer, *kind, content)).collect();
        assert_eq!(open(&mut opener, &wire, 1 << 20).unwrap_err(), alert, "{records:?}");
    }
}

#[test]
fn a_client_gives_no_tickets() {
    let (_, keys) = connect(SUITES[0]);
    let wire = forged(&keys, HANDSHAKE, &[4, 0, 0, 1, 0]);
    assert_eq!(open(&mut keys.split().unwrap().0, &wire, 100).unwrap_err(), Alert::UnexpectedMessage);
}
