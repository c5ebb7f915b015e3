//! What others change in a session: channels are taken back, or its application was asked again and says what holds now.

use super::{NamedBy, Running, Stop, tell_of_channel};
use crate::engine::revocation::{Change, Measure};
use crate::handlers::http::effect::of_lines;

impl Running<'_> {
    pub(super) async fn replace_channels(&mut self, names: &[String], by: NamedBy) {
        for (name, why) in self.channels.replace(self.conn, names, by).await {
            tell_of_channel(self.conn.id(), &name, &why);
        }
    }

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
                let is_asked = self.recheck.as_mut().is_some_and(|recheck| recheck.ask_now()) || self.poll_now();
                if let (true, Some(tally)) = (is_asked, tally) {
                    tally.count();
                }
                Ok(())
            }
            Change::Rights(answer) => {
                let mut said = answer.as_ref().clone();
                // By WebSocketAuthorize: those that the handler's application has named are its own.
                if let Some(names) = said.channels.take() {
                    self.channels.forget_revoked();
                    self.replace_channels(&names, NamedBy::Authorize).await;
                }
                self.do_all(of_lines(&mut said)).await
            }
        }
    }
}
