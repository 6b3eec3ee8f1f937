//! From a dump file to the sequence of its records. (being written)

use crate::message::Content;
use crate::record::{ByteOffset, Position};

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
    /// The end of the dump, verified: gzip trailer right, XML root closed. Nothing follows.
    End {
        /// SHA-256 of the file's bytes, 64 lowercase hexadecimal digits.
        checksum: String,
    },
}

#[derive(Debug, thiserror::Error)]
/// x
pub enum SourceError {
    /// x
    #[error("cannot open {path}: {error}; check that it is there and can be read")]
    Open {
        /// x
        path: std::path::PathBuf,
        /// x
        error: std::io::Error,
    },
}
/// x
pub fn fingerprint(
    fs: &dyn crate::fs::FileSystem,
    path: &std::path::Path,
) -> std::io::Result<String> {
    checksum(fs, path)
}
/// x
pub fn checksum(fs: &dyn crate::fs::FileSystem, path: &std::path::Path) -> std::io::Result<String> {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(crate::fs::read(fs, path)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
/// x
pub type Reads = Box<dyn Iterator<Item = Result<Read, SourceError>> + Send>;
