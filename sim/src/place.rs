//! Where messages go: the one door for brokers.
//!
//! A [`Place`] says how a life of the process reaches its broker, what the broker promises, and what
//! it holds at one moment. What outlives the process is in one of two places, and nowhere else: in
//! files of the simulated [disk](crate::disk), which lose in a crash what was not synced, or in the
//! [`Server`](crate::broker::Server), which loses nothing that it has stored. So whoever writes a place
//! keeps no state of their own between two lives, and every search can go on from any state that a
//! crash leaves.
//!
//! [`RABBITMQ`] and [`SPOOL`] are places like any other.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use discogs_extractor::broker::{Broker, Command, Event, Subject, Waker};
use discogs_extractor::dump::Kind;
use discogs_extractor::fs::FileSystem;
use discogs_extractor::spool::Spool;
use discogs_extractor::time::Instant;

use crate::clock::VirtualClock;
use crate::disk::Image;
use crate::program::Life;
use crate::scenario::Scenario;
use crate::scene::Scene;

/// Where messages go.
pub trait Place: fmt::Debug + Sync {
    /// The name on the command line, no other place's.
    fn name(&self) -> &'static str;

    /// What is promised of repeats.
    fn promise(&self) -> Promise;

    /// The broker as one life of the process meets it; `fs` is its file system. A broker that has no
    /// time of its own is put into [`Inline`].
    fn open(&self, life: &Life<'_>, fs: &Arc<dyn FileSystem>) -> Box<dyn Broker>;

    /// Shows every message that consumers would get at this moment, repeats included, in the order
    /// in which they get them; of different routes too if the promise is [`Promise::AtLeastOnce`].
    fn look(&self, scene: &Scene<'_>, see: &mut dyn FnMut(Held<'_>));

    /// Whether what there is of a route ends in the middle of a message.
    fn is_torn(&self, _scene: &Scene<'_>, _route: Kind) -> bool {
        false
    }
}

/// What a broker promises of repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Every message is held once, in order, and nothing else is.
    ExactlyOnce,
    /// Messages are repeated after a crash; their first deliveries are in order.
    AtLeastOnce,
}

/// A message that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<'a> {
    /// Its route.
    pub route: Kind,
    /// What it says to be, if that is kept beside the body.
    pub subject: Option<Subject>,
    /// Its bytes.
    pub body: &'a [u8],
}

impl PartialEq for dyn Place {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Place {}

impl PartialOrd for dyn Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

/// The simulated RabbitMQ.
pub const RABBITMQ: &dyn Place = &RabbitMq;

/// The product's spool, on the simulated disk.
pub const SPOOL: &dyn Place = &Spooled;

/// The places that the product is searched with.
pub const ALL: [&dyn Place; 2] = [RABBITMQ, SPOOL];

#[derive(Debug)]
struct RabbitMq;

impl Place for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    fn open(&self, life: &Life<'_>, _: &Arc<dyn FileSystem>) -> Box<dyn Broker> {
        let client = Box::new(life.server.client(&life.world));
        (life.physics.broker)(client, life.world.clock())
    }

    fn look(&self, scene: &Scene<'_>, see: &mut dyn FnMut(Held<'_>)) {
        scene.server.with_stored(|stored| {
            for message in stored.iter().map(|stored| &stored.message) {
                see(Held {
                    route: message.route,
                    subject: Some(message.subject),
                    body: &message.body,
                });
            }
        });
    }
}

#[derive(Debug)]
struct Spooled;

/// Where the spool is.
const DIRECTORY: &str = "spool";

impl Place for Spooled {
    fn name(&self) -> &'static str {
        "spool"
    }

    fn promise(&self) -> Promise {
        Promise::ExactlyOnce
    }

    fn open(&self, life: &Life<'_>, fs: &Arc<dyn FileSystem>) -> Box<dyn Broker> {
        let spool = Spool::new(
            Arc::clone(fs),
            Arc::new(life.world.clock()),
            DIRECTORY.into(),
            life.scenario.spool.clone(),
        );
        Box::new(Inline::new(spool, life.world.clock()))
    }

    /// The whole lines of each route, in order. What follows the last line end is not finished.
    fn look(&self, scene: &Scene<'_>, see: &mut dyn FnMut(Held<'_>)) {
        for route in Kind::ALL {
            let segments = segments(scene.image, route);
            let texts = segments.iter().filter_map(|path| scene.image.read(path));
            let lines = texts.flat_map(|text| text.split_inclusive(|&byte| byte == b'\n'));
            for body in lines.filter_map(|line| line.strip_suffix(b"\n")) {
                let subject = None;
                see(Held {
                    route,
                    subject,
                    body,
                });
            }
        }
    }

    fn is_torn(&self, scene: &Scene<'_>, route: Kind) -> bool {
        let last = segments(scene.image, route)
            .last()
            .and_then(|path| scene.image.read(path));
        last.is_some_and(|text| !text.is_empty() && !text.ends_with(b"\n"))
    }
}

fn segments(image: &Image, route: Kind) -> Vec<PathBuf> {
    let directory = Path::new(DIRECTORY).join(Scenario::version().as_str());
    let prefix = format!("{route}-");
    let paths = image.files().map(|(path, _)| path);
    let segments = paths.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_default();
        path.parent() == Some(&*directory) && name.starts_with(&prefix) && name.ends_with(".jsonl")
    });
    segments.map(Path::to_owned).collect()
}

/// A broker that does its work in `submit`, without a thread and without time of its own: a wait in
/// which nothing happens jumps to the deadline.
#[derive(Debug)]
pub struct Inline<B> {
    broker: B,
    clock: VirtualClock,
}

impl<B: Broker> Inline<B> {
    /// `broker`, in the time of a [life](crate::world::World::clock).
    pub const fn new(broker: B, clock: VirtualClock) -> Self {
        Self { broker, clock }
    }
}

impl<B: Broker> Broker for Inline<B> {
    fn submit(&mut self, command: Command) {
        self.broker.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        let event = self.broker.poll(deadline);
        if event.is_none() {
            self.clock.advance_to(deadline);
        }
        event
    }

    fn waker(&self) -> Waker {
        self.broker.waker()
    }
}
