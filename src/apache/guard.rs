//! The border of every function that C calls: a panic must not cross it.

use super::log::{self, Level};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; a panic is logged and answered with `otherwise`.
///
/// AssertUnwindSafe: what the body borrowed belongs to one request or one start, which `otherwise` brings to an end.
pub(crate) fn guard<T>(what: &str, otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        log::main(Level::Critical, &format!("WS0001: a panic in {what}: {text}"));
        otherwise
    })
}
