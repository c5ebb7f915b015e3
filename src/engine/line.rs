//! The way to one client: its socket, and what is on its way. The connection's task writes here, and so does whoever has
//! something for many: while nothing waits, a message goes straight into the socket, and the task sleeps on.

use super::broadcast::Volley;
use super::conn::Traffic;
use super::outbox::Outbox;
use super::socket::Socket;
use super::thread::Shared;
use crate::wire::session::Form;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

/// See the module.
pub struct Line {
    /// The byte stream.
    pub socket: Socket,
    /// What the socket has not taken.
    pub outbox: Outbox,
    /// What was sent.
    pub sent: Traffic,
    /// The handler has sent what it has to send, and waits for the client: what others send may go out.
    pub is_open: bool,
    form: Option<Form>,
    shared: Rc<Shared>,
}

/// A line, and whether there is one yet.
pub type LineCell = OnceCell<Rc<RefCell<Line>>>;

/// What became of messages that were to be written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shot {
    /// They are in the socket, at this tick.
    Sent(u32),
    /// They are, in part. The task is to see to the rest.
    Begun(u32),
    /// They are not: something comes before them, or the socket is full or broken.
    Not,
}

impl Line {
    /// To this socket; messages go out in this form.
    pub fn new(socket: Socket, form: Option<Form>, shared: Rc<Shared>) -> Line {
        Line { socket, outbox: Outbox::default(), sent: Traffic::default(), is_open: false, form, shared }
    }

    /// Writes the messages from the `first` on, if nothing has to go before them.
    pub fn shoot(&mut self, volley: &Volley, first: usize) -> Shot {
        let Some(form) = self.form.filter(|_| self.is_open && self.outbox.is_empty()) else { return Shot::Not };
        let frames = volley.frames(form, &self.shared.contexts, first);
        let Ok(count) = self.socket.write_now(&frames) else { return Shot::Not };
        for message in volley.messages(first) {
            self.sent.count(message.payload().len());
        }
        let now = self.shared.now();
        if count == frames.len() {
            return Shot::Sent(now);
        }
        self.outbox.push_encoded(frames.slice(count..));
        Shot::Begun(now)
    }
}
