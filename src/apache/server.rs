//! httpd's server_rec, and what is known of the server as a whole.

use super::ffi;
use super::log;
use super::module::HttpdModule;
use super::pool::Pool;
use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::ffi::{CStr, OsStr, c_int};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// A virtual host, or the main server.
#[repr(transparent)]
pub struct Server(UnsafeCell<ffi::server_rec>);

impl Server {
    /// # Safety
    /// `ptr` is a server of the running configuration that outlives `'a`.
    pub(super) unsafe fn from_ptr<'a>(ptr: *mut ffi::server_rec) -> &'a Server {
        // SAFETY: the caller's word; the wrapper is transparent.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::server_rec {
        self.0.get()
    }

    fn record(&self) -> &ffi::server_rec {
        // SAFETY: safety.md 5, 6.
        unsafe { &*self.0.get() }
    }

    /// The name by `ServerName`, whatever clients call it.
    pub fn name(&self) -> Cow<'_, str> {
        // SAFETY: httpd gives every server a name before it serves requests; it lives as long as the configuration.
        unsafe {
            let name = self.record().server_hostname;
            if name.is_null() { Cow::Borrowed("") } else { CStr::from_ptr(name).to_string_lossy() }
        }
    }

    /// What the configuration calls it: `ServerName:port`. The port is that of `ServerName`, or else that of the addresses that
    /// a virtual host is for; without one, the name alone.
    pub fn label(&self) -> String {
        let own = self.record().port;
        // SAFETY: NULL, or a list that lives as long as the configuration.
        let address = unsafe { self.record().addrs.as_ref() }.map_or(0, |address| address.host_port);
        match [own, address].into_iter().find(|port| *port != 0) {
            Some(port) => format!("{}:{port}", self.name()),
            None => self.name().into_owned(),
        }
    }

    /// `Timeout`.
    pub fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.record().timeout).ok().map(Duration::from_micros)
    }

    /// The pool that lives as long as the process: through all restarts.
    pub fn process_pool(&self) -> &Pool {
        // SAFETY: every server points to the one process_rec, whose pool ends with the process.
        unsafe { Pool::from_ptr((*self.record().process).pool) }
    }

    /// The pool that lives as long as this configuration.
    pub fn configuration_pool(&self) -> &Pool {
        // SAFETY: safety.md 2; `pconf` is cleared, not destroyed, when the configuration is read anew.
        unsafe { Pool::from_ptr((*self.record().process).pconf) }
    }

    /// This server and those after it: all of them, from the main server on, then the virtual hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Server> {
        // SAFETY: `next` is NULL or another server of the same configuration.
        std::iter::successors(Some(self), |server| unsafe {
            (!server.record().next.is_null()).then(|| Server::from_ptr(server.record().next))
        })
    }

    /// What the directives of module `M` outside of all sections of this server say.
    pub fn config<M: HttpdModule>(&self) -> &M::Config {
        // SAFETY: `lookup_defaults` is valid, and holds what `create_dir_config` of `M` made.
        unsafe { &*ffi::ap_get_module_config(self.record().lookup_defaults, M::record()).cast() }
    }

    /// The level that `LogLevel` sets for the module that the log speaks for (APLOG_*).
    pub fn log_level(&self) -> i32 {
        // SAFETY: safety.md 6.
        unsafe { ffi::ap_get_server_module_loglevel(self.as_ptr(), log::module_index()) }
    }

    /// Sets what [`Server::log_level`] answers, in this process.
    pub fn set_log_level(&self, level: i32) {
        // SAFETY: the server is valid. The first call allocates from the pool of the process, later ones write one int.
        unsafe {
            let config = &raw mut (*self.as_ptr()).log;
            ffi::ap_set_module_loglevel((*self.record().process).pool, config, log::module_index(), level);
        }
    }

    /// The descriptor of the error log; none when it goes to syslog.
    pub fn error_log(&self) -> Option<BorrowedFd<'_>> {
        let mut fd: c_int = -1;
        // SAFETY: the file, if any, is open as long as the configuration lives.
        unsafe {
            if self.record().error_log.is_null()
                || ffi::apr_os_file_get(&mut fd, self.record().error_log) != 0
                || fd < 0
            {
                return None;
            }
            Some(BorrowedFd::borrow_raw(fd))
        }
    }
}

/// The main server of the current configuration. The reference is good until this process reads its configuration anew,
/// which children and the processes that [`super::process::Parent::fork`] makes never do.
pub fn main() -> Option<&'static Server> {
    // SAFETY: NULL before the first configuration, and then the main server.
    unsafe { (!ffi::ap_server_conf.is_null()).then(|| Server::from_ptr(ffi::ap_server_conf)) }
}

/// The file that has the parent's number (`PidFile`): written before the first child is there, removed when httpd stops.
pub fn pid_file(pool: &Pool) -> Option<PathBuf> {
    // SAFETY: the name is NULL or a string of the configuration; the answer is NULL or a string in the pool.
    unsafe {
        if ffi::ap_pid_fname.is_null() {
            return None;
        }
        let path = ffi::ap_server_root_relative(pool.as_ptr(), ffi::ap_pid_fname);
        (!path.is_null()).then(|| OsStr::from_bytes(CStr::from_ptr(path).to_bytes()).into())
    }
}

/// A path as the configuration has it: it begins at `ServerRoot`, unless it is absolute.
pub fn root_relative(path: &str) -> PathBuf {
    // Unit tests have no httpd around them.
    #[cfg(test)]
    let root = OsStr::new("/");
    // SAFETY: NULL, or a string that stays as long as the configuration is read.
    #[cfg(not(test))]
    let root = unsafe {
        match ffi::ap_server_root {
            root if root.is_null() => OsStr::new("/"),
            root => OsStr::from_bytes(CStr::from_ptr(root).to_bytes()),
        }
    };
    PathBuf::from(root).join(path)
}

/// Closes the sockets that httpd listens on, in this process.
pub fn close_listeners() {
    // SAFETY: the list and its sockets live as long as the process. What is closed already stays so.
    unsafe { ffi::ap_close_listeners_ex(ffi::ap_listeners) };
}

/// This reading of the configuration is the trial before the real one at startup.
pub fn is_preflight() -> bool {
    // SAFETY: no arguments that matter.
    unsafe { ffi::ap_state_query(ffi::AP_SQ_MAIN_STATE as c_int) == ffi::AP_SQ_MS_CREATE_PRE_CONFIG as c_int }
}

/// Becomes the configured User and Group (and what other modules hook to that, as chroot).
pub fn drop_privileges(server: &Server) -> bool {
    // SAFETY: the pool and the server live as long as the process.
    unsafe { ffi::ap_run_drop_privileges(server.process_pool().as_ptr(), server.as_ptr()) == ffi::OK as c_int }
}

/// A module of that name ("mod_ssl.c") is loaded, or a part of httpd.
pub fn has_module(name: &CStr) -> bool {
    // SAFETY: the list of modules is complete once the configuration has been read.
    !unsafe { ffi::ap_find_linked_module(name.as_ptr()) }.is_null()
}
