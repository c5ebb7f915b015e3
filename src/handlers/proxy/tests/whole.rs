//! What comes out is what went in: a session by itself, between real peers, with and without TLS.

use super::*;
use crate::engine::quota::Place;
use crate::engine::summary::{End, Traffic};
use crate::engine::thread::ThreadState;
use crate::engine::{RawStream, RawSummary, SessionSource, StreamSession, Streams};
use crate::tls::record::tests::{SUITES, connect, serve};
use crate::wire::frame_follower::FrameFollower;
use proptest::prelude::*;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::{JoinHandle, spawn};

/// One end of a session.
trait Peer: Read + Write + Send {
    fn end(&mut self);
}

impl Peer for TcpStream {
    fn end(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Peer for StreamOwned<ClientConnection, TcpStream> {
    fn end(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
        self.sock.end();
    }
}

impl Peer for StreamOwned<ServerConnection, TcpStream> {
    fn end(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
        self.sock.end();
    }
}

type Joined = (Box<dyn Peer>, SessionSource);

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, listener.accept().unwrap().0)
}

/// An end, and what the session has of it; `suite`: over TLS.
fn client(suite: Option<usize>) -> Joined {
    let (ours, theirs) = tcp();
    let Some(suite) = suite else { return (Box::new(ours), SessionSource::Socket(theirs.into())) };
    let (client, keys) = connect(SUITES[suite]);
    (Box::new(StreamOwned::new(client, ours)), SessionSource::Tls(theirs.into(), Box::new(keys)))
}

fn server(suite: Option<usize>) -> Joined {
    let (mut ours, theirs) = tcp();
    let Some(suite) = suite else { return (Box::new(ours), SessionSource::Socket(theirs.into())) };
    let (server, keys, tickets) = serve(SUITES[suite]);
    ours.write_all(&tickets).unwrap();
    (Box::new(StreamOwned::new(server, ours)), SessionSource::Tls(theirs.into(), Box::new(keys)))
}

/// Says all this in pieces, then that it was all; returns what was heard, to its end.
fn converse(mut peer: Box<dyn Peer>, said: Vec<u8>, pieces: Vec<usize>) -> JoinHandle<Vec<u8>> {
    spawn(move || {
        let (mut at, mut pieces) = (0, pieces.iter().cycle());
        while at < said.len() {
            let next = said.len().min(at + 1 + pieces.next().unwrap());
            peer.write_all(&said[at..next]).unwrap();
            at = next;
        }
        peer.end();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        heard
    })
}

fn run((client, early): (SessionSource, Vec<u8>), (server, said): (SessionSource, Vec<u8>)) -> RawSummary {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = postcard::to_stdvec(&settings()).unwrap();
    let backend = Some(Box::new(BackendStream { source: server, early: said, settings }));
    let spec = spec("proxy");
    let registered = Rc::new(ThreadState::new()).enter(1, &spec.limits);
    let raw = RawStream::new(registered, spec, Vec::<Place>::new());
    runtime.block_on(async { Box::new(session::Proxied).run(Streams { client, early, backend }, &raw).await })
}

/// Frames, and sometimes anything.
fn stream(masked: bool) -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![8 => 0..130_usize, 2 => 130..3000_usize, 1 => 60_000..90_000_usize];
    let frame =
        (prop_oneof![9 => 1..3_u8, 1 => 9..11_u8], length, any::<[u8; 4]>()).prop_map(move |(opcode, length, mask)| {
            let length = if opcode > 8 { length % 126 } else { length };
            let bit = if masked { 0x80 } else { 0 };
            let mut frame = vec![0x80 | opcode];
            match length {
                ..126 => frame.push(bit | length as u8),
                126..0x1_0000 => frame.extend([&[bit | 126][..], &(length as u16).to_be_bytes()].concat()),
                _ => frame.extend([&[bit | 127][..], &(length as u64).to_be_bytes()].concat()),
            }
            if masked {
                frame.extend(mask);
            }
            frame.extend((0..length).map(|at| (at ^ (at >> 8)) as u8));
            frame
        });
    let any = prop::collection::vec(any::<u8>(), 1..200);
    prop::collection::vec(prop_oneof![30 => frame, 1 => any], 0..12).prop_map(|frames| {
        let mut stream = frames.concat();
        stream.truncate(100_000);
        stream
    })
}

fn followed(stream: &[u8], masked: bool) -> (u64, u64) {
    let mut follower = FrameFollower::new(masked);
    follower.follow(stream);
    (follower.messages, follower.bytes)
}

fn counts(traffic: Traffic) -> (u64, u64) {
    (traffic.messages, traffic.bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn nothing_changes_on_the_way(
        (up, up_early, up_pieces) in (stream(true), any::<prop::sample::Index>(), prop::collection::vec(0..5000_usize, 1..6)),
        (down, down_early, down_pieces) in (stream(false), any::<prop::sample::Index>(), prop::collection::vec(0..5000_usize, 1..6)),
        suites in prop::sample::select(vec![(None, None), (Some(0), None), (None, Some(1)), (Some(2), Some(0))]),
    ) {
        let ((client, from_client), (server, from_server)) = (client(suites.0), server(suites.1));
        let (early, up_rest) = up.split_at(up_early.index(up.len() + 1));
        let (said, down_rest) = down.split_at(down_early.index(down.len() + 1));
        let client = converse(client, up_rest.to_vec(), up_pieces);
        let server = converse(server, down_rest.to_vec(), down_pieces);
        let RawSummary { end, received, sent } = run((from_client, early.to_vec()), (from_server, said.to_vec()));
        prop_assert!(client.join().unwrap() == down, "what the client has heard");
        prop_assert!(server.join().unwrap() == up, "what the server has heard");
        prop_assert_eq!(counts(received), followed(&up, true));
        prop_assert_eq!(counts(sent), followed(&down, false));
        prop_assert!(matches!(end, End::Lost(_) | End::Client(_) | End::Handler(_)));
    }
}

#[test]
fn early_bytes_may_end_anywhere() {
    let up = [&[0x81, 0x85, 1, 2, 3, 4][..], b"hello", &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]].concat();
    let down = [&[0x82, 126, 0, 200][..], &[7; 200], &[0x88, 0x02, 0x03, 0xe8]].concat();
    for cut in 0..=up.len() {
        let ((client, from_client), (server, from_server)) = (client(None), server(None));
        let down_cut = cut * down.len() / up.len();
        let client = converse(client, up[cut..].to_vec(), vec![3]);
        let server = converse(server, down[down_cut..].to_vec(), vec![50]);
        let RawSummary { end, received, sent } =
            run((from_client, up[..cut].to_vec()), (from_server, down[..down_cut].to_vec()));
        assert!(client.join().unwrap() == down && server.join().unwrap() == up, "{cut}");
        assert_eq!((counts(received), counts(sent)), ((1, 5), (1, 200)), "{cut}");
        assert_eq!(end.code(), 1000);
    }
}

/// As much as no socket holds: whoever does not take holds the other up, and gets all in the end.
#[test]
fn who_does_not_take_holds_the_other_up() {
    const MUCH: usize = 24 << 20;
    let ways = [(None, true), (None, false), (Some(0), true), (Some(0), false)];
    for ((suite, client_takes), framed) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let ((client, from_client), (server, from_server)) = (client(suite), server(suite));
        let (mut talks, mut listens) = if client_takes { (server, client) } else { (client, server) };
        // One large frame, of a server or of a client.
        let header = match (framed, client_takes) {
            (false, _) => vec![],
            (true, true) => [&[0x82, 127][..], &(MUCH as u64).to_be_bytes()].concat(),
            (true, false) => [&[0x82, 0xff][..], &(MUCH as u64).to_be_bytes(), &[1, 2, 3, 4]].concat(),
        };
        let begin = header.len();
        let (told, is_told) = std::sync::mpsc::channel::<()>();
        let talker = spawn(move || {
            let mut heard = [0; 4];
            talks.write_all(&header).unwrap();
            for at in (0..MUCH).step_by(1 << 16) {
                let piece: Vec<u8> = (at..at + (1 << 16)).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
                talks.write_all(&piece).unwrap();
                if at == 1 << 20 {
                    told.send(()).unwrap();
                }
            }
            talks.read_exact(&mut heard).unwrap();
            talks.end();
            assert_eq!(&heard, b"back");
        });
        let listener = spawn(move || {
            is_told.recv().unwrap();
            // The other way is open meanwhile.
            listens.write_all(b"back").unwrap();
            let mut heard = Vec::new();
            listens.read_to_end(&mut heard).unwrap();
            listens.end();
            heard
        });
        let ending = run((from_client, vec![]), (from_server, vec![]));
        talker.join().unwrap();
        let heard = listener.join().unwrap();
        assert_eq!(heard.len(), begin + MUCH);
        assert_eq!(counts(ending.sent) == (1, MUCH as u64), framed && client_takes);
        assert_eq!(counts(ending.received) == (1, MUCH as u64), framed && !client_takes);
        assert!(heard[begin..].iter().enumerate().all(|(at, byte)| *byte == (at ^ (at >> 8) ^ (at >> 16)) as u8));
    }
}

/// What closing takes is not to depend on a packet more.
#[test]
fn a_servers_end_counts_that_comes_in_one_packet_with_its_close() {
    let ((mut client, from_client), (ours, theirs)) = (client(None), tcp());
    let (server, keys, tickets) = serve(SUITES[0]);
    let mut server = StreamOwned::new(server, ours);
    let mut packet = tickets;
    server.conn.writer().write_all(&[0x88, 2, 0x03, 0xe8]).unwrap();
    server.conn.send_close_notify();
    while server.conn.wants_write() {
        server.conn.write_tls(&mut packet).unwrap();
    }
    server.sock.write_all(&packet).unwrap();
    let client = spawn(move || {
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        client.end();
        heard
    });
    let ending = run((from_client, vec![]), (SessionSource::Tls(theirs.into(), Box::new(keys)), vec![]));
    assert_eq!(client.join().unwrap(), [0x88, 2, 0x03, 0xe8]);
    assert_eq!((ending.end.code(), ending.end.who()), (1000, "handler"));
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

/// What an idle session costs here, but for what tokio keeps of its sockets and what is known of it.
#[tokio::test]
async fn an_idle_session_is_small() {
    let ((_client, from_client), (_server, from_server)) = (client(None), server(None));
    let settings = postcard::to_stdvec(&settings()).unwrap();
    let backend = Some(Box::new(BackendStream { source: from_server, early: vec![], settings }));
    let spec = spec("proxy");
    let registered = Rc::new(ThreadState::new()).enter(1, &spec.limits);
    let raw = RawStream::new(registered, spec, Vec::<Place>::new());
    let future = Box::new(session::Proxied).run(Streams { client: from_client, early: vec![], backend }, &raw);
    let (session, future) = (size_of::<session::Session<'_>>(), size_of_val(&*future));
    assert!(session <= 440 && future <= 200, "{session} + {future} bytes");
}
