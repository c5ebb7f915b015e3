//! Streams and where they stop.

use super::*;
use proptest::prelude::*;

fn scanner() -> FrameScanner {
    FrameScanner::new(usize::MAX, false)
}

/// A masked frame as a client sends it (the mask is zero: the scanner does not look).
pub(crate) fn frame(fin: bool, opcode: u8, payload: usize) -> Vec<u8> {
    let mut out = vec![opcode | if fin { 0x80 } else { 0 }];
    match payload {
        0..=125 => out.push(0x80 | payload as u8),
        126..=65535 => {
            out.push(0x80 | 126);
            out.extend((payload as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((payload as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.resize(out.len() + payload, 0);
    out
}

#[test]
fn a_control_frame_between_fragments_is_no_boundary() {
    let mut scanner = scanner();
    scanner.advance(&frame(false, 1, 5));
    assert!(!scanner.at_boundary());
    scanner.advance(&frame(true, 9, 2));
    assert!(!scanner.at_boundary());
    scanner.advance(&frame(true, 0, 70_000));
    assert!(scanner.at_boundary());
    assert_eq!(scanner.reset_largest(), 70_000);
}

#[test]
fn what_has_come_of_a_message_is_counted() {
    let mut scanner = scanner();
    let first = frame(false, 2, 300);
    scanner.advance(&first[..first.len() - 100]);
    assert_eq!(scanner.unfinished(), 200);
    scanner.advance(&first[first.len() - 100..]);
    assert_eq!(scanner.unfinished(), 300);
    let ping = frame(true, 9, 125);
    scanner.advance(&ping[..50]);
    assert_eq!(scanner.unfinished(), 300);
    scanner.advance(&ping[50..]);
    let last = frame(true, 0, 200);
    scanner.advance(&last[..last.len() - 1]);
    assert_eq!(scanner.unfinished(), 499);
    scanner.advance(&last[last.len() - 1..]);
    assert_eq!(scanner.unfinished(), 0);
    scanner.advance(&ping[..50]);
    assert_eq!(scanner.unfinished(), 0, "a Ping is no message");
}

#[test]
fn a_header_is_enough_to_see_what_is_wrong_with_it() {
    let violation = |header: &[u8]| {
        let mut bytes = frame(true, 1, 3);
        let before = bytes.len();
        bytes.extend_from_slice(header);
        let mut scanner = scanner();
        let stop = scanner.advance(&bytes);
        assert_eq!(stop == before, scanner.violation().is_some());
        scanner.violation()
    };
    assert_eq!(violation(&frame(true, 9, 126)[..8]), Some(Violation::OversizedControl));
    assert_eq!(violation(&frame(false, 9, 1)[..6]), Some(Violation::FragmentedControl));
    assert_eq!(violation(&[0x81, 5]), Some(Violation::Unmasked));
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(violation(&[0x81 | bit, 0x85, 0, 0, 0, 0]), Some(Violation::ReservedBits));
    }
    assert_eq!(violation(&frame(true, 9, 125)), None);
    assert_eq!(violation(&[0x81, 0xfe, 1]), None);
    assert_eq!(violation(&frame(true, 0, 3)[..6]), Some(Violation::UnexpectedContinuation));
    for opcode in [3, 7, 11, 15] {
        assert_eq!(violation(&frame(true, opcode, 3)[..6]), Some(Violation::ReservedOpcode), "{opcode}");
    }
}

#[test]
fn a_length_over_the_limit_needs_no_mask() {
    for (frame, seen) in [
        (&[0x82, 0x80 | 126, 0, 126, 1, 2, 3, 4][..], Some(4)),
        (&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], Some(10)),
        (&[0x81, 0x80 | 101, 1, 2, 3, 4], Some(2)),
        (&[0x81, 0x80 | 100, 1, 2, 3, 4], None),
        // Control frames have a limit of their own.
        (&[0x89, 0x80 | 101, 1, 2, 3, 4], None),
    ] {
        let mut scanner = FrameScanner::new(100, false);
        let bytes = frame.iter().position(|byte| {
            scanner.advance(&[*byte]);
            scanner.violation().is_some()
        });
        assert_eq!(bytes.map(|last| last + 1), seen, "{frame:?}");
        assert_eq!(scanner.violation().is_some(), seen.is_some());
        let mut whole = FrameScanner::new(100, false);
        whole.advance(frame);
        assert_eq!(whole.violation(), scanner.violation(), "{frame:?}");
    }
}

#[test]
fn a_message_may_not_begin_in_another() {
    let mut scanner = scanner();
    scanner.advance(&frame(false, 1, 5));
    assert_eq!(scanner.advance(&frame(true, 2, 5)), 0);
    assert_eq!(scanner.violation(), Some(Violation::ExpectedContinuation));
}

#[test]
fn the_limit_of_messages_is_none_of_control_frames() {
    for (frames, violation) in [
        (vec![(true, 9, 125), (false, 2, 3), (true, 8, 125)], None),
        (vec![(true, 2, 4)], Some(Violation::OversizedMessage)),
        (vec![(false, 1, 3), (true, 0, 4)], Some(Violation::OversizedMessage)),
        // Compressed, they say nothing of the message.
        (vec![(false, 0x42, 4), (true, 0, 4)], None),
        (vec![(true, 0x42, 4), (true, 1, 4)], Some(Violation::OversizedMessage)),
    ] {
        let mut scanner = FrameScanner::new(3, true);
        for (fin, first, payload) in &frames {
            scanner.advance(&frame(*fin, *first, *payload));
        }
        assert_eq!(scanner.violation(), violation, "{frames:?}");
    }
}

#[test]
fn compression_gives_one_reserved_bit_a_meaning() {
    for (frames, violation) in [
        (vec![(0x40, true, 1)], None),
        (vec![(0x40, false, 2), (0, true, 9), (0, true, 0)], None),
        (vec![(0x20, true, 1)], Some(Violation::ReservedBits)),
        (vec![(0x60, true, 1)], Some(Violation::ReservedBits)),
        (vec![(0x40, true, 9)], Some(Violation::ReservedBits)),
        (vec![(0x40, false, 1), (0x40, true, 0)], Some(Violation::ReservedBits)),
    ] {
        let mut scanner = FrameScanner::new(usize::MAX, true);
        for (bits, fin, opcode) in &frames {
            let mut bytes = frame(*fin, *opcode, 3);
            bytes[0] |= bits;
            scanner.advance(&bytes);
        }
        assert_eq!(scanner.violation(), violation, "{frames:?}");
    }
}

fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 0, 255, 90];
    let mut bytes = frame(fin, opcode, payload.len());
    let begin = bytes.len() - payload.len();
    bytes[begin - 4..begin].copy_from_slice(&mask);
    bytes[begin..].copy_from_slice(payload);
    unmask(&mut bytes[begin..], mask, 0);
    bytes
}

#[test]
fn a_bad_text_is_noticed_with_its_first_bad_byte() {
    let text = "κόσμε\u{10ffff}".repeat(400).into_bytes();
    for (at, bad) in [(0, 0x80), (11, 0xff), (12, 0xf5), (1025, 0xc0), (text.len() - 1, 0x20)] {
        let mut broken = text.clone();
        broken[at] = bad;
        for split in [1, 5, 700] {
            let mut stream = masked(false, 1, &broken[..split]);
            stream.extend(masked(true, 9, b"\xff"));
            stream.extend(masked(true, 0, &broken[split..]));
            // The last byte is missing, so no frame check could tell.
            let whole = stream.len() - 1;
            let mut scanner = scanner();
            let mut seen = None;
            for (n, byte) in stream[..whole].iter().enumerate() {
                scanner.advance(&[*byte]);
                if scanner.violation().is_some() {
                    seen = Some(n);
                    break;
                }
            }
            if at + 1 < text.len() {
                assert_eq!(scanner.violation(), Some(Violation::InvalidText), "{at} {split}");
                assert!(seen.unwrap() < split + 30 + at + 4, "{at} {split} {seen:?}");
            } else {
                assert_eq!(scanner.violation(), None);
            }
        }
    }
    let mut scanner = scanner();
    let stream = masked(true, 1, &text);
    assert_eq!(scanner.advance(&stream[..3000]), 3000);
    assert_eq!(scanner.advance(&stream[3000..]), stream.len() - 3000);
}

#[test]
fn the_code_of_a_close_is_kept() {
    for chunk in [1, 3, 100] {
        let mut scanner = scanner();
        let first = masked(true, 8, b"\x03\xf6reason");
        let stream = [&first[..], &masked(true, 8, b"\x03\xe8"), &[0xff; 9]].concat();
        let passed: usize = stream.chunks(chunk).map(|piece| scanner.advance(piece)).sum();
        assert_eq!(passed, first.len());
        assert_eq!((scanner.close_code(), scanner.violation()), (1014, None));
    }
}

proptest! {
    #[test]
    fn any_chunking_ends_in_the_same_place(
        frames in prop::collection::vec((any::<bool>(), 0u8..11, 0usize..300), 1..8),
        cut in 0usize..2000,
        chunk in 1usize..40,
    ) {
        let mut bytes: Vec<u8> = frames.iter().flat_map(|f| frame(f.0, f.1, f.2)).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        let mut whole = scanner();
        whole.advance(&bytes);
        let mut pieces = scanner();
        for piece in bytes.chunks(chunk) {
            pieces.advance(piece);
            if pieces.violation().is_some() {
                break;
            }
        }
        prop_assert_eq!(whole.violation(), pieces.violation());
        prop_assert_eq!(whole.at_boundary(), pieces.at_boundary());
        prop_assert_eq!(whole.payload, pieces.payload);
        prop_assert_eq!(whole.header.begun().len(), pieces.header.begun().len());
    }
}
