//! Two ends and what goes between them.

use super::*;
use crate::mux::flow::WINDOW;
use proptest::prelude::*;

type Heard = Vec<StreamEvent>;

/// Moves all that waits from one end to the other, in pieces.
fn carry(from: &mut Endpoint<Heard>, to: &mut Endpoint<Heard>, piece: usize) -> Result<(), ProtocolError> {
    let mut bytes = Vec::new();
    from.send_buffer
        .write(|all| {
            bytes.extend_from_slice(all);
            Ok(all.len())
        })
        .unwrap();
    for piece in bytes.chunks(piece) {
        let mut piece = piece;
        while !piece.is_empty() {
            let space = to.space();
            let count = space.len().min(piece.len());
            space[..count].copy_from_slice(&piece[..count]);
            to.filled(count, |heard, news| heard.push(news))?;
            piece = &piece[count..];
        }
    }
    Ok(())
}

fn heard(endpoint: &mut Endpoint<Heard>, stream: u64) -> Heard {
    endpoint.keep(stream).map(std::mem::take).unwrap_or_default()
}

fn both() -> (Endpoint<Heard>, Endpoint<Heard>) {
    let (mut a, mut b) = (Endpoint::default(), Endpoint::default());
    a.open(1, vec![]);
    b.open(1, vec![]);
    (a, b)
}

fn put(endpoint: &mut Endpoint<Heard>, stream: u64, bytes: &[u8]) -> io::Result<usize> {
    endpoint.write(stream, &[IoSlice::new(bytes)])
}

#[test]
fn what_comes_before_its_session_waits() {
    let (mut a, mut b) = (Endpoint::<Heard>::default(), Endpoint::<Heard>::default());
    a.open(7, vec![]);
    assert_eq!(put(&mut a, 7, b"early").unwrap(), 5);
    a.end_stream(7);
    carry(&mut a, &mut b, 3).unwrap();
    b.open(7, vec![]);
    assert_eq!(b.received(7), Received::Bytes(b"early"));
    b.take(7, 5);
    assert_eq!(b.received(7), Received::End);
    assert!(b.is_ended(7) && !a.is_ended(7));
    put(&mut b, 7, b"late").unwrap();
    carry(&mut b, &mut a, 100).unwrap();
    assert_eq!(a.received(7), Received::Bytes(b"late"));
}

#[test]
fn a_stream_is_over_when_both_are_gone_from_it() {
    let (mut a, mut b) = both();
    put(&mut a, 1, b"under way").unwrap();
    b.close(1);
    assert_eq!((a.len(), b.len()), (1, 1));
    carry(&mut a, &mut b, 100).unwrap();
    assert_eq!(b.received(1), Received::Nothing, "it is of use to nobody");
    carry(&mut b, &mut a, 100).unwrap();
    assert_eq!(heard(&mut a, 1), [StreamEvent::Reset]);
    assert_eq!(put(&mut a, 1, b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    a.close(1);
    a.close(1);
    carry(&mut a, &mut b, 100).unwrap();
    assert!(a.is_empty() && b.is_empty());
    // Both at once.
    let (mut a, mut b) = both();
    a.close(1);
    b.close(1);
    carry(&mut a, &mut b, 100).unwrap();
    carry(&mut b, &mut a, 100).unwrap();
    assert!(a.is_empty() && b.is_empty());
    // One that came and went before its session was here.
    a.open(2, vec![]);
    put(&mut a, 2, b"bye").unwrap();
    a.close(2);
    carry(&mut a, &mut b, 100).unwrap();
    b.open(2, vec![]);
    assert_eq!(b.received(2), Received::Bytes(b"bye"));
    b.close(2);
    carry(&mut b, &mut a, 100).unwrap();
    assert!(a.is_empty() && b.is_empty());
}

#[test]
fn one_that_is_not_taken_stalls_no_other() {
    let (mut a, mut b) = both();
    a.open(2, vec![]);
    b.open(2, vec![]);
    let much = vec![1; 2 * WINDOW as usize];
    assert_eq!(put(&mut a, 1, &much).unwrap(), WINDOW as usize);
    assert_eq!(put(&mut a, 1, &much).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    for _ in 0..100 {
        let mut sent = 0;
        while sent < 10 * WINDOW as usize {
            sent += put(&mut a, 2, &much).unwrap();
            carry(&mut a, &mut b, 30_000).unwrap();
            while let Received::Bytes(bytes) = b.received(2) {
                let count = bytes.len().min(9000);
                b.take(2, count);
            }
            carry(&mut b, &mut a, 100).unwrap();
        }
    }
    assert_eq!(put(&mut a, 1, &much).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(heard(&mut a, 1).is_empty() && heard(&mut a, 2).contains(&StreamEvent::Writable));
    b.take(1, WINDOW as usize);
    carry(&mut b, &mut a, 100).unwrap();
    assert_eq!(heard(&mut a, 1), [StreamEvent::Writable]);
    assert_eq!(a.room(1).unwrap(), WINDOW as usize);
}

#[test]
fn what_is_for_many_reaches_each_of_them() {
    let (mut a, mut b) = (Endpoint::<Heard>::default(), Endpoint::<Heard>::default());
    let news = Bytes::from(vec![b'x'; 50_000]);
    for stream in 0..5 {
        a.open(stream, vec![]);
        b.open(stream, vec![]);
    }
    for round in 0..3 {
        // One of them has room for a part of the last.
        let room = (0..5).map(|stream| a.write_shared(stream, &news).unwrap()).collect::<Vec<_>>();
        assert_eq!(room, [if round < 2 { 50_000 } else { WINDOW as usize - 100_000 }; 5]);
        if round < 2 {
            assert!(a.send_buffer.len() < 51_000, "one copy");
        }
        carry(&mut a, &mut b, 777).unwrap();
    }
    assert_eq!(a.write_shared(1, &news).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    for stream in 0..5 {
        assert_eq!(b.received(stream), Received::Bytes(&vec![b'x'; WINDOW as usize][..]));
    }
}

#[test]
fn a_mux_that_is_full_takes_no_more_of_anybody() {
    let (mut a, mut b) = (Endpoint::<Heard>::default(), Endpoint::<Heard>::default());
    for stream in 0..20 {
        a.open(stream, vec![]);
        b.open(stream, vec![]);
    }
    let much = vec![1; WINDOW as usize];
    let taken = (0..20).filter(|stream| put(&mut a, *stream, &much).is_ok()).count();
    assert_eq!(taken, MAX_BUFFERED / WINDOW as usize);
    assert!(a.fill(19, 1, |_| panic!("there is no room")).is_err());
    carry(&mut a, &mut b, 60_000).unwrap();
    assert!(put(&mut a, 19, &much).is_ok());
}

#[test]
fn when_the_other_end_is_no_more_what_came_of_it_remains() {
    let (mut a, mut b) = both();
    put(&mut a, 1, b"last").unwrap();
    put(&mut a, 2, b"nobody is here").unwrap_err();
    carry(&mut a, &mut b, 100).unwrap();
    heard(&mut b, 1);
    b.disconnect(|heard, news| heard.push(news));
    assert_eq!(heard(&mut b, 1), [StreamEvent::Reset]);
    assert_eq!(b.received(1), Received::Bytes(b"last"));
    assert!(put(&mut b, 1, b"x").is_err());
    b.take(1, 4);
    assert_eq!(b.received(1), Received::End);
    b.end_stream(1);
    b.close(1);
    b.open(2, vec![]);
    assert_eq!(b.received(2), Received::End);
    b.close(2);
    assert!(b.is_empty() && b.send_buffer.is_empty());
}

#[test]
fn rules_that_are_broken_are_noticed() {
    let broken = |with: &dyn Fn(&mut Endpoint<Heard>)| {
        let (mut a, mut b) = both();
        with(&mut a);
        carry(&mut a, &mut b, 1000).unwrap_err()
    };
    assert_eq!(broken(&|a| a.send_buffer.data(1, &vec![0; WINDOW as usize + 1])), ProtocolError::WindowExceeded(1));
    assert_eq!(broken(&|a| a.send_buffer.data(9, &vec![0; WINDOW as usize + 1])), ProtocolError::WindowExceeded(9));
    assert_eq!(broken(&|a| a.send_buffer.window_update(1, 1)), ProtocolError::WindowOverflow(1));
    assert_eq!(
        broken(&|a| {
            a.send_buffer.end_stream(1);
            a.send_buffer.data(1, b"x")
        }),
        ProtocolError::StreamEnded(1)
    );
    assert_eq!(
        broken(&|a| {
            a.send_buffer.reset(1);
            a.send_buffer.reset(1)
        }),
        ProtocolError::StreamEnded(1)
    );
}

proptest! {
    #[test]
    fn every_byte_arrives_in_order(
        steps in prop::collection::vec((0u8..4, 0u64..4, 1usize..70_000), 1..120), piece in 1usize..70_000,
    ) {
        let (mut a, mut b) = (Endpoint::<Heard>::default(), Endpoint::<Heard>::default());
        let (mut sent, mut arrived) = ([0usize; 4], [0usize; 4]);
        let text: Bytes = (0..200_000usize).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
        (0..4).for_each(|stream| a.open(stream, vec![]));
        for (step, stream, count) in steps {
            let n = stream as usize;
            let next = text.slice(sent[n] % 251..sent[n] % 251 + count);
            match step {
                0 => sent[n] += put(&mut a, stream, &next).unwrap_or(0),
                1 => sent[n] += a.write_shared(stream, &next).unwrap_or(0),
                2 => {
                    carry(&mut a, &mut b, piece).unwrap();
                    carry(&mut b, &mut a, piece).unwrap();
                }
                _ => {
                    let Received::Bytes(bytes) = b.received(stream) else { continue };
                    let bytes = &bytes[..bytes.len().min(count)];
                    let begin = arrived[n] % 251;
                    prop_assert_eq!(bytes, &text[begin..begin + bytes.len()]);
                    let count = bytes.len();
                    arrived[n] += count;
                    b.take(stream, count);
                }
            }
            prop_assert!(sent[n] - arrived[n] <= WINDOW as usize);
        }
        carry(&mut a, &mut b, piece).unwrap();
        for stream in 0..4 {
            let left = match b.received(stream) { Received::Bytes(bytes) => bytes.len(), _ => 0 };
            prop_assert_eq!(arrived[stream as usize] + left, sent[stream as usize]);
        }
    }
}
