//! What a child of httpd passes before it asks an engine, and what makes it give up waiting.
//!
//! The engine is late when it gives no sign of life, or no answer, though it be that it waits for somebody else: then it says so
//! ([`FromEngine::Asking`](crate::engine::handoff::FromEngine::Asking)), and the question waits on the other side of the bulkhead.

use super::breaker::{Breaker, Generation, Probe};
use super::bulkhead::{Bulkhead, Permit, Side};
use super::signals::{Signals, now};
use crate::engine::handoff::PATIENCE;
use log::warn;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a child waits before it looks whether there is any sense in it. Time is counted in these, so that time in which the
/// child itself did not run does not count.
pub const SLICE: Duration = Duration::from_millis(50);
/// Slices without any sign of an engine thread after which an engine is late that was asked something.
const SILENCE: u32 = slices(Duration::from_secs(2));
/// And while the engine waits for somebody else: longer than its threads sleep.
const SILENCE_BEHIND: u32 = slices(Duration::from_secs(5));
/// Of those for whom there was no place, the time in which none was answered after which they give up (milliseconds).
///
/// Behind the engine it is longer than the half second that handlers wait: those who are too many for one target are told
/// so by the engine before somebody else gives up in the place of them.
const STILL: [u64; 2] = [100, 1500];
/// Slices after which they give up in any case.
const WITHOUT_A_PLACE: [u32; 2] = [slices(Duration::from_secs(1)), slices(Duration::from_secs(2))];
/// How often it is logged that too many wait (milliseconds).
const SAY_AGAIN: u64 = 60_000;

/// So many slices. A part of one counts as one.
pub const fn slices(time: Duration) -> u32 {
    time.as_millis().div_ceil(SLICE.as_millis()) as u32
}

/// Why a child does not ask, or asks and does not wait for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    #[error("the engine is late")]
    Open,
    #[error("too many requests wait for the engine already (WebSocketEngineWait)")]
    Full,
    /// It was asked, and turned out to be late.
    #[error("the engine is late, and was asked before that was known")]
    GivenUp,
    #[error("the engine has not answered in time")]
    NoAnswer,
}

impl From<Late> for io::Error {
    fn from(late: Late) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, late)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Gate {
    signals: Signals,
    bulkhead: Bulkhead,
}

/// A question, from before it is asked until it was answered or given up.
#[derive(Debug)]
pub struct Question {
    gate: Gate,
    generation: Generation,
    probe: Option<Probe>,
    side: Side,
    place: Option<Permit>,
    /// Slices since it was asked, or since it is on this side.
    waited: u32,
    /// And how many there may be for what is behind the engine.
    patience: u32,
    /// The engine's last sign of life, and the slices since then.
    sign: Option<u64>,
    silence: u32,
}

impl Gate {
    /// To the engine with these signals, past this bulkhead.
    pub fn new(signals: Signals, bulkhead: Bulkhead) -> Gate {
        Gate { signals, bulkhead }
    }

    /// Somebody wants to ask. `patience` is how long the answer may take if the engine itself has to wait for somebody.
    ///
    /// # Errors
    /// It is not to be asked now.
    pub fn enter(&self, patience: Duration) -> Result<Question, Late> {
        let breaker = Breaker::new(self.signals);
        let (generation, is_open) = breaker.state();
        let probe = if is_open { Some(breaker.probe().ok_or(Late::Open)?) } else { None };
        let place = self.bulkhead.take(Side::Engine, PATIENCE);
        let progress = self.signals.progress(Side::Engine as usize);
        if place.is_none() && probe.is_none() && progress.has_stopped(STILL[0]) {
            self.say_full(Side::Engine);
            return Err(Late::Full);
        }
        progress.ask();
        Ok(Question {
            gate: *self,
            generation,
            probe,
            side: Side::Engine,
            place,
            waited: 0,
            patience: slices(patience),
            sign: self.signals.last_sign(),
            silence: 0,
        })
    }

    fn say_full(&self, side: Side) {
        let (said, now) = (self.signals.said(), now());
        let last = said.load(Ordering::Relaxed);
        let is_time = last == 0 || now.saturating_sub(last) > SAY_AGAIN;
        if is_time && said.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let whom = match side {
                Side::Engine => "the engine",
                Side::Behind => "whom the engine has asked",
            };
            warn!(
                "WS0167: {} requests wait for {whom} already (WebSocketEngineWait): others get 503 (logged at most once a minute)",
                self.bulkhead.limit(side)
            );
        }
    }
}

impl Question {
    /// No answer has come for one more [`SLICE`].
    ///
    /// # Errors
    /// It is to be given up.
    pub fn wait(&mut self) -> Result<(), Late> {
        let breaker = Breaker::new(self.gate.signals);
        self.waited += 1;
        let sign = self.gate.signals.last_sign();
        self.silence = if sign == self.sign { self.silence + 1 } else { 0 };
        self.sign = sign;
        let is_open = breaker.state() == (self.generation, true);
        let (enough, silence) = match self.side {
            Side::Engine => (slices(PATIENCE), SILENCE),
            Side::Behind => (self.patience, SILENCE_BEHIND),
        };
        // An engine that has only been started gives none yet.
        let is_silent = sign.is_some() && self.silence >= silence;
        if self.probe.is_none() {
            // Behind an engine that answers it may be waited for: the breaker may be open because of another thread of it.
            if is_open && (self.side == Side::Engine || self.silence >= SILENCE) {
                return Err(Late::GivenUp);
            }
            if is_silent {
                breaker.open(self.generation, "none of its threads gives a sign of life");
                return Err(Late::NoAnswer);
            }
            self.keep_place()?;
        }
        if self.waited < enough {
            return Ok(());
        }
        if self.side == Side::Engine {
            breaker.open(self.generation, "no answer has come within 5 s");
        }
        Err(Late::NoAnswer)
    }

    /// Who has no place gets one, or waits without one as long as the others are answered.
    fn keep_place(&mut self) -> Result<(), Late> {
        if self.place.is_none() {
            let left = SLICE * self.patience.max(slices(PATIENCE)).saturating_sub(self.waited);
            self.place = self.gate.bulkhead.take(self.side, left);
        }
        let progress = self.gate.signals.progress(self.side as usize);
        if self.place.is_none()
            && (progress.has_stopped(STILL[self.side as usize]) || self.waited >= WITHOUT_A_PLACE[self.side as usize])
        {
            self.gate.say_full(self.side);
            return Err(Late::Full);
        }
        Ok(())
    }

    /// The engine has heard the question, and waits for somebody else.
    pub fn pass_on(&mut self) {
        self.note_answer();
        self.probe = None;
        self.side = Side::Behind;
        self.waited = 0;
        self.place = self.gate.bulkhead.take(Side::Behind, SLICE * self.patience);
        self.gate.signals.progress(Side::Behind as usize).ask();
    }

    pub fn answered(self) {
        self.note_answer();
    }

    fn note_answer(&self) {
        self.gate.signals.progress(self.side as usize).answer();
        Breaker::new(self.gate.signals).close(self.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn gate(limit: u32) -> Gate {
        let signals = Signals::private();
        Breaker::new(signals).renew();
        Gate::new(signals, Bulkhead::private(100, limit))
    }

    fn live(gate: Gate) {
        let time = gate.signals.last_sign().unwrap_or(1000);
        gate.signals.threads().store(1, Ordering::Relaxed);
        gate.signals.beats()[1].store((time + 1) << 16, Ordering::Relaxed);
    }

    /// Nobody has been answered for a while.
    fn stand_still(gate: Gate, side: Side) {
        while !gate.signals.progress(side as usize).has_stopped(STILL[side as usize]) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_open(gate: Gate) -> bool {
        Breaker::new(gate.signals).state().1
    }

    /// How many slices it waits, and why no longer.
    fn outcome(question: &mut Question, mut meanwhile: impl FnMut()) -> (u32, Late) {
        for slice in 1.. {
            meanwhile();
            if let Err(late) = question.wait() {
                return (slice, late);
            }
        }
        unreachable!("it gives up at some time")
    }

    #[test]
    fn a_silent_engine_opens_the_breaker() {
        let gate = gate(2);
        live(gate);
        let (mut first, mut second) = (gate.enter(LONG).unwrap(), gate.enter(LONG).unwrap());
        assert_eq!(outcome(&mut first, || {}), (SILENCE, Late::NoAnswer));
        assert!(is_open(gate));
        // The others need not wait as long; one may try.
        assert_eq!(second.wait(), Err(Late::GivenUp));
        drop((first, second));
        let mut probe = gate.enter(LONG).unwrap();
        assert_eq!(gate.enter(LONG).unwrap_err(), Late::Open);
        assert_eq!(outcome(&mut probe, || {}), (slices(PATIENCE), Late::NoAnswer));
        drop(probe);
        gate.enter(LONG).unwrap().answered();
        assert!(!is_open(gate));
    }

    #[test]
    fn one_that_lives_has_more_time() {
        let gate = gate(2);
        live(gate);
        let mut question = gate.enter(LONG).unwrap();
        assert_eq!(outcome(&mut question, || live(gate)), (slices(PATIENCE), Late::NoAnswer));
        assert!(is_open(gate));
        // And one that is being started.
        Breaker::new(gate.signals).renew();
        let mut question = gate.enter(LONG).unwrap();
        assert_eq!(outcome(&mut question, || {}).0, slices(PATIENCE));
    }

    #[test]
    fn what_the_engine_waits_for_is_not_the_engine() {
        let gate = gate(2);
        live(gate);
        let mut question = gate.enter(LONG).unwrap();
        question.wait().unwrap();
        question.pass_on();
        assert_eq!(outcome(&mut question, || live(gate)), (slices(LONG), Late::NoAnswer));
        assert!(!is_open(gate));
        // Then the engine hangs, too.
        let mut question = gate.enter(LONG).unwrap();
        question.pass_on();
        assert_eq!(outcome(&mut question, || {}), (SILENCE_BEHIND, Late::NoAnswer));
        assert!(is_open(gate));
    }

    #[test]
    fn no_more_wait_than_may() {
        let gate = gate(2);
        live(gate);
        let waiting = [gate.enter(LONG).unwrap(), gate.enter(LONG).unwrap()];
        // It may be that all come at once, and are answered soon.
        let mut more = gate.enter(LONG).unwrap();
        stand_still(gate, Side::Engine);
        assert_eq!(more.wait(), Err(Late::Full));
        assert_eq!(gate.enter(LONG).unwrap_err(), Late::Full);
        let [first, second] = waiting;
        first.answered();
        let next = gate.enter(LONG).unwrap();
        let mut more = gate.enter(LONG).unwrap();
        // While answers come there is some more time.
        let progress = gate.signals.progress(0);
        let answers = || {
            progress.answer();
            live(gate);
        };
        assert_eq!(outcome(&mut more, answers), (WITHOUT_A_PLACE[0], Late::Full));
        drop((second, next));
    }

    #[test]
    fn behind_the_engine_there_are_so_many_places_too() {
        let gate = gate(1);
        live(gate);
        let mut questions: Vec<Question> = (0..3).map(|_| gate.enter(LONG).unwrap()).collect();
        questions.iter_mut().for_each(Question::pass_on);
        stand_still(gate, Side::Behind);
        let outcomes: Vec<_> = questions.iter_mut().map(Question::wait).collect();
        assert_eq!(outcomes, [Ok(()), Ok(()), Err(Late::Full)]);
    }
}
