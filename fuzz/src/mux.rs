//! Any bytes on a mux: an error or what its streams get, the same in whatever pieces it comes, and no more memory than
//! the streams may have.

use super::memory::peak;
use super::stream::pieces;
use mod_websocket::mux::endpoint::{Endpoint, Received};
use mod_websocket::mux::flow::WINDOW;
use mod_websocket::mux::frame::{MAX_BODY, ProtocolError};

/// Streams whose sessions are there.
const STREAMS: u64 = 4;
/// What a stream takes beside its bytes, at most, when there are many.
const STREAM: usize = 512;

/// The first byte says how to cut the others: see [`pieces`]. They are what comes over the mux.
pub fn check(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else { return };
    let (whole, most) = peak(|| read(&[stream]));
    // Each stream has at least a head, and the same bytes may be for each of those that a frame names.
    let streams = stream.len() / 8 + 1;
    let bytes = (streams * stream.len()).min(streams * 2 * WINDOW as usize);
    assert!(most <= 4 * MAX_BODY + streams * STREAM + 4 * bytes, "{most} bytes for {}", stream.len());
    let pieces: Vec<&[u8]> = pieces(stream, *cut).collect();
    assert_eq!(read(&pieces), whole);
}

/// What each stream has got, and whether it has ended.
type Got = Vec<(Vec<u8>, bool)>;

fn read(pieces: &[&[u8]]) -> Result<Got, ProtocolError> {
    let mut endpoint = Endpoint::<()>::default();
    (0..STREAMS).for_each(|stream| endpoint.open(stream, ()));
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let space = endpoint.space();
            assert!(!space.is_empty());
            let (now, after) = rest.split_at(rest.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            endpoint.filled(now.len(), |(), _| ())?;
            rest = after;
        }
    }
    let got = |stream| match endpoint.received(stream) {
        Received::Bytes(bytes) => (bytes.to_vec(), endpoint.is_ended(stream)),
        Received::Nothing | Received::End => (Vec::new(), endpoint.is_ended(stream)),
    };
    Ok((0..STREAMS).map(got).collect())
}
