//! Publish and subscribe: who hears what, what is kept, and a broker.

mod batch;
mod history;
mod load;
mod names;
pub mod php;
mod protocol_v1;
mod publish;
mod redis;
mod redis_foreign;
mod redis_lost;
mod resume;
mod subscriptions;
mod transports;
