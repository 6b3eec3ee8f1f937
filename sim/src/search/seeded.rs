//! The seeded search: long runs with swarms of faults, as the tape draws them.
//!
//! A run has two phases. In the **safety** phase there are a few lives with faults; each ends by
//! itself, by a stop request, or by a crash, which leaves a disk of a drawn model. Between two lives
//! a dump may be replaced by another one of the same name, and the disk may flip a bit of the state
//! marker. In the **liveness** phase there are no faults any more, and one life must end complete, in
//! a bounded time.
//!
//! Everything is drawn from one tape, so a run is repeated by its seed or by its recording; all
//! zeros is a small run in which nothing goes wrong.
//!
//! # What damage excuses
//!
//! When the disk has flipped a bit of the marker, what was reported is allowed to be lost, back to
//! the previous generation or to the start, if the user is warned; it must never be ahead. When a dump
//! has other bytes than before, or everything is begun again, what was done of it counts no more, and
//! its end is announced as that of another extraction.

use std::path::Path;
use std::time::Duration;

use discogs_extractor::dump::Kind;

use crate::disk::{Disk, Image, Model, Operation};
use crate::faults::{Fault, Faults};
use crate::guarantee::{Guarantee, Violation};
use crate::oracles::History;
use crate::place::{self, Place};
use crate::program::{Done, DumpDone, End, Exit, Program};
use crate::scenario::{Dumps, Scenario, VARIANTS};
use crate::search::shrink::shrink;
use crate::search::{Failure, Fate, Lived, Report, State, Subject, points_of, told};
use crate::sometimes::{Reached, Sometimes};
use crate::tape::Tape;
use crate::world::{Crash, Moment, World};

/// The longest that a life without faults may take. An alarm of five minutes may still be on.
const LIVENESS_MAX: Duration = Duration::from_secs(30 * 60);

/// The scenarios that seeds draw from; the dumps are made once.
#[derive(Debug)]
pub struct Scenarios {
    dumps: Vec<Dumps>,
    places: Vec<&'static dyn Place>,
}

/// Records of each dump, by scenario.
const RECORDS: [u64; 5] = [3, 1, 8, 20, 60];

impl Default for Scenarios {
    fn default() -> Self {
        Self::with(place::ALL.into())
    }
}

impl Scenarios {
    /// Scenarios with these places.
    ///
    /// # Panics
    ///
    /// A seed does, if there is none.
    pub fn with(places: Vec<&'static dyn Place>) -> Self {
        Self {
            dumps: RECORDS.map(Dumps::new).into(),
            places,
        }
    }

    fn draw(&self, tape: &Tape) -> Scenario {
        let tape = tape.fork("scenario");
        let choose = |label, n: usize| tape.choose(label, n as u32) as usize;
        let dumps =
            &self.dumps[tape.choose_weighted("scenario.records", &[4, 2, 4, 3, 1]) as usize];
        let place = self.places[choose("scenario.broker", self.places.len())];
        let interval = [2, 1, 3, 5, 10][choose("scenario.interval", 5)];
        let window = [2, 1, 3, 4, 8][choose("scenario.window", 5)];
        let mut scenario = Scenario::new(dumps, place, interval, window);
        scenario.buffer_bytes = [64, 1, 17, 4096][choose("scenario.buffer", 4)];
        scenario.spool.segment_bytes_max = [400, 1, 100_000][choose("scenario.segment", 3)];
        scenario.spool.commit_messages_max = [3, 1, 1000][choose("scenario.commit", 3)];
        scenario
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What was broken; empty if all is well.
    pub violations: Vec<Violation>,
    /// What happened.
    pub report: Report,
    /// The hash over everything that happened.
    pub trace_hash: u64,
    /// What happened, for people; empty if no timeline was kept.
    pub timeline: String,
}

/// Runs what `tape` draws.
pub fn run(program: &dyn Program, scenarios: &Scenarios, tape: &Tape, is_logged: bool) -> Outcome {
    let scenario = scenarios.draw(tape);
    let faults = Faults::swarm(tape);
    let world = match is_logged {
        true => World::logged(tape.clone(), faults),
        false => World::new(tape.clone(), faults),
    };
    world.note("scenario", || {
        format!(
            "{} {:?}",
            scenario.arguments(),
            faults.kinds().collect::<Vec<_>>()
        )
    });
    let mut run = Run {
        subject: Subject {
            program,
            scenario: &scenario,
        },
        tape: tape.fork("search"),
        faults,
        state: State::first(&scenario),
        world,
        report: Report::default(),
        reached: Reached::default(),
        forgiven: None,
    };
    let violations = run.both_phases().err().unwrap_or_default();
    let violations = told(&run.world, violations);
    run.report.runs = 1;
    run.report.reached.add(run.reached);
    run.report.add_faults(&run.world);
    Outcome {
        violations,
        report: run.report,
        trace_hash: run.world.trace_hash(),
        timeline: run.world.timeline(),
    }
}

/// Runs one seed.
///
/// # Errors
///
/// The first broken promise.
pub fn seed(
    program: &dyn Program,
    scenarios: &Scenarios,
    seed: u64,
) -> Result<Report, Box<Failure>> {
    judged(program, scenarios, seed).map(|outcome| outcome.report)
}

/// Runs one seed, and gives all that it came to if nothing was broken.
pub(super) fn judged(
    program: &dyn Program,
    scenarios: &Scenarios,
    seed: u64,
) -> Result<Outcome, Box<Failure>> {
    let outcome = run(program, scenarios, &Tape::seeded(seed), false);
    if outcome.violations.is_empty() {
        return Ok(outcome);
    }
    let logged = run(program, scenarios, &Tape::seeded(seed), true);
    Err(Box::new(Failure {
        violations: logged.violations,
        command: program.command(),
        replay: format!("replay --seed {seed}"),
        shortest: None,
        timeline: logged.timeline,
    }))
}

/// The most runs that make a failure short: a few seconds.
const SHRINK_RUNS_MAX: usize = 4_000;

/// The longest tape that is shown: more numbers are no help for people, nor on a command line.
const TAPE_SHOWN_MAX: usize = 1_000;

/// What is left of the failure of a seed when its tape is made short: as few choices as it takes to
/// break the same promise first. The seed's own failure if it has none.
pub fn shrunk(
    program: &dyn Program,
    scenarios: &Scenarios,
    seed: u64,
    failure: Box<Failure>,
) -> Box<Failure> {
    let first = |violations: &[Violation]| violations.first().map(|it| it.guarantee);
    let expected = first(&failure.violations);
    let recording = {
        let tape = Tape::seeded(seed);
        run(program, scenarios, &tape, false);
        tape.recording()
    };
    let shortest = shrink(recording, SHRINK_RUNS_MAX, |numbers| {
        let tape = Tape::recorded(numbers.to_vec());
        let outcome = run(program, scenarios, &tape, false);
        (first(&outcome.violations) == expected).then(|| tape.recording())
    });
    if shortest.len() > TAPE_SHOWN_MAX {
        return failure;
    }
    let logged = run(program, scenarios, &Tape::recorded(shortest.clone()), true);
    let numbers: Vec<_> = shortest.iter().map(u32::to_string).collect();
    Box::new(Failure {
        violations: logged.violations,
        shortest: Some(format!("replay --tape {}", numbers.join(","))),
        timeline: logged.timeline,
        ..*failure
    })
}

type Broken = Vec<Violation>;

/// One run.
struct Run<'a> {
    subject: Subject<'a>,
    tape: Tape,
    faults: Faults,
    state: State,
    /// The world of the life at hand, or of the last one.
    world: World,
    report: Report,
    reached: Reached,
    /// What was reported before the disk damaged it; the next life has to tell.
    forgiven: Option<Done>,
}

impl Run<'_> {
    fn both_phases(&mut self) -> Result<(), Broken> {
        let lives = 1 + self.tape.choose("search.lives", 4);
        for _ in 0..lives {
            self.safety_life()?;
            self.world = self.world.next_life(self.faults);
            self.meanwhile()?;
        }
        self.world = self.world.next_life(Faults::none());
        self.liveness_life()
    }

    /// A life with faults, perhaps with a crash, and the disk that it leaves.
    fn safety_life(&mut self) -> Result<(), Broken> {
        let fate = self.fate();
        let before = Fault::ALL.map(|fault| self.world.fired(fault));
        let lived = self.live(fate)?;
        self.fails_for_a_reason(&lived, before)?;
        let model = self.model();
        if lived.exit == Exit::Crashed {
            self.report.add_crash(model);
        }
        let image = lived.disk.image(model, &self.tape);
        let live = lived.disk.live();
        let end = End::of(&lived.exit, &lived.record, false);
        self.goes_on(&lived, image);
        self.reached.merge(self.subject.points(&self.state, &live));
        self.judge(end)
    }

    /// Without faults, a run ends complete; unless the broker refuses a message that announces an
    /// end, for ever: then it ends by an error that says so.
    fn liveness_life(&mut self) -> Result<(), Broken> {
        let lived = self.live(Fate::default())?;
        let refuses = self.refuses_an_end();
        let is_right = match &lived.exit {
            Exit::Complete => true,
            Exit::Failed(error) => refuses && error.contains("was refused"),
            _ => false,
        };
        let took = self.world.lived();
        if !is_right || took > LIVENESS_MAX {
            let what = format!("without faults it ended as {:?} after {took:?}", lived.exit);
            return Err(vec![Violation::new(Guarantee::Ends, what)]);
        }
        let end = End::of(&lived.exit, &lived.record, true);
        for image in lived.disk.images(Model::Full, 64).images {
            self.goes_on(&lived, image);
            self.judge(end)?;
        }
        Ok(())
    }

    fn refuses_an_end(&self) -> bool {
        let State { image, server, .. } = &self.state;
        self.subject.scene(image, server).refuses_an_end()
    }

    fn live(&mut self, fate: Fate) -> Result<Lived, Broken> {
        let lived = self
            .subject
            .live(&self.world, &self.state, fate)
            .map_err(|it| vec![it])?;
        self.report.add_life(&self.world);
        self.reached
            .merge(points_of(&self.state, &lived, self.world.life()));
        let mut violations = self.subject.judge_life(&self.state, &lived);
        violations.extend(self.told_damage(&lived));
        if violations.is_empty() {
            Ok(lived)
        } else {
            Err(violations)
        }
    }

    /// A life that goes on from less than was reported has told so, or could not even begin.
    fn told_damage(&mut self, lived: &Lived) -> Option<Violation> {
        let forgiven = self.forgiven?;
        let is_told = !lived.record.warnings.is_empty();
        let has_begun = is_told || !lived.record.attempts.is_empty();
        if has_begun {
            self.forgiven = None;
        }
        let is_silent = has_begun && !is_told && !lived.from.covers(&forgiven);
        is_silent.then(|| {
            let what = format!(
                "{forgiven:?} was reported, it went on from {:?} silently",
                lived.from
            );
            Violation::new(Guarantee::ToldDamage, what)
        })
    }

    /// An error has a cause that fired in this life, and is told.
    fn fails_for_a_reason(
        &self,
        lived: &Lived,
        before: [u64; Fault::ALL.len()],
    ) -> Result<(), Broken> {
        let Exit::Failed(error) = &lived.exit else {
            return Ok(());
        };
        const CAUSES: [Fault; 4] = [
            Fault::ReadError,
            Fault::WriteError,
            Fault::NoSpace,
            Fault::SyncError,
        ];
        let fired = |&fault: &Fault| self.world.fired(fault) > before[fault as usize];
        let has_cause = CAUSES.iter().any(fired) || self.refuses_an_end();
        if error.is_empty() || !has_cause {
            let what = format!("it failed without a cause: {error}");
            return Err(vec![Violation::new(Guarantee::FailsForAReason, what)]);
        }
        Ok(())
    }

    /// The state after a life that left `image`.
    fn goes_on(&mut self, lived: &Lived, image: Image) {
        self.state.image = image;
        self.state.history.add(&lived.record);
        let mut faults = Fault::ONE_BY_ONE.iter();
        let has_fired = faults.any(|&fault| self.world.fired(fault) > 0);
        self.state.history.has_turned_down |= has_fired;
    }

    fn judge(&mut self, end: End) -> Result<(), Broken> {
        self.report.images += 1;
        self.subject.note_state(&self.world, &self.state);
        let violations = self.subject.judge_state(&self.state, end);
        if violations.is_empty() {
            Ok(())
        } else {
            Err(violations)
        }
    }

    /// Whether and where the life crashes, and whether somebody wants it to stop.
    fn fate(&self) -> Fate {
        const CRASHES: [u32; 3] = [2, 5, 3];
        let crash = match self.tape.choose_weighted("search.crashes", &CRASHES) {
            0 => None,
            1 => {
                let number = self.operation("search.crash_at");
                let moment = [Moment::Before, Moment::After];
                let moment = moment[self.tape.choose("search.moment", 2) as usize];
                Some(Crash::At(number, moment))
            }
            // What is written and not synced yet is what a crash damages most.
            _ => {
                let nth = 1 + self.tape.choose("search.crash_after", 12);
                Some(Crash::After(Operation::Write.name(), u64::from(nth)))
            }
        };
        let stops = self.tape.choose_weighted("search.stops", &[5, 1]) == 1;
        Fate {
            crash,
            stop_at: stops.then(|| self.operation("search.stop_at")),
        }
    }

    /// The number of an operation, more often one that a life comes to.
    fn operation(&self, label: &'static str) -> u64 {
        const WITHIN: [u32; 4] = [100, 30, 300, 1000];
        let within = self.tape.choose_weighted("search.within", &[4, 2, 3, 1]);
        1 + u64::from(self.tape.choose(label, WITHIN[within as usize]))
    }

    /// What the end of a life does to the disk. The process may die and the power fail later.
    fn model(&self) -> Model {
        const MODELS: [Model; 4] = [Model::Kill, Model::Full, Model::Torn, Model::Strict];
        MODELS[self.tape.choose_weighted("search.model", &[2, 3, 4, 1]) as usize]
    }

    /// Between two lives: somebody replaces a dump, or the disk damages the marker or a seek point.
    fn meanwhile(&mut self) -> Result<(), Broken> {
        match self
            .tape
            .choose_weighted("search.meanwhile", &[16, 2, 1, 1])
        {
            1 => self.rot_marker(),
            2 => self.change_dump(),
            3 => self.rot_seek_points(),
            _ => Ok(()),
        }
    }

    fn rot_marker(&mut self) -> Result<(), Broken> {
        if !self.rot(&Scenario::paths().marker()) {
            return Ok(());
        }
        let reported = self.state.history.reported;
        self.forget_marker()?;
        self.forgiven = Some(reported);
        self.judge(End::Open)
    }

    /// Nothing may depend on a seek point, so everything that holds goes on to hold.
    fn rot_seek_points(&mut self) -> Result<(), Broken> {
        for kind in Kind::ALL {
            self.rot(&Scenario::paths().seek_point(kind));
        }
        self.judge(End::Open)
    }

    /// Flips a bit of a file, and says whether there is such a file.
    fn rot(&mut self, path: &Path) -> bool {
        let Some(length) = self.state.image.read(path).map(<[u8]>::len) else {
            return false;
        };
        let length = u32::try_from(length).expect("a file of the state is small");
        if length == 0 {
            return false;
        }
        let offset = u64::from(self.tape.choose("search.rot.at", length));
        let mask = 1 << self.tape.choose("search.rot.bit", 8);
        let disk = Disk::mount(&self.world, &self.state.image);
        disk.rot(path, offset, mask);
        self.state.image = disk.live();
        true
    }

    /// What is on the disk now is what the next life is obliged to.
    fn forget_marker(&mut self) -> Result<(), Broken> {
        let done = self
            .subject
            .done(&self.state.image)
            .map_err(|it| vec![it])?;
        let history = &mut self.state.history;
        history.is_rotten = true;
        history.has_saved = false;
        history.has_lost_saves = true;
        history.reported = done;
        if done == Done::default() {
            // Everything is extracted anew.
            history.ends.clear();
        }
        Ok(())
    }

    /// Everything that the old dump still has on the wire gets in first, so that what comes after
    /// is of the new one.
    fn change_dump(&mut self) -> Result<(), Broken> {
        let kind = Kind::ALL[self
            .tape
            .choose("search.change.kind", Kind::ALL.len() as u32)
            as usize];
        let scenario = self.subject.scenario;
        let variant = scenario.variant(&self.state.image, kind) + 1;
        if variant == VARIANTS {
            // Not back: what was saved of it holds again, if no life in between has noticed.
            return Ok(());
        }
        self.world.note("dump.changes", || {
            format!("{kind} is variant {variant} now")
        });
        self.state.server.settle(&self.world);
        let image = std::mem::take(&mut self.state.image);
        self.state.image = scenario.with_dump(image, kind, variant);
        let State { image, server, .. } = &self.state;
        let stored = self.subject.scene(image, server).held_count();
        let history = &mut self.state.history;
        if history.submitted[kind as usize] > 0 {
            self.reached.add(Sometimes::ChangedDump);
        }
        forget_dump(history, kind, stored);
        self.judge(End::Open)
    }
}

/// What was done of a dump counts no more.
fn forget_dump(history: &mut History, kind: Kind, stored: usize) {
    let index = kind as usize;
    history.reported.dumps[index] = DumpDone::default();
    history.reported.is_announced = false;
    history.submitted[index] = 0;
    history.forget_end(kind);
    history.since[index] = stored;
    history.changes += 1;
}
