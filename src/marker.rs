//! The state marker `.extraction_status_<version>.json`: its format, how it is saved, how it is
//! loaded.
//!
//! **Format.** The schema is the one that users of earlier extractors know, read from their files
//! and scripted against; every field of it is written, every field is optional on reading, and
//! fields that we do not know are kept. Ours is the `checkpoint` object of each file. A file
//! without one was written by an extractor that counted before the broker confirmed, so its
//! counts mean nothing for a resume.
//!
//! **Save.** One file-system operation at a time, so that a crash can fall between any two:
//!
//! ```text
//! dead letters   measure → open → cut to what is saved → write → sync → sync the directory if new
//! new marker     create a temporary file of a new name → write → sync
//! previous       remove → link the present marker there
//! switch         rename the temporary file over the marker
//! seek points    create → write → rename; or remove
//! end            sync the directory
//! ```
//!
//! The marker's own name holds a whole marker at every moment, because it only ever changes by a
//! rename over it: people and scripts poll it. The sync comes before the rename, because a name
//! may become durable before the bytes it names. The directory is synced last: only then does
//! the save survive. The dead letters come first, because a checkpoint behind a skipped record
//! says that the record was kept; the name of their file too, since there are file systems on
//! which names become durable in any order. The previous generation is a link and not a copy: it
//! costs no bytes and no sync.
//!
//! A seek point is an accelerator, and is written only when there is a new one. Its bytes are not
//! synced: one that a crash tears is not believed, and the resume inflates and skips instead. It comes
//! after the switch, because one ahead of the checkpoint is of no use, and before the last sync,
//! which makes its name durable too. A failure is logged, and the save goes on.
//!
//! Dead letters that were synced stay, also if a later step fails: the marker may have been
//! switched by a save whose last sync failed, and then counts them. Cutting them off to write
//! them again would lose them in a crash between.
//!
//! After any error the save is over. The next one writes a new temporary file: what a file holds
//! after a failed sync is unknown, and a second sync of it reports success without effect.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dump::{Kind, Version};
use crate::fs::{self, FileSystem, FileWrite};
use crate::gzip::hex;
use crate::record::{ByteOffset, Ordinal, Position};
use crate::seek_point::SeekPoint;
use crate::source::Fingerprint;

/// How far a phase or a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not begun.
    #[default]
    Pending,
    /// Begun; a file with a checkpoint can be resumed.
    InProgress,
    /// Done; never done again for the same bytes.
    Completed,
    /// Ended by an error; resumed like one in progress.
    Failed,
}

/// The state of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marker {
    /// Version of this format; `1.0`.
    pub metadata_version: String,
    /// When the marker was saved, RFC 3339.
    pub last_updated: Option<String>,
    /// The version that the marker is about.
    pub current_version: Option<Version>,
    /// What was downloaded.
    pub download_phase: DownloadPhase,
    /// What was read, and how far.
    pub processing_phase: ProcessingPhase,
    /// What was published.
    pub publishing_phase: PublishingPhase,
    /// The whole in short.
    pub summary: Summary,
    /// SHA-256 of the file's bytes with zeros in this place, 64 hexadecimal digits: a disk that
    /// flips a digit of a checkpoint must not make us skip records. Files of other extractors
    /// have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Fields of other programs, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// What was downloaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DownloadPhase {
    /// How far the download is.
    pub status: Status,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub completed_at: Option<String>,
    /// Dumps that are complete on disk.
    pub files_downloaded: u64,
    /// Dumps of the version.
    pub files_total: u64,
    /// Over all dumps.
    pub bytes_downloaded: u64,
    /// By file name.
    pub downloads_by_file: BTreeMap<String, FileDownload>,
    /// What went wrong, oldest first.
    pub errors: Vec<Value>,
    /// Fields of other programs, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// The download of one dump.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileDownload {
    /// How far it is.
    pub status: Status,
    /// Bytes on disk.
    pub bytes_downloaded: u64,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub completed_at: Option<String>,
    /// SHA-256 in hexadecimal: of a completed dump its own, of one in progress the published one.
    pub checksum: Option<String>,
    /// What the host calls the content that the bytes on disk are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validator: Option<String>,
    /// Fields of other programs, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// What was read, and how far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessingPhase {
    /// How far the version is. Completed once every dump is.
    pub status: Status,
    /// When the extraction of this version began, RFC 3339. Consumers delete what is older, so
    /// it stays the original start across crashes.
    pub started_at: Option<String>,
    /// When every dump was completed, RFC 3339: the time that `extraction_complete` tells, saved
    /// before that is published.
    pub completed_at: Option<String>,
    /// Completed dumps.
    pub files_processed: u64,
    /// Dumps of the version.
    pub files_total: u64,
    /// Over all dumps.
    pub records_extracted: u64,
    /// The dump being read.
    pub current_file: Option<String>,
    /// By file name.
    pub progress_by_file: BTreeMap<String, FileProgress>,
    /// What went wrong, oldest first.
    pub errors: Vec<Value>,
    /// Fields of other programs, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// How far one dump is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileProgress {
    /// How far it is.
    pub status: Status,
    /// Settled records: confirmed, or kept as dead letters.
    pub records_extracted: u64,
    /// Confirmed record messages.
    pub messages_published: u64,
    /// For readers of other generations; we publish no batches, so always `messages_published`.
    pub batches_sent: u64,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// When every record was settled, RFC 3339: the time that `file_complete` tells, saved before
    /// that is published. The dump is completed once that is confirmed.
    pub completed_at: Option<String>,
    /// SHA-256 in hexadecimal of a completed dump's bytes.
    pub source_checksum: Option<String>,
    /// Where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// Under which name the messages are published, if the broker recognises repeats by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publisher: Option<Publisher>,
    /// The records that were dead letters and were published after all, in that order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_letters_published: Vec<u64>,
    /// Fields of other programs, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// A saved frontier: every record up to it is settled, and reading goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Identity of the bytes that the positions are of.
    pub fingerprint: Fingerprint,
    /// Length of the dump file in bytes.
    pub file_bytes: u64,
    /// Where it stands.
    #[serde(flatten)]
    pub frontier: Frontier,
}

/// Whose messages a dump's are, to a broker that drops what it has already from the same publisher.
///
/// One publisher numbers the same messages in the same way whenever it runs; whatever changes that
/// makes another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// The bytes that the messages are made of.
    pub fingerprint: Fingerprint,
    /// Tells apart the publishers of the same bytes: 1 for the first, later ones have the time of
    /// their beginning, in Unix seconds.
    pub generation: u64,
    /// Everything else that decides which records become messages, as a text to compare.
    pub rules: String,
    /// The sequence number before that of its first message.
    pub after: u64,
    /// Whether the broker has said that it holds nothing of this publisher, before it published
    /// anything. Nothing is published until this is saved.
    pub is_claimed: bool,
}

impl Publisher {
    /// The name, at most 255 bytes; differs between kinds, versions, bytes and generations.
    pub fn name(&self, version: &Version, kind: Kind) -> String {
        let bytes = hex(&Sha256::digest(self.fingerprint.0.as_bytes())[..8]);
        format!(
            "discogs-extractor-{version}-{kind}-{}-{bytes}",
            self.generation
        )
    }
}

/// How far a dump is settled, and the totals up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    /// The last settled record.
    pub record: u64,
    /// Where it ends in the XML, in bytes.
    pub xml_offset: u64,
    /// How much of the file was read to get there, in compressed bytes.
    pub compressed_offset: u64,
    /// The sequence number of the last message up to there.
    pub messages: u64,
    /// Dead letters up to there: malformed records, and messages that the broker refused.
    pub dead_letters: u64,
    /// Length in bytes of the dead-letter file with exactly those.
    pub dead_letter_bytes: u64,
    /// Messages up to there in which bytes that are not UTF-8 were replaced.
    pub repaired: u64,
}

impl Frontier {
    /// Confirmed record messages.
    pub const fn published(&self) -> u64 {
        self.record - self.dead_letters
    }

    /// Where reading goes on.
    pub const fn position(&self) -> Position {
        Position {
            ordinal: Ordinal(self.record),
            xml: ByteOffset(self.xml_offset),
        }
    }
}

/// What was published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishingPhase {
    /// How far publishing is. Completed once the completion of the version was announced.
    pub status: Status,
    /// Confirmed record messages over all dumps.
    pub messages_published: u64,
    /// For readers of other generations; always `messages_published`.
    pub batches_sent: u64,
    /// What went wrong, oldest first.
    pub errors: Vec<Value>,
    /// When the broker last answered, RFC 3339.
    pub last_amqp_heartbeat: Option<String>,
    /// Fields of other programs, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// The whole in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Completed once everything was published and announced.
    pub overall_status: Status,
    /// From the original start to the end, crashes included.
    pub total_duration_seconds: Option<f64>,
    /// By kind.
    pub files_by_type: BTreeMap<String, Status>,
    /// Fields of other programs, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

impl Default for Marker {
    fn default() -> Self {
        Self {
            metadata_version: "1.0".to_owned(),
            last_updated: None,
            current_version: None,
            download_phase: DownloadPhase::default(),
            processing_phase: ProcessingPhase::default(),
            publishing_phase: PublishingPhase::default(),
            summary: Summary::default(),
            checksum: None,
            unknown: BTreeMap::new(),
        }
    }
}

impl Marker {
    /// The marker of a version of which nothing is done.
    pub fn new(version: &Version) -> Self {
        Self {
            current_version: Some(version.clone()),
            ..Self::default()
        }
    }

    /// What is known of the dump called `file_name`.
    pub fn file(&self, file_name: &str) -> Option<&FileProgress> {
        self.processing_phase.progress_by_file.get(file_name)
    }

    /// The entry of the dump called `file_name`, made if it is missing.
    pub fn file_mut(&mut self, file_name: &str) -> &mut FileProgress {
        let files = &mut self.processing_phase.progress_by_file;
        files.entry(file_name.to_owned()).or_default()
    }

    /// Whether the whole version is published and announced.
    pub fn is_complete(&self) -> bool {
        self.summary.overall_status == Status::Completed
    }

    /// Keeps an error for people to read; the oldest go when there are more than a hundred.
    pub fn add_error(&mut self, error: String) {
        let errors = &mut self.processing_phase.errors;
        errors.push(Value::String(error));
        let surplus = errors.len().saturating_sub(100);
        errors.drain(..surplus);
    }

    /// Brings every field that follows from the files' entries up to date with them.
    pub fn summarize(&mut self, version: &Version) {
        let mut by_type = BTreeMap::new();
        let processing = &mut self.processing_phase;
        for kind in Kind::ALL {
            let name = crate::dump::file_name(version, kind);
            let status = processing
                .progress_by_file
                .get(&name)
                .map(|file| file.status);
            by_type.insert(kind.name().to_owned(), status.unwrap_or_default());
        }
        let files = || processing.progress_by_file.values();
        let messages = files().map(|file| file.messages_published).sum();
        processing.records_extracted = files().map(|file| file.records_extracted).sum();
        processing.files_processed = files()
            .filter(|file| file.status == Status::Completed)
            .count() as u64;
        processing.files_total = Kind::ALL.len() as u64;
        self.publishing_phase.messages_published = messages;
        self.publishing_phase.batches_sent = messages;
        self.summary.files_by_type = by_type;
    }
}

/// How the name of a dead-letter file ends.
const DEAD_LETTERS: &str = ".dead_letters.jsonl";

/// What is added to the name of a file that is no state marker, before a number.
const BROKEN: &str = ".broken-";

/// Where the files of a version's state are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    directory: PathBuf,
    version: Version,
}

impl Paths {
    /// The state of `version` in `directory`.
    pub fn new(directory: &Path, version: &Version) -> Self {
        Self {
            directory: directory.to_owned(),
            version: version.clone(),
        }
    }

    /// The directory that everything is in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn name(&self) -> String {
        format!(".extraction_status_{}.json", self.version)
    }

    /// The state marker.
    pub fn marker(&self) -> PathBuf {
        self.directory.join(self.name())
    }

    /// The state marker as it was before the last save.
    pub fn previous(&self) -> PathBuf {
        self.directory.join(self.name() + ".previous")
    }

    /// The temporary file of the `number`-th save of a process.
    pub fn temporary(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{}.{number}.tmp", self.name()))
    }

    /// What was skipped of a dump, as JSON Lines.
    pub fn dead_letters(&self, kind: Kind) -> PathBuf {
        self.directory
            .join(format!("discogs_{}_{kind}{DEAD_LETTERS}", self.version))
    }

    /// The seek point of a dump in progress.
    pub fn seek_point(&self, kind: Kind) -> PathBuf {
        self.directory.join(format!("{}.{kind}.seek", self.name()))
    }

    /// A seek point that is being written. There is one save at a time, and what it leaves when it
    /// is torn is not believed, so the name is always the same.
    fn temporary_seek_point(&self, kind: Kind) -> PathBuf {
        self.directory
            .join(format!("{}.{kind}.seek.tmp", self.name()))
    }

    fn is_temporary(&self, path: &Path) -> bool {
        self.rest_of(path)
            .is_some_and(|rest| rest.ends_with(".tmp"))
    }

    fn is_set_aside(&self, path: &Path) -> bool {
        self.rest_of(path).is_some_and(|rest| rest.contains(BROKEN))
    }

    /// What follows the marker's name in the name of a file that belongs to it.
    fn rest_of<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix(&self.name())
    }
}

/// What was found on start.
#[derive(Debug)]
pub struct Loaded {
    /// The newest marker that could be read.
    pub marker: Option<Marker>,
    /// The dumps that have a seek point.
    pub seek_points: Vec<Kind>,
    /// What the user must be told.
    pub warnings: Vec<String>,
}

/// Loads the newest marker that can be read: the present one, else the previous generation.
///
/// A marker that can't be read is set aside under another name, never overwritten. Removes the
/// temporary files of a process that died in a save.
///
/// # Errors
/// What the file system said, other than that a file is missing.
pub fn load(fs: &dyn FileSystem, paths: &Paths) -> io::Result<Loaded> {
    let present = fs.list(&paths.directory)?;
    for path in present.iter().filter(|path| paths.is_temporary(path)) {
        fs.remove(path)?;
    }
    let has_seek_point = |kind: &Kind| present.contains(&paths.seek_point(*kind));
    let seek_points = Kind::ALL.into_iter().filter(has_seek_point).collect();
    let mut warnings = Vec::new();
    for (path, is_previous) in [(paths.marker(), false), (paths.previous(), true)] {
        match read(fs, &path)? {
            Ok(None) => {}
            Ok(Some(marker)) => {
                if is_previous {
                    warnings.push(format!(
                        "going on from the previous state marker, {}",
                        path.display()
                    ));
                }
                return Ok(Loaded {
                    marker: Some(marker),
                    seek_points,
                    warnings,
                });
            }
            Err(reason) => {
                let aside = set_aside(fs, &path)?;
                let (path, aside) = (path.display(), aside.display());
                warnings.push(format!(
                    "{path} is no state marker ({reason}); it was set aside as {aside}"
                ));
            }
        }
    }
    if warnings.is_empty() {
        // A start that set a marker aside and then failed could not tell, so the next one does.
        let aside = present.iter().filter(|path| paths.is_set_aside(path));
        warnings.extend(aside.map(|path| format!("{} is no state marker", path.display())));
    }
    if !warnings.is_empty() {
        warnings
            .push("no state marker could be read: every dump starts again at record 1".to_owned());
    }
    Ok(Loaded {
        marker: None,
        seek_points,
        warnings,
    })
}

/// Reads the marker at `path`: `None` if there is no such file, a reason if it holds something
/// else.
///
/// # Errors
/// What the file system said, other than that the file is missing.
pub fn read(fs: &dyn FileSystem, path: &Path) -> io::Result<Result<Option<Marker>, String>> {
    match fs::read(fs, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(None)),
        Err(error) => Err(error),
        Ok(bytes) => Ok(parse(&bytes).map(Some)),
    }
}

/// Reads the seek point at `path`.
///
/// # Errors
/// Why it is of no use on the way to `checkpoint`.
pub fn read_seek_point(
    fs: &dyn FileSystem,
    path: &Path,
    checkpoint: &Checkpoint,
) -> Result<SeekPoint, String> {
    let bytes = fs::read(fs, path).map_err(|error| error.to_string())?;
    let point = SeekPoint::from_bytes(&bytes, &checkpoint.fingerprint.0)?;
    match point.inflated <= checkpoint.frontier.xml_offset {
        true => Ok(point),
        false => Err("it is ahead of the checkpoint".to_owned()),
    }
}

fn parse(bytes: &[u8]) -> Result<Marker, String> {
    let mut marker: Marker = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let is_whole = match marker.checksum.take() {
        Some(checksum) => seal(bytes, &checksum).is_some_and(|(_, actual)| actual == checksum),
        None => true,
    };
    is_whole
        .then_some(marker)
        .ok_or_else(|| "its checksum is wrong: it is damaged, or was edited".to_owned())
}

/// Stands where the checksum will be while it is computed.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The bytes of a marker, with their checksum.
fn sealed(marker: &Marker) -> Vec<u8> {
    let unsealed = Marker {
        checksum: Some(NO_CHECKSUM.to_owned()),
        ..marker.clone()
    };
    let mut bytes =
        serde_json::to_vec_pretty(&unsealed).expect("every key of a marker is a string");
    bytes.push(b'\n');
    let (place, checksum) = seal(&bytes, NO_CHECKSUM).expect("the place was just written");
    bytes[place..place + checksum.len()].copy_from_slice(checksum.as_bytes());
    bytes
}

/// Where in a marker's bytes its checksum stands, and what it should be. `None` if `present` does
/// not stand where a checksum would.
fn seal(bytes: &[u8], present: &str) -> Option<(usize, String)> {
    let field = format!("\n  \"checksum\": \"{present}\"");
    let place = memchr::memmem::find(bytes, field.as_bytes())? + field.len() - 1 - present.len();
    let mut digest = Sha256::new();
    digest.update(&bytes[..place]);
    digest.update(NO_CHECKSUM);
    digest.update(&bytes[place + present.len()..]);
    Some((place, hex(&digest.finalize())))
}

fn set_aside(fs: &dyn FileSystem, path: &Path) -> io::Result<PathBuf> {
    for number in 1.. {
        let aside = PathBuf::from(format!("{}{BROKEN}{number}", path.display()));
        if fs.metadata(&aside).is_err() {
            fs.rename(path, &aside)?;
            return Ok(aside);
        }
    }
    unreachable!("a directory holds fewer than 2^31 files")
}

/// Why a save failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {}: {reason}", .path.display())]
pub struct SaveError {
    /// What was tried: `create`, `write`, `sync`, `link`, `rename`.
    pub operation: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the file system said.
    pub reason: String,
}

impl SaveError {
    /// Whether the dead letters of the save became durable all the same: they come first.
    pub fn kept_dead_letters(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        !name.is_some_and(|name| name.ends_with(DEAD_LETTERS))
    }
}

/// Dead letters that become durable with a save.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// The dead-letter file.
    pub path: PathBuf,
    /// Length in bytes of what is saved already; anything behind it is of a save that failed.
    pub saved_bytes: u64,
    /// What to append; nothing if the file is only to be cut.
    pub lines: Vec<u8>,
}

/// What a save does to seek points, by dump: the new file, or `None` to remove the old one.
pub type SeekPoints = BTreeMap<Kind, Option<Vec<u8>>>;

/// One save under way: a small machine, one file-system operation a step.
pub struct Save {
    paths: Paths,
    temporary: PathBuf,
    dead_letters: std::vec::IntoIter<DeadLetters>,
    bytes: Vec<u8>,
    seek_points: SeekPoints,
    next: Step,
    created: bool,
}

/// What a step of a save led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// There is more to do.
    More,
    /// The save is over.
    Done(Result<(), SaveError>),
}

/// The operation that comes next.
enum Step {
    MeasureDeadLetters(DeadLetters),
    OpenDeadLetters(DeadLetters, Fit),
    CutDeadLetters(Box<dyn FileWrite>, DeadLetters),
    WriteDeadLetters(Box<dyn FileWrite>, DeadLetters, usize),
    SyncDeadLetters(Box<dyn FileWrite>, DeadLetters),
    SyncNewName(PathBuf),
    Create,
    Write(Box<dyn FileWrite>, usize),
    Sync(Box<dyn FileWrite>),
    LookForPresent,
    RemovePrevious,
    LinkPrevious,
    Rename,
    RemoveSeekPoint(Kind),
    CreateSeekPoint(Kind, Vec<u8>),
    WriteSeekPoint(Kind, Vec<u8>, Box<dyn FileWrite>, usize),
    RenameSeekPoint(Kind),
    CleanUpSeekPoint(Kind),
    SyncDirectory,
    CleanUp(SaveError),
    Over,
}

/// Whether a dead-letter file holds more than what is saved. One that holds less was edited by
/// people, and is only appended to: cutting it to a greater length would fill it with zeros.
enum Fit {
    Longer,
    Fitting,
}

impl Save {
    /// The `number`-th save of this process; every number has a temporary file of its own.
    pub fn new(
        paths: &Paths,
        number: u64,
        marker: &Marker,
        dead_letters: Vec<DeadLetters>,
    ) -> Self {
        let mut save = Self {
            temporary: paths.temporary(number),
            paths: paths.clone(),
            dead_letters: dead_letters.into_iter(),
            bytes: sealed(marker),
            seek_points: SeekPoints::new(),
            next: Step::Over,
            created: false,
        };
        save.next = save.next_dead_letters();
        save
    }

    /// The save, with what becomes of seek points.
    #[must_use]
    pub fn with_seek_points(mut self, seek_points: SeekPoints) -> Self {
        self.seek_points = seek_points;
        self
    }

    /// Makes the next file-system operation, and only that.
    pub fn step(&mut self, fs: &dyn FileSystem) -> Stepped {
        let step = std::mem::replace(&mut self.next, Step::Over);
        match self.operate(fs, step) {
            Ok(Step::Over) => return Stepped::Done(Ok(())),
            Ok(next) => self.next = next,
            Err(error) if self.created => {
                self.created = false;
                self.next = Step::CleanUp(error);
            }
            Err(error) => return Stepped::Done(Err(error)),
        }
        Stepped::More
    }

    /// Makes every step that is left.
    ///
    /// # Errors
    /// The first operation that failed; nothing is tried again.
    pub fn finish(mut self, fs: &dyn FileSystem) -> Result<(), SaveError> {
        loop {
            if let Stepped::Done(result) = self.step(fs) {
                return result;
            }
        }
    }

    fn next_dead_letters(&mut self) -> Step {
        self.dead_letters
            .next()
            .map_or(Step::Create, Step::MeasureDeadLetters)
    }

    /// Makes the operation of `step`; the answer is the step after it.
    fn operate(&mut self, fs: &dyn FileSystem, step: Step) -> Result<Step, SaveError> {
        match step {
            Step::MeasureDeadLetters(letters) => {
                let length = length(fs, &letters.path);
                let length = length.map_err(failed("look for", &letters.path))?;
                Ok(match length > letters.saved_bytes {
                    true => Step::OpenDeadLetters(letters, Fit::Longer),
                    false if letters.lines.is_empty() => self.next_dead_letters(),
                    false => Step::OpenDeadLetters(letters, Fit::Fitting),
                })
            }
            Step::OpenDeadLetters(letters, fit) => {
                let file = fs
                    .append(&letters.path)
                    .map_err(failed("open", &letters.path))?;
                Ok(match fit {
                    Fit::Longer => Step::CutDeadLetters(file, letters),
                    Fit::Fitting => Step::WriteDeadLetters(file, letters, 0),
                })
            }
            Step::CutDeadLetters(mut file, letters) => {
                let cut = file.truncate(letters.saved_bytes);
                cut.map_err(failed("truncate", &letters.path))?;
                Ok(Step::WriteDeadLetters(file, letters, 0))
            }
            Step::WriteDeadLetters(mut file, letters, written) => {
                let wrote = write(&mut *file, &letters.lines[written..]);
                let written = written + wrote.map_err(failed("write", &letters.path))?;
                Ok(match written == letters.lines.len() {
                    true => Step::SyncDeadLetters(file, letters),
                    false => Step::WriteDeadLetters(file, letters, written),
                })
            }
            Step::SyncDeadLetters(mut file, letters) => {
                file.sync().map_err(failed("sync", &letters.path))?;
                Ok(match letters.saved_bytes {
                    0 => Step::SyncNewName(letters.path),
                    _ => self.next_dead_letters(),
                })
            }
            Step::SyncNewName(path) => {
                let synced = fs.sync_dir(&self.paths.directory);
                synced.map_err(failed("sync the directory of", &path))?;
                Ok(self.next_dead_letters())
            }
            Step::Create => {
                let file = fs
                    .create(&self.temporary)
                    .map_err(failed("create", &self.temporary))?;
                self.created = true;
                Ok(Step::Write(file, 0))
            }
            Step::Write(mut file, written) => {
                let wrote = write(&mut *file, &self.bytes[written..]);
                let written = written + wrote.map_err(failed("write", &self.temporary))?;
                Ok(match written == self.bytes.len() {
                    true => Step::Sync(file),
                    false => Step::Write(file, written),
                })
            }
            Step::Sync(mut file) => {
                file.sync().map_err(failed("sync", &self.temporary))?;
                Ok(Step::LookForPresent)
            }
            switch => self.switch(fs, switch),
        }
    }

    /// The second half: the new marker is durable under its temporary name, and takes the place
    /// of the present one.
    fn switch(&mut self, fs: &dyn FileSystem, step: Step) -> Result<Step, SaveError> {
        let (marker, previous) = (self.paths.marker(), self.paths.previous());
        match step {
            Step::LookForPresent => match fs.metadata(&marker) {
                Ok(_) => Ok(Step::RemovePrevious),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Step::Rename),
                Err(error) => Err(failed("look for", &marker)(error)),
            },
            Step::RemovePrevious => match fs.remove(&previous) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove", &previous)(error))
                }
                _ => Ok(Step::LinkPrevious),
            },
            Step::LinkPrevious => match fs.link(&marker, &previous) {
                Err(error) if !has_no_links(&error) => Err(failed("link", &previous)(error)),
                _ => Ok(Step::Rename),
            },
            Step::Rename => {
                let renamed = fs.rename(&self.temporary, &marker);
                renamed.map_err(failed("rename", &self.temporary))?;
                self.created = false;
                Ok(self.next_seek_point())
            }
            Step::SyncDirectory => {
                let directory = &self.paths.directory;
                fs.sync_dir(directory).map_err(failed("sync", directory))?;
                Ok(Step::Over)
            }
            Step::CleanUp(error) => {
                // What is left behind by a second failure is removed on the next start.
                let _ = fs.remove(&self.temporary);
                Err(error)
            }
            seek_point => Ok(self.change_seek_point(fs, seek_point)),
        }
    }

    fn next_seek_point(&mut self) -> Step {
        match self.seek_points.pop_first() {
            Some((kind, Some(bytes))) => Step::CreateSeekPoint(kind, bytes),
            Some((kind, None)) => Step::RemoveSeekPoint(kind),
            None => Step::SyncDirectory,
        }
    }

    /// Changes a seek point. What fails here only makes the next resume slower.
    fn change_seek_point(&mut self, fs: &dyn FileSystem, step: Step) -> Step {
        let (kind, changed) = match step {
            Step::RemoveSeekPoint(kind) => {
                // What is left behind is removed on the next start.
                let _ = fs.remove(&self.paths.seek_point(kind));
                return self.next_seek_point();
            }
            Step::CreateSeekPoint(kind, bytes) => {
                let created = fs.create(&self.paths.temporary_seek_point(kind));
                let write = |file| Step::WriteSeekPoint(kind, bytes, file, 0);
                (kind, created.map(write))
            }
            Step::WriteSeekPoint(kind, bytes, mut file, written) => {
                let wrote = write(&mut *file, &bytes[written..]);
                let next = |count| match written + count == bytes.len() {
                    true => Step::RenameSeekPoint(kind),
                    false => Step::WriteSeekPoint(kind, bytes, file, written + count),
                };
                (kind, wrote.map(next))
            }
            Step::RenameSeekPoint(kind) => {
                let (from, to) = (
                    self.paths.temporary_seek_point(kind),
                    self.paths.seek_point(kind),
                );
                let renamed = fs.rename(&from, &to);
                (kind, renamed.map(|()| self.next_seek_point()))
            }
            Step::CleanUpSeekPoint(kind) => {
                let _ = fs.remove(&self.paths.temporary_seek_point(kind));
                return self.next_seek_point();
            }
            _ => unreachable!("the two halves take every other step"),
        };
        changed.unwrap_or_else(|error| {
            let path = self.paths.seek_point(kind);
            tracing::warn!(
                "cannot write the seek point {}: {error}; a resume may inflate and skip more",
                path.display()
            );
            Step::CleanUpSeekPoint(kind)
        })
    }
}

/// File systems without links (FAT, some network mounts) have no previous generation.
fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

/// The length of a file in bytes; 0 if it is missing.
fn length(fs: &dyn FileSystem, path: &Path) -> io::Result<u64> {
    match fs.metadata(path) {
        Ok(metadata) => Ok(metadata.length),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn write(file: &mut dyn FileWrite, bytes: &[u8]) -> io::Result<usize> {
    match file.write(bytes) {
        Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        result => result,
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SaveError {
    let path = path.to_owned();
    move |error| SaveError {
        operation,
        path,
        reason: error.to_string(),
    }
}
