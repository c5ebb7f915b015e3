//! RFC 1951, read anew: a decompressor that shares nothing with zlib, and is strict about how far back data may refer.

/// What was said so far, which later messages may refer to.
#[derive(Default)]
pub struct Inflater {
    said: Vec<u8>,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<usize> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    fn bits(&mut self, count: usize) -> Option<usize> {
        (0..count).try_fold(0, |sum, place| Some(sum | self.bit()? << place))
    }
}

/// Section 3.2.2: how many codes there are of each length, and their symbols in order.
struct Huffman {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Huffman {
    fn new(lengths: &[usize]) -> Huffman {
        let mut counts = [0; 16];
        lengths.iter().for_each(|length| counts[*length] += 1);
        counts[0] = 0;
        let of = |length| (0..lengths.len()).filter(move |symbol| lengths[*symbol] == length);
        Huffman { counts, symbols: (1..16).flat_map(of).collect() }
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.bit()?;
            if code < first + count {
                return Some(self.symbols[index + code - first]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// Section 3.2.5: the least value of each symbol, and how many bits follow it.
fn table(bits: impl Iterator<Item = usize>, least: usize) -> Vec<(usize, usize)> {
    bits.scan(least, |next, bits| Some((std::mem::replace(next, *next + (1 << bits)), bits))).collect()
}

impl Inflater {
    /// One message, with its tail; `window`: how far back it may refer. `None`: it is no compressed data.
    pub fn message(&mut self, bytes: &[u8], window: usize) -> Option<Vec<u8>> {
        let begin = self.said.len();
        let mut bits = Bits { bytes, at: 0 };
        while bits.at < bytes.len() * 8 {
            let _last = bits.bit()?;
            match bits.bits(2)? {
                0 => self.stored(&mut bits)?,
                1 => {
                    let length = |symbol| match symbol {
                        144..=255 => 9,
                        256..=279 => 7,
                        _ => 8,
                    };
                    let literals: Vec<usize> = (0..288).map(length).collect();
                    self.codes(&mut bits, &Huffman::new(&literals), &Huffman::new(&[5; 30]), window)?;
                }
                2 => {
                    let (literals, distances) = dynamic(&mut bits)?;
                    self.codes(&mut bits, &literals, &distances, window)?;
                }
                _ => return None,
            }
        }
        Some(self.said[begin..].to_vec())
    }

    /// Section 3.2.4.
    fn stored(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        bits.at = bits.at.next_multiple_of(8);
        let (length, inverse) = (bits.bits(16)?, bits.bits(16)?);
        let begin = bits.at / 8;
        self.said.extend(bits.bytes.get(begin..begin + length)?);
        bits.at += length * 8;
        (length ^ inverse == 0xffff).then_some(())
    }

    fn codes(&mut self, bits: &mut Bits<'_>, literals: &Huffman, distances: &Huffman, window: usize) -> Option<()> {
        let mut lengths = table((0..28).map(|code| if code < 8 { 0 } else { code / 4 - 1 }), 3);
        lengths.push((258, 0));
        let reaches = table((0..30).map(|code| if code < 4 { 0 } else { code / 2 - 1 }), 1);
        loop {
            match literals.symbol(bits)? {
                literal @ 0..256 => self.said.push(literal as u8),
                256 => return Some(()),
                symbol => {
                    let (least, extra) = *lengths.get(symbol - 257)?;
                    let length = least + bits.bits(extra)?;
                    let (least, extra) = *reaches.get(distances.symbol(bits)?)?;
                    let distance = least + bits.bits(extra)?;
                    let from = self.said.len().checked_sub(distance).filter(|_| distance <= window)?;
                    (from..from + length).for_each(|place| self.said.push(self.said[place]));
                }
            }
        }
    }
}

/// Section 3.2.7.
fn dynamic(bits: &mut Bits<'_>) -> Option<(Huffman, Huffman)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances, codes) = (bits.bits(5)? + 257, bits.bits(5)? + 1, bits.bits(4)? + 4);
    let mut lengths = [0; 19];
    for place in &ORDER[..codes] {
        lengths[*place] = bits.bits(3)?;
    }
    let code = Huffman::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.symbol(bits)? {
            16 => (*lengths.last()?, 3 + bits.bits(2)?),
            17 => (0, 3 + bits.bits(3)?),
            18 => (0, 11 + bits.bits(7)?),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    let whole = lengths.len() == literals + distances;
    whole.then(|| (Huffman::new(&lengths[..literals]), Huffman::new(&lengths[literals..])))
}
