//! From a request to the TCP server that its session is connected to.

use super::config::{self, DIRECTIVES, TOKEN, TcpConfig};
use super::target::Target;
use super::{PROTOCOL, TcpSettings, To};
use crate::apache::log::{self, Level};
use crate::apache::request::Request;
use crate::apache::status::INTERNAL_SERVER_ERROR;
use crate::engine::Limits;
use crate::engine::handoff::PATIENCE;
use crate::front::WebSocket;
use crate::front::config::Config;
use crate::front::config::words::Words;
use crate::front::handler::{Front, Prepared, Registration};
use crate::handlers::targets::Crowd;
use crate::wire::handshake::{Accept, Protocols};

const PARAMETER: &str = "token";

pub(crate) const FRONT: Registration = Registration { front: &TcpFront, directives: DIRECTIVES };

struct TcpFront;

impl Front for TcpFront {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn configure(&self, config: &mut Config, words: Words<'_, '_>) -> Result<Vec<String>, String> {
        config::args(config, words)
    }

    fn protocols(&self) -> Protocols {
        Protocols::Listed(vec![PROTOCOL.to_owned()])
    }

    fn max_message_size(&self, _config: &Config) -> usize {
        Limits::UNLIMITED
    }

    fn is_stream(&self, _config: &Config) -> bool {
        true
    }

    fn prepare(&self, request: &mut Request, args: &[String], _accept: Option<&mut Accept>) -> Result<Prepared, u16> {
        let settings = settings(request, args.first().map_or("", String::as_str)).map_err(|why| {
            log::request(Level::Error, request, &format!("WS0020: {why}"));
            INTERNAL_SERVER_ERROR
        })?;
        Ok(Prepared { patience: settings.timeout + PATIENCE, is_plain: true, ..Prepared::with(&settings)? })
    }
}

/// What the handler is to know of a session that begins with this request; `target` is what the configuration says.
fn settings(request: &Request, target: &str) -> Result<TcpSettings, String> {
    let config = request.config::<WebSocket>().of::<TcpConfig>();
    let to = if target == TOKEN {
        let file =
            config.targets().ok_or("WebSocketHandler tcp token needs a WebSocketTcpTargets beside it")?.to_owned();
        To::Token { file, token: request.query().as_deref().and_then(token) }
    } else {
        To::Target(Target::parse(target)?)
    };
    Ok(TcpSettings { to, timeout: config.timeout(), crowd: Crowd::of_this_child() })
}

/// The token in a query; an empty one is none.
fn token(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == PARAMETER).map(|(_, token)| token.into_owned()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_parameter() {
        assert_eq!(token("a=b&token=my%20desk+1&token=c").as_deref(), Some("my desk 1"));
        assert_eq!((token("token="), token("token"), token("mytoken=x"), token("")), (None, None, None, None));
    }
}
