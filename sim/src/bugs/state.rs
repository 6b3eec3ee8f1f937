//! Bugs in what is made of the state: going on from it, when it is saved, how a run ends; and in
//! what is made of a dump.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use discogs_extractor::driver::{self, Observer, Open, Outside, Saver};
use discogs_extractor::dump::Dump;
use discogs_extractor::extraction::{Ending, Extraction, Notice};
use discogs_extractor::fs::FileSystem;
use discogs_extractor::marker::{self, Save, SaveError};
use discogs_extractor::plan::Plan;
use discogs_extractor::record::Position;
use discogs_extractor::seek_point::SeekPoint;
use discogs_extractor::source::{Item, Outcome, Read, Reads, SourceError};
use discogs_extractor::time::Instant;

use super::{Bug, Run, Search};
use crate::disk::{Model, Operation};
use crate::extractor::Seams;
use crate::guarantee::Guarantee;
use crate::place;
use crate::scenario::Shape;

const RUN: Run = Run::new(place::RABBITMQ, 3, 2, 2);
const CRASHES: Search = Search::Crashes(RUN, Model::Full, 1);

pub(super) fn bugs() -> Vec<Bug> {
    [resumes(), cadence(), saves(), dumps()].concat()
}

/// What is made of the state on start.
fn resumes() -> Vec<Bug> {
    let planted = |plan| Seams {
        plan,
        ..Seams::default()
    };
    vec![
        Bug {
            name: "off-by-one-at-resume",
            what: "a resumed run counts its first record one too high",
            search: CRASHES,
            breaks: &[Guarantee::StableIdentity, Guarantee::NeverAhead],
            seams: planted(one_record_too_far),
        },
        Bug {
            name: "first-save-from-zero",
            what: "the first save of a resumed run says that nothing is done yet",
            search: CRASHES,
            breaks: &[Guarantee::Durable, Guarantee::BoundedLag],
            seams: planted(forget_entries),
        },
        Bug {
            name: "recovery-removes-the-marker",
            what: "a resumed run removes the marker that it has read, and saves a new one later",
            search: Search::Crashes(Run::new(place::RABBITMQ, 1, 1, 1), Model::Kill, 2),
            breaks: &[Guarantee::WholeMarker, Guarantee::Durable],
            seams: planted(remove_marker),
        },
        Bug {
            name: "skips-are-not-counted",
            what: "a resumed run counts published messages where it should count records",
            search: CRASHES,
            breaks: &[Guarantee::StableIdentity, Guarantee::Durable],
            seams: planted(count_messages),
        },
        Bug {
            name: "totals-reset-on-resume",
            what: "a resumed run counts its skipped records from zero",
            search: CRASHES,
            breaks: &[Guarantee::TrueCounters],
            seams: planted(forget_dead_letters),
        },
        Bug {
            name: "totals-counted-twice",
            what: "a resumed run adds what was counted to what was counted",
            search: CRASHES,
            breaks: &[Guarantee::StableIdentity, Guarantee::TrueCounters],
            seams: planted(count_twice),
        },
        Bug {
            name: "end-stamped-by-the-attempt",
            what: "the end of a dump or version is announced with the time of the attempt",
            search: CRASHES,
            breaks: &[Guarantee::StableIdentity],
            seams: planted(forget_ends),
        },
        Bug {
            name: "other-bytes-are-resumed",
            what: "a dump with other bytes under the same name is gone on with at the old position",
            search: Search::Seeds(200),
            breaks: &[Guarantee::NeverAhead, Guarantee::StableIdentity],
            seams: planted(ignore_fingerprints),
        },
        Bug {
            name: "corrupt-marker-is-silent",
            what: "a damaged marker is passed over without a word",
            search: Search::Seeds(200),
            breaks: &[Guarantee::ToldDamage],
            seams: planted(|_, mut plan| {
                plan.warnings.clear();
                plan
            }),
        },
    ]
}

fn one_record_too_far(_: &dyn FileSystem, mut plan: Plan) -> Plan {
    for planned in &mut plan.dumps {
        let frontier = &mut planned.checkpoint.frontier;
        frontier.record += u64::from(frontier.record > 0);
    }
    plan
}

fn forget_ends(_: &dyn FileSystem, mut plan: Plan) -> Plan {
    if !plan.marker.is_complete() {
        plan.marker.processing_phase.completed_at = None;
    }
    for planned in &plan.dumps {
        let entry = plan.marker.file_mut(&planned.dump.file_name());
        entry.completed_at = None;
    }
    plan
}

fn forget_entries(_: &dyn FileSystem, mut plan: Plan) -> Plan {
    for planned in &plan.dumps {
        *plan.marker.file_mut(&planned.dump.file_name()) = marker::FileProgress::default();
    }
    plan
}

fn remove_marker(fs: &dyn FileSystem, plan: Plan) -> Plan {
    if !plan.marker.is_complete() {
        // There is none before the first save.
        _ = fs.remove(&plan.paths.marker());
    }
    plan
}

fn count_messages(_: &dyn FileSystem, mut plan: Plan) -> Plan {
    for planned in &mut plan.dumps {
        planned.checkpoint.frontier.record = planned.checkpoint.frontier.messages;
    }
    plan
}

fn forget_dead_letters(_: &dyn FileSystem, mut plan: Plan) -> Plan {
    for planned in &mut plan.dumps {
        planned.checkpoint.frontier.dead_letters = 0;
    }
    plan
}

fn count_twice(_: &dyn FileSystem, mut plan: Plan) -> Plan {
    for planned in &mut plan.dumps {
        planned.checkpoint.frontier.messages *= 2;
    }
    plan
}

fn ignore_fingerprints(fs: &dyn FileSystem, mut plan: Plan) -> Plan {
    let Ok(Ok(Some(saved))) = marker::read(fs, &plan.paths.marker()) else {
        return plan;
    };
    for planned in &mut plan.dumps {
        let file = saved.file(&planned.dump.file_name());
        if let Some(checkpoint) = file.and_then(|file| file.checkpoint.as_ref()) {
            planned.checkpoint.frontier = checkpoint.frontier;
        }
    }
    plan
}

/// When is saved, and when a run stops.
fn cadence() -> Vec<Bug> {
    let options = |options| Seams {
        options,
        ..Seams::default()
    };
    let run = |run| Seams {
        run,
        ..Seams::default()
    };
    vec![
        Bug {
            name: "modulo-cadence",
            what: "a save is made when the count is a multiple of the interval, which batches step over",
            search: Search::Crashes(Run::new(place::SPOOL, 9, MODULUS, 4), Model::Full, 0),
            breaks: &[Guarantee::BoundedLag],
            seams: run(modulo_cadence),
        },
        Bug {
            name: "interval-in-batches",
            what: "the interval is counted in batches of three and not in records",
            search: Search::Crashes(Run::new(place::RABBITMQ, 9, 2, 2), Model::Full, 0),
            breaks: &[Guarantee::BoundedLag],
            seams: options(|mut options| {
                options.save.interval *= 3;
                options
            }),
        },
        Bug {
            name: "reading-outruns-saves",
            what: "a save is made in time, but reading goes on without bound while it takes",
            search: Search::Crashes(Run::new(place::RABBITMQ, 9, 1, 1), Model::Kill, 1),
            breaks: &[Guarantee::BoundedRepeats],
            seams: options(|mut options| {
                options.save.interval = 1_000;
                options.save.age_max = Duration::ZERO;
                options
            }),
        },
        Bug {
            name: "stop-is-lost-while-busy",
            what: "a request to stop is not looked at while there is work",
            search: Search::Seeds(200),
            breaks: &[Guarantee::Stops],
            seams: run(never_stopping),
        },
    ]
}

/// The interval of the run in which it is looked for.
const MODULUS: u64 = 2;

/// Makes no save unless the count is a multiple.
struct Modulo<'a> {
    inner: &'a mut dyn Saver,
    records: &'a Cell<u64>,
    is_left_out: bool,
}

impl Saver for Modulo<'_> {
    fn start(&mut self, save: Save) {
        self.is_left_out = !self.records.get().is_multiple_of(MODULUS);
        if !self.is_left_out {
            self.inner.start(save);
        }
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        match std::mem::take(&mut self.is_left_out) {
            true => Some(Ok(())),
            false => self.inner.poll(),
        }
    }
}

/// Counts the records.
struct Counting<'a> {
    inner: &'a mut dyn Observer,
    records: &'a Cell<u64>,
}

impl Observer for Counting<'_> {
    fn notice(&mut self, now: Instant, notice: &Notice, extraction: &Extraction) {
        self.inner.notice(now, notice, extraction);
    }

    fn step(&mut self, now: Instant, extraction: &Extraction) {
        self.records.set(extraction.progress().frontier.record);
        self.inner.step(now, extraction);
    }
}

fn modulo_cadence(extraction: &mut Extraction, outside: &mut Outside<'_>) -> Ending {
    let records = Cell::new(0);
    let mut saver = Modulo {
        inner: &mut *outside.saver,
        records: &records,
        is_left_out: false,
    };
    let mut observer = Counting {
        inner: &mut *outside.observer,
        records: &records,
    };
    let mut outside = Outside {
        clock: outside.clock,
        broker: &mut *outside.broker,
        saver: &mut saver,
        dumps: &mut *outside.dumps,
        observer: &mut observer,
        stop: outside.stop,
    };
    driver::run(extraction, &mut outside)
}

fn never_stopping(extraction: &mut Extraction, outside: &mut Outside<'_>) -> Ending {
    let mut outside = Outside {
        clock: outside.clock,
        broker: &mut *outside.broker,
        saver: &mut *outside.saver,
        dumps: &mut *outside.dumps,
        observer: &mut *outside.observer,
        stop: &AtomicBool::new(false),
    };
    driver::run(extraction, &mut outside)
}

/// What is taken for a save.
fn saves() -> Vec<Bug> {
    let planted = |saver| Seams {
        saver,
        ..Seams::default()
    };
    vec![
        Bug {
            name: "save-in-drop",
            what: "the state is saved when the saver is dropped, which a killed process never does",
            search: CRASHES,
            breaks: &[Guarantee::WholeMarker, Guarantee::Durable],
            seams: planted(|_, fs| {
                Box::new(SavesInDrop {
                    fs: Arc::clone(fs),
                    saves: Vec::new(),
                    is_started: false,
                })
            }),
        },
        Bug {
            name: "every-second-save-is-left-out",
            what: "a save that comes too soon after another is left out, and counts as made",
            search: CRASHES,
            breaks: &[Guarantee::Durable, Guarantee::NeverAhead],
            seams: planted(|inner, _| {
                Box::new(EverySecond {
                    inner,
                    saves: 0,
                    is_left_out: false,
                })
            }),
        },
        Bug {
            name: "save-error-is-swallowed",
            what: "a save that failed counts as made",
            search: Search::Crashes(
                RUN.failing(Operation::Rename, ".extraction_status", 2),
                Model::Full,
                1,
            ),
            breaks: &[Guarantee::Durable],
            seams: planted(|inner, _| Box::new(Swallows(inner))),
        },
        Bug {
            name: "nothing-is-saved",
            what: "no save is ever made, so that a search for failing saves searches nothing",
            search: Search::Crashes(RUN.failing(Operation::Create, ".tmp", 1), Model::Full, 0),
            breaks: &[Guarantee::PlannedHappened],
            seams: planted(|_, _| Box::new(NoSaves { is_started: false })),
        },
    ]
}

struct SavesInDrop {
    fs: Arc<dyn FileSystem>,
    saves: Vec<Save>,
    is_started: bool,
}

impl Saver for SavesInDrop {
    fn start(&mut self, save: Save) {
        self.saves.push(save);
        self.is_started = true;
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        std::mem::take(&mut self.is_started).then_some(Ok(()))
    }
}

impl Drop for SavesInDrop {
    fn drop(&mut self) {
        for save in self.saves.drain(..) {
            // Nobody is left who could be told.
            _ = save.finish(&*self.fs);
        }
    }
}

struct EverySecond {
    inner: Box<dyn Saver>,
    saves: u32,
    is_left_out: bool,
}

impl Saver for EverySecond {
    fn start(&mut self, save: Save) {
        self.saves += 1;
        self.is_left_out = self.saves.is_multiple_of(2);
        if !self.is_left_out {
            self.inner.start(save);
        }
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        match std::mem::take(&mut self.is_left_out) {
            true => Some(Ok(())),
            false => self.inner.poll(),
        }
    }
}

struct Swallows(Box<dyn Saver>);

impl Saver for Swallows {
    fn start(&mut self, save: Save) {
        self.0.start(save);
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        self.0.poll().map(|_| Ok(()))
    }
}

struct NoSaves {
    is_started: bool,
}

impl Saver for NoSaves {
    fn start(&mut self, _: Save) {
        self.is_started = true;
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        std::mem::take(&mut self.is_started).then_some(Ok(()))
    }
}

/// What is made of a dump.
fn dumps() -> Vec<Bug> {
    let planted = |dumps| Seams {
        dumps,
        ..Seams::default()
    };
    let run = |shape| Search::Crashes(RUN.shaped(shape), Model::Full, 0);
    vec![
        Bug {
            name: "open-root-is-an-end",
            what: "XML that ends before its root is closed counts as read to its end",
            search: run(Shape::RootOpen),
            breaks: &[Guarantee::ToldDamage],
            seams: planted(|inner| {
                let change = |read| match read {
                    Err(SourceError::Xml { .. }) => end(),
                    read => read,
                };
                Box::new(Changed { inner, change })
            }),
        },
        Bug {
            name: "trailer-is-ignored",
            what: "the checksum at the end of a gzip member is not compared",
            search: run(Shape::WrongChecksum),
            breaks: &[Guarantee::ToldDamage],
            seams: planted(|inner| {
                let change = |read| match read {
                    Err(SourceError::Gzip { .. }) => end(),
                    read => read,
                };
                Box::new(Changed { inner, change })
            }),
        },
        Bug {
            name: "text-is-cut-at-a-border",
            what: "text that goes over the border of two buffers loses what stands before it",
            search: run(Shape::Whole),
            breaks: &[Guarantee::StableIdentity],
            seams: planted(|inner| {
                let change = |read| match read {
                    Ok(Read::Item(item)) => Ok(Read::Item(cut(item))),
                    read => read,
                };
                Box::new(Changed { inner, change })
            }),
        },
    ]
}

type Change = fn(Result<Read, SourceError>) -> Result<Read, SourceError>;

/// Changes what is read.
struct Changed {
    inner: Box<dyn Open>,
    change: Change,
}

impl Open for Changed {
    fn open(
        &mut self,
        dump: &Dump,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<Reads, SourceError> {
        let reads = self.inner.open(dump, from, seek_point)?;
        Ok(Box::new(reads.map(self.change)))
    }
}

fn end() -> Result<Read, SourceError> {
    let checksum = String::new();
    Ok(Read::End { checksum })
}

/// Bytes in the buffer of a parser.
const BUFFER_BYTES: u64 = 64;

fn cut(mut item: Item) -> Item {
    let buffer = |offset: u64| offset / BUFFER_BYTES;
    let is_divided = buffer(item.start.0) != buffer(item.position.xml.0);
    if let Outcome::Content(content) = &mut item.outcome
        && is_divided
    {
        let text = String::from_utf8_lossy(&content.body);
        if let Some(start) = text.find("\"name\":\"") {
            let mut body = content.body.to_vec();
            body.remove(start + "\"name\":\"".len());
            content.body = body.into();
        }
    }
    item
}
