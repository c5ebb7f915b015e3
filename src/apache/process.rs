//! Processes: what httpd's parent needs to have one more beside its children, and what that one needs to be on its own.

use super::ffi;
use super::guard::guard;
use super::pool::Pool;
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What only the main thread of httpd's parent may do, in its hooks, and that of a child before it starts threads: safety.md 10.
pub struct Parent(());

impl Parent {
    /// # Safety
    /// safety.md 10: no other thread does what this allows, and there is no other of these.
    pub(super) unsafe fn new() -> Parent {
        Parent(())
    }

    /// Forks. The child runs `body` and ends with its answer as exit status, without any of httpd's cleanups.
    ///
    /// # Errors
    /// fork(2) fails.
    pub fn fork(&mut self, body: impl FnOnce() -> i32) -> io::Result<i32> {
        // SAFETY: safety.md 10: there is one thread, so the child's memory is whole. The child never returns from here.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let status = guard("a forked process", 101, body);
                // Not exit(3): httpd's atexit functions end children that are not ours.
                // SAFETY: ends the process.
                unsafe { libc::_exit(status) }
            }
            pid => Ok(pid),
        }
    }

    /// The daemons that httpd's parent remembers under this key (ap_retained_data_create): the memory keeps its content
    /// through restarts of the configuration, and through another copy of this module in the place of this one. The key
    /// stands for the layout.
    pub fn daemons<const N: usize>(&mut self, key: &'static CStr) -> &mut [DaemonRecord; N] {
        // SAFETY: safety.md 10. The memory has the size, lives as long as the process and is zero at first, which is a value:
        // the structure is C's, of numbers and pointers. APR aligns for any type.
        unsafe {
            let mut data = ffi::ap_retained_data_get(key.as_ptr());
            if data.is_null() {
                data = ffi::ap_retained_data_create(key.as_ptr(), size_of::<[DaemonRecord; N]>());
            }
            &mut *data.cast()
        }
    }

    /// Bytes that httpd's parent remembers under this key, likewise; zeros at first.
    pub fn secret<const N: usize>(&mut self, key: &'static CStr) -> &mut [u8; N] {
        // SAFETY: as of `daemons`.
        unsafe {
            let mut data = ffi::ap_retained_data_get(key.as_ptr());
            if data.is_null() {
                data = ffi::ap_retained_data_create(key.as_ptr(), N);
            }
            &mut *data.cast()
        }
    }

    /// Calls `what`, one for all pools, when this one ends in this process: children run its cleanups too, when they exit.
    pub fn on_end(&self, pool: &Pool, what: fn(&mut Parent)) {
        type AtEnd = fn(&mut Parent);
        static AT_END: OnceLock<(u32, AtEnd)> = OnceLock::new();
        AT_END.get_or_init(|| (std::process::id(), what));
        pool.on_end(|| {
            if let Some((_, what)) = AT_END.get().filter(|(process, _)| *process == std::process::id()) {
                // SAFETY: safety.md 10: httpd's parent is at its end, and in no hook.
                what(&mut unsafe { Parent::new() });
            }
        });
    }
}

/// Gives the system back what the allocator has of freed memory.
pub fn trim() {
    // SAFETY: malloc_trim(3) is thread-safe, and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Puts a forked process's signals in order: those with which httpd's parent is told to restart, and a terminal's, are not
/// for it; TERM ends it until it says otherwise; a closed socket is an error and no signal.
pub fn reset_signals() {
    extern "C" fn nothing(_: c_int) {}
    let to = |signal: c_int, disposition: libc::sighandler_t| {
        // SAFETY: plain dispositions, and a handler that does nothing.
        unsafe { libc::signal(signal, disposition) };
    };
    // Not SIG_IGN, which programs that this process starts would inherit. (std undoes that for SIGPIPE.)
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGWINCH, libc::SIGINT, libc::SIGQUIT] {
        to(signal, nothing as extern "C" fn(c_int) as libc::sighandler_t);
    }
    to(libc::SIGPIPE, libc::SIG_IGN);
    for signal in [libc::SIGTERM, libc::SIGCHLD, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGILL, libc::SIGFPE]
    {
        to(signal, libc::SIG_DFL);
    }
    // SAFETY: an empty set is valid; nothing is kept.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// The signals with which a thread is told that it has crashed.
pub(super) const CRASHES: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT];

/// Blocks all signals in the calling thread but those of its own crash: they are for the threads of httpd that wait for
/// them.
pub fn block_signals() {
    // SAFETY: a full set is valid; nothing is kept.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        for signal in CRASHES {
            libc::sigdelset(&mut all, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
}

/// A signal that ends this child at once has come while it was to be noted.
static END_SIGNALLED: AtomicBool = AtomicBool::new(false);

/// What httpd's parent ends a child with: at a stop, and at a restart under prefork.
const ENDINGS: [c_int; 2] = [libc::SIGTERM, libc::SIGHUP];

extern "C" fn note_signal(_: c_int, about: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel says where the signal is from; getpid(2) may be called in a handler.
    let from_here = unsafe { (*about).si_pid() == libc::getpid() };
    // With the same signal the threads of a child wake its main thread, at a graceful end, too.
    if !from_here {
        END_SIGNALLED.store(true, Ordering::SeqCst);
    }
}

fn noting() -> libc::sigaction {
    // SAFETY: all zeros is a value; a handler that stores a flag may run at any time.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = note_signal;
        action.sa_sigaction = handler as libc::sighandler_t;
        // No SA_RESTART: it is by an interrupted call that the main thread of a child wakes.
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigemptyset(&mut action.sa_mask);
        action
    }
}

/// SIGTERM is noted from now on. For a child with threads that ends when its connections have: the MPM lets it do nothing.
pub fn note_end_signal() {
    // SAFETY: a valid action; what was there is not wanted back.
    unsafe { libc::sigaction(libc::SIGTERM, &noting(), std::ptr::null_mut()) };
}

/// httpd's parent has said that this child is to end at once, while that was noted.
pub fn end_was_signalled() -> bool {
    END_SIGNALLED.load(Ordering::SeqCst)
}

/// While this lives, the signals that would end this process at once are noted; afterwards they take effect. For a process of
/// one thread.
pub struct Deferral([libc::sigaction; 2]);

impl Deferral {
    /// Defers them from now on.
    pub fn begin() -> Deferral {
        let before = ENDINGS.map(|signal| {
            // SAFETY: all zeros is a value, and filled in where the call succeeds, as it does for these signals.
            unsafe {
                let mut before: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &noting(), &mut before);
                before
            }
        });
        Deferral(before)
    }
}

impl Drop for Deferral {
    fn drop(&mut self) {
        for (signal, before) in ENDINGS.iter().zip(&self.0) {
            // SAFETY: what was in force before.
            unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
        }
        if end_was_signalled() {
            // SAFETY: the MPM's handler ends the process wherever it is.
            unsafe { libc::raise(libc::SIGTERM) };
        }
    }
}

/// Closes every descriptor that a forked process inherited but the standard ones and `keep`: httpd's listening sockets,
/// its other logs, and the pipes of log programs, which would otherwise outlive a restart in this process.
///
/// # Errors
/// /proc is not there.
pub fn close_descriptors_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    // A socket of syslog(3) would be reused by number: closed here, the C library opens it anew.
    // SAFETY: no arguments.
    unsafe { libc::closelog() };
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && keep.iter().all(|kept| kept.as_raw_fd() != *fd)) {
        // SAFETY: this process uses none of what httpd opened; a descriptor that is gone (the folder's own) is EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Lets `target` be what `source` is, as `2>&1` does.
///
/// # Errors
/// dup3(2) fails.
pub fn redirect(target: BorrowedFd<'_>, source: BorrowedFd<'_>) -> io::Result<()> {
    // Of the standard ones programs have their own, and the others are not for them.
    let flags = if target.as_raw_fd() > 2 { libc::O_CLOEXEC } else { 0 };
    // SAFETY: both are open; whoever uses `target` expects it to be redirected.
    match unsafe { libc::dup3(source.as_raw_fd(), target.as_raw_fd(), flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub fn stderr() -> BorrowedFd<'static> {
    // SAFETY: httpd keeps 2 open (it is the error log, or /dev/null).
    unsafe { BorrowedFd::borrow_raw(2) }
}

/// A descriptor in a [`DaemonRecord`]. All zeros is none.
#[repr(transparent)]
pub struct Descriptor(RawFd);

impl Descriptor {
    /// Puts this one there, and closes in this process what was there.
    pub fn set(&mut self, fd: OwnedFd) {
        self.close();
        self.0 = fd.into_raw_fd();
    }

    /// Another descriptor for the same.
    ///
    /// # Errors
    /// There is none, or dup(2) fails.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        if self.0 <= 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: `set` was given the descriptor, and it is open until `close`.
        unsafe { BorrowedFd::borrow_raw(self.0) }.try_clone_to_owned()
    }

    /// Closes it, in this process.
    pub fn close(&mut self) {
        let fd = std::mem::replace(&mut self.0, 0);
        if fd > 0 {
            // SAFETY: the number was put there by `set`, and is forgotten here.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

/// Asks a child of this process whether it has ended, and collects it if so.
pub fn has_ended(pid: i32) -> bool {
    let mut status = 0;
    // SAFETY: a pid of a child of ours, or one that is gone (ECHILD).
    unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) != 0 }
}

/// Waits for the end of a child of this process, and kills it if that does not come in time; returns its exit status, -1 if a
/// signal ended it.
pub fn wait_for(pid: i32, limit: Duration) -> Option<i32> {
    let last = Instant::now() + limit;
    loop {
        let mut status = 0;
        // SAFETY: a pid of a child of ours.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if Instant::now() < last => std::thread::sleep(Duration::from_millis(2)),
            0 => {
                // SAFETY: it has not ended, so the pid is still its own; it does not wait for anything after SIGKILL.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, &mut status, 0);
                }
                return None;
            }
            _ if libc::WIFEXITED(status) => return Some(libc::WEXITSTATUS(status)),
            _ => return Some(-1),
        }
    }
}

/// A process that httpd's parent looks after: APR's apr_proc_t, in a [`DaemonRecord`].
#[repr(C)]
pub struct Watched(ffi::apr_proc_t);

impl Watched {
    /// Its pid; 0 for none.
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    pub fn set_pid(&mut self, pid: i32) {
        self.0.pid = pid;
    }

    /// Lets httpd's parent call `W` when this process ends, as long as the configuration's pool lives.
    pub fn watch<W: Watcher>(&mut self, pool: &Pool) {
        let proc = &raw mut self.0;
        // SAFETY: what `Parent::daemons` lends stays as long as the process, the registration as long as the pool.
        unsafe {
            ffi::apr_proc_other_child_register(
                proc,
                Some(changed::<W>),
                proc.cast(),
                std::ptr::null_mut(),
                pool.as_ptr(),
            );
        }
    }
}

/// Who is told of a [`Watched`] process.
pub trait Watcher {
    /// The process of that pid has ended, with this exit status, or by the signal of this number: APR does not tell which. It is
    /// watched no more.
    fn ended(parent: &mut Parent, pid: i32, status: i32);

    /// Anything else that httpd's parent tells: it goes through its processes at a restart.
    fn told();
}

extern "C" fn changed<W: Watcher>(reason: c_int, data: *mut c_void, status: c_int) {
    guard("a process's end", (), || {
        // SAFETY: `watch` registered the address of an apr_proc_t in memory that stays.
        let pid = unsafe { (*data.cast::<ffi::apr_proc_t>()).pid };
        if reason == ffi::APR_OC_REASON_DEATH as c_int || reason == ffi::APR_OC_REASON_LOST as c_int {
            // SAFETY: the key of the registration.
            unsafe { ffi::apr_proc_other_child_unregister(data) };
            // SAFETY: safety.md 10: httpd's parent tends to its processes, outside of hooks.
            W::ended(&mut unsafe { Parent::new() }, pid, status);
        } else {
            W::told();
        }
    });
}

/// A process beside httpd's children, as httpd's parent remembers it through restarts. All zeros is none.
#[repr(C)]
pub struct DaemonRecord {
    /// Its pid, in the form in which APR watches it.
    pub watched: Watched,
    /// Of a pair of sockets: the end that httpd's children get.
    pub entrance: Descriptor,
    /// And the one that the process gets, and the one after it.
    pub inside: Descriptor,
    /// The parent's end of a pair that nobody has but it and the process.
    pub control: Descriptor,
    /// What tells it from others of the same parent.
    pub serial: u32,
    pub parent: i32,
    /// When it was started: seconds since 1970.
    pub started: u64,
    /// How often in a row one ended just after its start.
    pub failures: u32,
    /// It was told to end when it has nothing more to do.
    pub retiring: u32,
}

impl DaemonRecord {
    /// Closes all of its descriptors, in this process.
    pub fn close(&mut self) {
        for descriptor in [&mut self.entrance, &mut self.inside, &mut self.control] {
            descriptor.close();
        }
    }
}
