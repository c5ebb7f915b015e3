//! Sessions and tungstenite as the client, in memory: messages both ways arrive as they were sent.

use super::deflate::{Compression, tests as deflate};
use super::extension::Parameters;
use super::frame::{Control, DataKind, put_control, put_data_header};
use super::session::{Contexts, Event, Rules, Session};
use super::{CloseCode, Message, close};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::{self, Cursor, Read, Write};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketContext};

#[derive(Default)]
struct Pipe {
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.input.read(buf) }
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// tungstenite, and where it was agreed on a translator of its frames, as it knows no compression.
struct Client {
    context: WebSocketContext,
    pipe: Pipe,
    translator: Option<deflate::Client>,
}

impl Client {
    /// Sends a message in so many fragments, with a Ping after each of them.
    fn send(&mut self, message: &Message, parts: usize) -> Vec<u8> {
        let mut opcode = OpCode::Data(if message.is_text() { Data::Text } else { Data::Binary });
        let mut payload = message.clone().into_data();
        let mut compressed = false;
        if let Some(translator) = self.translator.as_mut().filter(|_| !payload.is_empty()) {
            payload = translator.compress(&payload, zlib_rs::DeflateFlush::SyncFlush).into();
            compressed = true;
        }
        let part = payload.len().div_ceil(parts).max(1);
        for n in 0..parts {
            let piece = payload.slice((n * part).min(payload.len())..((n + 1) * part).min(payload.len()));
            let mut frame = Frame::message(piece, opcode, n + 1 == parts);
            frame.header_mut().rsv1 = std::mem::take(&mut compressed);
            opcode = OpCode::Data(Data::Continue);
            self.context.write(&mut self.pipe, Message::Frame(frame)).unwrap();
            self.context.write(&mut self.pipe, ping(n)).unwrap();
        }
        self.say()
    }

    fn say(&mut self) -> Vec<u8> {
        // It has nothing more to say once it is closed.
        let _ = self.context.flush(&mut self.pipe);
        std::mem::take(&mut self.pipe.output)
    }

    fn receive(&mut self, frames: &[u8]) -> Vec<Message> {
        let mut frames = Cursor::new(frames);
        while let Some((mut header, length)) = FrameHeader::parse(&mut frames).unwrap() {
            let mut payload = vec![0; length as usize];
            frames.read_exact(&mut payload).unwrap();
            if std::mem::take(&mut header.rsv1) {
                payload = self.translator.as_mut().unwrap().read((payload.into(), true));
            }
            let mut head = Vec::new();
            header.format(payload.len() as u64, &mut head).unwrap();
            self.pipe.input.extend(head);
            self.pipe.input.extend(payload);
        }
        std::iter::from_fn(|| self.context.read(&mut self.pipe).ok()).collect()
    }
}

fn ping(n: usize) -> Message {
    Message::Ping(vec![7; n].into())
}

struct Server {
    session: Session,
    contexts: Contexts,
    chunk: usize,
    out: Vec<u8>,
}

impl Server {
    fn receive(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = VecDeque::new();
        // A large message in the smallest pieces would take long.
        for piece in bytes.chunks(self.chunk.max(bytes.len() / 1000)) {
            self.session.receive(&mut self.contexts, piece, &mut events, &mut self.out);
            while self.session.has_more() {
                self.session.more(&mut self.contexts, &mut events, &mut self.out);
            }
        }
        events.into()
    }

    fn send(&mut self, message: &Message) {
        let (payload, compressed) = self.session.encode(&mut self.contexts, message.clone().into_data());
        put_data_header(&mut self.out, DataKind { text: message.is_text(), compressed }, payload.len());
        self.out.extend_from_slice(&payload);
    }

    fn say(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

fn pair(compression: Option<Compression>, chunk: usize) -> (Server, Client) {
    let rules = Rules { max_message_size: 1 << 20, compression, reserved_close_codes: false };
    let client = Client {
        context: WebSocketContext::new(Role::Client, None),
        pipe: Pipe::default(),
        translator: compression.map(|compression| deflate::Client::new(compression.parameters, 1)),
    };
    let server = Server { session: Session::new(&rules), contexts: Contexts::default(), chunk, out: Vec::new() };
    (server, client)
}

/// One side's message, and in how many fragments it goes where the client sends it.
fn any_step() -> impl Strategy<Value = (bool, Message, usize)> {
    let message = prop_oneof![
        ("[a-zé€😀]{0,30}", 0usize..1000).prop_map(|(piece, times)| Message::text(piece.repeat(times))),
        "[a-zé€😀]{0,50}".prop_map(Message::text),
        (0usize..100_000, any::<u8>()).prop_map(|(length, byte)| Message::binary(vec![byte; length])),
        prop::collection::vec(any::<u8>(), 0..1000).prop_map(Message::binary),
    ];
    (any::<bool>(), message, 1usize..6)
}

fn any_compression() -> impl Strategy<Value = Option<Compression>> {
    let compression = |parameters: Parameters| Compression { parameters, level: 6, min_size: 50 };
    prop::option::of(deflate::any_parameters().prop_map(compression))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_of_both_sides_arrive(
        compression in any_compression(),
        steps in prop::collection::vec(any_step(), 1..8),
        chunk in prop_oneof![1usize..50, 1000usize..200_000],
    ) {
        let (mut server, mut client) = pair(compression, chunk);
        for (by_client, message, parts) in steps {
            if by_client {
                let sent = client.send(&message, parts);
                prop_assert_eq!(server.receive(&sent), [Event::Message(message)]);
                let pongs: Vec<Message> = (0..parts).map(|n| Message::Pong(vec![7; n].into())).collect();
                prop_assert_eq!(client.receive(&server.say()), pongs);
            } else {
                put_control(&mut server.out, Control::Ping, b"alive?");
                server.send(&message);
                prop_assert_eq!(client.receive(&server.say()), [Message::Ping("alive?".into()), message]);
                prop_assert_eq!(server.receive(&client.say()), []);
            }
            prop_assert!(!server.session.is_in_a_message());
        }
        let end = close(CloseCode::Normal, "done");
        client.context.close(&mut client.pipe, Some(end.clone())).unwrap();
        prop_assert_eq!(server.receive(&client.say()), [Event::Closed(Some(end.clone()))]);
        server.session.reply(&mut server.out);
        prop_assert_eq!(client.receive(&server.say()), [Message::Close(Some(end))]);
        prop_assert_eq!(client.say(), b"");
    }

    #[test]
    fn a_server_may_close_in_the_middle_of_a_message(
        compression in any_compression(),
        message in any_step().prop_map(|(_, message, _)| message),
        place in any::<prop::sample::Index>(),
    ) {
        let (mut server, mut client) = pair(compression, 100);
        let sent = client.send(&message, 3);
        let (before, after) = sent.split_at(place.index(sent.len()));
        let mut events = server.receive(before);
        let end = close(CloseCode::Away, "going");
        server.session.close(&mut server.contexts, end.clone(), &mut server.out);
        prop_assert_eq!(client.receive(&server.say()).pop(), Some(Message::Close(Some(end.clone()))));
        events.extend(server.receive(after));
        events.extend(server.receive(&client.say()));
        prop_assert_eq!(events, [Event::Message(message), Event::Closed(Some(end))]);
        server.session.reply(&mut server.out);
        prop_assert_eq!(server.say(), b"");
    }
}
