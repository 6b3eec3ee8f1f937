//! The searches and oracles have teeth: every planted bug is found by the search that has to find
//! it, the product survives all of these searches, and a simulator that is kinder than it should be
//! misses a bug.

use sim::bugs::mutants::MUTANTS;
use sim::bugs::{self, Bug, Finding, Search};
use sim::disk::Model;
use sim::extractor::Extractor;
use sim::guarantee::Guarantee;
use sim::search::seeded;

/// As many as CI has cores.
const JOBS: usize = 2;

fn found(finding: &Finding) -> String {
    let failure = finding.failure.as_ref();
    failure.map_or("nothing".to_owned(), ToString::to_string)
}

#[test]
fn every_bug_is_found_and_every_guarantee_was_seen_to_fail() {
    let bugs = bugs::catalogue();
    assert!(bugs.len() >= 30);
    let findings = bugs::side_by_side(&bugs, JOBS, |bug| bug.search.find(bug));
    let pairs = || bugs.iter().zip(&findings);
    let missed: Vec<_> = pairs()
        .filter(|(bug, finding)| !finding.is_expected(bug))
        .map(|(bug, finding)| format!("{}: {}", bug.name, found(finding)))
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let broken: Vec<_> = findings.iter().flat_map(Finding::broken).collect();
    for guarantee in Guarantee::ALL {
        assert!(broken.contains(&guarantee), "never broken: {guarantee}");
    }
}

#[test]
fn the_product_survives_the_same_searches() {
    let searches = bugs::searches();
    let findings = bugs::side_by_side(&searches, JOBS, |search| search.run(&Extractor::product()));
    for (search, finding) in searches.iter().zip(&findings) {
        assert!(finding.failure.is_none(), "{search}: {}", found(finding));
        assert!(finding.effort.lives > 0, "{search}");
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = bugs::catalogue().iter().map(|bug| bug.name).collect();
    let mutants = MUTANTS.iter().map(|mutant| mutant.name);
    names.extend(mutants);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// That they are found in the true world is the matrix.
#[test]
fn a_kinder_simulator_misses_a_bug() {
    for (mutant, finding) in MUTANTS
        .iter()
        .zip(bugs::side_by_side(&MUTANTS, JOBS, |mutant| mutant.run()))
    {
        assert!(
            finding.failure.is_none(),
            "{} has no effect: {}",
            mutant.name,
            found(&finding)
        );
    }
}

/// The models of a crash that find a bug.
fn models(name: &str) -> (Bug, Vec<Model>) {
    let bug = bugs::find(name).expect("the bug is in the catalogue");
    let Search::Crashes(run, _, depth) = bug.search else {
        panic!("{name} is not found by crashes");
    };
    let finds = |model: &Model| {
        let finding = Search::Crashes(run, *model, depth).find(&bug);
        finding.failure.is_some()
    };
    (bug, Model::ALL.into_iter().filter(finds).collect())
}

/// Each classic mistake in saving a file is found by `Full`, and some by nothing weaker: that is why
/// `Full` is the default. `Strict`, which only drops what is unsynced, misses what it takes a
/// reordering to see.
#[test]
fn which_crashes_show_which_mistake_in_saving() {
    use Model::{Full, Kill, Strict, Torn, Unordered};
    let power_loss: &[Model] = &[Strict, Full, Torn, Unordered];
    let reordering: &[Model] = &[Full, Torn, Unordered];
    let killed_too: &[Model] = &[Kill, Full, Torn, Unordered];
    let mistakes = [
        ("no-fsync", power_loss),
        ("no-directory-fsync", power_loss),
        ("fsync-after-rename", reordering),
        ("write-in-place", killed_too),
        ("truncate-in-place", killed_too),
        ("unlink-then-rename", killed_too),
        ("failed-fsync-is-believed", power_loss),
        ("spool-not-synced", power_loss),
        ("dead-letter-name-not-synced", &[Unordered]),
    ];
    let found = bugs::side_by_side(&mistakes, JOBS, |(name, _)| models(name));
    for ((name, expected), (_, found)) in mistakes.iter().zip(found) {
        assert_eq!(found, *expected, "{name}");
    }
}

/// It fails in every run, so a harness that cannot fail any more is noticed here.
#[test]
fn the_canary_fails() {
    let failure = bugs::canary().expect_err("the canary is found");
    let (name, seed) = bugs::CANARY;
    let repeat = format!("replay --seed {seed} --bug {name}");
    assert!(failure.to_string().contains(&repeat), "{failure}");
    let survives = seeded::seed(&Extractor::product(), &seeded::Scenarios::default(), seed);
    assert!(survives.is_ok(), "only the bug makes it fail");
}
