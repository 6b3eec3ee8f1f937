//! Planted bugs: the proof that the searches and oracles have teeth.
//!
//! Each [`Bug`] is a program that is wrong in one way, with the search that has to find it and the
//! guarantees of which it has to break one. Bugs like these have happened in public systems. They are
//! planted by wrapping what the product is given (see [`crate::extractor::Seams`]), so the product has
//! no code for them.
//!
//! The proof has two halves: every bug is found, and the product survives every search that found
//! one. A third is the test of the simulator itself: a world that is kinder than the real one
//! ([`mutants`]) lets some bug through, so each way in which the simulated one is harsh is needed.
//!
//! And there is the [`CANARY`]: a seed that has to fail, the same in every run of CI, so that a
//! harness that can't fail any more is noticed.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::disk::{Failure as DiskFailure, Image, Model, Operation, Planned};
use crate::extractor::{Extractor, Seams};
use crate::guarantee::{Guarantee, Violation};
use crate::place::Place;
use crate::program::{Done, Exit, Life, Physics, Program, Sight};
use crate::scenario::{Dumps, Scenario, Shape};
use crate::scene::Scene;
use crate::search::{Failure, Subject, exhaustive, seeded, single};

mod broker;
mod file_system;
pub mod mutants;
mod state;
mod tamper;

/// A program that is wrong in one way.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub what: &'static str,
    /// What has to find it.
    pub search: Search,
    /// What it has to break one of.
    pub breaks: &'static [Guarantee],
    /// How it is planted.
    seams: Seams,
}

impl Bug {
    /// The product with this bug.
    pub const fn program(&self) -> Extractor {
        Extractor { seams: self.seams }
    }
}

/// All bugs.
pub fn catalogue() -> Vec<Bug> {
    [broker::bugs(), state::bugs(), file_system::bugs()].concat()
}

/// The bug of a name.
pub fn find(name: &str) -> Option<Bug> {
    catalogue().into_iter().find(|bug| bug.name == name)
}

/// The bug and the seed that fail in every run of CI. Four seeds of five find this bug; when a change
/// of what is drawn makes this one pass, it is to be replaced.
pub const CANARY: (&str, u64) = ("checkpoint-before-confirm", 12);

/// A search with its budget: what it goes through is all that it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Search {
    /// Every crash of a run, so many deep, with every disk of the model; without a crash if 0.
    Crashes(Run, Model, usize),
    /// Every single fault of the broker in a run.
    SingleFaults(Run),
    /// So many seeds, from 0 on.
    Seeds(u64),
}

/// A small run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    place: &'static dyn Place,
    records: u64,
    interval: u64,
    window: usize,
    shape: Shape,
    /// A disk operation that fails: on which file, and which of these operations, from 1.
    fails: Option<(Operation, &'static str, u32)>,
}

impl Run {
    const fn new(place: &'static dyn Place, records: u64, interval: u64, window: usize) -> Self {
        Self {
            place,
            records,
            interval,
            window,
            shape: Shape::Whole,
            fails: None,
        }
    }

    const fn shaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    const fn failing(self, operation: Operation, path: &'static str, nth: u32) -> Self {
        Self {
            fails: Some((operation, path, nth)),
            ..self
        }
    }

    /// What is run.
    pub fn scenario(&self) -> Scenario {
        let dumps = Dumps::new(self.records);
        let scenario = Scenario::new(&dumps, self.place, self.interval, self.window);
        let mut scenario = scenario.shaped(self.shape);
        let planned = |(operation, path, nth): (_, &str, _)| Planned {
            operation,
            path: path.to_owned(),
            nth,
            failure: DiskFailure::Io,
        };
        scenario.planned.extend(self.fails.map(planned));
        scenario
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            records,
            interval,
            window,
            ..
        } = self;
        write!(f, "{} {records}/{interval}/{window}", place.name())?;
        match self.shape {
            Shape::Whole => {}
            Shape::TwoMembers => f.write_str(", two members")?,
            Shape::RootOpen => f.write_str(", root open")?,
            Shape::WrongChecksum => f.write_str(", wrong checksum")?,
        }
        match self.fails {
            Some((operation, _, nth)) => write!(f, ", {} {nth} fails", operation.name()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashes(run, _, 0) => write!(f, "a run ({run})"),
            Self::Crashes(run, model, depth) => {
                write!(f, "crashes, {depth} deep, {model:?} ({run})")
            }
            Self::SingleFaults(run) => write!(f, "single faults ({run})"),
            Self::Seeds(count) => write!(f, "{count} seeds"),
        }
    }
}

/// How much a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Seeds that were run.
    pub seeds: u64,
    /// Lives of the process.
    pub lives: u64,
    /// Disk images that were judged.
    pub images: u64,
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seeds > 0 {
            write!(f, "{} seeds, ", self.seeds)?;
        }
        write!(f, "{} lives, {} images", self.lives, self.images)
    }
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was done until something was broken, or to the end.
    pub effort: Effort,
    /// What was broken, if anything was.
    pub failure: Option<Box<Failure>>,
}

impl Finding {
    /// The guarantees that were broken.
    pub fn broken(&self) -> Vec<Guarantee> {
        let violations = self.failure.iter().flat_map(|failure| &failure.violations);
        let mut broken: Vec<_> = violations.map(|violation| violation.guarantee).collect();
        broken.sort();
        broken.dedup();
        broken
    }

    /// Whether the bug was found by something that it had to break.
    pub fn is_expected(&self, bug: &Bug) -> bool {
        self.broken().iter().any(|it| bug.breaks.contains(it))
    }
}

impl Search {
    /// Searches a program.
    pub fn run(self, program: &Extractor) -> Finding {
        self.run_in(program, Physics::default())
    }

    /// Searches a program in a world that is not as it should be.
    fn run_in(self, program: &Extractor, physics: Physics) -> Finding {
        let subject = Counted::new(program, physics);
        let (seeds, failure) = match self {
            Self::Seeds(count) => first_failure(&subject, count),
            Self::Crashes(run, model, depth) => {
                let scenario = run.scenario();
                let result = exhaustive::search(subject.on(&scenario), model, depth);
                (0, result.err())
            }
            Self::SingleFaults(run) => {
                let scenario = run.scenario();
                (0, single::search(subject.on(&scenario)).err())
            }
        };
        Finding {
            effort: Effort {
                seeds,
                ..subject.effort()
            },
            failure,
        }
    }

    /// Searches a bug; what is found is repeated by the bug's name.
    pub fn find(self, bug: &Bug) -> Finding {
        let mut finding = self.run(&bug.program());
        if let Some(failure) = &mut finding.failure {
            failure.replay = match self {
                Self::Seeds(_) => format!("{} --bug {}", failure.replay, bug.name),
                _ => format!("bugs {}", bug.name),
            };
        }
        finding
    }
}

fn first_failure(program: &dyn Program, count: u64) -> (u64, Option<Box<Failure>>) {
    let scenarios = seeded::Scenarios::default();
    for seed in 0..count {
        if let Err(failure) = seeded::seed(program, &scenarios, seed) {
            return (seed + 1, Some(failure));
        }
    }
    (count, None)
}

/// Runs the canary.
///
/// # Errors
///
/// What it broke. It must be something.
pub fn canary() -> Result<(), Box<Failure>> {
    let (name, seed) = CANARY;
    let bug = find(name).expect("the canary is in the catalogue");
    let found = seeded::seed(&bug.program(), &seeded::Scenarios::default(), seed);
    found.map(drop).map_err(|mut failure| {
        failure.replay = format!("{} --bug {name}", failure.replay);
        failure
    })
}

/// A program in a world of its own, whose lives and images are counted. What a search repeats to
/// show it is not.
struct Counted<'a> {
    program: &'a Extractor,
    physics: Physics,
    is_repeat: AtomicBool,
    lives: AtomicU64,
    images: AtomicU64,
}

impl<'a> Counted<'a> {
    fn new(program: &'a Extractor, physics: Physics) -> Self {
        Self {
            program,
            physics,
            is_repeat: AtomicBool::new(false),
            lives: AtomicU64::new(0),
            images: AtomicU64::new(0),
        }
    }

    fn on<'b>(&'b self, scenario: &'b Scenario) -> Subject<'b> {
        Subject {
            program: self,
            scenario,
        }
    }

    fn effort(&self) -> Effort {
        Effort {
            seeds: 0,
            lives: self.lives.load(Ordering::Relaxed),
            images: self.images.load(Ordering::Relaxed),
        }
    }
}

impl Program for Counted<'_> {
    fn live(&self, life: &Life<'_>) -> Exit {
        let is_repeat = life.world.logs();
        self.is_repeat.store(is_repeat, Ordering::Relaxed);
        self.lives
            .fetch_add(u64::from(!is_repeat), Ordering::Relaxed);
        self.program.live(&life.with_physics(self.physics))
    }

    fn done(&self, scenario: &Scenario, image: &Image) -> Result<Done, String> {
        self.program.done(scenario, image)
    }

    fn command(&self) -> Option<&'static str> {
        self.program.command()
    }

    fn examine(&self, scene: &Scene<'_>, sight: Sight) -> Vec<Violation> {
        let is_repeat = self.is_repeat.load(Ordering::Relaxed);
        self.images
            .fetch_add(u64::from(!is_repeat), Ordering::Relaxed);
        self.program.examine(scene, sight)
    }
}

/// The searches of all bugs, each once.
pub fn searches() -> Vec<Search> {
    let mut searches: Vec<_> = catalogue().into_iter().map(|bug| bug.search).collect();
    searches.sort();
    searches.dedup();
    let of_seeds = |search: &Search| matches!(search, Search::Seeds(_));
    // The same seeds, from 0 on: the most of them hold the others.
    let most = searches.iter().copied().filter(of_seeds).max();
    searches.retain(|search| !of_seeds(search) || Some(*search) == most);
    searches
}

/// Does `work` on each of `items`, `jobs` at the same time; the results are in the items' order.
///
/// # Panics
///
/// If `work` does.
pub fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    let mut results = results.lock().expect("no other thread has panicked");
                    results.push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no thread has panicked");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
