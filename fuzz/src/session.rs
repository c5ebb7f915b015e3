//! Any bytes from a client, in any pieces: a session makes of them what [`crate::model`] makes, whatever the pieces, and whether or
//! not messages are taken where they lie.

use super::memory::peak;
use super::model::{Ending, Expected, expect};
use super::stream::{frames, pieces};
use arbitrary::{Arbitrary, Unstructured};
use mod_websocket::wire::session::{Contexts, Event, Rules, Session, Whole};
use mod_websocket::wire::{CloseCode, CloseFrame, Message, close};
use std::collections::VecDeque;

/// What the first bytes of an input say; the rest is the stream, or what [`frames`] makes one of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// The rest is the stream itself.
    raw: bool,
    reserved_close_codes: bool,
    /// An index of [`LIMITS`].
    limit: u8,
    /// See [`pieces`].
    cut: u8,
    /// Our own Close goes out after one byte less than this; 0: never.
    close_after: u16,
}

impl<'a> Arbitrary<'a> for Setup {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Setup> {
        Ok(Setup {
            raw: input.arbitrary()?,
            reserved_close_codes: input.arbitrary()?,
            limit: input.arbitrary()?,
            cut: input.arbitrary()?,
            close_after: input.arbitrary()?,
        })
    }
}

/// The largest messages; not so large that checking them takes long.
const LIMITS: [usize; 8] = [1000, 1, 10, 125, 126, 4096, 5000, 20_000];

/// See [`Setup`].
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(setup) = input.arbitrary::<Setup>() else { return };
    let rest = input.take_rest();
    let stream = if setup.raw { rest.to_vec() } else { frames(rest, None) };
    setup.check(&stream, None);
}

impl Setup {
    /// Whether the input is the stream itself.
    pub fn is_raw(&self) -> bool {
        self.raw
    }

    /// Compares what a session makes of the stream, whole and in pieces, with what it should.
    pub fn check(&self, stream: &[u8], compression: Option<mod_websocket::wire::deflate::Compression>) {
        let rules = Rules {
            max_message_size: LIMITS[usize::from(self.limit) % LIMITS.len()],
            compression,
            reserved_close_codes: self.reserved_close_codes,
        };
        let close_at = self.close_after.checked_sub(1).map_or(usize::MAX, usize::from);
        let expected = expect(&rules, stream, close_at);
        // One after the other with the same contexts: nothing of a session may be left in them.
        let mut contexts = Contexts::default();
        let (begin, end) = stream.split_at(close_at.min(stream.len()));
        let whole = Run::of(&rules, &mut contexts, [begin].into_iter(), [end].into_iter(), close_at, false);
        whole.compare(&expected, close_at);
        let cut = |part| pieces(part, self.cut);
        for run in [
            Run::of(&rules, &mut contexts, cut(begin), cut(end), close_at, false),
            Run::of(&rules, &mut contexts, cut(begin), cut(end), close_at, true),
            Run::of(&rules, &mut contexts, [begin].into_iter(), [end].into_iter(), close_at, true),
        ] {
            run.compare(&expected, close_at);
            assert_eq!(run.messages, whole.messages);
            assert_eq!(run.said, whole.said);
            match (&run.end, &whole.end) {
                // See `COMPRESSED` in the model.
                (Some(Event::Failed(_)), Some(Event::Failed(_))) if compression.is_some() => {}
                (one, other) => assert_eq!(one, other),
            }
        }
    }
}

/// What a session made of a stream.
struct Run {
    /// Messages are taken where they lie.
    takes: bool,
    messages: Vec<Message>,
    /// The event that ended it.
    end: Option<Event>,
    /// What it sent, until the answer to the end.
    said: Vec<u8>,
    answer: Vec<u8>,
}

impl Run {
    fn of<'a>(
        rules: &Rules,
        contexts: &mut Contexts,
        before: impl Iterator<Item = &'a [u8]>,
        after: impl Iterator<Item = &'a [u8]>,
        close_at: usize,
        takes: bool,
    ) -> Run {
        let mut session = Session::new(rules);
        let mut run = Run { takes, messages: Vec::new(), end: None, said: Vec::new(), answer: Vec::new() };
        before.for_each(|piece| run.receive(rules, &mut session, contexts, piece));
        if close_at < usize::MAX && run.end.is_none() {
            assert!(session.is_open());
            session.close(contexts, going(), &mut run.said);
        }
        after.for_each(|piece| run.receive(rules, &mut session, contexts, piece));
        if run.end.is_some() {
            run.receive(rules, &mut session, contexts, &[0x89, 0x80, 0, 0, 0, 0]);
        }
        match run.end.clone() {
            Some(Event::Failed(frame)) => session.close(contexts, frame, &mut run.answer),
            _ => session.reply(&mut run.answer),
        }
        // There is nothing more to say.
        let length = run.answer.len();
        session.reply(&mut run.answer);
        assert_eq!(run.answer.len(), length);
        run
    }

    fn receive(&mut self, rules: &Rules, session: &mut Session, contexts: &mut Contexts, piece: &[u8]) {
        let mut bytes = piece.to_vec();
        let mut piece = &mut bytes[..];
        while self.takes
            && let Some(Whole { text, payload }) = session.take_whole(&mut piece)
        {
            assert_eq!(self.end, None);
            assert!(payload.len() <= rules.max_message_size);
            self.messages.push(match text {
                true => Message::text(std::str::from_utf8(payload).expect("a text is UTF-8")),
                false => Message::binary(payload.to_vec()),
            });
        }
        let piece = &*piece;
        let mut events = VecDeque::new();
        let said = &mut self.said;
        let (mut begin, ended, said_before) = (true, self.end.is_some(), said.len());
        while begin || session.has_more() {
            let step = || match begin {
                true => session.receive(contexts, piece, &mut events, said),
                false => session.more(contexts, &mut events, said),
            };
            // What is decoded at a time, a message more and its copy, a decompressor; and what the piece itself holds.
            let most = (2 << 20) + 4 * rules.max_message_size + 40 * piece.len();
            let ((), peak) = peak(step);
            assert!(peak <= most, "{peak} bytes for {}", piece.len());
            begin = false;
            for event in events.drain(..) {
                assert_eq!(self.end, None, "and then {event:?}");
                match event {
                    Event::Message(message) => {
                        assert!(message.len() <= rules.max_message_size);
                        if let Message::Text(text) = &message {
                            assert!(std::str::from_utf8(text.as_bytes()).is_ok());
                        }
                        self.messages.push(message);
                    }
                    Event::Part(..) => panic!("nothing is a stream here"),
                    end => {
                        assert!(!session.is_open());
                        self.end = Some(end);
                    }
                }
            }
        }
        assert!(!ended || self.said.len() == said_before);
    }

    fn compare(&self, expected: &Expected, close_at: usize) {
        assert_eq!(self.messages, expected.messages);
        match (&self.end, expected.ending) {
            (None, Ending::Open | Ending::Unclear) => {}
            (Some(Event::Closed(frame)), Ending::Closed(code)) => {
                assert_eq!(frame.as_ref().map(|frame| u16::from(frame.code)), code);
            }
            (Some(Event::Failed(frame)), Ending::Failed(codes)) => assert!(codes.contains(&frame.code.into())),
            (Some(Event::Failed(frame)), Ending::Unclear) => assert!([1007, 1009].contains(&frame.code.into())),
            (end, ending) => panic!("{end:?}, and not {ending:?}"),
        }
        let mut said: Vec<(u8, Vec<u8>)> = expected.pongs.iter().map(|payload| (0x8a, payload.clone())).collect();
        let closes = control_frames(&self.said).contains(&(0x88, payload(Some(&going()))));
        assert!(!closes || close_at < usize::MAX);
        if closes {
            said.push((0x88, payload(Some(&going()))));
        }
        assert_eq!(control_frames(&self.said), said);
        let answer = match &self.end {
            _ if closes => vec![],
            None => vec![],
            Some(Event::Closed(frame)) => vec![(0x88, payload(frame.as_ref()))],
            Some(Event::Failed(frame)) => vec![(0x88, payload(Some(frame)))],
            Some(Event::Message(_) | Event::Part(..)) => panic!("a message ends nothing"),
        };
        assert_eq!(control_frames(&self.answer), answer);
    }
}

/// The Close that is ours.
fn going() -> CloseFrame {
    close(CloseCode::Away, "going")
}

/// What a Close frame's payload is.
fn payload(frame: Option<&CloseFrame>) -> Vec<u8> {
    frame.map_or(vec![], |frame| [&u16::from(frame.code).to_be_bytes(), frame.reason.as_bytes()].concat())
}

/// First byte and payload of the frames that a session sends by itself: all of them short, whole and unmasked.
fn control_frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, length @ 0..126, rest @ ..] = bytes {
        let (payload, after) = rest.split_at(usize::from(*length));
        frames.push((*first, payload.to_vec()));
        bytes = after;
    }
    assert!(bytes.is_empty(), "{bytes:?}");
    frames
}
