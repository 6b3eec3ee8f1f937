//! Searches find bugs: a few that are planted through the seams, each with the promise it breaks.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use discogs_extractor::broker::{Broker, Command, Event, Waker};
use discogs_extractor::driver::Saver;
use discogs_extractor::fs::{FileRead, FileSystem, FileWrite, Lock, Metadata};
use discogs_extractor::marker::{Save, SaveError};
use discogs_extractor::plan::Plan;
use discogs_extractor::time::Instant;
use sim::disk::Model;
use sim::extractor::{Extractor, Seams};
use sim::guarantee::Guarantee;
use sim::scenario::{Dumps, Place, Scenario};
use sim::search::{Failure, Subject, exhaustive, seeded};

fn exhaustively(seams: Seams) -> Box<Failure> {
    let scenario = Scenario::new(&Dumps::new(3), Place::RabbitMq, 2, 2);
    let subject = Subject {
        program: &Extractor { seams },
        scenario: &scenario,
    };
    exhaustive::search(subject, Model::Full, 1).expect_err("the bug is found")
}

fn by_seeds(seams: Seams) -> Box<Failure> {
    let scenarios = seeded::Scenarios::default();
    let mut seeds = 0..500;
    let failure = seeds.find_map(|seed| seeded::seed(&Extractor { seams }, &scenarios, seed).err());
    failure.expect("the bug is found")
}

/// What is broken first, and that the failure can be repeated by people.
fn check(failure: &Failure, expected: Guarantee) {
    assert_eq!(failure.violations[0].guarantee, expected, "{failure}");
    assert!(failure.to_string().contains("replay --"), "{failure}");
    assert!(failure.timeline.contains("disk.rename"), "{failure}");
}

/// Passes everything on, but syncs nothing of what it is told not to.
struct Unsynced {
    inner: Arc<dyn FileSystem>,
    files: bool,
    directories: bool,
}

struct UnsyncedFile(Box<dyn FileWrite>);

impl Write for UnsyncedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl FileWrite for UnsyncedFile {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

impl Unsynced {
    fn file(&self, file: Box<dyn FileWrite>) -> Box<dyn FileWrite> {
        match self.files {
            true => file,
            false => Box::new(UnsyncedFile(file)),
        }
    }
}

impl FileSystem for Unsynced {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileRead>> {
        self.inner.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        self.inner.create(path).map(|file| self.file(file))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        self.inner.append(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        self.inner.create_dir(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        match self.directories {
            true => self.inner.sync_dir(directory),
            false => Ok(()),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(directory)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.inner.metadata(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path, owner)
    }
}

#[test]
fn no_sync_of_the_marker() {
    let file_system = |inner| -> Arc<dyn FileSystem> {
        Arc::new(Unsynced {
            inner,
            files: false,
            directories: true,
        })
    };
    let seams = Seams {
        file_system,
        ..Seams::default()
    };
    check(&exhaustively(seams), Guarantee::Durable);
}

#[test]
fn no_sync_of_the_directory() {
    let file_system = |inner| -> Arc<dyn FileSystem> {
        Arc::new(Unsynced {
            inner,
            files: true,
            directories: false,
        })
    };
    let seams = Seams {
        file_system,
        ..Seams::default()
    };
    check(&exhaustively(seams), Guarantee::Durable);
}

/// Takes some answers for a confirm.
struct Optimist {
    inner: Box<dyn Broker>,
}

impl Broker for Optimist {
    fn submit(&mut self, command: Command) {
        self.inner.submit(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        Some(match self.inner.poll(deadline)? {
            Event::Rejected(tag, _) | Event::Returned(tag, _) => Event::Confirmed(tag),
            event => event,
        })
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

#[test]
fn a_nack_taken_for_a_confirm() {
    let seams = Seams {
        broker: |inner| Box::new(Optimist { inner }),
        ..Seams::default()
    };
    check(&by_seeds(seams), Guarantee::NeverAhead);
}

/// Begins one record behind the checkpoint.
fn one_record_too_far(_: &dyn FileSystem, mut plan: Plan) -> Plan {
    for planned in &mut plan.dumps {
        if planned.checkpoint.frontier.record > 0 {
            planned.checkpoint.frontier.record += 1;
        }
    }
    plan
}

#[test]
fn a_resume_that_is_off_by_one() {
    let seams = Seams {
        plan: one_record_too_far,
        ..Seams::default()
    };
    check(&exhaustively(seams), Guarantee::StableIdentity);
}

/// Says that every save succeeded, and makes only every second one.
struct Lazy {
    inner: Box<dyn Saver>,
    saves: u32,
    is_done: bool,
}

impl Saver for Lazy {
    fn start(&mut self, save: Save) {
        self.saves += 1;
        self.is_done = self.saves.is_multiple_of(2);
        if !self.is_done {
            self.inner.start(save);
        }
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        match std::mem::take(&mut self.is_done) {
            true => Some(Ok(())),
            false => self.inner.poll(),
        }
    }
}

#[test]
fn a_save_that_was_not_made() {
    let lazy = |inner| -> Box<dyn Saver> {
        Box::new(Lazy {
            inner,
            saves: 0,
            is_done: false,
        })
    };
    let seams = Seams {
        saver: lazy,
        ..Seams::default()
    };
    // The dead letters of a save that was not made are missing in the next one.
    check(&exhaustively(seams), Guarantee::NeverAhead);
}

#[test]
fn an_interval_that_is_longer_than_configured() {
    let seams = Seams {
        options: |mut options| {
            options.save.interval *= 3;
            options
        },
        ..Seams::default()
    };
    check(&by_seeds(seams), Guarantee::BoundedLag);
}

#[test]
fn a_window_that_is_larger_than_configured() {
    let seams = Seams {
        options: |mut options| {
            options.window_messages += 1;
            options
        },
        ..Seams::default()
    };
    check(&by_seeds(seams), Guarantee::BoundedWindow);
}
