//! The handlers, each with what it runs.

mod discard;
pub mod echo;
mod exec;
pub mod plugin;
mod plugin_end;
mod plugin_examples;
mod plugin_load;
mod proxy;
mod proxy_answers;
mod proxy_products;
mod pywebsocket;
pub mod tcp;
