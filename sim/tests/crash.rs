//! The crash-recovery suite: the production pipeline, crashed everywhere.

use sim::disk::Model;
use sim::extractor::Extractor;
use sim::scenario::{Dumps, Place, Scenario};
use sim::search::{Report, Subject, exhaustive};

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
        let start = std::time::Instant::now();
        for (records, interval, window, depth) in
            [(3, 2, 2, 1), (1, 1, 1, 1), (1, 1, 1, 2), (5, 3, 4, 1)]
        {
            let start = std::time::Instant::now();
            let report = search(place, records, interval, window, depth);
            println!(
                "{place:?} {records} {depth} {report:?} {:?}",
                start.elapsed()
            );
        }
    }
}
