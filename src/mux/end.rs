//! One end of a trunk, without its socket: what is read goes in, what is to be written comes out.

use super::flow::{Far, Flow, Spare};
use super::frame::{Bad, Decoder, Frame};
use super::out::Out;
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, IoSlice};

/// While this much waits to be written, nobody adds to it.
pub const FULL: usize = 1 << 20;

/// One end. `T` is what its owner keeps of a stream.
#[derive(Debug)]
pub struct End<T> {
    decoder: Decoder,
    /// What is to be written.
    pub out: Out,
    streams: HashMap<u64, Stream<T>, BuildHasherDefault<Spread>>,
    /// Memory for streams that have something to keep.
    spare: Spare,
    broken: bool,
}

#[derive(Debug, Default)]
struct Stream<T> {
    flow: Flow,
    near: Near,
    keep: T,
}

/// What this side does with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Near {
    /// Nothing yet: its session is on its way here.
    #[default]
    Awaited,
    Open,
    /// It is gone, and waits for the other side to say the same.
    Gone,
}

/// What has become of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// There is something to take.
    Data,
    /// More may be sent.
    Room,
    /// The other side has no more.
    Ended,
    /// The other side is gone.
    Gone,
}

/// What there is to take of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Waiting<'a> {
    /// These bytes, at least one.
    Bytes(&'a [u8]),
    /// Nothing yet.
    Nothing,
    /// Nothing, and no more will come.
    End,
}

impl<T> Default for End<T> {
    fn default() -> Self {
        End {
            decoder: Decoder::default(),
            out: Out::default(),
            streams: HashMap::default(),
            spare: Spare::default(),
            broken: false,
        }
    }
}

impl<T: Default> End<T> {
    /// A session of this number is here, and takes and sends what goes over its stream.
    pub fn open(&mut self, stream: u64, keep: T) {
        let broken = self.broken;
        let stream = self.streams.entry(stream).or_default();
        stream.near = Near::Open;
        stream.keep = keep;
        if broken {
            stream.flow.cut();
        }
    }

    /// The session has nothing more to do with its stream.
    pub fn close(&mut self, stream: u64) {
        let Entry::Occupied(mut entry) = self.streams.entry(stream) else { return };
        let known = entry.get_mut();
        if known.near == Near::Gone {
            return;
        }
        if !self.broken {
            self.out.gone(stream);
        }
        if known.flow.far() == Far::Gone {
            entry.remove();
        } else {
            known.flow.forget(&mut self.spare);
            known.near = Near::Gone;
            known.keep = T::default();
        }
    }

    /// Streams that are not over.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// No stream is left.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// There is no other end any more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// What the owner keeps of a stream.
    pub fn keep(&mut self, stream: u64) -> Option<&mut T> {
        self.streams.get_mut(&stream).map(|stream| &mut stream.keep)
    }

    /// Where to read to.
    pub fn space(&mut self) -> &mut [u8] {
        self.decoder.space()
    }

    /// So many bytes were read to [`End::space`]. `tell` hears what that means for streams that are open.
    ///
    /// # Errors
    /// The other side does not keep to the rules: the trunk is of no use any more.
    pub fn filled(&mut self, count: usize, mut tell: impl FnMut(&mut T, News)) -> Result<(), Bad> {
        let End { decoder, streams, spare, .. } = self;
        decoder.filled(count);
        while let Some(frame) = decoder.frame()? {
            match frame {
                Frame::Data { stream, bytes } => {
                    streams.entry(stream).or_default().receive(stream, bytes, spare, &mut tell)?;
                }
                Frame::Many { streams: numbers, bytes } => {
                    for stream in numbers.iter() {
                        streams.entry(stream).or_default().receive(stream, bytes, spare, &mut tell)?;
                    }
                }
                Frame::Credit { stream, bytes } => {
                    // For one that is over, it was under way.
                    if let Some(known) = streams.get_mut(&stream).filter(|known| known.near == Near::Open) {
                        known.flow.grant(stream, bytes)?;
                        tell(&mut known.keep, News::Room);
                    }
                }
                Frame::End { stream } => {
                    let known = streams.entry(stream).or_default();
                    known.flow.end(stream, Far::Ended)?;
                    known.tell(News::Ended, &mut tell);
                }
                Frame::Gone { stream } => {
                    let known = streams.entry(stream).or_default();
                    known.flow.end(stream, Far::Gone)?;
                    known.tell(News::Gone, &mut tell);
                    if known.near == Near::Gone {
                        streams.remove(&stream);
                    }
                }
            }
        }
        Ok(())
    }

    /// The other end is no more. `tell` hears of every stream that is open.
    pub fn break_off(&mut self, mut tell: impl FnMut(&mut T, News)) {
        self.broken = true;
        self.out.clear();
        self.streams.retain(|_, stream| stream.near == Near::Open);
        for stream in self.streams.values_mut().filter(|stream| stream.flow.far() != Far::Gone) {
            stream.flow.cut();
            stream.tell(News::Gone, &mut tell);
        }
    }

    /// What there is to take of a stream.
    pub fn waiting(&self, stream: u64) -> Waiting<'_> {
        let Some(Stream { flow, .. }) = self.streams.get(&stream) else { return Waiting::End };
        match flow.waiting() {
            [] if flow.far() == Far::Open => Waiting::Nothing,
            [] => Waiting::End,
            bytes => Waiting::Bytes(bytes),
        }
    }

    /// So many bytes were taken, of those that waited.
    pub fn take(&mut self, stream: u64, bytes: usize) {
        if let Some(known) = self.streams.get_mut(&stream)
            && let Some(told) = known.flow.take(bytes, &mut self.spare)
        {
            self.out.credit(stream, told);
        }
    }

    /// The other side sends no more of this stream, though perhaps not all that it has sent is taken.
    pub fn is_ended(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_none_or(|known| known.flow.far() != Far::Open)
    }

    /// Bytes that may be added for this stream now.
    ///
    /// # Errors
    /// `BrokenPipe`: the other side takes no more of it, or is no more.
    pub fn room(&self, stream: u64) -> io::Result<usize> {
        let known = self.streams.get(&stream).filter(|known| known.flow.far() != Far::Gone);
        let known = known.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(if self.out.len() < FULL { known.flow.credit() } else { 0 })
    }

    /// Adds bytes for this stream, as many as may be; returns how many.
    ///
    /// # Errors
    /// As [`End::room`], and `WouldBlock` where none may.
    pub fn write(&mut self, stream: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = self.some_room(stream)?;
        let mut written = 0;
        for slice in slices {
            let piece = &slice[..slice.len().min(room - written)];
            if !piece.is_empty() {
                self.out.data(stream, piece);
                written += piece.len();
            }
        }
        self.spend(stream, written);
        Ok(written)
    }

    /// As [`End::write`], for bytes that the next may get as well: those that come right after this share a copy.
    ///
    /// # Errors
    /// As there.
    pub fn write_shared(&mut self, stream: u64, bytes: &Bytes) -> io::Result<usize> {
        let room = self.some_room(stream)?;
        if bytes.len() > room {
            return self.write(stream, &[IoSlice::new(bytes)]);
        }
        if !bytes.is_empty() {
            self.out.shared(stream, bytes);
            self.spend(stream, bytes.len());
        }
        Ok(bytes.len())
    }

    /// Adds what `read` puts behind the buffer for this stream, which is at most `most` bytes; returns what it says.
    ///
    /// # Errors
    /// What `read` says, and as [`End::room`]. `WouldBlock` where not so many may be added: then it is not called.
    pub fn fill(
        &mut self,
        stream: u64,
        most: usize,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.room(stream)? < most {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.out.fill(stream, most, read)?;
        self.spend(stream, count);
        Ok(count)
    }

    /// Says that nothing more will be written for this stream.
    pub fn end(&mut self, stream: u64) {
        if !self.broken {
            self.out.end(stream);
        }
    }

    fn some_room(&self, stream: u64) -> io::Result<usize> {
        self.room(stream).and_then(|room| if room > 0 { Ok(room) } else { Err(io::ErrorKind::WouldBlock.into()) })
    }

    fn spend(&mut self, stream: u64, bytes: usize) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.flow.spend(bytes);
        }
    }
}

impl<T> Stream<T> {
    fn receive(
        &mut self,
        number: u64,
        bytes: &[u8],
        spare: &mut Spare,
        tell: &mut impl FnMut(&mut T, News),
    ) -> Result<(), Bad> {
        // It was under way when this side went.
        if self.near == Near::Gone {
            return Ok(());
        }
        self.flow.receive(number, bytes, spare)?;
        self.tell(News::Data, tell);
        Ok(())
    }

    fn tell(&mut self, news: News, tell: &mut impl FnMut(&mut T, News)) {
        if self.near == Near::Open {
            tell(&mut self.keep, news);
        }
    }
}

/// Numbers that are given one after the other, spread over the table: nobody chooses them to collide.
#[derive(Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the table looks at the highest bits and at the lowest.
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::WINDOW;
    use super::*;
    use proptest::prelude::*;

    /// What the owner of an end hears.
    type Heard = Vec<News>;

    /// Moves all that waits from one end to the other, in pieces.
    fn carry(from: &mut End<Heard>, to: &mut End<Heard>, piece: usize) -> Result<(), Bad> {
        let mut bytes = Vec::new();
        from.out
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

    fn heard(end: &mut End<Heard>, stream: u64) -> Heard {
        end.keep(stream).map(std::mem::take).unwrap_or_default()
    }

    fn both() -> (End<Heard>, End<Heard>) {
        let (mut a, mut b) = (End::default(), End::default());
        a.open(1, vec![]);
        b.open(1, vec![]);
        (a, b)
    }

    fn put(end: &mut End<Heard>, stream: u64, bytes: &[u8]) -> io::Result<usize> {
        end.write(stream, &[IoSlice::new(bytes)])
    }

    #[test]
    fn what_comes_before_its_session_waits() {
        let (mut a, mut b) = (End::<Heard>::default(), End::<Heard>::default());
        a.open(7, vec![]);
        assert_eq!(put(&mut a, 7, b"early").unwrap(), 5);
        a.end(7);
        carry(&mut a, &mut b, 3).unwrap();
        b.open(7, vec![]);
        assert_eq!(b.waiting(7), Waiting::Bytes(b"early"));
        b.take(7, 5);
        assert_eq!(b.waiting(7), Waiting::End);
        assert!(b.is_ended(7) && !a.is_ended(7));
        put(&mut b, 7, b"late").unwrap();
        carry(&mut b, &mut a, 100).unwrap();
        assert_eq!(a.waiting(7), Waiting::Bytes(b"late"));
    }

    #[test]
    fn a_stream_is_over_when_both_are_gone_from_it() {
        let (mut a, mut b) = both();
        put(&mut a, 1, b"under way").unwrap();
        b.close(1);
        assert_eq!((a.len(), b.len()), (1, 1));
        carry(&mut a, &mut b, 100).unwrap();
        assert_eq!(b.waiting(1), Waiting::Nothing, "it is of use to nobody");
        carry(&mut b, &mut a, 100).unwrap();
        assert_eq!(heard(&mut a, 1), [News::Gone]);
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
        assert_eq!(b.waiting(2), Waiting::Bytes(b"bye"));
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
                while let Waiting::Bytes(bytes) = b.waiting(2) {
                    let count = bytes.len().min(9000);
                    b.take(2, count);
                }
                carry(&mut b, &mut a, 100).unwrap();
            }
        }
        assert_eq!(put(&mut a, 1, &much).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(heard(&mut a, 1).is_empty() && heard(&mut a, 2).contains(&News::Room));
        b.take(1, WINDOW as usize);
        carry(&mut b, &mut a, 100).unwrap();
        assert_eq!(heard(&mut a, 1), [News::Room]);
        assert_eq!(a.room(1).unwrap(), WINDOW as usize);
    }

    #[test]
    fn what_is_for_many_reaches_each_of_them() {
        let (mut a, mut b) = (End::<Heard>::default(), End::<Heard>::default());
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
                assert!(a.out.len() < 51_000, "one copy");
            }
            carry(&mut a, &mut b, 777).unwrap();
        }
        assert_eq!(a.write_shared(1, &news).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for stream in 0..5 {
            assert_eq!(b.waiting(stream), Waiting::Bytes(&vec![b'x'; WINDOW as usize][..]));
        }
    }

    #[test]
    fn a_trunk_that_is_full_takes_no_more_of_anybody() {
        let (mut a, mut b) = (End::<Heard>::default(), End::<Heard>::default());
        for stream in 0..20 {
            a.open(stream, vec![]);
            b.open(stream, vec![]);
        }
        let much = vec![1; WINDOW as usize];
        let taken = (0..20).filter(|stream| put(&mut a, *stream, &much).is_ok()).count();
        assert_eq!(taken, FULL / WINDOW as usize);
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
        b.break_off(|heard, news| heard.push(news));
        assert_eq!(heard(&mut b, 1), [News::Gone]);
        assert_eq!(b.waiting(1), Waiting::Bytes(b"last"));
        assert!(put(&mut b, 1, b"x").is_err());
        b.take(1, 4);
        assert_eq!(b.waiting(1), Waiting::End);
        b.end(1);
        b.close(1);
        b.open(2, vec![]);
        assert_eq!(b.waiting(2), Waiting::End);
        b.close(2);
        assert!(b.is_empty() && b.out.is_empty() && b.is_broken());
    }

    #[test]
    fn rules_that_are_broken_are_noticed() {
        let broken = |with: &dyn Fn(&mut End<Heard>)| {
            let (mut a, mut b) = both();
            with(&mut a);
            carry(&mut a, &mut b, 1000).unwrap_err()
        };
        assert_eq!(broken(&|a| a.out.data(1, &vec![0; WINDOW as usize + 1])), Bad::Flooded(1));
        assert_eq!(broken(&|a| a.out.data(9, &vec![0; WINDOW as usize + 1])), Bad::Flooded(9));
        assert_eq!(broken(&|a| a.out.credit(1, 1)), Bad::Credit(1));
        assert_eq!(
            broken(&|a| {
                a.out.end(1);
                a.out.data(1, b"x")
            }),
            Bad::Ended(1)
        );
        assert_eq!(
            broken(&|a| {
                a.out.gone(1);
                a.out.gone(1)
            }),
            Bad::Ended(1)
        );
    }

    proptest! {
        #[test]
        fn every_byte_arrives_in_order(
            steps in prop::collection::vec((0u8..4, 0u64..4, 1usize..70_000), 1..120), piece in 1usize..70_000,
        ) {
            let (mut a, mut b) = (End::<Heard>::default(), End::<Heard>::default());
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
                        let Waiting::Bytes(bytes) = b.waiting(stream) else { continue };
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
                let left = match b.waiting(stream) { Waiting::Bytes(bytes) => bytes.len(), _ => 0 };
                prop_assert_eq!(arrived[stream as usize] + left, sent[stream as usize]);
            }
        }
    }
}
