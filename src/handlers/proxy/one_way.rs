//! One direction of a session: what one end sends goes to the other, and so does its end. What the receiver does not take is kept,
//! and then nothing more is read: it is at most what one read brings.

use crate::engine::bridge::with_buffer;
use crate::engine::socket::Socket;
use crate::engine::thread::step_aside;
use crate::wire::frame_follower::FrameFollower;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

/// Reads before others have their turn who were woken.
const READS: usize = 4;

pub struct OneWay {
    pub follower: FrameFollower,
    state: State,
    /// What was read and not yet taken, from `taken` on. Nothing while it flows.
    waiting: Vec<u8>,
    taken: usize,
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
        OneWay { follower, state: State::Open, waiting: early, taken: 0 }
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
            let read = with_buffer(|buffer| {
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
        if !self.is_waiting() {
            return false;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let before = std::mem::take(&mut self.taken);
        let Some(count) = self.write(cx, to, &waiting[before..], lost) else { return true };
        if before + count < waiting.len() {
            (self.waiting, self.taken) = (waiting, before + count);
        }
        count > 0
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
                    lost.get_or_insert(why);
                    self.state = if self.state == State::Ended { State::Done } else { State::Broken };
                    return None;
                }
                Poll::Pending => break,
            }
        }
        Some(count)
    }

    /// Bytes that wait for the receiver.
    pub fn held(&self) -> usize {
        self.waiting.capacity()
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
        !self.waiting.is_empty()
    }

    /// The receiver has been told of the end, or is gone and the sender has ended too.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }
}
