//! A failure that the seeded search found is made short for people.

use discogs_extractor::broker::{Broker, Command, Event, Waker};
use discogs_extractor::time::Instant;
use sim::extractor::{Extractor, Seams};
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

/// Shrinks a seed that fails, and returns the tape that is shown for it and its timeline.
fn shrunk(scenarios: &seeded::Scenarios, seed: u64) -> Option<(Vec<u32>, String)> {
    let failure = seeded::seed(&optimist(), scenarios, seed).err()?;
    let guarantee = failure.violations[0].guarantee;
    let failure = seeded::shrunk(&optimist(), scenarios, seed, failure);

    let tape = tape_of(failure.shortest.as_deref().expect("it is short enough"));
    let whole = Tape::seeded(seed);
    seeded::run(&optimist(), scenarios, &whole, false);
    let (after, before) = (tape.len(), whole.choices().len());
    assert!(after < before, "{after} choices of {before}");

    let recorded = Tape::recorded(tape.clone());
    let outcome = seeded::run(&optimist(), scenarios, &recorded, true);
    assert_eq!(outcome.violations[0].guarantee, guarantee);
    assert_eq!(outcome.timeline, failure.timeline);

    let shown = failure.to_string();
    assert!(
        shown.contains(&format!("replay --seed {seed}\n")),
        "{shown}"
    );
    assert!(shown.contains("replay --tape "), "{shown}");
    assert!(shown.contains(guarantee.words()), "{shown}");
    Some((tape, failure.timeline))
}

#[test]
fn a_failing_seed_is_shown_as_a_short_run_that_breaks_the_same() {
    let scenarios = seeded::Scenarios::default();
    let shown = (0..2_000).filter_map(|seed| shrunk(&scenarios, seed));
    let deviations = |tape: &[u32]| tape.iter().filter(|&&number| number != 0).count();
    let shown: Vec<_> = shown.take(5).collect();
    let simplest = shown.iter().min_by_key(|(tape, _)| deviations(tape));
    let (tape, timeline) = simplest.expect("the bug is found");
    // The one kind of fault that it takes, and that it happens: no crash, no other fault.
    assert_eq!(deviations(tape), 2, "{tape:?}\n{timeline}");
    assert!(timeline.contains("[Nack]"), "{timeline}");
}

#[test]
fn a_sweep_tells_every_seed_that_fails_and_shows_a_few() {
    let sweep = sweep(&optimist(), 0..400, 2, |_, _| {});
    assert!(sweep.failed.len() > FAILURES_MAX, "{:?}", sweep.failed);
    assert!(sweep.failed.is_sorted());
    assert_eq!(sweep.failures.len(), FAILURES_MAX);
    assert_eq!(sweep.report.runs + sweep.failed.len() as u64, 400);
    let failure = sweep.failures[0].clone().at_commit("0123abcd");
    assert!(
        failure.to_string().ends_with("  # at commit 0123abcd\n"),
        "{failure}"
    );
}
