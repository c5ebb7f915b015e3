//! Why this child of httpd is to end, as far as a child can know, and what its sessions are told of it.

use super::RelaySession;
use crate::apache::pool::Pool;
use crate::apache::{mpm, process, server};
use crate::front::WebSocket;
use crate::wire::CloseCode;
use once_cell::sync::OnceCell;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a child that is to end at once waits for its sessions. httpd's parent sends its next signal after three seconds.
pub const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the sessions of a child may take for their end when httpd stops gracefully: as the engine's own at a stop.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// How long a child waits for the sign of a graceful stop, which follows the order to end.
const RECOGNITION: Duration = Duration::from_secs(1);

/// `PidFile`, if this child may look it up.
static PID_FILE: OnceCell<PathBuf> = OnceCell::new();

/// httpd's hook has said that this child is to end at once.
static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Readable from the moment on at which this child is to end.
static ALARM: OnceCell<OwnedFd> = OnceCell::new();

/// httpd's hook: this child is to end when its connections have, or at once.
pub fn begin(graceful: bool) {
    if !graceful {
        AT_ONCE.store(true, Ordering::SeqCst);
    } else if mpm::is_threaded() {
        // By that alone a child learns what httpd says after it.
        process::note_end_signal();
    }
    if let Some(alarm) = ALARM.get() {
        // It fails only where it is readable already.
        let _ = rustix::io::write(alarm, &1_u64.to_ne_bytes());
    }
}

/// To wait on beside other things, until [`Ending::look`] has given an order.
pub fn alarm() -> Option<BorrowedFd<'static>> {
    ALARM.get().map(AsFd::as_fd)
}

/// To be called in a new child of httpd: what [`Ending`] needs later.
pub fn enter_child(pool: &Pool) {
    // Without it, relays look once a second.
    if let Ok(alarm) = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
        let _ = ALARM.set(alarm);
    }
    // Behind a chroot, or in a directory that is closed to httpd's user, it is not there: then its absence says nothing.
    if let Some(path) = server::pid_file(pool).filter(|path| path.exists()) {
        let _ = PID_FILE.set(path);
    }
}

/// Whoever may no longer look it up, as a user of mpm-itk, knows nothing of it.
fn pid_file_is_gone() -> bool {
    PID_FILE.get().is_some_and(|path| matches!(path.try_exists(), Ok(false)))
}

/// httpd goes on without this process, or stops, and has said nothing to it: mpm-itk serves each connection in a process that
/// a child of prefork has forked, and the parent knows of the child alone.
fn is_left_behind() -> bool {
    !mpm::is_threaded() && (mpm::running_generation() != mpm::generation() || pid_file_is_gone())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Restart,
    /// There are more children than are needed, or it has had its `MaxConnectionsPerChild`.
    Retirement,
    Stop,
}

impl Cause {
    /// For a child that ends at once; `before` is the generation that was running when it did not have to yet.
    fn at_once(before: Option<i32>) -> Cause {
        // A restart raises it before it ends the children.
        if mpm::running_generation() == before { Cause::Stop } else { Cause::Restart }
    }

    /// For a child that ends when its connections have.
    fn by_and_by() -> Cause {
        // A graceful stop looks to children like a graceful restart, but that removes no PidFile and raises the generation first.
        if pid_file_is_gone() {
            Cause::Stop
        } else if mpm::running_generation() == mpm::generation() {
            Cause::Retirement
        } else {
            Cause::Restart
        }
    }

    pub fn word(self) -> (u16, &'static str) {
        match self {
            Cause::Restart => (CloseCode::Restart.into(), "server is restarting"),
            Cause::Retirement => (CloseCode::Restart.into(), "server process is retiring"),
            Cause::Stop => {
                let code = server::main().map(|server| server.config::<WebSocket>().stop_code());
                (code.unwrap_or(CloseCode::Restart.into()), "server is stopping")
            }
        }
    }

    /// In a child that ends at once and did not look for it.
    pub fn now() -> Cause {
        Cause::at_once(mpm::generation())
    }
}

#[derive(Debug, Default)]
pub struct Ending {
    began: Option<Instant>,
    /// At the last look before it was to end at once.
    generation: Option<i32>,
    urgent: Option<(Instant, Cause)>,
}

/// This child is to end.
#[derive(Debug, Clone, Copy)]
pub struct EndOrder {
    cause: Cause,
    began: Instant,
    /// Since when it is to end at once.
    urgent: Option<Instant>,
}

impl Ending {
    /// To be asked once a second at least.
    pub fn look(&mut self) -> Option<EndOrder> {
        let urgent = AT_ONCE.load(Ordering::SeqCst) || process::end_was_signalled();
        if urgent && self.urgent.is_none() {
            self.urgent = Some((Instant::now(), Cause::at_once(self.generation.or_else(mpm::generation))));
        }
        self.generation = mpm::running_generation();
        if self.began.is_none() && (urgent || mpm::is_stopping() || is_left_behind()) {
            self.began = Some(Instant::now());
        }
        let began = self.began?;
        Some(match self.urgent {
            Some((since, cause)) => EndOrder { cause, began, urgent: Some(since) },
            None => EndOrder { cause: Cause::by_and_by(), began, urgent: None },
        })
    }

    /// [`Ending::look`] has given an order.
    pub fn has_begun(&self) -> bool {
        self.began.is_some()
    }
}

impl EndOrder {
    pub fn concerns(&self, session: &RelaySession) -> bool {
        match self.cause {
            _ if self.urgent.is_some() => true,
            Cause::Stop => true,
            Cause::Retirement => self.began.elapsed() >= RECOGNITION && session.is_due(self.began),
            Cause::Restart => session.is_due(self.began),
        }
    }

    /// When the session is given up that is told now.
    pub fn last_moment(&self, session: &RelaySession) -> Instant {
        match self.urgent {
            Some(since) => since + LAST_WORDS,
            None if self.cause == Cause::Stop => Instant::now() + STOP_LIMIT,
            None => session.last_moment(),
        }
    }

    /// No more is waited for than [`LAST_WORDS`].
    pub fn is_urgent(&self) -> bool {
        self.urgent.is_some()
    }

    pub fn cause(&self) -> Cause {
        self.cause
    }
}
