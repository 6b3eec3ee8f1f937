//! `follow` over a year, with a new version every month and everything that can go wrong in a year:
//! a host with habits, a disk that fails, a broker that fails, and a process that dies again and
//! again, at any operation, and is started anew.
//!
//! What could go wrong over many versions and not in one: a version that is never noticed, or not
//! any more after a failure; one that is taken for complete after the crash of another; pauses that
//! grow for ever; dumps of the wrong version removed, or never; state of an old version believed of
//! a new one. So in the end every version must be in the broker with every record and nothing else,
//! in time, with as few repeats as its interruptions allow, and the disk must hold what `--keep`
//! says.
//!
//! The rounds are wired as in `fetch` and `run` of the program, from the same parts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use discogs_extractor::broker::{Message, Subject};
use discogs_extractor::download::{self, DownloadError, Pause, Watcher};
use discogs_extractor::driver::{self, Observer};
use discogs_extractor::dump::{self, Dump, Kind, Version, checksums_name};
use discogs_extractor::extraction::{self, Ending, Extraction};
use discogs_extractor::follow::{self, Round};
use discogs_extractor::fs::FileSystem;
use discogs_extractor::http::{Http, Request, Transfer};
use discogs_extractor::marker::Paths;
use discogs_extractor::plan;
use discogs_extractor::record::Ordinal;
use discogs_extractor::source;
use discogs_extractor::time::{Clock, Instant};
use sim::broker::{Server, Stored};
use sim::disk::{Disk, Image, Model};
use sim::extractor::{Dumps, beside};
use sim::faults::{Fault, Faults};
use sim::host::{Host, ROOT};
use sim::place;
use sim::scenario::{self, Scenario, Truth, VARIANTS};
use sim::tape::Tape;
use sim::world::{Moment, World};

/// Where the dumps and the state are.
const DATA: &str = "data";
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// Between two looks for a new version.
const CHECK_EVERY: Duration = Duration::from_secs(15 * 86_400);
/// How many versions stay on the disk.
const KEEP: usize = 2;
/// Between two saves, in records; and the window, in messages.
const INTERVAL: u64 = 3;
const WINDOW: usize = 4;
/// How long failures and a dead process may delay a version.
const DELAY_MAX: Duration = Duration::from_secs(10 * 86_400);
/// The seeds that are lived through.
const SEEDS: u64 = 150;

/// The versions of the year, and on which day each is uploaded: the clock begins with August 2026.
const VERSIONS: [(&str, u32); 12] = [
    ("20260801", 0),
    ("20260901", 33),
    ("20261001", 61),
    ("20261101", 96),
    ("20261201", 122),
    ("20270101", 154),
    ("20270201", 184),
    ("20270301", 216),
    ("20270401", 243),
    ("20270501", 275),
    ("20270601", 304),
    ("20270701", 336),
];

/// A version with the truth about its dumps, no two of which are alike.
struct Month {
    version: Version,
    uploaded: Instant,
    scenario: Scenario,
    variant: usize,
}

impl Month {
    fn all() -> Vec<Self> {
        let months = VERSIONS.iter().enumerate();
        months
            .map(|(number, (version, day))| Self {
                version: version.parse().expect("a date"),
                uploaded: Instant::ORIGIN + DAY * *day,
                scenario: Scenario::new(
                    &scenario::Dumps::new(4 + number as u64),
                    place::RABBITMQ,
                    INTERVAL,
                    WINDOW,
                ),
                variant: number % VARIANTS,
            })
            .collect()
    }

    fn dump(&self, kind: Kind) -> Vec<u8> {
        let image = self.scenario.with_dump(Image::new(), kind, self.variant);
        let bytes = image.read(Scenario::dump_path(kind));
        bytes.expect("it was just put there").to_vec()
    }

    fn truth(&self, kind: Kind) -> &Truth {
        self.scenario.variant_truth(kind, self.variant)
    }
}

/// The host, which uploads while time goes by: the dumps first, a day later their checksums.
struct Publisher<'a> {
    months: &'a [Month],
    host: &'a Host,
    inner: Box<dyn Http>,
    clock: &'a dyn Clock,
}

impl Http for Publisher<'_> {
    fn start(&mut self, request: &Request) -> Box<dyn Transfer> {
        let now = self.clock.now();
        for month in self.months.iter().filter(|month| month.uploaded <= now) {
            let name = checksums_name(&month.version);
            if self.host.published(&name).is_some() {
                continue;
            }
            self.host.upload(&month.version, |kind| month.dump(kind));
            if now < month.uploaded + DAY {
                self.host.withdraw(&month.version, &name);
            }
        }
        self.inner.start(request)
    }
}

/// What happened in the year.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    lives: u32,
    crashes: u32,
    rounds: u32,
    failures: u32,
    /// When each version was complete.
    complete: BTreeMap<Version, Instant>,
    /// How often the publishing of each version was interrupted: by the end of a life or a round, or
    /// by its broker.
    interruptions: BTreeMap<Version, u64>,
    /// The versions of which a save failed: their repeats have no bound.
    unsaved: BTreeSet<Version>,
    /// When the next round is due if the process lives, and after how many failures.
    due: Option<Instant>,
    failures_in_a_row: u32,
    /// What happened when, for people.
    told: Vec<String>,
}

impl Story {
    fn tell(&mut self, now: Instant, what: &str) {
        let seconds = now.since(Instant::ORIGIN).as_secs();
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        self.told.push(format!("day {days}, {hours} h: {what}"));
    }
}

/// What a panic carries that only leaves a dead world.
struct Dead;

/// One life of the process.
struct Life<'a> {
    world: World,
    disk: Disk,
    host: Host,
    /// How rare the habits of the host are.
    habits: u32,
    server: &'a Server,
    months: &'a [Month],
    story: &'a RefCell<Story>,
    stop: AtomicBool,
}

impl Life<'_> {
    /// Follows until the process dies or the year is over.
    fn live(&self) {
        let clock = self.world.clock();
        let mut outside = follow::Outside {
            clock: &clock,
            pause: &mut Sleep(self),
            stop: &self.stop,
            look: &AtomicBool::new(false),
            notice: &mut |_, notice| self.told(notice),
        };
        let lived = catch_unwind(AssertUnwindSafe(|| {
            follow::follow(&mut outside, CHECK_EVERY, &mut || self.round());
        }));
        if let Err(panic) = lived
            && !panic.is::<Dead>()
        {
            resume_unwind(panic);
        }
        if let Some(version) = self.newest() {
            self.interrupted(&version);
        }
    }

    fn leave_if_dead(&self) {
        if self.world.frozen() {
            resume_unwind(Box::new(Dead));
        }
    }

    /// The newest version that is on the disk.
    fn newest(&self) -> Option<Version> {
        versions(&self.disk.live()).pop_last()
    }

    fn interrupted(&self, version: &Version) {
        let mut story = self.story.borrow_mut();
        *story.interruptions.entry(version.clone()).or_default() += 1;
    }

    /// Takes down when the next round has to begin: after a minute, twice that, at most six hours.
    fn told(&self, notice: &follow::Notice) {
        self.leave_if_dead();
        let now = self.world.now();
        let story = &mut *self.story.borrow_mut();
        let pause = match notice {
            follow::Notice::Complete(version, pause) => {
                story.failures_in_a_row = 0;
                story.complete.entry(version.clone()).or_insert(now);
                assert_eq!(*pause, CHECK_EVERY);
                let kept = versions(&self.disk.live()).len();
                assert!(kept <= KEEP, "{kept} versions are on the disk");
                *pause
            }
            follow::Notice::Failed(why, pause) => {
                story.failures += 1;
                story.failures_in_a_row += 1;
                let doublings = story.failures_in_a_row.min(10) - 1;
                let expected = Duration::from_secs(60 << doublings);
                assert_eq!(*pause, expected.min(DAY / 4), "{why}");
                *pause
            }
        };
        story.due = Some(now + pause);
        story.tell(now, &format!("{notice:?}"));
    }

    fn round(&self) -> Round {
        self.leave_if_dead();
        {
            let story = &mut *self.story.borrow_mut();
            story.rounds += 1;
            let due = story.due.take();
            assert!(due.is_none_or(|due| due == self.world.now()), "in time");
        }
        let version = match self.fetch() {
            Ok(version) => version,
            Err(DownloadError::Stopped) => return Round::Stopped,
            Err(error) => return Round::Failed(error.to_string()),
        };
        let ending = self.run(&version);
        self.leave_if_dead();
        match ending {
            Ok(Ending::Complete) => match follow::remove_old(&self.disk, DATA.as_ref(), KEEP) {
                Ok(_) => Round::Complete(version),
                Err(error) => Round::Failed(error.to_string()),
            },
            Ok(Ending::Stopped) => Round::Stopped,
            Ok(ending) => {
                self.interrupted(&version);
                Round::Failed(format!("{ending:?}"))
            }
            Err(error) => Round::Failed(error),
        }
    }

    /// Fetches the newest version, as `fetch` of the program does.
    fn fetch(&self) -> Result<Version, DownloadError> {
        let clock = self.world.clock();
        let options = download::Options {
            note_every_bytes: 64,
            ..download::Options::new(ROOT)
        };
        let mut outside = download::Outside {
            fs: &self.disk,
            clock: &clock,
            http: &mut Publisher {
                months: self.months,
                host: &self.host,
                inner: Box::new(self.host.client(&self.world, 100, self.habits)),
                clock: &clock,
            },
            pause: &mut Sleep(self),
            watcher: &mut Silent,
            stop: &self.stop,
        };
        let published = download::find(&mut outside, &options, None)?;
        let paths = Paths::new(DATA.as_ref(), &published.version);
        let lock = plan::lock(&self.disk, &paths, "a test");
        let _lock = lock.map_err(|error| DownloadError::Io {
            operation: "lock",
            path: DATA.into(),
            error: std::io::Error::other(error),
        })?;
        download::fetch(&mut outside, &options, &published, DATA.as_ref(), &paths)?;
        Ok(published.version)
    }

    /// Publishes a version, as `run` of the program does.
    fn run(&self, version: &Version) -> Result<Ending, String> {
        let fs: Arc<dyn FileSystem> = Arc::new(self.disk.clone());
        let selection = dump::select(&*fs, DATA.as_ref(), Some(version), &[]);
        let selection = selection.map_err(|error| error.to_string())?;
        let paths = Paths::new(DATA.as_ref(), version);
        let lock = plan::lock(&*fs, &paths, "a test");
        let _lock = lock.map_err(|error| error.to_string())?;
        let plan = plan::plan(&*fs, selection, paths, false);
        let plan = plan.map_err(|error| error.to_string())?;

        let clock = self.world.clock();
        let options = self.months[0].scenario.options;
        let client = Box::new(self.server.client(&self.world));
        let (mut broker, mut saver) = beside(&self.world, &fs, client);
        let mut extraction = Extraction::new(plan, options, clock.now(), clock.unix());
        let mut outside = driver::Outside {
            clock: &clock,
            broker: &mut broker,
            saver: &mut saver,
            dumps: &mut Dumps {
                fs,
                options: source::Options {
                    seek_spacing_bytes: 40,
                    ..source::Options::default()
                },
            },
            observer: &mut Watch {
                life: self,
                version,
            },
            stop: &self.stop,
        };
        Ok(driver::run(&mut extraction, &mut outside))
    }
}

/// Waits by moving the clock, to the end of the year at the latest.
struct Sleep<'a>(&'a Life<'a>);

impl Pause for Sleep<'_> {
    fn pause(&mut self, deadline: Instant) {
        self.0.leave_if_dead();
        let end = Instant::ORIGIN + YEAR;
        self.0.world.clock().advance_to(deadline.min(end));
        let is_over = self.0.world.now() >= end;
        self.0.stop.store(is_over, Ordering::Relaxed);
    }
}

struct Silent;

impl Watcher for Silent {
    fn progress(&mut self, _: Instant, _: Kind, _: u64, _: Option<u64>) {}

    fn notice(&mut self, _: Instant, _: &download::Notice) {}
}

/// Watches a run: takes down what interrupts it, and leaves when its world is dead.
struct Watch<'a> {
    life: &'a Life<'a>,
    version: &'a Version,
}

impl Observer for Watch<'_> {
    fn notice(&mut self, _: Instant, notice: &extraction::Notice, _: &Extraction) {
        use extraction::Notice;
        match notice {
            Notice::Disconnected { .. } | Notice::Unanswered { .. } | Notice::NotTaken { .. } => {
                self.life.interrupted(self.version);
            }
            Notice::SaveFailed { .. } => {
                let mut story = self.life.story.borrow_mut();
                story.unsaved.insert(self.version.clone());
            }
            _ => {}
        }
    }

    fn step(&mut self, _: Instant, _: &Extraction) {
        self.life.leave_if_dead();
    }
}

/// The versions whose dumps, or parts of them, are on a disk.
fn versions(image: &Image) -> BTreeSet<Version> {
    let names = image
        .files()
        .filter_map(|(path, _)| path.to_str()?.strip_prefix("data/"));
    let dumps = names.filter_map(|name| Dump::from_path(name.trim_end_matches(".part").as_ref()));
    dumps.map(|dump| dump.version).collect()
}

/// How a process dies in a life, if it does, and what its disk does then.
struct Fate {
    tape: Tape,
    faults: bool,
}

impl Fate {
    fn faults(&self) -> Faults {
        if !self.faults {
            return Faults::none();
        }
        let one_in = [1_000, 200, 50][self.tape.choose("fate.rarity", 3) as usize];
        let kinds = Fault::ALL.into_iter();
        // A record that is refused for ever is a dead letter, which other tests are about.
        kinds
            .filter(|kind| *kind != Fault::Refuse)
            .filter(|_| self.tape.choose("fate.fault", 2) == 1)
            .fold(Faults::none(), Faults::with)
            .one_in(one_in)
    }

    fn habits(&self) -> u32 {
        match self.faults {
            true => [0, 30, 5][self.tape.choose("fate.habits", 3) as usize],
            false => 0,
        }
    }

    /// In nine lives of ten.
    fn crash(&self, world: &World) {
        if self.faults && self.tape.choose("fate.crash", 10) > 0 {
            let operations = [100, 1_000, 5_000][self.tape.choose("fate.operations", 3) as usize];
            let number = self.tape.choose("fate.at", operations);
            let moment = match self.tape.choose("fate.moment", 2) {
                0 => Moment::Before,
                _ => Moment::After,
            };
            world.crash_at(u64::from(number) + 1, moment);
        }
    }

    fn model(&self) -> Model {
        let models = [Model::Kill, Model::Strict, Model::Full, Model::Torn];
        models[self.tape.choose("fate.model", models.len() as u32) as usize]
    }

    /// How long nobody starts the program again.
    fn rest(&self) -> Duration {
        [Duration::from_secs(30), DAY / 24, DAY][self.tape.choose("fate.rest", 3) as usize]
    }
}

/// What is left at the end.
struct Year {
    months: Vec<Month>,
    story: Story,
    image: Image,
    server: Server,
    /// Whether the broker kept a message out while others behind it got in.
    has_turned_down: bool,
    trace_hash: u64,
}

/// Lives through the year, on a tape, with faults or without.
fn live(tape: &Tape, has_faults: bool) -> Year {
    let months = Month::all();
    let fate = Fate {
        tape: tape.fork("fate"),
        faults: has_faults,
    };
    let (host, server) = (Host::default(), Server::new());
    let mut image = Image::new().with_directory(DATA);
    let mut world = World::new(tape.clone(), fate.faults());
    let story = RefCell::default();
    loop {
        fate.crash(&world);
        let life = Life {
            disk: Disk::mount(&world, &image),
            host: host.clone(),
            habits: fate.habits(),
            world: world.clone(),
            server: &server,
            months: &months,
            story: &story,
            stop: AtomicBool::new(false),
        };
        life.live();
        story.borrow_mut().lives += 1;
        story.borrow_mut().due = None;
        story.borrow_mut().failures_in_a_row = 0;
        if !world.frozen() {
            image = life.disk.live();
            break;
        }
        story.borrow_mut().crashes += 1;
        story.borrow_mut().tell(
            world.now(),
            &format!("dead at operation {}", world.operations()),
        );
        image = life.disk.image(fate.model(), &fate.tape);
        world = world.next_life(fate.faults());
        world.clock().advance(fate.rest());
    }
    server.settle(&world);
    Year {
        months,
        story: story.into_inner(),
        image,
        server,
        has_turned_down: Fault::ONE_BY_ONE
            .iter()
            .any(|fault| world.fired(*fault) > 0),
        trace_hash: world.trace_hash(),
    }
}

impl Year {
    fn judge(&self) {
        for month in &self.months {
            self.judge_version(month);
        }
        // That there are no others was seen after each round: what the last crash has brought back,
        // the next round would remove again.
        let kept = versions(&self.image);
        let newest = self.months[self.months.len() - KEEP..].iter();
        for month in newest {
            assert!(kept.contains(&month.version), "{} is kept", month.version);
        }
        let violations = self.server.violations();
        assert_eq!(violations, [""; 0], "what the broker has to complain of");
    }

    /// A version is in the broker in time, with everything and nothing else.
    fn judge_version(&self, month: &Month) {
        let version = &month.version;
        let complete = self.story.complete.get(version);
        let complete = complete.unwrap_or_else(|| panic!("{version} was never complete"));
        let late = complete.since(month.uploaded + DAY);
        assert!(
            late <= CHECK_EVERY + DELAY_MAX,
            "{version} came {late:?} late"
        );
        let (mut stored, mut distinct) = (0, 0);
        for kind in Kind::ALL {
            let held = self.held(version, kind);
            stored += held.len();
            distinct += self.judge_dump(month, kind, &held);
        }
        let repeats = (stored - distinct) as u64;
        let interruptions = self.story.interruptions.get(version).copied();
        let allowed = interruptions.unwrap_or_default() * (INTERVAL + WINDOW as u64);
        assert!(
            repeats <= allowed || self.story.unsaved.contains(version),
            "{version}: {repeats} repeats, {allowed} at most are allowed"
        );
    }

    /// What the broker holds of a dump, in order.
    fn held(&self, version: &Version, kind: Kind) -> Vec<Arc<Message>> {
        let is_it =
            |stored: &&Stored| stored.message.version == *version && stored.message.route == kind;
        self.server.with_stored(|stored| {
            let stored = stored.iter().filter(is_it);
            stored.map(|stored| Arc::clone(&stored.message)).collect()
        })
    }

    /// Everything is there with the right bytes, in order; returns how many different messages.
    fn judge_dump(&self, month: &Month, kind: Kind, held: &[Arc<Message>]) -> usize {
        let (version, truth) = (&month.version, month.truth(kind));
        let mut first = Vec::<&Message>::new();
        for message in held {
            match first.iter().find(|known| known.subject == message.subject) {
                Some(known) => assert!(known.body == message.body, "{} differs", message.id()),
                None => first.push(message),
            }
        }
        let mut subjects: Vec<_> = first.iter().map(|message| message.subject).collect();
        if self.has_turned_down {
            subjects.sort_unstable();
        }
        let records = truth.published().map(|(ordinal, _)| ordinal);
        let records = records.map(|ordinal| Subject::Record(Ordinal(ordinal)));
        let ends = [Subject::FileComplete, Subject::ExtractionComplete];
        let expected: Vec<_> = records.chain(ends).collect();
        assert_eq!(subjects, expected, "{version} {kind}");
        for message in first {
            if let Subject::Record(ordinal) = message.subject {
                let body = truth.message(ordinal.0);
                assert_eq!(body, Some(&*message.body), "{}", message.id());
            }
        }
        expected.len()
    }
}

/// Lives through a seed's year and judges it; a failure names the seed.
fn year(seed: u64) -> Year {
    println!("seed {seed}; again: FOLLOW_SEED={seed} cargo test -p sim --test follow one_year");
    let year = live(&Tape::seeded(seed), true);
    let judged = catch_unwind(AssertUnwindSafe(|| year.judge()));
    judged.unwrap_or_else(|panic| {
        year.story.told.iter().for_each(|line| println!("{line}"));
        resume_unwind(panic)
    });
    year
}

#[test]
fn without_faults_every_version_is_there_once_and_in_time() {
    let year = live(&Tape::benign(), false);
    year.judge();
    let story = year.story;
    // On the first day there is no complete version yet: a minute, two, .. up to six hours, four times.
    assert_eq!((story.lives, story.failures), (1, 12));
    assert_eq!(
        story.interruptions.values().sum::<u64>(),
        1,
        "the year's end"
    );
    assert_eq!(story.rounds, 12 + 25);
    for month in &year.months {
        let late = story.complete[&month.version].since(month.uploaded + DAY);
        assert!(late <= CHECK_EVERY + DAY, "{} {late:?}", month.version);
    }
}

#[test]
fn no_fault_and_no_crash_of_a_year_loses_a_version() {
    let (mut crashes, mut failures) = (0, 0);
    for seed in 0..SEEDS {
        let story = year(seed).story;
        crashes += story.crashes;
        failures += story.failures;
    }
    assert!(crashes > 500, "{crashes} crashes");
    assert!(failures > 1_000, "{failures} failures");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the seed of a failure comes from outside"
)]
fn one_year_can_be_lived_again() {
    let seed = std::env::var("FOLLOW_SEED").ok();
    let seed = seed.map_or(7, |seed| seed.parse().expect("FOLLOW_SEED is a number"));
    let (first, again) = (year(seed), year(seed));
    assert_eq!(first.trace_hash, again.trace_hash);
    assert_eq!(first.story, again.story);
}
