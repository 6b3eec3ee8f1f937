//! The simulator's command line.

mod commands;

use clap::{Parser, Subcommand};

/// The simulated world of discogs-extractor.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate dumps with the messages that must come of them
    Fixtures(commands::fixtures::Arguments),
    /// Run many seeds: long runs with swarms of faults
    Explore(commands::explore::Arguments),
    /// Crash one small run everywhere
    Exhaustive(commands::exhaustive::Arguments),
    /// Repeat one run and show its timeline
    Replay(commands::replay::Arguments),
    /// Find the planted bugs: the proof that the searches have teeth
    Bugs(commands::bugs::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Fixtures(arguments) => commands::fixtures::run(&arguments),
        Command::Explore(arguments) => commands::explore::run(&arguments),
        Command::Exhaustive(arguments) => commands::exhaustive::run(&arguments),
        Command::Replay(arguments) => commands::replay::run(&arguments),
        Command::Bugs(arguments) => commands::bugs::run(&arguments),
    }
}
