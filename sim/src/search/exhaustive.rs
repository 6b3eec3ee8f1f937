//! The exhaustive search: crash before and after every operation, take every disk that the crash can
//! leave and every number of messages that were on the wire and got in, go on from each, and, two
//! crashes deep, crash again at every operation of that.
//!
//! Two crashes are not optional: a recovery that removes what it recovers from needs a crash to be
//! recovered from, and another to show.
//!
//! Most crashes leave a state that another crash has left before: the same disk, the same broker, the
//! same obligations. Each is judged once, and gone on from once.
//!
//! A case is written as its crashes, `31b.2.0/7a.0.0`: at operation 31, before it, image 2 of those
//! possible, no message of the wire got in; in the life after it at operation 7, after it, and so on;
//! then a life without a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::disk::{Image, Model};
use crate::faults::{Fault, Faults};
use crate::guarantee::{Guarantee, Violation};
use crate::oracles::told_damage;
use crate::program::{End, Exit};
use crate::search::{
    Failure, Fate, Lived, Report, State, Subject, combined, kept, points_of, told,
};
use crate::tape::Tape;
use crate::world::{self, Moment, World};

/// The most images of one crash: beyond that a scenario is too large to be searched.
const IMAGES_MAX: usize = 20_000;

/// One crash of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// At which operation, from 1.
    pub operation: u64,
    /// On which side of it.
    pub moment: Moment,
    /// Which image, in their order.
    pub image: usize,
    /// How many messages of the wire got in.
    pub arriving: u32,
}

/// The crashes that led to a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case(pub Vec<Crash>);

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, crash) in self.0.iter().enumerate() {
            let slash = if index > 0 { "/" } else { "" };
            let moment = match crash.moment {
                Moment::Before => 'b',
                Moment::After => 'a',
            };
            let Crash {
                operation,
                image,
                arriving,
                ..
            } = crash;
            write!(f, "{slash}{operation}{moment}.{image}.{arriving}")?;
        }
        Ok(())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        let crashes = text.split('/').map(crash).collect::<Option<_>>();
        crashes
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a case, like 31b.2.0/7a.0.0"))
    }
}

fn crash(text: &str) -> Option<Crash> {
    let (place, rest) = text.split_once('.')?;
    let (image, arriving) = rest.split_once('.')?;
    let (operation, moment) = match place.strip_suffix('b') {
        Some(operation) => (operation, Moment::Before),
        None => (place.strip_suffix('a')?, Moment::After),
    };
    Some(Crash {
        operation: operation.parse().ok()?,
        moment,
        image: image.parse().ok()?,
        arriving: arriving.parse().ok()?,
    })
}

/// What the next life starts from: a state, and the world that died.
struct Branch {
    state: State,
    world: Option<World>,
    arriving: u32,
}

impl Branch {
    fn first(subject: &Subject<'_>) -> Self {
        Self {
            state: State::first(subject.scenario),
            world: None,
            arriving: 0,
        }
    }

    /// A world and a state for one life, its own.
    fn begin(&self, is_logged: bool) -> (World, State) {
        let tape = Tape::recorded(vec![self.arriving]);
        let faults = Faults::only(&[Fault::InFlight]);
        let world = match &self.world {
            Some(dead) => dead.branch(tape, faults),
            None if is_logged => World::logged(Tape::benign(), Faults::none()),
            None => World::new(Tape::benign(), Faults::none()),
        };
        let server = self.state.server.branch();
        (
            world,
            State {
                server,
                ..self.state.clone()
            },
        )
    }
}

/// A search.
struct Search<'a> {
    subject: Subject<'a>,
    model: Model,
    report: Report,
    judged: BTreeSet<u64>,
    /// How deep each state was gone on from.
    seen: BTreeMap<(u64, u32), usize>,
    case: Case,
}

/// Searches `depth` crashes deep.
///
/// # Errors
///
/// The first broken promise.
pub fn search(subject: Subject<'_>, model: Model, depth: usize) -> Result<Report, Box<Failure>> {
    let mut search = Search::new(subject, model);
    match search.explore(&Branch::first(&subject), depth) {
        Ok(()) => Ok(search.report),
        Err(violations) => {
            let case = search.case;
            let (replayed, timeline) = replay(subject, model, &case);
            assert!(
                replayed.starts_with(&violations),
                "the program is not deterministic: {violations:?}, then {replayed:?}"
            );
            Err(Box::new(Failure {
                violations: replayed,
                shortest: None,
                command: subject.program.command(),
                replay: format!(
                    "replay --exhaustive {case} --model {model:?} {}",
                    subject.scenario.arguments()
                ),
                timeline,
            }))
        }
    }
}

/// Repeats one case: what is broken, and the timeline. After a crash that left a broken promise it
/// goes on, to show what comes of that.
pub fn replay(subject: Subject<'_>, model: Model, case: &Case) -> (Vec<Violation>, String) {
    let mut search = Search::new(subject, model);
    let mut branch = Branch::first(&subject);
    let mut broken = Vec::new();
    let mut add = |world: &World, violations: Vec<Violation>| {
        let new = violations.into_iter().filter(|it| !broken.contains(it));
        let new = told(world, new.collect());
        broken.extend(new);
        broken.clone()
    };
    for crash in &case.0 {
        let (world, state) = branch.begin(true);
        let next = match search.repeat(&world, &state, crash) {
            Ok(next) => next,
            Err(violations) => return (add(&world, violations), world.timeline()),
        };
        subject.note_state(&world, &next);
        add(&world, subject.judge_state(&next, End::Open));
        branch = Branch {
            state: next,
            world: Some(world),
            arriving: crash.arriving,
        };
    }
    let (world, state) = branch.begin(true);
    let ended = search.finish(&world, &state);
    (
        add(&world, ended.err().unwrap_or_default()),
        world.timeline(),
    )
}

fn planned(what: &str) -> Violation {
    Violation::new(Guarantee::PlannedHappened, what)
}

impl<'a> Search<'a> {
    fn new(subject: Subject<'a>, model: Model) -> Self {
        Self {
            subject,
            model,
            report: Report::default(),
            judged: BTreeSet::new(),
            seen: BTreeMap::new(),
            case: Case::default(),
        }
    }

    /// Goes on from a state: to the end, and to every crash on the way.
    fn explore(&mut self, branch: &Branch, depth: usize) -> Result<(), Vec<Violation>> {
        self.report.runs += 1;
        let (world, state) = branch.begin(false);
        let operations = self.finish(&world, &state)?;
        if depth == 0 {
            return Ok(());
        }
        for operation in 1..=operations {
            self.crashes(branch, operation, Moment::Before, depth)?;
            // A crash after an operation leaves what one before the next leaves, and obliges to no
            // more: deeper down it is left out.
            if branch.world.is_none() || operation == operations {
                self.crashes(branch, operation, Moment::After, depth)?;
            }
        }
        Ok(())
    }

    /// Crashes at one place, and goes on from all that is left.
    fn crashes(
        &mut self,
        branch: &Branch,
        operation: u64,
        moment: Moment,
        depth: usize,
    ) -> Result<(), Vec<Violation>> {
        let (world, state) = branch.begin(false);
        self.case.0.push(Crash {
            operation,
            moment,
            image: 0,
            arriving: 0,
        });
        let lived = self.crash(&world, &state, operation, moment)?;
        let images = lived.disk.images(self.model, IMAGES_MAX);
        assert!(
            images.complete,
            "the scenario is too large: a crash leaves more than {IMAGES_MAX} images"
        );
        let live = lived.disk.live();
        let mut next = self.after(&state, &lived);
        let key = next.key_besides_disk();
        for (index, image) in images.images.into_iter().enumerate() {
            let last = self.last();
            (last.image, last.arriving) = (index, 0);
            let key = combined(key, &image);
            next.image = image;
            self.judge(&next, key, &live)?;
            self.go_on(&world, &next, key, depth - 1)?;
        }
        self.case.0.pop();
        Ok(())
    }

    /// Judges a state, unless it was judged.
    fn judge(&mut self, state: &State, key: u64, live: &Image) -> Result<(), Vec<Violation>> {
        self.report.images += 1;
        if !self.judged.insert(key) {
            return Ok(());
        }
        self.report.reached.add(self.subject.points(state, live));
        kept(self.subject.judge_state(state, End::Open))
    }

    /// Goes on from a state with each number of messages on the wire, unless it was gone on from.
    fn go_on(
        &mut self,
        world: &World,
        state: &State,
        key: u64,
        depth: usize,
    ) -> Result<(), Vec<Violation>> {
        let on_the_wire = u32::try_from(state.server.on_the_wire()).expect("a window is small");
        for arriving in 0..=on_the_wire {
            self.last().arriving = arriving;
            let before = self.seen.insert((key, arriving), depth);
            if let Some(deeper) = before.filter(|before| *before >= depth) {
                self.seen.insert((key, arriving), deeper);
                continue;
            }
            let branch = Branch {
                state: state.clone(),
                world: Some(world.clone()),
                arriving,
            };
            self.explore(&branch, depth)?;
        }
        Ok(())
    }

    fn last(&mut self) -> &mut Crash {
        self.case.0.last_mut().expect("a crash was just added")
    }

    fn live(&mut self, world: &World, state: &State, fate: Fate) -> Result<Lived, Vec<Violation>> {
        let lived = self
            .subject
            .live(world, state, fate)
            .map_err(|violation| vec![violation])?;
        self.report.add_life(world);
        self.report
            .reached
            .add(points_of(state, &lived, world.life()));
        kept(self.subject.judge_life(state, &lived))?;
        Ok(lived)
    }

    fn crash(
        &mut self,
        world: &World,
        state: &State,
        operation: u64,
        moment: Moment,
    ) -> Result<Lived, Vec<Violation>> {
        let fate = Fate {
            crash: Some(world::Crash::At(operation, moment)),
            ..Fate::default()
        };
        let lived = self.live(world, state, fate)?;
        self.report.add_crash(self.model);
        match lived.exit {
            Exit::Crashed => Ok(lived),
            _ => Err(vec![planned(
                "the run did not come to the operation at which it was to crash",
            )]),
        }
    }

    /// Crashes once more as a case says; the state that was left.
    fn repeat(
        &mut self,
        world: &World,
        state: &State,
        crash: &Crash,
    ) -> Result<State, Vec<Violation>> {
        let lived = self.crash(world, state, crash.operation, crash.moment)?;
        let images = lived.disk.images(self.model, IMAGES_MAX).images;
        let image = images.into_iter().nth(crash.image);
        let image = image.ok_or_else(|| vec![planned("there is no such image")])?;
        Ok(State {
            image,
            ..self.after(state, &lived)
        })
    }

    /// Lives a life to its end, which must be complete on every disk that a crash then leaves. How
    /// many operations it had.
    fn finish(&mut self, world: &World, state: &State) -> Result<u64, Vec<Violation>> {
        let lived = self.live(world, state, Fate::default())?;
        if let Some(unfired) = lived.disk.unfired().first() {
            return Err(vec![planned(&format!("{unfired:?} did not happen"))]);
        }
        if let Some(damaged) = self.subject.scenario.damaged() {
            let scene = self.subject.scene(&state.image, &state.server);
            let violation = told_damage(&scene, damaged, &lived.exit, &lived.record);
            kept(violation.into_iter().collect())?;
        } else if lived.exit != Exit::Complete {
            let what = format!("it ended as {:?} after {:?}", lived.exit, world.lived());
            return Err(vec![Violation::new(Guarantee::Ends, what)]);
        }
        let end = End::of(
            &lived.exit,
            &lived.record,
            self.subject.scenario.planned.is_empty(),
        );
        let mut next = self.after(state, &lived);
        for image in lived.disk.images(self.model, IMAGES_MAX).images {
            next.image = image;
            self.report.images += 1;
            self.subject.note_state(world, &next);
            kept(self.subject.judge_state(&next, end))?;
        }
        Ok(world.operations())
    }

    /// The state after a life, with the disk as the life saw it.
    fn after(&self, state: &State, lived: &Lived) -> State {
        let mut history = state.history.clone();
        history.add(&lived.record);
        State {
            image: lived.disk.live(),
            server: state.server.clone(),
            history,
        }
    }
}
