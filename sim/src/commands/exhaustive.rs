//! `sim exhaustive`: every crash of one small run.

use sim::disk::Model;
use sim::extractor::Extractor;
use sim::place::{self, Place};
use sim::scenario::{Dumps, Scenario};
use sim::search::{Subject, exhaustive};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// How many crashes deep
    #[arg(long, default_value_t = 1)]
    depth: usize,
    #[command(flatten)]
    small: Small,
}

/// A small run.
#[derive(clap::Args, Debug)]
pub(crate) struct Small {
    /// Where the messages go: rabbitmq or spool
    #[arg(long, default_value = "rabbitmq", value_parser = place)]
    pub(crate) broker: &'static dyn Place,
    /// What a crash leaves: kill, strict, full, torn or unordered
    #[arg(long, default_value = "full", value_parser = model)]
    pub(crate) model: Model,
    /// Records of each dump
    #[arg(long, default_value_t = 3)]
    records: u64,
    /// Records between saves
    #[arg(long, default_value_t = 2)]
    interval: u64,
    /// Messages without an answer
    #[arg(long, default_value_t = 2)]
    window: usize,
}

impl Small {
    pub(crate) fn scenario(&self) -> Scenario {
        Scenario::new(
            &Dumps::new(self.records),
            self.broker,
            self.interval,
            self.window,
        )
    }
}

fn place(text: &str) -> Result<&'static dyn Place, String> {
    let found = place::ALL.into_iter().find(|place| place.name() == text);
    found.ok_or_else(|| format!("`{text}` is not a broker: rabbitmq or spool"))
}

fn model(text: &str) -> Result<Model, String> {
    let name = |model: &Model| format!("{model:?}").to_lowercase();
    let found = Model::ALL
        .into_iter()
        .find(|model| name(model) == text.to_lowercase());
    found.ok_or_else(|| format!("`{text}` is not a model: kill, strict, full, torn or unordered"))
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let scenario = arguments.small.scenario();
    let subject = Subject {
        program: &Extractor::product(),
        scenario: &scenario,
    };
    println!(
        "{}",
        exhaustive::search(subject, arguments.small.model, arguments.depth)?
    );
    Ok(())
}
