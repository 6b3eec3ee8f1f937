//! The crash-recovery suite: the production pipeline, crashed everywhere.
//!
//! `cargo run --release -p sim -- explore` and `exhaustive` run the long form.

use sim::disk::{Failure, Model, Operation, Planned};
use sim::extractor::Extractor;
use sim::scenario::{DATA, Dumps, Place, Scenario};
use sim::search::{Report, Subject, exhaustive, seeded};
use sim::sometimes::Sometimes;
use sim::tape::Tape;

/// The product, crashed everywhere in a run of so many records of each dump.
fn search(place: Place, records: u64, interval: u64, window: usize, depth: usize) -> Report {
    search_on(Model::Full, place, records, interval, window, depth)
}

fn search_on(
    model: Model,
    place: Place,
    records: u64,
    interval: u64,
    window: usize,
    depth: usize,
) -> Report {
    let scenario = Scenario::new(&Dumps::new(records), place, interval, window);
    let subject = Subject {
        program: &Extractor::product(),
        scenario: &scenario,
    };
    let report = exhaustive::search(subject, model, depth);
    report.unwrap_or_else(|failure| panic!("{failure}"))
}

fn single_crashes(place: Place) {
    for (records, interval, window) in [(3, 2, 2), (2, 1, 1), (5, 3, 4), (9, 10, 8)] {
        let report = search(place, records, interval, window, 1);
        assert!(report.lives > 500, "{report}");
    }
}

#[test]
fn every_single_crash_is_survived_with_rabbitmq() {
    single_crashes(Place::RabbitMq);
}

#[test]
fn every_single_crash_is_survived_with_the_spool() {
    single_crashes(Place::Spool);
}

/// One operation of the first save fails, and a crash falls anywhere before, in or after that.
#[test]
fn a_crash_around_a_failed_save_is_survived() {
    let steps = [
        (Operation::Create, ".tmp"),
        (Operation::Write, ".tmp"),
        (Operation::Sync, ".tmp"),
        (Operation::Rename, ".extraction_status"),
        (Operation::SyncDir, DATA),
    ];
    for (operation, path) in steps {
        for place in Place::ALL {
            let mut scenario = Scenario::new(&Dumps::new(2), place, 1, 2);
            scenario.planned.push(Planned {
                operation,
                path: path.to_owned(),
                nth: 1,
                failure: Failure::Io,
            });
            let subject = Subject {
                program: &Extractor::product(),
                scenario: &scenario,
            };
            let report = exhaustive::search(subject, Model::Full, 1);
            let report = report.unwrap_or_else(|failure| panic!("{operation:?}: {failure}"));
            assert!(
                report.reached.has(Sometimes::SaveFailed),
                "{operation:?}: {report}"
            );
        }
    }
}

/// Torn pages, and file systems on which names become durable in any order.
#[test]
fn worse_disks_are_survived() {
    for place in Place::ALL {
        for model in [Model::Torn, Model::Unordered] {
            search_on(model, place, 3, 2, 2, 1);
        }
    }
}

#[test]
fn every_two_crashes_are_survived_with_rabbitmq() {
    let report = search(Place::RabbitMq, 1, 1, 1, 2);
    assert!(report.lives > 10_000, "{report}");
}

#[test]
fn every_two_crashes_are_survived_with_the_spool() {
    let report = search(Place::Spool, 1, 1, 1, 2);
    assert!(report.lives > 10_000, "{report}");
}

/// A sweep that misses a point has not shown that it works.
#[test]
fn two_thousand_seeds_are_survived_and_reach_every_point() {
    let scenarios = seeded::Scenarios::default();
    let mut all = Report::default();
    for seed in 0..2_000 {
        let report = seeded::seed(&Extractor::product(), &scenarios, seed);
        all.merge(&report.unwrap_or_else(|failure| panic!("{failure}")));
    }
    assert_eq!(all.reached.missing().collect::<Vec<_>>(), []);
}

#[test]
fn a_seed_and_its_recording_are_the_same_run() {
    let scenarios = seeded::Scenarios::default();
    let hash = |tape: &Tape, is_logged| {
        seeded::run(&Extractor::product(), &scenarios, tape, is_logged).trace_hash
    };
    for seed in 0..50 {
        let tape = Tape::seeded(seed);
        let first = hash(&tape, false);
        assert_eq!(hash(&Tape::seeded(seed), true), first, "seed {seed} again");
        let recorded = Tape::recorded(tape.recording());
        assert_eq!(
            hash(&recorded, false),
            first,
            "the recording of seed {seed}"
        );
    }
}
