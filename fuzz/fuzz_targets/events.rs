#![cfg_attr(fuzzing, no_main)]
#![allow(missing_docs)]

mod_websocket_fuzz::target!(mod_websocket_fuzz::events::check);
