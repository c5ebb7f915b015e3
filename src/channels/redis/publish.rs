//! Messages come in: one to some channels at a time, or many, for which there is a pipeline of the script that publishes one.

use super::{LOG, LogMessage, RedisLink, broken, undone, warn_renewed};
use crate::channels::api::BatchEntry;
use crate::channels::{Error, History, Id, epoch};
use redis::{RedisError, ScriptInvocation, Value};

/// What `publish.lua` answers: whether a new epoch has begun, and the id and the subscribers of so many messages.
fn ids(answer: &[Value], count: usize) -> Result<(u64, Vec<(Id, u64)>), RedisError> {
    let [renewed, epoch, numbers @ ..] = answer else { return Err(broken("no epoch")) };
    let epoch: String = redis::from_redis_value_ref(epoch)?;
    if !Id::is_epoch(&epoch) || numbers.len() != 2 * count {
        return Err(broken("no ids"));
    }
    let pair = |pair: &[Value]| {
        let offset = redis::from_redis_value_ref(&pair[0])?;
        Ok((Id { epoch: epoch.as_str().into(), offset }, redis::from_redis_value_ref(&pair[1])?))
    };
    let ids = numbers.chunks_exact(2).map(pair).collect::<Result<_, RedisError>>()?;
    Ok((redis::from_redis_value_ref(renewed)?, ids))
}

impl RedisLink {
    /// Publishes to these channels: the id of each, and its subscribers. `budget` is how many bytes the log may have.
    pub async fn publish(
        &self,
        budget: usize,
        channels: &[String],
        message: &LogMessage,
    ) -> Result<Vec<(Id, u64)>, Error> {
        self.try_publish(budget, channels, message).await.map_err(undone)
    }

    async fn try_publish(
        &self,
        budget: usize,
        channels: &[String],
        message: &LogMessage,
    ) -> Result<Vec<(Id, u64)>, RedisError> {
        let LogMessage { text, content_type, payload, history } = message;
        let mut script = self.publishing(budget, *history, *text, content_type.as_deref(), payload);
        script.arg(channels);
        let answer: Vec<Value> = self.run(script).await?;
        let (renewed, ids) = ids(&answer, channels.len())?;
        warn_renewed(renewed);
        Ok(ids)
    }

    /// The script that publishes this message, to the channels that follow.
    fn publishing(
        &self,
        budget: usize,
        history: History,
        text: bool,
        content_type: Option<&str>,
        payload: &[u8],
    ) -> ScriptInvocation<'_> {
        let mut call = self.scripts.publish.arg(epoch());
        call.arg(budget).arg(history.messages).arg(history.seconds).arg(u8::from(text));
        call.arg(content_type.unwrap_or_default()).arg(payload);
        call
    }

    /// Publishes these messages in their order: the id of each, and its subscribers. `budget` is how many bytes the log may
    /// have.
    ///
    /// # Errors
    /// The link was lost, or did not answer.
    pub async fn publish_batch(
        &self,
        budget: usize,
        entries: &[BatchEntry<'_>],
        history: History,
    ) -> Result<Vec<Result<(Id, u64), Error>>, Error> {
        let mut pipeline = redis::Pipeline::with_capacity(entries.len() + 1);
        // Redis may have been restarted, and what follows it in the pipeline needs it.
        pipeline.ignore_errors().load_script(&self.scripts.publish).ignore();
        for BatchEntry { channel, content_type, text, payload } in entries {
            let mut call = self.publishing(budget, history, *text, *content_type, payload);
            pipeline.invoke_script(call.arg(*channel).key(LOG));
        }
        let answers: Vec<Result<Vec<Value>, RedisError>> =
            pipeline.query_async(&mut self.commands.clone()).await.map_err(undone)?;
        if answers.len() != entries.len() {
            return Err(Error::Unknown("the broker gave no answer to some messages".into()));
        }
        let given = |answer: Result<Vec<Value>, RedisError>| {
            let (renewed, ids) = answer.and_then(|answer| ids(&answer, 1)).map_err(undone)?;
            warn_renewed(renewed);
            ids.into_iter().next().ok_or_else(|| Error::Unknown("the broker gave no id".into()))
        };
        Ok(answers.into_iter().map(given).collect())
    }
}
