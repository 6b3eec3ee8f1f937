//! From a dump file to the sequence of its records.
//!
//! ```text
//! file ─→ gzip (inflated bytes) ─→ frame (one record's bytes) ─→ message (one message)
//! ```
//!
//! A [`Source`] is a pull iterator: it does nothing until it is asked, and what it yields is a
//! function of the file's bytes, the position it begins at and its options. No clock, no thread,
//! no randomness. [`crate::pool`] makes the same sequence on threads.
//!
//! It yields one [`Item`] for every frame, and then [`Read::End`] if the file was verified to its
//! end, or an error. Every whole record before the place of an error is yielded before it.

use std::fmt;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dump::{Dump, Kind};
use crate::frame::{self, Frame, FrameError, Framer, Shape};
use crate::fs::{FileRead, FileSystem};
use crate::gzip::{GzipError, GzipReader, hex};
use crate::message::{Content, Malformed, Profile, Transcoder};
use crate::record::{ByteOffset, Position};
use crate::seek_point::SeekPoint;

/// One record of a dump, well-formed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where the record begins in the XML.
    pub start: ByteOffset,
    /// The boundary behind the record: its ordinal, and where reading goes on.
    pub position: Position,
    /// How much of the file, in compressed bytes, was read to get here.
    pub compressed: ByteOffset,
    /// What became of it.
    pub outcome: Outcome,
    /// A place before the record from which it can be read, if there is a new one.
    pub seek_point: Option<Arc<SeekPoint>>,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A message to publish.
    Content(Content),
    /// No message: the record goes to the dead letters.
    Malformed {
        /// What is wrong, and where in the dump.
        reason: String,
        /// The record's bytes; the first 64 KiB of a record over the size bound.
        raw: Vec<u8>,
    },
}

/// What reading a dump yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next record.
    Item(Item),
    /// A piece of the way to where reading was to begin, so that a run can be stopped on it.
    Skipped,
    /// The end of the dump, verified: gzip trailer right, XML root closed. Nothing follows.
    End {
        /// SHA-256 of the file's bytes, 64 lowercase hexadecimal digits.
        checksum: String,
    },
}

/// Why a dump can't be read to its verified end.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file can't be opened.
    #[error("cannot open {path}: {error}; check that it is there and can be read")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// The gzip layer: offsets are of compressed bytes.
    #[error("{path}: {error}")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What is wrong, at which byte, and what can be done.
        error: GzipError,
    },
    /// The XML layer: offsets are of XML bytes.
    #[error("{path}: {error}")]
    Xml {
        /// The file.
        path: PathBuf,
        /// What is wrong, at which byte, and what can be done.
        error: FrameError,
    },
}

/// How a dump is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A longer record, in bytes of XML, is a dead letter, so that memory is bounded; 64 MiB.
    pub record_bytes_max: usize,
    /// The shape of the messages.
    pub profile: Profile,
    /// How many compressed bytes are read from the file at once, at least 1; 128 KiB. Below 64 KiB
    /// the rate drops.
    pub buffer_bytes: usize,
    /// How many compressed bytes lie between two seek points, at least; 1 MiB, which is inflated in
    /// a few milliseconds.
    pub seek_spacing_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            record_bytes_max: 64 * 1024 * 1024,
            profile: Profile::default(),
            buffer_bytes: 128 * 1024,
            seek_spacing_bytes: 1 << 20,
        }
    }
}

/// The records of one dump, from some position on. Made by [`open`].
pub struct Source {
    path: PathBuf,
    gzip: GzipReader,
    framer: Framer,
    transcoder: Transcoder,
    options: Options,
    kind: Kind,
    /// Where to begin, until that place is reached.
    from: Option<ByteOffset>,
    /// Where to begin on the way there.
    seek_point: Option<SeekPoint>,
    is_over: bool,
}

/// A record that was cut out of a dump, but for its bytes.
pub(crate) struct Cut {
    frame: Frame,
    compressed: ByteOffset,
    seek_point: Option<Arc<SeekPoint>>,
}

/// What cutting up a dump comes to.
pub(crate) enum Step {
    /// A record; its bytes are [`Source::bytes`].
    Cut(Cut),
    /// Anything else.
    Read(Result<Read, SourceError>),
}

/// Opens a dump to read what follows `from`, which is the start or a boundary that an item of the
/// same bytes had.
///
/// Nothing is read here. What lies before `from` is inflated first, about a minute for the end of
/// the largest dump, unless there is a [seek point](Source::with_seek_point).
///
/// # Errors
///
/// If the file can't be opened. What is in it shows while iterating.
pub fn open(
    fs: &dyn FileSystem,
    dump: &Dump,
    from: Position,
    options: &Options,
) -> Result<Source, SourceError> {
    let file = fs.open(&dump.path).map_err(|error| SourceError::Open {
        path: dump.path.clone(),
        error,
    })?;
    Ok(Source::new(file, dump, from, options))
}

impl Iterator for Source {
    type Item = Result<Read, SourceError>;

    /// The next record, the end or an error; nothing after the end or an error.
    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.step()? {
            Step::Cut(cut) => Ok(Read::Item(self.item(cut))),
            Step::Read(read) => read,
        })
    }
}

impl Source {
    /// Reads `file`, which is `dump`, as [`open`] does.
    pub(crate) fn new(
        file: Box<dyn FileRead>,
        dump: &Dump,
        from: Position,
        options: &Options,
    ) -> Self {
        Self {
            path: dump.path.clone(),
            gzip: GzipReader::new(file, options.buffer_bytes, options.seek_spacing_bytes),
            framer: Framer::new(dump.kind, from, options.record_bytes_max),
            transcoder: Transcoder::new(dump.kind, options.profile),
            options: options.clone(),
            kind: dump.kind,
            from: Some(from.xml),
            seek_point: None,
            is_over: false,
        }
    }

    /// Begins at `point`, which an item of the same bytes had, and is passed over if it lies behind
    /// where reading is to begin.
    #[must_use]
    pub fn with_seek_point(mut self, point: Option<SeekPoint>) -> Self {
        let is_before = |point: &SeekPoint| self.from.is_some_and(|from| point.inflated <= from.0);
        self.seek_point = point.filter(is_before);
        self
    }

    /// Goes back to `from`, which is a boundary like that of [`open`], to read on as if it was
    /// opened there, on the way of `seek_point`.
    pub(crate) fn go_back(
        &mut self,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<(), SourceError> {
        let rewound = self.gzip.rewind();
        rewound.map_err(|error| self.gzip_error(error))?;
        self.framer = Framer::new(self.kind, from, self.options.record_bytes_max);
        self.from = Some(from.xml);
        self.seek_point = seek_point;
        self.is_over = false;
        Ok(())
    }

    /// A transcoder for its records.
    pub(crate) fn transcoder(&self) -> Transcoder {
        Transcoder::new(self.kind, self.options.profile)
    }

    /// The boundary behind the last record, or where reading begins.
    pub(crate) const fn position(&self) -> Position {
        self.framer.position()
    }

    /// The seek point that is still to be used.
    pub(crate) const fn seek_point(&self) -> Option<&SeekPoint> {
        self.seek_point.as_ref()
    }

    /// The bytes of the record that was cut out last.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.framer.bytes()
    }

    /// Goes on to the next record; `None` after the end or an error.
    #[inline]
    pub(crate) fn step(&mut self) -> Option<Step> {
        if self.is_over {
            return None;
        }
        let step = self.try_step();
        let step = step.unwrap_or_else(|error| Step::Read(Err(error)));
        self.is_over = !matches!(step, Step::Cut(_) | Step::Read(Ok(Read::Skipped)));
        Some(step)
    }

    #[inline]
    fn try_step(&mut self) -> Result<Step, SourceError> {
        if let Some(from) = self.from {
            if !self.skip(from).map_err(|error| self.gzip_error(error))? {
                return Ok(Step::Read(Ok(Read::Skipped)));
            }
            self.from = None;
        }
        loop {
            let step = self.framer.step();
            match step.map_err(|error| self.xml_error(error))? {
                frame::Step::Starved => {
                    let count = self.gzip.read(self.framer.room());
                    let count = count.map_err(|error| self.gzip_error(error))?;
                    self.framer.filled(count);
                }
                frame::Step::Frame(frame) => return Ok(Step::Cut(self.cut(frame))),
                frame::Step::End => {
                    let checksum = self.gzip.checksum();
                    return Ok(Step::Read(Ok(Read::End { checksum })));
                }
            }
        }
    }

    /// Goes towards `from`, and says whether it is reached.
    fn skip(&mut self, from: ByteOffset) -> Result<bool, GzipError> {
        if let Some(point) = self.seek_point.take() {
            self.gzip.enter(&point)?;
        }
        self.gzip.skip_towards(from)
    }

    fn gzip_error(&self, error: GzipError) -> SourceError {
        let path = self.path.clone();
        SourceError::Gzip { path, error }
    }

    fn xml_error(&self, error: FrameError) -> SourceError {
        let path = self.path.clone();
        SourceError::Xml { path, error }
    }

    #[inline]
    fn cut(&mut self, frame: Frame) -> Cut {
        Cut {
            frame,
            compressed: self.gzip.compressed(),
            seek_point: self.gzip.seek_point_before(frame.start).map(Arc::new),
        }
    }

    /// The item of a record. It is shorter than it was cut if its tags don't match and the next
    /// record seems to begin inside it.
    fn item(&mut self, mut cut: Cut) -> Item {
        loop {
            let bytes = self.framer.bytes();
            let unbalanced = match cut.outcome(bytes, None, &mut self.transcoder) {
                Ok(outcome) => return cut.item(outcome),
                Err(unbalanced) => unbalanced,
            };
            match self.framer.resync() {
                Some(shorter) => cut.frame = shorter,
                None => {
                    let outcome = cut.malformed(&unbalanced, self.framer.bytes());
                    return cut.item(outcome);
                }
            }
        }
    }
}

impl Cut {
    /// What becomes of the record, whose bytes are `bytes`; `text` if they are known to be UTF-8.
    ///
    /// # Errors
    /// If its tags don't match: [`Framer::resync`] is to be asked where it ends.
    #[inline(always)]
    pub(crate) fn outcome(
        &self,
        bytes: &[u8],
        text: Option<&str>,
        transcoder: &mut Transcoder,
    ) -> Result<Outcome, Malformed> {
        let transcoded = match (self.frame.shape, text) {
            (Shape::Record, Some(text)) => transcoder.transcode_text(text),
            (Shape::Record, None) => transcoder.transcode(bytes),
            (Shape::Stray | Shape::Oversized, _) => Err(self.no_record()),
        };
        match transcoded {
            Ok(content) => Ok(Outcome::Content(content)),
            Err(malformed) if malformed.unbalanced => Err(malformed),
            Err(malformed) => Ok(self.malformed(&malformed, bytes)),
        }
    }

    #[cold]
    fn no_record(&self) -> Malformed {
        let length = self.frame.position.xml.0 - self.frame.start.0;
        let reason = match self.frame.shape {
            Shape::Oversized => format!("{length} bytes long, more than a record may have"),
            _ => "neither a record nor space between records".to_owned(),
        };
        Malformed::new(0, reason)
    }

    fn malformed(&self, malformed: &Malformed, bytes: &[u8]) -> Outcome {
        let ordinal = self.frame.position.ordinal;
        let offset = ByteOffset(self.frame.start.0 + malformed.offset as u64);
        let reason = &malformed.reason;
        Outcome::Malformed {
            reason: format!("record {ordinal}, at byte {offset} of the XML: {reason}"),
            raw: bytes.to_vec(),
        }
    }

    /// The item of a record with its outcome.
    #[inline]
    pub(crate) fn item(self, outcome: Outcome) -> Item {
        Item {
            start: self.frame.start,
            position: self.frame.position,
            compressed: self.compressed,
            outcome,
            seek_point: self.seek_point,
        }
    }
}

/// The records of a dump, however they are made.
pub type Reads = Box<dyn Iterator<Item = Result<Read, SourceError>> + Send>;

/// A cheap identity of a file's bytes: `sampled-sha256:` and 64 hexadecimal digits.
///
/// SHA-256 over the length and sixteen blocks, so that it takes milliseconds for any size. The
/// last block holds the CRC-32 of the whole content (of the last member's, if there are several):
/// a dump that was published anew has another fingerprint. Damage between the blocks does not
/// show; that is what [`checksum`] is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

const SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 64 * 1024;

/// The fingerprint of a file: SHA-256 of its length as eight bytes, little end first, and of
/// sixteen evenly spaced blocks of 64 KiB, the first and the last of the file among them; of all its
/// bytes if they are not more.
pub fn fingerprint(fs: &dyn FileSystem, path: &Path) -> io::Result<Fingerprint> {
    let mut file = fs.open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut hasher = Sha256::new();
    hasher.update(length.to_le_bytes());
    if length <= SAMPLES * SAMPLE_BYTES {
        hash(&mut hasher, &mut *file, 0, length)?;
    } else {
        for sample in 0..SAMPLES {
            // No overflow below 2^60 bytes.
            let start = (length - SAMPLE_BYTES) * sample / (SAMPLES - 1);
            hash(&mut hasher, &mut *file, start, SAMPLE_BYTES)?;
        }
    }
    let digits = hex(&hasher.finalize());
    Ok(Fingerprint(format!("sampled-sha256:{digits}")))
}

/// SHA-256 of all bytes of a file, 64 lowercase hexadecimal digits.
pub fn checksum(fs: &dyn FileSystem, path: &Path) -> io::Result<String> {
    let mut file = fs.open(path)?;
    let mut hasher = Sha256::new();
    hash(&mut hasher, &mut *file, 0, u64::MAX)?;
    Ok(hex(&hasher.finalize()))
}

/// Feeds the first `length` bytes of a file to `hasher`.
///
/// # Errors
/// The file can't be read, or has fewer.
pub fn hash_first(
    fs: &dyn FileSystem,
    path: &Path,
    length: u64,
    hasher: &mut Sha256,
) -> io::Result<()> {
    let mut file = fs.open(path)?;
    match file.seek(SeekFrom::End(0))? < length {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => hash(hasher, &mut *file, 0, length),
    }
}

/// Hashes `length` bytes of a file from `start` on, fewer if it ends before.
fn hash(hasher: &mut Sha256, file: &mut dyn FileRead, start: u64, length: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let mut piece = vec![0; 64 * 1024];
    let mut missing = length;
    while missing > 0 {
        let most = usize::try_from(missing).map_or(piece.len(), |missing| missing.min(piece.len()));
        match file.read(&mut piece[..most]) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&piece[..count]);
                missing -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
