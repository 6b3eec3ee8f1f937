//! The crash-recovery suite: the production pipeline, crashed everywhere.

use sim::disk::Model;
use sim::extractor::Extractor;
use sim::scenario::{Dumps, Place, Scenario};
use sim::search::{Report, Subject, exhaustive, seeded};

fn search(place: Place, records: u64, interval: u64, window: usize, depth: usize) -> Report {
    let scenario = Scenario::new(&Dumps::new(records), place, interval, window);
    let subject = Subject {
        program: &Extractor::product(),
        scenario: &scenario,
    };
    exhaustive::search(subject, Model::Full, depth).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn every_single_crash_of_a_small_run_is_survived() {
    for place in Place::ALL {
        search(place, 3, 2, 2, 1);
        search(place, 5, 3, 4, 1);
    }
}

#[test]
fn two_thousand_seeds_are_survived() {
    let scenarios = seeded::Scenarios::default();
    let mut report = Report::default();
    let mut failures = 0;
    let only: Option<u64> = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    for seed in only.map_or(0..40_000, |s| s..s + 1) {
        match seeded::seed(&Extractor::product(), &scenarios, seed) {
            Ok(one) => report.merge(&one),
            Err(failure) => {
                failures += 1;
                if failures < 6 {
                    println!("{failure}");
                }
            }
        }
    }
    println!(
        "{report:?} {:?}",
        report.reached.missing().collect::<Vec<_>>()
    );
    assert_eq!(failures, 0);
}
