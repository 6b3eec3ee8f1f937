//! Takes the dumps of a version from the public host, across any crash.
//!
//! ```text
//! listing of the year ─→ newest complete version ─→ its CHECKSUM file ─→ each dump that is missing
//! ```
//!
//! # Protocol
//!
//! A dump grows under the name `discogs_VERSION_KIND.xml.gz.part`. Every 16 MiB the part is synced
//! and then its length noted in the state marker: after a crash the part is cut to that length, for
//! what follows it may be anything, and the host is asked for the rest. The host answers with the
//! rest, or with all of it if that is no longer the same file. The part is hashed on the way. If the
//! hash is the published one, the part is synced and renamed to the dump's name, and the directory is
//! synced. So **a dump's own name has the published bytes at every moment**, and what was fetched
//! once is fetched again only behind the last note, or if it turned out wrong.
//!
//! A dump that is there already is hashed once, unless the marker knows it. If other bytes are
//! published under its name by now, it is replaced; the next run sees that and processes it again.
//!
//! # Patience
//!
//! What fails is tried again, after a second and then ever more slowly up to five minutes, unless the
//! host itself says when. It gives up after eight failures without a byte between them. A host that
//! forbids (403) is left alone for a quarter of an hour at a time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::dump::{self, Kind, Version, file_name};
use crate::fs::{FileSystem, FileWrite};
use crate::gzip::hex;
use crate::http::{Head, Http, Piece, Request, Transfer};
use crate::listing::{self, Listed};
use crate::marker::{self, FileDownload, Marker, Paths, Save, SaveError, Status};
use crate::source;
use crate::time::{Clock, Instant, rfc3339};

/// How downloads are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The host's root, with a slash at its end: `https://data.discogs.com/`.
    pub base: String,
    /// How many bytes are fetched between two notes; 16 MiB.
    pub note_every_bytes: u64,
    /// How long a connection may give nothing; a minute.
    pub stall_timeout: Duration,
    /// The pause after the first failure; a second.
    pub retry_min: Duration,
    /// The longest pause of our own choice; five minutes.
    pub retry_max: Duration,
    /// The longest pause that a host may ask for; six hours.
    pub retry_after_max: Duration,
    /// The most failures without a byte between them; 8.
    pub attempts_max: u32,
}

/// The public host.
pub const HOST: &str = "https://data.discogs.com/";

impl Options {
    /// The usual options, with this host.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            note_every_bytes: 16 << 20,
            stall_timeout: Duration::from_secs(60),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(300),
            retry_after_max: Duration::from_secs(6 * 3600),
            attempts_max: 8,
        }
    }
}

/// How long a host that forbids is left alone.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How long one look at a connection lasts, before the stop flag is looked at again.
const LOOK: Duration = Duration::from_millis(200);
/// The most bytes of a listing or a CHECKSUM file; the real ones have 16 kB at most.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// What every gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How often the bytes of a dump may turn out wrong before we stop fetching it.
const MISMATCHES_MAX: u32 = 2;

/// Waits without doing anything.
pub trait Pause {
    /// Waits until `deadline`, or until somebody wants the program to stop.
    fn pause(&mut self, deadline: Instant);
}

/// Watches a download. Nothing that it does changes the download.
pub trait Watcher {
    /// A dump of `total` bytes is being fetched or looked at, `done` of which are there.
    fn progress(&mut self, now: Instant, kind: Kind, done: u64, total: Option<u64>);

    /// Something that a user wants to be told.
    fn notice(&mut self, now: Instant, notice: &Notice);
}

/// What a user wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This version is the newest complete one.
    Found(Version),
    /// A dump is there already, with the published bytes.
    Present(String),
    /// A dump is there, but has other bytes than are published by now.
    Outdated(String),
    /// A dump is being fetched, from this byte on.
    Fetching {
        /// The dump.
        file: String,
        /// The first byte that is wanted.
        from: u64,
    },
    /// A dump is complete.
    Fetched(String),
    /// The host has another file by now, or does not send parts: it is fetched from its beginning.
    StartedOver(String),
    /// The bytes were not the published ones.
    Mismatch(String),
    /// It did not work, and will be tried again.
    Failed {
        /// What happened.
        why: String,
        /// After this pause.
        retry: Duration,
    },
}

/// The outside world of a download.
pub struct Outside<'a> {
    /// Files.
    pub fs: &'a dyn FileSystem,
    /// Time.
    pub clock: &'a dyn Clock,
    /// The host.
    pub http: &'a mut dyn Http,
    /// Waiting.
    pub pause: &'a mut dyn Pause,
    /// Who watches.
    pub watcher: &'a mut dyn Watcher,
    /// Set, from a signal or another thread, to stop.
    pub stop: &'a AtomicBool,
}

/// Why a download ended without its dumps. What was fetched is kept and noted.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Somebody wanted it to stop.
    #[error("stopped on request: start again to go on")]
    Stopped,
    /// The host did not do what it should.
    #[error("{url}: {why}; tried {attempts} times, start again to go on")]
    Host {
        /// What was asked for.
        url: String,
        /// What came of it.
        why: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// There is no such file.
    #[error("{url} is not there (404); look at the listing in a browser")]
    NotFound {
        /// What was asked for.
        url: String,
    },
    /// The listing has no version that is complete.
    #[error("{url} lists no complete version{}", .version.as_ref().map(|version| format!(" {version}")).unwrap_or_default())]
    NoVersion {
        /// The listing.
        url: String,
        /// The version that was asked for.
        version: Option<Version>,
    },
    /// The CHECKSUM file has no checksum for a dump.
    #[error("{url} has no checksum for {file}")]
    NoChecksum {
        /// The CHECKSUM file.
        url: String,
        /// The dump.
        file: String,
    },
    /// There is not enough space.
    #[error(
        "{} has {free} bytes free and the dumps need about {needed}; make room, or name another \
         directory",
        .directory.display()
    )]
    Space {
        /// Where the dumps are to be.
        directory: PathBuf,
        /// What they need, in bytes.
        needed: u64,
        /// What is free, in bytes.
        free: u64,
    },
    /// What the host sends is not what its CHECKSUM file says.
    #[error(
        "{file} came {times} times with other bytes than {url} says; perhaps it is being uploaded, \
         try again later"
    )]
    Mismatch {
        /// The dump.
        file: String,
        /// The CHECKSUM file.
        url: String,
        /// How often.
        times: u32,
    },
    /// The file system failed.
    #[error("cannot {operation} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// The state marker can't be saved.
    #[error("{0}")]
    Save(#[from] SaveError),
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DownloadError {
    let path = path.to_owned();
    move |error| DownloadError::Io {
        operation,
        path,
        error,
    }
}

/// The length of a file in bytes, if it is there.
fn length(fs: &dyn FileSystem, path: &Path) -> Result<Option<u64>, DownloadError> {
    match fs.metadata(path) {
        Ok(found) => Ok(Some(found.length)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// What went wrong with one request.
struct Trouble {
    why: String,
    /// How long the host wants to be left alone.
    pause: Option<Duration>,
}

impl Trouble {
    fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            pause: None,
        }
    }
}

/// Why a request did not come to its end.
enum Broken {
    /// Another attempt may succeed.
    Trouble(Trouble),
    /// It may not.
    Final(DownloadError),
}

impl From<DownloadError> for Broken {
    fn from(error: DownloadError) -> Self {
        Self::Final(error)
    }
}

impl From<Trouble> for Broken {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// A version on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Which one.
    pub version: Version,
    listed: Listed,
    /// The CHECKSUM file.
    checksums_url: String,
    /// SHA-256 in hexadecimal, by file name.
    checksums: BTreeMap<String, String>,
}

/// The version `wanted`, or the newest complete one, with its checksums.
///
/// # Errors
/// There is none, or the host does not tell.
pub fn find(
    outside: &mut Outside<'_>,
    options: &Options,
    wanted: Option<&Version>,
) -> Result<Published, DownloadError> {
    let this = year(&rfc3339(outside.clock.unix()));
    let years = match wanted {
        Some(version) => vec![year(version.as_str())],
        // In January the newest version may be one of last year's.
        None => vec![this, this - 1],
    };
    let mut host = Host { outside, options };
    let mut url = String::new();
    for year in years {
        url = host.url(&listing::page(year));
        let listing = listing::parse(&host.text(&url, Text::Page)?);
        let is_wanted = |version: &Version| wanted.is_none_or(|wanted| wanted == version);
        let found = listing
            .into_iter()
            .rfind(|(version, listed)| is_wanted(version) && listed.is_complete());
        if let Some((version, listed)) = found {
            let now = host.now();
            let found = Notice::Found(version.clone());
            host.outside.watcher.notice(now, &found);
            return host.published(version, listed);
        }
    }
    Err(DownloadError::NoVersion {
        url,
        version: wanted.cloned(),
    })
}

/// The year of a time, or of a version: both begin with it.
fn year(text: &str) -> i16 {
    text[..4].parse().expect("it begins with four digits")
}

/// Fetches what is missing of `published` into `directory`; the state is in `paths`, which the caller
/// has locked.
///
/// # Errors
/// Why it ended before everything was there.
pub fn fetch(
    outside: &mut Outside<'_>,
    options: &Options,
    published: &Published,
    directory: &Path,
    paths: &Paths,
) -> Result<(), DownloadError> {
    let loaded =
        marker::load(outside.fs, paths).map_err(failed("load the state in", paths.directory()))?;
    let marker = loaded
        .marker
        .unwrap_or_else(|| Marker::new(&published.version));
    let fetch = Fetch {
        host: Host { outside, options },
        published,
        directory,
        paths,
        marker,
        saves: 0,
    };
    fetch.run()
}

const A_PAGE: &str = "the host sends a page instead of the file";

/// A small text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    /// For people: HTML.
    Page,
    /// For programs.
    File,
}

/// The host, asked with patience.
struct Host<'a, 'o> {
    outside: &'a mut Outside<'o>,
    options: &'a Options,
}

impl Host<'_, '_> {
    fn url(&self, link: &str) -> String {
        format!("{}{link}", self.options.base)
    }

    fn now(&self) -> Instant {
        self.outside.clock.now()
    }

    fn check_stop(&self) -> Result<(), DownloadError> {
        match self.outside.stop.load(Ordering::Relaxed) {
            true => Err(DownloadError::Stopped),
            false => Ok(()),
        }
    }

    fn published(&mut self, version: Version, listed: Listed) -> Result<Published, DownloadError> {
        let link = listed
            .checksums
            .as_deref()
            .expect("a complete version has it");
        let checksums_url = self.url(link);
        let checksums = dump::checksums(&self.text(&checksums_url, Text::File)?);
        for kind in Kind::ALL {
            let file = file_name(&version, kind);
            if !checksums.contains_key(&file) {
                let url = checksums_url;
                return Err(DownloadError::NoChecksum { url, file });
            }
        }
        Ok(Published {
            version,
            listed,
            checksums_url,
            checksums,
        })
    }

    /// A small text, in as many attempts as it takes.
    fn text(&mut self, url: &str, text: Text) -> Result<String, DownloadError> {
        let mut attempts = 0;
        loop {
            match self.try_text(url, text) {
                Ok(text) => return Ok(text),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Trouble(trouble)) => self.bear(url, &mut attempts, trouble)?,
            }
        }
    }

    fn try_text(&mut self, url: &str, text: Text) -> Result<String, Broken> {
        let (mut transfer, head) = self.ask(url, 0, None)?;
        if head.status != 200 {
            return Err(self.refusal(url, &head));
        }
        if text == Text::File && head.is_html() {
            return Err(Trouble::new(A_PAGE).into());
        }
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut *transfer)? {
            bytes.extend(piece);
            if bytes.len() > TEXT_BYTES_MAX {
                return Err(Trouble::new("it is far larger than it should be").into());
            }
        }
        let length = head.length().unwrap_or(bytes.len() as u64);
        if length != bytes.len() as u64 {
            return Err(Trouble::new("the connection ended early").into());
        }
        let content = String::from_utf8_lossy(&bytes).into_owned();
        if text == Text::Page && !listing::is_listing(&content) {
            return Err(Trouble::new("the host sends a page that is no listing").into());
        }
        Ok(content)
    }

    /// Sends a request and waits for its head.
    fn ask(
        &mut self,
        url: &str,
        from: u64,
        if_range: Option<String>,
    ) -> Result<(Box<dyn Transfer>, Head), Broken> {
        let mut transfer = self.outside.http.start(&Request {
            url: url.to_owned(),
            from,
            if_range,
        });
        match self.wait(&mut *transfer)? {
            Piece::Head(head) => Ok((transfer, head)),
            _ => Err(Trouble::new("the connection ended without an answer").into()),
        }
    }

    /// The next bytes; `None` at the end.
    fn piece(&mut self, transfer: &mut dyn Transfer) -> Result<Option<Vec<u8>>, Broken> {
        match self.wait(transfer)? {
            Piece::Bytes(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    /// The next piece that is one.
    fn wait(&mut self, transfer: &mut dyn Transfer) -> Result<Piece, Broken> {
        let deadline = self.now() + self.options.stall_timeout;
        loop {
            self.check_stop()?;
            let look = (self.now() + LOOK).min(deadline);
            let piece = transfer.next(look);
            match piece.map_err(|error| Trouble::new(error.to_string()))? {
                Piece::Pending if self.now() >= deadline => {
                    return Err(Trouble::new("nothing comes any more").into());
                }
                Piece::Pending => {}
                piece => return Ok(piece),
            }
        }
    }

    /// What a response means that is not the content.
    fn refusal(&self, url: &str, head: &Head) -> Broken {
        let unix = self.outside.clock.unix();
        let pause = head
            .retry_after(unix)
            .map(|pause| pause.min(self.options.retry_after_max));
        match head.status {
            404 | 410 => Broken::Final(DownloadError::NotFound {
                url: url.to_owned(),
            }),
            403 => Broken::Trouble(Trouble {
                why: "the host forbids it (403)".to_owned(),
                pause: Some(pause.unwrap_or(FORBIDDEN_PAUSE)),
            }),
            429 => Broken::Trouble(Trouble {
                why: "the host asks for a pause (429)".to_owned(),
                pause,
            }),
            status => Broken::Trouble(Trouble {
                why: format!("the host answers with status {status}"),
                pause,
            }),
        }
    }

    /// Waits before the next attempt, or gives up.
    fn bear(
        &mut self,
        url: &str,
        attempts: &mut u32,
        trouble: Trouble,
    ) -> Result<(), DownloadError> {
        *attempts += 1;
        if *attempts >= self.options.attempts_max {
            return Err(DownloadError::Host {
                url: url.to_owned(),
                why: trouble.why,
                attempts: *attempts,
            });
        }
        let doubled = self.options.retry_min * 2_u32.saturating_pow(*attempts - 1).min(1 << 16);
        let retry = trouble.pause.unwrap_or(doubled.min(self.options.retry_max));
        let now = self.now();
        let why = format!("{url}: {}", trouble.why);
        let failed = Notice::Failed { why, retry };
        self.outside.watcher.notice(now, &failed);
        let deadline = now + retry;
        while self.now() < deadline {
            self.check_stop()?;
            self.outside.pause.pause(deadline);
        }
        self.check_stop()
    }
}

/// A dump that is growing.
struct Part {
    kind: Kind,
    file: Box<dyn FileWrite>,
    path: PathBuf,
    length: u64,
    noted: u64,
    hasher: Sha256,
    validator: Option<String>,
}

/// A download under way.
struct Fetch<'a, 'o> {
    host: Host<'a, 'o>,
    published: &'a Published,
    directory: &'a Path,
    paths: &'a Paths,
    marker: Marker,
    saves: u64,
}

impl Fetch<'_, '_> {
    fn run(mut self) -> Result<(), DownloadError> {
        let mut missing = Vec::new();
        for kind in Kind::ALL {
            self.host.check_stop()?;
            if !self.is_present(kind)? {
                missing.push(kind);
            }
        }
        self.check_space(&missing)?;
        for kind in missing {
            self.fetch(kind)?;
        }
        let phase = &self.marker.download_phase;
        match phase.status == Status::Completed {
            true => Ok(()),
            false => self.complete(),
        }
    }

    fn complete(&mut self) -> Result<(), DownloadError> {
        let now = self.unix();
        let phase = &mut self.marker.download_phase;
        phase.status = Status::Completed;
        phase.completed_at = Some(now);
        self.save()
    }

    fn file(&self, kind: Kind) -> String {
        file_name(&self.published.version, kind)
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.directory.join(self.file(kind))
    }

    fn part_path(&self, kind: Kind) -> PathBuf {
        self.directory.join(self.file(kind) + ".part")
    }

    fn checksum(&self, kind: Kind) -> &str {
        &self.published.checksums[&self.file(kind)]
    }

    fn unix(&self) -> String {
        rfc3339(self.host.outside.clock.unix())
    }

    fn entry(&mut self, kind: Kind) -> &mut FileDownload {
        let file = self.file(kind);
        let entries = &mut self.marker.download_phase.downloads_by_file;
        entries.entry(file).or_default()
    }

    fn notice(&mut self, notice: &Notice) {
        let now = self.host.now();
        self.host.outside.watcher.notice(now, notice);
    }

    /// Whether the dump is there with the published bytes.
    fn is_present(&mut self, kind: Kind) -> Result<bool, DownloadError> {
        let (path, checksum) = (self.path(kind), self.checksum(kind).to_owned());
        let fs = self.host.outside.fs;
        let Some(length) = length(fs, &path)? else {
            return Ok(false);
        };
        let entry = self.entry(kind);
        let is_known = entry.status == Status::Completed && entry.bytes_downloaded == length;
        let actual = match (is_known, &entry.checksum) {
            (true, Some(checksum)) => checksum.clone(),
            _ => source::checksum(fs, &path).map_err(failed("read", &path))?,
        };
        if actual != checksum {
            self.notice(&Notice::Outdated(self.file(kind)));
            return Ok(false);
        }
        if !is_known {
            self.note_present(kind, length)?;
        }
        self.notice(&Notice::Present(self.file(kind)));
        Ok(true)
    }

    fn note_present(&mut self, kind: Kind, length: u64) -> Result<(), DownloadError> {
        let (now, checksum) = (self.unix(), self.checksum(kind).to_owned());
        let entry = self.entry(kind);
        entry.status = Status::Completed;
        entry.bytes_downloaded = length;
        entry.completed_at = Some(now);
        entry.checksum = Some(checksum);
        entry.validator = None;
        self.save()
    }

    /// Whether what is missing will fit, as far as the listing tells.
    fn check_space(&mut self, missing: &[Kind]) -> Result<(), DownloadError> {
        let fs = self.host.outside.fs;
        let mut needed = 0;
        for kind in missing {
            let listed = self.published.listed.dumps.get(kind);
            let size = listed.and_then(|(_, size)| *size).unwrap_or_default();
            let part = length(fs, &self.part_path(*kind))?.unwrap_or_default();
            needed += size.saturating_sub(part);
        }
        let free = fs.free_space(self.directory);
        let free = free.map_err(failed("measure the free space of", self.directory))?;
        match needed <= free {
            true => Ok(()),
            false => Err(DownloadError::Space {
                directory: self.directory.to_owned(),
                needed,
                free,
            }),
        }
    }

    /// Fetches a dump, in as many attempts as it takes.
    fn fetch(&mut self, kind: Kind) -> Result<(), DownloadError> {
        let (link, _) = &self.published.listed.dumps[&kind];
        let url = self.host.url(link);
        let (mut attempts, mut mismatches) = (0, 0);
        let mut part = self.open_part(kind)?;
        loop {
            let before = part.length;
            self.notice(&Notice::Fetching {
                file: self.file(kind),
                from: before,
            });
            let fetched = self.transfer(&url, &mut part);
            if part.length > before {
                attempts = 0;
            }
            match fetched {
                Ok(()) if self.is_published(&part) => return self.finish(part),
                Ok(()) => {
                    mismatches += 1;
                    self.notice(&Notice::Mismatch(self.file(kind)));
                    self.start_over(&mut part)?;
                    if mismatches >= MISMATCHES_MAX {
                        return Err(DownloadError::Mismatch {
                            file: self.file(kind),
                            url: self.published.checksums_url.clone(),
                            times: mismatches,
                        });
                    }
                }
                Err(Broken::Final(error)) => {
                    // A file that failed is not touched again: what is noted of it is what counts.
                    let is_whole =
                        !matches!(error, DownloadError::Io { .. } | DownloadError::Save(_));
                    if is_whole {
                        self.note(&mut part)?;
                    }
                    return Err(error);
                }
                Err(Broken::Trouble(trouble)) => {
                    self.note(&mut part)?;
                    self.host.bear(&url, &mut attempts, trouble)?;
                }
            }
        }
    }

    /// The part of a dump as far as it is noted, ready to grow.
    fn open_part(&mut self, kind: Kind) -> Result<Part, DownloadError> {
        let (path, checksum, now) = (
            self.part_path(kind),
            self.checksum(kind).to_owned(),
            self.unix(),
        );
        let fs = self.host.outside.fs;
        let there = length(fs, &path)?.unwrap_or_default();
        let entry = self.entry(kind);
        let is_noted = entry.status == Status::InProgress
            && entry.checksum.as_ref() == Some(&checksum)
            && entry.bytes_downloaded <= there;
        if !is_noted {
            *entry = FileDownload {
                status: Status::InProgress,
                started_at: Some(now),
                checksum: Some(checksum),
                unknown: std::mem::take(&mut entry.unknown),
                ..FileDownload::default()
            };
        }
        let (noted, validator) = (entry.bytes_downloaded, entry.validator.clone());
        let mut hasher = Sha256::new();
        if noted > 0 {
            source::hash_first(fs, &path, noted, &mut hasher).map_err(failed("read", &path))?;
        }
        let mut file = fs.append(&path).map_err(failed("open", &path))?;
        if there > noted {
            file.truncate(noted).map_err(failed("cut", &path))?;
        }
        fs.sync_dir(self.directory)
            .map_err(failed("sync", self.directory))?;
        Ok(Part {
            kind,
            file,
            path,
            length: noted,
            noted,
            hasher,
            validator,
        })
    }

    /// Asks for what is missing of a part, and appends it.
    fn transfer(&mut self, url: &str, part: &mut Part) -> Result<(), Broken> {
        let if_range = part.validator.clone().filter(|_| part.length > 0);
        let (mut transfer, head) = self.host.ask(url, part.length, if_range)?;
        let total = self.total(url, &head, part)?;
        part.validator = head.validator().map(str::to_owned);
        while let Some(bytes) = self.host.piece(&mut *transfer)? {
            self.append(part, &bytes, total)?;
        }
        match total {
            Some(total) if part.length < total => {
                Err(Trouble::new("the connection ended early").into())
            }
            _ => Ok(()),
        }
    }

    /// The length of the whole dump, if the response has what was asked for.
    fn total(&mut self, url: &str, head: &Head, part: &mut Part) -> Result<Option<u64>, Broken> {
        let (from, whole) = head.range();
        match head.status {
            200 | 206 if head.is_html() => Err(Trouble::new(A_PAGE).into()),
            200 => {
                if part.length > 0 {
                    self.notice(&Notice::StartedOver(self.file(part.kind)));
                    self.start_over(part)?;
                }
                Ok(head.length())
            }
            206 if from == Some(part.length) => {
                let rest = head.length().map(|length| part.length + length);
                Ok(whole.or(rest))
            }
            206 => Err(Trouble::new("the host sends another part than was asked for").into()),
            // All of it is there, or more than all.
            416 if whole == Some(part.length) => Ok(whole),
            416 => {
                self.notice(&Notice::StartedOver(self.file(part.kind)));
                self.start_over(part)?;
                Err(Trouble::new("the host has no such part").into())
            }
            _ => Err(self.host.refusal(url, head)),
        }
    }

    fn append(&mut self, part: &mut Part, bytes: &[u8], total: Option<u64>) -> Result<(), Broken> {
        if part.length == 0 && !GZIP.starts_with(&bytes[..bytes.len().min(GZIP.len())]) {
            return Err(Trouble::new("the host sends something that is not gzip").into());
        }
        let length = part.length + bytes.len() as u64;
        if total.is_some_and(|total| length > total) {
            return Err(Trouble::new("the host sends more than it announced").into());
        }
        part.file
            .write_all(bytes)
            .map_err(failed("write", &part.path))?;
        part.hasher.update(bytes);
        part.length = length;
        let outside = &mut *self.host.outside;
        outside
            .watcher
            .progress(outside.clock.now(), part.kind, length, total);
        if length - part.noted >= self.host.options.note_every_bytes {
            self.note(part)?;
        }
        Ok(())
    }

    /// Makes the part durable, and notes its length.
    fn note(&mut self, part: &mut Part) -> Result<(), DownloadError> {
        if part.length == part.noted {
            return Ok(());
        }
        part.file.sync().map_err(failed("sync", &part.path))?;
        let (length, validator) = (part.length, part.validator.clone());
        let entry = self.entry(part.kind);
        entry.bytes_downloaded = length;
        entry.validator = validator;
        self.save()?;
        part.noted = part.length;
        Ok(())
    }

    /// Forgets what was fetched.
    fn start_over(&mut self, part: &mut Part) -> Result<(), DownloadError> {
        if part.noted > 0 {
            let entry = self.entry(part.kind);
            entry.bytes_downloaded = 0;
            entry.validator = None;
            self.save()?;
        }
        part.file.truncate(0).map_err(failed("cut", &part.path))?;
        (part.length, part.noted) = (0, 0);
        part.hasher = Sha256::new();
        part.validator = None;
        Ok(())
    }

    fn is_published(&self, part: &Part) -> bool {
        hex(&part.hasher.clone().finalize()) == self.checksum(part.kind)
    }

    /// Gives a whole part its dump's name.
    fn finish(&mut self, mut part: Part) -> Result<(), DownloadError> {
        part.file.sync().map_err(failed("sync", &part.path))?;
        let (fs, path) = (self.host.outside.fs, self.path(part.kind));
        fs.rename(&part.path, &path)
            .map_err(failed("rename", &part.path))?;
        fs.sync_dir(self.directory)
            .map_err(failed("sync", self.directory))?;
        self.note_present(part.kind, part.length)?;
        self.notice(&Notice::Fetched(self.file(part.kind)));
        Ok(())
    }

    fn save(&mut self) -> Result<(), DownloadError> {
        let now = self.unix();
        let marker = &mut self.marker;
        marker.current_version = Some(self.published.version.clone());
        marker.last_updated = Some(now.clone());
        let phase = &mut marker.download_phase;
        phase.started_at.get_or_insert(now);
        let entries = phase.downloads_by_file.values();
        let is_completed = |entry: &&FileDownload| entry.status == Status::Completed;
        phase.files_downloaded = entries.clone().filter(is_completed).count() as u64;
        phase.files_total = Kind::ALL.len() as u64;
        phase.bytes_downloaded = entries.map(|entry| entry.bytes_downloaded).sum();
        if phase.files_downloaded < phase.files_total {
            phase.status = Status::InProgress;
            phase.completed_at = None;
        }
        self.saves += 1;
        let save = Save::new(self.paths, self.saves, marker, Vec::new());
        save.finish(self.host.outside.fs)?;
        Ok(())
    }
}
