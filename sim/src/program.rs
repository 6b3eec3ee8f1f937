//! What can be crashed: the product, a copy of it with a planted bug, or somebody's own.
//!
//! A [`Program`] says two things: how it lives one life, from the start of the process to its exit,
//! and what it would go on from if it started on a given disk. The first is run and crashed by a
//! search, the second is what the oracles judge every disk image by.
//!
//! A life gets everything from its [`Life`]: time, disk, broker, and the [`Probe`] that takes down
//! what the program claims. The broker is [recorded](Life::broker) on the way: which messages were
//! submitted, which were confirmed, and what was unsaved whenever the program waited. So what the
//! program says of itself can be compared with what it did.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use discogs_extractor::broker::{Broker, Command, Event, Message, Subject, Tag, Waker};
use discogs_extractor::dump::Kind;
use discogs_extractor::fs::FileSystem;
use discogs_extractor::time::{Clock, Instant};

use crate::broker::Server;
use crate::clock::VirtualClock;
use crate::disk::{Disk, Image};
use crate::guarantee::{Guarantee, Violation};
use crate::scenario::{Scenario, Truth};
use crate::scene::Scene;
use crate::sometimes::{Reached, Sometimes};
use crate::world::World;

/// Operations in one life; a life that makes more goes round in circles.
pub const OPERATIONS_MAX: u64 = 50_000;

/// The longest life in virtual time.
pub const LIFE_MAX: Duration = Duration::from_secs(12 * 3600);

/// What can be crashed.
pub trait Program: Sync {
    /// Lives one life, from the start of the process to its exit. It must end soon after
    /// [`World::frozen`]: by returning, or by [`Life::leave`].
    fn live(&self, life: &Life) -> Exit;

    /// What it would go on from if it started on this disk.
    ///
    /// # Errors
    ///
    /// The state can't be read, in words.
    fn done(&self, scenario: &Scenario, image: &Image) -> Result<Done, String>;

    /// The command line that runs it, before the arguments of `replay`; none if there is no such.
    fn command(&self) -> Option<&'static str> {
        None
    }

    /// What else must hold of its files on every disk that a crash can leave.
    fn examine(&self, _scene: &Scene<'_>, _sight: Sight) -> Vec<Violation> {
        Vec::new()
    }
}

/// When a disk is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Whether a save was reported, and nothing has damaged it since.
    pub has_saved: bool,
    /// Whether the disk itself has damaged a file.
    pub is_rotten: bool,
    /// Whether it is the end.
    pub end: End,
}

/// Whether and how a run has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Open,
    /// The last life ended complete.
    Complete,
    /// The last life ended complete by a save, and nothing failed in it.
    Clean,
}

impl End {
    /// How a life has ended, in which nothing failed if it was `faultless`.
    pub fn of(exit: &Exit, record: &Record, faultless: bool) -> Self {
        match exit {
            Exit::Complete if faultless && record.reported.is_some() => Self::Clean,
            Exit::Complete => Self::Complete,
            _ => Self::Open,
        }
    }
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything is published, announced and saved.
    Complete,
    /// On request; the next life goes on.
    Stopped,
    /// By an error that was told.
    Failed(String),
    /// By the death of its world.
    Crashed,
    /// By a panic.
    Panicked(String),
}

/// How far one dump is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DumpDone {
    /// Records that are regarded as settled.
    pub records: u64,
    /// Whether the dump is never looked at again.
    pub is_completed: bool,
}

/// What a program goes on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Done {
    /// By kind, in the order of [`Kind::ALL`].
    pub dumps: [DumpDone; Kind::ALL.len()],
    /// Whether the end of the version is regarded as announced.
    pub is_announced: bool,
}

impl Done {
    /// How far the dump of a kind is.
    pub const fn dump(&self, kind: Kind) -> DumpDone {
        self.dumps[kind as usize]
    }

    /// The further of the two everywhere.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Self {
        for (own, other) in self.dumps.iter_mut().zip(&other.dumps) {
            own.records = own.records.max(other.records);
            own.is_completed |= other.is_completed;
        }
        self.is_announced |= other.is_announced;
        self
    }

    /// Whether this is at least as far as `other` everywhere.
    pub fn covers(&self, other: &Self) -> bool {
        let pairs = self.dumps.iter().zip(&other.dumps);
        let mut covered = pairs.map(|(own, other)| {
            own.records >= other.records && own.is_completed >= other.is_completed
        });
        self.is_announced >= other.is_announced && covered.all(|covers| covers)
    }
}

/// In words, for a timeline.
impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, dump) in Kind::ALL.into_iter().zip(self.dumps) {
            let completed = if dump.is_completed { ", completed" } else { "" };
            write!(f, "{kind} up to {}{completed}; ", dump.records)?;
        }
        f.write_str(match self.is_announced {
            true => "announced",
            false => "not announced",
        })
    }
}

/// What a life has.
pub struct Life<'a> {
    /// Time, chance and death.
    pub world: World,
    /// The disk.
    pub disk: Disk,
    /// The simulated RabbitMQ; unused if the spool takes the messages.
    pub server: Server,
    /// What is run.
    pub scenario: &'a Scenario,
    /// Takes down what the program claims.
    pub probe: Probe,
    /// Whether somebody wants the run to stop.
    pub stop: Arc<AtomicBool>,
    /// After how many operations somebody wants that.
    pub stop_at: Option<u64>,
    /// What stands between the program and the world.
    pub physics: Physics,
}

/// What stands between the program and the disk and broker: nothing, unless the simulator itself is
/// put to the test ([`crate::bugs::mutants`]).
#[derive(Clone, Copy)]
pub struct Physics {
    /// The disk as the program meets it.
    pub file_system: fn(Arc<dyn FileSystem>) -> Arc<dyn FileSystem>,
    /// The simulated RabbitMQ as the program meets it.
    pub broker: fn(Box<dyn Broker>, VirtualClock) -> Box<dyn Broker>,
}

impl Default for Physics {
    /// The world as it is.
    fn default() -> Self {
        Self {
            file_system: |it| it,
            broker: |it, _| it,
        }
    }
}

/// What a panic carries that only leaves a dead world.
struct Dead;

impl<'a> Life<'a> {
    /// A life that finds `image` and `server`, and goes on from `done`.
    pub fn new(
        scenario: &'a Scenario,
        world: &World,
        image: &Image,
        server: &Server,
        done: Done,
    ) -> Self {
        let disk = Disk::mount(world, image);
        let truths = |kind| scenario.variant(image, kind);
        Self {
            disk,
            world: world.clone(),
            server: server.clone(),
            scenario,
            probe: Probe::new(done, Kind::ALL.map(truths)),
            stop: Arc::default(),
            stop_at: None,
            physics: Physics::default(),
        }
    }

    /// The same life with something between the program and the world.
    #[must_use]
    pub fn with_physics(&self, physics: Physics) -> Self {
        Self {
            world: self.world.clone(),
            disk: self.disk.clone(),
            server: self.server.clone(),
            scenario: self.scenario,
            probe: self.probe.clone(),
            stop: Arc::clone(&self.stop),
            stop_at: self.stop_at,
            physics,
        }
    }

    /// The disk as the product sees it.
    pub fn file_system(&self) -> Arc<dyn FileSystem> {
        (self.physics.file_system)(Arc::new(self.disk.clone()))
    }

    /// The broker of the scenario, recorded; `fs` is what it may keep files on.
    pub fn broker(&self, fs: &Arc<dyn FileSystem>) -> Box<dyn Broker> {
        let inner = self.scenario.place.open(self, fs);
        Box::new(Recorded {
            inner,
            world: self.world.clone(),
            probe: self.probe.clone(),
            scenario: self.scenario.clone(),
            stop: Arc::clone(&self.stop),
            stop_at: self.stop_at,
            after_stop: 0,
        })
    }

    /// Ends the life of a program whose world is dead: a panic that [`Self::run`] catches. Nothing
    /// that is dropped on the way has any effect.
    pub fn leave(&self) -> ! {
        resume_unwind(Box::new(Dead))
    }

    /// Lets a program live this life.
    pub fn run(&self, program: &dyn Program) -> Exit {
        let lived = catch_unwind(AssertUnwindSafe(|| program.live(self)));
        if self.world.frozen() {
            return match lived {
                Err(panic) if !panic.is::<Dead>() => Exit::Panicked(message(&*panic)),
                _ => Exit::Crashed,
            };
        }
        lived.unwrap_or_else(|panic| {
            self.world.freeze();
            Exit::Panicked(message(&*panic))
        })
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// Takes down what a program claims and does in one life. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Probe(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What the life went on from.
    from: Done,
    variants: [usize; Kind::ALL.len()],
    record: RefCell<Record>,
    is_saving: Cell<bool>,
    is_failing: Cell<bool>,
    saved_at: Cell<Instant>,
}

/// What was taken down.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// What was reported as saved last, if anything was.
    pub reported: Option<Done>,
    /// Saves that failed.
    pub saves_failed: u64,
    /// Every message that was submitted, in order, repeats included.
    pub attempts: Vec<Arc<Message>>,
    /// The most messages without an answer.
    pub in_flight_max: usize,
    /// What users were warned of at the start.
    pub warnings: Vec<String>,
    /// Promises that were broken on the way.
    pub violations: Vec<Violation>,
    /// Whether the search ended the life because it went on and on.
    pub is_endless: bool,
    /// The points that were reached.
    pub reached: Reached,
    /// What is without an answer, as far as the program waits for one.
    sent: BTreeMap<Tag, Arc<Message>>,
    /// By kind, how far records are confirmed without a gap.
    frontier: [u64; Kind::ALL.len()],
    beyond: [BTreeSet<u64>; Kind::ALL.len()],
}

impl Probe {
    fn new(from: Done, variants: [usize; Kind::ALL.len()]) -> Self {
        let record = Record {
            frontier: from.dumps.map(|dump| dump.records),
            ..Record::default()
        };
        Self(Rc::new(Inner {
            from,
            variants,
            record: RefCell::new(record),
            is_saving: Cell::new(false),
            is_failing: Cell::new(false),
            saved_at: Cell::new(Instant::ORIGIN),
        }))
    }

    /// A save begins. Whoever saves without telling, saves at once.
    pub fn save_begins(&self) {
        self.0.is_saving.set(true);
    }

    /// The program takes this for saved from now on.
    pub fn saved(&self, now: Instant, done: Done) {
        self.0.is_saving.set(false);
        self.0.is_failing.set(false);
        self.0.saved_at.set(now);
        self.0.record.borrow_mut().reported = Some(done);
    }

    /// A save failed, and the program knows.
    pub fn save_failed(&self) {
        self.0.is_saving.set(false);
        self.0.is_failing.set(true);
        self.0.record.borrow_mut().saves_failed += 1;
    }

    /// The program does not wait for answers any more: one that still comes means nothing to it.
    pub fn gives_up(&self) {
        self.0.record.borrow_mut().sent.clear();
    }

    /// The user was warned.
    pub fn warned(&self, warnings: &[String]) {
        self.0
            .record
            .borrow_mut()
            .warnings
            .extend_from_slice(warnings);
    }

    /// A point was reached.
    pub fn reach(&self, point: Sometimes) {
        self.0.record.borrow_mut().reached.add(point);
    }

    /// A promise was broken.
    pub fn violated(&self, guarantee: Guarantee, what: impl Into<String>) {
        let violation = Violation::new(guarantee, what);
        self.0.record.borrow_mut().violations.push(violation);
    }

    /// What the life went on from.
    pub fn from(&self) -> Done {
        self.0.from
    }

    /// Whether a save is under way.
    pub fn is_saving(&self) -> bool {
        self.0.is_saving.get()
    }

    /// What was taken down so far.
    pub fn record(&self) -> Record {
        self.0.record.borrow().clone()
    }
}

impl Record {
    /// A record is settled at the broker.
    fn settles(&mut self, kind: Kind, ordinal: u64, truth: &Truth) {
        let (frontier, beyond) = (
            &mut self.frontier[kind as usize],
            &mut self.beyond[kind as usize],
        );
        beyond.insert(ordinal);
        let mut next = *frontier + 1;
        while next <= truth.records() && (truth.message(next).is_none() || beyond.contains(&next)) {
            // What is skipped counts once something behind it is settled: only then it was read.
            if beyond.remove(&next) {
                *frontier = next;
            }
            next += 1;
        }
    }

    /// Records that are settled and not saved.
    fn lag(&self, from: Done) -> u64 {
        let saved = self.reported.unwrap_or(from).dumps.map(|dump| dump.records);
        let pairs = self.frontier.iter().zip(saved);
        pairs
            .map(|(settled, saved)| settled.saturating_sub(saved))
            .sum()
    }
}

/// A broker that is watched.
struct Recorded {
    inner: Box<dyn Broker>,
    world: World,
    probe: Probe,
    scenario: Scenario,
    stop: Arc<AtomicBool>,
    stop_at: Option<u64>,
    /// Messages submitted after somebody wanted the run to stop.
    after_stop: usize,
}

impl Recorded {
    fn submitted(&mut self, tag: Tag, message: &Arc<Message>) {
        self.after_stop += usize::from(self.stop.load(Ordering::Relaxed));
        let window = self.scenario.options.window_messages;
        if self.after_stop == window + 1 {
            let what = format!("more than a window of {window} was published after the request");
            self.probe.violated(Guarantee::Stops, what);
        }
        let mut record = self.probe.0.record.borrow_mut();
        record.attempts.push(Arc::clone(message));
        record.sent.insert(tag, Arc::clone(message));
        record.in_flight_max = record.in_flight_max.max(record.sent.len());
    }

    fn told(&mut self, event: &Event) {
        if let Event::Refused(..) = event {
            self.probe.reach(Sometimes::Refused);
        }
        match event {
            Event::Confirmed(tag) | Event::Refused(tag, _) => self.settled(*tag),
            Event::Rejected(tag, _) | Event::Returned(tag, _) => _ = self.answered(*tag),
            Event::Disconnected(..) => self.probe.gives_up(),
            Event::Connected(_) | Event::Blocked(_) | Event::Unblocked => {}
        }
    }

    fn answered(&self, tag: Tag) -> Option<Arc<Message>> {
        self.probe.0.record.borrow_mut().sent.remove(&tag)
    }

    fn settled(&mut self, tag: Tag) {
        let Some(message) = self.answered(tag) else {
            return;
        };
        if let Subject::Record(ordinal) = message.subject {
            let kind = message.route;
            let variant = self.probe.0.variants[kind as usize];
            let truth = self.scenario.variant_truth(kind, variant);
            self.probe
                .0
                .record
                .borrow_mut()
                .settles(kind, ordinal.0, truth);
        }
    }

    /// The program waits: everything that it wanted to do is done, so what is unsaved now stays
    /// unsaved until the deadline.
    fn waits(&self, deadline: Instant) {
        let probe = &self.probe.0;
        if probe.is_saving.get() || probe.is_failing.get() {
            return;
        }
        let lag = probe.record.borrow().lag(probe.from);
        let save = self.scenario.options.save;
        if lag >= save.interval {
            let what = format!("{lag} records are confirmed and not saved when the program waits");
            self.probe.violated(Guarantee::BoundedLag, what);
        }
        let latest = probe.saved_at.get() + save.age_max + Duration::from_secs(1);
        if lag > 0 && deadline > latest {
            let what = format!("{lag} records stay unsaved until {deadline}, longer than allowed");
            self.probe.violated(Guarantee::BoundedLag, what);
        }
    }

    /// Ends a life that goes on and on, and asks it to stop when its time has come.
    fn interfere(&self) {
        let operations = self.world.operations();
        if self.stop_at.is_some_and(|at| at <= operations) {
            self.stop.store(true, Ordering::Relaxed);
        }
        let is_endless = operations > OPERATIONS_MAX || self.world.lived() > LIFE_MAX;
        if is_endless && !self.world.frozen() {
            self.probe.0.record.borrow_mut().is_endless = true;
            self.world.freeze();
        }
    }
}

impl Broker for Recorded {
    fn submit(&mut self, command: Command) {
        match &command {
            Command::Publish(tag, message) => self.submitted(*tag, message),
            // What has no answer is given up: one that still comes means nothing to the program.
            Command::Disconnect => self.probe.gives_up(),
            Command::Connect(_) => {}
        }
        self.inner.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        if deadline > self.world.clock().now() && !self.world.frozen() {
            self.waits(deadline);
        }
        let event = self.inner.poll(deadline);
        if let Some(event) = &event {
            self.told(event);
        }
        self.interfere();
        event
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}
