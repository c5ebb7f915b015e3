//! Crashes in code of others that runs in httpd's processes: one line in the error log that names it.
//!
//! Everything that the signal handler does is async-signal-safe (signal-safety(7)): it reads atomics, formats into a
//! buffer on its stack, writes, and goes on with the handler that was there before.

use super::process::CRASHES;
use super::{ffi, log};
use std::ffi::{CStr, c_char, c_int, c_long};
use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicPtr, AtomicU64, Ordering};

/// Threads that can be inside at a time; of more, the crash is not told.
const SLOTS: usize = 512;

/// What a thread is doing for whom.
struct Slot {
    /// Linux's number of the thread; 0 for a free slot.
    thread: AtomicI32,
    what: AtomicPtr<Note>,
    session: AtomicU64,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot { thread: AtomicI32::new(0), what: AtomicPtr::new(std::ptr::null_mut()), session: AtomicU64::new(0) }
}; SLOTS];

/// What a line says that does not change from call to call.
pub struct Note {
    pub owner: String,
    pub function: &'static str,
}

/// A thread inside code of others, until dropped.
pub struct Inside<'a> {
    slot: Option<&'static Slot>,
    previous: *mut Note,
    previous_session: u64,
    _note: &'a Note,
}

fn thread_number() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// Notes that the calling thread enters what `note` names, for a session.
pub fn enter(note: &Note, session: u64) -> Inside<'_> {
    let thread = thread_number();
    // A thread of a pool finds the slot again that it had before, unless another came by.
    let begin = thread as usize % SLOTS;
    let slots = || TABLE[begin..].iter().chain(&TABLE[..begin]);
    let own = slots().take(16).find(|slot| slot.thread.load(Ordering::Relaxed) == thread);
    let slot = own.or_else(|| {
        slots().find(|slot| slot.thread.compare_exchange(0, thread, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    });
    let mut inside = Inside { slot, previous: std::ptr::null_mut(), previous_session: 0, _note: note };
    if let Some(slot) = slot {
        inside.previous_session = slot.session.swap(session, Ordering::Relaxed);
        inside.previous = slot.what.swap(std::ptr::from_ref(note).cast_mut(), Ordering::Release);
    }
    inside
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.what.store(self.previous, Ordering::Release);
            slot.session.store(self.previous_session, Ordering::Relaxed);
            if self.previous.is_null() {
                slot.thread.store(0, Ordering::Release);
            }
        }
    }
}

/// The module's name, as httpd's log has it.
static MODULE: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());
static LOG: AtomicI32 = AtomicI32::new(2);
static EAST_OF_UTC: AtomicI64 = AtomicI64::new(0);
static PREVIOUS: [AtomicPtr<libc::sigaction>; CRASHES.len()] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; CRASHES.len()];

/// From now on, a crash inside what was noted is told on this descriptor, which stays open.
pub fn tell(descriptor: RawFd) {
    static ONCE: Once = Once::new();
    LOG.store(descriptor, Ordering::Relaxed);
    // SAFETY: safety.md 6: a string that children keep, or NULL.
    let name = unsafe { ffi::ap_find_module_short_name(log::module_index()) };
    MODULE.store(name.cast_mut(), Ordering::Release);
    ONCE.call_once(|| {
        // SAFETY: plain calls with valid pointers; the previous actions are kept for ever, as the handler needs them.
        unsafe {
            let now = libc::time(std::ptr::null_mut());
            let mut local = std::mem::zeroed();
            if !libc::localtime_r(&now, &mut local).is_null() {
                EAST_OF_UTC.store(local.tm_gmtoff as i64, Ordering::Relaxed);
            }
            for (signal, kept) in CRASHES.iter().zip(&PREVIOUS) {
                let previous: *mut libc::sigaction = Box::leak(Box::new(std::mem::zeroed()));
                libc::sigaction(*signal, std::ptr::null(), previous);
                kept.store(previous, Ordering::Release);
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = crashed as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(*signal, &action, std::ptr::null_mut());
            }
        }
    });
}

/// Gives the calling thread a stack for signal handlers, so that a crash for want of stack can be told too. For as long as
/// the process lives.
pub fn prepare_thread() {
    const SIZE: usize = 64 * 1024;
    // SAFETY: the memory is leaked; the structure is complete.
    unsafe {
        let memory = Box::leak(vec![0_u8; SIZE].into_boxed_slice());
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: SIZE };
        libc::sigaltstack(&stack, std::ptr::null_mut());
    }
}

// No panic guard: nothing in it can panic, and unwinding is nothing for a signal handler.
extern "C" fn crashed(signal: c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let thread = thread_number();
    let inside = TABLE.iter().find(|slot| slot.thread.load(Ordering::Relaxed) == thread);
    if let Some(slot) = inside {
        // SAFETY: not NULL while the thread is inside, and then valid: `Inside` borrows it. This is that thread.
        if let Some(note) = unsafe { slot.what.load(Ordering::Acquire).as_ref() } {
            report(note, slot.session.load(Ordering::Relaxed), signal, thread);
        }
    }
    let index = CRASHES.iter().position(|known| *known == signal).unwrap_or(0);
    // SAFETY: the action is what sigaction(2) said before ours was there: a function of one of two types, or a constant.
    // Without one the signal's default follows: it is raised again, and taken when this handler returns.
    unsafe {
        let previous = PREVIOUS[index].load(Ordering::Acquire).as_ref();
        match previous {
            Some(action) if action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN => {
                if action.sa_flags & libc::SA_SIGINFO != 0 {
                    let function: extern "C" fn(c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(action.sa_sigaction);
                    function(signal, info, context);
                } else {
                    let function: extern "C" fn(c_int) = std::mem::transmute(action.sa_sigaction);
                    function(signal);
                }
            }
            _ => {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}

fn report(note: &Note, session: u64, signal: c_int, thread: i32) {
    let mut line = Line { bytes: [0; 1024], length: 0 };
    line.time();
    line.text("[");
    let module = MODULE.load(Ordering::Acquire);
    if !module.is_null() {
        // SAFETY: a string, see `tell`.
        line.text(unsafe { CStr::from_ptr(module) }.to_str().unwrap_or_default());
    }
    line.text(":crit] [pid ");
    line.number(u64::from(std::process::id()), 0);
    line.text(":tid ");
    line.number(thread as u64, 0);
    line.text("] WS0240: ");
    line.text(note.owner.as_str());
    line.text(" crashed in ");
    line.text(note.function);
    line.text(", signal ");
    line.number(signal as u64, 0);
    line.text(match signal {
        libc::SIGSEGV => " (segmentation fault)",
        libc::SIGBUS => " (bus error)",
        libc::SIGFPE => " (arithmetic error)",
        libc::SIGILL => " (illegal instruction)",
        _ => " (aborted)",
    });
    if session != 0 {
        line.text(", session ");
        line.number(session, 0);
    }
    line.text(": this child of httpd ends\n");
    // SAFETY: the buffer is that long. A log that cannot be written to stays without the line.
    unsafe { libc::write(LOG.load(Ordering::Relaxed), line.bytes.as_ptr().cast(), line.length) };
}

/// A line on the stack; what does not fit is left out.
struct Line {
    bytes: [u8; 1024],
    length: usize,
}

impl Line {
    fn text(&mut self, text: &str) {
        for byte in text.as_bytes() {
            // The newline at the end must fit too.
            if self.length < self.bytes.len() - 1 || (*byte == b'\n' && self.length < self.bytes.len()) {
                self.bytes[self.length] = *byte;
                self.length += 1;
            }
        }
    }

    fn number(&mut self, number: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let (mut rest, mut begin) = (number, digits.len());
        while rest > 0 || begin == digits.len() {
            begin -= 1;
            digits[begin] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        begin = begin.min(digits.len() - width);
        if let Ok(text) = std::str::from_utf8(&digits[begin..]) {
            self.text(text);
        }
    }

    /// The time as httpd writes it.
    fn time(&mut self) {
        // SAFETY: a zeroed timespec is valid, and filled in.
        let now = unsafe {
            let mut now: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_REALTIME, &mut now);
            now
        };
        let local = now.tv_sec as i64 + EAST_OF_UTC.load(Ordering::Relaxed);
        let (days, seconds) = (local.div_euclid(86_400), local.rem_euclid(86_400) as u64);
        let (year, month, day) = date(days);
        self.text("[");
        self.text(["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][days.rem_euclid(7) as usize]);
        self.text(" ");
        self.text(
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1],
        );
        self.text(" ");
        self.number(day, 2);
        for (separator, number) in [(" ", seconds / 3600), (":", seconds / 60 % 60), (":", seconds % 60)] {
            self.text(separator);
            self.number(number, 2);
        }
        self.text(".");
        let micros: c_long = now.tv_nsec / 1000;
        self.number(micros as u64, 6);
        self.text(" ");
        self.number(year as u64, 0);
        self.text("] ");
    }
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01. (Counted from a 1 March: leap days come
/// last.)
fn date(days: i64) -> (i64, u64, u64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, (day_of_year - (153 * shifted + 2) / 5 + 1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(-1), (1969, 12, 31));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_780), (2026, 11, 23));
    }

    #[test]
    fn a_line_never_overflows() {
        let mut line = Line { bytes: [0; 1024], length: 0 };
        line.time();
        line.number(7, 6);
        line.text(&"x".repeat(2000));
        line.text("\n");
        assert_eq!((line.length, line.bytes[1023]), (1024, b'\n'));
        assert!(line.bytes.starts_with(b"["));
    }

    #[test]
    fn who_is_inside_of_two_is_in_the_inner_one() {
        let note = |function| Note { owner: "a plugin".into(), function };
        let (outer, inner) = (note("outer"), note("inner"));
        let thread = thread_number();
        let what = || {
            let slot = TABLE.iter().find(|slot| slot.thread.load(Ordering::Relaxed) == thread);
            // SAFETY: the notes live.
            slot.and_then(|slot| unsafe { slot.what.load(Ordering::Relaxed).as_ref() }).map(|note| note.function)
        };
        let first = enter(&outer, 1);
        let second = enter(&inner, 2);
        assert_eq!(what(), Some("inner"));
        drop(second);
        assert_eq!(what(), Some("outer"));
        drop(first);
        assert_eq!(what(), None);
    }
}
