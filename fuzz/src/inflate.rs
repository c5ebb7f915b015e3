//! A decoder of DEFLATE data (RFC 1951) that is independent of the module's, slow and plain, and that says how far back
//! the data refers.

/// How the data ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It goes on; `true`: between two blocks, at a byte's border.
    Open(bool),
    /// With the last block. This many bytes belong to the data.
    Last(usize),
    /// With what is no DEFLATE data.
    Bad,
    /// The output has become longer than was asked for.
    Long,
}

/// What data inflates to.
#[derive(Debug)]
pub struct Inflated {
    /// All output, up to where the data ended.
    pub output: Vec<u8>,
    /// The farthest that a match refers back (bytes).
    pub distance: usize,
    /// Where it ended.
    pub end: End,
}

/// Inflates `data`, which goes on where `output` ends, and stops when there is more than `most` bytes of output.
pub fn inflate(data: &[u8], output: Vec<u8>, most: usize) -> Inflated {
    let mut inflater = Inflater { bits: Bits { data, position: 0 }, output, distance: 0, most };
    let end = match inflater.blocks() {
        Ok(()) => End::Last(inflater.bits.position.div_ceil(8)),
        Err(end) => end,
    };
    Inflated { output: inflater.output, distance: inflater.distance, end }
}

type Step<T> = Result<T, End>;

struct Bits<'a> {
    data: &'a [u8],
    /// In bits.
    position: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Step<usize> {
        let byte = self.data.get(self.position / 8).ok_or(End::Open(false))?;
        let bit = byte >> (self.position % 8) & 1;
        self.position += 1;
        Ok(bit.into())
    }

    fn number(&mut self, bits: usize) -> Step<usize> {
        (0..bits).try_fold(0, |number, n| Ok(number | self.bit()? << n))
    }
}

/// A Huffman code (section 3.2.2).
struct Code {
    /// How many symbols have codes of this length.
    counts: [usize; 16],
    /// The symbols in the order of their codes.
    symbols: Vec<usize>,
    longest: usize,
}

impl Code {
    /// As zlib has it, a code may be incomplete when it has one symbol of one bit, or none.
    fn new(lengths: &[usize], may_be_incomplete: bool) -> Step<Code> {
        let mut counts = [0; 16];
        lengths.iter().filter(|length| **length > 0).for_each(|length| counts[*length] += 1);
        let left = counts[1..].iter().try_fold(1_isize, |left, count| {
            let left = 2 * left - *count as isize;
            (left >= 0).then_some(left)
        });
        let longest = lengths.iter().max().copied().unwrap_or_default();
        match left {
            None => return Err(End::Bad),
            Some(1..) if longest > 1 || (longest == 1 && !may_be_incomplete) => return Err(End::Bad),
            Some(_) => {}
        }
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Ok(Code { counts, symbols, longest })
    }

    fn read(&self, bits: &mut Bits<'_>) -> Step<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        // No code is longer; a bit has to be there in any case.
        for count in &self.counts[1..=self.longest.max(1)] {
            code |= bits.bit()?;
            if code - first < *count {
                return Ok(self.symbols[index + code - first]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(End::Bad)
    }
}

struct Inflater<'a> {
    bits: Bits<'a>,
    output: Vec<u8>,
    distance: usize,
    most: usize,
}

impl Inflater<'_> {
    fn blocks(&mut self) -> Step<()> {
        loop {
            if self.bits.position.is_multiple_of(8) && self.bits.position / 8 == self.bits.data.len() {
                return Err(End::Open(true));
            }
            let last = self.bits.bit()? == 1;
            match self.bits.number(2)? {
                0 => self.stored()?,
                1 => self.fixed()?,
                2 => self.dynamic()?,
                _ => return Err(End::Bad),
            }
            if last {
                return Ok(());
            }
        }
    }

    fn put(&mut self, byte: u8) -> Step<()> {
        self.output.push(byte);
        if self.output.len() > self.most { Err(End::Long) } else { Ok(()) }
    }

    /// Section 3.2.4.
    fn stored(&mut self) -> Step<()> {
        self.bits.position = self.bits.position.next_multiple_of(8);
        let (length, complement) = (self.bits.number(16)?, self.bits.number(16)?);
        if length ^ complement != 0xffff {
            return Err(End::Bad);
        }
        for _ in 0..length {
            let byte = self.bits.number(8)?;
            self.put(byte as u8)?;
        }
        Ok(())
    }

    /// Section 3.2.6.
    fn fixed(&mut self) -> Step<()> {
        let lengths: Vec<usize> = (0..288)
            .map(|symbol| match symbol {
                0..144 => 8,
                144..256 => 9,
                256..280 => 7,
                _ => 8,
            })
            .collect();
        self.compressed(&Code::new(&lengths, true)?, &Code::new(&[5; 32], true)?)
    }

    /// Section 3.2.7.
    fn dynamic(&mut self) -> Step<()> {
        let (literals, distances) = (self.bits.number(5)? + 257, self.bits.number(5)? + 1);
        let count = self.bits.number(4)? + 4;
        if literals > 286 || distances > 30 {
            return Err(End::Bad);
        }
        let mut lengths = [0; 19];
        for place in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].iter().take(count) {
            lengths[*place] = self.bits.number(3)?;
        }
        let code = Code::new(&lengths, false)?;
        // zlib reads on for as long as it would take, and then misses the end-of-block code.
        let is_empty = code.symbols.is_empty();
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let symbol = if is_empty { self.bits.bit().map(|_| 0)? } else { code.read(&mut self.bits)? };
            let (value, times) = match symbol {
                16 => {
                    let last = lengths.last().copied();
                    let times = 3 + self.bits.number(2)?;
                    (last.ok_or(End::Bad)?, times)
                }
                17 => (0, 3 + self.bits.number(3)?),
                18 => (0, 11 + self.bits.number(7)?),
                length => (length, 1),
            };
            lengths.resize(lengths.len() + times, value);
        }
        if lengths.len() > literals + distances || lengths[256] == 0 {
            return Err(End::Bad);
        }
        let (literals, distances) = lengths.split_at(literals);
        self.compressed(&Code::new(literals, true)?, &Code::new(distances, true)?)
    }

    /// Section 3.2.5.
    fn compressed(&mut self, literals: &Code, distances: &Code) -> Step<()> {
        loop {
            let length = match literals.read(&mut self.bits)? {
                literal @ 0..256 => {
                    self.put(literal as u8)?;
                    continue;
                }
                256 => return Ok(()),
                symbol @ 257..265 => symbol - 254,
                symbol @ 265..285 => {
                    let extra = (symbol - 261) / 4;
                    3 + ((4 + (symbol - 261) % 4) << extra) + self.bits.number(extra)?
                }
                285 => 258,
                _ => return Err(End::Bad),
            };
            let distance = match distances.read(&mut self.bits)? {
                symbol @ 0..4 => symbol + 1,
                symbol @ 4..30 => {
                    let extra = symbol / 2 - 1;
                    1 + ((2 + symbol % 2) << extra) + self.bits.number(extra)?
                }
                _ => return Err(End::Bad),
            };
            let begin = self.output.len().checked_sub(distance).ok_or(End::Bad)?;
            self.distance = self.distance.max(distance);
            for place in begin..begin + length {
                self.put(self.output[place])?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zlib_rs::{Deflate, DeflateFlush};

    #[test]
    fn what_zlib_compresses() {
        let prose: Vec<u8> = (0u32..9000).flat_map(|n| format!("{} sheep; ", n * n % 1013).into_bytes()).collect();
        for level in 0..=9 {
            for payload in [&prose[..], &prose[..400], &[7; 5000], &[]] {
                let mut out = vec![0; payload.len() + 1000];
                let mut deflate = Deflate::new(level, false, 15);
                deflate.compress(payload, &mut out, DeflateFlush::Finish).unwrap();
                let length = deflate.total_out() as usize;
                let inflated = inflate(&out, Vec::new(), usize::MAX);
                assert_eq!(inflated.output, payload);
                assert_eq!(inflated.end, End::Last(length));
                assert!(inflated.distance <= payload.len().min(1 << 15));
                assert!(level == 0 || payload.is_empty() || inflated.distance > 0);
                assert!(matches!(inflate(&out[..length / 2], Vec::new(), usize::MAX).end, End::Open(_)));
            }
        }
        assert_eq!(inflate(&[0xff], Vec::new(), 0).end, End::Bad);
        assert_eq!(inflate(&[0, 0, 0, 0xff, 0xff], Vec::new(), 0).end, End::Open(true));
    }
}
