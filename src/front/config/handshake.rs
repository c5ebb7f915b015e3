//! Who may open a WebSocket or publish, and which subprotocols are spoken.

use super::words::{Words, one};
use super::{Config, directives};
use crate::wire::handshake::{OriginCheck, Protocols, is_token};
use crate::wire::origin::Trusted;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum OriginRule {
    Off,
    Same,
    Trusted,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PublishAccess {
    /// This machine alone, and of it whom `Require` lets in.
    #[default]
    Local,
    /// Whom `Require` lets in.
    Require,
}

directives! { pub(super) DIRECTIVES =
    c"WebSocketProtocols" "name ...|*" in Everywhere, else "none" => protocols,
        c"The subprotocols that are spoken here, the preferred first; '*' for whichever the client offers first";
    c"WebSocketOriginCheck" "Off|Same|Trusted" in Everywhere, else "Same" => origin_check,
        c"Which pages may connect: any ('Off'), those of this site ('Same') or of the origins of WebSocketTrustedOrigin ('Trusted')";
    c"WebSocketTrustedOrigin" "origin ..." in Everywhere, else "none" => trusted_origin,
        c"The origins whose pages may connect under 'WebSocketOriginCheck Trusted', as https://www.example.com";
    c"WebSocketPublishAccess" "Local|Require" in Sections, else "Local" => publish_access,
        c"Who may publish with 'SetHandler websocket-publish': this machine alone ('Local'), or whom Require lets in ('Require')";
}

impl Config {
    pub(super) fn origins(&self) -> OriginCheck {
        match self.origin_check.unwrap_or(OriginRule::Same) {
            OriginRule::Off => OriginCheck::Off,
            OriginRule::Same => OriginCheck::Same,
            OriginRule::Trusted => OriginCheck::Trusted(self.trusted_origins.clone().unwrap_or_default()),
        }
    }

    /// Who may publish over HTTP, beside what `Require` says.
    pub(crate) fn publish_access(&self) -> PublishAccess {
        self.publish_access.unwrap_or_default()
    }
}

fn protocols(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    if words.is_empty() {
        return Err("expected the names of subprotocols, the preferred first, or *".into());
    }
    let chosen = match (words, &mut config.protocols) {
        ([star], _) if star == "*" => Protocols::Any,
        (words, earlier) => {
            let mut names = match earlier {
                Some(Protocols::Listed(names)) => std::mem::take(names),
                _ => Vec::new(),
            };
            for word in words {
                if word == "*" {
                    return Err("* must stand alone: it accepts every subprotocol".into());
                }
                // RFC 6455 section 4.1 item 10: what a client can offer at all.
                if !is_token(word) {
                    return Err(format!(
                        "\"{word}\" cannot be the name of a subprotocol: blanks and separators may not be in it"
                    ));
                }
                if !names.iter().any(|name| name == word) {
                    names.push(word.clone().into_owned());
                }
            }
            Protocols::Listed(names)
        }
    };
    config.protocols = Some(chosen);
    Ok(())
}

fn origin_check(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "Off, Same or Trusted")?;
    config.origin_check = Some(match word.to_ascii_lowercase().as_str() {
        "off" => OriginRule::Off,
        "same" => OriginRule::Same,
        "trusted" => OriginRule::Trusted,
        _ => return Err(format!("expected Off, Same or Trusted, got \"{word}\"")),
    });
    Ok(())
}

fn trusted_origin(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    if words.is_empty() {
        return Err("expected origins, such as https://www.example.com".into());
    }
    for word in words {
        let trusted = Trusted::parse(word).map_err(|expected| format!("expected {expected}, got \"{word}\""))?;
        config.trusted_origins.get_or_insert_default().push(trusted);
    }
    Ok(())
}

fn publish_access(config: &mut Config, words: Words<'_, '_>) -> Result<(), String> {
    let word = one(words, "Local or Require")?;
    config.publish_access = Some(match word.to_ascii_lowercase().as_str() {
        "local" => PublishAccess::Local,
        "require" => PublishAccess::Require,
        _ => return Err(format!("expected Local or Require, got \"{word}\"")),
    });
    Ok(())
}
