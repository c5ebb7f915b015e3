//! What a location does with its sessions: a folder for each handler, which is named here alone (see build.rs).
//!
//! Each has a `handler()`, what runs its sessions in the engine; and a `FRONT`, what it is to httpd.

pub mod channel;
#[cfg(feature = "httpd")]
mod channel_config;
pub mod discard;
pub mod echo;
pub mod exec;
mod framing;
pub mod http;
#[cfg(test)]
mod layout;
mod lines;
pub mod plugin;
pub mod proxy;
pub mod pywebsocket;
pub mod targets;
pub mod tcp;

include!(concat!(env!("OUT_DIR"), "/handlers.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_registry() {
        let registry = registry();
        assert_eq!(registry.names(), NUMBERED);
        assert_eq!((registry.number(NUMBERED[0]), registry.number("nobody")), (1, 0));
    }

    #[cfg(feature = "httpd")]
    #[test]
    fn httpd_knows_them_by_the_same_names() {
        let fronts: Vec<&str> = FRONTS.iter().map(|known| known.front.name()).collect();
        assert_eq!(fronts, NUMBERED);
    }
}
