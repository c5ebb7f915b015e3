//! A frame of RFC 6455 section 5, written by hand so that a test can also write it wrong.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A frame, whoever sends it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    /// The three reserved bits: 4 is RSV1, 2 RSV2, 1 RSV3.
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;

    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, reserved: 0, opcode, payload: payload.into() }
    }

    pub(crate) fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Self::TEXT, payload)
    }

    pub(crate) fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Self::BINARY, payload)
    }

    pub(crate) fn continuation(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Self::CONTINUATION, payload)
    }

    pub(crate) fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Self::PING, payload)
    }

    pub(crate) fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Self::PONG, payload)
    }

    pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        Self::new(Self::CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
    }

    /// More fragments of the message follow.
    pub(crate) fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    /// The code of a Close frame; None when it carries none.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.payload.get(..2)?;
        Some(u16::from_be_bytes([code[0], code[1]]))
    }

    /// As a client sends it: masked, with a key that differs from frame to frame.
    pub(crate) fn masked(&self) -> Vec<u8> {
        static KEYS: AtomicU32 = AtomicU32::new(0x9E37_79B9);
        self.masked_with(KEYS.fetch_add(0x9E37_79B9, Ordering::Relaxed).to_be_bytes())
    }

    /// Masked with this key.
    pub(crate) fn masked_with(&self, key: [u8; 4]) -> Vec<u8> {
        let mut bytes = self.header(self.payload.len() as u64, true);
        bytes.extend(key);
        bytes.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// As only a server may send it.
    pub(crate) fn unmasked(&self) -> Vec<u8> {
        let mut bytes = self.header(self.payload.len() as u64, false);
        bytes.extend(&self.payload);
        bytes
    }

    /// The header of a masked frame that claims `length` bytes of payload, and its key.
    pub(crate) fn header_claiming(&self, length: u64) -> Vec<u8> {
        let mut bytes = self.header(length, true);
        bytes.extend([1, 2, 3, 4]);
        bytes
    }

    fn header(&self, length: u64, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        match length {
            0..=125 => bytes.push(mask | length.to_be_bytes()[7]),
            126..=65535 => {
                bytes.push(mask | 126);
                bytes.extend(&length.to_be_bytes()[6..]);
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes
    }

    /// Takes a server's frame from the start of `bytes`: the frame and its length there, or None when it is not complete.
    ///
    /// # Panics
    ///
    /// On anything a server must not send: a mask, reserved bits (but for RSV1 of a compressed message), an unknown opcode, a length not in its shortest
    /// form, a control frame in fragments or over 125 bytes.
    pub(crate) fn from_server(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let opcode = first & 0x0F;
        let fin = first & 0x80 != 0;
        let reserved = first >> 4 & 7;
        // RSV1 says that the message is compressed; only a test that wants one like it is content.
        assert!(
            reserved == 0 || reserved == 4 && matches!(opcode, 1 | 2),
            "reserved bits {reserved:b} from the server"
        );
        assert_eq!(second & 0x80, 0, "a masked frame from the server (section 5.1)");
        assert!(matches!(opcode, 0..=2 | 8..=10), "opcode {opcode} from the server");
        let (length, header) = match second & 0x7F {
            126 => {
                let length = u64::from(u16::from_be_bytes(*rest.first_chunk()?));
                assert!(length > 125, "length {length} in two bytes (section 5.2)");
                (length, 4)
            }
            127 => {
                let length = u64::from_be_bytes(*rest.first_chunk()?);
                assert!((65536..1 << 63).contains(&length), "length {length} in eight bytes (section 5.2)");
                (length, 10)
            }
            length => (u64::from(length), 2),
        };
        if opcode >= 8 {
            assert!(fin && length <= 125, "a control frame in fragments or of {length} bytes (section 5.5)");
        }
        let end = header + usize::try_from(length).expect("a length that fits");
        let payload = bytes.get(header..end)?.to_vec();
        if opcode == Self::CLOSE {
            assert_ne!(payload.len(), 1, "half a close code (section 5.5.1)");
        }
        Some((Self { fin, reserved, opcode, payload }, end))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.payload[..self.payload.len().min(64)];
        write!(formatter, "Frame(fin {}, opcode {}, {} bytes", self.fin, self.opcode, self.payload.len())?;
        match self.close_code() {
            Some(code) if self.opcode == Self::CLOSE => write!(formatter, ", code {code})"),
            _ => write!(formatter, ": {:?})", String::from_utf8_lossy(shown)),
        }
    }
}

#[test]
fn a_frame_reads_back() {
    for size in [0, 1, 125, 126, 65535, 65536] {
        let frame = Frame::binary(vec![7; size]);
        let bytes = frame.unmasked();
        assert_eq!(Frame::from_server(&bytes), Some((frame, bytes.len())));
        assert_eq!(Frame::from_server(&bytes[..bytes.len() - 1]), None);
    }
}
