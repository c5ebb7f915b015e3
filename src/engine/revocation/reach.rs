//! What is done to a session, on its thread.

use super::{Change, Measure, Revocation, Tally, clock};
use crate::engine::SessionSpec;
use crate::engine::application::recheck::Verdict;
use crate::engine::handle::ConnectionHandle;
use crate::engine::thread::{Registered, ThreadState};
use crate::wire::{CloseCode, close};
use std::sync::Arc;

impl ThreadState {
    pub(crate) fn revoke(&self, revocation: &Arc<Revocation>, before: u64, tally: &Tally) {
        let handles = self.handles.borrow();
        for session in self.names.find(revocation, before, |session| handles.contains_key(&session)) {
            if let Some(handle) = handles.get(&session) {
                self.take_back(handle, revocation, before, Some(tally));
            }
        }
    }

    /// What the application has said of sessions that may be this thread's.
    pub(crate) fn decide(&self, sessions: &[u64], verdict: &Verdict) {
        let handles = self.handles.borrow();
        for handle in sessions.iter().filter_map(|session| handles.get(session)) {
            match verdict {
                Verdict::Close(frame) => handle.close(frame.clone()),
                Verdict::Rights(answer) => handle.change(Change::Rights(answer.clone())),
            }
        }
    }

    fn take_back(&self, handle: &ConnectionHandle, revocation: &Arc<Revocation>, since: u64, tally: Option<&Tally>) {
        // Its client may take its time for the closing handshake.
        if handle.is_ending.get() || handle.close_asked() {
            return;
        }
        let is_done = match &revocation.measure {
            Measure::Close { code, reason } => {
                handle.close(close((*code).into(), reason));
                true
            }
            Measure::Recheck => {
                let is_asked = self.rechecks.borrow().get(&handle.id).is_some_and(|group| group.ask(since));
                if !is_asked {
                    handle.change(Change::Recheck(tally.cloned()));
                }
                is_asked
            }
            // The session knows whether it was subscribed.
            Measure::Unsubscribe { .. } => {
                handle.change(Change::Unsubscribe(revocation.clone(), tally.cloned()));
                false
            }
        };
        if let Some(tally) = tally.filter(|_| is_done) {
            tally.count();
        }
    }
}

impl Registered {
    /// The session can be found by its names from now on, and its application is asked again. What was taken back from it
    /// meanwhile, it has not.
    pub(crate) fn name(&self, spec: &mut SessionSpec) {
        let Registered { shared, handle } = self;
        let Some(opening) = spec.opening.take() else { return };
        let (id, began) = (handle.id, opening.began);
        let (user, connection) = (spec.user.as_deref(), spec.application.as_ref().map(|known| &*known.connection));
        let names = shared.names.enter(id, *opening, user, connection);
        let rechecks = shared.directory.rechecks();
        let application = spec.application.as_ref();
        let group = application.and_then(|known| rechecks.enter(id, known, &spec.client, user, &shared.directory));
        if let Some(group) = group {
            shared.rechecks.borrow_mut().insert(id, group);
        }
        if names.is_empty() {
            return;
        }
        let found = shared.directory.marked(&names, id, began);
        if found.is_too_old {
            handle.close(close(CloseCode::Again, "the handshake took too long"));
        }
        found.revocations.iter().for_each(|revocation| shared.take_back(handle, revocation, clock(), None));
    }
}
