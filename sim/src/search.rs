//! Searches: run a program, crash it, look at what is left, go on from there, and judge everything.
//!
//! A search walks from one [`State`] to the next. A state is what lies between two lives: the disk
//! image that a crash left, the broker, and what the lives so far oblige the next one to. One step
//! is one life: it is lived, frozen, judged by what it did; then each disk that its crash can leave
//! is judged by what the program would go on from.
//!
//! [`exhaustive`] takes every step there is, [`seeded`] the steps that a tape draws; [`single`] takes
//! one step with each single fault.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use discogs_extractor::dump::Kind;

use crate::broker::Server;
use crate::disk::{Disk, Image, Model};
use crate::faults::Fault;
use crate::guarantee::{Guarantee, Violation};
use crate::oracles::{self, History};
use crate::place::Promise;
use crate::program::{Done, End, Exit, Life, Program, Record};
use crate::scenario::Scenario;
use crate::scene::{Delivery, Scene};
use crate::sometimes::{Reached, Sometimes, Tally};
use crate::trace::Trace;
use crate::world::{Crash, World};

pub mod exhaustive;
pub mod seeded;
pub mod shrink;
pub mod single;
pub mod sweep;

/// What lies between two lives.
#[derive(Clone, Debug)]
pub struct State {
    /// The disk.
    pub image: Image,
    /// The broker.
    pub server: Server,
    /// What the next life is obliged to.
    pub history: History,
}

impl State {
    /// Before the first life.
    pub fn first(scenario: &Scenario) -> Self {
        Self {
            image: scenario.image(),
            server: Server::new(),
            history: History::default(),
        }
    }

    /// The part of the key that all images of one crash have in common.
    fn key_besides_disk(&self) -> u64 {
        let mut key = Trace::new();
        self.server.with_stored(|stored| {
            for stored in stored {
                key.bytes(stored.message.id().as_bytes());
            }
        });
        key.bytes(format!("{:?}", self.history).as_bytes());
        key.value()
    }
}

/// The key of a state with this disk.
fn combined(key_besides_disk: u64, image: &Image) -> u64 {
    let mut key = Trace::new();
    key.number(key_besides_disk);
    for path in image.paths() {
        key.bytes(path.as_os_str().as_encoded_bytes());
    }
    for (_, bytes) in image.files() {
        key.bytes(bytes);
    }
    key.value()
}

/// What is searched.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What is crashed.
    pub program: &'a dyn Program,
    /// What it runs on.
    pub scenario: &'a Scenario,
}

/// What happens to one life from outside.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    crash: Option<Crash>,
    stop_at: Option<u64>,
}

/// A life that was lived.
struct Lived {
    exit: Exit,
    record: Record,
    disk: Disk,
    from: Done,
    was_saving: bool,
}

impl<'a> Subject<'a> {
    fn scene<'b>(&self, image: &'b Image, server: &'b Server) -> Scene<'b>
    where
        'a: 'b,
    {
        Scene {
            scenario: self.scenario,
            image,
            server,
        }
    }

    /// Lives one life in `world`, from `state` on. The state's broker is used up.
    fn live(&self, world: &World, state: &State, fate: Fate) -> Result<Lived, Violation> {
        let from = self.done(&state.image)?;
        let mut life = Life::new(self.scenario, world, &state.image, &state.server, from);
        life.stop_at = fate.stop_at;
        if let Some(crash) = fate.crash {
            world.crash(crash);
        }
        if world.life() == 1 {
            self.scenario
                .planned
                .iter()
                .for_each(|it| life.disk.fail_at(it.clone()));
        }
        let exit = life.run(self.program);
        world.freeze();
        world.note("life.ends", || {
            let saved = life.probe.record().reported;
            format!(
                "{exit:?}; {}",
                saved.map_or("nothing was saved".to_owned(), |it| format!("saved {it}"))
            )
        });
        Ok(Lived {
            exit,
            was_saving: life.probe.is_saving(),
            record: life.probe.record(),
            disk: life.disk,
            from,
        })
    }

    fn done(&self, image: &Image) -> Result<Done, Violation> {
        let unreadable = |error| Violation::new(Guarantee::WholeMarker, error);
        self.program.done(self.scenario, image).map_err(unreadable)
    }

    /// Tells in the timeline what there is between two lives: on the disk, but for the dumps, in the
    /// broker, and what the program would go on from.
    fn note_state(&self, world: &World, state: &State) {
        if !world.logs() {
            return;
        }
        let is_dump = |path: &Path| {
            Kind::ALL
                .into_iter()
                .any(|kind| path == Scenario::dump_path(kind))
        };
        for (path, bytes) in state.image.files().filter(|(path, _)| !is_dump(path)) {
            world.note("disk.holds", || {
                format!("{}, {} bytes", path.display(), bytes.len())
            });
        }
        let scene = self.scene(&state.image, &state.server);
        for kind in Kind::ALL {
            let held = scene.deliveries(kind);
            let words: Vec<_> = held.iter().map(Delivery::to_string).collect();
            world.note("broker.holds", || format!("{kind}: {}", words.join(" ")));
        }
        world.note("program.has_done", || match self.done(&state.image) {
            Ok(done) => done.to_string(),
            Err(violation) => violation.what,
        });
    }

    /// How a life broke its promises; `state` is where it began.
    fn judge_life(&self, state: &State, lived: &Lived) -> Vec<Violation> {
        let scene = self.scene(&state.image, &state.server);
        oracles::life(
            &scene,
            &state.history,
            lived.from,
            &lived.record,
            &lived.exit,
        )
    }

    /// How a state breaks the promises that hold between lives.
    fn judge_state(&self, state: &State, end: End) -> Vec<Violation> {
        let scene = self.scene(&state.image, &state.server);
        let done = match self.done(&state.image) {
            Ok(done) => done,
            Err(violation) => return vec![violation],
        };
        let mut violations = oracles::image(&scene, &state.history, done);
        let sight = oracles::sight(&state.history, end);
        violations.extend(self.program.examine(&scene, sight));
        if end != End::Open {
            violations.extend(oracles::end(&scene, &state.history));
        }
        violations
    }

    /// The points that a state shows, found after `live` was on the disk.
    fn points(&self, state: &State, live: &Image) -> Reached {
        let mut reached = Reached::default();
        if state.image != *live {
            reached.add(Sometimes::LostBytes);
        }
        if self.scenario.place.promise() == Promise::ExactlyOnce {
            let scene = self.scene(&state.image, &state.server);
            let done = self.done(&state.image).unwrap_or_default();
            for kind in Kind::ALL {
                if scene.is_torn(kind) {
                    reached.add(Sometimes::TornSpool);
                }
                let settled = scene.truth(kind).sequence(done.dump(kind).records);
                if scene.deliveries(kind).len() as u64 > settled && !done.dump(kind).is_completed {
                    reached.add(Sometimes::SpoolAhead);
                }
            }
        }
        reached
    }
}

/// What the timeline calls a broken promise.
const BROKEN: &str = "broken";

/// `violations`, told in the timeline.
fn told(world: &World, violations: Vec<Violation>) -> Vec<Violation> {
    for violation in &violations {
        world.note(BROKEN, || violation.to_string());
    }
    violations
}

/// Nothing is broken, or this is.
fn kept(violations: Vec<Violation>) -> Result<(), Vec<Violation>> {
    if violations.is_empty() {
        Ok(())
    } else {
        Err(violations)
    }
}

/// The points that a life shows.
fn points_of(state: &State, lived: &Lived, life: u32) -> Reached {
    let mut reached = lived.record.reached;
    let attempts = &lived.record.attempts;
    let is_repeat = attempts.iter().any(|message| match message.subject {
        discogs_extractor::broker::Subject::Record(ordinal) => {
            ordinal.0 <= state.history.submitted[message.route as usize]
        }
        _ => false,
    });
    let is_all_done = lived.from.dumps.iter().all(|dump| dump.is_completed);
    let is_failed = |text: &str| matches!(&lived.exit, Exit::Failed(error) if error.contains(text));
    let crashed = lived.exit == Exit::Crashed;
    let points = [
        (is_repeat, Sometimes::Repeat),
        (
            is_all_done && !attempts.is_empty() && life > 1,
            Sometimes::AnnouncedAgain,
        ),
        (lived.exit == Exit::Stopped, Sometimes::Stopped),
        (is_failed(".xml.gz: "), Sometimes::SourceFailed),
        (
            is_failed("the state could not be saved"),
            Sometimes::SaveHopeless,
        ),
        (crashed && lived.was_saving, Sometimes::CrashInSave),
        (
            crashed && !state.history.has_saved && lived.record.reported.is_none(),
            Sometimes::CrashBeforeFirstSave,
        ),
        (crashed && life > 1, Sometimes::CrashInRecovery),
    ];
    for (_, point) in points.into_iter().filter(|(is_reached, _)| *is_reached) {
        reached.add(point);
    }
    reached
}

/// A broken promise, found.
#[derive(Clone)]
pub struct Failure {
    /// What was broken.
    pub violations: Vec<Violation>,
    /// The command line of the program, if it has one.
    pub command: Option<&'static str>,
    /// The arguments that repeat it.
    pub replay: String,
    /// Those that repeat the shortest run that was found to break the same; then what is broken and
    /// what happened are of that one.
    pub shortest: Option<String>,
    /// What happened, for people.
    pub timeline: String,
}

impl Failure {
    /// The same, with the commit in the command that repeats it: a seed means another run once the
    /// draws change.
    #[must_use]
    pub fn at_commit(mut self: Box<Self>, commit: &str) -> Box<Self> {
        self.replay += &format!("  # at commit {commit}");
        self
    }
}

/// How many lines of the timeline a failure shows before something is broken, and at the end.
const LINES_SHOWN: [usize; 2] = [40, 12];

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.timeline_in_short(f)?;
        for violation in &self.violations {
            writeln!(f, "broken: {violation}")?;
        }
        let command = self.command.unwrap_or("the arguments");
        if let Some(shortest) = &self.shortest {
            writeln!(f, "the shortest run found: {command} {shortest}")?;
        }
        writeln!(f, "repeat with: {command} {}", self.replay)
    }
}

impl Failure {
    /// What led to the first broken promise, and what came of it in the end.
    fn timeline_in_short(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.timeline.lines().collect();
        let first = lines
            .iter()
            .position(|line| line.contains(&format!(" {BROKEN} ")));
        let (before, after) = lines.split_at(first.map_or(lines.len(), |first| first + 1));
        for (lines, shown) in [before, after].into_iter().zip(LINES_SHOWN) {
            let left_out = lines.len().saturating_sub(shown);
            if left_out > 0 {
                writeln!(f, "  .. {left_out} lines")?;
            }
            lines[left_out..]
                .iter()
                .try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

/// For `expect`, which shows it to people.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Failure {}

/// What a search did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Runs: seeds, or states that were gone on from.
    pub runs: u64,
    /// Lives of the process.
    pub lives: u64,
    /// Crashes of each model.
    pub crashes: [u64; Model::ALL.len()],
    /// Disk images that were judged.
    pub images: u64,
    /// Faults that fired, by kind.
    pub fired: [u64; Fault::ALL.len()],
    /// Virtual time over all lives.
    pub time: Duration,
    /// How often the points were reached: by seeds, or by lives and images of an exhaustive search.
    pub reached: Tally,
}

impl Report {
    fn add_life(&mut self, world: &World) {
        self.lives += 1;
        self.time += world.lived();
    }

    fn add_crash(&mut self, model: Model) {
        self.crashes[model as usize] += 1;
    }

    fn add_faults(&mut self, world: &World) {
        for fault in Fault::ALL {
            self.fired[fault as usize] += world.fired(fault);
        }
    }

    /// The kinds of faults that never fired.
    pub fn unfired(&self) -> impl Iterator<Item = Fault> {
        let fired = Fault::ALL.into_iter().zip(self.fired);
        fired
            .filter(|(_, count)| *count == 0)
            .map(|(fault, _)| fault)
    }

    /// Adds what another search did.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.lives += other.lives;
        self.images += other.images;
        self.time += other.time;
        self.reached.merge(&other.reached);
        let pairs = self.crashes.iter_mut().zip(other.crashes);
        pairs.for_each(|(own, other)| *own += other);
        let pairs = self.fired.iter_mut().zip(other.fired);
        pairs.for_each(|(own, other)| *own += other);
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs_f64() / 3600.0;
        writeln!(f, "runs {:>12}", self.runs)?;
        writeln!(
            f,
            "lives {:>11}, {hours:.1} hours of virtual time",
            self.lives
        )?;
        writeln!(f, "images {:>10} judged", self.images)?;
        let crashes = Model::ALL.into_iter().zip(self.crashes);
        for (model, count) in crashes.filter(|(_, count)| *count > 0) {
            writeln!(f, "crashes {count:>9} {model:?}")?;
        }
        let fired = Fault::ALL.into_iter().zip(self.fired);
        for (fault, count) in fired.filter(|(_, count)| *count > 0) {
            writeln!(f, "faults {count:>10} {fault:?}")?;
        }
        for point in Sometimes::ALL {
            let name = if self.reached.has(point) {
                "reached"
            } else {
                "NEVER"
            };
            let (count, words) = (self.reached.count(point), point.words());
            writeln!(f, "{name:<7} {count:>9} {words}")?;
        }
        Ok(())
    }
}
