//! What one thread of an engine counts, or some threads of children together.

use super::timing::{self, TIMINGS, Timing};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is only ever added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Sessions that have begun.
    Opened,
    /// Messages from clients.
    ReceivedMessages,
    /// Bytes of their payloads.
    ReceivedBytes,
    /// Messages to clients.
    SentMessages,
    /// Bytes of their payloads.
    SentBytes,
    /// Messages that were published to a channel.
    Published,
    /// Clients that were given up since they did not take what was sent.
    SlowClosed,
}

/// The words of the [`Counter`]s.
const COUNTERS: usize = 16;

/// Close codes that are told one by one: RFC 6455 section 7.4.1, and those of IANA's registry after it. What clients choose
/// among others counts by its thousand.
const CODES: std::ops::RangeInclusive<u16> = 1000..=1015;
const CODE_GROUPS: [&str; 3] = ["3xxx", "4xxx", "other"];

/// HTTP statuses that are told one by one; others by their hundred.
const STATUSES: [u16; 24] = [
    301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 421, 426, 429, 500, 501, 502, 503, 504, 507,
    508,
];
const STATUS_GROUPS: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The places of [`CODES`] and their groups.
pub const CODE_PLACES: usize = 16 + CODE_GROUPS.len();
/// Those of [`STATUSES`] and their groups.
pub const STATUS_PLACES: usize = STATUSES.len() + STATUS_GROUPS.len();

const CLOSED: usize = COUNTERS;
const REFUSED: usize = CLOSED + CODE_PLACES;
const TIMED: usize = REFUSED + STATUS_PLACES;
/// What there is now, of this thread.
const OPEN: usize = TIMED + TIMINGS.len() * timing::WORDS;
/// A row.
pub const WORDS: usize = 256;

const _: () = assert!(OPEN < WORDS);

/// What close codes count as, by their places.
pub fn code_label(place: usize) -> String {
    match place.checked_sub(16) {
        Some(group) => CODE_GROUPS[group].into(),
        None => (CODES.start() + place as u16).to_string(),
    }
}

fn code_place(code: u16) -> usize {
    match code {
        1000..=1015 => usize::from(code - CODES.start()),
        3000..=3999 => 16,
        4000..=4999 => 17,
        _ => 18,
    }
}

/// What statuses count as, by their places.
pub fn status_label(place: usize) -> String {
    match place.checked_sub(STATUSES.len()) {
        Some(group) => STATUS_GROUPS[group].into(),
        None => STATUSES[place].to_string(),
    }
}

fn status_place(status: u16) -> usize {
    let group = || STATUSES.len() + usize::from(status / 100).clamp(1, 6) - 1;
    STATUSES.iter().position(|known| *known == status).unwrap_or_else(group)
}

/// One row of the shared words.
#[derive(Debug, Clone, Copy)]
pub struct Row(&'static [AtomicU64; WORDS]);

impl Row {
    /// # Panics
    /// They are not as many as a row has.
    pub(super) fn new(words: &'static [AtomicU64]) -> Row {
        Row(words.try_into().expect("the words of a row"))
    }

    /// To a word that this thread alone writes.
    fn own(self, place: usize, more: u64) {
        let word = &self.0[place];
        word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    fn word(self, place: usize) -> u64 {
        self.0[place].load(Ordering::Relaxed)
    }

    /// So many more. To be called by the thread whose row it is.
    pub fn add(self, counter: Counter, more: u64) {
        self.own(counter as usize, more);
    }

    /// As [`Row::add`], of messages from a client.
    pub fn note_received(self, messages: u64, bytes: u64) {
        self.add(Counter::ReceivedMessages, messages);
        self.add(Counter::ReceivedBytes, bytes);
    }

    /// As [`Row::add`], of messages to a client.
    pub fn note_sent(self, messages: u64, bytes: u64) {
        self.add(Counter::SentMessages, messages);
        self.add(Counter::SentBytes, bytes);
    }

    /// A session has ended with this code. To be called by the thread whose row it is.
    pub fn note_closed(self, code: u16) {
        self.own(CLOSED + code_place(code), 1);
    }

    /// Something took so long. To be called by the thread whose row it is.
    pub fn note_time(self, timing: Timing, time: Duration) {
        let first = TIMED + timing as usize * timing::WORDS;
        self.own(first + timing::place(time), 1);
        self.own(first + timing::SUM, time.as_micros() as u64);
    }

    /// A connection to a server behind this one is open, until what is returned is dropped. To be called by the thread whose row
    /// it is, and dropped there.
    pub fn backend(self) -> OpenBackend {
        self.own(OPEN, 1);
        OpenBackend(self)
    }

    /// As [`Row::note_time`], in a row that several threads write.
    pub fn share_time(self, timing: Timing, time: Duration) {
        let first = TIMED + timing as usize * timing::WORDS;
        self.0[first + timing::place(time)].fetch_add(1, Ordering::Relaxed);
        self.0[first + timing::SUM].fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// A handshake was refused with this status; in a row that several threads write.
    pub fn share_refused(self, status: u16) {
        self.0[REFUSED + status_place(status)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counted(self, counter: Counter) -> u64 {
        self.word(counter as usize)
    }

    pub(super) fn closed(self, place: usize) -> u64 {
        self.word(CLOSED + place)
    }

    pub(super) fn refused(self, place: usize) -> u64 {
        self.word(REFUSED + place)
    }

    pub(super) fn timed(self, timing: Timing, place: usize) -> u64 {
        self.word(TIMED + timing as usize * timing::WORDS + place)
    }

    pub(super) fn backends(self) -> u64 {
        self.word(OPEN)
    }

    /// Whoever had it is no more: what was open is not.
    pub(super) fn forget_open(self) {
        self.0[OPEN].store(0, Ordering::Relaxed);
    }
}

/// A connection to a server behind this one.
#[derive(Debug)]
pub struct OpenBackend(Row);

impl Drop for OpenBackend {
    fn drop(&mut self) {
        self.0.own(OPEN, u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::super::EngineArea;
    use super::*;

    #[test]
    fn codes_that_clients_choose_have_few_labels() {
        let label = |code| code_label(code_place(code));
        for (code, expected) in [(1000, "1000"), (1009, "1009"), (1015, "1015"), (3000, "3xxx"), (4999, "4xxx")] {
            assert_eq!(label(code), expected);
        }
        assert!([0, 999, 1016, 2999, 5000, u16::MAX].into_iter().all(|code| label(code) == "other"));
        let mut labels: Vec<String> = (0..CODE_PLACES).map(code_label).collect();
        labels.dedup();
        assert_eq!(labels.len(), CODE_PLACES);
    }

    #[test]
    fn statuses_have_few_labels() {
        let label = |status| status_label(status_place(status));
        for (status, expected) in [(403, "403"), (503, "503"), (418, "4xx"), (599, "5xx"), (204, "2xx"), (0, "1xx")] {
            assert_eq!(label(status), expected);
        }
        assert!([600, 700, u16::MAX].into_iter().all(|status| label(status) == "other"));
    }

    #[test]
    fn what_is_open_is_given_back() {
        let row = EngineArea::private(0).row(0);
        let (one, two) = (row.backend(), row.backend());
        assert_eq!(row.backends(), 2);
        drop(one);
        assert_eq!(row.backends(), 1);
        drop(two);
        assert_eq!(row.backends(), 0);
    }
}
