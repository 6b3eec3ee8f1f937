//! Mutants of the simulator: worlds and searches that are kinder than they should be.
//!
//! Each takes away one way in which the simulation is harsh, and lets a bug through that is found
//! without it. If it did not, that way of being harsh would test nothing.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{Broker, Command, Event};
use discogs_extractor::fs::{FileSystem, FileWrite};
use discogs_extractor::time::Clock as _;

use super::tamper::{Tamper, TamperFile, Twist, tampered, tampered_file, twisted};
use super::{Finding, Search, find};
use crate::clock::VirtualClock;
use crate::disk::Model;
use crate::program::Physics;

/// A simulator that is wrong in one way.
#[derive(Clone, Copy)]
pub struct Mutant {
    /// What it is called.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub what: &'static str,
    /// The bug that is found in the true world and not in this one.
    pub misses: &'static str,
    change: Change,
}

#[derive(Clone, Copy)]
enum Change {
    Disk(fn(Arc<dyn FileSystem>) -> Arc<dyn FileSystem>),
    Broker(fn(Box<dyn Broker>, VirtualClock) -> Box<dyn Broker>),
    Model(Model),
    Depth(usize),
}

/// All mutants.
pub const MUTANTS: [Mutant; 11] = [
    Mutant {
        name: "sync-on-close",
        what: "a file is synced when it is closed",
        misses: "no-fsync",
        change: Change::Disk(|fs| tampered(fs, SyncOnClose)),
    },
    Mutant {
        name: "names-durable-at-once",
        what: "names are durable without a sync of their directory, which does nothing",
        misses: "no-directory-fsync",
        change: Change::Disk(|fs| tampered(fs, NamesDurable)),
    },
    Mutant {
        name: "rename-brings-the-bytes",
        what: "a rename makes the bytes of the file durable before its name",
        misses: "fsync-after-rename",
        change: Change::Disk(|fs| tampered(fs, RenameSyncs)),
    },
    Mutant {
        name: "sync-brings-the-name",
        what: "a sync of a file makes all names in its directory durable too",
        misses: "dead-letter-name-not-synced",
        change: Change::Disk(|fs| tampered(Arc::clone(&fs), SyncNames(fs))),
    },
    Mutant {
        name: "writes-durable-at-once",
        what: "every write is durable when it returns",
        misses: "spool-not-synced",
        change: Change::Disk(|fs| tampered(fs, WritesDurable)),
    },
    Mutant {
        name: "failed-sync-keeps-pages-dirty",
        what: "after a sync that failed the next one makes everything durable",
        misses: "failed-fsync-is-believed",
        change: Change::Disk(|fs| tampered(fs, DirtyPages)),
    },
    Mutant {
        name: "kill-only",
        what: "a crash leaves what the process saw: the power never fails",
        misses: "no-fsync",
        change: Change::Model(Model::Kill),
    },
    Mutant {
        name: "strict-only",
        what: "a crash takes everything that was not synced, so nothing is ever out of order",
        misses: "fsync-after-rename",
        change: Change::Model(Model::Strict),
    },
    Mutant {
        name: "names-in-order",
        what: "names become durable in the order in which they were given",
        misses: "dead-letter-name-not-synced",
        change: Change::Model(Model::Full),
    },
    Mutant {
        name: "nothing-in-flight",
        what: "a message is at the broker when submitting it returns",
        misses: "checkpoint-before-confirm",
        change: Change::Broker(|broker, clock| twisted(broker, NothingInFlight(clock))),
    },
    Mutant {
        name: "one-crash",
        what: "a run crashes once and never again",
        misses: "recovery-removes-the-marker",
        change: Change::Depth(1),
    },
];

impl Mutant {
    /// Searches the bug that it misses, as it is searched otherwise. It must not be found.
    ///
    /// # Panics
    ///
    /// If the catalogue has no such bug.
    pub fn run(&self) -> Finding {
        let bug = find(self.misses).expect("the bug is in the catalogue");
        let mut physics = Physics::default();
        let mut search = bug.search;
        match (self.change, &mut search) {
            (Change::Disk(file_system), _) => physics.file_system = file_system,
            (Change::Broker(broker), _) => physics.broker = broker,
            (Change::Model(model), Search::Crashes(_, of, _)) => *of = model,
            (Change::Depth(depth), Search::Crashes(_, _, of)) => *of = depth,
            (Change::Model(_) | Change::Depth(_), _) => unreachable!("crashes find {}", bug.name),
        }
        search.run_in(&bug.program(), physics)
    }
}

/// Syncs when it is closed.
struct SyncOnClose;

impl TamperFile for SyncOnClose {
    fn close(&mut self, file: &mut dyn FileWrite) {
        // Closing has no result.
        _ = file.sync();
    }
}

impl Tamper for SyncOnClose {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        Ok(tampered_file(fs.create(path)?, Self))
    }

    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        Ok(tampered_file(fs.append(path)?, Self))
    }
}

fn sync_parent(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    fs.sync_dir(path.parent().unwrap_or(Path::new("")))
}

struct NamesDurable;

impl Tamper for NamesDurable {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let file = fs.create(path)?;
        sync_parent(fs, path)?;
        Ok(file)
    }

    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let file = fs.append(path)?;
        sync_parent(fs, path)?;
        Ok(file)
    }

    fn rename(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        fs.rename(from, to)?;
        sync_parent(fs, to)
    }

    fn link(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        fs.link(from, to)?;
        sync_parent(fs, to)
    }

    fn remove(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
        fs.remove(path)?;
        sync_parent(fs, path)
    }

    fn sync_dir(&self, _: &dyn FileSystem, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct RenameSyncs;

impl Tamper for RenameSyncs {
    fn rename(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        fs.append(from)?.sync()?;
        fs.rename(from, to)
    }
}

struct SyncNames(Arc<dyn FileSystem>);

/// A file whose sync reaches its directory.
struct WithName {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
}

impl TamperFile for WithName {
    fn sync(&mut self, file: &mut dyn FileWrite) -> io::Result<()> {
        file.sync()?;
        sync_parent(&*self.fs, &self.path)
    }
}

impl Tamper for SyncNames {
    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let (named, path) = (Arc::clone(&self.0), path.to_owned());
        let file = fs.append(&path)?;
        Ok(tampered_file(file, WithName { fs: named, path }))
    }
}

/// Syncs after each write.
struct WritesDurable;

impl TamperFile for WritesDurable {
    fn write(&mut self, file: &mut dyn FileWrite, bytes: &[u8]) -> io::Result<usize> {
        let written = file.write(bytes)?;
        file.sync()?;
        Ok(written)
    }

    fn truncate(&mut self, file: &mut dyn FileWrite, length: u64) -> io::Result<()> {
        file.truncate(length)?;
        file.sync()
    }
}

impl Tamper for WritesDurable {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        Ok(tampered_file(fs.create(path)?, Self))
    }

    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        Ok(tampered_file(fs.append(path)?, Self))
    }
}

struct DirtyPages;

/// Writes everything again before it syncs again.
#[derive(Default)]
struct Dirty {
    written: Vec<u8>,
    has_failed: bool,
}

impl TamperFile for Dirty {
    fn write(&mut self, file: &mut dyn FileWrite, bytes: &[u8]) -> io::Result<usize> {
        let written = file.write(bytes)?;
        self.written.extend_from_slice(&bytes[..written]);
        Ok(written)
    }

    fn sync(&mut self, file: &mut dyn FileWrite) -> io::Result<()> {
        if std::mem::take(&mut self.has_failed) {
            file.truncate(0)?;
            file.write_all(&self.written)?;
        }
        let synced = file.sync();
        self.has_failed = synced.is_err();
        synced
    }
}

impl Tamper for DirtyPages {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        Ok(tampered_file(fs.create(path)?, Dirty::default()))
    }
}

/// Longer than a message is on the wire.
const ARRIVES_WITHIN: Duration = Duration::from_micros(1_500);

/// Lets the wire come to rest after each message.
struct NothingInFlight(VirtualClock);

impl Twist for NothingInFlight {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, told: &mut VecDeque<Event>) {
        broker.submit(command);
        let end = self.0.now() + ARRIVES_WITHIN;
        while self.0.now() < end
            && let Some(event) = broker.poll(end)
        {
            told.push_back(event);
        }
    }
}
