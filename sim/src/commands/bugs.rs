//! `sim bugs`: the planted bugs, what finds each, and what they say of the oracles and of the
//! simulator.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use sim::bugs::mutants::MUTANTS;
use sim::bugs::{self, Bug, Finding, side_by_side};
use sim::extractor::Extractor;
use sim::guarantee::Guarantee;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Show how this one is found, instead of all
    name: Option<String>,
    /// Searches that run at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.name {
        Some(name) => show(&bug(name)?),
        None => show_all(arguments.jobs),
    }
}

/// The bug that is called so.
pub(crate) fn bug(name: &str) -> anyhow::Result<Bug> {
    bugs::find(name).with_context(|| format!("`{name}` is no planted bug; `sim bugs` lists them"))
}

fn show(bug: &Bug) -> anyhow::Result<()> {
    let finding = bug.search.find(bug);
    let Some(failure) = &finding.failure else {
        bail!("{} was not found by {}", bug.name, bug.search);
    };
    print!("{}", failure.timeline);
    println!("{}: {}", bug.name, bug.what);
    println!("found by {}, after {}", bug.search, finding.effort);
    for violation in &failure.violations {
        println!("broken: {violation}");
    }
    if !finding.is_expected(bug) {
        bail!("it was to break one of: {}", words(bug.breaks));
    }
    Ok(())
}

fn show_all(jobs: usize) -> anyhow::Result<()> {
    let bugs = bugs::catalogue();
    let findings = side_by_side(&bugs, jobs, |bug| bug.search.find(bug));
    let mut wrong = Vec::new();
    println!("planted bugs");
    for (bug, finding) in bugs.iter().zip(&findings) {
        println!("  {:<30} {}", bug.name, bug.what);
        println!("  {:<30} by {}, after {}", "", bug.search, finding.effort);
        println!("  {:<30} broke: {}", "", words(&finding.broken()));
        if !finding.is_expected(bug) {
            wrong.push(format!("{} did not break: {}", bug.name, words(bug.breaks)));
        }
    }
    wrong.extend(guarantees(&bugs, &findings));
    wrong.extend(product(jobs));
    wrong.extend(mutants(jobs));
    wrong.extend(canary());
    match wrong.is_empty() {
        true => Ok(()),
        false => bail!("not as expected:\n  {}", wrong.join("\n  ")),
    }
}

fn words(guarantees: &[Guarantee]) -> String {
    let words: Vec<_> = guarantees.iter().map(|it| it.words()).collect();
    match words.is_empty() {
        true => "NOTHING".to_owned(),
        false => words.join("; "),
    }
}

/// Which bugs made each guarantee fail; what is wrong.
fn guarantees(bugs: &[Bug], findings: &[Finding]) -> Vec<String> {
    println!("\nguarantees, and what was seen to break them");
    let mut wrong = Vec::new();
    for guarantee in Guarantee::ALL {
        let pairs = bugs.iter().zip(findings);
        let breaks = pairs.filter(|(_, finding)| finding.broken().contains(&guarantee));
        let names: Vec<_> = breaks.map(|(bug, _)| bug.name).collect();
        println!("  {guarantee}");
        println!("      {}", names.join(" "));
        if names.is_empty() {
            wrong.push(format!("never broken: {guarantee}"));
        }
    }
    wrong
}

fn product(jobs: usize) -> Vec<String> {
    println!("\nthe product, in the same searches");
    let searches = bugs::searches();
    let findings = side_by_side(&searches, jobs, |search| search.run(&Extractor::product()));
    let mut wrong = Vec::new();
    for (search, finding) in searches.iter().zip(&findings) {
        println!("  {search}: {}", finding.effort);
        if let Some(failure) = &finding.failure {
            wrong.push(format!("the product, in {search}:\n{failure}"));
        }
    }
    wrong
}

fn mutants(jobs: usize) -> Vec<String> {
    println!("\nsimulators that are too kind, and a bug that each misses");
    let findings = side_by_side(&MUTANTS, jobs, |mutant| mutant.run());
    let mut wrong = Vec::new();
    for (mutant, finding) in MUTANTS.iter().zip(&findings) {
        println!("  {:<30} {}", mutant.name, mutant.what);
        println!(
            "  {:<30} misses {} in {}",
            "", mutant.misses, finding.effort
        );
        if finding.failure.is_some() {
            wrong.push(format!("{} finds {}", mutant.name, mutant.misses));
        }
    }
    wrong
}

/// A seed that must fail.
fn canary() -> Option<String> {
    let (name, seed) = bugs::CANARY;
    let Err(failure) = bugs::canary() else {
        return Some(format!(
            "the canary, seed {seed} with {name}, does not fail"
        ));
    };
    let mut text = String::new();
    for violation in &failure.violations {
        _ = write!(text, "; {violation}");
    }
    println!("\nthe canary fails, as it must{text}");
    println!("  cargo run --release -p sim -- {}", failure.replay);
    None
}
