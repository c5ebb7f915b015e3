//! A message for many clients: what it takes to send it is worked out once for all who get the same bytes.

use super::codec::{Contexts, Encoded, Encoding, MAX_HEADER};
use super::memory::{Memory, Share, SharedBytes};
use super::thread::ThreadState;
use super::write_queue::WriteQueue;
use crate::wire::{Message, Utf8Bytes};
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A data message, and the encodings in which it goes out. May be shared between threads.
#[derive(Debug)]
pub struct Broadcast {
    text: bool,
    payload: Bytes,
    /// Those who wait for the payload as it is.
    common: OnceLock<Arc<SharedBytes>>,
    /// As many as there are kinds of clients: few.
    encoded: Mutex<Vec<InEncoding>>,
    /// Who brings a large message into an encoding; who wants it in the same waits.
    preparing: tokio::sync::Mutex<()>,
}

/// An encoding, what the message is in it, and those who wait for that.
type InEncoding = (Encoding, Encoded, OnceLock<Arc<SharedBytes>>);

impl Broadcast {
    /// Of a text or binary message; `None` for others, which are a session's own business.
    pub fn new(message: Message) -> Option<Broadcast> {
        let (text, payload) = match message {
            Message::Text(text) => (true, text.into()),
            Message::Binary(payload) => (false, payload),
            _ => return None,
        };
        Some(Broadcast::of(text, payload))
    }

    fn of(text: bool, payload: Bytes) -> Broadcast {
        let (common, encoded, preparing) = (OnceLock::new(), Mutex::default(), tokio::sync::Mutex::default());
        Broadcast { text, payload, common, encoded, preparing }
    }

    /// Of text.
    pub fn text(text: Utf8Bytes) -> Broadcast {
        Broadcast::of(true, text.into())
    }

    /// Of bytes that are no text.
    pub fn binary(payload: Bytes) -> Broadcast {
        Broadcast::of(false, payload)
    }

    /// Text, and not binary.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The message itself.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The message in this encoding, which `encode` brings it into where nobody has before.
    pub fn encoded(&self, encoding: Encoding, encode: impl FnOnce(Bytes) -> Encoded) -> Encoded {
        let mut encodings = self.encodings();
        if let Some((_, encoded, _)) = encodings.iter().find(|(known, ..)| *known == encoding) {
            return encoded.clone();
        }
        let encoded = encode(self.payload.clone());
        encodings.push((encoding, encoded.clone(), OnceLock::new()));
        encoded
    }

    /// Has [`Broadcast::encoded`] find the message in this encoding. While a large one is brought into it, others of the thread
    /// have their turn.
    pub async fn prepare(&self, encoding: Encoding, shared: &ThreadState) {
        let _alone = self.preparing.lock().await;
        if self.encodings().iter().any(|(known, ..)| *known == encoding) {
            return;
        }
        let slices = encoding.begin_encode(&mut shared.contexts.borrow_mut(), &self.payload);
        let Some(mut slices) = slices else {
            self.encoded(encoding, |payload| encoding.encode(&mut shared.contexts.borrow_mut(), payload));
            return;
        };
        shared.turns.take(|| slices.step()).await;
        let encoded = encoding.end_encode(&mut shared.contexts.borrow_mut(), self.payload.clone(), slices);
        self.encoded(encoding, |_| encoded);
    }

    fn encodings(&self) -> MutexGuard<'_, Vec<InEncoding>> {
        // Whoever panicked in `encode` has left the list as it was.
        self.encoded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits for the message as it is.
    pub fn wait(&self, memory: &Arc<Memory>) -> Share {
        self.common.get_or_init(|| SharedBytes::new(memory, self.payload.len())).wait()
    }

    /// Somebody waits for these bytes, which are what [`Broadcast::encoded`] has given. `None`: they are copied, or those of
    /// no other.
    pub fn wait_for(&self, bytes: &Bytes, memory: &Arc<Memory>) -> Option<Share> {
        if !WriteQueue::shares(bytes) {
            return None;
        }
        if bytes.as_ptr() == self.payload.as_ptr() {
            return Some(self.wait(memory));
        }
        let encodings = self.encodings();
        let (.., common) = encodings.iter().find(|(_, (encoded, _), _)| encoded.as_ptr() == bytes.as_ptr())?;
        Some(common.get_or_init(|| SharedBytes::new(memory, bytes.len())).wait())
    }
}

/// Messages that many get, one after the other. Their frames are put together once for all who get the same bytes.
#[derive(Debug)]
pub struct Batch {
    messages: Vec<Arc<Broadcast>>,
    encodings: RefCell<Vec<(Encoding, Frames)>>,
}

#[derive(Debug)]
struct Frames {
    bytes: Bytes,
    begins: Vec<usize>,
    common: Option<Arc<SharedBytes>>,
}

impl Batch {
    /// Of these messages.
    pub fn new(messages: Vec<Arc<Broadcast>>) -> Batch {
        Batch { messages, encodings: RefCell::default() }
    }

    /// The messages from the `first` on.
    pub fn messages(&self, first: usize) -> &[Arc<Broadcast>] {
        self.messages.get(first..).unwrap_or_default()
    }

    /// Somebody waits for frames of this encoding, which there are.
    pub fn wait(&self, encoding: Encoding, memory: &Arc<Memory>) -> Option<Share> {
        let mut encodings = self.encodings.borrow_mut();
        let (_, frames) = encodings.iter_mut().find(|(known, _)| *known == encoding)?;
        let bytes = frames.bytes.len();
        Some(frames.common.get_or_insert_with(|| SharedBytes::new(memory, bytes)).wait())
    }

    /// The frames of the messages from the `first` on, in this encoding.
    pub fn frames(&self, encoding: Encoding, contexts: &RefCell<Contexts>, first: usize) -> Bytes {
        let mut encodings = self.encodings.borrow_mut();
        let known = encodings.iter().position(|(known, _)| *known == encoding);
        let place = known.unwrap_or_else(|| {
            encodings.push((encoding, Frames::of(&self.messages, encoding, &mut contexts.borrow_mut())));
            encodings.len() - 1
        });
        let frames = &encodings[place].1;
        frames.begins.get(first).map_or_else(Bytes::new, |begin| frames.bytes.slice(begin..))
    }
}

impl Frames {
    fn of(messages: &[Arc<Broadcast>], encoding: Encoding, contexts: &mut Contexts) -> Frames {
        let mut bytes = Vec::with_capacity(messages.iter().map(|m| m.payload().len() + MAX_HEADER).sum());
        let mut begins = Vec::with_capacity(messages.len());
        for message in messages {
            let (payload, compressed) = message.encoded(encoding, |payload| encoding.encode(contexts, payload));
            begins.push(bytes.len());
            encoding.put_header(&mut bytes, message.is_text(), compressed, payload.len());
            bytes.extend_from_slice(&payload);
        }
        Frames { bytes: bytes.into(), begins, common: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::deflate::Compression;
    use crate::wire::extension::Parameters;
    use crate::wire::session::{Rules, Session};

    const LIMITS: Rules = Rules { max_message_size: 1000, compression: None, reserved_close_codes: false };

    fn compressed(server_no_context_takeover: bool, level: u8) -> Rules {
        let parameters = Parameters {
            server_no_context_takeover,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        };
        Rules { compression: Some(Compression { parameters, level, min_size: 10 }), ..LIMITS }
    }

    #[test]
    fn a_message_is_encoded_once_for_all_of_the_same_kind() {
        let message = Broadcast::new(Message::text("sheep and goats and sheep and goats")).unwrap();
        let mut contexts = Contexts::default();
        let mut times = 0;
        let mut send = |rules: &Rules| {
            let mut session = Session::new(rules);
            session.encoding().map(Encoding::WebSocket).map(|encoding| {
                message.encoded(encoding, |payload| {
                    times += 1;
                    session.encode(&mut contexts, payload)
                })
            })
        };
        let plain = send(&LIMITS).unwrap();
        assert_eq!((plain.0.as_ptr(), plain.1), (message.payload().as_ptr(), false));
        let first = send(&compressed(true, 3)).unwrap();
        let second = send(&compressed(true, 3)).unwrap();
        assert!(first.1 && first.0.len() < message.payload().len());
        assert_eq!(first.0.as_ptr(), second.0.as_ptr());
        send(&compressed(true, 9));
        send(&LIMITS);
        assert_eq!(send(&compressed(false, 3)), None, "it depends on what went before");
        assert_eq!(times, 3);
        assert!(Broadcast::new(Message::Ping(Bytes::new())).is_none());
    }

    #[test]
    fn a_batch_is_put_together_once_for_all_of_the_same_kind() {
        let text = "sheep and goats and sheep and goats";
        let messages = [Message::text(text), Message::binary(vec![7; 3])];
        let batch = Batch::new(messages.map(|message| Arc::new(Broadcast::new(message).unwrap())).into());
        let contexts = RefCell::default();
        let plain = Encoding::WebSocket(Session::new(&LIMITS).encoding().unwrap());
        let whole = batch.frames(plain, &contexts, 0);
        assert_eq!(whole[..], [&[0x81, 35], text.as_bytes(), &[0x82, 3, 7, 7, 7]].concat());
        assert_eq!(batch.frames(plain, &contexts, 1), whole[37..]);
        assert_eq!(batch.frames(plain, &contexts, 1).as_ptr(), whole[37..].as_ptr());
        assert_eq!((batch.frames(plain, &contexts, 2).len(), batch.messages(2).len()), (0, 0));
        let compressed = Encoding::WebSocket(Session::new(&compressed(true, 3)).encoding().unwrap());
        let frames = batch.frames(compressed, &contexts, 0);
        assert_eq!(frames[0], 0xc1);
        assert!(frames.len() < whole.len());
        assert!(frames.ends_with(&[0x82, 3, 7, 7, 7]), "that was too short to be compressed");
    }
}
