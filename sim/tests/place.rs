//! A broker of one's own gets the searches and the oracles: one that keeps each message in a file.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use discogs_extractor::broker::{Broker, Command, Disconnect, Event, Message, Session, Waker};
use discogs_extractor::dump::Kind;
use discogs_extractor::fs::FileSystem;
use discogs_extractor::time::Instant;
use sim::disk::Model;
use sim::extractor::Extractor;
use sim::guarantee::Guarantee;
use sim::place::{Held, Inline, Place, Promise};
use sim::program::Life;
use sim::scenario::{Dumps, Scenario};
use sim::scene::Scene;
use sim::search::{Failure, Report, Subject, exhaustive, seeded};

const DIRECTORY: &str = "data";

/// Messages as files `000017.artists`, in the order of their numbers.
#[derive(Debug)]
struct Files {
    /// Whether a message is durable before it is confirmed.
    syncs: bool,
}

impl Place for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    fn open(&self, life: &Life<'_>, fs: &Arc<dyn FileSystem>) -> Box<dyn Broker> {
        let client = Client {
            fs: Arc::clone(fs),
            syncs: self.syncs,
            session: None,
            events: VecDeque::new(),
        };
        Box::new(Inline::new(client, life.world.clock()))
    }

    fn look(&self, scene: &Scene<'_>, see: &mut dyn FnMut(Held<'_>)) {
        for (path, body) in scene.image.files() {
            if let Some((_, route)) = numbered(path) {
                let subject = None;
                see(Held {
                    route,
                    subject,
                    body,
                });
            }
        }
    }
}

/// The number and route in a file's name.
fn numbered(path: &Path) -> Option<(u64, Kind)> {
    let (number, route) = path.file_name()?.to_str()?.split_once('.')?;
    let route = Kind::ALL.into_iter().find(|kind| kind.name() == route)?;
    Some((number.parse().ok()?, route))
}

struct Client {
    fs: Arc<dyn FileSystem>,
    syncs: bool,
    session: Option<Session>,
    events: VecDeque<Event>,
}

impl Client {
    fn store(&self, message: &Message) -> io::Result<()> {
        let directory = Path::new(DIRECTORY);
        let present = self.fs.list(directory)?;
        let last = present.iter().filter_map(|path| numbered(path)).max();
        let number = last.map_or(1, |(number, _)| number + 1);
        let (new, path) = (
            directory.join("incoming"),
            directory.join(format!("{number:06}.{}", message.route)),
        );
        let mut file = self.fs.create(&new)?;
        file.write_all(&message.body)?;
        if self.syncs {
            file.sync()?;
        }
        self.fs.rename(&new, &path)?;
        if self.syncs {
            self.fs.sync_dir(directory)?;
        }
        Ok(())
    }

    fn disconnect(&mut self, why: &str) {
        if let Some(session) = self.session.take() {
            let (why, permanent) = (why.to_owned(), false);
            let disconnect = Disconnect { why, permanent };
            self.events
                .push_back(Event::Disconnected(session, disconnect));
        }
    }
}

impl Broker for Client {
    fn submit(&mut self, command: Command) {
        match command {
            Command::Connect(session) => {
                self.session = Some(session);
                self.events.push_back(Event::Connected(session));
            }
            Command::Publish(tag, message) if self.session.is_some() => {
                match self.store(&message) {
                    Ok(()) => self.events.push_back(Event::Confirmed(tag)),
                    // What follows must not overtake this message.
                    Err(error) => self.disconnect(&error.to_string()),
                }
            }
            Command::Publish(..) => {}
            Command::Disconnect => self.disconnect("closed"),
        }
    }

    fn poll(&mut self, _: Instant) -> Option<Event> {
        self.events.pop_front()
    }

    fn waker(&self) -> Waker {
        Waker::new(|| ())
    }
}

fn crashed(place: &'static dyn Place) -> Result<Report, Box<Failure>> {
    let subject = Subject {
        program: &Extractor::product(),
        scenario: &Scenario::new(&Dumps::new(2), place, 1, 2),
    };
    exhaustive::search(subject, Model::Full, 1)
}

fn seeds(place: &'static dyn Place) -> Result<(), Box<Failure>> {
    let scenarios = seeded::Scenarios::with(vec![place]);
    let seed = |seed| seeded::seed(&Extractor::product(), &scenarios, seed).map(drop);
    (0..100).try_for_each(seed)
}

#[test]
fn a_broker_of_ones_own_survives_the_searches() {
    let report = crashed(&Files { syncs: true }).expect("nothing is broken");
    assert!(report.lives > 500, "{report}");
    seeds(&Files { syncs: true }).expect("nothing is broken");
}

#[test]
fn a_broker_that_confirms_what_is_not_durable_is_found() {
    for found in [
        crashed(&Files { syncs: false }).map(drop),
        seeds(&Files { syncs: false }),
    ] {
        let failure = found.expect_err("what was confirmed is lost");
        assert_eq!(failure.violations[0].guarantee, Guarantee::NeverAhead);
    }
}
