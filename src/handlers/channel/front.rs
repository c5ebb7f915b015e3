//! From a request to its subscription: the names of channels, worked out with httpd's expressions.

use super::config::{self, ChannelConfig, DIRECTIVES};
use super::{NAME, publish};
use crate::apache::expr::{Expression, Value};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::{INTERNAL_SERVER_ERROR, UPGRADE_REQUIRED};
use crate::apache::{HookResult, HookStatus};
use crate::channels::name::{MAX_NAME, Pattern, is_name};
use crate::channels::protocol::SUBPROTOCOLS;
use crate::channels::subscription::Subscription;
use crate::engine::application::answer::Answer;
use crate::front::authorize::{Said, said};
use crate::front::config::Config;
use crate::front::config::words::Words;
use crate::front::handler::{Front, Prepared, Registration};
use crate::front::{WebSocket, once};
use crate::wire::handshake::{Accept, Protocols};
use std::borrow::Cow;
use std::ffi::CString;

/// The parameter of the query, and the header line, in which a client says which message it knows last.
const LAST_EVENT_ID: &str = "last_event_id";
const LAST_EVENT_ID_HEADER: &str = "Last-Event-ID";

pub(crate) const FRONT: Registration = Registration { front: &ChannelFront, directives: DIRECTIVES };

struct ChannelFront;

impl Front for ChannelFront {
    fn name(&self) -> &'static str {
        NAME
    }

    fn configure(&self, config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        config::names(config, &words[1..]).map(|()| Vec::new())
    }

    fn protocols(&self) -> Protocols {
        Protocols::Listed(SUBPROTOCOLS.iter().map(|name| (*name).to_owned()).collect())
    }

    fn prepare(&self, request: &mut Request, _args: &[String], _accept: Option<&mut Accept>) -> Result<Prepared, u16> {
        let subscription = subscription(request).map_err(|why| {
            let level = if why.status() == INTERNAL_SERVER_ERROR { Level::Error } else { Level::Info };
            log::request(level, request, &format!("WS0015: refused with {}: {why}", why.status()));
            if matches!(why, NoSubscription::SlashedUser(_)) && once::a_minute("WS0036", request) {
                log::request(Level::Warning, request, &format!("WS0036: refused with 403: {why}"));
            }
            why.status()
        })?;
        // Whether messages were missed, the engine has to find out.
        let is_plain = subscription.since.is_none();
        Ok(Prepared { member: subscription.member.clone(), is_plain, ..Prepared::with(&subscription)? })
    }

    fn prefix(&self, config: &Config) -> Option<String> {
        Some(config.of::<ChannelConfig>().prefix())
    }

    fn answer(&self, request: &mut Request) -> Option<HookResult> {
        (request.handler_name() == publish::HANDLER).then(|| publish::handle(request))
    }

    /// A page has taken the URL for one of events, say, and is told what it is.
    fn answer_last(&self, request: &mut Request) -> HookResult {
        let is_plain =
            matches!(&*request.method(), "GET" | "HEAD") && !request.is_subrequest() && !request.is_redirected();
        if !is_plain || !request.has_no_file() {
            return Ok(HookStatus::Declined);
        }
        // RFC 9110 section 15.5.22; HTTP/2 has no such lines (RFC 9113 section 8.2.2).
        if request.http_version() < (2, 0) {
            request.headers_out().set_constant(c"Upgrade", c"websocket");
            request.headers_out().set_constant(c"Connection", c"Upgrade");
        }
        request.answer(
            UPGRADE_REQUIRED,
            c"text/plain; charset=utf-8",
            b"This URL is a WebSocket's: open it with ws: or wss:.\n",
        );
        Ok(HookStatus::Ok)
    }

    fn server_settings(&self, config: &Config) -> Option<Vec<u8>> {
        // Plain data, which always has a form.
        Some(postcard::to_stdvec(&config.of::<ChannelConfig>().server()).unwrap_or_default())
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoSubscription {
    /// Answer 403: the configuration gives it no channel.
    #[error("\"{0}\" names no channel: it is empty, or a variable in it is")]
    Empty(String),
    /// Answer 403: what is below a user could be meant for another.
    #[error("\"{0}\": the user's name contains a /, so the channel could be taken for another user's")]
    SlashedUser(String),
    /// Answer 400: what the client has sent makes no name.
    #[error("\"{expression}\" is not a channel name: {why}")]
    BadName { expression: String, why: String },
    /// Answer 400.
    #[error("{0} channels, but only {1} are allowed (WebSocketChannelMax)")]
    TooMany(usize, u32),
    /// Answer 500.
    #[error("{0}")]
    Expression(String),
    /// Answer 500.
    #[error("WebSocketAuthorize: {0}")]
    Application(String),
    /// Answer 500.
    #[error(
        "an .htaccess file says something of channels, which it may only where the server's configuration has \
         WebSocketChannelPrefix"
    )]
    NoPrefix,
}

impl NoSubscription {
    fn status(&self) -> u16 {
        match self {
            NoSubscription::Empty(_) | NoSubscription::SlashedUser(_) => 403,
            NoSubscription::BadName { .. } | NoSubscription::TooMany(..) => 400,
            NoSubscription::Expression(_) | NoSubscription::Application(_) | NoSubscription::NoPrefix => 500,
        }
    }
}

fn subscription(request: &mut Request) -> Result<Subscription, NoSubscription> {
    let config = request.config::<WebSocket>().of::<ChannelConfig>().into_owned();
    let query = request.query().map(Cow::into_owned);
    let since = query.as_deref().and_then(since_of_query).or_else(|| since_of_header(request));
    let prefix = config.prefix();
    let is_from_htaccess = config.are_from_htaccess() || said(request).is_some_and(Said::decides_in_htaccess);
    if prefix.is_empty() && is_from_htaccess {
        return Err(NoSubscription::NoPrefix);
    }
    let mut subscription = Subscription {
        prefix,
        max: config.max(),
        publishes: config.publishes(),
        heartbeat: config.heartbeat(),
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
        let by_the_client = NoSubscription::TooMany(count, subscription.max);
        let is_answer = said(request).is_some_and(|said| said.answer.channels.is_some());
        return Err(if is_answer { NoSubscription::Application(by_the_client.to_string()) } else { by_the_client });
    }
    Ok(subscription)
}

/// What an application says counts in the place of the configuration.
fn fill_from_answer(subscription: &mut Subscription, answer: &Answer) -> Result<(), NoSubscription> {
    for name in answer.channels.iter().flatten() {
        let whole = format!("{}{name}", subscription.prefix);
        if !is_name(&whole) {
            return Err(NoSubscription::Application(format!("the name of a channel has more than {MAX_NAME} bytes")));
        }
        subscription.channels.push(whole);
    }
    for Pattern(pieces) in answer.allowed.iter().flatten() {
        let mut pieces = pieces.clone();
        if let Some(first) = pieces.first_mut() {
            first.insert_str(0, &subscription.prefix);
        }
        subscription.allowed.push(Pattern(pieces));
    }
    if let Some(rights) = answer.rights {
        (subscription.publishes, subscription.presence) = (rights.publish, rights.presence);
    }
    Ok(())
}

fn fill(subscription: &mut Subscription, request: &Request, config: &ChannelConfig) -> Result<(), NoSubscription> {
    let answer = said(request).map(|said| said.answer.clone()).unwrap_or_default();
    fill_from_answer(subscription, &answer)?;
    let names = if answer.channels.is_none() { config.names() } else { &[] };
    for expression in names {
        let name = name_part(expression, request)?;
        let name =
            name.filter(|name| !name.is_empty()).ok_or_else(|| NoSubscription::Empty(expression.text().into()))?;
        let whole = format!("{}{name}", subscription.prefix);
        if !is_name(&name) || !is_name(&whole) {
            return Err(bad_name(expression.text(), &format!("no blanks, and up to {MAX_NAME} bytes")));
        }
        if !subscription.channels.contains(&whole) {
            subscription.channels.push(whole);
        }
    }
    let allowed = if answer.allowed.is_none() { config.allowed() } else { &[] };
    for pieces in allowed {
        // What the request lacks must not widen the pattern: of `%{REMOTE_USER}*` the asterisk would be left.
        let parts = pieces.iter().map(|piece| match piece {
            Some(piece) => Ok(name_part(piece, request)?.filter(|part| !part.is_empty())),
            None => Ok(Some(String::new())),
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        if let Some(mut pattern) = parts.into_iter().collect::<Option<Vec<String>>>() {
            if let Some(first) = pattern.first_mut() {
                first.insert_str(0, &subscription.prefix);
            }
            subscription.allowed.push(Pattern(pattern));
        }
    }
    let member = match (answer.member, config.member(), said(request)) {
        (Some(member), _, _) => member,
        (None, Some(expression), _) => value(expression, request)?,
        // Whom the application calls its user is not shown to others by that.
        (None, None, Some(said)) => said.login.clone().unwrap_or_default(),
        (None, None, None) => request.user().map(Cow::into_owned).unwrap_or_default(),
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

/// A part of a name or a pattern; `None` where a variable in it is empty.
fn name_part(expression: &Expression, request: &Request) -> Result<Option<String>, NoSubscription> {
    let value = expression.evaluate(request).map_err(NoSubscription::Expression)?;
    if value.slashed_user {
        return Err(NoSubscription::SlashedUser(expression.text().into()));
    }
    if value.lacks { Ok(None) } else { text(expression, value).map(Some) }
}

fn value(expression: &Expression, request: &Request) -> Result<String, NoSubscription> {
    text(expression, expression.evaluate(request).map_err(NoSubscription::Expression)?)
}

fn text(expression: &Expression, value: Value<'_>) -> Result<String, NoSubscription> {
    let text = value.text.to_str().map_err(|_| bad_name(expression.text(), "it is not UTF-8"))?;
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
    let is_ours =
        |part: &&str| form_urlencoded::parse(part.as_bytes()).next().is_some_and(|(name, _)| name == LAST_EVENT_ID);
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
        assert_eq!(names("a&last%5Fevent_id=e:1").unwrap(), "a");
        assert_eq!(names("a%26b+c").unwrap(), "a&b+c");
        assert_eq!(names("a%00b").unwrap_err().status(), 400);
        assert_eq!(since_of_query("room&last_event_id=e%3A1").as_deref(), Some("e:1"));
        assert_eq!(since_of_query("last_event_id="), Some(String::new()));
        assert_eq!(since_of_query("not_last_event_id=1"), None);
    }
}
