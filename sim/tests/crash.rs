//! The crash-recovery suite: the production pipeline, crashed at every operation; and copies of it
//! with a planted bug, which must not survive that.

use discogs_extractor::broker::{Broker, Command, Event, Waker};
use discogs_extractor::driver::Saver;
use discogs_extractor::marker::{Frontier, Save, SaveError};
use discogs_extractor::time::Instant;
use sim::disk::Model;
use sim::extractor::{Extractor, Seams};
use sim::guarantee::Guarantee;
use sim::scenario::{Dumps, Place, Scenario};
use sim::search::{Failure, Report, Subject, exhaustive};

fn search(
    program: Extractor,
    place: Place,
    (records, interval, window): (u64, u64, usize),
    (model, depth): (Model, usize),
) -> Result<Report, Box<Failure>> {
    let scenario = Scenario::new(&Dumps::new(records), place, interval, window);
    let subject = Subject {
        program: &program,
        scenario: &scenario,
    };
    exhaustive::search(subject, model, depth)
}

/// The product survives, and the search did happen.
fn check(place: Place, run: (u64, u64, usize), crash: (Model, usize)) {
    let report = search(Extractor::product(), place, run, crash);
    let report = report.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.crashes.iter().sum::<u64>() >= 200, "{report:?}");
    assert!(report.images >= report.crashes.iter().sum(), "{report:?}");
}

#[test]
fn every_crash_of_a_small_run_into_rabbitmq_is_survived() {
    for run in [(1, 1, 1), (3, 2, 2), (5, 3, 4), (12, 5, 3)] {
        check(Place::RabbitMq, run, (Model::Full, 1));
    }
}

#[test]
fn every_crash_of_a_small_run_into_the_spool_is_survived() {
    for run in [(1, 1, 1), (3, 2, 2), (5, 3, 4), (12, 5, 3)] {
        check(Place::Spool, run, (Model::Full, 1));
    }
}

#[test]
fn every_model_of_a_crash_is_survived() {
    for model in [Model::Kill, Model::Strict, Model::Torn] {
        for place in Place::ALL {
            check(place, (3, 2, 2), (model, 1));
        }
    }
}

#[test]
fn every_crash_of_a_recovery_from_a_crash_is_survived() {
    check(Place::RabbitMq, (1, 1, 1), (Model::Full, 2));
}

#[test]
fn every_crash_of_a_recovery_of_the_spool_is_survived() {
    check(Place::Spool, (1, 1, 1), (Model::Full, 2));
}

/// A bug is found, and by the guarantee that it breaks.
fn finds(seams: Seams, expected: Guarantee) {
    let (run, crash) = ((3, 1, 100), (Model::Full, 2));
    let failure = search(Extractor { seams }, Place::RabbitMq, run, crash);
    let failure = failure.expect_err("the bug is found");
    let broken: Vec<_> = failure.violations.iter().map(|it| it.guarantee).collect();
    assert!(broken.contains(&expected), "{failure}");
}

/// Takes a message for confirmed as soon as it is submitted.
struct Hasty {
    inner: Box<dyn Broker>,
    confirmed: Vec<Event>,
}

impl Broker for Hasty {
    fn submit(&mut self, command: Command) {
        if let Command::Publish(tag, _) = &command {
            self.confirmed.push(Event::Confirmed(*tag));
        }
        self.inner.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.confirmed.pop().or_else(|| self.inner.poll(deadline))
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

#[test]
fn a_checkpoint_before_the_confirm_is_found() {
    let broker = |inner| -> Box<dyn Broker> {
        Box::new(Hasty {
            inner,
            confirmed: Vec::new(),
        })
    };
    let seams = Seams {
        broker,
        ..Seams::default()
    };
    finds(seams, Guarantee::NeverAhead);
}

/// Reports every save as done without making it.
struct Forgetful(bool);

impl Saver for Forgetful {
    fn start(&mut self, _save: Save) {
        self.0 = true;
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        std::mem::take(&mut self.0).then_some(Ok(()))
    }
}

#[test]
fn a_save_that_was_not_made_is_found() {
    let seams = Seams {
        saver: |_| Box::new(Forgetful(false)),
        ..Seams::default()
    };
    finds(seams, Guarantee::Durable);
}

#[test]
fn a_resume_from_the_start_is_found() {
    let seams = Seams {
        plan: |_, mut plan| {
            for planned in &mut plan.dumps {
                planned.checkpoint.frontier = Frontier::default();
            }
            plan
        },
        ..Seams::default()
    };
    finds(seams, Guarantee::Durable);
}
