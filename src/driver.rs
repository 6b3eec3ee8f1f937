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
    /// The records behind `from`.
    ///
    /// # Errors
    /// The dump can't be read, or is none.
    fn open(&mut self, dump: &Dump, from: Position) -> Result<Reads, SourceError>;
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
        // Comes first, because it may use up a wake: what the wake was for is looked at below.
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
            Output::Open(dump, position) => match outside.dumps.open(&dump, position) {
                Ok(opened) => reads = opened,
                Err(error) => extraction.handle(now, Input::Read(Err(error))),
            },
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
