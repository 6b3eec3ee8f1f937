//! `sim exhaustive`: crashes the extractor at every operation of a small run.

use clap::{Args, value_parser};
use sim::disk::Model;
use sim::extractor::Extractor;
use sim::scenario::{Dumps, Place, Scenario};
use sim::search::{Subject, exhaustive};

/// What is run, and how it crashes.
#[derive(Debug, Args)]
pub(crate) struct Scene {
    /// Where the messages go: rabbitmq or spool
    #[arg(long, default_value = "rabbitmq", value_parser = place)]
    broker: Place,

    /// What a crash leaves: kill, strict, full, torn or unordered
    #[arg(long, default_value = "full", value_parser = model)]
    pub(crate) model: Model,

    /// Records of each of the four dumps
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u64).range(1..=200))]
    records: u64,

    /// Records between saves
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..=100))]
    interval: u64,

    /// Messages without an answer
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u16).range(1..=100))]
    window: u16,
}

impl Scene {
    pub(crate) fn scenario(&self) -> Scenario {
        let dumps = Dumps::new(self.records);
        Scenario::new(&dumps, self.broker, self.interval, self.window.into())
    }
}

/// The search.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    scene: Scene,

    /// How many crashes follow one another
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(0..=3))]
    depth: u8,
}

fn place(name: &str) -> Result<Place, String> {
    let place = Place::ALL.into_iter().find(|place| place.name() == name);
    place.ok_or_else(|| "write rabbitmq or spool".to_owned())
}

fn model(name: &str) -> Result<Model, String> {
    let is_named = |model: &Model| format!("{model:?}").eq_ignore_ascii_case(name);
    let model = Model::ALL.into_iter().find(is_named);
    model.ok_or_else(|| "write kill, strict, full, torn or unordered".to_owned())
}

/// Runs the command; an error is a broken promise.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let scenario = arguments.scene.scenario();
    let subject = Subject {
        program: &Extractor::product(),
        scenario: &scenario,
    };
    let model = arguments.scene.model;
    let report = exhaustive::search(subject, model, arguments.depth.into())?;
    println!(
        "crashes          {:>10}",
        report.crashes.iter().sum::<u64>()
    );
    println!("images judged    {:>10}", report.images);
    println!("lives            {:>10}", report.lives);
    println!("virtual seconds  {:>10.0}", report.time.as_secs_f64());
    Ok(())
}
