//! A session, from the takeover to its end.

use super::ProxySettings;
use super::one_way::OneWay;
use crate::engine::handle::IDLE;
use crate::engine::memory::{Demand, Held, Holding};
use crate::engine::metrics::row::OpenBackend;
use crate::engine::socket::Socket;
use crate::engine::summary::{End, Traffic};
use crate::engine::{BackendStream, LocalBoxFuture, RawStream, RawSummary, StreamSession, Streams, metrics};
use crate::wire::frame::{Control, put_control, put_masked_close};
use crate::wire::{CloseCode, CloseFrame, close};
use log::{debug, error, info};
use ring::rand::{SecureRandom, SystemRandom};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// How long nothing may move when one end has ended, or both have said their Close: a socket that the other forgets to end is not
/// kept for ever.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// How long the ends then have to end their sides. Closing while one still talks could turn the last bytes for it into a reset.
const LINGER: Duration = Duration::from_secs(2);

pub struct Proxied;

impl StreamSession for Proxied {
    fn run(self: Box<Self>, streams: Streams, raw: &RawStream) -> LocalBoxFuture<'_, RawSummary> {
        let session = Session::new(streams, raw);
        Box::pin(async move {
            let mut session = match session {
                Ok(session) => session,
                Err(why) => {
                    error!("WS0290: session {}: it cannot be taken over from mod_proxy: {why}", raw.id());
                    return RawSummary { end: End::Lost(why), received: Traffic::default(), sent: Traffic::default() };
                }
            };
            let verdict = poll_fn(|cx| session.poll(cx)).await;
            // Boxed, so that an open session keeps no room for its end.
            Box::pin(session.finish(verdict)).await
        })
    }
}

/// Why a session is over.
enum Verdict {
    /// Both ends have ended; or one, where that is enough.
    Ended,
    /// It is to close with this frame.
    Asked(CloseFrame),
}

pub(super) struct Session<'a> {
    raw: &'a RawStream,
    client: Socket,
    backend: Socket,
    up: OneWay,
    down: OneWay,
    /// The first Close that passed.
    closed: Option<Box<End>>,
    /// The first that broke.
    lost: Option<io::Error>,
    half_close: bool,
    is_ending: bool,
    /// While something waits.
    holding: Option<Holding>,
    _open: OpenBackend,
}

impl Session<'_> {
    /// Boxed, since a future has room for a value in each place that it moves to.
    fn new(streams: Streams, raw: &RawStream) -> io::Result<Box<Session<'_>>> {
        let Streams { client, early, backend } = streams;
        // First, so that one that comes over a mux is closed there whatever else fails.
        let client = raw.stream(client)?;
        let BackendStream { source, early: said, settings } =
            *backend.ok_or_else(|| io::Error::other("no server has come with it"))?;
        let backend = Socket::of_server(source)?;
        let settings: ProxySettings = postcard::from_bytes(&settings).map_err(io::Error::other)?;
        let ProxySettings { backend: name, idle_timeout, half_close } = settings;
        debug!("WS0291: session {}: proxied to {name}", raw.id());
        for socket in [&client, &backend] {
            socket.keep_alive();
        }
        if let Some(limit) = raw.spec().limits.idle_timeout.or(idle_timeout) {
            raw.limit_idleness(limit);
        }
        let session = Box::new(Session {
            raw,
            client,
            backend,
            up: OneWay::new(true, early),
            down: OneWay::new(false, said),
            closed: None,
            lost: None,
            half_close,
            is_ending: false,
            holding: None,
            _open: metrics::here().backend(),
        });
        session.count_since([Traffic::default(); 2]);
        Ok(session)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        if let Poll::Ready(frame) = self.raw.poll_close_asked(cx) {
            return Poll::Ready(Verdict::Asked(frame));
        }
        let before = self.passed();
        let may_read = self.holding.as_ref().is_none_or(|holding| holding.demand() == Demand::None);
        let up = self.up.poll(cx, (&mut self.client, &mut self.backend), may_read, &mut self.lost);
        self.note_close();
        let down = self.down.poll(cx, (&mut self.backend, &mut self.client), may_read, &mut self.lost);
        self.note_close();
        if up || down {
            self.raw.note_data();
            self.count_since(before);
        }
        let (up, down) = (self.up.is_done(), self.down.is_done());
        if (up && down) || ((up || down) && !self.half_close) {
            return Poll::Ready(Verdict::Ended);
        }
        let has_closed = |way: &OneWay| way.follower.close().is_some();
        if !self.is_ending && (up || down || (has_closed(&self.up) && has_closed(&self.down))) {
            self.is_ending = true;
            self.raw.limit_idleness(LAST_WORDS);
        }
        self.settle();
        if !may_read {
            self.raw.pause();
        }
        Poll::Pending
    }

    /// What has come from the client, and what has gone to it.
    fn passed(&self) -> [Traffic; 2] {
        [&self.up, &self.down].map(|way| Traffic { messages: way.follower.messages, bytes: way.follower.bytes })
    }

    /// Counts what has passed since then.
    fn count_since(&self, [up, down]: [Traffic; 2]) {
        let (here, [received, sent]) = (metrics::here(), self.passed());
        here.note_received(received.messages - up.messages, received.bytes - up.bytes);
        here.note_sent(sent.messages - down.messages, sent.bytes - down.bytes);
    }

    /// Who was the first to say Close.
    fn note_close(&mut self) {
        if self.closed.is_some() {
            return;
        }
        let frame = |code: CloseCode| close(code, "");
        self.closed = match (self.up.follower.close(), self.down.follower.close()) {
            (Some(code), _) => Some(Box::new(End::Client(code.map(frame)))),
            (None, Some(code)) => Some(Box::new(End::Handler(frame(code.unwrap_or(CloseCode::Status))))),
            (None, None) => None,
        };
    }

    /// Notes what is held, for `WebSocketMemory`.
    fn settle(&mut self) {
        let sealed = |socket: &Socket| socket.held();
        let ((begun, unsent), (said, unheard)) = (sealed(&self.client), sealed(&self.backend));
        let held =
            Held { unfinished: begun + said, unsent: self.up.held() + self.down.held() + unsent + unheard, share: 0 };
        if held == Held::default() {
            self.holding = None;
            return;
        }
        let raw = self.raw;
        self.holding.get_or_insert_with(|| raw.hold()).update(held);
    }

    async fn finish(mut self: Box<Self>, verdict: Verdict) -> RawSummary {
        // What passes from here on goes to nobody.
        let [received, sent] = self.passed();
        // Where what waits is too much, nothing behind it arrives in time.
        let is_short = self.holding.as_ref().is_some_and(|holding| holding.demand() >= Demand::Close);
        let asked = match verdict {
            Verdict::Ended => None,
            Verdict::Asked(frame) => {
                if !is_short {
                    self.say_close(&frame).await;
                }
                Some(End::Engine(frame))
            }
        };
        if !is_short {
            self.hang_up().await;
        }
        let lost = || End::Lost(self.lost.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        let end = self.closed.take().map(|end| *end).or(asked).unwrap_or_else(lost);
        RawSummary { end, received, sent }
    }

    /// Tells both ends, where a frame may stand, and hears what they answer.
    async fn say_close(&mut self, frame: &CloseFrame) {
        if frame.reason == IDLE {
            let id = self.raw.id();
            match self.is_ending {
                true => debug!("WS0292: session {id}: an end that was over for the other has not ended"),
                false => info!("WS0293: session {id}: closed, since nothing has moved for as long as is configured"),
            }
        }
        let mut for_client = Vec::new();
        let payload = [&u16::from(frame.code).to_be_bytes(), frame.reason.as_bytes()].concat();
        put_control(&mut for_client, Control::Close, &payload);
        let mut for_backend = Vec::new();
        put_masked_close(&mut for_backend, mask(), CloseCode::Away);
        let (client, backend) = (self.down.add(&for_client), self.up.add(&for_backend));
        let said = poll_fn(|cx| {
            self.down.flush(cx, &mut self.client, &mut self.lost);
            self.up.flush(cx, &mut self.backend, &mut self.lost);
            // Reading goes on while one takes nothing: its own Close may be what it wants to send first.
            let client = !client || self.up.poll_rest(cx, &mut self.client, true).is_ready();
            let backend = !backend || self.down.poll_rest(cx, &mut self.backend, true).is_ready();
            let waits = self.down.is_waiting() || self.up.is_waiting();
            if client && backend && !waits { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = timeout(self.raw.spec().limits.close_timeout, said).await;
    }

    /// Ends both streams, and waits a little for the ends to do so.
    async fn hang_up(&mut self) {
        for (way, to) in [(&self.down, &self.client), (&self.up, &self.backend)] {
            // Else it has heard of the end.
            if !way.is_done() {
                to.end_writing();
            }
        }
        let rest = poll_fn(|cx| {
            let client = self.up.poll_rest(cx, &mut self.client, false).is_ready();
            let backend = self.down.poll_rest(cx, &mut self.backend, false).is_ready();
            if client && backend { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = timeout(LINGER, rest).await;
    }
}

/// A mask for a frame to a server (RFC 6455 section 5.3).
fn mask() -> [u8; 4] {
    let mut mask = [0; 4];
    // Without it the frame is as good: what is in it is known to everybody.
    let _ = SystemRandom::new().fill(&mut mask);
    mask
}
