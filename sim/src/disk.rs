//! The simulated disk: every way in which a real one loses what it was told.
//!
//! # Fault model
//!
//! Durability has two halves. The *bytes* of a file are durable after a sync of the file, its *name*
//! after a sync of its directory, and neither brings the other along. Until then the kernel writes
//! when it likes, in the order that it likes; what a crash may leave is said by a [`Model`].
//! Process death and power loss are different events: a process that is killed loses nothing that
//! it wrote ([`Model::Kill`]), and code that is right under power loss can still be wrong there.
//!
//! Operations fail with EIO or ENOSPC, by the tape or at a place that a test names
//! ([`Disk::fail_at`]), and then change nothing, except that
//!
//! - a sync that fails leaves the pages clean and *not durable*: the next sync of this file succeeds
//!   and saves nothing of them (see `disk/node.rs`);
//! - a disk that is full stays so for a while;
//! - a sync of a directory that fails may be repeated: its names stay in the journal.
//!
//! Reads and writes may be short, as POSIX allows at any time. A file at rest may rot
//! ([`Disk::rot`]).
//!
//! # Stricter than real file systems, on purpose
//!
//! Syncing a new file does not make its name durable (ext4 happens to do that); the journals of two
//! directories know nothing of each other; a rename across directories is two changes. A program
//! that is right here needs none of those favours. `sync_dir` of a file, which Linux allows, fails
//! with `NotADirectory`, and so does renaming a directory with `IsADirectory`: the program never
//! means that.
//!
//! # A life
//!
//! A disk belongs to one [`World`], that is, to one life of the process. Once that is frozen,
//! nothing that was opened from it has any effect, and its locks are gone with it. The images are
//! taken from the frozen disk, and the next life mounts one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discogs_extractor::fs::{FileRead, FileSystem, FileWrite, Lock, Metadata};
use discogs_extractor::time::Instant;

use crate::faults::Fault;
use crate::tape::Tape;
use crate::trace::Trace;
use crate::world::World;

mod image;
mod names;
mod node;
mod survival;

pub use image::{Image, Images, Model};
pub use node::PAGE_SIZE;
pub use survival::ALL_SUBSETS_MAX;

use image::Item;
use names::{Entry, Name, Names, Namespace, NodeId, digits, lies_under, name_of};
use node::{Bytes, Node};

/// What a program does with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `FileSystem::open`
    Open,
    /// `Read::read`
    Read,
    /// `FileSystem::create`
    Create,
    /// `FileSystem::append`
    Append,
    /// `Write::write`
    Write,
    /// `FileWrite::truncate`
    Truncate,
    /// `FileWrite::sync`
    Sync,
    /// `FileSystem::rename`; the path is the new name.
    Rename,
    /// `FileSystem::link`; the path is the new name.
    Link,
    /// `FileSystem::remove`
    Remove,
    /// `FileSystem::create_dir`
    CreateDir,
    /// `FileSystem::sync_dir`
    SyncDir,
    /// `FileSystem::list`
    List,
    /// `FileSystem::metadata`
    Metadata,
    /// `FileSystem::lock`
    Lock,
}

impl Operation {
    /// The name in the timeline.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "disk.open",
            Self::Read => "disk.read",
            Self::Create => "disk.create",
            Self::Append => "disk.append",
            Self::Write => "disk.write",
            Self::Truncate => "disk.truncate",
            Self::Sync => "disk.sync",
            Self::Rename => "disk.rename",
            Self::Link => "disk.link",
            Self::Remove => "disk.remove",
            Self::CreateDir => "disk.create_dir",
            Self::SyncDir => "disk.sync_dir",
            Self::List => "disk.list",
            Self::Metadata => "disk.metadata",
            Self::Lock => "disk.lock",
        }
    }

    /// The kinds of faults that make it fail.
    const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Open | Self::Read | Self::List | Self::Metadata => &[Fault::ReadError],
            Self::Sync | Self::SyncDir => &[Fault::SyncError],
            Self::Truncate | Self::Remove => &[Fault::WriteError],
            _ => &[Fault::WriteError, Fault::NoSpace],
        }
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO.
    Io,
    /// ENOSPC.
    NoSpace,
}

impl Failure {
    /// How a kind of fault shows.
    fn of(fault: Fault) -> Self {
        if fault == Fault::NoSpace {
            Self::NoSpace
        } else {
            Self::Io
        }
    }

    /// The error as Linux gives it.
    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Io => 5,
            Self::NoSpace => 28,
        })
    }
}

/// A failure at a place that a test names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The operation that fails.
    pub operation: Operation,
    /// A part of the path that it fails on; empty for any path.
    pub path: String,
    /// Which of the operations that match fails, from 1.
    pub nth: u32,
    /// How it fails.
    pub failure: Failure,
}

/// How long a disk stays full, by the tape.
const FULL_FOR: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(60),
    Duration::from_secs(3600),
];

/// The disk of one life. Clones are handles of the same disk.
#[derive(Clone)]
pub struct Disk(Arc<Inner>);

struct Inner {
    world: World,
    tape: Tape,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Node>,
    nodes_made: u64,
    names: Namespace,
    planned: Vec<Planned>,
    /// Until when there is no space.
    full_until: Option<Instant>,
    /// Whether a timeline is kept.
    logs: bool,
    /// For the timeline: what the operation at hand did.
    remark: Option<String>,
}

impl Disk {
    /// The disk that a life finds: everything in `image` is durable.
    pub fn mount(world: &World, image: &Image) -> Self {
        let mut state = State::of(image);
        state.logs = world.logs();
        Self(Arc::new(Inner {
            tape: world.tape().fork("disk"),
            world: world.clone(),
            state: Mutex::new(state),
        }))
    }

    /// The distinct images that a crash now can leave, at most `limit` of them.
    ///
    /// Draws nothing and changes nothing, so that an oracle may ask at any moment.
    pub fn images(&self, model: Model, limit: usize) -> Images {
        self.lock().images(model, limit)
    }

    /// One image that a crash now can leave, chosen by `tape`; all zeros is [`Self::live`].
    pub fn image(&self, model: Model, tape: &Tape) -> Image {
        self.lock().draw(model, tape)
    }

    /// What the program sees.
    pub fn live(&self) -> Image {
        self.lock().only(Model::Kill)
    }

    /// What no crash can take away.
    pub fn durable(&self) -> Image {
        self.lock().only(Model::Strict)
    }

    /// Plans a failure. Several may be planned.
    pub fn fail_at(&self, planned: Planned) {
        assert!(planned.nth > 0, "operations are counted from 1");
        self.lock().planned.push(planned);
    }

    /// The planned failures that have not happened: a test that leaves some has tested nothing.
    pub fn unfired(&self) -> Vec<Planned> {
        self.lock().planned.clone()
    }

    /// Flips the bits of `mask` in one byte of a file at rest, as a disk does that grows old.
    ///
    /// # Panics
    ///
    /// If there is no such byte, or the file has changes that are not durable.
    pub fn rot(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let mut state = self.lock();
        let name = name_of(path.as_ref()).expect("a path of plain UTF-8 components");
        let node = state.names.file(&name).expect("the file that rots exists");
        state.node(node).rot(index(offset), mask);
        self.0.world.note("disk.rots", || {
            format!("{name} at {offset}, bits {mask:#04x}")
        });
    }

    /// Does what changes the disk: one numbered operation.
    fn change<T>(
        &self,
        operation: Operation,
        name: &Name,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.world.begin(operation.name())?;
        let result = self.attempt(operation, name, effect);
        self.0.world.end()?;
        result
    }

    /// Does what changes nothing.
    fn look<T>(
        &self,
        operation: Operation,
        name: &Name,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.world.look()?;
        self.attempt(operation, name, effect)
    }

    fn attempt<T>(
        &self,
        operation: Operation,
        name: &Name,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.lock();
        let result = match self.failure(&mut state, operation, name) {
            Some(failure) => Err(failure.error()),
            None => effect(&mut state),
        };
        let remark = state.remark.take();
        drop(state);
        self.report(operation, name, remark.as_deref(), result.as_ref().err());
        result
    }

    /// Whether the operation fails here, and how.
    fn failure(&self, state: &mut State, operation: Operation, name: &str) -> Option<Failure> {
        let planned = state.planned_failure(operation, name);
        if planned.is_some() {
            return planned;
        }
        let Inner { world, tape, .. } = &*self.0;
        let needs_space = operation.faults().contains(&Fault::NoSpace);
        if needs_space && state.full_until.is_some_and(|until| world.now() < until) {
            world.fire(Fault::NoSpace);
            return Some(Failure::NoSpace);
        }
        let fault = world.pick(operation.faults(), tape, operation.name())?;
        if fault == Fault::NoSpace {
            let lasts = FULL_FOR[tape.choose("disk.full_for", FULL_FOR.len() as u32) as usize];
            state.full_until = Some(world.now() + lasts);
        }
        Some(Failure::of(fault))
    }

    fn report(
        &self,
        operation: Operation,
        name: &str,
        remark: Option<&str>,
        error: Option<&io::Error>,
    ) {
        let world = &self.0.world;
        let mut result = Trace::new();
        if let Some(error) = error {
            result.bytes(error.to_string().as_bytes());
        }
        world.trace(operation.name(), name.as_bytes(), result.value());
        world.note(operation.name(), || {
            let remark = remark.map_or(String::new(), |remark| format!(" {remark}"));
            let error = error.map_or(String::new(), |error| format!(": {error}"));
            format!("{name}{remark}{error}")
        });
    }

    /// How much of `length` bytes a read or a write moves.
    fn moved(&self, fault: Fault, label: &'static str, length: usize) -> usize {
        let Inner { world, tape, .. } = &*self.0;
        if length < 2 || !world.strikes(fault, tape, label) {
            return length;
        }
        [length / 2, 1, length - 1][tape.choose(label, 3) as usize]
    }

    fn writer(&self, name: &Name, node: NodeId, position: Option<usize>) -> Box<dyn FileWrite> {
        Box::new(Writer {
            handle: self.handle(name, node),
            position,
        })
    }

    fn handle(&self, name: &Name, node: NodeId) -> Handle {
        self.lock().node(node).handles += 1;
        Handle {
            disk: self.clone(),
            name: Arc::clone(name),
            node,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic of the program the disk is still looked at, and its handles are dropped.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Disk").field(&self.live()).finish()
    }
}

impl FileSystem for Disk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileRead>> {
        let name = name_of(path)?;
        let entry = self.look(Operation::Open, &name, |state| {
            state
                .names
                .entry(&name)?
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        match entry {
            Entry::File(node) => Ok(Box::new(Reader {
                handle: self.handle(&name, node),
                position: 0,
            })),
            Entry::Directory => Ok(Box::new(DirectoryReader)),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let name = name_of(path)?;
        let node = self.change(Operation::Create, &name, |state| {
            let node = state.file_or_new(&name)?;
            state.node(node).truncate(0);
            Ok(node)
        })?;
        Ok(self.writer(&name, node, Some(0)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let name = name_of(path)?;
        let node = self.change(Operation::Append, &name, |state| state.file_or_new(&name))?;
        Ok(self.writer(&name, node, None))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (name_of(from)?, name_of(to)?);
        self.change(Operation::Rename, &to, |state| {
            state.remark(|| format!("from {from}"));
            let source = state.names.entry(&from)?;
            let target = state.names.entry(&to)?;
            let source = source.ok_or(io::ErrorKind::NotFound)?;
            let node = source.file().ok_or(io::ErrorKind::IsADirectory)?;
            match target {
                Some(Entry::Directory) if lies_under(&from, &to) => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                Some(Entry::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
                // Two names of one file: POSIX says that nothing happens, to either.
                Some(Entry::File(other)) if other == node => {}
                _ => state.names.rename(&from, &to, node),
            }
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (name_of(from)?, name_of(to)?);
        self.change(Operation::Link, &to, |state| {
            state.remark(|| format!("from {from}"));
            let source = state.names.entry(&from)?.ok_or(io::ErrorKind::NotFound)?;
            if state.names.entry(&to)?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let node = source.file().ok_or(io::ErrorKind::PermissionDenied)?;
            state.names.put(&to, node);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = name_of(path)?;
        self.change(Operation::Remove, &name, |state| {
            state.names.file(&name)?;
            state.names.remove(&name);
            Ok(())
        })
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        let name = name_of(directory)?;
        self.change(Operation::CreateDir, &name, |state| {
            state.names.create_dir(&name)
        })
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let name = name_of(directory)?;
        self.change(Operation::SyncDir, &name, |state| {
            state.names.directory(&name)?;
            state.names.sync(&name);
            state.forget_unreachable();
            Ok(())
        })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let name = name_of(directory)?;
        self.look(Operation::List, &name, |state| {
            state.names.directory(&name)?;
            let full =
                |child: Name| directory.join(Path::new(&*child).file_name().unwrap_or_default());
            Ok(state.names.children(&name).into_iter().map(full).collect())
        })
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let name = name_of(path)?;
        self.look(Operation::Metadata, &name, |state| {
            match state.names.entry(&name)? {
                Some(Entry::Directory) => Ok(Metadata {
                    length: 0,
                    is_dir: true,
                }),
                Some(Entry::File(node)) => Ok(Metadata {
                    length: state.node(node).len() as u64,
                    is_dir: false,
                }),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }

    /// As much as anybody can want: that a disk is full shows when it is written to.
    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        let name = name_of(directory)?;
        self.look(Operation::Metadata, &name, |state| {
            state.names.directory(&name)?;
            Ok(u64::MAX)
        })
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>> {
        let name = name_of(path)?;
        let node = self.change(Operation::Lock, &name, |state| {
            let node = state.file_or_new(&name)?;
            state.take_lock(node, owner)?;
            Ok(node)
        })?;
        Ok(Box::new(HeldLock(self.handle(&name, node))))
    }
}

impl State {
    fn of(image: &Image) -> Self {
        let mut state = Self::default();
        let mut names = Names::new();
        for (name, item) in image.items() {
            let entry = match item {
                Item::Directory => Entry::Directory,
                Item::File(number, bytes) => Entry::File(state.mounted(*number, bytes)),
            };
            names.insert(Arc::clone(name), entry);
        }
        state.names = Namespace::durable(names);
        state
    }

    fn mounted(&mut self, number: u32, bytes: &Bytes) -> NodeId {
        let node = NodeId(u64::from(number));
        self.nodes
            .entry(node)
            .or_insert_with(|| Node::durable(bytes));
        self.nodes_made = self.nodes_made.max(node.0 + 1);
        node
    }

    fn remark(&mut self, remark: impl FnOnce() -> String) {
        if self.logs {
            self.remark = Some(remark());
        }
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        self.nodes
            .get_mut(&node)
            .expect("a file lives as long as a name or a handle of it")
    }

    /// The file that has a name, made and named if there is none.
    fn file_or_new(&mut self, name: &Name) -> io::Result<NodeId> {
        match self.names.entry(name)? {
            Some(Entry::File(node)) => Ok(node),
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Ok(self.new_file(name)),
        }
    }

    fn new_file(&mut self, name: &Name) -> NodeId {
        let node = NodeId(self.nodes_made);
        self.nodes_made += 1;
        self.nodes.insert(node, Node::default());
        self.names.put(name, node);
        node
    }

    fn take_lock(&mut self, node: NodeId, owner: &str) -> io::Result<()> {
        let node = self.node(node);
        if node.locked {
            let present = String::from_utf8_lossy(node.content())
                .trim_end()
                .to_owned();
            return Err(io::Error::new(io::ErrorKind::WouldBlock, present));
        }
        node.locked = true;
        node.truncate(0);
        node.write(0, owner.as_bytes());
        Ok(())
    }

    /// Forgets files that have no name in any crash and no handle, so that a long run stays small.
    fn forget_unreachable(&mut self) {
        let named = self.names.files();
        self.nodes
            .retain(|id, node| node.handles > 0 || named.contains(id));
    }

    fn planned_failure(&mut self, operation: Operation, name: &str) -> Option<Failure> {
        let matches = |planned: &Planned| {
            planned.operation == operation && name.contains(planned.path.as_str())
        };
        for planned in self.planned.iter_mut().filter(|planned| matches(planned)) {
            planned.nth -= 1;
        }
        let due = self.planned.iter().position(|planned| planned.nth == 0)?;
        Some(self.planned.remove(due).failure)
    }

    fn images(&self, model: Model, limit: usize) -> Images {
        let mut outcomes = BTreeMap::new();
        let mut images = BTreeSet::new();
        for names in self.names.outcomes(model) {
            let files = files_of(&names);
            for &file in &files {
                outcomes
                    .entry(file)
                    .or_insert_with(|| self.nodes[&file].outcomes(model));
            }
            if !add_images(&names, &files, &outcomes, limit, &mut images) {
                return collected(images, false);
            }
        }
        collected(images, true)
    }

    fn draw(&self, model: Model, tape: &Tape) -> Image {
        let names = self.names.draw(model, tape);
        let contents: BTreeMap<NodeId, Bytes> = files_of(&names)
            .into_iter()
            .map(|file| (file, self.nodes[&file].draw(model, tape)))
            .collect();
        Image::of(&names, |file| contents[&file].clone())
    }

    /// The image of a model that leaves only one.
    fn only(&self, model: Model) -> Image {
        self.draw(model, &Tape::benign())
    }
}

fn collected(images: BTreeSet<Image>, complete: bool) -> Images {
    Images {
        images: images.into_iter().collect(),
        complete,
    }
}

/// The files that have a name, each once.
fn files_of(names: &Names) -> Vec<NodeId> {
    let files: BTreeSet<NodeId> = names.values().filter_map(|entry| entry.file()).collect();
    files.into_iter().collect()
}

/// Adds an image for each combination of the files' outcomes; `false` if that is too many.
fn add_images(
    names: &Names,
    files: &[NodeId],
    outcomes: &BTreeMap<NodeId, Vec<Bytes>>,
    limit: usize,
    images: &mut BTreeSet<Image>,
) -> bool {
    let count = |file| u32::try_from(outcomes[file].len()).expect("outcomes are few");
    let counts: Vec<u32> = files.iter().map(count).collect();
    let total = counts.iter().fold(1_u64, |total, &count| {
        total.saturating_mul(u64::from(count))
    });
    for index in 0..total {
        if images.len() >= limit {
            return false;
        }
        let chosen = digits(index, &counts);
        images.insert(Image::of(names, |node| {
            let file = files
                .binary_search(&node)
                .expect("every file is listed, sorted");
            outcomes[&node][chosen[file] as usize].clone()
        }));
    }
    true
}

/// An open file.
struct Handle {
    disk: Disk,
    name: Name,
    node: NodeId,
}

impl Drop for Handle {
    /// Closing a file changes nothing that a crash or a reader could see.
    fn drop(&mut self) {
        self.disk.lock().node(self.node).handles -= 1;
    }
}

struct Reader {
    handle: Handle,
    position: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Handle { disk, name, node } = &self.handle;
        let start = self.position;
        let read = disk.look(Operation::Read, name, |state| {
            let content = state.node(*node).content();
            let rest = content.get(index(start)..).unwrap_or_default();
            let wanted = rest.len().min(buffer.len());
            let length = disk.moved(Fault::ShortRead, "disk.read.short", wanted);
            buffer[..length].copy_from_slice(&rest[..length]);
            state.remark(|| format!("{length} bytes at {start}"));
            Ok(length)
        })?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let Handle { disk, node, .. } = &self.handle;
        disk.0.world.look()?;
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => (disk.lock().node(*node).len() as u64).checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Linux opens a directory like a file and refuses to read it.
struct DirectoryReader;

impl Read for DirectoryReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::IsADirectory.into())
    }
}

impl Seek for DirectoryReader {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Ok(0)
    }
}

struct Writer {
    handle: Handle,
    /// Where the next write goes; at the end of the file, wherever that is, if `None`.
    position: Option<usize>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Handle { disk, name, node } = &self.handle;
        let position = self.position;
        let written = disk.change(Operation::Write, name, |state| {
            let length = disk.moved(Fault::ShortWrite, "disk.write.short", bytes.len());
            let node = state.node(*node);
            let position = position.unwrap_or(node.len());
            node.write(position, &bytes[..length]);
            state.remark(|| format!("{length} bytes at {position}"));
            disk.0.world.trace("bytes", &bytes[..length], 0);
            Ok(length)
        })?;
        self.position = position.map(|position| position + written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileWrite for Writer {
    fn sync(&mut self) -> io::Result<()> {
        let Handle { disk, name, node } = &self.handle;
        let result = disk.change(Operation::Sync, name, |state| {
            state.node(*node).sync();
            Ok(())
        });
        if result.is_err() && !disk.0.world.frozen() {
            disk.lock().node(*node).forsake();
        }
        result
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let Handle { disk, name, node } = &self.handle;
        disk.change(Operation::Truncate, name, |state| {
            state.remark(|| format!("to {length} bytes"));
            state.node(*node).truncate(index(length));
            Ok(())
        })?;
        self.position = self.position.map(|_| index(length));
        Ok(())
    }
}

struct HeldLock(Handle);

impl Lock for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.disk.lock().node(self.0.node).locked = false;
    }
}

/// An offset as an index: files are held in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated file fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Faults;

    #[test]
    fn files_without_a_name_are_forgotten() {
        let world = World::new(Tape::benign(), Faults::none());
        let disk = Disk::mount(&world, &Image::new().with_directory("data"));
        for _ in 0..100 {
            let mut file = disk.create(Path::new("data/new")).unwrap();
            file.write_all(b"state").unwrap();
            file.sync().unwrap();
            disk.rename(Path::new("data/new"), Path::new("data/state"))
                .unwrap();
            disk.sync_dir(Path::new("data")).unwrap();
        }
        assert!(disk.lock().nodes.len() <= 2);
    }
}
