//! The production pipeline as a [`Program`]: select, lock, plan, extract, drive, exactly as the
//! product's `run`, with the simulated world in the place of the real one.
//!
//! Production makes a save on a thread of its own; here its file-system operations fall between the
//! others one by one, as many before, between and after the broker's events as the tape says. While
//! the program waits, a save under way goes on, and its end ends the wait, as the waker does in
//! production.
//!
//! # Seams
//!
//! Bugs are planted here and never in the product: every piece of the outside world can be replaced
//! or wrapped by a function of [`Seams`], all of which change nothing by default. What is recorded
//! and judged lies outside of the seams: the broker is watched behind them, saves before them.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{Broker, Command, Event, Waker};
use discogs_extractor::driver::{self, Observer, Open, Outside, Saver};
use discogs_extractor::dump::{self, Dump, Kind, file_name};
use discogs_extractor::extraction::{Ending, Extraction, Notice, Options};
use discogs_extractor::fs::FileSystem;
use discogs_extractor::marker::{Marker, Save, SaveError, Status, Stepped};
use discogs_extractor::plan::{self, Plan};
use discogs_extractor::record::Position;
use discogs_extractor::seek_point::SeekPoint;
use discogs_extractor::source::{self, Reads, SourceError};
use discogs_extractor::time::{Clock, Instant};

use crate::disk::{Disk, Image};
use crate::faults::Faults;
use crate::guarantee::{Guarantee, Violation};
use crate::oracles::state;
use crate::program::{Done, DumpDone, Exit, Life, Probe, Program, Sight};
use crate::scenario::{DATA, Scenario};
use crate::scene::Scene;
use crate::sometimes::Sometimes;
use crate::tape::Tape;
use crate::world::World;

/// The product, perhaps with a planted bug.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extractor {
    /// Where bugs are planted.
    pub seams: Seams,
}

/// Wraps a saver, or puts another on the file system into its place.
pub type WrapSaver = fn(Box<dyn Saver>, &Arc<dyn FileSystem>) -> Box<dyn Saver>;

/// What can be replaced. Each function gets the real piece and returns what is used; state that a
/// bug needs lives in what it returns, one for each life.
#[derive(Clone, Copy)]
pub struct Seams {
    /// The file system, of state, dumps and spool.
    pub file_system: fn(Arc<dyn FileSystem>) -> Arc<dyn FileSystem>,
    /// The broker as the driver sees it.
    pub broker: fn(Box<dyn Broker>) -> Box<dyn Broker>,
    /// The options. The oracles keep to those of the scenario.
    pub options: fn(Options) -> Options,
    /// What is made of the disk on start, also for the oracles.
    pub plan: fn(&dyn FileSystem, Plan) -> Plan,
    /// Where saves go; they may go to the file system by another way.
    pub saver: WrapSaver,
    /// Where records come from.
    pub dumps: fn(Box<dyn Open>) -> Box<dyn Open>,
    /// The loop.
    pub run: fn(&mut Extraction, &mut Outside<'_>) -> Ending,
}

impl Default for Seams {
    /// Nothing is replaced.
    fn default() -> Self {
        Self {
            file_system: |it| it,
            broker: |it| it,
            options: |it| it,
            plan: |_, it| it,
            saver: |it, _| it,
            dumps: |it| it,
            run: driver::run,
        }
    }
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seams")
    }
}

impl Program for Extractor {
    fn live(&self, life: &Life<'_>) -> Exit {
        match self.extract(life) {
            Ok(Ending::Complete) => Exit::Complete,
            Ok(Ending::SelectionComplete) => Exit::Failed("the version lacks dumps".to_owned()),
            Ok(Ending::Stopped) => Exit::Stopped,
            Ok(Ending::Failed(failure)) => Exit::Failed(failure.to_string()),
            Err(error) => {
                life.probe.reach(Sometimes::CannotBegin);
                Exit::Failed(error)
            }
        }
    }

    fn command(&self) -> Option<&'static str> {
        Some("cargo run --release -p sim --")
    }

    fn examine(&self, scene: &Scene<'_>, sight: Sight) -> Vec<Violation> {
        state::examine(scene, sight)
    }

    /// What the product plans, in a world of its own.
    fn done(&self, scenario: &Scenario, image: &Image) -> Result<Done, String> {
        let world = World::new(Tape::benign(), Faults::none());
        let fs = (self.seams.file_system)(Arc::new(Disk::mount(&world, image)));
        let plan = self.plan(&*fs)?;
        let mut done = Done::of(&plan.marker);
        for kind in Kind::ALL {
            let planned = plan.dumps.iter().find(|planned| planned.dump.kind == kind);
            done.dumps[kind as usize] = DumpDone {
                records: planned.map_or_else(
                    || scenario.truth(image, kind).records(),
                    |planned| planned.checkpoint.frontier.record,
                ),
                is_completed: planned.is_none(),
            };
        }
        Ok(done)
    }
}

impl Extractor {
    /// The product as it is.
    pub fn product() -> Self {
        Self::default()
    }

    fn plan(&self, fs: &dyn FileSystem) -> Result<Plan, String> {
        let selection = dump::select(fs, DATA.as_ref(), None, &[]);
        let selection = selection.map_err(|error| error.to_string())?;
        let plan = plan::plan(fs, selection, Scenario::paths(), false);
        Ok((self.seams.plan)(
            fs,
            plan.map_err(|error| error.to_string())?,
        ))
    }

    fn extract(&self, life: &Life<'_>) -> Result<Ending, String> {
        let fs = (self.seams.file_system)(life.file_system());
        let inner = (self.seams.broker)(life.broker(&fs));
        let (mut broker, saver) = beside(&life.world, &fs, inner);
        let lock = plan::lock(&*fs, &Scenario::paths(), "the simulator");
        let _lock = lock.map_err(|error| error.to_string())?;
        let plan = self.plan(&*fs)?;
        told_on_start(&life.probe, &plan);

        let clock = life.world.clock();
        let options = (self.seams.options)(life.scenario.options);
        let mut extraction = Extraction::new(plan, options, clock.now(), clock.unix());
        let claims = Claims::default();
        let mut outside = Outside {
            clock: &clock,
            broker: &mut broker,
            saver: &mut Claiming {
                inner: (self.seams.saver)(Box::new(saver), &fs),
                claims: claims.clone(),
                world: life.world.clone(),
                probe: life.probe.clone(),
            },
            dumps: &mut *(self.seams.dumps)(Box::new(dumps(life, &fs))),
            observer: &mut Watch { life, claims },
            stop: &life.stop,
        };
        Ok((self.seams.run)(&mut extraction, &mut outside))
    }
}

impl Done {
    /// How far a marker says that everything is.
    pub fn of(marker: &Marker) -> Self {
        let mut done = Self {
            is_announced: marker.is_complete(),
            ..Self::default()
        };
        for kind in Kind::ALL {
            if let Some(file) = marker.file(&file_name(&Scenario::version(), kind)) {
                let checkpoint = file.checkpoint.as_ref();
                done.dumps[kind as usize] = DumpDone {
                    records: checkpoint.map_or(0, |checkpoint| checkpoint.frontier.record),
                    is_completed: file.status == Status::Completed,
                };
            }
        }
        done
    }
}

fn told_on_start(probe: &Probe, plan: &Plan) {
    probe.warned(&plan.warnings);
    let tells = |text| plan.warnings.iter().any(|warning| warning.contains(text));
    for (text, point) in [
        ("the previous state marker", Sometimes::PreviousGeneration),
        ("no state marker could be read", Sometimes::StartedOver),
        ("was set aside", Sometimes::SetAside),
        ("can't be used", Sometimes::SeekPointRefused),
    ] {
        if tells(text) {
            probe.reach(point);
        }
    }
    if plan.dumps.is_empty() && plan.marker.is_complete() {
        probe.reach(Sometimes::NothingToDo);
    }
}

fn dumps(life: &Life<'_>, fs: &Arc<dyn FileSystem>) -> Dumps {
    Dumps {
        fs: Arc::clone(fs),
        options: source::Options {
            buffer_bytes: life.scenario.buffer_bytes,
            seek_spacing_bytes: life.scenario.seek_spacing_bytes,
            ..source::Options::default()
        },
    }
}

/// Opens dumps inline.
#[derive(Clone)]
pub struct Dumps {
    /// Where they are.
    pub fs: Arc<dyn FileSystem>,
    /// How they are read.
    pub options: source::Options,
}

impl Open for Dumps {
    fn open(
        &mut self,
        dump: &Dump,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<Reads, SourceError> {
        let source = source::open(&*self.fs, dump, from, &self.options)?;
        Ok(Box::new(source.with_seek_point(seek_point)))
    }
}

/// `broker`, and a saver to `fs` whose saves go on beside it, as the tape of `world` says.
pub fn beside(
    world: &World,
    fs: &Arc<dyn FileSystem>,
    broker: Box<dyn Broker>,
) -> (impl Broker + use<>, impl Saver + use<>) {
    let desk = Desk::new(world, fs);
    let stepping = Stepping {
        inner: broker,
        desk: desk.clone(),
        world: world.clone(),
    };
    (stepping, desk)
}

/// How many steps a save makes whenever the broker is polled, by the tape.
const STEPS: [u32; 4] = [1, 0, 2, 5];

/// How long a step takes while the program waits, by the tape.
const STEP_TAKES: [Duration; 3] = [
    Duration::from_millis(1),
    Duration::from_millis(50),
    Duration::from_secs(10),
];

/// The save under way. Clones are handles of the same.
#[derive(Clone)]
struct Desk(Rc<RefCell<UnderWay>>);

struct UnderWay {
    fs: Arc<dyn FileSystem>,
    tape: Tape,
    save: Option<Save>,
    result: Option<Result<(), SaveError>>,
    /// When the next step is over, if the program waits.
    next_at: Option<Instant>,
}

impl Desk {
    fn new(world: &World, fs: &Arc<dyn FileSystem>) -> Self {
        Self(Rc::new(RefCell::new(UnderWay {
            fs: Arc::clone(fs),
            tape: world.tape().fork("saver"),
            save: None,
            result: None,
            next_at: None,
        })))
    }

    /// Makes a few steps beside the pipeline.
    fn go_on(&self) {
        let mut desk = self.0.borrow_mut();
        if desk.save.is_some() {
            let steps = STEPS[desk.tape.choose("saver.steps", STEPS.len() as u32) as usize];
            (0..steps).for_each(|_| desk.step());
        }
    }

    /// When the next step is over for a program that waits from `now` on.
    fn next_at(&self, now: Instant) -> Option<Instant> {
        let mut desk = self.0.borrow_mut();
        desk.save.as_ref()?;
        if desk.next_at.is_none() {
            let takes = desk.tape.choose("saver.latency", STEP_TAKES.len() as u32);
            desk.next_at = Some(now + STEP_TAKES[takes as usize]);
        }
        desk.next_at
    }

    /// Makes the step that the program waited for; whether the save is over.
    fn step(&self) -> bool {
        let mut desk = self.0.borrow_mut();
        desk.step();
        desk.save.is_none()
    }
}

impl UnderWay {
    fn step(&mut self) {
        self.next_at = None;
        let Some(save) = &mut self.save else { return };
        if let Stepped::Done(result) = save.step(&*self.fs) {
            self.save = None;
            self.result = Some(result);
        }
    }
}

impl Saver for Desk {
    fn start(&mut self, save: Save) {
        let mut desk = self.0.borrow_mut();
        assert!(desk.save.is_none(), "one save at a time");
        desk.save = Some(save);
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        self.0.borrow_mut().result.take()
    }
}

/// The broker, with a save going on beside it.
struct Stepping {
    inner: Box<dyn Broker>,
    desk: Desk,
    world: World,
}

impl Stepping {
    /// Waits for the broker; a save that ends meanwhile ends the wait.
    fn wait(&mut self, deadline: Instant) -> Option<Event> {
        loop {
            let step_at = self.desk.next_at(self.world.now());
            let until = step_at.map_or(deadline, |at| at.min(deadline));
            let event = self.inner.poll(until);
            let is_over = match step_at {
                Some(at) if at <= self.world.now() => self.desk.step(),
                _ => event.is_some() || until == deadline,
            };
            if event.is_some() || is_over || self.world.now() >= deadline || self.world.frozen() {
                return event;
            }
        }
    }
}

impl Broker for Stepping {
    fn submit(&mut self, command: Command) {
        self.inner.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.desk.go_on();
        if deadline <= self.world.now() {
            return self.inner.poll(deadline);
        }
        if self.desk.0.borrow().result.is_some() {
            // The save has just ended, and used the waker.
            return self.inner.poll(Instant::ORIGIN);
        }
        self.wait(deadline)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

/// What the save under way would make durable, known once the driver has made its step.
#[derive(Clone, Default)]
struct Claims(Rc<RefCell<Claim>>);

#[derive(Default)]
struct Claim {
    has_begun: bool,
    claimed: Option<Done>,
}

/// A saver that takes down what the program believes of its saves.
struct Claiming {
    inner: Box<dyn Saver>,
    claims: Claims,
    world: World,
    probe: Probe,
}

impl Saver for Claiming {
    fn start(&mut self, save: Save) {
        self.claims.0.borrow_mut().has_begun = true;
        self.probe.save_begins();
        self.inner.start(save);
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        let result = self.inner.poll()?;
        if self.world.frozen() {
            return Some(result);
        }
        let claimed = self.claims.0.borrow_mut().claimed.take();
        match (&result, claimed) {
            (Ok(()), Some(done)) => self.probe.saved(self.world.now(), done),
            _ => self.probe.save_failed(),
        }
        Some(result)
    }
}

/// Watches a run: takes down what its saves claim, and leaves when its world is dead.
struct Watch<'a> {
    life: &'a Life<'a>,
    claims: Claims,
}

impl Observer for Watch<'_> {
    fn notice(&mut self, _: Instant, notice: &Notice, _: &Extraction) {
        self.life.world.note("notice", || format!("{notice:?}"));
        if let Some(point) = point(notice).filter(|_| !self.life.world.frozen()) {
            self.life.probe.reach(point);
        }
    }

    fn step(&mut self, _: Instant, extraction: &Extraction) {
        if self.life.world.frozen() {
            self.life.leave();
        }
        let mut claim = self.claims.0.borrow_mut();
        if std::mem::take(&mut claim.has_begun) {
            claim.claimed = Some(Done::of(extraction.marker()));
        }
        let (progress, window) = (
            extraction.progress(),
            self.life.scenario.options.window_messages,
        );
        if progress.in_flight == 0 {
            self.life.probe.gives_up();
        }
        if progress.in_flight > window {
            let what = format!("{} in flight, the window is {window}", progress.in_flight);
            self.life.probe.violated(Guarantee::BoundedWindow, what);
        }
    }
}

const fn point(notice: &Notice) -> Option<Sometimes> {
    Some(match notice {
        Notice::Resumed { inflated_from, .. } if *inflated_from > 0 => Sometimes::SeekPoint,
        Notice::Resumed { .. } => Sometimes::Resumed,
        Notice::Completed { .. } => Sometimes::Completed,
        Notice::Announced => Sometimes::Announced,
        Notice::Disconnected { .. } => Sometimes::Disconnected,
        Notice::Unanswered { .. } => Sometimes::Unanswered,
        Notice::NotTaken { .. } => Sometimes::NotTaken,
        Notice::Blocked { .. } => Sometimes::Blocked,
        Notice::Unblocked => Sometimes::Unblocked,
        Notice::DeadLetter { .. } => Sometimes::DeadLetter,
        Notice::SaveFailed { .. } => Sometimes::SaveFailed,
        Notice::SaveRecovered => Sometimes::SaveRecovered,
        Notice::Started { .. }
        | Notice::Connected
        | Notice::Saved { .. }
        | Notice::Stopping { .. } => return None,
    })
}
