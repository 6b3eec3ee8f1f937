//! Each single fault of the broker: a small run in which one thing goes wrong, once, at every
//! occasion there is for it, and nothing after that.
//!
//! Seeded runs come to their end in a new process, so a process that hangs after a fault is hidden
//! by the next one. Here the process that met the fault must itself come to the end, complete, in a
//! bounded time.
//!
//! A run is written as its tape: zeros up to the occasion, the fault, and how it shows.

use std::time::Duration;

use crate::faults::{Fault, Faults};
use crate::guarantee::{Guarantee, Violation};
use crate::program::{End, Exit};
use crate::search::{Failure, Fate, Report, State, Subject, kept, points_of, told};
use crate::tape::{Choice, Tape};
use crate::world::World;

/// The choices of whether there is a fault; the broker's other ones are of how it shows.
const OCCASIONS: [&str; 2] = ["broker.arrival", "broker.connect"];

/// The longest that a run with one fault may take. A confirm may be eleven minutes late.
const RUN_MAX: Duration = Duration::from_secs(30 * 60);

/// What a run came to.
struct Outcome {
    violations: Vec<Violation>,
    choices: Vec<Choice>,
    timeline: String,
}

/// Runs without a fault, and with each single one.
///
/// # Errors
///
/// The first broken promise.
pub fn search(subject: Subject<'_>) -> Result<Report, Box<Failure>> {
    let mut report = Report::default();
    let faultless = tried(subject, &[], &mut report)?;
    let occasions = (0..)
        .zip(faultless)
        .filter(|(_, choice)| is_occasion(choice));
    for (position, occasion) in occasions {
        for fault in 1..occasion.of {
            let mut tape = vec![0; position];
            tape.push(fault);
            let choices = tried(subject, &tape, &mut report)?;
            let ways = choices.get(position + 1).filter(|choice| is_way(choice));
            for way in 1..ways.map_or(1, |ways| ways.of) {
                tried(subject, &[&*tape, &[way]].concat(), &mut report)?;
            }
        }
    }
    Ok(report)
}

/// Repeats the run of one tape: what is broken, and the timeline.
pub fn replay(subject: Subject<'_>, tape: &[u32]) -> (Vec<Violation>, String) {
    let outcome = run(subject, tape, true, &mut Report::default());
    (outcome.violations, outcome.timeline)
}

fn is_occasion(choice: &Choice) -> bool {
    OCCASIONS.contains(&choice.label)
}

fn is_way(choice: &Choice) -> bool {
    choice.label.starts_with("broker.") && !is_occasion(choice)
}

/// The choices of a run that broke nothing.
fn tried(
    subject: Subject<'_>,
    tape: &[u32],
    report: &mut Report,
) -> Result<Vec<Choice>, Box<Failure>> {
    let outcome = run(subject, tape, false, report);
    if outcome.violations.is_empty() {
        return Ok(outcome.choices);
    }
    let (violations, timeline) = replay(subject, tape);
    let numbers: Vec<_> = tape.iter().map(u32::to_string).collect();
    Err(Box::new(Failure {
        violations,
        shortest: None,
        command: subject.program.command(),
        replay: format!(
            "replay --fault {} {}",
            numbers.join(","),
            subject.scenario.arguments()
        ),
        timeline,
    }))
}

fn run(subject: Subject<'_>, tape: &[u32], is_logged: bool, report: &mut Report) -> Outcome {
    let kinds = [&Fault::AT_ARRIVAL[..], &Fault::AT_CONNECT].concat();
    let (tape, faults) = (Tape::recorded(tape.to_vec()), Faults::only(&kinds));
    let world = match is_logged {
        true => World::logged(tape, faults),
        false => World::new(tape, faults),
    };
    let violations = judged(subject, &world, report);
    report.runs += 1;
    report.add_life(&world);
    report.add_faults(&world);
    Outcome {
        violations: violations.err().unwrap_or_default(),
        choices: world.tape().choices(),
        timeline: world.timeline(),
    }
}

fn judged(subject: Subject<'_>, world: &World, report: &mut Report) -> Result<(), Vec<Violation>> {
    let mut state = State::first(subject.scenario);
    let lived = subject.live(world, &state, Fate::default());
    let lived = lived.map_err(|violation| vec![violation])?;
    report.reached.add(points_of(&state, &lived, world.life()));
    kept(told(world, subject.judge_life(&state, &lived)))?;
    let refuses = subject.scene(&state.image, &state.server).refuses_an_end();
    let is_right = match &lived.exit {
        Exit::Complete => true,
        Exit::Failed(error) => refuses && error.contains("was refused"),
        _ => false,
    };
    if !is_right || world.lived() > RUN_MAX {
        let what = format!("it ended as {:?} after {:?}", lived.exit, world.lived());
        return Err(vec![Violation::new(Guarantee::Ends, what)]);
    }
    state.history.add(&lived.record);
    state.history.has_turned_down = Fault::ONE_BY_ONE
        .iter()
        .any(|&fault| world.fired(fault) > 0);
    for image in [lived.disk.live(), lived.disk.durable()] {
        state.image = image;
        report.images += 1;
        kept(subject.judge_state(&state, End::of(&lived.exit, &lived.record, false)))?;
    }
    Ok(())
}
