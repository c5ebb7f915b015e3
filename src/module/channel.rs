//! From a request to its subscription: the names of channels, worked out with httpd's expressions.

use super::WebSocket;
use super::directives::Channels;
use crate::apache::expr::Expression;
use crate::apache::request::Request;
use crate::handlers::channel::call::{MAX_NAME, Pattern, Subscription, is_name};
use std::borrow::Cow;
use std::ffi::CString;

/// The parameter of the query, and the header line, in which a client says which message it knows last.
const LAST_EVENT_ID: &str = "last_event_id";
const LAST_EVENT_ID_HEADER: &str = "Last-Event-ID";

/// Why a request gets no subscription.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSubscription {
    /// Answer 403: the configuration gives it no channel.
    #[error("\"{0}\" is empty: no channel is meant")]
    Empty(String),
    /// Answer 400: what the client has sent makes no name.
    #[error("\"{expression}\" is no name of a channel: {why}")]
    BadName {
        /// As configured.
        expression: String,
        /// What is wrong.
        why: String,
    },
    /// Answer 400.
    #[error("{0} channels, and {1} are allowed (WebSocketChannelMax)")]
    TooMany(usize, u32),
    /// Answer 500.
    #[error("{0}")]
    Expression(String),
}

impl NoSubscription {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            NoSubscription::Empty(_) => 403,
            NoSubscription::BadName { .. } | NoSubscription::TooMany(..) => 400,
            NoSubscription::Expression(_) => 500,
        }
    }
}

/// What the request is subscribed to.
///
/// # Errors
/// See [`NoSubscription`].
pub fn subscription(request: &mut Request) -> Result<Subscription, NoSubscription> {
    let config = request.config::<WebSocket>().channels().clone();
    let query = request.query().map(Cow::into_owned);
    let since = query.as_deref().and_then(since_of_query).or_else(|| since_of_header(request));
    let mut subscription = Subscription {
        max: config.max(),
        publishes: config.publishes(),
        presence: config.presence(),
        since: since.filter(|since| !since.is_empty()),
        history: config.history(),
        ..Subscription::default()
    };
    let mut evaluate = |request: &Request| fill(&mut subscription, request, &config);
    match query.as_deref().map(query_of_names).transpose()? {
        Some(query) => request.with_query(&query, evaluate)?,
        None => evaluate(request)?,
    }
    let count = subscription.channels.len();
    if count > subscription.max as usize {
        return Err(NoSubscription::TooMany(count, subscription.max));
    }
    Ok(subscription)
}

fn fill(subscription: &mut Subscription, request: &Request, config: &Channels) -> Result<(), NoSubscription> {
    for expression in config.names() {
        let name = value(expression, request)?;
        if name.is_empty() {
            return Err(NoSubscription::Empty(expression.text().into()));
        }
        if !is_name(&name) {
            return Err(bad_name(expression.text(), &format!("no blanks, and up to {MAX_NAME} bytes")));
        }
        if !subscription.channels.contains(&name) {
            subscription.channels.push(name);
        }
    }
    for pieces in config.allowed() {
        let mut pattern = Vec::new();
        let mut is_whole = true;
        for piece in pieces {
            let value = piece.as_ref().map(|piece| value(piece, request)).transpose()?;
            // What the request lacks must not widen the pattern: of `%{REMOTE_USER}*` the asterisk would be left.
            is_whole &= value.as_ref().is_none_or(|value| !value.is_empty());
            pattern.push(value.unwrap_or_default());
        }
        if is_whole {
            subscription.allowed.push(Pattern(pattern));
        }
    }
    let member = match config.member() {
        Some(expression) => value(expression, request)?,
        None => request.user().map(Cow::into_owned).unwrap_or_default(),
    };
    subscription.member = Some(member).filter(|member| !member.is_empty());
    if subscription.member.as_ref().is_some_and(|member| member.len() > MAX_NAME) {
        return Err(bad_name("the member", &format!("up to {MAX_NAME} bytes")));
    }
    Ok(())
}

fn bad_name(expression: &str, why: &str) -> NoSubscription {
    NoSubscription::BadName { expression: expression.into(), why: why.into() }
}

fn value(expression: &Expression, request: &Request) -> Result<String, NoSubscription> {
    let value = expression.evaluate(request).map_err(NoSubscription::Expression)?;
    let text = value.to_str().map_err(|_| bad_name(expression.text(), "it is not UTF-8"))?;
    Ok(text.to_owned())
}

fn since_of_query(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == LAST_EVENT_ID).map(|(_, since)| since.into_owned())
}

fn since_of_header(request: &Request) -> Option<String> {
    let mut headers = request.headers_in().iter();
    headers.find(|(name, _)| name.eq_ignore_ascii_case(LAST_EVENT_ID_HEADER)).map(|(_, since)| since.trim().to_owned())
}

/// What QUERY_STRING is in the names of channels: without the parameter that is ours, and decoded, so that `caf%C3%A9` means
/// the channel that publishers call `café`.
fn query_of_names(query: &str) -> Result<CString, NoSubscription> {
    let is_ours = |part: &&str| part.split_once('=').map_or(*part, |(name, _)| name) == LAST_EVENT_ID;
    let rest: Vec<&str> = query.split('&').filter(|part| !is_ours(part)).collect();
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&rest.join("&")).collect();
    CString::new(decoded).map_err(|_| bad_name("QUERY_STRING", "there is a %00 in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_taken_out_of_the_query() {
        let names = |query| query_of_names(query).map(|query| query.into_string().unwrap());
        assert_eq!(names("room").unwrap(), "room");
        assert_eq!(names("last_event_id=e:1").unwrap(), "");
        assert_eq!(names("a=caf%C3%A9&last_event_id=e%3A1&b").unwrap(), "a=café&b");
        assert_eq!(names("a%26b+c").unwrap(), "a&b+c");
        assert_eq!(names("a%00b").unwrap_err().status(), 400);
        assert_eq!(since_of_query("room&last_event_id=e%3A1").as_deref(), Some("e:1"));
        assert_eq!(since_of_query("last_event_id="), Some(String::new()));
        assert_eq!(since_of_query("not_last_event_id=1"), None);
    }
}
