//! What an engine and the processes of httpd know of each other without asking, and what a child passes before it asks: so that
//! an engine that hangs holds a few of httpd's workers, for a short time, and none of those that have pages to serve.
//!
//! * [`signals`]: the shared words in which it is written
//! * [`heartbeat`]: the engine's signs of life
//! * [`gate`]: what a child passes before it asks, and while it waits
//! * [`breaker`]: an engine that is late is asked by one at a time
//! * [`bulkhead`]: only so many wait; more only for as long as answers come to those
//! * [`patient`]: a child's end of a stream to an engine

pub mod breaker;
pub mod bulkhead;
pub mod gate;
pub mod heartbeat;
pub mod patient;
pub mod signals;
