//! The loop between the extraction and the outside world: the same in production and in a
//! simulation.
//!
//! Everything that waits, fails or has an order of its own is behind [`Outside`]; the loop itself
//! decides nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::broker::Broker;
use crate::dump::Dump;
use crate::extraction::{Ending, Extraction, Input, Notice, Output};
use crate::marker::{Save, SaveError};
use crate::record::Position;
use crate::seek_point::SeekPoint;
use crate::source::{Reads, SourceError};
use crate::time::{Clock, Instant};

/// Runs saves beside the pipeline, at most one at a time.
pub trait Saver {
    /// Begins a save.
    fn start(&mut self, save: Save);

    /// How the save ended, once it has; never waits. A saver on a thread of its own wakes the
    /// broker's wait when there is something to poll.
    fn poll(&mut self) -> Option<Result<(), SaveError>>;
}

/// Opens a dump at a position between two records.
pub trait Open {
    /// The records behind `from`, by way of a seek point before it if there is one.
    ///
    /// # Errors
    /// The dump can't be read, or is none.
    fn open(
        &mut self,
        dump: &Dump,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<Reads, SourceError>;
}

/// Watches a run. Nothing that it does changes the run.
pub trait Observer {
    /// Something happened that a user wants to be told.
    fn notice(&mut self, now: Instant, notice: &Notice, extraction: &Extraction);

    /// The run has made a step; called often, so it must be cheap.
    fn step(&mut self, now: Instant, extraction: &Extraction);
}

/// The outside world.
pub struct Outside<'a> {
    /// Time.
    pub clock: &'a dyn Clock,
    /// Where messages go.
    pub broker: &'a mut dyn Broker,
    /// Where state goes.
    pub saver: &'a mut dyn Saver,
    /// Where records come from.
    pub dumps: &'a mut dyn Open,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Set, from a signal or another thread, to stop the run.
    pub stop: &'a AtomicBool,
}

/// Runs an extraction to its end.
pub fn run(extraction: &mut Extraction, outside: &mut Outside<'_>) -> Ending {
    let mut reads: Reads = Box::new(std::iter::empty());
    let mut is_stopping = false;
    loop {
        let now = outside.clock.now();
        // The broker comes first, because asking it uses up a wake: what the wake is about is
        // looked at afterwards, or the wait below would sleep over it.
        while let Some(event) = outside.broker.poll(now) {
            extraction.handle(now, Input::Broker(event));
        }
        if !is_stopping && outside.stop.load(Ordering::Relaxed) {
            is_stopping = true;
            extraction.handle(now, Input::Stop);
        }
        if let Some(result) = outside.saver.poll() {
            extraction.handle(now, Input::Saved(result));
        }
        match extraction.poll(now) {
            Output::Open(dump, position, seek_point) => {
                match outside.dumps.open(&dump, position, seek_point) {
                    Ok(opened) => reads = opened,
                    Err(error) => extraction.handle(now, Input::Read(Err(error))),
                }
            }
            Output::Pull => {
                let read = reads
                    .next()
                    .expect("nothing is pulled after the end of a dump");
                extraction.handle(now, Input::Read(read));
            }
            Output::Submit(command) => outside.broker.submit(command),
            Output::Save(save) => outside.saver.start(save),
            Output::Notice(notice) => outside.observer.notice(now, &notice, extraction),
            Output::Wait(deadline) => {
                if let Some(event) = outside.broker.poll(deadline) {
                    extraction.handle(outside.clock.now(), Input::Broker(event));
                }
            }
            Output::Over(ending) => return ending,
        }
        outside.observer.step(now, extraction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Command, Disconnect, Event, Session, Waker};
    use crate::dump::{Kind, Version, file_name};
    use crate::extraction::Options;
    use crate::marker::{Marker, Paths, Status};
    use crate::plan::Plan;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::path::Path;
    use std::rc::Rc;
    use std::time::Duration;

    const NOW: Instant = Instant::from_nanoseconds(1);

    /// A world that stands still and takes everything. A save is over, and its wake used up,
    /// whenever the broker is asked and has no event: the worst moment.
    #[derive(Default)]
    struct World {
        session: Option<Session>,
        events: VecDeque<Event>,
        is_saving: bool,
        is_saved: bool,
    }

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<World>>);

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Instant {
            NOW
        }

        fn unix(&self) -> Duration {
            Duration::ZERO
        }
    }

    impl Broker for Shared {
        fn submit(&mut self, command: Command) {
            let mut world = self.0.borrow_mut();
            let event = match command {
                Command::Connect(session) => {
                    world.session = Some(session);
                    Event::Connected(session)
                }
                Command::Publish(tag, _) => Event::Confirmed(tag),
                Command::Disconnect => {
                    let (why, permanent) = (String::new(), false);
                    let session = world.session.take().expect("connected");
                    Event::Disconnected(session, Disconnect { why, permanent })
                }
            };
            world.events.push_back(event);
        }

        fn poll(&mut self, deadline: Instant) -> Option<Event> {
            let mut world = self.0.borrow_mut();
            let event = world.events.pop_front();
            let is_wait = deadline > NOW && event.is_none();
            assert!(!(is_wait && world.is_saved), "nobody sleeps over a save");
            world.is_saved |= world.is_saving && event.is_none();
            event
        }

        fn waker(&self) -> Waker {
            Waker::new(|| ())
        }
    }

    impl Saver for Shared {
        fn start(&mut self, _: Save) {
            self.0.borrow_mut().is_saving = true;
        }

        fn poll(&mut self) -> Option<Result<(), SaveError>> {
            let mut world = self.0.borrow_mut();
            let is_saved = std::mem::take(&mut world.is_saved);
            world.is_saving &= !is_saved;
            is_saved.then_some(Ok(()))
        }
    }

    impl Open for Shared {
        fn open(
            &mut self,
            _: &Dump,
            _: Position,
            _: Option<SeekPoint>,
        ) -> Result<Reads, SourceError> {
            unreachable!("every dump is completed")
        }
    }

    impl Observer for Shared {
        fn notice(&mut self, _: Instant, _: &Notice, _: &Extraction) {}

        fn step(&mut self, _: Instant, _: &Extraction) {}
    }

    #[test]
    fn the_end_of_a_save_is_never_slept_over() {
        let version: Version = "20260801".parse().unwrap();
        let mut marker = Marker::new(&version);
        for kind in Kind::ALL {
            marker.file_mut(&file_name(&version, kind)).status = Status::Completed;
        }
        let plan = Plan {
            paths: Paths::new(Path::new(""), &version),
            version,
            marker,
            dumps: Vec::new(),
            warnings: Vec::new(),
        };
        let mut extraction = Extraction::new(plan, Options::default(), NOW, Duration::ZERO);
        let world = Shared::default();
        let mut outside = Outside {
            clock: &Still,
            broker: &mut world.clone(),
            saver: &mut world.clone(),
            dumps: &mut world.clone(),
            observer: &mut world.clone(),
            stop: &AtomicBool::new(false),
        };
        assert_eq!(run(&mut extraction, &mut outside), Ending::Complete);
    }
}
