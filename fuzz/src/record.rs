//! A client's TLS records, with something changed: what is opened is what was sealed, from its beginning to where the change
//! is, in whatever pieces it comes; and rubbish is an alert.

use super::stream::pieces;
use mod_websocket::tls::record::{Alert, Direction, Keys, Opener};

/// A byte says how to cut the stream ([`pieces`]), two what to change: which byte of it (over its length: nothing), by which
/// bits. Then come records: a byte of 0 to 199 and as much data, or 200 for new keys, 201 for the end, 202 for an alert, 203
/// and 20 bytes for something that no key has seen.
pub fn check(input: &[u8]) {
    let Some(([cut, place, change], mut script)) = input.split_first_chunk::<3>().map(|(head, rest)| (*head, rest))
    else {
        return;
    };
    let direction = Direction { secret: vec![7; 32].into(), sequence: 0 };
    let keys = Keys { suite: 0x1301, client: direction.clone(), server: direction };
    let Ok((opener, mut sealer)) = keys.split() else { panic!("keys of AES-128") };
    let (mut wire, mut data, mut is_good) = (Vec::new(), Vec::new(), true);
    while let Some((kind, rest)) = script.split_first() {
        let length = match kind {
            200 => {
                sealer.update();
                0
            }
            201 => {
                sealer.seal_end(&mut wire);
                break;
            }
            202 => {
                sealer.seal_alert(Alert::DecodeError, &mut wire);
                is_good = false;
                break;
            }
            203.. => {
                let length = rest.len().min(20);
                wire.extend_from_slice(&rest[..length]);
                is_good = false;
                break;
            }
            length => {
                let length = usize::from(*length).min(rest.len());
                if length > 0 {
                    sealer.seal(&[&rest[..length]], &mut wire);
                    data.extend_from_slice(&rest[..length]);
                }
                length
            }
        };
        script = &rest[length..];
    }
    let is_changed = change != 0 && usize::from(place) < wire.len();
    if is_changed {
        wire[usize::from(place)] ^= change;
    }
    let (opened, alert) = open(opener, pieces(&wire, cut));
    assert!(data.starts_with(&opened), "what nobody has sealed");
    if is_good && !is_changed {
        assert_eq!(alert, None);
        assert_eq!(opened, data);
    }
    let Ok((opener, _)) = keys.split() else { panic!("the same keys") };
    let (whole, _) = open(opener, [&wire[..]].into_iter());
    // At an alert nothing of the same piece is given out.
    assert!(opened.starts_with(&whole), "more comes of the whole than of its pieces");
}

fn open<'a>(mut opener: Opener, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Alert>) {
    let (mut data, mut buffer) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        match opener.open(&mut buffer) {
            Err(alert) => return (data, Some(alert)),
            Ok(opened) => {
                data.extend_from_slice(&buffer[..opened.plain]);
                if opened.is_end {
                    break;
                }
                buffer.drain(..opened.rest.start);
            }
        }
    }
    (data, None)
}
