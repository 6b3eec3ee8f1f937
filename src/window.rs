//! The window: what has been read and is not settled yet, in order, bounded in messages and
//! bytes; and the frontier that follows from it.
//!
//! ```text
//!             frontier                    newest
//!   settled ──────┤ s . s s . . w w w ──────┤      s settled, . in flight, w waiting
//! ```
//!
//! Entries leave at the front only, each once it is settled, so the frontier can never pass a
//! record that the broker does not have. It is neither the highest confirmed record nor a count
//! of confirms: confirms come out of order.
//!
//! An entry that was not taken (nack, return, lost connection) goes back to *waiting*, and the
//! lowest waiting entry is always sent first: the order of a retry is the order of the records,
//! not the order in which the answers came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::broker::{Message, Tag};
use crate::record::{ByteOffset, Position};
use crate::time::Instant;

/// What is true once an entry, and every entry before it, is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settles {
    /// A record of the dump.
    Record(Settled),
    /// The end of the dump was published.
    FileComplete,
    /// The end of the version was published, on one route.
    ExtractionComplete,
}

/// A record that is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Where it begins in the XML.
    pub start: ByteOffset,
    /// The boundary behind it.
    pub position: Position,
    /// How much of the file was read to get there, in compressed bytes.
    pub compressed: ByteOffset,
    /// Whether it has a message, and so a sequence number.
    pub has_message: bool,
    /// Whether bytes that are not UTF-8 were replaced in its message.
    pub repaired: bool,
    /// Why it was not published, as a line of the dead-letter file.
    pub dead_letter: Option<Vec<u8>>,
}

/// The window.
#[derive(Debug)]
pub struct Window {
    messages_max: usize,
    bytes_max: usize,
    bytes: usize,
    entries: VecDeque<Entry>,
    /// Place of the front entry among all that were ever pushed.
    front: u64,
    waiting: BTreeSet<u64>,
    in_flight: BTreeMap<Tag, (u64, Instant)>,
}

#[derive(Debug)]
struct Entry {
    settles: Settles,
    /// The message, until it is settled.
    message: Option<Arc<Message>>,
}

impl Window {
    /// An empty window that has room while it holds fewer than `messages_max` entries and fewer
    /// than `bytes_max` bytes of bodies; the last one in may be over by its own size.
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        assert!(
            messages_max > 0 && bytes_max > 0,
            "a window of nothing publishes nothing"
        );
        Self {
            messages_max,
            bytes_max,
            bytes: 0,
            entries: VecDeque::new(),
            front: 0,
            waiting: BTreeSet::new(),
            in_flight: BTreeMap::new(),
        }
    }

    /// Whether another entry may be pushed.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.messages_max && self.bytes < self.bytes_max
    }

    /// Whether everything pushed is settled and has been taken by [`Self::settled`].
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that are not taken yet.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Messages that were sent and not answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Adds the next entry: waiting to be sent, or settled at once if there is nothing to send.
    pub fn push(&mut self, settles: Settles, message: Option<Arc<Message>>) {
        if let Some(message) = &message {
            self.bytes += message.body.len();
            self.waiting.insert(self.front + self.entries.len() as u64);
        }
        self.entries.push_back(Entry { settles, message });
    }

    /// Sends the lowest waiting entry: its message, to be published as `tag`.
    ///
    /// # Panics
    /// If the tag was used before and is still in flight.
    pub fn send(&mut self, tag: Tag, now: Instant) -> Option<Arc<Message>> {
        let place = self.waiting.pop_first()?;
        let reused = self.in_flight.insert(tag, (place, now));
        assert!(reused.is_none(), "a tag names one attempt");
        let message = self.entry(place).message.clone();
        Some(message.expect("a waiting entry has its message"))
    }

    /// Whether something waits to be sent.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The message that was sent as `tag`. `None` as for [`Self::settle`].
    pub fn sent(&self, tag: Tag) -> Option<&Arc<Message>> {
        let (place, _) = self.in_flight.get(&tag)?;
        self.entries[self.index(*place)].message.as_ref()
    }

    /// Settles the entry that was sent as `tag`: its message, and what is to be said of it.
    /// `None` for a tag that is not in flight: a late answer of a connection that was given up.
    pub fn settle(&mut self, tag: Tag) -> Option<(Arc<Message>, &mut Settles)> {
        let (place, _) = self.in_flight.remove(&tag)?;
        let entry = self.entry(place);
        let message = entry
            .message
            .take()
            .expect("an entry in flight has its message");
        self.bytes -= message.body.len();
        Some((message, &mut self.entry(place).settles))
    }

    /// Puts the entry that was sent as `tag` back to waiting. `None` as for [`Self::settle`].
    pub fn take_back(&mut self, tag: Tag) -> Option<Arc<Message>> {
        let (place, _) = self.in_flight.remove(&tag)?;
        self.waiting.insert(place);
        self.entry(place).message.clone()
    }

    /// Puts everything in flight back to waiting: the connection is gone.
    pub fn take_all_back(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight);
        self.waiting
            .extend(in_flight.into_values().map(|(place, _)| place));
    }

    /// When the message was sent that has been in flight for longest.
    pub fn oldest_sent(&self) -> Option<Instant> {
        // Tags are given out in the order of time.
        self.in_flight.first_key_value().map(|(_, (_, sent))| *sent)
    }

    /// Counts everything in flight as sent `now`: the broker was not reading until then.
    pub fn restart_clocks(&mut self, now: Instant) {
        self.in_flight
            .values_mut()
            .for_each(|(_, sent)| *sent = now);
    }

    /// Takes the front entry if it is settled: the frontier moves by one.
    pub fn settled(&mut self) -> Option<Settles> {
        let is_settled = self.entries.front()?.message.is_none();
        if !is_settled {
            return None;
        }
        self.front += 1;
        self.entries.pop_front().map(|entry| entry.settles)
    }

    fn entry(&mut self, place: u64) -> &mut Entry {
        let index = self.index(place);
        &mut self.entries[index]
    }

    fn index(&self, place: u64) -> usize {
        usize::try_from(place - self.front).expect("a window fits into memory")
    }
}
