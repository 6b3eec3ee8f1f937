//! `sim explore`: many seeds, and a table of what they did.

use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use sim::extractor::Extractor;
use sim::search::sweep::{Sweep, first_seed, sweep};

/// How long it is silent.
const SILENT_MAX: Duration = Duration::from_secs(5);

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The seeds: FIRST..END, without END
    #[arg(long, default_value = "0..10000", value_parser = seeds)]
    seeds: Range<u64>,
    /// As many seeds, from the first one of the commit with this hash on
    #[arg(long)]
    commit: Option<String>,
    /// Seeds that run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Fail if one of the points that must be reached sometimes is not, or a fault never fires
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

impl Arguments {
    fn seeds(&self) -> anyhow::Result<Range<u64>> {
        let Range { start, end } = self.seeds;
        let Some(commit) = &self.commit else {
            return Ok(start..end);
        };
        let Some(first) = first_seed(commit) else {
            bail!("`{commit}` is not the hash of a commit");
        };
        Ok(first + start..first + end)
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let seeds = arguments.seeds()?;
    let count = seeds.end.saturating_sub(seeds.start);
    println!("seeds {}..{}", seeds.start, seeds.end);
    let started = now();
    let told_at = Mutex::new(started);
    let tell = |done: u64, sweep: &Sweep| {
        let mut told_at = told_at.lock().expect("telling does not panic");
        if told_at.elapsed() > SILENT_MAX {
            *told_at = now();
            let rate = done as f64 / started.elapsed().as_secs_f64();
            let failed = sweep.failed.len();
            eprintln!("{done} of {count} seeds, {rate:.0} seeds/s, {failed} failed");
        }
    };
    let sweep = sweep(&Extractor::product(), seeds, arguments.jobs, tell);
    let seconds = started.elapsed().as_secs_f64();
    let rate = (sweep.report.runs + sweep.failed.len() as u64) as f64 / seconds;
    println!("{}{rate:.0} seeds/s in {seconds:.1} s", sweep.report);
    println!("trace hash {:016x}", sweep.trace_hash);
    conclude(arguments, sweep)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures itself"
)]
fn now() -> Instant {
    Instant::now()
}

fn conclude(arguments: &Arguments, sweep: Sweep) -> anyhow::Result<()> {
    for failure in sweep.failures {
        let failure = match &arguments.commit {
            Some(commit) => failure.at_commit(commit),
            None => failure,
        };
        println!("\n{failure}");
    }
    let failed: Vec<_> = sweep.failed.iter().map(u64::to_string).collect();
    ensure!(
        failed.is_empty(),
        "{} seeds broke a promise: {}",
        failed.len(),
        failed.join(" ")
    );
    let points = sweep.report.reached.missing();
    let faults = sweep.report.unfired();
    let missing = points
        .map(|point| point.words().to_owned())
        .chain(faults.map(|fault| format!("{fault:?}")))
        .next();
    match missing.filter(|_| arguments.all_points) {
        None => Ok(()),
        Some(missing) => {
            bail!("never reached: {missing}; the search was too small, or can no longer get there")
        }
    }
}
