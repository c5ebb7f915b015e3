//! Sessions that come over a mux. What a child of httpd does with its end is done here by the test.

use super::process::Process;
use super::*;
use crate::mux::endpoint::{Endpoint, Received};
use crate::mux::flow::WINDOW;

struct Child {
    link: Link,
    socket: UnixStream,
    endpoint: Endpoint<()>,
    mux: u64,
}

impl Child {
    fn new(engine: &Process) -> Child {
        let mut link = Link::open(engine.entrance.as_fd()).unwrap();
        let (socket, theirs) = pair();
        let mux = link.open_mux(0, theirs.as_fd()).unwrap();
        Child { link, socket, endpoint: Endpoint::default(), mux }
    }

    fn offer(&mut self, spec: &SessionSpec) -> u64 {
        let Granted { id, thread, .. } = self.link.offer(spec).unwrap();
        assert_eq!(thread, 0);
        id
    }

    fn session(&mut self, spec: &SessionSpec) -> u64 {
        let id = self.offer(spec);
        self.endpoint.open(id, ());
        self.link.carry(id, self.mux).unwrap();
        id
    }

    /// A client's message, as much of it as may go.
    fn send(&mut self, session: u64, message: &[u8]) -> usize {
        let sent = self.endpoint.write(session, &[IoSlice::new(message)]);
        self.endpoint.send_buffer.write(|bytes| (&self.socket).write(bytes)).unwrap();
        sent.unwrap_or(0)
    }

    fn read(&mut self) -> usize {
        let count = self.socket.read(self.endpoint.space()).unwrap();
        self.endpoint.filled(count, |(), _| ()).unwrap();
        count
    }

    /// Reads until this has come for a session, and nothing else.
    fn expect(&mut self, session: u64, expected: &[u8]) {
        let mut missing = expected;
        while !missing.is_empty() {
            match self.endpoint.received(session) {
                Received::Bytes(bytes) => {
                    let count = bytes.len();
                    missing = missing.strip_prefix(bytes).expect("what is expected");
                    self.endpoint.take(session, count);
                    self.send(session, b"");
                }
                Received::Nothing => assert!(self.read() > 0, "the mux has ended"),
                Received::End => panic!("the session has ended"),
            }
        }
    }

    fn expect_end(&mut self, session: u64) {
        while self.endpoint.received(session) == Received::Nothing {
            assert!(self.read() > 0, "the mux has ended");
        }
        assert_eq!(self.endpoint.received(session), Received::End);
    }
}

/// A binary message of less than 64 KiB from the client, and its echo.
fn frames(payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let length = (payload.len() as u16).to_be_bytes();
    let client = [&[0x82, 0x80 | 126], &length[..], &[0; 4], payload].concat();
    (client, [&[0x82, 126], &length[..], payload].concat())
}

#[test]
fn sessions_share_a_mux() {
    let mut engine = Process::start();
    let mut child = Child::new(&engine);
    let sessions: Vec<u64> = (0..5).map(|_| child.session(&spec("echo"))).collect();
    for round in 0..3 {
        let of = |session: u64| frames(&vec![session as u8; 1000 * (round + 1)]);
        for session in &sessions {
            child.send(*session, &of(*session).0);
        }
        for session in &sessions {
            child.expect(*session, &of(*session).1);
        }
    }
    // One is gone, one says so, one is closed from elsewhere; one begins.
    child.endpoint.close(sessions[0]);
    child.send(sessions[1], b"\x88\x80\0\0\0\0");
    child.expect(sessions[1], b"\x88\0");
    child.expect_end(sessions[1]);
    child.link.close_session(sessions[2], 1001, "").unwrap();
    child.expect(sessions[2], b"\x88\x02\x03\xe9");
    child.send(sessions[2], b"\x88\x80\0\0\0\0");
    child.expect_end(sessions[2]);
    let new = child.session(&spec("echo"));
    for session in [sessions[3], sessions[4], new] {
        let (sent, echo) = frames(&[7; 200]);
        child.send(session, &sent);
        child.expect(session, &echo);
    }
    child.endpoint.close(sessions[1]);
    child.endpoint.close(sessions[2]);
    child.send(new, b"");
    while child.endpoint.len() > 3 {
        child.read();
    }
    drop(child);
    engine.retire();
}

#[test]
fn bytes_may_come_before_their_session() {
    let mut engine = Process::start();
    let mut child = Child::new(&engine);
    let id = child.offer(&spec("echo"));
    let (sent, echo) = frames(&[1; 500]);
    child.endpoint.open(id, ());
    child.send(id, &sent);
    // Something that is answered, so that they have been read.
    let other = child.session(&spec("echo"));
    child.send(other, &sent);
    child.expect(other, &echo);
    assert_eq!(child.endpoint.received(id), Received::Nothing);
    child.link.carry(id, child.mux).unwrap();
    child.expect(id, &echo);
    drop(child);
    engine.retire();
}

#[test]
fn who_does_not_take_stalls_no_other() {
    let mut engine = Process::start();
    let mut child = Child::new(&engine);
    let flood = child.session(&spec("flood"));
    let deaf = child.session(&spec("echo"));
    let talks = child.session(&spec("echo"));
    let (sent, echo) = frames(&[5; 60_000]);
    // Neither is read here any more; the one that echoes is not written to the end either.
    let (mut stuck, mut begun) = (0, 0);
    for _ in 0..300 {
        let went = child.send(deaf, &sent[begun..]);
        stuck = if went == 0 { stuck + 1 } else { 0 };
        if stuck > 10 {
            break;
        }
        begun = (begun + went) % sent.len();
        child.send(talks, &sent);
        child.expect(talks, &echo);
    }
    assert!(stuck > 10, "all of it went");
    for session in [flood, deaf] {
        let Received::Bytes(bytes) = child.endpoint.received(session) else { panic!("nothing came") };
        assert_eq!(bytes.len(), WINDOW as usize);
    }
    drop(child);
    engine.retire();
}

#[test]
fn a_mux_that_was_full_goes_on() {
    let mut engine = Process::start();
    let mut child = Child::new(&engine);
    let sessions: Vec<u64> = (0..40).map(|_| child.session(&spec("echo"))).collect();
    // More than the socket takes, and more than waits before it.
    for round in 0..3 {
        let (message, echo) = frames(&vec![round; 60_000]);
        for session in &sessions {
            assert_eq!(child.send(*session, &message), message.len());
        }
        sessions.iter().for_each(|session| child.expect(*session, &echo));
    }
    drop(child);
    engine.retire();
}

#[test]
fn with_a_mux_its_sessions_end() {
    let mut engine = Process::start();
    // Of no mux; of one that carries rubbish; of one that ends.
    let mut child = Child::new(&engine);
    let id = child.offer(&spec("echo"));
    child.link.carry(id, 999).unwrap();
    let rubbish = {
        let mut child = Child::new(&engine);
        child.session(&spec("echo"));
        child.socket.write_all(&[0xff; 100]).unwrap();
        // It is closed, with or without something unread.
        while child.socket.read(&mut [0; 100]).is_ok_and(|count| count > 0) {}
        child
    };
    let (sent, echo) = frames(&[1; 500]);
    let session = child.session(&spec("echo"));
    child.send(session, &sent);
    child.expect(session, &echo);
    assert!(matches!(child.link.open_mux(7, child.socket.as_fd()), Err(HandoffError::Refused { status: 500, .. })));
    drop((child, rubbish));
    // Else it would wait for them.
    engine.retire();
}

#[test]
fn the_server_of_a_proxied_session_comes_beside_its_client() {
    let mut engine = Process::start();
    let mut child = Child::new(&engine);
    for by_mux in [false, true] {
        let id = child.offer(&spec("greets"));
        let ((mut client, theirs), (mut server, second)) = (pair(), pair());
        let backend = Side { socket: second.as_fd(), early: b"early".to_vec(), keys: None };
        if by_mux {
            child.endpoint.open(id, ());
            child.link.carry_proxied(id, child.mux, backend, b"settings".to_vec()).unwrap();
            child.expect(id, b"early settings");
        } else {
            let given = Side { socket: theirs.as_fd(), early: b"before".to_vec(), keys: None };
            child.link.give_proxied(id, given, backend, b"settings".to_vec()).unwrap();
            let mut heard = [0; 14];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"early settings");
        }
        drop((second, theirs));
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, if by_mux { &b""[..] } else { b"before" });
    }
    drop(child);
    engine.retire();
}
