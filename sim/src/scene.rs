//! What there is at one moment: a disk image and what the broker holds, read for the oracles.
//!
//! The reading is done here, by plain code that shares nothing with the product: the oracles only
//! compare.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use discogs_extractor::broker::Subject;
use discogs_extractor::dump::Kind;
use serde_json::Value;

use crate::broker::Server;
use crate::disk::Image;
use crate::scenario::{Place, SPOOL, Scenario, Truth, VARIANTS};

/// A moment.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What is run.
    pub scenario: &'a Scenario,
    /// The disk.
    pub image: &'a Image,
    /// The simulated RabbitMQ.
    pub server: &'a Server,
}

/// What one message of a route is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A record of the dump that is on the disk, whole.
    Record(u64),
    /// A record of another variant of the dump.
    Former,
    /// The end of the dump, with the number of records that it tells.
    FileComplete(Option<u64>),
    /// The end of the version, with the number of records that it tells of this route.
    ExtractionComplete(Option<u64>),
    /// None of those, in short.
    Foreign(String),
}

/// In short, for a timeline.
impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(ordinal) => write!(f, "{ordinal}"),
            Self::Former => f.write_str("former"),
            Self::FileComplete(_) => f.write_str("file_complete"),
            Self::ExtractionComplete(_) => f.write_str("extraction_complete"),
            Self::Foreign(_) => f.write_str("foreign"),
        }
    }
}

impl<'a> Scene<'a> {
    /// What must come of a dump.
    pub fn truth(&self, kind: Kind) -> &'a Truth {
        self.scenario.truth(self.image, kind)
    }

    /// What the broker holds of a route, in order.
    pub fn deliveries(&self, kind: Kind) -> Vec<Delivery> {
        match self.scenario.place {
            Place::RabbitMq => self.stored(kind),
            Place::Spool => self
                .lines(kind)
                .iter()
                .map(|line| self.delivery(kind, line))
                .collect(),
        }
    }

    fn stored(&self, kind: Kind) -> Vec<Delivery> {
        self.server.with_stored(|stored| {
            let route = stored.iter().filter(|stored| stored.message.route == kind);
            let identified = route.map(|stored| {
                let message = &stored.message;
                let delivery = self.delivery(kind, &message.body);
                let is_named_so = match (&delivery, message.subject) {
                    (Delivery::Record(ordinal), Subject::Record(named)) => named.0 == *ordinal,
                    (Delivery::Former, Subject::Record(_))
                    | (Delivery::FileComplete(_), Subject::FileComplete)
                    | (Delivery::ExtractionComplete(_), Subject::ExtractionComplete) => true,
                    _ => false,
                };
                match is_named_so {
                    true => delivery,
                    false => Delivery::Foreign(format!("{message:?}")),
                }
            });
            identified.collect()
        })
    }

    fn delivery(&self, kind: Kind, body: &[u8]) -> Delivery {
        let record = |truth: &Truth| {
            let found = truth.published().find(|(_, message)| *message == body);
            found.map(|(ordinal, _)| ordinal)
        };
        if let Some(ordinal) = record(self.truth(kind)) {
            return Delivery::Record(ordinal);
        }
        if (0..VARIANTS).any(|variant| record(self.scenario.variant_truth(kind, variant)).is_some())
        {
            return Delivery::Former;
        }
        control(kind, body)
            .unwrap_or_else(|| Delivery::Foreign(String::from_utf8_lossy(body).into_owned()))
    }

    /// The whole lines of a route of the spool, in order. What follows the last line end is not
    /// finished.
    pub fn lines(&self, kind: Kind) -> Vec<&'a [u8]> {
        let segments = self.segments(kind);
        let texts = segments.iter().filter_map(|path| self.image.read(path));
        let whole = texts.flat_map(|text| text.split_inclusive(|&byte| byte == b'\n'));
        whole.filter_map(|line| line.strip_suffix(b"\n")).collect()
    }

    /// Whether the last segment of a route of the spool ends in the middle of a line.
    pub fn is_torn(&self, kind: Kind) -> bool {
        let last = self
            .segments(kind)
            .last()
            .and_then(|path| self.image.read(path));
        last.is_some_and(|text| !text.is_empty() && !text.ends_with(b"\n"))
    }

    fn segments(&self, kind: Kind) -> Vec<PathBuf> {
        let directory = Path::new(SPOOL).join(Scenario::version().as_str());
        let prefix = format!("{kind}-");
        let paths = self.image.files().map(|(path, _)| path);
        let segments = paths.filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            path.parent() == Some(&*directory)
                && name.starts_with(&prefix)
                && name.ends_with(".jsonl")
        });
        segments.map(Path::to_owned).collect()
    }

    /// The records in the dead-letter file, in its order, as far as its lines are whole.
    pub fn letters(&self, kind: Kind) -> Vec<u64> {
        let path = Scenario::paths().dead_letters(kind);
        let text = self.image.read(path).unwrap_or_default();
        letters(text)
    }

    /// The records of a dump that the broker refuses for ever.
    pub fn refused(&self, kind: Kind) -> BTreeSet<u64> {
        let prefix = format!("{}-{kind}-", Scenario::version());
        let refused = self.server.refused();
        let ordinals = refused
            .iter()
            .filter_map(|id| id.strip_prefix(&prefix)?.parse().ok());
        ordinals.collect()
    }

    /// Whether the broker refuses a message that announces an end: then no run can complete.
    pub fn refuses_an_end(&self) -> bool {
        self.server
            .refused()
            .iter()
            .any(|id| id.ends_with("_complete"))
    }
}

/// The records of whole dead-letter lines.
pub(crate) fn letters(text: &[u8]) -> Vec<u64> {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    let parsed = lines.map_while(|line| {
        let letter: Value = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
        letter["record"].as_u64()
    });
    parsed.collect()
}

fn control(kind: Kind, body: &[u8]) -> Option<Delivery> {
    let body: Value = serde_json::from_slice(body).ok()?;
    match body["type"].as_str()? {
        "file_complete" if body["data_type"] == kind.name() => {
            Some(Delivery::FileComplete(body["total_processed"].as_u64()))
        }
        "extraction_complete" => {
            let count = body["record_counts"][kind.name()].as_u64();
            Some(Delivery::ExtractionComplete(count))
        }
        _ => None,
    }
}
