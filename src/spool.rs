//! The spool, the embedded default broker: every message a line of JSON in append-only files.
//!
//! ```text
//! DIR/.lock                                  who writes here
//! DIR/20260801/artists-000000000001.jsonl    a segment, named by the sequence of its first message
//! DIR/20260801/artists-000000731204.jsonl    the next one; line n is message 731,204 + n - 1
//! DIR/20260801/artists.recovering            for a moment after a crash: see below
//! ```
//!
//! The files of a route hold every message exactly once and in order, whatever crashed, because a
//! message's sequence number is its line number. What follows a segment's last line end is a
//! message that is still being written; readers leave it alone. A reader that follows a segment
//! while it grows follows its name (`tail -F`), since recovery replaces the file.
//!
//! # Commit
//!
//! Messages gather in memory. A commit writes them, syncs the file, and, if the file is new, syncs
//! the directory: bytes without a name are as lost as a name without bytes. Only then are they
//! confirmed, in the order of their submission, over all routes; so what is confirmed is always a
//! prefix of what was submitted. A commit happens when the caller is ready to wait, that is, when
//! it polls with a deadline in the future, or when the batch is full. A caller that submits many
//! messages before it waits therefore pays for one sync, and nobody waits for a timer.
//!
//! A segment is begun only after the one before it is committed. So **every segment but the last
//! is durable**.
//!
//! # Recovery
//!
//! A new session, in the same process or in another, trusts nothing that its predecessor may have
//! left uncommitted. Its first message of a route has a sequence s, and the state marker follows
//! the confirms, so everything before s was confirmed. From s on, lines may be whole, torn,
//! garbage, or missing; and they may be whole in memory and not on the disk, after a kill.
//!
//! First, the last segment is copied: write the copy, sync it, rename it over the original, sync
//! the directory. A sync of the original would not do. A failed sync leaves the kernel's pages
//! clean, as if they had been written; whoever reads them later sees whole lines, a second sync
//! has nothing to do and succeeds, and the next loss of power takes the lines away. The copy's
//! pages are new, and its sync covers all of them. The rename is one step, so that at no moment
//! a confirmed message is missing. Now all that can be read is durable.
//!
//! Then each message is compared with the line that is held in its place. Equal: a repeat, and
//! kept. Otherwise the later segments are removed, newest first, each with a sync of the
//! directory, so that no crash leaves a gap; the segment is cut there; and from then on messages
//! are appended. The cut itself is synced by the next commit: until then a crash can only bring
//! back lines that will be compared again.
//!
//! Segments that a consumer is done with may be removed, oldest first. If fewer than s - 1
//! messages are accounted for, somebody removed or cut what was confirmed, and the spool says so.
//!
//! # Failure
//!
//! After an error of a write or a sync the file's state is unknown. The session ends, every file
//! is forgotten, and the next session recovers as if the process had crashed.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::broker::{Broker, Command, Disconnect, Event, Message, Session, Tag, Waker};
use crate::dump::{Kind, Version};
use crate::fs::{FileRead, FileSystem, FileWrite, Lock};
use crate::time::{Clock, Instant};

/// Reads and copies go through a buffer of this many bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// The bounds of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A segment that would grow beyond this is followed by a new one. A longer message has a
    /// segment to itself. Recovery copies one segment, so this also bounds its time and space.
    pub segment_bytes_max: u64,
    /// A commit is due at this many bytes, even if the caller does not wait.
    pub commit_bytes_max: usize,
    /// A commit is due at this many messages, even if the caller does not wait.
    pub commit_messages_max: usize,
    /// Who writes: what a second writer of the same directory is told.
    pub owner: String,
}

impl Default for Options {
    /// Segments of 256 MiB; a commit at 4 MiB or 1,000 messages.
    fn default() -> Self {
        Self {
            segment_bytes_max: 256 * 1024 * 1024,
            commit_bytes_max: 4 * 1024 * 1024,
            commit_messages_max: 1_000,
            owner: "another extractor".to_owned(),
        }
    }
}

/// The spool in one directory.
///
/// All work is done in [`Broker::poll`], one file-system operation after the other. It never
/// sleeps: `None` before the deadline means that nothing is uncommitted and nothing will happen
/// until the next command. In production [`Threaded`](crate::queue::Threaded) does the waiting.
///
/// Confirms come in the order of submission. In a session, the messages of a route come in
/// sequence, beginning with the lowest that is not confirmed. The spool rejects, returns and
/// refuses nothing.
pub struct Spool {
    fs: Arc<dyn FileSystem>,
    clock: Arc<dyn Clock>,
    directory: PathBuf,
    options: Options,
    lock: Option<Box<dyn Lock>>,
    /// The session that has not ended: its end is told once.
    session: Option<Session>,
    connected: bool,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
    logs: BTreeMap<(Version, Kind), Log>,
    /// Messages that are kept or buffered, in the order of their submission.
    unconfirmed: Vec<Tag>,
}

impl Spool {
    /// A spool in `directory`, which is made when the caller connects. The clock tells whether a
    /// deadline is in the future.
    pub fn new(
        fs: Arc<dyn FileSystem>,
        clock: Arc<dyn Clock>,
        directory: PathBuf,
        options: Options,
    ) -> Self {
        Self {
            fs,
            clock,
            directory,
            options,
            lock: None,
            session: None,
            connected: false,
            commands: VecDeque::new(),
            events: VecDeque::new(),
            logs: BTreeMap::new(),
            unconfirmed: Vec::new(),
        }
    }

    /// Does the next piece of work; false if there is none.
    fn step(&mut self, may_wait: bool) -> bool {
        let done = if self.batch_is_full() {
            self.commit()
        } else if let Some(command) = self.commands.pop_front() {
            self.execute(command)
        } else if may_wait && !self.unconfirmed.is_empty() {
            self.commit()
        } else {
            return false;
        };
        if let Err(failure) = done {
            self.end_session(failure.to_string(), failure.is_permanent());
        }
        true
    }

    fn batch_is_full(&self) -> bool {
        let bytes: usize = self.logs.values().map(|log| log.buffer.len()).sum();
        let messages = self.unconfirmed.len();
        messages > 0
            && (bytes >= self.options.commit_bytes_max
                || messages >= self.options.commit_messages_max)
    }

    fn execute(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Connect(session) => self.connect(session),
            Command::Publish(tag, message) if self.connected => self.publish(tag, &message),
            // Submitted before the caller could know that the session had ended.
            Command::Publish(..) => Ok(()),
            Command::Disconnect => self.disconnect(),
        }
    }

    fn connect(&mut self, session: Session) -> Result<(), Failure> {
        self.forget();
        self.session = Some(session);
        self.make_directory()?;
        if self.lock.is_none() {
            self.lock = Some(self.take_lock()?);
        }
        self.connected = true;
        self.events.push_back(Event::Connected(session));
        Ok(())
    }

    /// Makes the directory and its name durable, and the names of all that it lies in: a process
    /// that was killed may have made any of them and synced none.
    fn make_directory(&self) -> Result<(), Failure> {
        let directory = &self.directory;
        at("make directory", directory, self.fs.create_dir(directory))?;
        for parent in directory.ancestors().skip(1) {
            match self.fs.sync_dir(parent) {
                // A directory that we may not even list is none that we made.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                synced => at("sync directory", parent, synced)?,
            }
        }
        Ok(())
    }

    fn take_lock(&self) -> Result<Box<dyn Lock>, Failure> {
        let path = self.directory.join(".lock");
        match self.fs.lock(&path, &self.options.owner) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Failure::InUse {
                directory: self.directory.clone(),
                owner: error.to_string(),
            }),
            taken => at("lock", &path, taken),
        }
    }

    fn publish(&mut self, tag: Tag, message: &Message) -> Result<(), Failure> {
        let log = match self.logs.entry((message.version.clone(), message.route)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let route = Route {
                    fs: Arc::clone(&self.fs),
                    spool: self.directory.clone(),
                    version: message.version.clone(),
                    kind: message.route,
                };
                entry.insert(Log::recover(route, message.sequence)?)
            }
        };
        assert_eq!(
            message.sequence, log.next,
            "the messages of a route come in sequence"
        );
        log.add(&message.body, self.options.segment_bytes_max)?;
        self.unconfirmed.push(tag);
        Ok(())
    }

    /// Makes everything durable, and only then confirms anything.
    fn commit(&mut self) -> Result<(), Failure> {
        for log in self.logs.values_mut() {
            log.commit()?;
        }
        let confirmed = self.unconfirmed.drain(..).map(Event::Confirmed);
        self.events.extend(confirmed);
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), Failure> {
        self.commit()?;
        self.end_session("closed on request".to_owned(), false);
        Ok(())
    }

    fn end_session(&mut self, why: String, permanent: bool) {
        self.forget();
        if let Some(session) = self.session.take() {
            let disconnect = Disconnect { why, permanent };
            let event = Event::Disconnected(session, disconnect);
            self.events.push_back(event);
        }
    }

    /// Closes all files without a commit. The lock stays: the next session is ours as well.
    fn forget(&mut self) {
        self.connected = false;
        self.logs.clear();
        self.unconfirmed.clear();
    }
}

impl Broker for Spool {
    fn submit(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        let may_wait = deadline > self.clock.now();
        while self.events.is_empty() && self.step(may_wait) {}
        self.events.pop_front()
    }

    /// Does nothing, since this broker never waits.
    fn waker(&self) -> Waker {
        Waker::new(|| ())
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spool({})", self.directory.display())
    }
}

/// The messages of one route, from its recovery in a session on.
struct Log {
    route: Route,
    /// The sequence of the next message.
    next: u64,
    /// The sequence of the present segment's first message.
    base: u64,
    /// Bytes of the present segment before message `next`, those in `buffer` included.
    length: u64,
    /// What is held from message `next` on; `None` once messages are appended.
    held: Option<Held>,
    /// The present segment, once something was appended to it.
    file: Option<Box<dyn FileWrite>>,
    /// Whether the present segment's name may not be durable.
    name_is_new: bool,
    /// Lines that are not written yet.
    buffer: Vec<u8>,
    /// Whether a commit has anything to do: `buffer`, or a cut without a line after it.
    uncommitted: bool,
}

/// Lines that an earlier session wrote, durable, perhaps repeats of what comes.
struct Held {
    /// The present segment, at message `next`.
    reader: BufReader<Box<dyn FileRead>>,
    /// The bases of the segments after the present one, ascending.
    later: VecDeque<u64>,
    line: Vec<u8>,
}

impl Log {
    /// Makes all that is held durable and goes to message `next`, before which everything was
    /// confirmed.
    fn recover(route: Route, next: u64) -> Result<Self, Failure> {
        assert!(next > 0, "sequences are 1-based");
        route.make_directory()?;
        route.remove_copy()?;
        let mut bases = route.bases()?;
        if let Some(&last) = bases.back() {
            route.replace_by_copy(last)?;
        }
        let later = bases.split_off(bases.partition_point(|&base| base <= next));
        match bases.pop_back() {
            Some(base) => Self::at_message(route, next, base, later),
            None if next == 1 => {
                route.remove(later)?;
                Ok(Self::in_segment(route, next, 1))
            }
            None => Err(route.missing(0, next)),
        }
    }

    /// Goes to message `next` in the segment `base`, the last one that can hold it.
    fn at_message(
        route: Route,
        next: u64,
        base: u64,
        later: VecDeque<u64>,
    ) -> Result<Self, Failure> {
        let mut reader = route.open(base)?;
        let before = next - base;
        let skipped = skip_lines(&mut reader, before);
        let (lines, length) = at("read", &route.segment(base), skipped)?;
        if lines < before {
            return Err(route.missing(base - 1 + lines, next));
        }
        let held = Held {
            reader,
            later,
            line: Vec::new(),
        };
        Ok(Self {
            length,
            held: Some(held),
            ..Self::in_segment(route, next, base)
        })
    }

    /// The start of a segment that holds nothing.
    fn in_segment(route: Route, next: u64, base: u64) -> Self {
        Self {
            route,
            next,
            base,
            length: 0,
            held: None,
            file: None,
            name_is_new: false,
            buffer: Vec::new(),
            uncommitted: false,
        }
    }

    /// Keeps message `next` if it is held already, else appends it.
    fn add(&mut self, body: &[u8], segment_bytes_max: u64) -> Result<(), Failure> {
        assert!(
            memchr::memchr(b'\n', body).is_none(),
            "a body has no line end"
        );
        let line_bytes = body.len() as u64 + 1;
        if !self.holds(body)? {
            self.cut()?;
            self.make_room(line_bytes, segment_bytes_max)?;
            self.buffer.extend_from_slice(body);
            self.buffer.push(b'\n');
            self.uncommitted = true;
        }
        self.length += line_bytes;
        self.next += 1;
        Ok(())
    }

    /// Whether the line in the place of message `next` is its repeat.
    fn holds(&mut self, body: &[u8]) -> Result<bool, Failure> {
        let Some(held) = &mut self.held else {
            return Ok(false);
        };
        if held.later.front() == Some(&self.next) {
            held.later.pop_front();
            held.reader = self.route.open(self.next)?;
            self.base = self.next;
            self.length = 0;
        }
        held.line.resize(body.len() + 1, 0);
        match held.reader.read_exact(&mut held.line) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => at("read", &self.route.segment(self.base), read)?,
        }
        Ok(held.line.strip_suffix(b"\n") == Some(body))
    }

    /// Removes what is held from message `next` on.
    fn cut(&mut self) -> Result<(), Failure> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        self.route.remove(held.later)?;
        let path = self.route.segment(self.base);
        let mut file = at("open", &path, self.route.fs.append(&path))?;
        at("cut", &path, file.truncate(self.length))?;
        self.file = Some(file);
        self.uncommitted = true;
        Ok(())
    }

    /// Begins a new segment if the present one has no room for a line.
    fn make_room(&mut self, line_bytes: u64, segment_bytes_max: u64) -> Result<(), Failure> {
        if self.length == 0 || self.length + line_bytes <= segment_bytes_max {
            return Ok(());
        }
        self.commit()?;
        self.file = None;
        self.base = self.next;
        self.length = 0;
        Ok(())
    }

    /// Makes every message so far durable: its bytes, then its file's name.
    fn commit(&mut self) -> Result<(), Failure> {
        if !self.uncommitted {
            return Ok(());
        }
        let path = self.route.segment(self.base);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                self.name_is_new = true;
                let file = at("create", &path, self.route.fs.append(&path))?;
                self.file.insert(file)
            }
        };
        at("write", &path, file.write_all(&self.buffer))?;
        at("sync", &path, file.sync())?;
        if self.name_is_new {
            self.route.sync_names()?;
            self.name_is_new = false;
        }
        self.buffer.clear();
        self.uncommitted = false;
        Ok(())
    }
}

/// The files of a version and kind.
struct Route {
    fs: Arc<dyn FileSystem>,
    spool: PathBuf,
    version: Version,
    kind: Kind,
}

impl Route {
    fn directory(&self) -> PathBuf {
        self.spool.join(self.version.as_str())
    }

    fn segment(&self, base: u64) -> PathBuf {
        self.directory()
            .join(format!("{}-{base:012}.jsonl", self.kind))
    }

    /// The base of a segment of this route.
    fn base(&self, path: &Path) -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        let base: u64 = name
            .strip_prefix(self.kind.name())?
            .strip_prefix('-')?
            .strip_suffix(".jsonl")?
            .parse()
            .ok()?;
        // The way back excludes names that are only nearly a segment's, like `artists-1.jsonl`.
        (base > 0 && self.segment(base) == path).then_some(base)
    }

    fn make_directory(&self) -> Result<(), Failure> {
        let directory = self.directory();
        at("make directory", &directory, self.fs.create_dir(&directory))?;
        at("sync directory", &self.spool, self.fs.sync_dir(&self.spool))
    }

    fn sync_names(&self) -> Result<(), Failure> {
        let directory = self.directory();
        at("sync directory", &directory, self.fs.sync_dir(&directory))
    }

    /// The bases of all segments, ascending.
    fn bases(&self) -> Result<VecDeque<u64>, Failure> {
        let directory = self.directory();
        let paths = at("list directory", &directory, self.fs.list(&directory))?;
        let mut bases: Vec<_> = paths.iter().filter_map(|path| self.base(path)).collect();
        bases.sort_unstable();
        Ok(bases.into())
    }

    fn open(&self, base: u64) -> Result<BufReader<Box<dyn FileRead>>, Failure> {
        let path = self.segment(base);
        let file = at("open", &path, self.fs.open(&path))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    fn copy(&self) -> PathBuf {
        self.directory().join(format!("{}.recovering", self.kind))
    }

    /// Removes the copy that an earlier recovery may have left: a sync of it may have failed, so
    /// it is not written over.
    fn remove_copy(&self) -> Result<(), Failure> {
        let copy = self.copy();
        match self.fs.remove(&copy) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => at("remove", &copy, removed),
        }
    }

    /// Replaces a segment by a copy that is durable for certain.
    fn replace_by_copy(&self, base: u64) -> Result<(), Failure> {
        let (path, copy) = (self.segment(base), self.copy());
        let mut reader = self.open(base)?;
        let mut file = at("create", &copy, self.fs.create(&copy))?;
        at("copy", &path, io::copy(&mut reader, &mut file))?;
        at("sync", &copy, file.sync())?;
        at("replace", &path, self.fs.rename(&copy, &path))?;
        self.sync_names()
    }

    /// Removes segments, newest first and each for good, so that no crash leaves a gap.
    fn remove(&self, bases: VecDeque<u64>) -> Result<(), Failure> {
        for base in bases.into_iter().rev() {
            let path = self.segment(base);
            at("remove", &path, self.fs.remove(&path))?;
            self.sync_names()?;
        }
        Ok(())
    }

    fn missing(&self, held: u64, next: u64) -> Failure {
        Failure::Missing {
            directory: self.spool.clone(),
            version: self.version.clone(),
            kind: self.kind,
            held,
            confirmed: next - 1,
        }
    }
}

/// Skips up to `lines` whole lines; how many there were, and their bytes. (If there were fewer,
/// the bytes include an unfinished one.)
fn skip_lines(reader: &mut impl BufRead, lines: u64) -> io::Result<(u64, u64)> {
    let (mut skipped, mut bytes) = (0, 0);
    while skipped < lines {
        let held = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            held => held?,
        };
        if held.is_empty() {
            break;
        }
        let line_end = memchr::memchr(b'\n', held);
        let used = line_end.map_or(held.len(), |at| at + 1);
        skipped += u64::from(line_end.is_some());
        bytes += used as u64;
        reader.consume(used);
    }
    Ok((skipped, bytes))
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the spool cannot {action} {path}: {error}; {}", hint(.error))]
    Io {
        action: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error(
        "the spool {directory} is in use by {owner}; wait for it to end, or name another directory"
    )]
    InUse { directory: PathBuf, owner: String },
    #[error(
        "the spool {directory} holds only {held} messages of {version} {kind}, but the state marker says that {confirmed} were confirmed; somebody removed or cut its files: restore them, or start over with --reprocess"
    )]
    Missing {
        directory: PathBuf,
        version: Version,
        kind: Kind,
        held: u64,
        confirmed: u64,
    },
}

impl Failure {
    /// Whether another attempt is pointless until somebody changes something. A full disk is
    /// not: it is waited for.
    fn is_permanent(&self) -> bool {
        match self {
            Self::Io { error, .. } => needs_another_path(error) || needs_permission(error),
            Self::InUse { .. } | Self::Missing { .. } => true,
        }
    }
}

fn needs_another_path(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory,
    };
    matches!(
        error.kind(),
        AlreadyExists | InvalidFilename | InvalidInput | IsADirectory | NotADirectory
    )
}

fn needs_permission(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// What the user can do.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, nothing that was confirmed is lost"
        }
        _ if needs_another_path(error) => "name a directory that can be made, as in file:DIR",
        _ if needs_permission(error) => "let this user write there, or name another directory",
        _ => "check the disk, nothing that was confirmed is lost",
    }
}

/// Adds what was done, and to which file, to an error.
fn at<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Io {
        action,
        path: path.to_owned(),
        error,
    })
}
