//! `sim replay`: one run again, with its timeline.

use anyhow::bail;
use sim::extractor::Extractor;
use sim::guarantee::Violation;
use sim::search::exhaustive::{self, Case};
use sim::search::{Subject, seeded};
use sim::tape::Tape;

use super::exhaustive::Small;

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct Arguments {
    /// The run of a seed
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// The run of a recorded tape: 3,0,1
    #[arg(long, group = "what", value_delimiter = ',')]
    tape: Option<Vec<u32>>,
    /// A case of the exhaustive search: 31b.2.0/7a.0.0, or none
    #[arg(long, group = "what")]
    exhaustive: Option<Case>,
    #[command(flatten)]
    small: Small,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (violations, timeline) = match (&arguments.exhaustive, arguments.seed) {
        (Some(case), _) => of_case(arguments, case),
        (None, Some(seed)) => of_tape(&Tape::seeded(seed)),
        (None, None) => of_tape(&Tape::recorded(arguments.tape.clone().unwrap_or_default())),
    };
    print!("{timeline}");
    for violation in &violations {
        println!("broken: {violation}");
    }
    if !violations.is_empty() {
        bail!("a promise was broken");
    }
    println!("every promise was kept");
    Ok(())
}

fn of_case(arguments: &Arguments, case: &Case) -> (Vec<Violation>, String) {
    let scenario = arguments.small.scenario();
    let subject = Subject {
        program: &Extractor::product(),
        scenario: &scenario,
    };
    exhaustive::replay(subject, arguments.small.model, case)
}

fn of_tape(tape: &Tape) -> (Vec<Violation>, String) {
    let scenarios = seeded::Scenarios::default();
    let outcome = seeded::run(&Extractor::product(), &scenarios, tape, true);
    (outcome.violations, outcome.timeline)
}
