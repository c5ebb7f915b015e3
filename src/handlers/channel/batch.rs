//! A POST of `application/x-ndjson` that names no channel: its lines are messages, each with its channel; the answer has a line
//! for each.

use super::config::ChannelConfig;
use super::media_type::essence;
use super::ndjson::{self, BadBatch, Rules};
use super::publish::{JsonReply, call, longest, note_refusal, problem, read, reply, unexpected};
use crate::apache::request::Request;
use crate::channels::api::{self, BatchOutcome};
use crate::front::WebSocket;
use std::ffi::CStr;
use std::io::Write;

const NDJSON: &CStr = c"application/x-ndjson";
/// Bytes of the largest body.
const MAX_BODY: usize = 16 << 20;

/// True where a body has this media type that names no channel elsewhere.
pub(super) fn is_batch(content_type: Option<&str>) -> bool {
    essence(content_type).as_bytes() == NDJSON.to_bytes()
}

/// Publishes; `requested` is the type that the query gives. `None`: it is answered already.
pub(super) fn publish(request: &mut Request, requested: Option<&str>) -> Result<Option<JsonReply>, JsonReply> {
    let Some(body) = read(request, MAX_BODY, "body")? else { return Ok(None) };
    let channels = request.config::<WebSocket>().of::<ChannelConfig>();
    let (prefix, history) = (channels.prefix().len(), channels.history());
    let rules = Rules { requested, longest: longest(request), prefix, history };
    let (batch, payloads) = ndjson::parse(&body, rules).map_err(|BadBatch { status, line, why }| {
        let mut body = problem(&why);
        if let Some(line) = line {
            body["line"] = line.into();
        }
        (status, body)
    })?;
    drop(body);
    let names: Vec<String> = batch.channels.iter().map(|name| serde_json::Value::from(&**name).to_string()).collect();
    let order: Vec<u32> = batch.messages.iter().map(|message| message.channel).collect();
    let api::Reply::Batch(outcomes) = call(request, api::Command::PublishBatch(batch), &payloads)? else {
        return Err(unexpected());
    };
    if outcomes.len() != order.len() {
        return Err(unexpected());
    }
    note_failures(request, &outcomes);
    let mut lines = Vec::with_capacity(80 * outcomes.len());
    for (channel, outcome) in order.into_iter().zip(outcomes) {
        tell(&mut lines, &names[channel as usize], &outcome);
    }
    reply(request, 200, NDJSON, &lines);
    Ok(None)
}

/// As of a message that comes alone.
fn note_failures(request: &Request, outcomes: &[BatchOutcome]) {
    let failures = || {
        outcomes.iter().filter_map(|outcome| match outcome {
            BatchOutcome::Failed { status, reason } => Some((*status, reason)),
            BatchOutcome::Published { .. } => None,
        })
    };
    if let Some((status, reason)) = failures().next() {
        let (failed, all) = (failures().count(), outcomes.len());
        note_refusal(request, status, &format!("{reason} ({failed} of {all} messages)"));
    }
}

/// What became of a message in this channel, whose name is JSON.
fn tell(lines: &mut Vec<u8>, channel: &str, outcome: &BatchOutcome) {
    // A Vec takes whatever is written.
    let _ = match outcome {
        BatchOutcome::Published { id, subscribers } => {
            let status = if *subscribers > 0 { 201 } else { 202 };
            // An id is letters, digits and a colon.
            writeln!(lines, r#"{{{channel}:{{"status":{status},"id":"{id}","subscribers":{subscribers}}}}}"#)
        }
        BatchOutcome::Failed { status, reason } => {
            let reason = serde_json::Value::from(&**reason);
            writeln!(lines, r#"{{{channel}:{{"status":{status},"error":{reason}}}}}"#)
        }
    };
}
