//! What programs write to their standard error: lines in the error log, at `warn`. That is what httpd shows unless it is told
//! otherwise, as it must with the last words of a program that fails; and it is no error that a program has something to say.

use log::warn;
use std::io;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Bytes of a line in the log; what is longer is cut into several. httpd's own limit is four times that, and what is not
/// printable takes four bytes there.
const LINE: usize = 2000;
/// Bytes that are read after a program's end, at most: as many as a pipe holds, usually.
const REST: usize = 64 * 1024;

/// Writes down what comes, until the end of the stream, or `end` and what is there by then.
pub async fn write_down(stderr: pipe::Receiver, name: String, mut end: oneshot::Receiver<()>) {
    let write = |line: &str| warn!("WS0130: {name}: {line}");
    let mut lines = Lines::default();
    let mut piece = [0; 4096];
    let mut left = usize::MAX;
    while left > 0 {
        if left == usize::MAX {
            tokio::select! {
                ready = stderr.readable() => if ready.is_err() { break },
                _ = &mut end => left = REST,
            }
        }
        match stderr.try_read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                lines.put(&piece[..count], write);
                if left < usize::MAX {
                    left = left.saturating_sub(count);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && left == usize::MAX => {}
            Err(_) => break,
        }
    }
    lines.end(write);
}

/// Cuts a stream into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn put(&mut self, bytes: &[u8], mut write: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(LINE) {
                if self.0.len() + piece.len() > LINE {
                    self.end(&mut write);
                }
                self.0.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                self.end(&mut write);
            }
        }
    }

    fn end(&mut self, mut write: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.0);
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        if !line.is_empty() {
            write(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_empty_ones_left_out() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        let long = "x".repeat(2 * LINE + 1);
        for piece in ["a", "b \r\n\n  c\n", &long, "\nlast\u{fffd}"] {
            lines.put(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.end(|line| seen.push(line.to_owned()));
        let lengths: Vec<usize> = seen[2..5].iter().map(String::len).collect();
        assert_eq!((&seen[..2], lengths), (&["ab".to_owned(), "  c".to_owned()][..], vec![LINE, LINE, 1]));
        assert_eq!(seen[5], "last\u{fffd}");
    }
}
