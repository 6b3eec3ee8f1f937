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
use crate::dead_letter::DeadLetter;
use crate::record::{ByteOffset, Position};
use crate::seek_point::SeekPoint;
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
    /// What is kept of it if it is not published.
    pub dead_letter: Option<Box<DeadLetter>>,
    /// A place before it from which it can be read, if there is a new one.
    pub seek_point: Option<Arc<SeekPoint>>,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::Subject;
    use crate::record::Ordinal;

    fn settles(record: u64) -> Settles {
        Settles::Record(Settled {
            start: ByteOffset(0),
            position: Position {
                ordinal: Ordinal(record),
                xml: ByteOffset(record * 10),
            },
            compressed: ByteOffset(record),
            has_message: true,
            repaired: false,
            dead_letter: None,
            seek_point: None,
        })
    }

    fn message(record: u64, bytes: usize) -> Arc<Message> {
        Arc::new(Message {
            version: "20260801".parse().unwrap(),
            route: crate::dump::Kind::Artists,
            subject: Subject::Record(Ordinal(record)),
            sequence: record,
            sha256: String::new(),
            body: vec![b'x'; bytes].into(),
        })
    }

    /// The window as a plain list of states, searched from its start.
    #[derive(Debug, Default)]
    struct Model {
        entries: Vec<Entry>,
    }

    #[derive(Clone, Copy, Debug)]
    struct Entry {
        record: u64,
        bytes: usize,
        state: State,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum State {
        Waiting,
        InFlight(Tag, Instant),
        Settled,
        Taken,
    }

    impl Model {
        fn present(&self) -> impl Iterator<Item = &Entry> {
            let entries = self.entries.iter();
            entries.filter(|entry| entry.state != State::Taken)
        }

        fn find(&mut self, is_wanted: impl Fn(State) -> bool) -> Option<&mut Entry> {
            let mut entries = self.entries.iter_mut();
            entries.find(|entry| is_wanted(entry.state))
        }

        fn sent_as(&mut self, tag: Tag) -> Option<&mut Entry> {
            self.find(|state| matches!(state, State::InFlight(present, _) if present == tag))
        }

        fn in_flight(&self) -> impl Iterator<Item = Instant> {
            self.entries.iter().filter_map(|entry| match entry.state {
                State::InFlight(_, sent) => Some(sent),
                _ => None,
            })
        }

        fn bytes(&self) -> usize {
            let unsettled = self.present().filter(|entry| entry.state != State::Settled);
            unsettled.map(|entry| entry.bytes).sum()
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push { bytes: usize },
        PushSettled,
        Send,
        Settle(u64),
        TakeBack(u64),
        TakeAllBack,
        RestartClocks,
        Settled,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..40).prop_map(|bytes| Step::Push { bytes }),
            1 => Just(Step::PushSettled),
            5 => Just(Step::Send),
            4 => (0_u64..30).prop_map(Step::Settle),
            2 => (0_u64..30).prop_map(Step::TakeBack),
            1 => Just(Step::TakeAllBack),
            1 => Just(Step::RestartClocks),
            4 => Just(Step::Settled),
        ]
    }

    const MESSAGES_MAX: usize = 5;
    const BYTES_MAX: usize = 100;

    /// The window, its model, and what both are given next.
    struct Pair {
        window: Window,
        model: Model,
        pushed: u64,
        tag: u64,
        now: Instant,
    }

    impl Pair {
        fn push(&mut self, message: Option<Arc<Message>>) {
            if !self.window.has_room() {
                return;
            }
            self.pushed += 1;
            let state = match message {
                Some(_) => State::Waiting,
                None => State::Settled,
            };
            let bytes = message.as_ref().map_or(0, |message| message.body.len());
            self.window.push(settles(self.pushed), message);
            self.model.entries.push(Entry {
                record: self.pushed,
                bytes,
                state,
            });
        }

        fn send(&mut self) {
            self.tag += 1;
            let tag = Tag(self.tag);
            let sent = self.window.send(tag, self.now);
            let expected = self.model.find(|state| state == State::Waiting);
            let record = expected.map(|entry| {
                entry.state = State::InFlight(tag, self.now);
                entry.record
            });
            assert_eq!(sent.map(|message| message.sequence), record, "lowest first");
        }

        /// Settles or takes back the attempt that was made `ago` attempts before the last.
        fn answer(&mut self, ago: u64, state: State) {
            let tag = Tag(self.tag.saturating_sub(ago));
            let expected = self.model.sent_as(tag).map(|entry| {
                entry.state = state;
                entry.record
            });
            let sent = self.window.sent(tag).map(|message| message.sequence);
            assert_eq!(sent, expected);
            let answered = match state {
                State::Settled => self.window.settle(tag).map(|(message, _)| message),
                _ => self.window.take_back(tag),
            };
            assert_eq!(answered.map(|message| message.sequence), expected);
        }

        fn take_settled(&mut self) {
            let front = self.model.find(|state| state != State::Taken);
            let front = front.filter(|entry| entry.state == State::Settled);
            let expected = front.map(|entry| {
                entry.state = State::Taken;
                settles(entry.record)
            });
            assert_eq!(self.window.settled(), expected);
        }

        fn make(&mut self, step: Step) {
            self.now = self.now + std::time::Duration::from_nanos(1);
            match step {
                Step::Push { bytes } => self.push(Some(message(self.pushed + 1, bytes))),
                Step::PushSettled => self.push(None),
                Step::Send => self.send(),
                Step::Settle(ago) => self.answer(ago, State::Settled),
                Step::TakeBack(ago) => self.answer(ago, State::Waiting),
                Step::TakeAllBack => {
                    self.window.take_all_back();
                    while let Some(entry) = self
                        .model
                        .find(|state| matches!(state, State::InFlight(..)))
                    {
                        entry.state = State::Waiting;
                    }
                }
                Step::RestartClocks => {
                    self.window.restart_clocks(self.now);
                    for entry in &mut self.model.entries {
                        if let State::InFlight(_, sent) = &mut entry.state {
                            *sent = self.now;
                        }
                    }
                }
                Step::Settled => self.take_settled(),
            }
            self.check();
        }

        fn check(&self) {
            let (window, model) = (&self.window, &self.model);
            let present = model.present().count();
            assert_eq!(window.len(), present);
            assert_eq!(window.is_empty(), present == 0);
            assert_eq!(window.in_flight(), model.in_flight().count());
            assert_eq!(window.oldest_sent(), model.in_flight().min());
            let has_waiting = model.present().any(|entry| entry.state == State::Waiting);
            assert_eq!(window.has_waiting(), has_waiting);
            let has_room = present < MESSAGES_MAX && model.bytes() < BYTES_MAX;
            assert_eq!(window.has_room(), has_room);
        }
    }

    proptest! {
        #[test]
        fn a_window_is_its_model(steps in prop::collection::vec(step(), 0..200)) {
            let mut pair = Pair {
                window: Window::new(MESSAGES_MAX, BYTES_MAX),
                model: Model::default(),
                pushed: 0,
                tag: 0,
                now: Instant::ORIGIN,
            };
            for step in steps {
                pair.make(step);
            }
        }
    }

    #[test]
    #[should_panic(expected = "a tag names one attempt")]
    fn a_tag_in_flight_is_not_used_again() {
        let mut window = Window::new(2, 100);
        for record in 1..=2 {
            window.push(settles(record), Some(message(record, 1)));
            window.send(Tag(1), Instant::ORIGIN);
        }
    }

    #[test]
    fn one_message_may_be_larger_than_the_window() {
        let mut window = Window::new(10, 100);
        window.push(settles(1), Some(message(1, 1_000)));
        assert!(!window.has_room());
        window.send(Tag(1), Instant::ORIGIN);
        window.settle(Tag(1));
        assert!(window.has_room());
    }
}
