//! A marker protocol of one's own under the simulator: what is saved too early is lost.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{Command, Event, Session, Tag};
use discogs_extractor::fs::{self, FileSystem};
use sim::disk::{Image, Model};
use sim::place;
use sim::program::{Done, Exit, Life, Program};
use sim::scenario::{Dumps, Scenario};
use sim::search::{Subject, exhaustive};

/// Publishes two messages at a time, and keeps the number of those done in a file.
struct Batches {
    /// The common protocol: done is what was handed to the broker.
    saves_early: bool,
}

fn number(bytes: &[u8]) -> usize {
    str::from_utf8(bytes).map_or(0, |text| text.parse().unwrap_or(0))
}

fn save(life: &Life<'_>, fs: &dyn FileSystem, done: usize) -> io::Result<()> {
    let mut file = fs.create("data/done.tmp".as_ref())?;
    file.write_all(done.to_string().as_bytes())?;
    file.sync()?;
    fs.rename("data/done.tmp".as_ref(), "data/done".as_ref())?;
    fs.sync_dir("data".as_ref())?;
    life.probe.saved(life.world.now(), life.scenario.done(done));
    Ok(())
}

fn publish(life: &Life<'_>, saves_early: bool) -> io::Result<Exit> {
    let fs = life.file_system();
    let patience = Duration::from_secs(10);
    let mut done = fs::read(&*fs, "data/done".as_ref()).map_or(0, |bytes| number(&bytes));
    let mut broker = life.broker(&fs);
    broker.submit(Command::Connect(Session(1)));
    broker.poll(life.world.now() + patience);
    for batch in life.scenario.messages()[done..].chunks(2) {
        for (tag, message) in (done as u64..).zip(batch) {
            broker.submit(Command::Publish(Tag(tag), Arc::clone(message)));
        }
        done += batch.len();
        if saves_early {
            save(life, &*fs, done)?;
        }
        for _ in batch {
            let Some(Event::Confirmed(_)) = broker.poll(life.world.now() + patience) else {
                return Ok(Exit::Failed("no confirm".to_owned()));
            };
        }
        if !saves_early {
            save(life, &*fs, done)?;
        }
    }
    Ok(Exit::Complete)
}

impl Program for Batches {
    fn live(&self, life: &Life<'_>) -> Exit {
        publish(life, self.saves_early).unwrap_or_else(|error| Exit::Failed(error.to_string()))
    }

    fn done(&self, scenario: &Scenario, image: &Image) -> Result<Done, String> {
        Ok(scenario.done(image.read("data/done").map_or(0, number)))
    }
}

fn main() {
    let scenario = &Scenario::new(&Dumps::well_formed(2), place::RABBITMQ, 2, 2);
    let search =
        |program, depth| exhaustive::search(Subject { program, scenario }, Model::Full, depth);
    let lost = search(&Batches { saves_early: true }, 1).expect_err("records are lost");
    println!("{lost}");
    assert!(lost.to_string().contains("broken: nothing is lost"));
    search(&Batches { saves_early: false }, 2).expect("nothing is lost");
}
