//! What the context takes for its socket, and what is passed by it.

use crate::wire::deflate::{DeflatePool, PerMessageDeflate};
use crate::wire::frame::opcode::CLOSE;
use crate::wire::frame::{Header, unmask};
use crate::wire::frame_scanner::FrameVisitor;
use std::io::{self, Read, Write};

/// What the context takes for its socket: a slice to read, decompressed where that was negotiated, and a vector to write.
pub(super) struct ContextStream<'a> {
    pub(super) input: &'a [u8],
    pub(super) output: &'a mut Vec<u8>,
    pub(super) inflate: Option<(&'a mut PerMessageDeflate, &'a mut DeflatePool)>,
    /// Bytes that may still be decompressed in this turn.
    pub(super) left: usize,
}

impl ContextStream<'_> {
    pub(super) fn to(output: &mut Vec<u8>) -> ContextStream<'_> {
        ContextStream { input: &[], output, inflate: None, left: 0 }
    }

    /// How much was not read, to be kept for later; `None` where nothing is decompressed, so that what is at hand is not large.
    pub(super) fn rest(&self) -> Option<usize> {
        self.inflate.as_ref().map(|_| self.input.len())
    }
}

impl Read for ContextStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some((deflate, pool)) = &mut self.inflate {
            if self.left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = deflate.incoming().read(pool, &mut self.input, buf)?;
            self.left = self.left.saturating_sub(count);
            return Ok(count);
        }
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buf)
    }
}

impl Write for ContextStream<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a read holds of a stream: data without masks, and control frames as they came.
#[derive(Default)]
pub(super) struct Streamed {
    pub(super) data: Vec<u8>,
    pub(super) control: Vec<u8>,
    pub(super) messages: u64,
}

impl FrameVisitor for Streamed {
    fn may_pass(&self) -> bool {
        false
    }

    fn header(&mut self, header: &Header) {
        if !header.is_control() {
            self.messages += u64::from(header.fin && header.length == 0);
            return;
        }
        // It is whole, its length below 126 and its bits in order: the scanner has looked.
        self.control.extend([0x80 | header.opcode, 0x80 | header.length as u8]);
        self.control.extend(header.mask.unwrap_or_default());
    }

    fn payload(&mut self, opcode: u8, ends: bool, (mask, position): ([u8; 4], u64), piece: &[u8]) {
        if opcode >= CLOSE {
            self.control.extend_from_slice(piece);
            return;
        }
        self.messages += u64::from(ends);
        let begin = self.data.len();
        self.data.extend_from_slice(piece);
        unmask(&mut self.data[begin..], mask, position);
    }
}
