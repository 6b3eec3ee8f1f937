//! `sim replay`: one case of an exhaustive search once more, with everything that happens.

use clap::Args;
use sim::extractor::Extractor;
use sim::search::Subject;
use sim::search::exhaustive::{Case, replay};

use super::exhaustive::Scene;

/// Which case.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The case, as a failed search prints it, like 31b.2.0/7a.0.0; `none` for no crash
    #[arg(long, value_name = "CASE")]
    exhaustive: Case,

    #[command(flatten)]
    scene: Scene,
}

/// Runs the command; an error is a broken promise.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let scenario = arguments.scene.scenario();
    let subject = Subject {
        program: &Extractor::product(),
        scenario: &scenario,
    };
    let (violations, timeline) = replay(subject, arguments.scene.model, &arguments.exhaustive);
    print!("{timeline}");
    for violation in &violations {
        println!("broken: {violation}");
    }
    anyhow::ensure!(violations.is_empty(), "a guarantee is broken");
    Ok(())
}
