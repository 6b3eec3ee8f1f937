//! What the program shows of itself to other threads: how far it is, how fast, and what happened.
//!
//! One side writes: [`crate::telemetry`], with the very numbers that it draws and logs, so that what
//! an endpoint shows can't disagree with them. Everybody else takes a copy. Neither waits for the
//! other for longer than that takes.
//!
//! Counters are of the process: a run that begins anew goes on counting where the last one ended.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;

use crate::download;
use crate::dump::{self, Dump, Kind, Version};
use crate::extraction::{Ending, Notice, Options, Progress};
use crate::follow;
use crate::marker::{Frontier, Status};
use crate::plan::Plan;
use crate::time::Instant;

/// How many of the last events are kept.
const EVENTS_MAX: usize = 12;

/// A handle on what is shown.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Shown>>);

impl Board {
    /// What is shown now.
    pub fn read(&self) -> Shown {
        self.write().clone()
    }

    /// Changes what is shown. What is changed by one guard is seen together.
    pub fn write(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// What the program does.
    pub activity: Activity,
    /// The version that it is about.
    pub version: Option<Version>,
    /// The dumps of that version, as far as this process has to do with them.
    pub dumps: BTreeMap<Kind, DumpShown>,
    /// How far the present run is, or how far the last one came.
    pub progress: Progress,
    /// How fast it goes.
    pub speed: Speed,
    /// The most messages that wait for a confirm.
    pub window_messages: usize,
    /// Records between two saves.
    pub save_interval: u64,
    /// What was counted since the process began.
    pub totals: Totals,
    /// When a save succeeded last.
    pub saved_at: Option<Instant>,
    /// When there was a sign of life last.
    pub seen_at: Option<Instant>,
    /// What happened, oldest first; the last few.
    pub events: VecDeque<Happened>,
    /// The counts when the present run began.
    before: Totals,
}

/// What the program does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Nothing yet, or nothing any more because it was stopped.
    #[default]
    Idle,
    /// Looks for a version, and fetches what is missing of it.
    Fetching,
    /// Publishes a version.
    Publishing,
    /// A version is published.
    Completed,
    /// A version is published, and the next look for another one is then.
    Waiting(Instant),
    /// What it did came to nothing; if it will be tried again, then.
    Failed(Option<Instant>),
}

/// How far a dump is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpShown {
    /// What becomes of it.
    pub stage: Stage,
    /// Its length in compressed bytes, if that is known.
    pub bytes: Option<u64>,
    /// How much of it was fetched by this process or before, while it is fetched.
    pub fetched: u64,
    /// How much of it was read, in compressed bytes.
    pub read: u64,
    /// Records that are settled.
    pub records: u64,
    /// Records whose message was confirmed.
    pub messages: u64,
    /// Records that were skipped and kept.
    pub dead_letters: u64,
    /// When this process settled a record of it last.
    pub settled_at: Option<Instant>,
}

/// What becomes of a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has its turn later.
    #[default]
    Pending,
    /// It is being fetched.
    Fetching,
    /// It is on the disk.
    Fetched,
    /// Its records are being published.
    Publishing,
    /// All of it is published.
    Completed,
}

/// How fast it goes, where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Records that are read.
    pub records_per_second: Option<f64>,
    /// Compressed bytes that are read, or fetched.
    pub bytes_per_second: Option<f64>,
    /// Until the end of the present dump.
    pub left: Option<Duration>,
}

/// What was counted since the process began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Records that were read.
    pub records_read: u64,
    /// Compressed bytes that were read for them.
    pub bytes_read: u64,
    /// Bytes that were fetched.
    pub bytes_fetched: u64,
    /// Messages that were confirmed.
    pub messages_confirmed: u64,
    /// Messages that were published once more, because nothing came of the time before.
    pub messages_repeated: u64,
    /// Records that were skipped and kept.
    pub dead_letters: u64,
    /// Connections that were made after the first of a run.
    pub reconnects: u64,
    /// How long the broker asked for silence.
    pub blocked: Duration,
    /// How long saves took that succeeded.
    pub saves: Histogram,
    /// Saves that failed.
    pub saves_failed: u64,
}

/// How long something took, in classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many are in each class of [`Self::BOUNDS`], and how many above them.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All durations together.
    pub sum: Duration,
}

impl Histogram {
    /// The largest duration of each class, in seconds: a sync takes from less than a millisecond to
    /// seconds on a disk that is busy.
    pub const BOUNDS: [f64; 12] = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    ];

    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let class = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[class] += 1;
        self.sum += duration;
    }
}

/// Something that happened, as it was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When.
    pub at: Instant,
    /// How important it is.
    pub level: Level,
    /// What.
    pub text: String,
}

impl Shown {
    /// What was logged.
    pub fn happened(&mut self, at: Instant, level: Level, text: &str) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        let text = text.to_owned();
        self.events.push_back(Happened { at, level, text });
    }

    // A run.

    /// A run begins to do what `plan` says.
    pub fn run_begins(&mut self, now: Instant, plan: &Plan, options: &Options) {
        self.activity = Activity::Publishing;
        self.version = Some(plan.version.clone());
        self.dumps = planned(plan);
        self.progress = Progress::default();
        self.speed = Speed::default();
        self.window_messages = options.window_messages;
        self.save_interval = options.save.interval;
        self.seen_at = Some(now);
        self.before = self.totals.clone();
    }

    /// The run is so far, and so fast.
    pub fn run_goes_on(&mut self, now: Instant, progress: Progress, speed: Speed) {
        if self.progress.is_blocked {
            let since = self.seen_at.unwrap_or(now);
            self.totals.blocked += now.since(since);
        }
        if let Some((kind, bytes)) = progress.dump {
            let dump = self.dumps.entry(kind).or_default();
            dump.stage = Stage::Publishing;
            dump.bytes = Some(bytes);
            dump.read = progress.compressed;
            dump.settle(now, &progress.frontier);
        }
        let (totals, before) = (&mut self.totals, &self.before);
        totals.records_read = before.records_read + progress.read_in_run;
        totals.bytes_read = before.bytes_read + progress.bytes_in_run;
        totals.messages_confirmed = before.messages_confirmed + progress.confirmed;
        totals.messages_repeated = before.messages_repeated + progress.retried;
        totals.reconnects = before.reconnects + progress.reconnects;
        totals.saves_failed = before.saves_failed + progress.saves_failed;
        self.progress = progress;
        self.speed = speed;
        self.seen_at = Some(now);
    }

    /// Something happened in the run.
    pub fn run_notices(&mut self, now: Instant, notice: &Notice) {
        match notice {
            Notice::Saved { took } => {
                self.totals.saves.add(*took);
                self.saved_at = Some(now);
            }
            Notice::DeadLetter { .. } => self.totals.dead_letters += 1,
            Notice::Completed { file, totals } => self.change(file, |dump| {
                dump.stage = Stage::Completed;
                dump.read = dump.bytes.unwrap_or(dump.read);
                dump.settle(now, totals);
            }),
            _ => {}
        }
    }

    /// The run is over.
    pub fn run_ends(&mut self, ending: &Ending) {
        self.speed = Speed::default();
        self.activity = match ending {
            Ending::Complete | Ending::SelectionComplete => Activity::Completed,
            Ending::Stopped => Activity::Idle,
            Ending::Failed(_) => Activity::Failed(None),
        };
    }

    // A download, and what follows.

    /// A version is looked for.
    pub fn fetch_begins(&mut self, now: Instant) {
        self.activity = Activity::Fetching;
        self.seen_at = Some(now);
    }

    /// So much of a dump is there.
    pub fn fetch_goes_on(&mut self, now: Instant, kind: Kind, done: u64, bytes: Option<u64>) {
        let dump = self.dumps.entry(kind).or_default();
        self.totals.bytes_fetched += done.saturating_sub(dump.fetched);
        dump.stage = Stage::Fetching;
        dump.fetched = done;
        dump.bytes = bytes;
        self.seen_at = Some(now);
    }

    /// Something happened in the download.
    pub fn fetch_notices(&mut self, notice: &download::Notice) {
        use download::Notice;
        match notice {
            Notice::Found(version) => self.version_found(version),
            Notice::Present(file) => self.change(file, |dump| {
                if dump.stage == Stage::Pending {
                    dump.stage = Stage::Fetched;
                }
            }),
            Notice::Outdated(file) => self.change(file, |dump| *dump = DumpShown::default()),
            Notice::Fetching { file, from } => self.change(file, |dump| {
                dump.stage = Stage::Fetching;
                dump.fetched = *from;
            }),
            Notice::StartedOver(file) | Notice::Mismatch(file) => {
                self.change(file, |dump| dump.fetched = 0);
            }
            Notice::Fetched(file) => {
                self.speed = Speed::default();
                self.change(file, |dump| dump.stage = Stage::Fetched);
            }
            Notice::Failed { .. } => {}
        }
    }

    /// This version is the newest; what is known of its dumps stays.
    fn version_found(&mut self, version: &Version) {
        if self.version.as_ref() != Some(version) {
            self.version = Some(version.clone());
            self.dumps = Kind::ALL.map(|kind| (kind, DumpShown::default())).into();
        }
    }

    fn change(&mut self, file: &str, change: impl FnOnce(&mut DumpShown)) {
        if let Some(dump) = Dump::from_path(Path::new(file)) {
            change(self.dumps.entry(dump.kind).or_default());
        }
    }

    /// A round of `follow` is over.
    pub fn round_ends(&mut self, now: Instant, notice: &follow::Notice) {
        self.speed = Speed::default();
        self.activity = match notice {
            follow::Notice::Complete(_, pause) => Activity::Waiting(now + *pause),
            follow::Notice::Failed(_, pause) => Activity::Failed(Some(now + *pause)),
        };
    }
}

impl DumpShown {
    fn settle(&mut self, now: Instant, frontier: &Frontier) {
        if frontier.record > self.records {
            self.settled_at = Some(now);
        }
        self.records = frontier.record;
        self.messages = frontier.published();
        self.dead_letters = frontier.dead_letters;
    }
}

/// The dumps that a run has to do with: those that it will read, and those that are complete.
fn planned(plan: &Plan) -> BTreeMap<Kind, DumpShown> {
    let to_read = plan.dumps.iter().map(|planned| {
        let frontier = &planned.checkpoint.frontier;
        let shown = DumpShown {
            bytes: Some(planned.checkpoint.file_bytes),
            read: frontier.compressed_offset,
            records: frontier.record,
            messages: frontier.published(),
            dead_letters: frontier.dead_letters,
            ..DumpShown::default()
        };
        (planned.dump.kind, shown)
    });
    let complete = Kind::ALL.into_iter().filter_map(|kind| {
        let file = plan.marker.file(&dump::file_name(&plan.version, kind))?;
        let checkpoint = file.checkpoint.as_ref();
        let bytes = checkpoint.map(|checkpoint| checkpoint.file_bytes);
        let shown = DumpShown {
            stage: Stage::Completed,
            bytes,
            read: bytes.unwrap_or_default(),
            records: file.records_extracted,
            messages: file.messages_published,
            dead_letters: checkpoint.map_or(0, |checkpoint| checkpoint.frontier.dead_letters),
            ..DumpShown::default()
        };
        (file.status == Status::Completed).then_some((kind, shown))
    });
    complete.chain(to_read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::{Checkpoint, Marker, Paths};
    use crate::plan::PlannedDump;
    use crate::source::Fingerprint;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn version() -> Version {
        "20260801".parse().unwrap()
    }

    fn file(kind: Kind) -> String {
        dump::file_name(&version(), kind)
    }

    fn frontier(record: u64) -> Frontier {
        Frontier {
            record,
            dead_letters: 1,
            compressed_offset: record * 10,
            ..Frontier::default()
        }
    }

    /// Artists are complete, labels go on behind record 4.
    fn plan() -> Plan {
        let mut marker = Marker::new(&version());
        let artists = marker.file_mut(&file(Kind::Artists));
        artists.status = Status::Completed;
        (artists.records_extracted, artists.messages_published) = (9, 8);
        let checkpoint = Checkpoint {
            frontier: frontier(4),
            file_bytes: 1_000,
            fingerprint: Fingerprint(String::new()),
        };
        let dump = Dump::from_path(Path::new(&file(Kind::Labels))).unwrap();
        Plan {
            paths: Paths::new(Path::new(""), &version()),
            version: version(),
            marker,
            dumps: vec![PlannedDump {
                dump,
                checkpoint,
                seek_point: None,
            }],
            warnings: Vec::new(),
        }
    }

    fn labels(record: u64) -> Progress {
        Progress {
            dump: Some((Kind::Labels, 1_000)),
            compressed: 500,
            frontier: frontier(record),
            read_in_run: record,
            is_connected: true,
            ..Progress::default()
        }
    }

    fn begun() -> Shown {
        let mut shown = Shown::default();
        shown.run_begins(at(0), &plan(), &Options::default());
        shown
    }

    fn dump_of(shown: &Shown, kind: Kind) -> (Stage, u64, u64, Option<u64>) {
        let dump = &shown.dumps[&kind];
        (dump.stage, dump.records, dump.read, dump.bytes)
    }

    #[test]
    fn a_run_is_shown_from_what_was_done_before_to_its_end() {
        let mut shown = begun();
        assert_eq!(shown.activity, Activity::Publishing);
        assert_eq!(shown.dumps.len(), 2);
        let artists = dump_of(&shown, Kind::Artists);
        assert_eq!(artists, (Stage::Completed, 9, 0, None));
        let check = |shown: &Shown, expected| {
            assert_eq!(dump_of(shown, Kind::Labels), expected);
        };
        check(&shown, (Stage::Pending, 4, 40, Some(1_000)));
        shown.run_goes_on(at(2), labels(5), Speed::default());
        check(&shown, (Stage::Publishing, 5, 500, Some(1_000)));
        shown.run_goes_on(at(3), labels(5), Speed::default());
        assert_eq!(shown.dumps[&Kind::Labels].settled_at, Some(at(2)));
        let (file, totals) = (file(Kind::Labels), frontier(7));
        shown.run_notices(at(4), &Notice::Completed { file, totals });
        check(&shown, (Stage::Completed, 7, 1_000, Some(1_000)));
        assert_eq!(shown.dumps[&Kind::Labels].messages, 6);
        shown.run_ends(&Ending::SelectionComplete);
        assert_eq!(shown.activity, Activity::Completed);
    }

    #[test]
    fn counting_goes_on_in_the_next_run() {
        let mut shown = begun();
        shown.run_goes_on(at(1), labels(10), Speed::default());
        shown.run_begins(at(2), &plan(), &Options::default());
        shown.run_goes_on(at(3), labels(1), Speed::default());
        shown.run_goes_on(at(4), labels(2), Speed::default());
        assert_eq!(shown.totals.records_read, 12);
    }

    #[test]
    fn silence_is_measured_from_one_look_to_the_next() {
        let mut shown = begun();
        let mut look = |seconds, is_blocked| {
            let progress = Progress {
                is_blocked,
                ..labels(5)
            };
            shown.run_goes_on(at(seconds), progress, Speed::default());
            shown.totals.blocked.as_secs()
        };
        let looks = [(1, false), (3, true), (6, true), (7, false), (9, false)];
        let blocked = looks.map(|(seconds, is_blocked)| look(seconds, is_blocked));
        assert_eq!(blocked, [0, 0, 3, 4, 4]);
    }

    #[test]
    fn durations_are_counted_in_the_class_that_holds_them() {
        let mut histogram = Histogram::default();
        for milliseconds in [0, 1, 2, 10_000, 10_001] {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let counted = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        assert_eq!(histogram.counts, counted);
        assert_eq!(histogram.sum, Duration::from_millis(20_004));
    }

    #[test]
    fn a_download_is_shown_and_counted_without_what_was_there() {
        use download::Notice;
        let mut shown = Shown::default();
        shown.fetch_begins(at(0));
        shown.fetch_notices(&Notice::Found(version()));
        assert_eq!(shown.dumps.len(), 4);
        let name = file(Kind::Masters);
        let from = 100;
        let file = name.clone();
        shown.fetch_notices(&Notice::Fetching { file, from });
        for done in [100, 150, 400] {
            shown.fetch_goes_on(at(1), Kind::Masters, done, Some(500));
        }
        assert_eq!(shown.totals.bytes_fetched, 300);
        shown.fetch_notices(&Notice::StartedOver(name.clone()));
        shown.fetch_goes_on(at(2), Kind::Masters, 50, Some(500));
        assert_eq!(shown.totals.bytes_fetched, 350);
        assert_eq!(shown.dumps[&Kind::Masters].stage, Stage::Fetching);
        shown.fetch_notices(&Notice::Fetched(name));
        assert_eq!(shown.dumps[&Kind::Masters].stage, Stage::Fetched);
    }

    /// The next look at the same version finds every dump, and has nothing to say about what was
    /// published of them.
    #[test]
    fn looking_for_a_version_keeps_what_is_known_of_the_present_one() {
        use download::Notice;
        let mut shown = begun();
        let present = |kind| Notice::Present(file(kind));
        shown.fetch_notices(&Notice::Found(version()));
        shown.fetch_notices(&present(Kind::Artists));
        assert_eq!(shown.dumps[&Kind::Artists].stage, Stage::Completed);
        shown.fetch_notices(&Notice::Outdated(file(Kind::Artists)));
        assert_eq!(shown.dumps[&Kind::Artists], DumpShown::default());
        shown.fetch_notices(&present(Kind::Labels));
        assert_eq!(shown.dumps[&Kind::Labels].stage, Stage::Fetched);
        shown.fetch_notices(&Notice::Found("20260901".parse().unwrap()));
        let is_new = |dump: &DumpShown| *dump == DumpShown::default();
        assert!(shown.dumps.len() == 4 && shown.dumps.values().all(is_new));
    }

    #[test]
    fn the_last_events_are_kept() {
        let mut shown = Shown::default();
        for number in 0..20 {
            shown.happened(at(number), Level::INFO, &number.to_string());
        }
        let texts: Vec<_> = shown.events.iter().map(|event| &*event.text).collect();
        assert_eq!(texts.len(), EVENTS_MAX);
        assert_eq!((texts[0], texts[EVENTS_MAX - 1]), ("8", "19"));
    }
}
