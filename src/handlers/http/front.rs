//! From a request to its session: the application of this httpd is asked on the handshake's thread whether it wants it.

use super::TOO_LATE;
use super::config::{self, DIRECTIVES, ForeignUrl, HttpConfig, HttpUrl};
use super::effect::Unusable;
use super::events::{EventsDialect, postponed};
use super::request::MAX_BODY;
use super::settings::{ChannelRules, HttpSettings, Mode, Opening, RecheckRules};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::{BAD_GATEWAY, GATEWAY_TIMEOUT, INTERNAL_SERVER_ERROR};
use crate::apache::subrequest::Reply;
use crate::channels::name::{MAX_NAME, is_name};
use crate::engine::application::loopback::{Application, HttpAnswer, TIMEOUT};
use crate::engine::application::{ApplicationSpec, connection_id, reserved, store};
use crate::engine::handoff::PATIENCE;
use crate::front::WebSocket;
use crate::front::authorize::ask::{self, Asked};
use crate::front::authorize::{self, Refused, Said, said, spec, tell_of_bad_answer};
use crate::front::config::Config;
use crate::front::config::words::Words;
use crate::front::handler::{Front, Prepared, Registration};
use crate::handlers::channel_config::ChannelConfig;
use crate::handlers::targets::Crowd;
use crate::wire::handshake::Accept;
use crate::wire::websocket_events::{MEDIA_TYPE, WebSocketEvent};
use std::borrow::Cow;
use std::thread;
use std::time::Instant;

pub(crate) const FRONT: Registration = Registration { front: &HttpFront, directives: DIRECTIVES };

struct HttpFront;

impl Front for HttpFront {
    fn name(&self) -> &'static str {
        "http"
    }

    fn configure(&self, config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        config::url(config, words).map(|()| Vec::new())
    }

    fn consult(
        &self,
        request: &mut Request,
        _args: &[String],
        accept: Option<&mut Accept>,
    ) -> Result<Prepared, Refused> {
        consult(request, accept)
    }

    fn server_settings(&self, config: &Config) -> Option<Vec<u8>> {
        // Plain data, which always has a form.
        Some(postcard::to_stdvec(&config.of::<HttpConfig>().max()).unwrap_or_default())
    }
}

fn failed(request: &Request, why: &str) -> Refused {
    log::request(Level::Error, request, &format!("WS0334: {why}"));
    Refused::Status(INTERNAL_SERVER_ERROR)
}

fn consult(request: &mut Request, accept: Option<&mut Accept>) -> Result<Prepared, Refused> {
    let config = request.config::<WebSocket>().of::<HttpConfig>().into_owned();
    let given = config.url().ok_or_else(|| failed(request, "WebSocketHandler http has no URL"))?;
    let connection = match said(request) {
        Some(said) => said.connection.clone(),
        None => connection_id().map_err(|why| failed(request, &format!("a session cannot be given an id: {why}")))?,
    };
    let channels = channels(request, given.in_htaccess);
    let (member, has_prefix) = (channels.member.clone(), !channels.prefix.is_empty());
    let base = *spec::of(request, has_prefix).unwrap_or_default();
    let application = ApplicationSpec { connection, headers: spec::replayed(request), ..base };
    let secure = request.connection().is_tls();
    let mode = config.mode();
    let is_own = said(request).is_none_or(|said| said.url.is_none());
    let recheck = is_own.then(|| {
        let (interval, grace) = spec::own_recheck(request);
        RecheckRules { interval, grace }
    });
    let named = named_by_authorize(request, &channels)?;
    let (to, target, opening, grip_key, spec, local) = match &given.url {
        HttpUrl::Elsewhere(url) => {
            let ForeignUrl { secure: by_tls, host, port, target } = url.clone();
            let to = Application::Elsewhere { host, port, secure: by_tls };
            let opening = Opening::Engine {
                lines: accept.as_deref().map(crate::front::response::negotiated).unwrap_or_default(),
                protocols: accept.map(|accept| accept.offered_protocols.clone()).unwrap_or_default(),
                crowd: Crowd::of_this_child(),
            };
            (to, target, opening, spec::grip_key(request), application, None)
        }
        HttpUrl::Local(url) => {
            let target = url.evaluate(request).map_err(|why| {
                let (level, status) = (if why.status() == 500 { Level::Error } else { Level::Info }, why.status());
                log::request(level, request, &format!("WS0335: refused with {status}: WebSocketHandler http: {why}"));
                Refused::Status(status)
            })?;
            let here = spec::here(request).ok_or_else(|| {
                failed(request, "this server has no address here: name a listener by WebSocketLoopback")
            })?;
            let mut application = application;
            let (requests, answer) = ask_to_open(request, mode, &target, &mut application)?;
            judge(request, mode, &target, &answer)?;
            admit(request, accept, &application.connection, &target, &answer)?;
            let HttpAnswer { headers, body, .. } = answer;
            let opening = Opening::Accepted { requests, headers, body: body.to_vec() };
            // What it has said of rechecks is known now.
            let spec = spec::of(request, has_prefix).map_or(application.clone(), |spec| ApplicationSpec {
                recheck: spec.recheck,
                expires: spec.expires,
                here: Some(here.clone()),
                ..application.clone()
            });
            (here, target.clone(), opening, None, spec, Some((target, application, requests)))
        }
    };
    let settings =
        HttpSettings { mode, application: to, target, opening, channels, given: named, secure, recheck, grip_key };
    let patience = if local.is_some() { PATIENCE } else { TIMEOUT + PATIENCE };
    let undo = local.map(|(target, application, requests)| -> crate::front::handler::Undo {
        Box::new(move |request: &mut Request| take_back(request, mode, &target, &application, requests))
    });
    let prepared = Prepared::with(&settings).map_err(Refused::Status)?;
    Ok(Prepared { member, patience, application: Some(Box::new(spec)), undo, ..prepared })
}

fn channels(request: &Request, in_htaccess: bool) -> ChannelRules {
    let config = request.config::<WebSocket>().of::<ChannelConfig>().into_owned();
    let (prefix, max) = (config.prefix(), config.max());
    // Whoever writes .htaccess files has no channels but those below a prefix.
    let max = if in_htaccess && prefix.is_empty() { 0 } else { max };
    let member = said(request).and_then(|said| said.answer.member.clone().or_else(|| said.login.clone()));
    let member = member.or_else(|| request.user().map(Cow::into_owned));
    ChannelRules { prefix, max, member }
}

/// Those that `WebSocketAuthorize` has named: with all of them, or not at all.
fn named_by_authorize(request: &Request, rules: &ChannelRules) -> Result<Vec<String>, Refused> {
    let Some(said) = said(request) else { return Ok(Vec::new()) };
    let names = said.answer.channels.clone().unwrap_or_default();
    let why = if rules.prefix.is_empty() && said.decides_in_htaccess() {
        "an .htaccess file has chosen it, so it may say something of channels only below a WebSocketChannelPrefix"
            .into()
    } else if names.len() > rules.max as usize {
        format!("{} channels, but only {} are allowed (WebSocketChannelMax)", names.len(), rules.max)
    } else if names.iter().any(|name| !is_name(&format!("{}{name}", rules.prefix))) {
        format!("the name of a channel has more than {MAX_NAME} bytes")
    } else {
        return Ok(names);
    };
    tell_of_bad_answer(request, said.url.as_deref().unwrap_or_default(), &why);
    Err(Refused::Status(INTERNAL_SERVER_ERROR))
}

/// Asks the application whether it wants the session: again, when it says so, for as long as a client waits. With how many requests.
fn ask_to_open(
    request: &mut Request,
    mode: Mode,
    url: &str,
    application: &mut ApplicationSpec,
) -> Result<(u64, HttpAnswer), Refused> {
    let end = Instant::now() + TIMEOUT;
    let mut requests = 1;
    loop {
        let reply = tell(request, mode, url, application, &WebSocketEvent::Open, requests)?;
        let answer = answer(reply);
        let Some(wait) = postponed(&answer).filter(|_| mode == Mode::Events) else { return Ok((requests, answer)) };
        let said = super::effect::lines(&answer).map_err(|why| {
            tell_of_bad_answer(request, url, &why.to_string());
            Refused::Status(BAD_GATEWAY)
        })?;
        if Instant::now() + wait >= end {
            let why = format!("it wants to be asked again in {} s: {TOO_LATE}", wait.as_secs());
            tell_of_bad_answer(request, url, &why);
            return Err(Refused::Status(GATEWAY_TIMEOUT));
        }
        store(&mut application.meta, said.meta);
        // As a page that takes as long.
        thread::sleep(wait);
        requests += 1;
    }
}

/// Tells the application of an event, on this thread, by the request with this number.
fn tell(
    request: &mut Request,
    mode: Mode,
    url: &str,
    application: &ApplicationSpec,
    event: &WebSocketEvent,
    number: u64,
) -> Result<Reply, Refused> {
    let name = if *event == WebSocketEvent::Open { "open" } else { "disconnect" };
    let meta: Vec<_> =
        application.meta.iter().map(|(name, value)| (format!("{}{name}", reserved::META), value)).collect();
    let mut headers = vec![(reserved::SEQUENCE, Cow::Owned(number.to_string()))];
    headers.extend(meta.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str()))));
    let (mut media_type, mut body) = ("text/plain;charset=utf-8", Vec::new());
    if mode == Mode::Events {
        media_type = MEDIA_TYPE;
        event.encode(&mut body);
        headers.extend([("Accept", MEDIA_TYPE.into()), ("Sec-WebSocket-Extensions", "grip".into())]);
    }
    let asked = Asked {
        method: c"POST",
        url,
        event: name,
        connection: &application.connection,
        headers,
        body: Some((media_type, &body)),
        goes_along: reserved::is_replayed,
        kept: MAX_BODY,
    };
    ask::reply(request, &asked)
}

/// As the engine has it from elsewhere.
fn answer(reply: Reply) -> HttpAnswer {
    let lines = reply.headers.into_iter().chain(reply.content_type.map(|value| (c"content-type".to_owned(), value)));
    let lines =
        lines.filter_map(|(name, value)| Some((name.into_string().ok()?.to_ascii_lowercase(), value.into_bytes())));
    HttpAnswer { status: reply.status, headers: lines.collect(), body: reply.body.into() }
}

/// Whether the engine will understand the first answer.
fn judge(request: &Request, mode: Mode, url: &str, answer: &HttpAnswer) -> Result<(), Refused> {
    if let Err(Unusable { why, .. }) = super::understand(mode, &mut EventsDialect::default(), answer.clone()) {
        tell_of_bad_answer(request, url, &why);
        return Err(Refused::Status(BAD_GATEWAY));
    }
    Ok(())
}

/// What the header lines say that is httpd's to do: user, subprotocol, lines of the 101.
fn admit(
    request: &mut Request,
    accept: Option<&mut Accept>,
    connection: &str,
    url: &str,
    answer: &HttpAnswer,
) -> Result<(), Refused> {
    let mut own = super::effect::lines(answer).map_err(|why| {
        tell_of_bad_answer(request, url, &why.to_string());
        Refused::Status(INTERNAL_SERVER_ERROR)
    })?;
    let login = match said(request) {
        Some(said) => said.login.clone(),
        None => request.user().map(Cow::into_owned),
    };
    let (mut authorize, mut in_htaccess) = (None, false);
    if let Some(before) = said(request) {
        // Where this application says nothing, the one that was asked first counts.
        (authorize, in_htaccess) = (before.url.clone(), before.is_from_htaccess);
        own.recheck = own.recheck.or(before.answer.recheck);
        own.expires = own.expires.or(before.answer.expires);
    }
    let said =
        Said { answer: own, connection: connection.to_owned(), url: authorize, login, is_from_htaccess: in_htaccess };
    authorize::admit(request, accept, said)
}

/// The application has accepted a session that there will not be.
fn take_back(request: &mut Request, mode: Mode, url: &str, application: &ApplicationSpec, requests: u64) {
    if tell(request, mode, url, application, &WebSocketEvent::Disconnect, requests + 1).is_err() {
        log::request(Level::Info, request, &format!("WS0336: {url} was not told that there is no session"));
    }
}
