//! Those who are not to notice anything: some sessions that were open before, and whoever wants a page.

use crate::harness::{Frame, Raw, Server};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Sessions that echo all the while.
pub(crate) const SESSIONS: usize = 8;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(10);

/// What they have seen.
#[derive(Default)]
pub(crate) struct Seen {
    echoes: u64,
    pages: u64,
    longest_echo: Duration,
    longest_page: Duration,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { echoes, pages, longest_echo, longest_page } = self;
        write!(f, "meanwhile {echoes} echoes (longest {} ms)", longest_echo.as_millis())?;
        if *pages > 0 { write!(f, ", {pages} pages ({} ms)", longest_page.as_millis()) } else { Ok(()) }
    }
}

/// Does it while sessions on /echo echo, and the page is served; each within the harness's patience.
pub(crate) fn watched<T>(server: &Server, during: impl FnOnce() -> T) -> (T, Seen) {
    watch(server, true, during)
}

/// As [`watched`], where no page can be expected.
pub(crate) fn watched_sessions<T>(server: &Server, during: impl FnOnce() -> T) -> (T, Seen) {
    watch(server, false, during)
}

fn watch<T>(server: &Server, with_pages: bool, during: impl FnOnce() -> T) -> (T, Seen) {
    let mut sessions = Raw::open_some(server, SESSIONS);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut seen = Seen::default();
            loop {
                let is_last = done.load(Ordering::Relaxed);
                for session in &mut sessions {
                    let began = Instant::now();
                    echo(session);
                    seen.longest_echo = seen.longest_echo.max(began.elapsed());
                    seen.echoes += 1;
                }
                if with_pages {
                    let began = Instant::now();
                    let status = Raw::page(server, "/index.html").status;
                    assert_eq!(status, 200, "the page");
                    seen.longest_page = seen.longest_page.max(began.elapsed());
                    seen.pages += 1;
                }
                if is_last {
                    break;
                }
                thread::park_timeout(PAUSE);
            }
            sessions.into_iter().for_each(Raw::reset);
            seen
        });
        let outcome = catch_unwind(AssertUnwindSafe(during));
        done.store(true, Ordering::Relaxed);
        match (outcome, watching.join()) {
            (Ok(outcome), Ok(seen)) => (outcome, seen),
            (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        }
    })
}

/// A message and its echo; a Ping that comes first is answered.
fn echo(session: &mut Raw) {
    let frame = Frame::text("still here");
    session.send(&frame);
    loop {
        let received = session.frame();
        if received.opcode == Frame::PING {
            session.send(&Frame::pong(received.payload));
        } else {
            assert!(received == frame, "awaited {frame:?}, received {received:?}");
            return;
        }
    }
}
