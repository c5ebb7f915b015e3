//! What a handler is to httpd: how it is configured, and what it has to say of a request before its session is the engine's.

use super::authorize::Refused;
use super::config::Config;
use super::config::words::{Words, is_off};
use super::relay::hold::RequestHold;
use super::upgrade::with_offer;
use crate::apache::directive::Directive;
use crate::apache::pool::Pool;
use crate::apache::process::Parent;
use crate::apache::request::Request;
use crate::apache::server::Server;
use crate::apache::status::INTERNAL_SERVER_ERROR;
use crate::apache::{HookResult, HookStatus};
use crate::engine::application::ApplicationSpec;
use crate::engine::handoff::PATIENCE;
use crate::engine::{HandlerSpec, Limits, Quota};
use crate::wire::handshake::{Accept, Protocols, Refusal, negotiate};
use serde::Serialize;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A handler, as the list of all of them has it.
pub(crate) struct Registration {
    pub(crate) front: &'static dyn Front,
    /// Its own, which change what the [`Config`] holds for it ([`Config::change`]).
    pub(crate) directives: &'static [Directive<Config>],
}

/// A handler on httpd's side.
pub(crate) trait Front: Sync {
    /// As in `WebSocketHandler NAME`, and on the way to the engine.
    fn name(&self) -> &'static str;

    /// The first word behind `WebSocketHandler` means this handler.
    fn is_meant_by(&self, word: &str) -> bool {
        word.eq_ignore_ascii_case(self.name())
    }

    /// Takes the words behind `WebSocketHandler`, its own name the first of them; returns what the engine is to have of them.
    fn configure(&self, _config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        match words {
            [] | [_] => Ok(Vec::new()),
            [_, more @ ..] => Err(format!("{} takes no arguments, got \"{}\"", self.name(), more.join(" "))),
        }
    }

    /// The subprotocols that are spoken where no directive names any.
    fn protocols(&self) -> Protocols {
        Protocols::default()
    }

    /// Bytes of the largest message, where no directive says it.
    fn max_message_size(&self, _config: &Config) -> usize {
        Limits::default().max_message_size
    }

    /// Messages mean nothing to it, only their bytes: one may go on for ever.
    fn is_stream(&self, _config: &Config) -> bool {
        false
    }

    /// What a session of this client counts for, at a virtual host of this name, beside what every session does.
    fn quotas(&self, _config: &Config, _host: &str, _client: &str) -> Vec<Quota> {
        Vec::new()
    }

    /// What names of channels begin with at this place, where the handler says so: `NAME/`, or nothing.
    fn prefix(&self, _config: &Config) -> Option<String> {
        None
    }

    fn needs(&self) -> Needs {
        Needs::Stream
    }

    /// Judges a handshake. `None`: it is answered by the handler, in the engine.
    ///
    /// # Errors
    /// It is none, or not as it should be.
    fn negotiate(&self, request: &Request) -> Result<Option<Accept>, Refusal> {
        with_offer(request, negotiate).map(Some)
    }

    /// A request whose handler is about to be settled (fixups): sends a handshake on to another server, where that is what the
    /// handler does.
    ///
    /// # Errors
    /// The status of the refusal, which is in the log.
    fn route(&self, _request: &mut Request) -> HookResult {
        Ok(HookStatus::Declined)
    }

    /// A handshake that is as it should be: true where it is on its way to another server, and the next content handler's.
    fn passes_on(&self, _request: &Request) -> bool {
        false
    }

    /// mod_proxy has made the header lines for a back end, which are the request's for now.
    fn proxy_fixups(&self, _request: &Request) {}

    /// Works out what the session needs to know of its request; `args` is what [`Front::configure`] has returned. The
    /// subprotocol in `accept` is for it to change.
    ///
    /// # Errors
    /// The status of the refusal, which is in the log.
    fn prepare(&self, _request: &mut Request, _args: &[String], _accept: Option<&mut Accept>) -> Result<Prepared, u16> {
        Ok(Prepared::default())
    }

    /// As [`Front::prepare`], for who asks somebody else on this thread whether there is to be a session.
    ///
    /// # Errors
    /// There is not; what the client is told was said, or is a status.
    fn consult(
        &self,
        request: &mut Request,
        args: &[String],
        accept: Option<&mut Accept>,
    ) -> Result<Prepared, Refused> {
        self.prepare(request, args, accept).map_err(Refused::Status)
    }

    /// Answers an ordinary request that is its own, by `SetHandler`; `None`: it is not.
    fn answer(&self, _request: &mut Request) -> Option<HookResult> {
        None
    }

    /// An ordinary request at a location of this handler, which nobody has answered.
    ///
    /// # Errors
    /// A status that httpd makes a page for.
    fn answer_last(&self, _request: &mut Request) -> HookResult {
        Ok(HookStatus::Declined)
    }

    /// What the server's configuration says to the handler as a whole, in a form of the handler's own.
    fn server_settings(&self, _config: &Config) -> Option<Vec<u8>> {
        None
    }

    /// In httpd's parent, with a new configuration.
    fn check(&self, _parent: &mut Parent, _server: &Server) -> Result<(), String> {
        Ok(())
    }

    /// In a new child of httpd, whose pool this is.
    fn child_init(&self, _pool: &Pool) {}

    /// This child of httpd ends at once, and asks for the end of what it has a part in: relays are told next.
    fn child_stopping(&self) {}

    /// Relays have been told. Returns when nothing is left to be waited for.
    fn child_stopped(&self) {}
}

/// A handler whose name says all that httpd needs to know, and that accepts everything with a plain 101.
pub(crate) struct Plain(pub(crate) &'static str);

impl Front for Plain {
    fn name(&self) -> &'static str {
        self.0
    }

    fn prepare(&self, _request: &mut Request, _args: &[String], _accept: Option<&mut Accept>) -> Result<Prepared, u16> {
        Ok(Prepared { is_plain: true, ..Prepared::default() })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Its bytes, however they come to the engine.
    Stream,
    /// A descriptor of its own, from which no others come.
    Descriptor,
}

pub(crate) struct Prepared {
    /// What else the engine's side of it is to know, in a form of its own.
    pub(crate) settings: Vec<u8>,
    /// As whom the session is present in its channels.
    pub(crate) member: Option<String>,
    pub(crate) patience: Duration,
    /// The handler accepts with a 101 that has no lines of its own, and a session of messages.
    pub(crate) is_plain: bool,
    /// What becomes of the request, where it must outlive the handoff.
    pub(crate) hold: Option<Hold>,
    /// What the engine asks the application with; `None`: what it would be without this handler.
    pub(crate) application: Option<Box<ApplicationSpec>>,
    /// For the case that there is no session after all.
    pub(crate) undo: Option<Undo>,
}

/// Takes back what somebody was told of a session.
pub(crate) type Undo = Box<dyn FnOnce(&mut Request)>;

/// Takes the number of the session and one end of a socketpair, whose other end the engine has: the request is kept until what
/// it returns lets go of it.
pub(crate) type Hold = Box<dyn FnOnce(u64, UnixStream) -> Arc<dyn RequestHold>>;

impl Default for Prepared {
    fn default() -> Prepared {
        Prepared {
            settings: Vec::new(),
            member: None,
            patience: PATIENCE,
            is_plain: false,
            hold: None,
            application: None,
            undo: None,
        }
    }
}

impl Prepared {
    pub(crate) fn with(settings: &impl Serialize) -> Result<Prepared, u16> {
        let settings = postcard::to_stdvec(settings).map_err(|_| INTERNAL_SERVER_ERROR)?;
        Ok(Prepared { settings, ..Prepared::default() })
    }
}

/// What stands behind `WebSocketHandler`.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) front: &'static dyn Front,
    pub(crate) args: Vec<String>,
}

impl Chosen {
    pub(crate) fn spec(&self, settings: Vec<u8>) -> HandlerSpec {
        HandlerSpec { name: self.front.name().into(), args: self.args.clone(), settings }
    }
}

/// Reads `WebSocketHandler`, which may mean one of these.
pub(crate) fn choose(all: &[Registration], config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let names = all.iter().map(|known| known.front).filter(|front| front.is_meant_by(front.name()));
    let known = || names.map(Front::name).collect::<Vec<_>>().join(", ");
    let Some(word) = words.first() else {
        return Err(format!("expected the name of a handler ({}) or Off", known()));
    };
    if is_off(word) {
        let [_] = words else {
            return Err(format!("Off takes no arguments, got \"{}\"", words[1..].join(" ")));
        };
        config.handler = Some(None);
        return Ok(());
    }
    let Some(Registration { front, .. }) = all.iter().find(|known| known.front.is_meant_by(word)) else {
        return Err(format!("there is no handler \"{word}\"; expected {} or Off", known()));
    };
    let args = front.configure(config, words)?;
    config.handler = Some(Some(Chosen { front: *front, args }));
    Ok(())
}

/// What is wrong where an `.htaccess` file says what only the server's configuration may.
pub(crate) fn only_in_httpds(config: &Config, what: &str) -> Result<(), String> {
    if !config.place.in_htaccess {
        return Ok(());
    }
    let path = config.place.path.as_deref().unwrap_or("/");
    Err(format!(
        "{what}: write this line into httpd's configuration, into a <Directory \"{path}\"> for what it is here"
    ))
}
