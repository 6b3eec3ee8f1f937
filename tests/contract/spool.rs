//! The spool: inline on a simulated disk that loses power between processes, and on a thread of its
//! own on the real file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use discogs_extractor::broker::Broker;
use discogs_extractor::dump::Kind;
use discogs_extractor::fs::{self, FileSystem, OsFileSystem};
use discogs_extractor::queue::Threaded;
use discogs_extractor::spool::{Options, Spool};
use discogs_extractor::time::{Clock, Instant, SystemClock};
use sim::contract::{Held, Identity, Subject};
use sim::disk::{Disk, Failure, Image, Operation, Planned};
use sim::faults::Faults;
use sim::tape::Tape;
use sim::world::World;
use tempfile::TempDir;

/// Small, so that most checks need several segments.
fn options() -> Options {
    Options {
        segment_bytes_max: 1_000,
        ..Options::default()
    }
}

/// The whole lines of a route's segments, numbered as their names say.
fn held(fs: &dyn FileSystem, spool: &Path, route: Kind) -> Vec<Held> {
    let versions = ["20260801", "20260901"].map(|version| spool.join(version));
    let segments = versions
        .iter()
        .flat_map(|it| fs.list(it).unwrap_or_default());
    let mut held = Vec::new();
    for path in segments {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let Some((_, base)) = name.split_once('-').filter(|(of, _)| *of == route.name()) else {
            continue;
        };
        let bytes = fs::read(fs, &path).unwrap();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let whole = lines.filter_map(|line| line.strip_suffix(b"\n"));
        held.extend((base.parse().unwrap()..).zip(whole).map(of_line));
    }
    held
}

fn of_line((sequence, line): (u64, &[u8])) -> Held {
    Held {
        identity: Identity::Sequence(sequence),
        body: line.to_vec(),
    }
}

/// Its link is the disk: breaking it is a write that fails.
pub(crate) struct OnSimulatedDisk {
    world: World,
    disk: Disk,
}

impl OnSimulatedDisk {
    const DIRECTORY: &str = "spool";

    pub(crate) fn new() -> Self {
        let world = World::new(Tape::benign(), Faults::none());
        let disk = Disk::mount(&world, &Image::new());
        Self { world, disk }
    }

    /// What would be left after a loss of power.
    fn durable(&self) -> Image {
        self.disk.durable()
    }
}

impl Subject for OnSimulatedDisk {
    fn open(&mut self) -> Box<dyn Broker> {
        let durable = self.durable();
        self.world = self.world.next_life(Faults::none());
        self.disk = Disk::mount(&self.world, &durable);
        Box::new(Spool::new(
            Arc::new(self.disk.clone()),
            Arc::new(self.world.clock()),
            PathBuf::from(Self::DIRECTORY),
            options(),
        ))
    }

    fn now(&self) -> Instant {
        self.world.now()
    }

    fn held(&mut self, route: Kind) -> Vec<Held> {
        let world = World::new(Tape::benign(), Faults::none());
        let disk = Disk::mount(&world, &self.durable());
        held(&disk, Path::new(Self::DIRECTORY), route)
    }

    fn is_exactly_once(&self) -> bool {
        true
    }

    fn break_link(&mut self) -> bool {
        self.disk.fail_at(Planned {
            operation: Operation::Write,
            path: ".jsonl".to_owned(),
            nth: 1,
            failure: Failure::Io,
        });
        true
    }
}

pub(crate) struct OnThread {
    directory: TempDir,
    clock: Arc<SystemClock>,
}

impl OnThread {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            clock: Arc::new(SystemClock::new()),
        }
    }

    fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }
}

impl Subject for OnThread {
    fn open(&mut self) -> Box<dyn Broker> {
        let (clock, directory) = (Arc::clone(&self.clock), self.spool());
        let make = move || Spool::new(Arc::new(OsFileSystem), clock, directory, options());
        Box::new(Threaded::new(make, Arc::<SystemClock>::clone(&self.clock)))
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn held(&mut self, route: Kind) -> Vec<Held> {
        held(&OsFileSystem, &self.spool(), route)
    }

    fn is_exactly_once(&self) -> bool {
        true
    }
}
