//! What others change in a session: channels are taken back, or its application was asked again and says what holds now.

use super::{Running, Stop};
use crate::engine::revocation::{Change, Measure};
use crate::handlers::http::effect::of_lines;

impl Running<'_> {
    pub(super) async fn change(&mut self, change: Change) -> Result<(), Stop> {
        match change {
            Change::Unsubscribe(revocation, tally) => {
                let Measure::Unsubscribe { channels } = &revocation.measure else { return Ok(()) };
                if let (true, Some(tally)) = (self.channels.revoke(channels), tally) {
                    tally.count();
                }
                Ok(())
            }
            Change::Recheck(tally) => {
                if let (true, Some(tally)) = (self.recheck.as_mut().is_some_and(|recheck| recheck.ask_now()), tally) {
                    tally.count();
                }
                Ok(())
            }
            Change::Rights(answer) => {
                if answer.channels.is_some() {
                    self.channels.forget_revoked();
                }
                self.do_all(of_lines(&mut answer.as_ref().clone())).await
            }
        }
    }
}
