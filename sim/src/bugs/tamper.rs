//! Wrappers that pass everything on but for what they are made to change.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use discogs_extractor::broker::{Broker, Command, Event, Waker};
use discogs_extractor::fs::{FileRead, FileSystem, FileWrite, Lock, Metadata};
use discogs_extractor::time::Instant;

/// What is changed of a file system; by default nothing is.
pub(super) trait Tamper: Send + Sync + 'static {
    fn open(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileRead>> {
        fs.open(path)
    }

    fn create(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        fs.create(path)
    }

    fn append(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        fs.append(path)
    }

    fn rename(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        fs.rename(from, to)
    }

    fn link(&self, fs: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
        fs.link(from, to)
    }

    fn remove(&self, fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
        fs.remove(path)
    }

    fn sync_dir(&self, fs: &dyn FileSystem, directory: &Path) -> io::Result<()> {
        fs.sync_dir(directory)
    }

    fn lock(&self, fs: &dyn FileSystem, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>> {
        fs.lock(path, owner)
    }
}

/// A file system that was tampered with.
struct Tampered<T> {
    fs: Arc<dyn FileSystem>,
    tamper: T,
}

pub(super) fn tampered(fs: Arc<dyn FileSystem>, tamper: impl Tamper) -> Arc<dyn FileSystem> {
    Arc::new(Tampered { fs, tamper })
}

impl<T: Tamper> FileSystem for Tampered<T> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileRead>> {
        self.tamper.open(&*self.fs, path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        self.tamper.create(&*self.fs, path)
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        self.tamper.append(&*self.fs, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tamper.rename(&*self.fs, from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tamper.link(&*self.fs, from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.tamper.remove(&*self.fs, path)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        self.fs.create_dir(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.tamper.sync_dir(&*self.fs, directory)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.fs.list(directory)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.fs.metadata(path)
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        self.fs.free_space(directory)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>> {
        self.tamper.lock(&*self.fs, path, owner)
    }
}

/// What is changed of a file that is written; by default nothing is.
pub(super) trait TamperFile: Send + 'static {
    fn write(&mut self, file: &mut dyn FileWrite, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync(&mut self, file: &mut dyn FileWrite) -> io::Result<()> {
        file.sync()
    }

    fn truncate(&mut self, file: &mut dyn FileWrite, length: u64) -> io::Result<()> {
        file.truncate(length)
    }

    fn close(&mut self, _: &mut dyn FileWrite) {}
}

struct TamperedFile<T: TamperFile> {
    file: Box<dyn FileWrite>,
    tamper: T,
}

pub(super) fn tampered_file(
    file: Box<dyn FileWrite>,
    tamper: impl TamperFile,
) -> Box<dyn FileWrite> {
    Box::new(TamperedFile { file, tamper })
}

impl<T: TamperFile> Write for TamperedFile<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tamper.write(&mut *self.file, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<T: TamperFile> FileWrite for TamperedFile<T> {
    fn sync(&mut self) -> io::Result<()> {
        self.tamper.sync(&mut *self.file)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.tamper.truncate(&mut *self.file, length)
    }
}

impl<T: TamperFile> Drop for TamperedFile<T> {
    fn drop(&mut self) {
        self.tamper.close(&mut *self.file);
    }
}

/// What is changed of a broker; by default nothing is.
pub(super) trait Twist: 'static {
    /// A command is submitted; `told` is what the program is told before anything else.
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _told: &mut VecDeque<Event>) {
        broker.submit(command);
    }

    /// The program waits, and there is nothing that it has not been told.
    fn waits(&mut self, _: &mut dyn Broker) {}

    /// The broker says something; what is put into `told` is what the program hears.
    fn hears(&mut self, event: Event, told: &mut VecDeque<Event>) {
        told.push_back(event);
    }
}

/// A broker that was tampered with.
struct Twisted<T> {
    broker: Box<dyn Broker>,
    twist: T,
    told: VecDeque<Event>,
}

pub(super) fn twisted(broker: Box<dyn Broker>, twist: impl Twist) -> Box<dyn Broker> {
    Box::new(Twisted {
        broker,
        twist,
        told: VecDeque::new(),
    })
}

impl<T: Twist> Broker for Twisted<T> {
    fn submit(&mut self, command: Command) {
        self.twist
            .submit(&mut *self.broker, command, &mut self.told);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        if let Some(event) = self.told.pop_front() {
            return Some(event);
        }
        self.twist.waits(&mut *self.broker);
        let event = self.broker.poll(deadline)?;
        self.twist.hears(event, &mut self.told);
        self.told.pop_front()
    }

    fn waker(&self) -> Waker {
        self.broker.waker()
    }
}
