//! A connection of a plugin before its 101.

use super::abi::{Callback, Plugin};
use super::connection::{PluginConnection, locked};
use super::executor::Executor;
use super::watchdog;
use crate::apache::request::Request;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A connection that is not open yet: the thread of its request has it. Dropped, it is over: the plugin is told.
pub struct PluginOpening {
    connection: Arc<PluginConnection>,
    opened: bool,
}

impl PluginOpening {
    /// Asks the plugin whether it wants this connection; `None`: no.
    ///
    /// What it says about the 101 is in the request's headers then, but for the subprotocol.
    pub fn ask(
        executor: &'static Executor,
        plugin: &Arc<Plugin>,
        request: &mut Request,
        offered: &[String],
        send_buffer: usize,
    ) -> Option<PluginOpening> {
        request.connection().share_memory();
        let connection = PluginConnection::new(executor, plugin, request, offered, send_buffer);
        let object = connection.object;
        executor.count_up();
        object.attach(connection.clone());
        let opening = PluginOpening { connection, opened: false };
        let connection = &opening.connection;
        let private = watchdog::call(connection, Callback::Connect, || connection.plugin.on_connect(object))?;
        // Nobody else sets it.
        let _ = connection.private.set(private);
        if let Some(answer) = &locked(&connection.state).answer {
            for (key, value) in &answer.headers {
                request.headers_out().set_bytes(key, value);
            }
        }
        Some(opening)
    }

    pub fn protocol(&self) -> Option<String> {
        let state = locked(&self.connection.state);
        let protocol = state.answer.as_ref()?.protocol.as_ref()?;
        Some(protocol.to_string_lossy().into_owned())
    }

    /// The engine has the other end of `link`, and the session: from now on the executor's threads have the connection.
    pub fn open(mut self, session: u64, link: UnixStream) -> Arc<PluginConnection> {
        self.opened = true;
        let connection = &self.connection;
        connection.session.store(session, Ordering::Relaxed);
        {
            let mut state = locked(&connection.state);
            state.answer = None;
            // Nobody else sets it.
            let _ = connection.link.set(link);
        }
        connection.executor.watch(connection);
        connection.flush();
        connection.wake();
        self.connection.clone()
    }
}

impl Drop for PluginOpening {
    fn drop(&mut self) {
        if self.opened {
            return;
        }
        let connection = &self.connection;
        connection.refuse_more(&mut locked(&connection.state));
        connection.disconnect();
    }
}
