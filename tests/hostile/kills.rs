//! SIGKILL for the engine and for httpd's children, one after the other, under load: pages are served, and afterwards all is as
//! it was.

use crate::Scale;
use crate::harness::wait::{PATIENCE, holds_within};
use crate::harness::{Httpd, Mpm, wait_until};
use crate::load;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two kills.
const PAUSE: Duration = Duration::from_millis(250);
/// Every so many kills one is the engine's.
const ENGINE: u64 = 6;

pub(crate) fn run(scale: Scale) -> String {
    let mpms: &[(Mpm, f64)] = if scale.is_long() {
        &[(Mpm::Event, 60.0), (Mpm::Worker, 60.0), (Mpm::Prefork, 60.0)]
    } else {
        &[(Mpm::Event, 180.0)]
    };
    let told: Vec<String> = mpms.iter().map(|(mpm, seconds)| kill(*mpm, scale.time(*seconds))).collect();
    told.join("; ")
}

fn kill(mpm: Mpm, time: Duration) -> String {
    let server = Httpd::new(mpm).workers(8).config("LogLevel notice websocket:notice").echo().start();
    for line in [
        "WS0201: the engine process",
        "WS0202: the engine process",
        // No session, or no socket for one: its child or the engine had just been killed.
        "WS0007",
        "WS0009",
        "WS0010",
        "WS0011",
        "WS0018",
        // Nobody answers until there is another engine.
        "WS0165: the engine is late",
        "WS0166: the engine answers again",
        "WS0167: ",
        "WS0168: a new engine",
        "WS0116: a handoff link broke",
        "AH00052",
        "server reached MaxRequestWorkers",
    ] {
        server.tolerate_log(line);
    }
    let to = server.address();
    let children = server.children().len();
    let before = server.parent().descriptors().len();
    let done = AtomicBool::new(false);
    let [opened, lost, pages, failed] = [const { AtomicU64::new(0) }; 4];
    let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
    let (mut kills, mut engines) = (0, 0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let session = load::open(to, "/echo").and_then(|mut stream| {
                        add(&opened);
                        (0..20).try_for_each(|_| load::echo(&mut stream))
                    });
                    if session.is_err() {
                        add(&lost);
                        thread::park_timeout(Duration::from_millis(5));
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // One whose child is killed is asked for again, as a browser does.
                wait_until("a page is served", PATIENCE, || {
                    let is_served = load::page(to).is_ok_and(|status| status == 200);
                    add(if is_served { &pages } else { &failed });
                    is_served
                });
            }
        });
        // Whatever fails here, they end.
        let _done = Done(&done);
        let end = Instant::now() + time;
        while Instant::now() < end {
            kills += 1;
            if kills % ENGINE == 0 {
                let Some(engine) = server.engines().first().copied() else { continue };
                engine.signal(Signal::KILL);
                engines += 1;
            } else if let Some(child) = server.children().get(kills as usize % children) {
                child.signal(Signal::KILL);
            }
            thread::park_timeout(PAUSE);
        }
    });
    // The parent waits some seconds before it starts an engine that has ended several times.
    wait_until("there is an engine again", 2 * PATIENCE, || load::open(to, "/echo").is_ok());
    // As many as httpd wants when there is little to do; prefork is content with fewer.
    wait_until("there are no more children than before", PATIENCE, || {
        (1..=children).contains(&server.children().len())
    });
    for _ in 0..50 {
        let mut session = load::open(to, "/echo").expect("a session");
        load::echo(&mut session).expect("its echo");
    }
    assert_eq!(server.engines().len(), 1);
    let held = || server.parent().descriptors().len();
    assert!(holds_within(PATIENCE, || held() <= before), "the parent has {} descriptors, and had {before}", held());
    let [opened, lost, pages, failed] = [opened, lost, pages, failed].map(AtomicU64::into_inner);
    assert!(opened > 0 && pages > 0);
    format!(
        "{mpm:?}: {kills} kills, {engines} of the engine; {opened} sessions opened, {lost} lost or refused; {pages} pages, {failed} \
         asked for again"
    )
}

/// Sets it when dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
