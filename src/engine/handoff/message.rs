//! The messages of a handoff.

use crate::engine::query::Query;
use crate::engine::{ForeignRefusal, Response, SessionSpec};
use crate::tls::record::Keys;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What travels: see [`super::codec::encode`].
pub trait HandoffMessage: Serialize + DeserializeOwned {
    /// It is to be wiped where it has been.
    fn is_secret(&self) -> bool {
        false
    }

    /// What follows the message's own form, and may be long.
    fn payload(&self) -> &[u8] {
        &[]
    }

    /// Takes what has followed it.
    fn set_payload(&mut self, _payload: Bytes) {}
}

/// From httpd's children to the engine.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum ToEngine {
    /// First on every link.
    Hello {
        /// The sender's [`super::version`].
        version: String,
    },
    /// Will you run this session?
    Offer(Box<SessionSpec>),
    /// The session's socket comes with this message.
    Take {
        /// From [`FromEngine::Granted`].
        id: u64,
        /// Bytes that the client sent after its handshake and that httpd has read.
        early: Vec<u8>,
        /// A second descriptor comes behind the socket: see [`crate::engine::Adoption::link`].
        linked: bool,
        /// The socket has TLS on it, with these keys. `early` is what came in it.
        tls: Option<Box<Keys>>,
        /// A second descriptor comes behind the socket: that of the server which the session was proxied to.
        backend: Option<Box<ProxiedBackend>>,
    },
    /// The session comes over a mux, as the stream with the session's number.
    Carry {
        /// From [`FromEngine::Granted`].
        id: u64,
        /// From [`FromEngine::Mux`].
        mux: u64,
        /// A descriptor comes with this message: that of the server which the session was proxied to.
        backend: Option<Box<ProxiedBackend>>,
    },
    /// The other end of a new mux comes with this message: see [`crate::mux`].
    Mux {
        /// The engine thread that is to have it: the one of the sessions that will come over it.
        thread: u32,
    },
    /// The session will not come.
    Abandon {
        /// From [`FromEngine::Granted`].
        id: u64,
    },
    /// Close an open session. Nothing happens where it has ended.
    Close {
        /// From [`FromEngine::Granted`].
        id: u64,
        /// The close code; in the place of one that may not be sent goes 1001.
        code: u16,
        /// The reason that the Close frame gives; its first 123 bytes.
        reason: String,
    },
    /// A question to a handler, or something it is to do: see [`crate::engine::Handler::call`].
    Call {
        /// As in `WebSocketHandler NAME`.
        handler: String,
        /// In the handler's own form.
        request: Vec<u8>,
        /// What the handler is given with it, as it is.
        #[serde(skip)]
        payload: Bytes,
    },
    /// A question to all threads.
    Query(Query),
    /// As an offer, of a session whose handshake the engine answers if it takes it: its socket comes with this message. Nothing
    /// follows before the answer.
    Open {
        /// What is known of the session.
        spec: Box<SessionSpec>,
        /// The 101, as it is to be sent.
        head: Vec<u8>,
        /// Bytes that the client sent after its handshake and that httpd has read.
        early: Vec<u8>,
        /// The socket has TLS on it, with these keys. `early` is what came in it.
        tls: Option<Box<Keys>>,
    },
}

/// What comes with the socket of a server behind a proxy, whose 101 the client has.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxiedBackend {
    /// Bytes that the server sent after its 101 and that httpd has read.
    pub early: Vec<u8>,
    /// The socket has TLS on it, with these keys; httpd was its client. `early` is what came in it.
    pub tls: Option<Box<Keys>>,
    /// What else the handler is told, now that it is known who the server is: in a form of the handler's own.
    pub settings: Vec<u8>,
}

impl HandoffMessage for ToEngine {
    fn is_secret(&self) -> bool {
        if let ToEngine::Open { tls, .. } = self {
            return tls.is_some();
        }
        let (ToEngine::Take { backend, .. } | ToEngine::Carry { backend, .. }) = self else { return false };
        matches!(self, ToEngine::Take { tls: Some(_), .. })
            || backend.as_ref().is_some_and(|backend| backend.tls.is_some())
    }

    fn payload(&self) -> &[u8] {
        if let ToEngine::Call { payload, .. } = self { payload } else { &[] }
    }

    fn set_payload(&mut self, came: Bytes) {
        if let ToEngine::Call { payload, .. } = self {
            *payload = came;
        }
    }
}

/// From the engine to httpd.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum FromEngine {
    /// The answer to a Hello of another version, and to [`crate::engine::control::Order::Configure`]. Stays as it is in every version.
    Hello { version: String },
    /// The engine keeps a place for the session.
    Granted {
        /// The session's number, as log lines name it.
        id: u64,
        response: Response,
        /// The engine thread that a mux for it has to go to.
        thread: u32,
    },
    /// The answer to [`ToEngine::Mux`].
    Mux {
        /// The mux's number; no other of this engine has it.
        number: u64,
    },
    /// The handler has nothing there: somebody else is to answer.
    Declined,
    /// The client gets no answer: its connection is to end.
    Dropped,
    /// The answer to [`ToEngine::Call`] and [`ToEngine::Query`].
    Answer {
        /// In the form of the handler, or of the query.
        answer: Vec<u8>,
    },
    /// The engine cannot run the session, or the handler cannot do what it was called for.
    Refused {
        status: u16,
        reason: String,
        /// It was configured so: one of the session's quotas is used up.
        by_quota: bool,
    },
    /// Before the answer to an offer or a call that takes its time, since the handler has asked somebody else.
    Asking,
    /// Whoever the handler has asked refuses the session.
    Answered(Box<ForeignRefusal>),
    /// The answer to [`ToEngine::Open`]: the client's socket is the engine's, and the 101 is sent next.
    Opened {
        /// The session's number, as log lines name it.
        id: u64,
    },
}

impl HandoffMessage for FromEngine {}
