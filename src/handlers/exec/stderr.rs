//! What programs write to their standard error: lines in the error log, at `warn`. That is what httpd shows unless it is told
//! otherwise, as it must with the last words of a program that fails; and it is no error that a program has something to say.

use crate::handlers::lines::Lines;
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
    let mut lines = Lines::new(LINE);
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
