//! `sim replay`: one run again, with its timeline.

use anyhow::bail;
use sim::extractor::Extractor;
use sim::guarantee::Violation;
use sim::search::exhaustive::{self, Case};
use sim::search::{Subject, seeded, single};
use sim::tape::Tape;

use super::bugs;
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
    /// A run with one fault of the broker: 0,0,4
    #[arg(long, group = "what", value_delimiter = ',')]
    fault: Option<Vec<u32>>,
    /// A planted bug instead of the product
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    #[command(flatten)]
    small: Small,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = match &arguments.bug {
        Some(name) => bugs::bug(name)?.program(),
        None => Extractor::product(),
    };
    let (violations, timeline) = repeated(arguments, &program);
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

fn repeated(arguments: &Arguments, program: &Extractor) -> (Vec<Violation>, String) {
    let scenario = arguments.small.scenario();
    let subject = Subject {
        program,
        scenario: &scenario,
    };
    let numbers = || arguments.tape.clone().unwrap_or_default();
    match (&arguments.exhaustive, &arguments.fault, arguments.seed) {
        (Some(case), ..) => exhaustive::replay(subject, arguments.small.model, case),
        (_, Some(tape), _) => single::replay(subject, tape),
        (_, _, Some(seed)) => of_tape(program, &Tape::seeded(seed)),
        (None, None, None) => of_tape(program, &Tape::recorded(numbers())),
    }
}

fn of_tape(program: &Extractor, tape: &Tape) -> (Vec<Violation>, String) {
    let outcome = seeded::run(program, &seeded::Scenarios::default(), tape, true);
    (outcome.violations, outcome.timeline)
}
