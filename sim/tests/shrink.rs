//! A failure that the seeded search found is made short for people.

use discogs_extractor::broker::{Broker, Command, Event, Waker};
use discogs_extractor::time::Instant;
use sim::extractor::{Extractor, Seams};
use sim::guarantee::Guarantee;
use sim::search::seeded;
use sim::search::sweep::{FAILURES_MAX, sweep};
use sim::tape::Tape;

/// A planted bug: a nack counts as a confirm.
struct Optimist(Box<dyn Broker>);

impl Broker for Optimist {
    fn submit(&mut self, command: Command) {
        self.0.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        Some(match self.0.poll(deadline)? {
            Event::Rejected(tag, _) => Event::Confirmed(tag),
            event => event,
        })
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }
}

fn optimist() -> Extractor {
    let seams = Seams {
        broker: |inner| Box::new(Optimist(inner)),
        ..Seams::default()
    };
    Extractor { seams }
}

/// The tape of a command.
fn tape_of(command: &str) -> Vec<u32> {
    let numbers = command.strip_prefix("replay --tape ").expect(command);
    let numbers = numbers
        .split(',')
        .map(|number| number.parse().expect(command));
    numbers.collect()
}

#[test]
fn a_failing_seed_is_shown_as_the_shortest_run_that_breaks_the_same() {
    let scenarios = seeded::Scenarios::default();
    let found = (0..500).find_map(|seed| {
        let failure = seeded::seed(&optimist(), &scenarios, seed).err()?;
        Some((seed, failure))
    });
    let (seed, failure) = found.expect("the bug is found");
    let before = failure.timeline.lines().count();
    let guarantee = failure.violations[0].guarantee;
    let failure = seeded::shrunk(&optimist(), &scenarios, seed, failure);
    let after = failure.timeline.lines().count();
    assert!(after < before, "{after} lines of {before}");

    let tape = tape_of(failure.shortest.as_deref().expect("it is short enough"));
    let recorded = Tape::recorded(tape.clone());
    let outcome = seeded::run(&optimist(), &scenarios, &recorded, true);
    assert_eq!(outcome.violations[0].guarantee, guarantee);
    assert_eq!(outcome.timeline, failure.timeline);
    // The one kind of fault that it takes, and that it happens: no crash, no other fault.
    assert_eq!(
        tape.iter().filter(|&&number| number != 0).count(),
        2,
        "{tape:?} {failure}"
    );
    assert!(failure.timeline.contains("[Nack]"), "{failure}");

    let shown = failure.to_string();
    assert!(
        shown.contains(&format!("replay --seed {seed}\n")),
        "{shown}"
    );
    assert!(shown.contains("replay --tape "), "{shown}");
    assert!(shown.contains(Guarantee::NeverAhead.words()), "{shown}");
}

#[test]
fn a_sweep_tells_every_seed_that_fails_and_shows_a_few() {
    let sweep = sweep(&optimist(), 0..100, 2, |_, _| {});
    assert!(sweep.failed.len() > FAILURES_MAX, "{:?}", sweep.failed);
    assert!(sweep.failed.is_sorted());
    assert_eq!(sweep.failures.len(), FAILURES_MAX);
    assert_eq!(sweep.report.runs + sweep.failed.len() as u64, 100);
    let failure = sweep.failures[0].clone().at_commit("0123abcd");
    assert!(
        failure.to_string().ends_with("  # at commit 0123abcd\n"),
        "{failure}"
    );
}
