//! The simulated disk and the operating system's file system are one and the same to the program.
//!
//! Random scripts of operations run against both, the real one in a temporary directory. After each
//! operation the results must agree, kinds of errors included; at the end, everything that can be
//! listed and read. Without this, what the simulator proves would be about another file system.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use discogs_extractor::fs::{self, FileRead, FileSystem, FileWrite, Lock, OsFileSystem};
use sim::disk::{Disk, Image};
use sim::faults::Faults;
use sim::tape::Tape;
use sim::world::World;

const SCRIPTS: u64 = 150;
const STEPS: u32 = 80;

/// Few, so that operations meet; files, directories, what is missing, and what lies under a file.
const PATHS: [&str; 8] = ["a", "b", "d", "d/a", "d/b", "d/e/c", "a/under", "missing/x"];

/// How many readers, writers and locks are open at once, at most.
const SLOTS: u32 = 2;

/// A file system, with what a script has open on it.
struct Subject {
    fs: Box<dyn FileSystem>,
    root: PathBuf,
    writers: BTreeMap<u32, Box<dyn FileWrite>>,
    readers: BTreeMap<u32, Box<dyn FileRead>>,
    locks: BTreeMap<u32, Box<dyn Lock>>,
}

/// One step of a script.
#[derive(Clone, Debug)]
enum Step {
    Create(u32, &'static str),
    Append(u32, &'static str),
    Write(u32, Vec<u8>),
    Truncate(u32, u64),
    Sync(u32),
    CloseWriter(u32),
    Open(u32, &'static str),
    Read(u32, usize),
    Seek(u32, SeekFrom),
    Rename(&'static str, &'static str),
    Link(&'static str, &'static str),
    Remove(&'static str),
    CreateDir(&'static str),
    SyncDir(&'static str),
    List(&'static str),
    Metadata(&'static str),
    Whole(&'static str),
    Lock(u32, &'static str),
    Unlock(u32),
}

fn step(tape: &Tape) -> Step {
    let slot = tape.choose("slot", SLOTS);
    let path = path(tape);
    let number = u64::from(tape.choose("number", 20));
    match tape.choose("step", 19) {
        0 => Step::Create(slot, path),
        1 => Step::Append(slot, path),
        2 => Step::Write(slot, vec![b'a' + slot as u8; number as usize]),
        3 => Step::Truncate(slot, number),
        4 => Step::Sync(slot),
        5 => Step::CloseWriter(slot),
        6 => Step::Open(slot, path),
        7 => Step::Read(slot, number as usize),
        8 => Step::Seek(slot, seek(tape, number)),
        9 => Step::Rename(path, self::path(tape)),
        10 => Step::Link(path, self::path(tape)),
        11 => Step::Remove(path),
        12 => Step::CreateDir(path),
        13 => Step::SyncDir(path),
        14 => Step::List(path),
        15 => Step::Metadata(path),
        16 => Step::Whole(path),
        17 => Step::Lock(slot, path),
        _ => Step::Unlock(slot),
    }
}

fn path(tape: &Tape) -> &'static str {
    PATHS[tape.choose("path", PATHS.len() as u32) as usize]
}

fn seek(tape: &Tape, number: u64) -> SeekFrom {
    let by = number as i64 - 10;
    [
        SeekFrom::Start(number),
        SeekFrom::Current(by),
        SeekFrom::End(by),
    ][tape.choose("seek", 3) as usize]
}

impl Subject {
    fn new(fs: impl FileSystem + 'static, root: &Path) -> Self {
        Self {
            fs: Box::new(fs),
            root: root.to_owned(),
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            locks: BTreeMap::new(),
        }
    }

    /// What came of a step, in words that do not name the root.
    fn run(&mut self, step: &Step) -> String {
        match self.attempt(step) {
            Ok(result) => result,
            // The message is part of the contract of a lock: it names the owner.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => format!("held by {error}"),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    fn attempt(&mut self, step: &Step) -> io::Result<String> {
        let Self { fs, root, .. } = self;
        let at = |path: &str| root.join(path);
        let done = String::new();
        match step {
            Step::Create(slot, path) => _ = self.writers.insert(*slot, fs.create(&at(path))?),
            Step::Append(slot, path) => _ = self.writers.insert(*slot, fs.append(&at(path))?),
            Step::Open(slot, path) if !is_dir(&**fs, &at(path)) => {
                self.readers.insert(*slot, fs.open(&at(path))?);
            }
            Step::Rename(from, _) if is_dir(&**fs, &at(from)) => {}
            Step::Rename(from, to) => fs.rename(&at(from), &at(to))?,
            Step::Link(from, to) => fs.link(&at(from), &at(to))?,
            Step::Remove(path) => fs.remove(&at(path))?,
            Step::CreateDir(path) => fs.create_dir(&at(path))?,
            Step::SyncDir(path) if is_dir(&**fs, &at(path)) => fs.sync_dir(&at(path))?,
            Step::List(path) => return Ok(names(&fs.list(&at(path))?, root)),
            Step::Metadata(path) => return metadata(&**fs, &at(path)),
            Step::Whole(path) => return Ok(text(&fs::read(&**fs, &at(path))?)),
            Step::Lock(slot, path) => {
                let lock = fs.lock(&at(path), &format!("owner {slot}\n"))?;
                self.locks.insert(*slot, lock);
            }
            Step::Unlock(slot) => _ = self.locks.remove(slot),
            _ => return self.on_handle(step),
        }
        Ok(done)
    }

    fn on_handle(&mut self, step: &Step) -> io::Result<String> {
        match step {
            Step::CloseWriter(slot) => _ = self.writers.remove(slot),
            Step::Write(slot, bytes) => {
                if let Some(writer) = self.writers.get_mut(slot) {
                    return Ok(writer.write(bytes)?.to_string());
                }
            }
            Step::Truncate(slot, length) => {
                self.writers
                    .get_mut(slot)
                    .map_or(Ok(()), |it| it.truncate(*length))?;
            }
            Step::Sync(slot) => self.writers.get_mut(slot).map_or(Ok(()), |it| it.sync())?,
            Step::Read(slot, length) => {
                if let Some(reader) = self.readers.get_mut(slot) {
                    let mut buffer = vec![0; *length];
                    let read = reader.read(&mut buffer)?;
                    return Ok(text(&buffer[..read]));
                }
            }
            Step::Seek(slot, to) => {
                if let Some(reader) = self.readers.get_mut(slot) {
                    return Ok(reader.seek(*to)?.to_string());
                }
            }
            _ => {}
        }
        Ok(String::new())
    }

    /// Everything under a directory, with contents.
    fn tree(&self, directory: &Path) -> Vec<String> {
        let list = self
            .fs
            .list(directory)
            .expect("a directory that was listed");
        let below = |path: &PathBuf| {
            let name = names(std::slice::from_ref(path), &self.root);
            if is_dir(&*self.fs, path) {
                let mut tree = vec![name];
                tree.extend(self.tree(path));
                return tree;
            }
            let bytes = fs::read(&*self.fs, path).expect("a file that was listed");
            vec![format!("{name}: {}", text(&bytes))]
        };
        list.iter().flat_map(below).collect()
    }
}

fn is_dir(fs: &dyn FileSystem, path: &Path) -> bool {
    fs.metadata(path).is_ok_and(|metadata| metadata.is_dir)
}

fn metadata(fs: &dyn FileSystem, path: &Path) -> io::Result<String> {
    let metadata = fs.metadata(path)?;
    Ok(if metadata.is_dir {
        "directory".to_owned()
    } else {
        format!("{} bytes", metadata.length)
    })
}

fn names(paths: &[PathBuf], root: &Path) -> String {
    let name = |path: &PathBuf| {
        let name = path.strip_prefix(root).expect("entries are full paths");
        name.display().to_string()
    };
    paths.iter().map(name).collect::<Vec<_>>().join(" ")
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn run_script(seed: u64) {
    let directory = tempfile::tempdir().expect("a place for temporary files");
    let mut real = Subject::new(OsFileSystem, directory.path());
    let world = World::new(Tape::benign(), Faults::none());
    let disk = Disk::mount(&world, &Image::new().with_directory("/root"));
    let mut simulated = Subject::new(disk, Path::new("/root"));
    let tape = Tape::seeded(seed);
    for number in 0..STEPS {
        let step = step(&tape);
        let (real, simulated) = (real.run(&step), simulated.run(&step));
        assert_eq!(simulated, real, "script {seed}, step {number}: {step:?}");
    }
    let tree = real.tree(&real.root);
    assert_eq!(simulated.tree(&simulated.root), tree, "script {seed}");
}

#[test]
fn the_simulated_disk_behaves_like_the_real_one() {
    for seed in 0..SCRIPTS {
        run_script(seed);
    }
}
