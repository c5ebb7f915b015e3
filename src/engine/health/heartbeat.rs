//! Signs of life: each engine thread notes when it came by last, and what it is at. httpd's parent replaces an engine of which
//! a thread has stopped doing so ([`Watchdog`]), and httpd's children see from it whether they wait in vain.
//!
//! A thread comes by whenever its runtime goes round, when it goes to sleep and when it wakes, which it does every other
//! second though there is nothing to do; whenever a session has its turn; and between the slices of long work.

use super::signals::{Signals, now};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{LocalOptions, LocalRuntime};

/// How long a thread that has nothing to do sleeps.
pub const NAP: Duration = Duration::from_secs(2);
/// What a round of the parent counts for, at most (milliseconds): it looks about every ten seconds. When it comes later, it has
/// not run, and perhaps nobody has.
const ROUND: u64 = 10_000;
/// Rounds in which a thread gave no sign, at least, before its engine is replaced.
const ROUNDS: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// It has not started yet.
    Starting = 1,
    Waiting = 2,
    /// It goes from one task to the next.
    Running = 3,
    Session = 4,
    /// A handler is asked for a session, or is called.
    Asked = 5,
    FanOut = 6,
    Decoding = 7,
    Encoding = 8,
}

impl Activity {
    fn text(number: u8) -> &'static str {
        match number {
            1 => "starting",
            2 => "waiting for something to do",
            3 => "between two tasks",
            4 => "in a session",
            5 => "asking the handler",
            6 => "at a message for many",
            7 => "decoding",
            8 => "encoding",
            _ => "ended",
        }
    }
}

/// A handler, as its [`Registry`](crate::engine::Registry) numbers it; 0 for none.
pub type HandlerNumber = u8;

thread_local! {
    /// The word of this thread.
    static BEAT: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

fn word(time: u64, handler: HandlerNumber, activity: u8) -> u64 {
    time << 16 | u64::from(handler) << 8 | u64::from(activity)
}

fn time(word: u64) -> u64 {
    word >> 16
}

/// This thread is alive, and at this. Nothing where it gives no signs.
pub fn sign(activity: Activity) {
    if let Some(beat) = BEAT.get() {
        beat.store(word(now(), 0, activity as u8), Ordering::Relaxed);
    }
}

/// This thread is alive, and at this until the value is dropped; then it is at what it was at before.
pub fn at(activity: Activity, handler: HandlerNumber) -> At {
    let Some(beat) = BEAT.get() else { return At(0) };
    let before = beat.load(Ordering::Relaxed);
    beat.store(word(now(), handler, activity as u8), Ordering::Relaxed);
    At((before & 0xffff) as u16)
}

/// As [`at`], within what a handler is at.
pub fn within(activity: Activity) -> At {
    let handler = BEAT.get().map_or(0, |beat| (beat.load(Ordering::Relaxed) >> 8) as u8);
    at(activity, handler)
}

#[derive(Debug)]
#[must_use]
pub struct At(u16);

impl Drop for At {
    fn drop(&mut self) {
        if let Some(beat) = BEAT.get() {
            // The clock was just read, or will be soon.
            let known = beat.load(Ordering::Relaxed);
            beat.store(known & !0xffff | u64::from(self.0), Ordering::Relaxed);
        }
    }
}

/// A future; while it is polled its thread is at this.
pub async fn during<T>(activity: Activity, handler: HandlerNumber, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| {
        let _at = at(activity, handler);
        future.as_mut().poll(cx)
    })
    .await
}

/// A runtime of this thread, which gives signs of life when it goes to sleep and wakes.
///
/// # Errors
/// There is no epoll instance.
pub fn runtime() -> io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(|| sign(Activity::Waiting))
        .on_thread_unpark(|| sign(Activity::Running))
        .build_local(LocalOptions::default())
}

/// Runs this future on a runtime of [`runtime`]; meanwhile this thread gives signs of life as the one with this number: 0 for
/// the engine's main thread, then its engine threads.
pub fn run<T>(signals: Signals, number: usize, runtime: &LocalRuntime, future: impl Future<Output = T>) -> T {
    let _ends = Ends(BEAT.replace(signals.beats().get(number)));
    signals.threads().fetch_max(number as u64, Ordering::Relaxed);
    sign(Activity::Running);
    let mut running = pin!(future);
    runtime.block_on(async {
        // Has its turn among all others, so that who never goes to sleep gives signs, too.
        let pulse = tokio::task::spawn_local(async {
            loop {
                tokio::time::sleep(NAP).await;
                sign(Activity::Running);
            }
        });
        let result = std::future::poll_fn(|cx| {
            sign(Activity::Running);
            running.as_mut().poll(cx)
        })
        .await;
        pulse.abort();
        result
    })
}

/// Those who watch are not to wait for a thread that has ended.
struct Ends(Option<&'static AtomicU64>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(beat) = BEAT.replace(self.0) {
            beat.store(0, Ordering::Relaxed);
        }
    }
}

impl Signals {
    /// Before an engine is started: nothing is known of it yet.
    pub(super) fn clear_beats(&self) {
        for beat in self.beats() {
            beat.store(0, Ordering::Relaxed);
        }
        self.threads().store(0, Ordering::Relaxed);
        self.beats()[0].store(word(now(), 0, Activity::Starting as u8), Ordering::Relaxed);
    }

    /// The main thread has given a sign within this time.
    pub fn is_alive(&self, within: Duration) -> bool {
        let last = time(self.beats()[0].load(Ordering::Relaxed));
        u128::from(now().saturating_sub(last)) <= within.as_millis()
    }

    /// When an engine thread gave its last sign (see [`now`]); `None`: none has started.
    pub fn last_sign(&self) -> Option<u64> {
        let threads = self.beats().iter().skip(1).take(self.threads().load(Ordering::Relaxed) as usize);
        let last = threads.map(|beat| time(beat.load(Ordering::Relaxed))).max().unwrap_or(0);
        (last > 0).then_some(last)
    }
}

/// In httpd's parent: who of an engine has given no sign for how long.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// The process that was looked at.
    pid: i32,
    last: u64,
    threads: Vec<ThreadWatch>,
}

#[derive(Debug, Clone, Copy, Default)]
struct ThreadWatch {
    beat: u64,
    /// Milliseconds.
    silent: u64,
    rounds: u32,
}

impl Watchdog {
    /// Looks at the engine that has this pid. Returns what its threads are at if it is to be replaced: one of them has given no
    /// sign for `limit`, and httpd's parent has looked several times meanwhile. Time in which the parent itself did not run
    /// does not count. `handlers` are the names that a [`Registry`](crate::engine::Registry) has numbered.
    pub fn look(&mut self, pid: i32, signals: Signals, limit: Duration, handlers: &[&str]) -> Option<String> {
        self.look_at(now(), pid, signals, limit, handlers)
    }

    fn look_at(&mut self, now: u64, pid: i32, signals: Signals, limit: Duration, handlers: &[&str]) -> Option<String> {
        if self.pid != pid {
            *self = Watchdog { pid, last: now, threads: Vec::new() };
        }
        let passed = now.saturating_sub(self.last).min(ROUND);
        self.last = now;
        self.threads.resize(signals.beats().len(), ThreadWatch::default());
        for (watch, beat) in self.threads.iter_mut().zip(signals.beats()) {
            let beat = beat.load(Ordering::Relaxed);
            *watch = match beat {
                0 => ThreadWatch::default(),
                same if same == watch.beat => {
                    ThreadWatch { beat, silent: watch.silent + passed, rounds: watch.rounds + 1 }
                }
                _ => ThreadWatch { beat, silent: 0, rounds: 0 },
            };
        }
        let limit = limit.as_millis() as u64;
        let is_over = |watch: &ThreadWatch| watch.silent >= limit && watch.rounds >= ROUNDS;
        let seen = self.threads.iter().any(is_over).then(|| self.describe(now, handlers));
        if seen.is_some() {
            // Said once, should it live on.
            self.pid = 0;
        }
        seen
    }

    fn describe(&self, now: u64, handlers: &[&str]) -> String {
        let mut text = String::new();
        for (number, ThreadWatch { beat, .. }) in self.threads.iter().enumerate().filter(|(_, watch)| watch.beat != 0) {
            let name = if number == 0 { "the main thread".into() } else { format!("engine thread {}", number - 1) };
            let separator = if text.is_empty() { "" } else { "; " };
            let seconds = now.saturating_sub(time(*beat)) / 1000;
            let handler = (*beat >> 8 & 0xff) as usize;
            let of = handlers.get(handler.wrapping_sub(1)).map_or(String::new(), |name| format!(" (handler {name})"));
            // Writing to a String does not fail.
            let _ = write!(text, "{separator}{name} {seconds} s ago, {}{of}", Activity::text(*beat as u8));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLERS: [&str; 2] = ["channel", "echo"];
    const LIMIT: Duration = Duration::from_secs(30);

    fn beat(signals: Signals, number: usize, time: u64, activity: Activity, handler: u8) {
        signals.beats()[number].store(word(time, handler, activity as u8), Ordering::Relaxed);
    }

    #[test]
    fn a_thread_without_signs_is_found_and_named() {
        let (signals, mut dog) = (Signals::private(), Watchdog::default());
        let look = |dog: &mut Watchdog, now| dog.look_at(now, 7, signals, LIMIT, &HANDLERS);
        beat(signals, 1, 1000, Activity::Session, 2);
        for round in 0..3 {
            beat(signals, 0, round * 10_000, Activity::Waiting, 0);
            assert_eq!(look(&mut dog, 1000 + round * 10_000), None);
        }
        beat(signals, 0, 30_000, Activity::Waiting, 0);
        let text = "the main thread 1 s ago, waiting for something to do; engine thread 0 30 s ago, in a session (handler echo)";
        assert_eq!(look(&mut dog, 31_000).as_deref(), Some(text));
        // Another one has the place.
        assert_eq!(dog.look_at(41_000, 8, signals, LIMIT, &HANDLERS), None);
    }

    #[test]
    fn any_sign_will_do() {
        let (signals, mut dog) = (Signals::private(), Watchdog::default());
        for round in 0..100 {
            let now = 1000 + round * 10_000;
            // Within the same millisecond, but at something else.
            beat(signals, 1, 1000, [Activity::Session, Activity::Decoding][round as usize % 2], 2);
            assert_eq!(dog.look_at(now, 7, signals, LIMIT, &HANDLERS), None);
        }
        // One that has ended is not waited for.
        signals.beats()[1].store(0, Ordering::Relaxed);
        for round in 100..200 {
            assert_eq!(dog.look_at(1000 + round * 10_000, 7, signals, LIMIT, &HANDLERS), None);
        }
    }

    #[test]
    fn time_in_which_the_parent_did_not_run_does_not_count() {
        let (signals, mut dog) = (Signals::private(), Watchdog::default());
        let limit = Duration::from_secs(15);
        let look = |dog: &mut Watchdog, now| dog.look_at(now, 7, signals, limit, &HANDLERS);
        beat(signals, 1, 1000, Activity::Waiting, 0);
        assert_eq!(look(&mut dog, 1000), None);
        // An hour later: all were stopped, and the parent is the first to run again.
        assert_eq!(look(&mut dog, 3_601_000), None);
        beat(signals, 1, 3_601_001, Activity::Waiting, 0);
        assert_eq!(look(&mut dog, 3_602_000), None);
        // Rounds that follow each other at once are no time.
        for _ in 0..100 {
            assert_eq!(look(&mut dog, 3_602_000), None);
        }
        assert_eq!(look(&mut dog, 3_612_000), None);
        assert!(look(&mut dog, 3_622_000).is_some());
    }

    /// Long work whose slices give signs, and such that does not.
    #[test]
    fn work_in_slices_gives_signs() {
        let signals = Signals::private();
        let runtime = runtime().unwrap();
        let told = |beat: u64| (beat as u8, (beat >> 8) as u8);
        let beat = &signals.beats()[3];
        run(signals, 3, &runtime, async {
            during(Activity::Session, 2, async {
                assert_eq!(told(beat.load(Ordering::Relaxed)), (Activity::Session as u8, 2));
                {
                    let _at = within(Activity::Decoding);
                    assert_eq!(told(beat.load(Ordering::Relaxed)), (Activity::Decoding as u8, 2));
                }
                assert_eq!(told(beat.load(Ordering::Relaxed)), (Activity::Session as u8, 2));
                let mut signs = 0;
                for _ in 0..5 {
                    let before = time(beat.load(Ordering::Relaxed));
                    // A slice.
                    while now() <= before {}
                    drop(within(Activity::Decoding));
                    signs += u32::from(time(beat.load(Ordering::Relaxed)) > before);
                }
                assert_eq!(signs, 5);
                let before = beat.load(Ordering::Relaxed);
                while now() < time(before) + 50 {}
                assert_eq!(beat.load(Ordering::Relaxed), before);
                tokio::task::yield_now().await;
                assert!(time(beat.load(Ordering::Relaxed)) > time(before));
            })
            .await;
            assert_eq!(signals.last_sign().map(|last| last <= now()), Some(true));
        });
        assert_eq!(beat.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_with_nothing_to_do_gives_signs() {
        let signals = Signals::private();
        let runtime = runtime().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let watched = std::thread::spawn(move || {
            let beat = &signals.beats()[1];
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let now = beat.load(Ordering::Relaxed);
                if now as u8 == Activity::Waiting as u8 && seen.last() != Some(&now) {
                    seen.push(now);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            end.send(()).unwrap();
            time(seen[1]) - time(seen[0])
        });
        run(signals, 1, &runtime, async { ended.await.unwrap() });
        assert!(watched.join().unwrap() > 0);
    }
}
