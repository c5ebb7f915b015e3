//! httpd's parent: the engine process beside httpd's own, its start, its replacement, its end.
//!
//! The parent keeps both ends of the pair of sockets that is the way to an engine (see [`crate::engine::entrance`]), so
//! that a handshake that comes while a crashed engine is being replaced waits in there instead of failing.

use super::logger;
use crate::apache::log::{self, Level};
use crate::apache::mpm;
use crate::apache::process::{self, DaemonRecord, Parent, Watcher};
use crate::apache::server::{self, Server};
use crate::engine::application::token;
use crate::engine::control::{self, ControlLink};
use crate::engine::entrance;
use crate::engine::handoff::{self, EngineClient};
use crate::engine::handoff_server::GRANT_TIME;
use crate::engine::health::signals::Signals;
use crate::engine::metrics::EngineArea;
use crate::engine::metrics::board::now;
use crate::engine::process::{self as engine, DRAIN_LIMIT, HANDLERS_LIMIT, Setup};
use crate::engine::programs;
use crate::front::signals::ENGINES;
use crate::front::{WebSocket, metrics, session_logs, signals};
use crate::handlers::{self, FRONTS};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, kill_process, pidfd_open};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The layout of what is remembered, under a name of its own.
const KEY: &CStr = c"mod_websocket engines 2";
/// Likewise, the token for requests to applications.
const TOKEN: &CStr = c"mod_websocket token 1";
/// An engine that ends within this time of its start has failed to start.
const STILLBORN: Duration = Duration::from_secs(1);
/// After so many failures in a row the next try waits for the monitor hook.
const HASTY_TRIES: u32 = 3;

fn engines(parent: &mut Parent) -> &mut [DaemonRecord; ENGINES] {
    parent.daemons(KEY)
}

/// The number of the engine that takes new sessions.
fn current(parent: &mut Parent) -> Option<usize> {
    engines(parent).iter().position(|engine| engine.serial != 0 && engine.retiring == 0)
}

/// In httpd's parent, with a new configuration: an engine of this module's version is running when this returns.
pub(crate) fn start(parent: &mut Parent, server: &Server) -> Result<(), String> {
    logger::install(server.log_level());
    let pool = server.configuration_pool();
    share_token(parent)?;
    let at_startup = engines(parent).iter().all(|engine| engine.serial == 0);
    match FRONTS.iter().try_for_each(|known| known.front.check(parent, server)) {
        // A restart must not end a server that runs: the handshakes in question are refused.
        Err(why) if !at_startup => log::main(Level::Error, &why),
        checked => checked?,
    }
    if at_startup {
        parent.on_end(server.process_pool(), stop);
    }
    if let Some(number) = current(parent) {
        let engine = &mut engines(parent)[number];
        match greet(server, engine) {
            Ok(version) if version == handoff::version() => {}
            Ok(version) => {
                log::main(
                    Level::Notice,
                    &format!("WS0205: the engine speaks \"{version}\": a new one takes its place"),
                );
                engine.retiring = 1;
                if let Err(why) = control(engine).and_then(|mut engine| engine.retire()) {
                    log::main(Level::Error, &format!("WS0206: cannot tell the old engine to drain: {why}"));
                }
            }
            // It has the configuration, and will come to it.
            Err(why) if signals::has_time(number) => log::main(
                Level::Warning,
                &format!(
                    "WS0170: the engine has not taken the new configuration yet ({why}), but it is alive and stays"
                ),
            ),
            Err(why) => {
                let pid = engine.watched.pid();
                log::main(Level::Error, &format!("WS0207: the engine {pid} does not answer ({why}): it is replaced"));
                signal(pid, Signal::KILL);
                // Where that is forbidden, this is the end of one that listens after all.
                engine.control.close();
                engine.retiring = 1;
            }
        }
    }
    if current(parent).is_none() {
        launch_first(parent, server)?;
    }
    for engine in engines(parent).iter_mut().filter(|engine| engine.watched.pid() > 0) {
        engine.watched.watch::<Engines>(pool);
    }
    Ok(())
}

/// What engine and children know each other by at requests to applications: made once, and theirs since they are forked.
fn share_token(parent: &mut Parent) -> Result<(), String> {
    let token = parent.secret::<{ token::LENGTH }>(TOKEN);
    if token.iter().all(|byte| *byte == 0) {
        token::fill(token).map_err(|why| format!("WS0260: {why}"))?;
    }
    token::set(token);
    Ok(())
}

/// The parent's way to tell an engine something.
fn control(engine: &DaemonRecord) -> io::Result<ControlLink> {
    engine.control.duplicate().map(ControlLink::from)
}

/// Tells the running engine of this configuration; returns its version.
fn greet(server: &Server, engine: &DaemonRecord) -> io::Result<String> {
    control(engine)?.configure(
        server.log_level(),
        server.error_log(),
        session_logs::current(server),
        handler_settings(server),
        server.config::<WebSocket>().stop_code(),
        server.config::<WebSocket>().memory(),
    )
}

/// What the configuration says to handlers as a whole.
fn handler_settings(server: &Server) -> Vec<(String, Vec<u8>)> {
    let config = server.config::<WebSocket>();
    let settings = FRONTS.iter().map(|known| (known.front.name().to_owned(), known.front.server_settings(config)));
    settings.filter_map(|(name, settings)| Some((name, settings?))).collect()
}

/// Makes the way to a new engine, and starts it.
fn launch_first(parent: &mut Parent, server: &Server) -> Result<(), String> {
    let engines = engines(parent);
    let serial = engines.iter().map(|engine| engine.serial).max().unwrap_or(0) + 1;
    let number = engines
        .iter()
        .position(|engine| engine.serial == 0)
        .ok_or("WS0208: too many engines of other versions are still running; stop httpd and start it again")?;
    let engine = &mut engines[number];
    let (entrance, inside) =
        entrance::pair().map_err(|why| format!("WS0209: the sockets of the engine cannot be made: {why}"))?;
    engine.parent = std::process::id() as i32;
    engine.serial = serial;
    engine.entrance.set(entrance);
    engine.inside.set(inside);
    launch(parent, server, number).map_err(|why| format!("WS0210: the engine process cannot be started: {why}"))
}

/// Starts the process of an engine whose entrance is there.
fn launch(parent: &mut Parent, server: &Server, number: usize) -> io::Result<()> {
    let inside = engines(parent)[number].inside.duplicate()?;
    let (ours, theirs) = control::pair()?;
    let this = std::process::id();
    let signals = signals::renew(number)?;
    let metrics = metrics::renew(number)?;
    let pid = parent.fork(|| run(server, inside, theirs, signals, metrics, this))?;
    let engine = &mut engines(parent)[number];
    engine.control.set(ours);
    engine.watched.set_pid(pid);
    engine.started = now();
    Ok(())
}

fn run(
    server: &Server,
    entrance: OwnedFd,
    control: OwnedFd,
    signals: Signals,
    metrics: EngineArea,
    parent: u32,
) -> i32 {
    let failed = |what: &str, why: &dyn std::fmt::Display| {
        log::main(Level::Critical, &format!("WS0211: the engine process cannot {what}: {why}"));
        1
    };
    // httpd's parent signals its process group on stop and restart: this process is told otherwise.
    if let Err(why) = rustix::process::setsid() {
        return failed("leave the process group", &why);
    }
    process::reset_signals();
    // Of its own: those of the configuration are closed here with all the rest.
    let session_logs = match session_logs::duplicates(server) {
        Ok(logs) => logs,
        Err(why) => return failed("keep the session logs", &why),
    };
    let mut keep = vec![entrance.as_fd(), control.as_fd()];
    keep.extend(server.error_log());
    keep.extend(session_logs.iter().map(|(_, log)| log.as_fd()));
    if let Err(why) = process::close_descriptors_but(&keep) {
        return failed("close what it inherited", &why);
    }
    // For ps(1) and top(1).
    let _ = rustix::thread::set_name(c"ws-engine");
    if !server::drop_privileges(server) {
        return failed("become the configured User and Group", &"see the line above");
    }
    // After the change of user, which clears it: no engine outlives a parent that was killed.
    if let Err(why) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return failed("ask for its parent's death", &why);
    }
    // That signal needs leave of the sender, which a parent without CAP_KILL does not have; this does not.
    let watched = getppid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent as i32) {
        return 0;
    }
    if let Err(why) = programs::adopt_orphans() {
        log::main(Level::Warning, &format!("WS0251: the engine cannot collect what programs leave behind: {why}"));
    }
    let setup = Setup {
        entrance,
        control,
        parent: watched,
        signals,
        metrics,
        grant_time: GRANT_TIME,
        threads: server.config::<WebSocket>().engine_threads(),
        memory: server.config::<WebSocket>().memory(),
        trim: process::trim,
        handlers: handlers::registry(),
        settings: handler_settings(server),
        stop_code: server.config::<WebSocket>().stop_code(),
        session_logs,
        configure: Box::new(|configuration, error_log| {
            let Some(server) = server::main() else { return };
            if let (Some(new), Some(old)) = (error_log, server.error_log()) {
                for target in [old, process::stderr()] {
                    if let Err(why) = process::redirect(target, new.as_fd()) {
                        log::main(Level::Error, &format!("WS0212: cannot switch to the new error log: {why}"));
                    }
                }
            }
            server.set_log_level(configuration.log_level);
            logger::install(configuration.log_level);
        }),
    };
    let status = match engine::run(setup) {
        Ok(()) => 0,
        Err(why) => failed("run", &why),
    };
    // Here and now: httpd's parent has no leave to do it without CAP_KILL.
    kill_session(std::process::id() as i32);
    status
}

struct Engines;

impl Watcher for Engines {
    fn told() {
        // Its children are ending, and may take their time: the next httpd need not wait for that.
        if mpm::is_shutting_down() {
            server::close_listeners();
        }
    }

    fn ended(parent: &mut Parent, pid: i32, status: i32) {
        let is_it = |engine: &DaemonRecord| engine.serial != 0 && engine.watched.pid() == pid;
        let Some(number) = engines(parent).iter().position(is_it) else { return };
        let engine = &mut engines(parent)[number];
        engine.watched.set_pid(0);
        kill_session(pid);
        metrics::ended(number);
        let engine = &mut engines(parent)[number];
        if engine.retiring != 0 {
            forget(engine);
            return;
        }
        let Some(server) = server::main().filter(|_| !mpm::is_stopping()) else { return };
        let stillborn = now().saturating_sub(engine.started) <= STILLBORN.as_secs();
        engine.failures = if stillborn { engine.failures + 1 } else { 0 };
        if engine.failures > HASTY_TRIES {
            log::main(
                Level::Critical,
                &format!(
                    "WS0202: the engine process {pid} ended again, status {status}: the next try is in some seconds"
                ),
            );
            return;
        }
        log::main(
            Level::Error,
            &format!("WS0201: the engine process {pid} ended, exit status or signal {status}: starting another"),
        );
        replace(parent, server, number);
    }
}

fn replace(parent: &mut Parent, server: &Server, number: usize) {
    match launch(parent, server, number) {
        Ok(()) => engines(parent)[number].watched.watch::<Engines>(server.configuration_pool()),
        Err(why) => log::main(Level::Critical, &format!("WS0203: the engine process cannot be started: {why}")),
    }
}

/// In httpd's parent, now and then: starts the engine where that failed before, and ends one that gives no sign of life.
pub(crate) fn tend(parent: &mut Parent, server: &Server) {
    metrics::sample();
    let Some(number) = current(parent).filter(|_| !mpm::is_stopping()) else { return };
    if engines(parent)[number].watched.pid() == 0 {
        replace(parent, server, number);
    }
    // It is replaced when it has ended.
    let pid = engines(parent)[number].watched.pid();
    if pid > 0 && signals::is_dead(server, pid, number, handlers::NUMBERED) {
        signal(pid, Signal::KILL);
    }
}

/// In a new child of httpd: its way to the engine, where there is one.
pub(crate) fn enter_child(main: &mut Parent) -> Option<EngineClient> {
    let number = current(main)?;
    let engine = &engines(main)[number];
    let client = match engine.entrance.duplicate() {
        Ok(entrance) => {
            let client = EngineClient::new(entrance);
            // Who has an engine has its memory from before.
            Some(match signals::gate(number) {
                Ok(gate) => client.behind(gate),
                Err(_) => client,
            })
        }
        Err(why) => {
            log::main(Level::Error, &format!("WS0250: no WebSockets in this child: no way to the engine: {why}"));
            None
        }
    };
    if engine.parent != std::process::id() as i32 {
        // What httpd's parent may say is for no child, and what the engine hears neither.
        engines(main).iter_mut().for_each(DaemonRecord::close);
    }
    client
}

/// At the end of httpd's parent: every engine closes its sessions, and ends.
///
/// The configuration is gone by now, and with it the server and its log: nothing of them may be used here.
fn stop(parent: &mut Parent) {
    let ours = |engine: &&mut DaemonRecord| engine.serial != 0;
    if !engines(parent).iter_mut().any(|engine| ours(&engine)) {
        return;
    }
    // The next httpd may have them, while clients take their time.
    server::close_listeners();
    for engine in engines(parent).iter_mut().filter(ours) {
        if control(engine).and_then(|engine| engine.stop()).is_err() {
            signal(engine.watched.pid(), Signal::TERM);
        }
        // As good as the word, for an engine that does not come to it.
        engine.control.close();
    }
    let last = Instant::now() + DRAIN_LIMIT + HANDLERS_LIMIT + Duration::from_secs(2);
    for engine in engines(parent).iter_mut().filter(ours) {
        let pid = engine.watched.pid();
        while pid > 0 && !process::has_ended(pid) {
            // Where that is forbidden (without CAP_KILL), nobody waits for it: its ends are closed, and it is init's.
            if Instant::now() > last && !signal(pid, Signal::KILL) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_session(pid);
        engine.watched.set_pid(0);
        forget(engine);
    }
}

/// Kills what an engine leaves behind: programs of its handlers, which are in its session (setsid(2)). The engine does so at its
/// end; but it had no time for that when it was killed.
fn kill_session(engine: i32) {
    // As long as one of its session is there, the number is given to nobody else.
    let is_left = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, which stands in parentheses, may have anything in it. Then: state, parent, group, session.
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' ').nth(3));
        fields.flatten().is_some_and(|session| session.parse() == Ok(engine))
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for pid in pids.filter(|pid| engine > 0 && *pid != std::process::id() as i32).filter(is_left) {
        signal(pid, Signal::KILL);
    }
}

/// An engine is no more, and the way to it neither.
fn forget(engine: &mut DaemonRecord) {
    engine.close();
    engine.serial = 0;
    engine.retiring = 0;
    engine.failures = 0;
}

/// False where that is forbidden, or there is no such process.
fn signal(pid: i32, signal: Signal) -> bool {
    // 0 and negative numbers would mean process groups.
    Pid::from_raw(pid).filter(|_| pid > 0).is_some_and(|pid| kill_process(pid, signal).is_ok())
}
