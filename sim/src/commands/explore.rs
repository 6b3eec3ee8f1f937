//! `sim explore`: many seeds, and a table of what they did.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use sim::extractor::Extractor;
use sim::search::{Failure, Report, seeded};

/// How many failures are shown.
const FAILURES_SHOWN: usize = 5;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The seeds: FIRST..END, without END
    #[arg(long, default_value = "0..10000", value_parser = seeds)]
    seeds: Range<u64>,
    /// Seeds that run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Fail if one of the points that must be reached sometimes is not
    #[arg(long)]
    all_points: bool,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_| format!("`{text}` is not a number"))
    };
    let (first, end) = text
        .split_once("..")
        .ok_or("seeds are a range, like 0..10000")?;
    Ok(parse(first)?..parse(end)?)
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let started = now();
    let next = AtomicU64::new(arguments.seeds.start);
    let (report, failures) = thread::scope(|scope| {
        let work = || work(&next, &arguments.seeds);
        let threads: Vec<_> = (0..arguments.jobs.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        let mut report = Report::default();
        let mut failures = Vec::new();
        for thread in threads {
            let (own, failed) = thread.join().map_err(|_| anyhow!("a search panicked"))?;
            report.merge(&own);
            failures.extend(failed);
        }
        anyhow::Ok((report, failures))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{report}");
    println!(
        "{:.0} seeds/s in {seconds:.1} s",
        report.runs as f64 / seconds
    );
    conclude(arguments, &report, failures)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures itself"
)]
fn now() -> Instant {
    Instant::now()
}

/// Runs seeds until there are no more.
fn work(next: &AtomicU64, seeds: &Range<u64>) -> (Report, Vec<(u64, Box<Failure>)>) {
    let scenarios = seeded::Scenarios::default();
    let (mut report, mut failures) = (Report::default(), Vec::new());
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if !seeds.contains(&seed) {
            return (report, failures);
        }
        match seeded::seed(&Extractor::product(), &scenarios, seed) {
            Ok(one) => report.merge(&one),
            Err(failure) => failures.push((seed, failure)),
        }
        let done = seed + 1 - seeds.start;
        if done.is_multiple_of(1_000) {
            eprintln!("{done} seeds");
        }
    }
}

fn conclude(
    arguments: &Arguments,
    report: &Report,
    mut failures: Vec<(u64, Box<Failure>)>,
) -> anyhow::Result<()> {
    failures.sort_by_key(|(seed, _)| *seed);
    for (seed, failure) in failures.iter().take(FAILURES_SHOWN) {
        println!("\nseed {seed}:\n{failure}");
    }
    if !failures.is_empty() {
        let seeds: Vec<_> = failures.iter().map(|(seed, _)| seed.to_string()).collect();
        bail!(
            "{} seeds broke a promise: {}",
            failures.len(),
            seeds.join(" ")
        );
    }
    let missing = report
        .reached
        .missing()
        .next()
        .filter(|_| arguments.all_points);
    missing
        .map_or(Ok(()), |point| {
            Err(anyhow!("never reached: {}", point.words()))
        })
        .context("the search was too small, or can no longer get there")
}
