//! From a request to the TCP server that its session is connected to.

use super::config::TOKEN;
use crate::apache::request::Request;
use crate::front::WebSocket;
use crate::handlers::targets::Crowd;
use crate::handlers::tcp::target::Target;
use crate::handlers::tcp::{Settings, To};

/// The parameter of the query that names a target.
const PARAMETER: &str = "token";

/// What the handler is to know of a session that begins with this request; `target` is what the configuration says.
///
/// # Errors
/// What is wrong with the configuration.
pub fn settings(request: &Request, target: &str) -> Result<Settings, String> {
    let config = request.config::<WebSocket>().tcp();
    let to = if target == TOKEN {
        let file =
            config.targets().ok_or("WebSocketHandler tcp token needs a WebSocketTcpTargets beside it")?.to_owned();
        To::Token { file, token: request.query().as_deref().and_then(token) }
    } else {
        To::Target(Target::parse(target)?)
    };
    Ok(Settings { to, timeout: config.timeout(), crowd: Crowd::of_this_child() })
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
