//! The crash-recovery suite: the production pipeline, crashed everywhere.
//!
//! `cargo run --release -p sim -- explore` and `exhaustive` run the long form.

use sim::disk::{Failure, Model, Operation, Planned};
use sim::extractor::Extractor;
use sim::place::{self, Place};
use sim::scenario::{DATA, Dumps, Scenario};
use sim::search::sweep::{first_seed, sweep};
use sim::search::{Report, Subject, exhaustive, seeded};
use sim::sometimes::Sometimes;
use sim::tape::Tape;

/// The product, crashed everywhere in a run of so many records of each dump.
fn search(
    place: &'static dyn Place,
    records: u64,
    interval: u64,
    window: usize,
    depth: usize,
) -> Report {
    search_on(Model::Full, place, records, interval, window, depth)
}

fn search_on(
    model: Model,
    place: &'static dyn Place,
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

fn single_crashes(place: &'static dyn Place) {
    for (records, interval, window) in [(3, 2, 2), (2, 1, 1), (5, 3, 4), (9, 10, 8)] {
        let report = search(place, records, interval, window, 1);
        assert!(report.lives > 500, "{report}");
    }
}

#[test]
fn every_single_crash_is_survived_with_rabbitmq() {
    single_crashes(place::RABBITMQ);
}

#[test]
fn every_single_crash_is_survived_with_the_spool() {
    single_crashes(place::SPOOL);
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
        for place in place::ALL {
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
    for place in place::ALL {
        for model in [Model::Torn, Model::Unordered] {
            search_on(model, place, 1, 1, 1, 1);
        }
    }
}

#[test]
fn every_two_crashes_are_survived_with_rabbitmq() {
    let report = search(place::RABBITMQ, 1, 1, 1, 2);
    assert!(report.lives > 10_000, "{report}");
}

#[test]
fn every_two_crashes_are_survived_with_the_spool() {
    let report = search(place::SPOOL, 1, 1, 1, 2);
    assert!(report.lives > 10_000, "{report}");
}

/// A sweep that misses a point or a fault has not shown that it works. The seeds are those of the commit that
/// `ci/test` names; without one they are always the same.
#[test]
fn two_thousand_seeds_are_survived_and_reach_every_point_and_fault() {
    #[expect(clippy::disallowed_methods, reason = "CI says which commit it tests")]
    let commit = std::env::var("SIM_COMMIT").ok();
    let first = commit.as_ref().map_or(0, |commit| {
        first_seed(commit).expect("SIM_COMMIT is the hash of a commit")
    });
    let sweep = sweep(&Extractor::product(), first..first + 2_000, 1, |_, _| {});
    if let Some(failure) = sweep.failures.into_iter().next() {
        let failure = match &commit {
            Some(commit) => failure.at_commit(commit),
            None => failure,
        };
        panic!("{failure}");
    }
    let missing: Vec<_> = sweep.report.reached.missing().collect();
    assert_eq!(missing, [], "seeds from {first} on, {}", sweep.report);
    let unfired: Vec<_> = sweep.report.unfired().collect();
    assert_eq!(unfired, [], "seeds from {first} on, {}", sweep.report);
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

/// Of seeds 0, 1, 2 and so on.
const TRACE_HASHES: [u64; 16] = [
    0x99037184f7a92a02,
    0xfacc7c53d7672764,
    0x86117e6d4c3ae125,
    0x1a53d210a748a06b,
    0x37b84c8a84b266e9,
    0x421343d9f55c7710,
    0xf6e9f4b6e55bf89d,
    0x82f3e5c927204f17,
    0xf9c8243d65081d84,
    0xceb4a85d0de530f7,
    0x19e37e3908f2f99d,
    0xffc896bdd1624962,
    0x9c450caef932d117,
    0x20fefa721850882f,
    0x1a50cf270714c2b4,
    0xbad13e1d0e4aaea3,
];

/// In debug and release builds and on every machine: `ci/test` and `ci/sim` hold the same list.
#[test]
fn a_seed_is_the_same_run_everywhere() {
    let scenarios = seeded::Scenarios::default();
    let hash = |seed| {
        let tape = Tape::seeded(seed);
        seeded::run(&Extractor::product(), &scenarios, &tape, false).trace_hash
    };
    let seeds = 0..TRACE_HASHES.len() as u64;
    let hashes: Vec<_> = seeds.map(hash).collect();
    let listed: Vec<_> = hashes.iter().map(|it| format!("{it:#018x},")).collect();
    assert_eq!(
        hashes,
        TRACE_HASHES,
        "a build or a machine decides something; or, if a change of the product, its draws or a \
         library is meant to change runs, `TRACE_HASHES` is now:\n{}",
        listed.join("\n")
    );
}
