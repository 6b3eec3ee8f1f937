//! The extraction of a version: one state machine that decides everything that depends on time,
//! order or failure, and does nothing.
//!
//! The driver asks [`Extraction::poll`] what to do, does it, and tells what happened by
//! [`Extraction::handle`]. Time is an argument, the next wakeup an output; so every interleaving
//! can be produced on one thread, and replayed.
//!
//! ```text
//! Between ─→ Reading ─→ Draining ─→ Stamping ─→ Completing ─→ Between (next dump)
//!    │        records    window      time of     file_complete
//!    │ no dump left      empty       end saved   confirmed
//!    ├─→ Stamping ─→ Announcing ─→ Ending
//!    └────────────────────────────→ Ending ─→ Closing ─→ Over
//!                    extraction_complete   window drained, saved, disconnected
//! ```
//!
//! Records are settled in order ([`crate::window`]), saved at a cadence ([`crate::saves`]) and
//! published over a link that comes and goes ([`crate::link`]). Whatever ends a run early (a stop
//! request, a damaged dump, a broker that refuses us) goes through `Ending`: what is in the
//! window gets its chance, the frontier is saved, and only then the run is over.
//!
//! **The end of a dump or of the version is announced with the time at which it was reached.** A
//! message that is repeated after a crash must have the bytes that it had before, so that time is
//! saved before the message goes out, as `completed_at`, together with everything else that the
//! message tells: the checkpoint is at the end of the dump. It is saved twice, so that it is in the
//! previous generation of the marker as well: a start that can't read the present one still repeats
//! the same message. If it can't be saved, the run ends, as it could not be completed either.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::broker::{Command, Disconnect, Event, Message, Subject, Tag};
use crate::claims::Claims;
use crate::dead_letter::DeadLetter;
use crate::dump::{Dump, Kind, Version};
use crate::link::{Expired, Link, LinkOptions};
use crate::marker::{Checkpoint, FileProgress, Frontier, Marker, Paths, Save, SaveError, Status};
use crate::plan::{Plan, PlannedDump};
use crate::record::{Ordinal, Position};
use crate::saves::{SaveOptions, Saves};
use crate::seek_point::SeekPoint;
use crate::source::{Item, Outcome, Read, SourceError};
use crate::time::{Instant, rfc3339};
use crate::window::{Settled, Settles, Window};

/// What a run can be told to do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// When to save.
    pub save: SaveOptions,
    /// Time limits towards the broker.
    pub link: LinkOptions,
    /// The most records that are read and not settled; at least 1.
    pub window_messages: usize,
    /// The most bytes of message bodies that are not settled; one message may exceed it.
    pub window_bytes: usize,
    /// How long a stop request waits for confirms.
    pub stop_timeout: Duration,
    /// The most dead letters of a dump; one more ends the run.
    pub dead_letters_max: u64,
    /// Whether consumers expect `extraction_complete`.
    pub announces_completion: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            save: SaveOptions {
                interval: 5_000,
                age_max: Duration::from_secs(30),
                retry_min: Duration::from_millis(500),
                attempts_max: 5,
            },
            link: LinkOptions {
                connect_timeout: Duration::from_secs(15),
                confirm_timeout: Duration::from_secs(30),
                retry_min: Duration::from_millis(250),
                retry_max: Duration::from_secs(10),
            },
            window_messages: 1_000,
            window_bytes: 16 << 20,
            stop_timeout: Duration::from_secs(10),
            dead_letters_max: 100,
            announces_completion: true,
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Reading the present dump went on; the answer to [`Output::Pull`] and [`Output::Open`].
    Read(Result<Read, SourceError>),
    /// The broker said something.
    Broker(Event),
    /// The save is over.
    Saved(Result<(), SaveError>),
    /// Somebody wants the run to stop.
    Stop,
}

/// What is to be done next.
pub enum Output {
    /// Open a dump at a position, by way of a seek point before it if there is one.
    Open(Dump, Position, Option<SeekPoint>),
    /// Read on in the dump that was opened last.
    Pull,
    /// Submit a command to the broker.
    Submit(Command),
    /// Begin a save.
    Save(Save),
    /// Tell the user.
    Notice(Notice),
    /// Wait for the broker, until this instant at the latest.
    Wait(Instant),
    /// The run is over.
    Over(Ending),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is published, announced and saved.
    Complete,
    /// The dumps of the selection are published and saved; the version lacks others.
    SelectionComplete,
    /// Stopped on request; the next run goes on.
    Stopped,
    /// An error; the next run goes on from the last checkpoint.
    Failed(Failure),
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The dump can't be read on.
    #[error("{0}")]
    Source(String),
    /// The broker will not have us.
    #[error("{0}")]
    Broker(String),
    /// Too many records were skipped.
    #[error(
        "more than {max} records of {file} were skipped, the last: {reason}; they are kept in \
         {letters}; look at them, raise --dead-letters-max, and run again to go on"
    )]
    DeadLetters {
        /// The dump.
        file: String,
        /// The budget.
        max: u64,
        /// Why the last one was skipped.
        reason: String,
        /// The dead-letter file.
        letters: String,
    },
    /// The state could not be saved at the end.
    #[error(
        "{0}; the state could not be saved, so the next run publishes again what came after the \
         last save; free the disk or mend it, and run again"
    )]
    Save(SaveError),
}

/// Something that a user wants to be told while it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A dump is begun at record 1.
    Started {
        /// The dump.
        file: String,
    },
    /// A dump is gone on with.
    Resumed {
        /// The dump.
        file: String,
        /// Records that are done already.
        records: u64,
        /// Where reading goes on, in XML bytes.
        xml_offset: u64,
        /// From where on the way there is inflated, in XML bytes: a seek point, or 0.
        inflated_from: u64,
    },
    /// Every record of a dump is published.
    Completed {
        /// The dump.
        file: String,
        /// Its totals.
        totals: Frontier,
    },
    /// The end of the version is published.
    Announced,
    /// The broker is there.
    Connected,
    /// The broker is gone, or was not there.
    Disconnected {
        /// What happened.
        why: String,
        /// How long until the next attempt.
        retry: Duration,
    },
    /// The broker does not answer.
    Unanswered {
        /// What was waited for, and how long.
        why: String,
    },
    /// A message was not taken, and publishing waits.
    NotTaken {
        /// The message.
        id: String,
        /// What the broker said.
        why: String,
        /// How long until the next attempt.
        retry: Duration,
    },
    /// The broker asks for silence.
    Blocked {
        /// What it said.
        why: String,
    },
    /// The broker takes messages again.
    Unblocked,
    /// A record was skipped and kept.
    DeadLetter {
        /// The dump.
        file: String,
        /// Its ordinal.
        record: u64,
        /// Why.
        reason: String,
    },
    /// A save failed; the run goes on.
    SaveFailed {
        /// What failed.
        error: SaveError,
        /// How long until the next attempt.
        retry: Duration,
    },
    /// A save succeeded after others had failed.
    SaveRecovered,
    /// A save succeeded.
    Saved {
        /// How long it took, from the moment that it was begun to the one that its end was noticed.
        took: Duration,
    },
    /// The run is ending: confirms are waited for, then the state is saved.
    Stopping {
        /// Messages without a confirm.
        in_flight: usize,
    },
}

/// How far a run is, for people who watch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The dump being read, if any, and its length in bytes.
    pub dump: Option<(Kind, u64)>,
    /// How much of it was read, in compressed bytes.
    pub compressed: u64,
    /// Records of it that were read.
    pub read: u64,
    /// How far it is settled.
    pub frontier: Frontier,
    /// Records that were read in this run, over all dumps.
    pub read_in_run: u64,
    /// Compressed bytes that were read for them.
    pub bytes_in_run: u64,
    /// Messages that were confirmed in this run, control messages among them.
    pub confirmed: u64,
    /// Settled records that are not saved.
    pub unsaved: u64,
    /// Messages that wait for a confirm.
    pub in_flight: usize,
    /// Whether the broker is connected.
    pub is_connected: bool,
    /// Whether the broker asks for silence.
    pub is_blocked: bool,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Attempts to publish that came to nothing, and were or will be made again.
    pub retried: u64,
    /// Saves begun.
    pub saves: u64,
    /// Saves that failed.
    pub saves_failed: u64,
}

/// The state machine.
pub struct Extraction {
    options: Options,
    version: Version,
    paths: Paths,
    marker: Marker,
    dumps: VecDeque<PlannedDump>,
    current: Option<Current>,
    phase: Phase,
    window: Window,
    link: Link,
    claims: Claims,
    saves: Saves,
    notices: VecDeque<Notice>,
    /// Commands that come before anything else.
    commands: VecDeque<Command>,
    /// Wall-clock time at the origin of the monotonic clock.
    epoch: Duration,
    read: u64,
    bytes: u64,
    attempts: u64,
    confirmed: u64,
    refused: u64,
    last_confirm: Option<Instant>,
    save_begun: Instant,
}

/// The dump being processed.
struct Current {
    dump: Dump,
    checkpoint: Checkpoint,
    /// The last record that was read, and the last sequence number that was given out.
    read: Ordinal,
    sequence: u64,
    compressed: u64,
    checksum: Option<String>,
    /// Whether a seek point is kept, or may be.
    has_seek_point: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Between,
    Reading,
    Draining,
    /// The end is reached; before it is announced, it is saved so many times more.
    Stamping(End, u32),
    Completing,
    Announcing,
    Ending(Ending, Drain),
    Closing(Ending),
}

/// What has come to its end, and is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Dump,
    Version,
}

/// The generations of the marker that are kept: the present one and the previous one.
const GENERATIONS: u32 = 2;

/// What an ending waits for before the last save. What happens while it waits can only make it
/// wait for less, which is the order of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Drain {
    /// Everything in the window.
    Window,
    /// What is in flight, until the deadline.
    InFlight(Instant),
    /// Nothing.
    Nothing,
}

/// The longest wait without anything to wait for: no wait is without a bound, and who watches a
/// run is shown that it is alive.
const IDLE: Duration = Duration::from_secs(5);

/// The dead letter of a record whose XML or message is `bytes`.
fn dead_letter(dump: &Dump, settled: &Settled, reason: String, bytes: &[u8]) -> Box<DeadLetter> {
    Box::new(DeadLetter {
        kind: dump.kind,
        record: settled.position.ordinal.0,
        xml_start: settled.start.0,
        xml_end: settled.position.xml.0,
        reason,
        raw: DeadLetter::raw(bytes),
    })
}

impl Extraction {
    /// The extraction that `plan` asks for, begun at `now`, which the wall clock calls `unix`.
    ///
    /// # Panics
    /// If the options have a window or an interval of 0.
    pub fn new(plan: Plan, options: Options, now: Instant, unix: Duration) -> Self {
        let window = Window::new(options.window_messages, options.window_bytes);
        let epoch = unix.saturating_sub(now.since(Instant::ORIGIN));
        let mut extraction = Self {
            claims: Claims::new(&plan),
            options,
            version: plan.version,
            paths: plan.paths,
            marker: plan.marker,
            dumps: plan.dumps.into(),
            current: None,
            phase: Phase::Between,
            window,
            link: Link::new(options.link),
            saves: Saves::new(options.save, options.window_messages as u64, now),
            notices: VecDeque::new(),
            commands: VecDeque::new(),
            epoch,
            read: 0,
            bytes: 0,
            attempts: 0,
            confirmed: 0,
            refused: 0,
            last_confirm: None,
            save_begun: now,
        };
        if !extraction.dumps.is_empty() || extraction.is_announcement_due() {
            extraction.begin(now);
        }
        extraction
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Read(Ok(Read::Item(item))) => self.record_read(item),
            Input::Read(Ok(Read::Skipped)) => {}
            Input::Read(Ok(Read::End { checksum })) => self.dump_read(checksum),
            Input::Read(Err(error)) => self.fail(Failure::Source(error.to_string()), Drain::Window),
            Input::Broker(event) => self.broker_said(now, event),
            Input::Saved(result) => self.saved(now, &result),
            Input::Stop => self.stop(now),
        }
        self.advance_frontier();
    }

    /// What to do next.
    pub fn poll(&mut self, now: Instant) -> Output {
        self.expire(now);
        while self.advance_phase(now) {}
        if let Some(notice) = self.notices.pop_front() {
            return Output::Notice(notice);
        }
        if let Some(command) = self.command(now) {
            return Output::Submit(command);
        }
        if self.saves.is_due(now) && !matches!(self.phase, Phase::Closing(_)) {
            return Output::Save(self.begin_save(now));
        }
        match &self.phase {
            Phase::Between => self.open_next(now),
            Phase::Reading if self.may_read() => Output::Pull,
            Phase::Closing(ending) if self.link.is_down() => Output::Over(ending.clone()),
            _ => Output::Wait(self.wakeup(now)),
        }
    }

    /// How far the run is.
    pub fn progress(&self) -> Progress {
        let current = self.current.as_ref();
        let in_flight = self.window.in_flight();
        let answered = self.confirmed + self.refused;
        Progress {
            dump: current.map(|current| (current.dump.kind, current.checkpoint.file_bytes)),
            compressed: current.map_or(0, |current| current.compressed),
            read: current.map_or(0, |current| current.read.0),
            frontier: current
                .map(|current| current.checkpoint.frontier)
                .unwrap_or_default(),
            read_in_run: self.read,
            bytes_in_run: self.bytes,
            confirmed: self.confirmed,
            unsaved: self.saves.lag(),
            in_flight,
            is_connected: self.link.is_up(),
            is_blocked: self.link.is_blocked(),
            reconnects: self.link.reconnects(),
            retried: self.attempts - answered - in_flight as u64,
            saves: self.saves.begun,
            saves_failed: self.saves.failed,
        }
    }

    /// The state as it is now; what is durable is what was saved of it.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    // Begin and end of dumps and of the version.

    fn begin(&mut self, now: Instant) {
        let started_at = self.original_start(now);
        let processing = &mut self.marker.processing_phase;
        processing.status = Status::InProgress;
        processing.started_at = Some(started_at);
        if !self.dumps.is_empty() {
            processing.completed_at = None;
        }
        self.marker.publishing_phase.status = Status::InProgress;
        self.marker.summary.overall_status = Status::InProgress;
        self.saves.request();
    }

    /// When the extraction of this version first began. Consumers delete what is older, so while
    /// a dump counts whose start nobody noted, it is the date of the version.
    fn original_start(&self, now: Instant) -> String {
        let processing = &self.marker.processing_phase;
        let files = processing.progress_by_file.values();
        let counts =
            |file: &&FileProgress| file.status == Status::Completed || file.checkpoint.is_some();
        let started: Option<Vec<_>> = files
            .filter(counts)
            .map(|file| file.started_at.clone())
            .collect();
        let unnoted = || match started {
            None => rfc3339(Duration::from_secs(self.version.unix_seconds())),
            Some(started) => started
                .into_iter()
                .min()
                .unwrap_or_else(|| rfc3339(self.unix(now))),
        };
        processing.started_at.clone().unwrap_or_else(unnoted)
    }

    fn open_next(&mut self, now: Instant) -> Output {
        let planned = self.dumps.pop_front().expect("a dump is left");
        let PlannedDump {
            dump,
            checkpoint,
            seek_point,
        } = planned;
        let frontier = checkpoint.frontier;
        let file = dump.file_name();
        self.notices.push_back(match frontier.record {
            0 => Notice::Started { file: file.clone() },
            records => Notice::Resumed {
                file: file.clone(),
                records,
                xml_offset: frontier.xml_offset,
                inflated_from: seek_point.as_ref().map_or(0, |point| point.inflated),
            },
        });
        let started_at = rfc3339(self.unix(now));
        let entry = self.marker.file_mut(&file);
        entry.status = Status::InProgress;
        entry.started_at.get_or_insert(started_at);
        self.marker.processing_phase.current_file = Some(file);
        self.saves
            .begin_letters(dump.kind, frontier.dead_letter_bytes);
        self.current = Some(Current {
            dump: dump.clone(),
            read: Ordinal(frontier.record),
            sequence: frontier.messages,
            compressed: frontier.compressed_offset,
            checksum: None,
            checkpoint,
            has_seek_point: seek_point.is_some(),
        });
        self.phase = Phase::Reading;
        Output::Open(dump, frontier.position(), seek_point)
    }

    /// Moves on to the next phase if everything that the present one waits for is there.
    fn advance_phase(&mut self, now: Instant) -> bool {
        match &self.phase {
            Phase::Between if self.dumps.is_empty() => self.end_or_announce(now),
            Phase::Draining if self.window.is_empty() => self.stamp(now, End::Dump),
            Phase::Stamping(end, saves) => {
                if self.saves.is_dirty() {
                    self.saves.hurry();
                    return false;
                }
                match saves.checked_sub(1) {
                    Some(saves) => self.save_stamp(*end, saves),
                    None => self.announce(*end),
                }
            }
            Phase::Announcing if self.window.is_empty() => self.announced(now),
            Phase::Ending(ending, drain) if self.is_drained(*drain, now) => {
                if self.saves.is_dirty() {
                    self.saves.hurry();
                    return false;
                }
                self.phase = Phase::Closing(ending.clone());
            }
            _ => return false,
        }
        true
    }

    /// An end is reached: now, unless the life before this one has saved when.
    fn stamp(&mut self, now: Instant, end: End) {
        let time = rfc3339(self.unix(now));
        let completed_at = match (end, &self.current) {
            (End::Dump, Some(current)) => {
                &mut self.marker.file_mut(&current.dump.file_name()).completed_at
            }
            _ => &mut self.marker.processing_phase.completed_at,
        };
        completed_at.get_or_insert(time);
        self.save_stamp(end, GENERATIONS - 1);
    }

    /// Saves what an announcement will say, and then `saves` times more.
    fn save_stamp(&mut self, end: End, saves: u32) {
        self.saves.request();
        self.phase = Phase::Stamping(end, saves);
    }

    /// What is announced is saved in every generation.
    fn announce(&mut self, end: End) {
        match end {
            End::Dump => self.push_file_complete(),
            End::Version => self.push_extraction_complete(),
        }
    }

    fn push_file_complete(&mut self) {
        let current = self.current.as_ref().expect("a dump is being completed");
        let entry = self.marker.file(&current.dump.file_name());
        let body = json!({
            "type": "file_complete",
            "data_type": current.dump.kind.name(),
            "timestamp": entry.expect("it was stamped").completed_at,
            "total_processed": current.checkpoint.frontier.published(),
            "file": current.dump.file_name(),
        });
        let (route, sequence) = (current.dump.kind, current.sequence + 1);
        self.push_control(route, sequence, Subject::FileComplete, &body);
        self.phase = Phase::Completing;
    }

    fn push_control(
        &mut self,
        route: Kind,
        sequence: u64,
        subject: Subject,
        body: &serde_json::Value,
    ) {
        let message = Message {
            version: self.version.clone(),
            route,
            subject,
            sequence,
            sha256: String::new(),
            body: body.to_string().into(),
        };
        let settles = match subject {
            Subject::FileComplete => Settles::FileComplete,
            _ => Settles::ExtractionComplete,
        };
        self.window.push(settles, Some(Arc::new(message)));
    }

    /// `file_complete` is confirmed: the dump is completed by the save that follows.
    fn dump_completed(&mut self) {
        let current = self.current.take().expect("a dump is being completed");
        let file = current.dump.file_name();
        self.write_entry(&current);
        let entry = self.marker.file_mut(&file);
        entry.status = Status::Completed;
        entry.source_checksum = current.checksum;
        if current.has_seek_point {
            self.saves.change_seek_point(current.dump.kind, None);
        }
        self.marker.processing_phase.current_file = None;
        self.notices.push_back(Notice::Completed {
            file,
            totals: current.checkpoint.frontier,
        });
        self.saves.request();
        if self.phase == Phase::Completing {
            self.phase = Phase::Between;
        }
    }

    fn is_announcement_due(&self) -> bool {
        let completed = |kind| {
            let file = self
                .marker
                .file(&crate::dump::file_name(&self.version, kind));
            file.is_some_and(|file| file.status == Status::Completed)
        };
        !self.marker.is_complete() && Kind::ALL.into_iter().all(completed)
    }

    fn end_or_announce(&mut self, now: Instant) {
        if !self.is_announcement_due() {
            let ending = match self.marker.is_complete() {
                true => Ending::Complete,
                false => Ending::SelectionComplete,
            };
            self.phase = Phase::Ending(ending, Drain::Window);
            return;
        }
        match self.options.announces_completion {
            true => self.stamp(now, End::Version),
            false => self.phase = Phase::Announcing,
        }
    }

    fn push_extraction_complete(&mut self) {
        let files = Kind::ALL.map(|kind| {
            let file = self
                .marker
                .file(&crate::dump::file_name(&self.version, kind));
            file.expect("every dump is completed").clone()
        });
        let counts = files.iter().map(|file| match &file.checkpoint {
            Some(checkpoint) => checkpoint.frontier.published(),
            None => file.records_extracted,
        });
        let counts: serde_json::Map<_, _> = Kind::ALL
            .iter()
            .zip(counts)
            .map(|(kind, count)| (kind.name().to_owned(), count.into()))
            .collect();
        let body = json!({
            "type": "extraction_complete",
            "version": self.version.as_str(),
            "timestamp": self.marker.processing_phase.completed_at,
            "started_at": self.marker.processing_phase.started_at,
            "record_counts": counts,
        });
        for (kind, file) in Kind::ALL.into_iter().zip(&files) {
            let sequence = file
                .checkpoint
                .as_ref()
                .map_or(1, |checkpoint| checkpoint.frontier.messages + 2);
            self.push_control(kind, sequence, Subject::ExtractionComplete, &body);
        }
        self.phase = Phase::Announcing;
    }

    fn announced(&mut self, now: Instant) {
        let now = self.unix(now);
        let processing = &mut self.marker.processing_phase;
        processing.status = Status::Completed;
        processing.completed_at.get_or_insert(rfc3339(now));
        self.marker.publishing_phase.status = Status::Completed;
        self.marker.summary.overall_status = Status::Completed;
        let started: Option<jiff::Timestamp> = processing
            .started_at
            .as_ref()
            .and_then(|text| text.parse().ok());
        self.marker.summary.total_duration_seconds =
            started.map(|started| now.as_secs_f64() - started.as_duration().as_secs_f64());
        self.notices.push_back(Notice::Announced);
        self.saves.request();
        self.phase = Phase::Ending(Ending::Complete, Drain::Window);
    }

    // Records.

    fn may_read(&self) -> bool {
        self.window.has_room() && self.saves.may_read(self.read)
    }

    fn record_read(&mut self, item: Item) {
        let Some(current) = self
            .current
            .as_mut()
            .filter(|_| self.phase == Phase::Reading)
        else {
            return;
        };
        let expected = current.read.next();
        assert_eq!(
            item.position.ordinal, expected,
            "records are read in order, without gaps"
        );
        current.read = expected;
        // A resumed reading inflates in other pieces, so its first record may seem to lie before.
        self.bytes += item.compressed.0.saturating_sub(current.compressed);
        current.compressed = item.compressed.0;
        self.read += 1;
        let mut settled = Settled {
            start: item.start,
            position: item.position,
            compressed: item.compressed,
            has_message: false,
            repaired: false,
            dead_letter: None,
            seek_point: item.seek_point,
        };
        let message = match item.outcome {
            Outcome::Content(content) => {
                current.sequence += 1;
                settled.has_message = true;
                settled.repaired = content.repaired;
                Some(Arc::new(Message {
                    version: self.version.clone(),
                    route: current.dump.kind,
                    subject: Subject::Record(expected),
                    sequence: current.sequence,
                    sha256: content.sha256().to_owned(),
                    body: content.body,
                }))
            }
            Outcome::Malformed { reason, raw } => {
                let letter = dead_letter(&current.dump, &settled, reason, &raw);
                settled.dead_letter = Some(letter);
                None
            }
        };
        self.window.push(Settles::Record(settled), message);
    }

    fn dump_read(&mut self, checksum: String) {
        if self.phase == Phase::Reading {
            self.current
                .as_mut()
                .expect("a dump is being read")
                .checksum = Some(checksum);
            self.phase = Phase::Draining;
        }
    }

    /// Takes everything settled from the front of the window.
    fn advance_frontier(&mut self) {
        while let Some(settles) = self.window.settled() {
            match settles {
                Settles::Record(settled) => self.record_settled(settled),
                Settles::FileComplete => self.dump_completed(),
                Settles::ExtractionComplete => {}
            }
        }
    }

    fn record_settled(&mut self, settled: Settled) {
        let current = self
            .current
            .as_mut()
            .expect("a record belongs to the present dump");
        let frontier = &mut current.checkpoint.frontier;
        assert_eq!(
            settled.position.ordinal.0,
            frontier.record + 1,
            "the frontier moves by one"
        );
        frontier.record = settled.position.ordinal.0;
        frontier.xml_offset = settled.position.xml.0;
        frontier.compressed_offset = settled.compressed.0;
        frontier.messages += u64::from(settled.has_message);
        frontier.repaired += u64::from(settled.repaired);
        self.saves.record_settled();
        if let Some(point) = settled.seek_point {
            let file = point.to_bytes(&current.checkpoint.fingerprint.0);
            self.saves.change_seek_point(current.dump.kind, Some(file));
            current.has_seek_point = true;
        }
        if let Some(letter) = settled.dead_letter {
            self.letter_settled(*letter);
        }
    }

    fn letter_settled(&mut self, letter: DeadLetter) {
        let current = self
            .current
            .as_mut()
            .expect("a record belongs to the present dump");
        let line = letter.to_line();
        let frontier = &mut current.checkpoint.frontier;
        frontier.dead_letters += 1;
        frontier.dead_letter_bytes += line.len() as u64;
        self.saves.add_letter(letter.kind, &line);
        let (file, max) = (current.dump.file_name(), self.options.dead_letters_max);
        let is_over = frontier.dead_letters > max;
        self.notices.push_back(Notice::DeadLetter {
            file: file.clone(),
            record: letter.record,
            reason: letter.reason.clone(),
        });
        if is_over {
            let letters = self.paths.dead_letters(letter.kind).display().to_string();
            let failure = Failure::DeadLetters {
                file,
                max,
                reason: letter.reason,
                letters,
            };
            self.fail(failure, Drain::Window);
        }
    }

    // The broker.

    /// Whether a message waits that may still go out.
    fn wants_to_send(&self) -> bool {
        let is_over = match self.phase {
            Phase::Ending(_, drain) => drain != Drain::Window,
            Phase::Closing(_) => true,
            _ => false,
        };
        !is_over && self.window.has_waiting()
    }

    /// The next command for the broker, if there is one to give.
    fn command(&mut self, now: Instant) -> Option<Command> {
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        if !self.wants_to_send() {
            return match self.phase {
                Phase::Closing(_) => self.link.close(now),
                _ => None,
            };
        }
        // The announcements are more than a very small window holds.
        let in_flight = self.window.in_flight();
        let has_room = in_flight < self.options.window_messages && self.claims.may_publish();
        if has_room && self.link.may_publish(now, in_flight) {
            self.attempts += 1;
            let tag = Tag(self.attempts);
            let message = self.window.send(tag, now).expect("a message is waiting");
            return Some(Command::Publish(tag, message));
        }
        self.link.connect(now)
    }

    fn broker_said(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected(session) if self.link.is_current(session) => {
                if self.link.connected() {
                    self.notices.push_back(Notice::Connected);
                    if self.claims.connected(&mut self.marker) {
                        self.saves.request();
                    }
                }
            }
            Event::Disconnected(session, disconnect) if self.link.is_current(session) => {
                self.window.take_all_back();
                let retry = self.link.disconnected(now);
                self.disconnected(now, disconnect, retry);
            }
            Event::Connected(_) | Event::Disconnected(..) => {}
            Event::Confirmed(tag) => self.confirmed(now, tag),
            Event::Rejected(tag, why) | Event::Returned(tag, why) => self.not_taken(now, tag, why),
            Event::Refused(tag, why) => self.refused(tag, &why),
            Event::Blocked(why) => {
                if self.link.blocked(true) {
                    self.notices.push_back(Notice::Blocked { why });
                }
            }
            Event::Unblocked => {
                if self.link.blocked(false) {
                    self.window.restart_clocks(now);
                    self.notices.push_back(Notice::Unblocked);
                }
            }
        }
    }

    fn disconnected(&mut self, now: Instant, disconnect: Disconnect, retry: Duration) {
        let is_needed = match self.phase {
            Phase::Ending(_, drain) => !self.is_drained(drain, now),
            Phase::Closing(_) => false,
            _ => true,
        };
        let Disconnect { why, permanent } = disconnect;
        match (is_needed, permanent) {
            (false, _) => {}
            (true, true) => self.fail(Failure::Broker(why), Drain::Nothing),
            (true, false) => self.notices.push_back(Notice::Disconnected { why, retry }),
        }
    }

    fn confirmed(&mut self, now: Instant, tag: Tag) {
        if self.window.settle(tag).is_some() {
            self.link.confirmed(tag);
            self.confirmed += 1;
            self.last_confirm = Some(now);
        }
    }

    fn not_taken(&mut self, now: Instant, tag: Tag, why: String) {
        let Some(message) = self.window.take_back(tag) else {
            return;
        };
        if let Some(retry) = self.link.not_taken(now, Tag(self.attempts)) {
            self.notices.push_back(Notice::NotTaken {
                id: message.id(),
                why,
                retry,
            });
        }
    }

    /// The broker will never take this message: its record is a dead letter. A control message
    /// can't be skipped: consumers wait for it.
    fn refused(&mut self, tag: Tag, why: &str) {
        let Some(sent) = self.window.sent(tag) else {
            return;
        };
        match sent.subject {
            Subject::Record(_) => self.record_refused(tag, why),
            Subject::FileComplete | Subject::ExtractionComplete => {
                let failure = Failure::Broker(format!("{} was refused: {why}", sent.id()));
                self.window.take_back(tag);
                self.fail(failure, Drain::Nothing);
            }
        }
    }

    fn record_refused(&mut self, tag: Tag, why: &str) {
        let dump = &self
            .current
            .as_ref()
            .expect("a record belongs to the present dump")
            .dump;
        let Some((message, Settles::Record(settled))) = self.window.settle(tag) else {
            unreachable!("a record was sent as this tag");
        };
        let reason = format!("the broker refused the message: {why}");
        settled.dead_letter = Some(dead_letter(dump, settled, reason, &message.body));
        self.refused += 1;
    }

    fn expire(&mut self, now: Instant) {
        let oldest_sent = self.window.oldest_sent();
        let Some(expired) = self.link.expire(now, oldest_sent) else {
            return;
        };
        let limits = &self.options.link;
        let why = match expired {
            Expired::Connect => format!("no connection within {:?}", limits.connect_timeout),
            Expired::Confirm => format!("no confirm within {:?}", limits.confirm_timeout),
        };
        // An answer that still comes is of no use: its tag is given up.
        self.window.take_all_back();
        self.commands.extend(self.link.close(now));
        self.notices.push_back(Notice::Unanswered { why });
    }

    // Saves.

    fn begin_save(&mut self, now: Instant) -> Save {
        if let Some(current) = self.current.take() {
            self.write_entry(&current);
            self.current = Some(current);
        }
        self.marker.last_updated = Some(rfc3339(self.unix(now)));
        let last_confirm = self.last_confirm.map(|last| rfc3339(self.unix(last)));
        let publishing = &mut self.marker.publishing_phase;
        publishing.last_amqp_heartbeat = last_confirm.or(publishing.last_amqp_heartbeat.take());
        self.marker.summarize(&self.version);
        self.claims.save_begun();
        self.save_begun = now;
        let begun = self.saves.begin(&self.paths);
        let save = Save::new(&self.paths, begun.number, &self.marker, begun.dead_letters);
        save.with_seek_points(begun.seek_points)
    }

    fn write_entry(&mut self, current: &Current) {
        let frontier = current.checkpoint.frontier;
        let entry = self.marker.file_mut(&current.dump.file_name());
        entry.records_extracted = frontier.record;
        entry.messages_published = frontier.published();
        entry.batches_sent = frontier.published();
        entry.checkpoint = Some(current.checkpoint.clone());
    }

    fn saved(&mut self, now: Instant, result: &Result<(), SaveError>) {
        let is_recovered = self.saves.is_failing() && result.is_ok();
        let retry = self.saves.end(now, result);
        self.claims.save_ended(result.is_ok());
        if result.is_ok() {
            let took = now.since(self.save_begun);
            self.notices.push_back(Notice::Saved { took });
        }
        if is_recovered {
            self.notices.push_back(Notice::SaveRecovered);
        }
        if let (Err(error), Some(retry)) = (result, retry) {
            self.marker.add_error(error.to_string());
            self.notices.push_back(Notice::SaveFailed {
                error: error.clone(),
                retry,
            });
            self.give_up_saving(now, error);
        }
    }

    /// Where nothing is left to do but to save, it is tried a few times; then the run is over
    /// without.
    fn give_up_saving(&mut self, now: Instant, error: &SaveError) {
        let failure = match &self.phase {
            Phase::Ending(_, drain) if !self.is_drained(*drain, now) => return,
            Phase::Ending(Ending::Failed(failure), _) => failure.clone(),
            Phase::Ending(..) | Phase::Stamping(..) => Failure::Save(error.clone()),
            _ => return,
        };
        if self.saves.is_hopeless() {
            self.phase = Phase::Closing(Ending::Failed(failure));
        }
    }

    // Endings.

    /// Ends the run by a failure. The first one is the one that the run ends with.
    fn fail(&mut self, failure: Failure, drain: Drain) {
        let drain = match &self.phase {
            Phase::Closing(_) => return,
            Phase::Ending(Ending::Failed(_), present) if drain <= *present => return,
            Phase::Ending(_, present) => drain.max(*present),
            _ => drain,
        };
        self.marker.add_error(failure.to_string());
        if let Some(current) = &self.current {
            self.marker.file_mut(&current.dump.file_name()).status = Status::Failed;
        }
        self.marker.processing_phase.status = Status::Failed;
        self.marker.summary.overall_status = Status::Failed;
        self.saves.request();
        let failed = match &self.phase {
            Phase::Ending(failed @ Ending::Failed(_), _) => failed.clone(),
            _ => Ending::Failed(failure),
        };
        self.phase = Phase::Ending(failed, drain);
    }

    /// Somebody wants the run to stop. What is in flight gets its chance, until a deadline.
    fn stop(&mut self, now: Instant) {
        let ending = match &self.phase {
            Phase::Closing(_) | Phase::Ending(_, Drain::InFlight(_) | Drain::Nothing) => return,
            Phase::Ending(ending, Drain::Window) => ending.clone(),
            _ => Ending::Stopped,
        };
        let deadline = now + self.options.stop_timeout;
        self.phase = Phase::Ending(ending, Drain::InFlight(deadline));
        self.notices.push_back(Notice::Stopping {
            in_flight: self.window.in_flight(),
        });
    }

    fn is_drained(&self, drain: Drain, now: Instant) -> bool {
        match drain {
            Drain::Window => self.window.is_empty(),
            Drain::InFlight(deadline) => self.window.in_flight() == 0 || deadline <= now,
            Drain::Nothing => true,
        }
    }

    /// When there is something to do next, if nothing happens before.
    fn wakeup(&self, now: Instant) -> Instant {
        let is_idle = self.link.is_down() && !self.wants_to_send();
        let link = self
            .link
            .wakeup(now, self.window.oldest_sent())
            .filter(|_| !is_idle);
        let save = self
            .saves
            .wakeup()
            .filter(|_| !matches!(self.phase, Phase::Closing(_)));
        let drain = match self.phase {
            Phase::Ending(_, Drain::InFlight(deadline)) => Some(deadline).filter(|at| now < *at),
            _ => None,
        };
        let wakeup = [link, save, drain].into_iter().flatten().min();
        let wakeup = wakeup.unwrap_or(now + IDLE).min(now + IDLE);
        assert!(
            wakeup > now,
            "what is due is done before anything is waited for"
        );
        wakeup
    }

    fn unix(&self, now: Instant) -> Duration {
        self.epoch + now.since(Instant::ORIGIN)
    }
}
