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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Fixtures(arguments) => commands::fixtures::run(&arguments),
    }
}
