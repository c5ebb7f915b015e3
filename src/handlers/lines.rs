//! What programs write for the error log, in lines.

pub(crate) struct Lines {
    line: Vec<u8>,
    longest: usize,
}

impl Lines {
    /// What is longer than that (bytes) is cut into several.
    pub(crate) fn new(longest: usize) -> Lines {
        Lines { line: Vec::new(), longest }
    }

    pub(crate) fn put(&mut self, bytes: &[u8], mut write: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(self.longest) {
                if self.line.len() + piece.len() > self.longest {
                    self.end(&mut write);
                }
                self.line.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                self.end(&mut write);
            }
        }
    }

    /// What has come so far is a line, if it is not empty.
    pub(crate) fn end(&mut self, mut write: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.line);
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
        const LINE: usize = 2000;
        let (mut lines, mut seen) = (Lines::new(LINE), Vec::new());
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
