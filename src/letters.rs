//! What people do with the dead letters of a version: list them, look at one, and publish them
//! again once what was wrong is mended.
//!
//! A retry takes the record from the dump once more, so it profits from a newer extractor and from
//! other bounds; or it takes XML that somebody repaired. Its message has the identity that the
//! record always had, and the sequence numbers behind the version's last message: so it is
//! published once the version is complete, one letter at a time, and each is noted in the state
//! marker before the next. A crash between its confirm and that note repeats it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::broker::{Broker, Command, Event, Message, Session, Subject, Tag};
use crate::config::{Config, Place};
use crate::dead_letter::{DeadLetter, RAW_BYTES_MAX};
use crate::dump::{Dump, Kind, Version, file_name};
use crate::fs::{self, FileSystem};
use crate::human::{count, counted};
use crate::link::LinkOptions;
use crate::marker::{Marker, Paths, Save, SaveError};
use crate::message::{Content, Transcoder};
use crate::plan::{self, PlanError};
use crate::pool;
use crate::record::{ByteOffset, Ordinal, Position};
use crate::run;
use crate::source::{self, Outcome, Read, Reads, SourceError};
use crate::status::{self, StatusError};
use crate::time::{Clock, Instant, rfc3339};

/// Which dead letters are meant; all of a kind that is `None`, or has no record named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Of these kinds; of all if empty.
    pub kinds: Vec<Kind>,
    /// Only this record.
    pub record: Option<u64>,
}

impl Choice {
    fn has_kind(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn has(&self, letter: &DeadLetter) -> bool {
        self.has_kind(letter.kind) && self.record.is_none_or(|record| record == letter.record)
    }
}

/// Why nothing can be done with dead letters.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// There is no state to tell which there are.
    #[error("{0}")]
    State(#[from] StatusError),
    /// The file of dead letters can't be read.
    #[error("cannot read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// A line is no dead letter.
    #[error("{}, line {line}, is no dead letter ({reason}); it was edited", .path.display())]
    Edited {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No letter is the one that was asked for.
    #[error(
        "there is no such dead letter; `discogs-extractor dead-letters list` shows those there are"
    )]
    None,
    /// The state can't be locked.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The dump can't be read.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// The messages of retries come behind all others.
    #[error("version {0} is not complete yet: run it to its end, then publish its dead letters")]
    NotComplete(Version),
    /// The dump is not the one that the letters are from.
    #[error(
        "{} is not the file that the dead letters are from; put that one in its place, or give the \
         record's XML with --xml",
        .0.display()
    )]
    OtherDump(PathBuf),
    /// Repaired XML is for one record.
    #[error("--xml is for one record: name it with --kinds and --record")]
    XmlForMany,
    /// The repaired XML is not a record either.
    #[error("{}: {reason}", .path.display())]
    Xml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The broker did not take a message.
    #[error("{0}; what was published before is noted, try again to go on")]
    Broker(String),
    /// What was published can't be noted.
    #[error("{0}; the last message is published, and will be again if you try again")]
    Save(#[from] SaveError),
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> LettersError {
    move |error| LettersError::Unreadable {
        path: path.to_owned(),
        error,
    }
}

/// The dead letters of a version.
#[derive(Debug)]
pub struct Letters {
    /// In the order of kinds, then of records; with whether it was published after all.
    letters: Vec<(DeadLetter, bool)>,
}

/// The dead letters at `place` that `choice` names.
///
/// # Errors
/// There is no state, or what it speaks of can't be read.
pub fn list(fs: &dyn FileSystem, place: &Place, choice: &Choice) -> Result<Letters, LettersError> {
    let found = status::find(fs, place)?;
    let letters = read_all(fs, &found.paths, &found.version, &found.marker, choice)?;
    Ok(Letters { letters })
}

fn read_all(
    fs: &dyn FileSystem,
    paths: &Paths,
    version: &Version,
    marker: &Marker,
    choice: &Choice,
) -> Result<Vec<(DeadLetter, bool)>, LettersError> {
    let mut all = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| choice.has_kind(*kind)) {
        let Some(entry) = marker.file(&file_name(version, kind)) else {
            continue;
        };
        let saved = entry.checkpoint.as_ref();
        let bytes = saved.map_or(0, |checkpoint| checkpoint.frontier.dead_letter_bytes);
        let published = &entry.dead_letters_published;
        let letters = read_file(fs, &paths.dead_letters(kind), bytes)?.into_iter();
        let chosen = letters.filter(|letter| choice.has(letter));
        all.extend(chosen.map(|letter| {
            let is_published = published.contains(&letter.record);
            (letter, is_published)
        }));
    }
    Ok(all)
}

/// The dead letters in the first `length` bytes of a file; what follows is of a save that failed.
fn read_file(
    fs: &dyn FileSystem,
    path: &Path,
    length: u64,
) -> Result<Vec<DeadLetter>, LettersError> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let bytes = fs::read(fs, path).map_err(unreadable(path))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let saved = &bytes[..length.min(bytes.len())];
    let lines = saved.split(|byte| *byte == b'\n');
    let letters = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    letters
        .map(|(line, text)| {
            serde_json::from_slice(text).map_err(|error| LettersError::Edited {
                path: path.to_owned(),
                line,
                reason: error.to_string(),
            })
        })
        .collect()
}

impl Letters {
    /// As JSON: an array of objects with `kind`, `record`, `xml_start`, `xml_end`, `reason` and
    /// `is_published`, and a line end.
    pub fn to_json(&self) -> String {
        let letters = self.letters.iter().map(|(letter, is_published)| {
            json!({
                "kind": letter.kind,
                "record": letter.record,
                "xml_start": letter.xml_start,
                "xml_end": letter.xml_end,
                "reason": letter.reason,
                "is_published": is_published,
            })
        });
        let letters: Vec<_> = letters.collect();
        let json = serde_json::to_string_pretty(&letters).expect("every key is a string");
        json + "\n"
    }

    /// Each letter whole: a line that says what it is, and its XML or message.
    ///
    /// # Errors
    /// There is none.
    pub fn show(&self) -> Result<String, LettersError> {
        let whole = self.letters.iter().map(|(letter, is_published)| {
            let cut = match letter.raw.len() >= RAW_BYTES_MAX {
                true => "\n[cut here; the dump has the rest]",
                false => "",
            };
            let line = describe(letter, *is_published);
            format!("{line}\n{}{cut}\n", letter.raw.trim_end())
        });
        let whole: String = whole.collect();
        (!whole.is_empty())
            .then_some(whole)
            .ok_or(LettersError::None)
    }
}

/// `labels 5: no id (bytes 651 to 660 of the XML)`
fn describe(letter: &DeadLetter, is_published: bool) -> String {
    let published = if is_published {
        "; published after all"
    } else {
        ""
    };
    format!(
        "{} {}: {} (bytes {} to {} of the XML{published})",
        letter.kind,
        count(letter.record),
        letter.reason,
        count(letter.xml_start),
        count(letter.xml_end),
    )
}

/// For people.
impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, is_published) in &self.letters {
            writeln!(f, "{}", describe(letter, *is_published))?;
        }
        let number = self.letters.len() as u64;
        writeln!(f, "{}", counted(number, "dead letter"))
    }
}

/// What became of the letters of a retry.
#[derive(Debug, Default)]
pub struct Retried {
    lines: Vec<String>,
    published: u64,
    /// How many still can't be published.
    pub left: u64,
}

/// For people.
impl fmt::Display for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        let published = counted(self.published, "dead letter");
        writeln!(f, "{published} published, {} left", count(self.left))
    }
}

/// The outside world of a retry.
pub struct Outside<'a> {
    /// Files.
    pub fs: &'a dyn FileSystem,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Where messages go.
    pub broker: &'a mut dyn Broker,
}

/// Publishes the dead letters that `choice` names and that were not published yet; `xml` is a file
/// with the repaired XML of the one record that is meant. `owner` names us to other extractors.
///
/// # Errors
/// What stands in the way. Letters that are still malformed are in the result.
pub fn retry(
    outside: Outside<'_>,
    config: &Config,
    choice: &Choice,
    xml: Option<PathBuf>,
    owner: &str,
) -> Result<Retried, LettersError> {
    let Outside { fs, clock, broker } = outside;
    let found = status::find(fs, &config.place)?;
    let _lock = plan::lock(fs, &found.paths, owner)?;
    // Again, because it may have changed before it was locked.
    let found = status::find(fs, &config.place)?;
    if !found.marker.is_complete() {
        return Err(LettersError::NotComplete(found.version));
    }
    let letters = read_all(fs, &found.paths, &found.version, &found.marker, choice)?;
    let is_new = |(letter, is_published): (DeadLetter, bool)| (!is_published).then_some(letter);
    let letters: Vec<_> = letters.into_iter().filter_map(is_new).collect();
    if xml.is_some() && (choice.kinds.len() != 1 || choice.record.is_none()) {
        return Err(LettersError::XmlForMany);
    }
    let repaired = xml
        .map(|path| repaired(fs, config, &letters, path))
        .transpose()?;
    let mut retry = Retry {
        publisher: Publisher::new(clock, broker, config.extraction.link),
        fs,
        config,
        paths: found.paths,
        version: found.version,
        marker: found.marker,
        saves: 0,
        retried: Retried::default(),
    };
    match repaired {
        Some(content) => retry.publish(&letters[0], &content)?,
        None => retry.publish_all(&letters)?,
    }
    Ok(retry.retried)
}

/// The content of the one letter, from a file with its XML.
fn repaired(
    fs: &dyn FileSystem,
    config: &Config,
    letters: &[DeadLetter],
    path: PathBuf,
) -> Result<Content, LettersError> {
    let letter = letters.first().ok_or(LettersError::None)?;
    let xml = fs::read(fs, &path).map_err(unreadable(&path))?;
    let mut transcoder = Transcoder::new(letter.kind, config.profile);
    transcoder
        .transcode(&xml)
        .map_err(|malformed| LettersError::Xml {
            path,
            reason: format!("at byte {}: {}", malformed.offset, malformed.reason),
        })
}

/// A retry under way.
struct Retry<'a> {
    fs: &'a dyn FileSystem,
    publisher: Publisher<'a>,
    config: &'a Config,
    paths: Paths,
    version: Version,
    marker: Marker,
    saves: u64,
    retried: Retried,
}

impl Retry<'_> {
    /// Publishes letters with what the dumps say now.
    fn publish_all(&mut self, letters: &[DeadLetter]) -> Result<(), LettersError> {
        for kind in Kind::ALL {
            let of_kind = |letter: &&DeadLetter| letter.kind == kind;
            let letters: Vec<_> = letters.iter().filter(of_kind).collect();
            if let Some(first) = letters.first() {
                let mut reads = self.open(first)?;
                for letter in letters {
                    match find(&mut reads, letter) {
                        Ok(content) => self.publish(letter, &content)?,
                        Err(reason) => self.leave(letter, &reason),
                    }
                }
            }
        }
        Ok(())
    }

    /// The records of a letter's dump, from the letter on.
    fn open(&self, letter: &DeadLetter) -> Result<Reads, LettersError> {
        let dump = self.dump(letter.kind)?;
        let position = Position {
            ordinal: Ordinal(letter.record - 1),
            xml: ByteOffset(letter.xml_start),
        };
        let options = run::source_options(self.config);
        let source = source::open(self.fs, &dump, position, &options)?;
        Ok(pool::pooled(source, self.config.source_threads))
    }

    /// The dump that the letters of `kind` are from.
    fn dump(&self, kind: Kind) -> Result<Dump, LettersError> {
        let root = &self.config.place.root;
        let is_directory = self.fs.metadata(root).is_ok_and(|found| found.is_dir);
        let directory = match is_directory {
            true => root.clone(),
            false => status::parent(root),
        };
        let name = file_name(&self.version, kind);
        let path = directory.join(&name);
        let fingerprint = source::fingerprint(self.fs, &path);
        let fingerprint = fingerprint.map_err(unreadable(&path))?;
        let entry = self.marker.file(&name);
        let saved = entry.and_then(|entry| entry.checkpoint.as_ref());
        match saved.is_some_and(|saved| saved.fingerprint == fingerprint) {
            true => Ok(Dump::from_path(&path).expect("the name is a dump's")),
            false => Err(LettersError::OtherDump(path)),
        }
    }

    /// Publishes one letter, and notes that.
    fn publish(&mut self, letter: &DeadLetter, content: &Content) -> Result<(), LettersError> {
        let message = Message {
            version: self.version.clone(),
            route: letter.kind,
            subject: Subject::Record(Ordinal(letter.record)),
            sequence: self.next_sequence(letter.kind),
            sha256: content.sha256().to_owned(),
            body: content.body.clone(),
        };
        let id = message.id();
        match self
            .publisher
            .publish(message)
            .map_err(LettersError::Broker)?
        {
            Ok(()) => self.note(letter, &id),
            Err(why) => {
                self.leave(letter, &format!("the broker refused the message: {why}"));
                Ok(())
            }
        }
    }

    /// Behind the version's messages, of which the last two are `file_complete` and, unless it is
    /// not wanted, `extraction_complete`, and behind what was published of the dead letters.
    fn next_sequence(&self, kind: Kind) -> u64 {
        let entry = self.marker.file(&file_name(&self.version, kind));
        let entry = entry.expect("a dead letter has an entry");
        let checkpoint = entry.checkpoint.as_ref();
        let records = checkpoint.map_or(0, |checkpoint| checkpoint.frontier.messages);
        let ends = 1 + u64::from(self.config.extraction.announces_completion);
        records + ends + entry.dead_letters_published.len() as u64 + 1
    }

    fn note(&mut self, letter: &DeadLetter, id: &str) -> Result<(), LettersError> {
        let entry = self.marker.file_mut(&file_name(&self.version, letter.kind));
        entry.dead_letters_published.push(letter.record);
        self.marker.last_updated = Some(rfc3339(self.publisher.clock.unix()));
        self.saves += 1;
        let save = Save::new(&self.paths, self.saves, &self.marker, Vec::new());
        save.finish(self.fs)?;
        self.retried.published += 1;
        self.retried.lines.push(format!("{id}: published"));
        Ok(())
    }

    fn leave(&mut self, letter: &DeadLetter, reason: &str) {
        let (kind, record) = (letter.kind, count(letter.record));
        self.retried.left += 1;
        self.retried
            .lines
            .push(format!("{kind} {record} is left: {reason}"));
    }
}

/// Reads on to `letter`, and returns what its record is now.
fn find(reads: &mut Reads, letter: &DeadLetter) -> Result<Content, String> {
    for read in reads {
        let item = match read.map_err(|error| error.to_string())? {
            Read::Item(item) => item,
            Read::Skipped => continue,
            Read::End { .. } => break,
        };
        match item.outcome {
            _ if item.start.0 < letter.xml_start => {}
            _ if item.start.0 > letter.xml_start => break,
            Outcome::Content(content) => return Ok(content),
            Outcome::Malformed { reason, .. } => return Err(reason),
        }
    }
    Err(format!(
        "no record begins at byte {} of the XML",
        count(letter.xml_start)
    ))
}

/// Publishes one message after another, and waits for each. It gives up at the first trouble: there
/// is somebody who can look at it.
struct Publisher<'a> {
    clock: &'a dyn Clock,
    broker: &'a mut dyn Broker,
    options: LinkOptions,
    is_connected: bool,
    tag: Tag,
}

const SESSION: Session = Session(1);

impl<'a> Publisher<'a> {
    fn new(clock: &'a dyn Clock, broker: &'a mut dyn Broker, options: LinkOptions) -> Self {
        Self {
            clock,
            broker,
            options,
            is_connected: false,
            tag: Tag(0),
        }
    }

    /// Publishes `message`. The inner error is the broker's refusal to ever take it.
    fn publish(&mut self, message: Message) -> Result<Result<(), String>, String> {
        if !self.is_connected {
            self.connect()?;
        }
        self.tag = Tag(self.tag.0 + 1);
        let tag = self.tag;
        let id = message.id();
        self.broker.submit(Command::Publish(tag, Arc::new(message)));
        let deadline = self.clock.now() + self.options.confirm_timeout;
        let mut blocked = None;
        loop {
            match self.event(deadline)? {
                Some(Event::Confirmed(of)) if of == tag => return Ok(Ok(())),
                Some(Event::Refused(of, why)) if of == tag => return Ok(Err(why)),
                Some(Event::Rejected(of, why) | Event::Returned(of, why)) if of == tag => {
                    return Err(format!("{id} was not taken: {why}"));
                }
                Some(Event::Blocked(why)) => blocked = Some(why),
                Some(Event::Unblocked) => blocked = None,
                Some(_) => {}
                None => {
                    let blocked =
                        blocked.map_or_else(String::new, |why| format!(", it asks to wait: {why}"));
                    return Err(format!("the broker did not confirm {id}{blocked}"));
                }
            }
        }
    }

    fn connect(&mut self) -> Result<(), String> {
        self.broker.submit(Command::Connect(SESSION));
        let deadline = self.clock.now() + self.options.connect_timeout;
        loop {
            match self.event(deadline)? {
                Some(Event::Connected(SESSION)) => break,
                Some(_) => {}
                None => return Err("the broker did not answer".to_owned()),
            }
        }
        self.is_connected = true;
        Ok(())
    }

    /// The next event until `deadline`. An end of the connection is an error.
    fn event(&mut self, deadline: Instant) -> Result<Option<Event>, String> {
        loop {
            match self.broker.poll(deadline) {
                Some(Event::Disconnected(_, disconnect)) => return Err(disconnect.why),
                Some(event) => return Ok(Some(event)),
                None if self.clock.now() < deadline => {}
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Disconnect, Waker};
    use crate::time::SystemClock;
    use std::collections::VecDeque;
    use std::time::Duration;

    /// Says what it was told to say, whatever it is asked.
    struct Scripted(VecDeque<Event>);

    impl Broker for Scripted {
        fn submit(&mut self, _: Command) {}

        fn poll(&mut self, _: Instant) -> Option<Event> {
            self.0.pop_front()
        }

        fn waker(&self) -> Waker {
            Waker::new(|| ())
        }
    }

    fn message() -> Message {
        Message {
            version: "20260801".parse().unwrap(),
            route: Kind::Labels,
            subject: Subject::Record(Ordinal(4)),
            sequence: 9,
            sha256: String::new(),
            body: b"{}".as_slice().into(),
        }
    }

    /// What publishing one message comes to with a broker that says `events`.
    fn published(events: impl IntoIterator<Item = Event>) -> Result<Result<(), String>, String> {
        let mut broker = Scripted(events.into_iter().collect());
        let options = LinkOptions {
            connect_timeout: Duration::ZERO,
            confirm_timeout: Duration::ZERO,
            retry_min: Duration::ZERO,
            retry_max: Duration::ZERO,
        };
        Publisher::new(&SystemClock::new(), &mut broker, options).publish(message())
    }

    #[test]
    fn only_a_confirm_of_the_message_counts() {
        let why = || "because".to_owned();
        let (connected, tag) = (Event::Connected(SESSION), Tag(1));
        let check = |answers: &[Event], expected: Result<Result<(), String>, &str>| {
            let events = std::iter::once(connected.clone()).chain(answers.iter().cloned());
            assert_eq!(
                published(events),
                expected.map_err(str::to_owned),
                "{answers:?}"
            );
        };
        check(&[Event::Confirmed(tag)], Ok(Ok(())));
        check(
            &[Event::Confirmed(Tag(2))],
            Err("the broker did not confirm 20260801-labels-4"),
        );
        check(&[Event::Refused(tag, why())], Ok(Err(why())));
        check(
            &[Event::Returned(tag, why())],
            Err("20260801-labels-4 was not taken: because"),
        );
        check(
            &[Event::Blocked(why())],
            Err("the broker did not confirm 20260801-labels-4, it asks to wait: because"),
        );
        let gone = Disconnect {
            why: why(),
            permanent: false,
        };
        check(&[Event::Disconnected(SESSION, gone)], Err("because"));
        assert_eq!(published([]), Err("the broker did not answer".to_owned()));
    }
}
