//! Dumps: their kinds, versions and file names, and how they are found in a directory.
//!
//! Discogs names a dump `discogs_YYYYMMDD_{artists,labels,masters,releases}.xml.gz`; the date is
//! the version, and the four dumps of one date belong together.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fs::FileSystem;

/// What a dump holds. The order is the order in which the dumps of a version are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `discogs_YYYYMMDD_artists.xml.gz`
    Artists,
    /// `discogs_YYYYMMDD_labels.xml.gz`
    Labels,
    /// `discogs_YYYYMMDD_masters.xml.gz`
    Masters,
    /// `discogs_YYYYMMDD_releases.xml.gz`, nearly nine tenths of the work.
    Releases,
}

impl Kind {
    /// All kinds, in processing order.
    pub const ALL: [Self; 4] = [Self::Artists, Self::Labels, Self::Masters, Self::Releases];

    /// The name in file names, routes and messages, and of the XML root: `artists`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Artists => "artists",
            Self::Labels => "labels",
            Self::Masters => "masters",
            Self::Releases => "releases",
        }
    }

    /// The name of a record's XML element: `artist`.
    pub const fn record_name(self) -> &'static str {
        match self {
            Self::Artists => "artist",
            Self::Labels => "label",
            Self::Masters => "master",
            Self::Releases => "release",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                format!("`{name}` is not a kind of dump: artists, labels, masters or releases")
            })
    }
}

/// The date of a dump, `YYYYMMDD`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    /// The eight digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Midnight UTC of the version's date, in seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> u64 {
        let date: jiff::civil::Date = self.0.parse().expect("a version is a date");
        let midnight = jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0));
        midnight.map_or(0, |midnight| midnight.as_second().unsigned_abs())
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_date = text.len() == 8
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && text >= "19700101"
            && text.parse::<jiff::civil::Date>().is_ok();
        is_date
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| format!("`{text}` is not a version: a version is a date, like 20260801"))
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One dump file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub kind: Kind,
    /// The version it belongs to.
    pub version: Version,
}

impl Dump {
    /// The dump at `path`, if its name is a dump's.
    pub fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let stem = name.strip_prefix("discogs_")?.strip_suffix(".xml.gz")?;
        let (version, kind) = stem.split_once('_')?;
        Some(Self {
            path: path.to_owned(),
            kind: kind.parse().ok()?,
            version: version.parse().ok()?,
        })
    }

    /// The file name: the key of this dump in the state marker.
    pub fn file_name(&self) -> String {
        file_name(&self.version, self.kind)
    }
}

/// The name of the dump of a version and kind: `discogs_20260801_artists.xml.gz`.
pub fn file_name(version: &Version, kind: Kind) -> String {
    format!("discogs_{version}_{kind}.xml.gz")
}

/// The name of the file in which Discogs publishes the checksums of a version.
pub fn checksums_name(version: &Version) -> String {
    format!("discogs_{version}_CHECKSUM.txt")
}

/// The SHA-256 of each dump, by file name, of the text of a CHECKSUM file: lines of 64 hexadecimal
/// digits, one space or more, and the name. Other lines are passed over. Digits come out lowercase.
pub fn checksums(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (digits, name) = line.split_once(' ')?;
        let is_sha256 = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        // `sha256sum` marks binary files by a star.
        let name = name.trim().trim_start_matches('*');
        is_sha256.then(|| (name.to_owned(), digits.to_ascii_lowercase()))
    };
    text.lines().filter_map(line).collect()
}

/// The dumps that one run processes: all of one version, in processing order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The version of all dumps.
    pub version: Version,
    /// The dumps, at most one of each kind, in processing order; never empty.
    pub dumps: Vec<Dump>,
    /// The directory they are in.
    pub directory: PathBuf,
}

/// Why no dumps could be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The path can't be read.
    #[error("cannot read {path}: {error}; name a directory with dumps, or a dump")]
    Unreadable {
        /// The directory or dump that was asked for.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// A file was named whose name is not a dump's.
    #[error(
        "{path} is not named like a dump; rename it to discogs_YYYYMMDD_KIND.xml.gz, where KIND is artists, labels, masters or releases"
    )]
    NotADump {
        /// The file.
        path: PathBuf,
    },
    /// The directory holds no dump at all.
    #[error(
        "{directory} holds no dump; dumps are named discogs_YYYYMMDD_KIND.xml.gz, where KIND is artists, labels, masters or releases"
    )]
    Empty {
        /// The directory.
        directory: PathBuf,
    },
    /// The version that was asked for is not there.
    #[error("{directory} holds no dump of version {version}; it holds {}", list(.present))]
    NoVersion {
        /// The directory.
        directory: PathBuf,
        /// What was asked for.
        version: Version,
        /// What is there, oldest first.
        present: Vec<Version>,
    },
    /// The version lacks dumps of kinds that were asked for.
    #[error("version {version} in {directory} lacks {}; add them, choose another version with --dump-version, or name the kinds that you want with --kinds", list(.missing))]
    Incomplete {
        /// The directory.
        directory: PathBuf,
        /// The version.
        version: Version,
        /// The kinds that are not there.
        missing: Vec<Kind>,
    },
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Selects what to process: the dumps of `kinds` (all four if empty) of `version` (the newest if
/// `None`) in the directory `path`; or the one dump that `path` names.
pub fn select(
    fs: &dyn FileSystem,
    path: &Path,
    version: Option<&Version>,
    kinds: &[Kind],
) -> Result<Selection, SelectError> {
    let unreadable = |error| SelectError::Unreadable {
        path: path.to_owned(),
        error,
    };
    if !fs.metadata(path).map_err(unreadable)?.is_dir {
        let dump = Dump::from_path(path).ok_or_else(|| SelectError::NotADump {
            path: path.to_owned(),
        })?;
        fs.open(path).map_err(unreadable)?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok(Selection {
            version: dump.version.clone(),
            dumps: vec![dump],
            directory,
        });
    }

    let mut versions = BTreeMap::<Version, BTreeMap<Kind, Dump>>::new();
    for dump in fs
        .list(path)
        .map_err(unreadable)?
        .iter()
        .filter_map(|path| Dump::from_path(path))
    {
        versions
            .entry(dump.version.clone())
            .or_default()
            .insert(dump.kind, dump);
    }
    let directory = path.to_owned();
    let version = match version.or(versions.keys().next_back()) {
        Some(version) => version.clone(),
        None => return Err(SelectError::Empty { directory }),
    };
    let Some(mut present) = versions.remove(&version) else {
        return Err(SelectError::NoVersion {
            directory,
            version,
            present: versions.into_keys().collect(),
        });
    };
    let wanted = |kind: &Kind| kinds.is_empty() || kinds.contains(kind);
    let missing: Vec<_> = Kind::ALL
        .into_iter()
        .filter(|kind| wanted(kind) && !present.contains_key(kind))
        .collect();
    if !missing.is_empty() {
        return Err(SelectError::Incomplete {
            directory,
            version,
            missing,
        });
    }
    present.retain(|kind, _| wanted(kind));
    Ok(Selection {
        version,
        dumps: present.into_values().collect(),
        directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_date() {
        assert_eq!(
            "20260801".parse::<Version>().unwrap().unix_seconds(),
            1_785_542_400
        );
        for text in ["2026080", "202608011", "20261301", "2026-8-1", "newest", ""] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn checksums_are_read_with_one_space_or_two() {
        let hash = "Ab".repeat(32);
        let text = format!(
            "{hash} one.xml.gz\n{hash}  two.xml.gz\r\n{hash} *three.xml.gz\n<html>\n{hash}\nab four\n"
        );
        let names: Vec<_> = checksums(&text).into_iter().collect();
        let expected = ["one", "three", "two"]
            .map(|name| (format!("{name}.xml.gz"), hash.to_ascii_lowercase()));
        assert_eq!(names, expected);
    }

    #[test]
    fn a_dump_is_known_by_its_name() {
        let dump = Dump::from_path(Path::new("somewhere/discogs_20260801_labels.xml.gz")).unwrap();
        assert_eq!(
            (dump.kind, dump.version.as_str()),
            (Kind::Labels, "20260801")
        );
        for name in [
            "discogs_20260801_labels.xml",
            "discogs_20260801_CHECKSUM.txt",
            "discogs_20260801_tapes.xml.gz",
        ] {
            assert_eq!(Dump::from_path(Path::new(name)), None, "{name}");
        }
    }
}
