//! Bugs in what is done to files: the state marker, the dead letters, the spool, the dumps.

use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use discogs_extractor::fs::{self, FileRead, FileSystem, FileWrite, Lock};
use flate2::bufread::GzDecoder;

use super::tamper::{Tamper, TamperFile, tampered, tampered_file};
use super::{Bug, Run, Search};
use crate::disk::{Model, Operation};
use crate::extractor::Seams;
use crate::guarantee::Guarantee;
use crate::place;
use crate::scenario::{DATA, Scenario, Shape};

const RUN: Run = Run::new(place::RABBITMQ, 3, 2, 2);
const SPOOL_RUN: Run = Run::new(place::SPOOL, 3, 2, 2);
const CRASHES: Search = Search::Crashes(RUN, Model::Full, 1);

type File = Box<dyn FileWrite>;

fn planted(file_system: fn(Arc<dyn FileSystem>) -> Arc<dyn FileSystem>) -> Seams {
    Seams {
        file_system,
        ..Seams::default()
    }
}

pub(super) fn bugs() -> Vec<Bug> {
    [syncs(), names(), savers(), letters(), spool(), reads()].concat()
}

/// What is synced of the marker, and when.
fn syncs() -> Vec<Bug> {
    vec![
        Bug {
            name: "no-fsync",
            what: "the new marker is renamed and never synced",
            search: CRASHES,
            breaks: &[Guarantee::Durable, Guarantee::WholeMarker],
            seams: planted(|fs| tampered(fs, UnsyncedMarker)),
        },
        Bug {
            name: "no-directory-fsync",
            what: "the rename of the marker is never synced",
            search: CRASHES,
            breaks: &[Guarantee::Durable, Guarantee::WholeMarker],
            seams: planted(|fs| tampered(fs, UnsyncedNames)),
        },
        Bug {
            name: "fsync-after-rename",
            what: "the new marker is synced after it was renamed",
            search: CRASHES,
            breaks: &[Guarantee::Durable, Guarantee::WholeMarker],
            seams: planted(|fs| tampered(fs, LateSync::default())),
        },
        Bug {
            name: "failed-fsync-is-believed",
            what: "a sync that failed is tried again on the same file, and then believed",
            search: Search::Crashes(RUN.failing(Operation::Sync, ".tmp", 2), Model::Full, 1),
            breaks: &[Guarantee::Durable, Guarantee::WholeMarker],
            seams: planted(|fs| tampered(fs, SyncsAgain)),
        },
    ]
}

/// How the new marker gets its name.
fn names() -> Vec<Bug> {
    vec![
        Bug {
            name: "write-in-place",
            what: "the marker is created anew under its own name",
            search: CRASHES,
            breaks: &[Guarantee::WholeMarker],
            seams: planted(|fs| tampered(fs, InPlace { truncates: false })),
        },
        Bug {
            name: "truncate-in-place",
            what: "the marker is opened, cut and written again",
            search: CRASHES,
            breaks: &[Guarantee::WholeMarker],
            seams: planted(|fs| tampered(fs, InPlace { truncates: true })),
        },
        Bug {
            name: "previous-generation-lags",
            what: "only every second save keeps the marker before it as the previous generation",
            search: Search::Seeds(300),
            breaks: &[Guarantee::StableIdentity],
            seams: planted(|fs| tampered(fs, LaggingPrevious::default())),
        },
        Bug {
            name: "unlink-then-rename",
            what: "the old marker is removed before the new one gets its name",
            search: CRASHES,
            breaks: &[Guarantee::WholeMarker],
            seams: planted(|fs| tampered(fs, Unlinks)),
        },
        Bug {
            name: "temporary-files-stay",
            what: "the temporary file of a save that was interrupted is never removed",
            search: CRASHES,
            breaks: &[Guarantee::CleanEnd],
            seams: planted(|fs| tampered(fs, RemovesNothing)),
        },
    ]
}

/// Two that save at the same time.
fn savers() -> Vec<Bug> {
    vec![
        Bug {
            name: "shared-temporary-file",
            what: "two savers use the same temporary file at the same time",
            search: CRASHES,
            breaks: &[Guarantee::WholeMarker, Guarantee::Durable],
            seams: planted(|fs| tampered(fs, SharedTemporary::default())),
        },
        Bug {
            name: "older-snapshot-last",
            what: "a slow save of an older state is renamed over a newer one",
            search: CRASHES,
            breaks: &[Guarantee::Durable],
            seams: planted(|fs| tampered(fs, OlderLast)),
        },
    ]
}

/// The dead letters.
fn letters() -> Vec<Bug> {
    vec![
        Bug {
            name: "dead-letters-not-synced",
            what: "skipped records are kept in a file that is never synced",
            search: CRASHES,
            breaks: &[Guarantee::NeverAhead],
            seams: planted(|fs| tampered(fs, UnsyncedLetters)),
        },
        Bug {
            name: "dead-letter-name-not-synced",
            what: "the name of a new dead-letter file becomes durable with the marker's, not before",
            search: Search::Crashes(RUN, Model::Unordered, 1),
            breaks: &[Guarantee::NeverAhead],
            seams: planted(|fs| tampered(fs, LateLetterName::default())),
        },
        Bug {
            name: "dead-letters-not-cut",
            what: "what an interrupted save left in the dead-letter file stays, and is written again",
            search: CRASHES,
            breaks: &[Guarantee::NothingLost, Guarantee::TrueCounters],
            seams: planted(|fs| tampered(fs, UncutLetters)),
        },
    ]
}

/// The spool.
fn spool() -> Vec<Bug> {
    vec![
        Bug {
            name: "spool-not-synced",
            what: "the spool confirms what it has written and not synced",
            search: Search::Crashes(SPOOL_RUN, Model::Full, 1),
            breaks: &[Guarantee::NeverAhead],
            seams: planted(|fs| tampered(fs, UnsyncedSpool)),
        },
        Bug {
            name: "spool-tail-not-cut",
            what: "the spool appends to a torn last line",
            search: Search::Crashes(Run::new(place::SPOOL, 1, 1, 2), Model::Torn, 1),
            breaks: &[Guarantee::ExactlyOnce, Guarantee::NeverAhead],
            seams: planted(|fs| tampered(fs, UncutSpool)),
        },
    ]
}

/// What is read.
fn reads() -> Vec<Bug> {
    vec![
        Bug {
            name: "stale-lock-starts-over",
            what: "who finds a lock file that a crash left behind starts the version over",
            search: CRASHES,
            breaks: &[Guarantee::NeverAgain],
            seams: planted(|fs| tampered(fs, StaleLock::default())),
        },
        Bug {
            name: "first-member-only",
            what: "only the first member of a gzip file is read",
            search: Search::Crashes(RUN.shaped(Shape::TwoMembers), Model::Full, 0),
            breaks: &[Guarantee::Ends, Guarantee::NothingLost],
            seams: planted(|fs| tampered(fs, FirstMember)),
        },
    ]
}

fn ends_with(path: &Path, end: &str) -> bool {
    path.to_string_lossy().ends_with(end)
}

fn is_temporary(path: &Path) -> bool {
    ends_with(path, ".tmp")
}

fn is_marker(path: &Path) -> bool {
    path == Scenario::paths().marker()
}

fn is_letters(path: &Path) -> bool {
    ends_with(path, ".dead_letters.jsonl")
}

fn is_spool(path: &Path) -> bool {
    !path.starts_with(DATA)
}

/// Says that it is synced.
pub(super) struct NoSync;

impl TamperFile for NoSync {
    fn sync(&mut self, _: &mut dyn FileWrite) -> io::Result<()> {
        Ok(())
    }
}

/// Says that it is cut.
struct NoCut;

impl TamperFile for NoCut {
    fn truncate(&mut self, _: &mut dyn FileWrite, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// The previous generation is taken by every second save of a life.
#[derive(Default)]
struct LaggingPrevious {
    is_second: AtomicBool,
}

impl Tamper for LaggingPrevious {
    fn remove(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
        let is_kept = path == Scenario::paths().previous()
            && !self.is_second.fetch_xor(true, Ordering::Relaxed);
        match is_kept {
            true => Ok(()),
            false => fs.remove(path),
        }
    }

    fn link(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        match fs.link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    }
}

struct UnsyncedMarker;

impl Tamper for UnsyncedMarker {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        Ok(tampered_file(fs.create(path)?, NoSync))
    }
}

struct UnsyncedNames;

impl Tamper for UnsyncedNames {
    fn sync_dir(&self, _: &dyn FileSystem, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps the file that is to be synced until it was renamed.
#[derive(Default)]
struct LateSync(Arc<Mutex<Option<PathBuf>>>);

struct SyncsLater {
    path: PathBuf,
    late: Arc<Mutex<Option<PathBuf>>>,
}

impl TamperFile for SyncsLater {
    fn sync(&mut self, _: &mut dyn FileWrite) -> io::Result<()> {
        *self.late.lock().expect("no save panics") = Some(self.path.clone());
        Ok(())
    }
}

impl Tamper for LateSync {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        let (path, late) = (path.to_owned(), Arc::clone(&self.0));
        Ok(tampered_file(fs.create(&path)?, SyncsLater { path, late }))
    }

    fn rename(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        fs.rename(from, to)?;
        let late = self.0.lock().expect("no save panics").take();
        match late {
            Some(path) if path == from => fs.append(to)?.sync(),
            _ => Ok(()),
        }
    }
}

struct SyncsAgain;

impl TamperFile for SyncsAgain {
    fn sync(&mut self, file: &mut dyn FileWrite) -> io::Result<()> {
        file.sync().or_else(|_| file.sync())
    }
}

impl Tamper for SyncsAgain {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        Ok(tampered_file(fs.create(path)?, Self))
    }
}

/// Where others make a temporary file.
struct InPlace {
    truncates: bool,
}

impl Tamper for InPlace {
    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        if !is_temporary(path) {
            return fs.create(path);
        }
        let marker = Scenario::paths().marker();
        if !self.truncates {
            return fs.create(&marker);
        }
        let mut file = fs.append(&marker)?;
        file.truncate(0)?;
        Ok(file)
    }

    /// The previous generation would be the same file.
    fn link(&self, _: &dyn FileSystem, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        match is_temporary(from) {
            true => Ok(()),
            false => fs.rename(from, to),
        }
    }
}

struct Unlinks;

impl Tamper for Unlinks {
    fn rename(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        if is_marker(to) && fs.metadata(to).is_ok() {
            fs.remove(to)?;
        }
        fs.rename(from, to)
    }
}

struct RemovesNothing;

impl Tamper for RemovesNothing {
    fn remove(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
        match is_temporary(path) {
            true => Ok(()),
            false => fs.remove(path),
        }
    }
}

/// A second saver opens the file right behind the first, and is in the middle of writing the present
/// marker again when the first renames it.
#[derive(Default)]
struct SharedTemporary {
    second: Mutex<Option<File>>,
}

impl SharedTemporary {
    fn path() -> PathBuf {
        Path::new(DATA).join(".extraction_status.tmp")
    }
}

impl Tamper for SharedTemporary {
    fn create(&self, fs: &dyn FileSystem, _: &Path) -> io::Result<File> {
        let file = fs.create(&Self::path())?;
        *self.second.lock().expect("no save panics") = Some(fs.create(&Self::path())?);
        Ok(file)
    }

    fn rename(&self, fs: &dyn FileSystem, _: &Path, to: &Path) -> io::Result<()> {
        let second = self.second.lock().expect("no save panics").take();
        if let Some(mut second) = second
            && let Ok(present) = fs::read(fs, to)
        {
            second.write_all(&present[..present.len() / 2])?;
            second.sync()?;
        }
        fs.rename(&Self::path(), to)
    }

    fn remove(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
        match is_temporary(path) {
            true => fs.remove(&Self::path()),
            false => fs.remove(path),
        }
    }
}

struct OlderLast;

impl Tamper for OlderLast {
    fn rename(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        let older = fs::read(fs, to);
        fs.rename(from, to)?;
        let Ok(older) = older else { return Ok(()) };
        let slow = to.with_extension("slow.tmp");
        let mut file = fs.create(&slow)?;
        file.write_all(&older)?;
        file.sync()?;
        fs.rename(&slow, to)
    }
}

struct UnsyncedLetters;

impl Tamper for UnsyncedLetters {
    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        let file = fs.append(path)?;
        Ok(match is_letters(path) {
            true => tampered_file(file, NoSync),
            false => file,
        })
    }
}

/// Leaves out the first sync of the directory after a dead-letter file was opened.
#[derive(Default)]
struct LateLetterName {
    is_new: AtomicBool,
}

impl Tamper for LateLetterName {
    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        let is_new = is_letters(path) && fs.metadata(path).is_err();
        self.is_new.store(is_new, Ordering::Relaxed);
        fs.append(path)
    }

    fn sync_dir(&self, fs: &dyn FileSystem, directory: &Path) -> io::Result<()> {
        match self.is_new.swap(false, Ordering::Relaxed) {
            true => Ok(()),
            false => fs.sync_dir(directory),
        }
    }
}

struct UncutLetters;

impl Tamper for UncutLetters {
    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        let file = fs.append(path)?;
        Ok(match is_letters(path) {
            true => tampered_file(file, NoCut),
            false => file,
        })
    }
}

struct UnsyncedSpool;

impl Tamper for UnsyncedSpool {
    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        let file = fs.append(path)?;
        Ok(match is_spool(path) {
            true => tampered_file(file, NoSync),
            false => file,
        })
    }
}

struct UncutSpool;

impl Tamper for UncutSpool {
    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<File> {
        let file = fs.append(path)?;
        Ok(match is_spool(path) {
            true => tampered_file(file, NoCut),
            false => file,
        })
    }
}

#[derive(Default)]
struct StaleLock {
    is_stale: AtomicBool,
}

impl Tamper for StaleLock {
    fn lock(&self, fs: &dyn FileSystem, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>> {
        let is_stale = fs.metadata(path).is_ok();
        self.is_stale.store(is_stale, Ordering::Relaxed);
        fs.lock(path, owner)
    }

    fn open(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileRead>> {
        let is_state = is_marker(path) || path == Scenario::paths().previous();
        match is_state && self.is_stale.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::NotFound.into()),
            false => fs.open(path),
        }
    }
}

struct FirstMember;

impl Tamper for FirstMember {
    fn open(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileRead>> {
        if !ends_with(path, ".xml.gz") {
            return fs.open(path);
        }
        let mut bytes = fs::read(fs, path)?;
        let mut first = GzDecoder::new(&*bytes);
        first.read_to_end(&mut Vec::new())?;
        let length = bytes.len() - first.into_inner().len();
        bytes.truncate(length);
        Ok(Box::new(Cursor::new(bytes)))
    }
}
