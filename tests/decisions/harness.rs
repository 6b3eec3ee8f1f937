//! A world for [`driver::run`] in which everything is scripted: the dumps, every answer of the
//! broker, how long a save takes and which one fails. Time moves only while the program waits.
//!
//! After every step the world checks what must hold at every moment, so each test asserts these
//! invariants besides its own subject.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use discogs_extractor::broker::{
    Broker, Command, Disconnect, Event, Message, Session, Subject, Tag, Waker,
};
use discogs_extractor::driver::{self, Observer, Open, Outside, Saver};
use discogs_extractor::dump::{Dump, Kind, Version, file_name};
use discogs_extractor::extraction::{Ending, Extraction, Notice, Options};
use discogs_extractor::link::LinkOptions;
use discogs_extractor::marker::{
    self, Checkpoint, FileProgress, Frontier, Marker, Paths, Save, SaveError, Status, Stepped,
};
use discogs_extractor::message::Content;
use discogs_extractor::plan::{Plan, PlannedDump};
use discogs_extractor::record::{ByteOffset, Ordinal, Position};
use discogs_extractor::saves::SaveOptions;
use discogs_extractor::seek_point::{SeekPoint, hash_state};
use discogs_extractor::source::Fingerprint;
use discogs_extractor::source::{Item, Outcome, Read, Reads, SourceError};
use discogs_extractor::time::{Clock, Instant};
use sha2::{Digest, Sha256};

use crate::memory::Memory;

/// Wall-clock time at the start of every world: 2026-08-02T00:00:00Z.
pub(crate) const UNIX_START: Duration = Duration::from_secs(1_785_628_800);
pub(crate) const STARTED: &str = "2026-08-02T00:00:00.000Z";

pub(crate) const fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn version() -> Version {
    "20260801".parse().unwrap()
}

pub(crate) fn name(kind: Kind) -> String {
    file_name(&version(), kind)
}

pub(crate) fn paths() -> Paths {
    Paths::new(Path::new("state"), &version())
}

/// Small and round, so that expected values can be worked out by hand.
pub(crate) fn options() -> Options {
    Options {
        save: SaveOptions {
            interval: 5,
            age_max: Duration::from_secs(30),
            retry_min: milliseconds(500),
            attempts_max: 3,
        },
        link: LinkOptions {
            connect_timeout: Duration::from_secs(15),
            confirm_timeout: Duration::from_secs(20),
            retry_min: milliseconds(250),
            retry_max: Duration::from_secs(4),
        },
        window_messages: 4,
        window_bytes: 1 << 20,
        stop_timeout: Duration::from_secs(10),
        dead_letters_max: 2,
        announces_completion: true,
    }
}

/// What a dump holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) records: u64,
    pub(crate) malformed: BTreeSet<u64>,
    /// Reading fails behind this record.
    pub(crate) damaged_after: Option<u64>,
    /// The dump can't be opened.
    pub(crate) is_missing: bool,
    /// There is a seek point before every so-manieth record; none if 0.
    pub(crate) seek_spacing: u64,
    /// In how many pieces what lies before the position is skipped.
    pub(crate) skipped_pieces: usize,
}

pub(crate) const XML_BYTES: u64 = 100;

/// What becomes of one attempt to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Confirm,
    /// Stored at once, confirmed only so many milliseconds later.
    Late(u64),
    Nack,
    Return,
    Refuse,
    /// Refused only so many milliseconds later.
    RefuseLate(u64),
    /// Neither stored nor answered.
    Silence,
    /// The connection is lost, with this message and everything unanswered.
    Disconnect,
    /// The message is stored, and the connection is lost before the confirm.
    StoreThenDisconnect,
    /// The connection is lost for good.
    Permanent,
    /// Confirmed, and then the connection is lost for good.
    ConfirmThenPermanent,
    /// An alarm for so many milliseconds; the message is confirmed behind it.
    Block(u64),
}

/// What becomes of one attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Welcome {
    Connect,
    Refuse,
    Silence,
    Permanent,
    /// So many milliseconds pass before the answer, and two seconds more before the end.
    LateThenLost(u64),
}

/// Everything that tests look at, shared by the parts of the world.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Every attempt to publish, in order.
    pub(crate) attempts: Vec<(Instant, Arc<Message>)>,
    /// Every message that the broker has, in order of arrival.
    pub(crate) stored: Vec<Arc<Message>>,
    /// Malformed records, and those whose confirm or refusal has left the broker, by kind.
    settled: BTreeMap<Kind, BTreeSet<u64>>,
    pub(crate) notices: Vec<Notice>,
    /// Records that were read.
    read: Arc<AtomicU64>,
    pub(crate) connects: u64,
    pub(crate) opened: Vec<(Kind, Position)>,
    /// For each opened dump, where the seek point on the way is, in XML bytes.
    pub(crate) seek_points: Vec<Option<u64>>,
    /// Pieces that were skipped.
    pub(crate) skipped: Arc<AtomicU64>,
    /// When each save ended, and whether it succeeded.
    pub(crate) saves: Vec<(Instant, bool)>,
    pub(crate) stopped_at: Option<Instant>,
}

impl Record {
    fn frontier(&self, kind: Kind) -> u64 {
        let is_settled = |record: &u64| self.settled[&kind].contains(record);
        (1..).take_while(is_settled).count() as u64
    }

    /// The ids of all attempts, without the version.
    pub(crate) fn published(&self) -> Vec<String> {
        let attempts = self.attempts.iter();
        attempts.map(|(_, message)| short(message)).collect()
    }

    /// The ids of everything stored, without the version.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.stored.iter().map(|message| short(message)).collect()
    }
}

/// The id without the version.
pub(crate) fn short(message: &Message) -> String {
    message.id()["20260801-".len()..].to_owned()
}

type Shared = Rc<RefCell<Record>>;
type StopWhen = Box<dyn FnMut(&Extraction, &Record) -> bool>;

/// The world; it survives its runs.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) dumps: BTreeMap<Kind, Script>,
    /// Answers to attempts to publish, by number from 1; all others are confirmed.
    pub(crate) answers: BTreeMap<u64, Answer>,
    /// The answer to every attempt that `answers` does not name.
    pub(crate) otherwise: Answer,
    /// Answers to the first attempts to connect; all others succeed.
    pub(crate) welcomes: VecDeque<Welcome>,
    /// Whether the broker answers `Disconnect`.
    pub(crate) closes: bool,
    /// Saves that fail, by number within a run, and at which operation of theirs.
    pub(crate) failing_saves: BTreeMap<u64, u64>,
    /// How long one operation of a save takes.
    pub(crate) save_step: Duration,
    pub(crate) stop_when: Option<StopWhen>,
    /// The stop request comes just before the so-manieth poll of the broker, which it wakes.
    pub(crate) stop_in_poll: Option<u64>,
    pub(crate) fs: Memory,
    pub(crate) clock: Arc<ManualClock>,
}

/// What a run led to.
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) record: Record,
    /// What is on disk.
    pub(crate) marker: Option<Marker>,
    pub(crate) took: Duration,
    /// How long the run went on after the stop request; zero without one.
    pub(crate) stopping_took: Duration,
}

impl Ended {
    pub(crate) fn marker(&self) -> &Marker {
        self.marker.as_ref().expect("a marker was saved")
    }

    pub(crate) fn frontier(&self, kind: Kind) -> Frontier {
        let file = self.marker().file(&name(kind)).expect("the dump was begun");
        file.checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.frontier)
            .unwrap_or_default()
    }

    pub(crate) fn status(&self, kind: Kind) -> Status {
        self.marker()
            .file(&name(kind))
            .map(|file| file.status)
            .unwrap_or_default()
    }
}

impl World {
    /// A world whose dumps have these many records: artists first.
    pub(crate) fn new(records: &[u64]) -> Self {
        let script = |records: &u64| Script {
            records: *records,
            ..Script::default()
        };
        Self {
            options: options(),
            dumps: Kind::ALL
                .into_iter()
                .zip(records.iter().map(script))
                .collect(),
            answers: BTreeMap::new(),
            otherwise: Answer::Confirm,
            welcomes: VecDeque::new(),
            closes: true,
            failing_saves: BTreeMap::new(),
            save_step: milliseconds(1),
            stop_when: None,
            stop_in_poll: None,
            fs: Memory::default(),
            clock: Arc::default(),
        }
    }

    pub(crate) fn malformed(mut self, kind: Kind, records: &[u64]) -> Self {
        self.dump(kind).malformed = records.iter().copied().collect();
        self
    }

    pub(crate) fn dump(&mut self, kind: Kind) -> &mut Script {
        self.dumps
            .get_mut(&kind)
            .expect("the world has such a dump")
    }

    pub(crate) fn answers(mut self, answers: &[(u64, Answer)]) -> Self {
        self.answers = answers.iter().copied().collect();
        self
    }

    pub(crate) fn stop_when(
        mut self,
        stop_when: impl FnMut(&Extraction, &Record) -> bool + 'static,
    ) -> Self {
        self.stop_when = Some(Box::new(stop_when));
        self
    }

    /// What [`discogs_extractor::plan::plan`] makes of dumps whose bytes have not changed.
    fn plan(&self) -> Plan {
        let loaded = marker::load(&self.fs, &paths()).unwrap();
        let has_seek_point = |kind| loaded.seek_points.contains(&kind);
        let mut marker = loaded.marker.unwrap_or_else(|| Marker::new(&version()));
        let mut dumps = Vec::new();
        for kind in self.dumps.keys() {
            let entry = marker.file_mut(&name(*kind));
            if entry.status != Status::Completed {
                let checkpoint = entry.checkpoint.clone().unwrap_or_else(start);
                let path = paths().seek_point(*kind);
                let read = || marker::read_seek_point(&self.fs, &path, &checkpoint);
                let seek_point = has_seek_point(*kind).then(|| read().unwrap());
                dumps.push(PlannedDump {
                    dump: dump(*kind),
                    checkpoint,
                    seek_point,
                });
            }
        }
        Plan {
            version: version(),
            paths: paths(),
            marker,
            dumps,
            warnings: Vec::new(),
        }
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) -> Ended {
        let record = Shared::default();
        let plan = self.plan();
        for planned in &plan.dumps {
            let kind = planned.dump.kind;
            let settled = 1..=planned.checkpoint.frontier.record;
            let malformed = self.dumps[&kind].malformed.iter().copied();
            let settled = settled.chain(malformed).collect();
            record.borrow_mut().settled.insert(kind, settled);
        }
        let stop = Rc::new(AtomicBool::new(false));
        let is_saving = Rc::new(Cell::new(false));
        let begun_at = self.clock.now();
        let saved_before = saved_records(&self.fs);
        let mut extraction = Extraction::new(plan, self.options, begun_at, self.clock.unix());
        let mut broker = ScriptedBroker {
            clock: self.clock.clone(),
            record: record.clone(),
            answers: self.answers.clone(),
            otherwise: self.otherwise,
            welcomes: self.welcomes.clone(),
            closes: self.closes,
            is_saving: is_saving.clone(),
            save_step: self.save_step,
            session: None,
            is_connected: false,
            is_blocked: false,
            events: BTreeMap::new(),
            scheduled: 0,
            tags: BTreeMap::new(),
            polls_until_stop: self.stop_in_poll,
            stop: stop.clone(),
        };
        let mut saver = SteppingSaver {
            fs: self.fs.clone(),
            clock: self.clock.clone(),
            record: record.clone(),
            step: self.save_step,
            failing: self.failing_saves.clone(),
            is_saving,
            save: None,
            begun: 0,
        };
        let mut watch = Watch {
            options: self.options,
            fs: self.fs.clone(),
            record: record.clone(),
            clock: self.clock.clone(),
            stop: stop.clone(),
            stop_when: self.stop_when.take(),
            saved_before,
            operations: u64::MAX,
            saved: BTreeMap::new(),
            is_complete: false,
            steps: 0,
        };
        let ending = driver::run(
            &mut extraction,
            &mut Outside {
                clock: &*self.clock,
                broker: &mut broker,
                saver: &mut saver,
                dumps: &mut ScriptedDumps {
                    dumps: self.dumps.clone(),
                    record: record.clone(),
                },
                observer: &mut watch,
                stop: &stop,
            },
        );
        assert!(saver.save.is_none(), "a save outlives the run");
        assert!(!broker.is_closing(), "the run does not wait for the broker");
        drop((broker, saver, watch));
        self.fs.calm();
        let now = self.clock.now();
        let record = Rc::into_inner(record).expect("the world is gone");
        let record = record.into_inner();
        if matches!(ending, Ending::Complete | Ending::SelectionComplete) {
            let saved = marker::load(&self.fs, &paths()).unwrap().marker;
            let saved = saved.expect("it is saved").processing_phase;
            assert_eq!(saved, extraction.marker().processing_phase);
        }
        Ended {
            ending,
            stopping_took: now.since(record.stopped_at.unwrap_or(now)),
            record,
            marker: marker_on_disk(&self.fs),
            took: now.since(begun_at),
        }
    }
}

pub(crate) fn dump(kind: Kind) -> Dump {
    Dump {
        path: PathBuf::from("dumps").join(name(kind)),
        kind,
        version: version(),
    }
}

/// The checkpoint of a dump that is not begun.
pub(crate) fn start() -> Checkpoint {
    Checkpoint {
        fingerprint: Fingerprint("bytes".to_owned()),
        file_bytes: 1_000,
        frontier: Frontier::default(),
    }
}

pub(crate) fn marker_on_disk(fs: &Memory) -> Option<Marker> {
    let bytes = fs.content(&paths().marker())?;
    Some(serde_json::from_slice(&bytes).expect("the marker is whole at every moment"))
}

fn saved_records(fs: &Memory) -> u64 {
    marker_on_disk(fs).map_or(0, |marker| {
        let files = marker.processing_phase.progress_by_file.into_values();
        files.map(|file| file.records_extracted).sum()
    })
}

/// Time that moves only when somebody moves it.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn move_to(&self, instant: Instant) {
        self.0
            .fetch_max(instant.as_nanoseconds(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_nanoseconds(self.0.load(Ordering::Relaxed))
    }

    fn unix(&self) -> Duration {
        UNIX_START + self.now().since(Instant::ORIGIN)
    }
}

struct ScriptedDumps {
    dumps: BTreeMap<Kind, Script>,
    record: Shared,
}

impl Open for ScriptedDumps {
    fn open(
        &mut self,
        dump: &Dump,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<Reads, SourceError> {
        let script = self.dumps[&dump.kind].clone();
        assert_eq!(from.xml.0, from.ordinal.0 * XML_BYTES);
        let mut record = self.record.borrow_mut();
        record.opened.push((dump.kind, from));
        record
            .seek_points
            .push(seek_point.map(|point| point.inflated));
        if script.is_missing {
            return Err(damage(dump));
        }
        let dump = dump.clone();
        let last = script.damaged_after.unwrap_or(script.records);
        let items = (from.ordinal.0 + 1..=last).map({
            let (script, read) = (script.clone(), record.read.clone());
            move |record| {
                read.fetch_add(1, Ordering::Relaxed);
                Ok(Read::Item(item(&script, record)))
            }
        });
        let end = match script.damaged_after {
            Some(_) => Err(damage(&dump)),
            None => Ok(Read::End {
                checksum: "c0de".to_owned(),
            }),
        };
        let skipped = Arc::clone(&record.skipped);
        let pieces = (0..script.skipped_pieces).map(move |_| {
            skipped.fetch_add(1, Ordering::Relaxed);
            Ok(Read::Skipped)
        });
        Ok(Box::new(pieces.chain(items).chain(std::iter::once(end))))
    }
}

fn damage(dump: &Dump) -> SourceError {
    SourceError::Open {
        path: dump.path.clone(),
        error: io::Error::other("damaged"),
    }
}

fn item(script: &Script, record: u64) -> Item {
    Item {
        start: ByteOffset((record - 1) * XML_BYTES + 1),
        position: Position {
            ordinal: Ordinal(record),
            xml: ByteOffset(record * XML_BYTES),
        },
        compressed: ByteOffset(record * 10),
        outcome: match script.malformed.contains(&record) {
            true => Outcome::Malformed {
                reason: "no id".to_owned(),
                raw: b"<a/>".to_vec(),
            },
            false => Outcome::Content(Content {
                body: body(record).into(),
                repaired: record.is_multiple_of(7),
            }),
        },
        seek_point: (record.checked_rem(script.seek_spacing) == Some(0))
            .then(|| Arc::new(seek_point((record - 1) * XML_BYTES))),
    }
}

/// A seek point at a place in the XML.
pub(crate) fn seek_point(inflated: u64) -> SeekPoint {
    SeekPoint {
        compressed: 1 + inflated / 10,
        unused_bits: 3,
        inflated,
        member_crc: 4,
        member_length: inflated,
        sha256: hash_state(&Sha256::new()),
        window: b"the window".to_vec(),
    }
}

pub(crate) fn body(record: u64) -> Vec<u8> {
    let sha256 = "0".repeat(64);
    format!(r#"{{"type":"data","sha256":"{sha256}","id":"{record}"}}"#).into_bytes()
}

struct ScriptedBroker {
    clock: Arc<ManualClock>,
    record: Shared,
    answers: BTreeMap<u64, Answer>,
    otherwise: Answer,
    welcomes: VecDeque<Welcome>,
    closes: bool,
    is_saving: Rc<Cell<bool>>,
    save_step: Duration,
    session: Option<Session>,
    /// Whether the program was told that `session` is connected.
    is_connected: bool,
    is_blocked: bool,
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    tags: BTreeMap<Tag, Arc<Message>>,
    polls_until_stop: Option<u64>,
    stop: Rc<AtomicBool>,
}

/// How long the broker takes to answer.
pub(crate) const LATENCY: Duration = milliseconds(10);

impl ScriptedBroker {
    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        let at = self.clock.now() + after;
        self.events.insert((at, self.scheduled), event);
    }

    fn connect(&mut self, session: Session) {
        self.record.borrow_mut().connects += 1;
        assert_eq!(self.session, None, "one connection at a time");
        match self.welcomes.pop_front().unwrap_or(Welcome::Connect) {
            Welcome::Connect => {
                self.session = Some(session);
                self.schedule(LATENCY, Event::Connected(session));
            }
            Welcome::Refuse => self.disconnect(Duration::ZERO, session, false),
            Welcome::Permanent => self.disconnect(Duration::ZERO, session, true),
            Welcome::Silence => self.session = Some(session),
            Welcome::LateThenLost(after) => {
                self.session = Some(session);
                let after = milliseconds(after);
                self.schedule(after, Event::Connected(session));
                self.schedule(after + milliseconds(2_000), lost(session, false));
            }
        }
    }

    /// Answers that are on their way still arrive, after the end of the connection.
    fn disconnect(&mut self, after: Duration, session: Session, permanent: bool) {
        self.session = None;
        self.is_connected = false;
        self.is_blocked = false;
        self.schedule(after, lost(session, permanent));
    }

    fn publish(&mut self, tag: Tag, message: Arc<Message>) {
        let now = self.clock.now();
        let Some(session) = self.session else {
            return; // The end of the connection is on its way.
        };
        assert!(self.is_connected, "published before it was connected");
        assert!(!self.is_blocked, "published while blocked");
        let present = self.tags.insert(tag, message.clone());
        assert!(present.is_none(), "a tag names one attempt");
        let number = {
            let mut record = self.record.borrow_mut();
            record.attempts.push((now, message.clone()));
            record.attempts.len() as u64
        };
        let answer = self.answers.get(&number).copied();
        match answer.unwrap_or(self.otherwise) {
            Answer::Confirm => self.confirm(LATENCY, tag, message),
            Answer::Late(after) => self.confirm(milliseconds(after), tag, message),
            Answer::Nack => self.schedule(LATENCY, Event::Rejected(tag, "nack".to_owned())),
            Answer::Return => self.schedule(LATENCY, Event::Returned(tag, "no queue".to_owned())),
            Answer::Refuse => self.refuse(LATENCY, tag),
            Answer::RefuseLate(after) => self.refuse(milliseconds(after), tag),
            Answer::Silence => {}
            Answer::Disconnect => self.disconnect(Duration::ZERO, session, false),
            Answer::StoreThenDisconnect => {
                self.record.borrow_mut().stored.push(message);
                self.disconnect(Duration::ZERO, session, false);
            }
            Answer::Permanent => self.disconnect(Duration::ZERO, session, true),
            Answer::ConfirmThenPermanent => {
                self.confirm(LATENCY, tag, message);
                self.session = None;
                self.schedule(LATENCY + milliseconds(1), lost(session, true));
            }
            Answer::Block(length) => {
                self.schedule(Duration::ZERO, Event::Blocked("alarm".to_owned()));
                self.schedule(milliseconds(length), Event::Unblocked);
                self.confirm(milliseconds(length) + LATENCY, tag, message);
            }
        }
    }

    fn refuse(&mut self, after: Duration, tag: Tag) {
        self.schedule(after, Event::Refused(tag, "too large".to_owned()));
    }

    fn confirm(&mut self, after: Duration, tag: Tag, message: Arc<Message>) {
        self.record.borrow_mut().stored.push(message);
        self.schedule(after, Event::Confirmed(tag));
    }

    fn settle(&mut self, tag: Tag) {
        let message = &self.tags[&tag];
        if let Subject::Record(ordinal) = message.subject {
            let mut record = self.record.borrow_mut();
            let settled = record.settled.get_mut(&message.route);
            settled
                .expect("only planned dumps are published")
                .insert(ordinal.0);
        }
    }

    /// Whether the end of a connection is still on its way to the program.
    fn is_closing(&self) -> bool {
        let mut events = self.events.values();
        events.any(|event| matches!(event, Event::Disconnected(..)))
    }

    fn next_before(&mut self, deadline: Instant) -> Option<Event> {
        let entry = self.events.first_entry()?;
        let (at, _) = *entry.key();
        (at <= deadline).then(|| {
            self.clock.move_to(at);
            entry.remove()
        })
    }
}

fn lost(session: Session, permanent: bool) -> Event {
    let why = "scripted".to_owned();
    Event::Disconnected(session, Disconnect { why, permanent })
}

impl Broker for ScriptedBroker {
    fn submit(&mut self, command: Command) {
        match command {
            Command::Connect(session) => self.connect(session),
            Command::Publish(tag, message) => self.publish(tag, message),
            Command::Disconnect => {
                if let Some(session) = self.session.take()
                    && self.closes
                {
                    self.disconnect(LATENCY, session, false);
                }
            }
        }
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.polls_until_stop = self.polls_until_stop.map(|polls| polls.saturating_sub(1));
        if self.polls_until_stop == Some(0) && !self.stop.swap(true, Ordering::Relaxed) {
            self.record.borrow_mut().stopped_at = Some(self.clock.now());
            return None;
        }
        // A saver wakes the wait when it has made a step.
        let deadline = match self.is_saving.get() {
            true => deadline.min(self.clock.now() + self.save_step),
            false => deadline,
        };
        let event = self.next_before(deadline);
        match &event {
            Some(Event::Connected(session)) => self.is_connected = self.session == Some(*session),
            Some(Event::Blocked(_)) => self.is_blocked = self.session.is_some(),
            Some(Event::Unblocked) => self.is_blocked = false,
            Some(Event::Confirmed(tag) | Event::Refused(tag, _)) => self.settle(*tag),
            Some(_) => {}
            None => self.clock.move_to(deadline),
        }
        event
    }

    fn waker(&self) -> Waker {
        Waker::new(|| {})
    }
}

struct SteppingSaver {
    fs: Memory,
    clock: Arc<ManualClock>,
    record: Shared,
    step: Duration,
    failing: BTreeMap<u64, u64>,
    is_saving: Rc<Cell<bool>>,
    save: Option<(Save, Instant)>,
    begun: u64,
}

impl Saver for SteppingSaver {
    fn start(&mut self, save: Save) {
        assert!(self.save.is_none(), "one save at a time");
        self.begun += 1;
        if let Some(operation) = self.failing.get(&self.begun) {
            self.fs.fail(*operation);
        }
        self.save = Some((save, self.clock.now() + self.step));
        self.is_saving.set(true);
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        let now = self.clock.now();
        let (save, due) = self.save.as_mut().filter(|(_, due)| *due <= now)?;
        *due = now + self.step;
        match save.step(&self.fs) {
            Stepped::More => None,
            Stepped::Done(result) => {
                self.save = None;
                self.is_saving.set(false);
                let mut record = self.record.borrow_mut();
                record.saves.push((now, result.is_ok()));
                Some(result)
            }
        }
    }
}

/// Watches a run, and checks after every step what must hold at every moment.
struct Watch {
    options: Options,
    fs: Memory,
    record: Shared,
    clock: Arc<ManualClock>,
    stop: Rc<AtomicBool>,
    stop_when: Option<StopWhen>,
    saved_before: u64,
    /// Operations of the file system when `saved` was read.
    operations: u64,
    saved: BTreeMap<Kind, u64>,
    /// Whether the marker on disk says that the version is complete.
    is_complete: bool,
    steps: u64,
}

impl Watch {
    fn read_disk(&mut self) {
        if self.operations == self.fs.operations() {
            return;
        }
        self.operations = self.fs.operations();
        let Some(marker) = marker_on_disk(&self.fs) else {
            return;
        };
        self.is_complete = marker.is_complete();
        for kind in Kind::ALL {
            if let Some(file) = marker.file(&name(kind)) {
                self.saved.insert(kind, file.records_extracted);
                self.check_checkpoint(kind, file);
            }
        }
    }

    /// A checkpoint is never ahead of what is settled, and what it counts as kept was kept.
    fn check_checkpoint(&self, kind: Kind, file: &FileProgress) {
        let Some(frontier) = file.checkpoint.as_ref().map(|saved| saved.frontier) else {
            return;
        };
        let record = self.record.borrow();
        if record.settled.contains_key(&kind) {
            assert!(frontier.record <= record.frontier(kind), "{kind} is ahead");
        }
        let letters = self.fs.content(&paths().dead_letters(kind));
        let kept = letters.map_or(0, |letters| letters.len() as u64);
        assert!(frontier.dead_letter_bytes <= kept, "a dead letter is lost");
    }
}

impl Observer for Watch {
    fn notice(&mut self, _now: Instant, notice: &Notice, _extraction: &Extraction) {
        self.record.borrow_mut().notices.push(notice.clone());
    }

    fn step(&mut self, now: Instant, extraction: &Extraction) {
        self.steps += 1;
        assert!(self.steps < 200_000, "the run is busy and gets nowhere");
        assert!(
            now < Instant::from_nanoseconds(3_600_000_000_000),
            "the run does not end"
        );
        let progress = extraction.progress();
        assert!(progress.in_flight <= self.options.window_messages);
        self.read_disk();
        assert!(
            !self.is_complete || progress.in_flight == 0,
            "complete on disk, and not all is confirmed"
        );
        if progress.saves_failed == 0 {
            let saved = self.saved.values().sum::<u64>() - self.saved_before;
            let bound = saved + self.options.save.interval + self.options.window_messages as u64;
            let read = self.record.borrow().read.load(Ordering::Relaxed);
            assert!(read <= bound, "read {read} with {saved} saved");
        }
        let record = self.record.borrow();
        if let Some(stop_when) = &mut self.stop_when
            && stop_when(extraction, &record)
        {
            self.stop.store(true, Ordering::Relaxed);
            drop(record);
            let now = self.clock.now();
            self.record.borrow_mut().stopped_at.get_or_insert(now);
        }
    }
}
