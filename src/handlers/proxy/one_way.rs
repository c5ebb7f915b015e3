//! One direction of a session: what one end sends goes to the other, and so does its end. What the receiver does not take is kept,
//! and then nothing more is read: it is at most what one read brings.

use super::splice::{self, LARGE, Piped};
use crate::engine::bridge::with_buffer;
use crate::engine::socket::Socket;
use crate::engine::thread::step_aside;
use crate::wire::frame_follower::FrameFollower;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// Reads before others have their turn who were woken.
const READS: usize = 4;

/// Bytes that are read where large frames come one after the other.
const HEADERS: usize = 512;

pub struct OneWay {
    pub follower: FrameFollower,
    state: State,
    /// What was read and not yet taken, from `taken` on. Nothing while it flows.
    waiting: Vec<u8>,
    taken: usize,
    /// What was taken of a large payload and comes before that.
    piped: Option<Box<Piped>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has ended, which its receiver hears when it has taken all before.
    Ended,
    /// The receiver takes nothing any more: what still comes is thrown away.
    Broken,
    Done,
}

impl OneWay {
    /// From a client (whose frames are masked), or to one; and what was read of that before.
    pub fn new(masked: bool, early: Vec<u8>) -> OneWay {
        let mut follower = FrameFollower::new(masked);
        follower.follow(&early);
        OneWay { follower, state: State::Open, waiting: early, taken: 0, piped: None }
    }

    /// Moves what can be moved. True when something was. `lost` is told what breaks; while the receiver waits, or nothing `may` be
    /// read, the task is woken by whoever can go on.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&mut Socket, &mut Socket),
        may_read: bool,
        lost: &mut Option<io::Error>,
    ) -> bool {
        let mut moved = false;
        for _ in 0..READS {
            moved |= self.flush(cx, to, lost);
            if self.is_waiting() || self.is_done() {
                return moved;
            }
            if self.state == State::Ended {
                to.end_writing();
                self.state = State::Done;
                return moved;
            }
            if !may_read {
                return moved;
            }
            let is_large = splice::is_possible(from, to) && self.follower.length() >= LARGE;
            if is_large && let Some(piped) = self.splice(cx, from, lost) {
                if piped.is_pending() {
                    return moved;
                }
                moved = true;
                continue;
            }
            let read = with_buffer(|buffer| {
                // The next is as large, perhaps: then this is to bring little more than its header.
                let buffer = if is_large && self.follower.unseen() == 0 { &mut buffer[..HEADERS] } else { buffer };
                let count = match from.poll_read(cx, buffer) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(why)) => {
                        lost.get_or_insert(why);
                        0
                    }
                };
                self.follower.follow(&buffer[..count]);
                match self.state {
                    State::Broken if count == 0 => self.state = State::Done,
                    State::Broken => {}
                    _ if count == 0 => self.state = State::Ended,
                    _ => self.put(cx, to, &buffer[..count], lost),
                }
                true
            });
            if !read {
                return moved;
            }
            moved = true;
        }
        step_aside(cx);
        moved
    }

    /// Takes a part of a large payload, if there is one to come. `None`: what comes is to be read.
    fn splice(&mut self, cx: &mut Context<'_>, from: &Socket, lost: &mut Option<io::Error>) -> Option<Poll<()>> {
        let unseen = self.follower.unseen();
        if unseen < LARGE || self.state != State::Open {
            return None;
        }
        Some(Piped::fill(cx, from, unseen)?.map(|piped| match piped {
            Ok(piped) if piped.count > 0 => {
                self.follower.pass(piped.count as u64);
                self.piped = Some(Box::new(piped));
            }
            Ok(_) => self.state = State::Ended,
            Err(why) => {
                lost.get_or_insert(why);
                self.state = State::Ended;
            }
        }))
    }

    /// Adds a frame, if one may stand here. False: none may.
    pub fn add(&mut self, frame: &[u8]) -> bool {
        let may_be = self.state == State::Open && self.follower.at_boundary();
        if may_be {
            self.waiting.extend_from_slice(frame);
        }
        may_be
    }

    /// Lets the receiver take what waits for it. True when it has taken something.
    pub fn flush(&mut self, cx: &mut Context<'_>, to: &mut Socket, lost: &mut Option<io::Error>) -> bool {
        let mut moved = false;
        if let Some(mut piped) = self.piped.take() {
            let count = piped.count;
            match piped.poll_empty(cx, to) {
                Poll::Ready(Err(why)) => {
                    self.break_off(why, lost);
                    return true;
                }
                Poll::Ready(Ok(())) => moved = true,
                Poll::Pending => {
                    moved = piped.count < count;
                    self.piped = Some(piped);
                    return moved;
                }
            }
        }
        if self.waiting.is_empty() {
            return moved;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let before = std::mem::take(&mut self.taken);
        let Some(count) = self.write(cx, to, &waiting[before..], lost) else { return true };
        if before + count < waiting.len() {
            (self.waiting, self.taken) = (waiting, before + count);
        }
        moved || count > 0
    }

    /// The receiver takes nothing any more.
    fn break_off(&mut self, why: io::Error, lost: &mut Option<io::Error>) {
        lost.get_or_insert(why);
        self.waiting = Vec::new();
        self.state = if self.state == State::Ended { State::Done } else { State::Broken };
    }

    fn put(&mut self, cx: &mut Context<'_>, to: &mut Socket, bytes: &[u8], lost: &mut Option<io::Error>) {
        if let Some(count) = self.write(cx, to, bytes, lost) {
            self.waiting = bytes[count..].to_vec();
        }
    }

    /// Writes until there is no room; returns how many bytes went. `None`: the receiver takes nothing any more.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Socket,
        bytes: &[u8],
        lost: &mut Option<io::Error>,
    ) -> Option<usize> {
        let mut count = 0;
        while count < bytes.len() {
            match to.poll_write(cx, &[IoSlice::new(&bytes[count..])]) {
                Poll::Ready(Ok(more)) => count += more,
                Poll::Ready(Err(why)) => {
                    self.break_off(why, lost);
                    return None;
                }
                Poll::Pending => break,
            }
        }
        Some(count)
    }

    /// Bytes that wait for the receiver.
    pub fn held(&self) -> usize {
        self.waiting.capacity() + self.piped.as_ref().map_or(0, |piped| piped.count)
    }

    /// Reads and throws away until the sender has said its Close, if it is to `answer`, or has ended.
    pub fn poll_rest(&mut self, cx: &mut Context<'_>, from: &mut Socket, answer: bool) -> Poll<()> {
        for _ in 0..READS {
            let is_over = matches!(self.state, State::Ended | State::Done);
            if is_over || (answer && self.follower.close().is_some()) {
                return Poll::Ready(());
            }
            let read = with_buffer(|buffer| {
                match ready!(from.poll_read(cx, buffer)) {
                    Ok(count) if count > 0 => self.follower.follow(&buffer[..count]),
                    _ => self.state = State::Done,
                }
                Poll::Ready(())
            });
            ready!(read);
        }
        step_aside(cx);
        Poll::Pending
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.piped.is_some()
    }

    /// The receiver has been told of the end, or is gone and the sender has ended too.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }
}
