//! What there is at one moment: a disk image and what the broker holds, read for the oracles.
//!
//! The reading is done here, by plain code that shares nothing with the product: the oracles only
//! compare.

use std::collections::BTreeSet;
use std::fmt;

use discogs_extractor::broker::Subject;
use discogs_extractor::dump::Kind;
use serde_json::Value;

use crate::broker::Server;
use crate::disk::Image;
use crate::place::Held;
use crate::scenario::{Scenario, Truth, VARIANTS};

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
        let mut deliveries = Vec::new();
        self.scenario.place.look(self, &mut |held| {
            if held.route == kind {
                deliveries.push(self.identified(&held));
            }
        });
        deliveries
    }

    /// What the broker holds from a message on, in order; for places that know one over all routes.
    pub fn held(&self, from: usize) -> Vec<(Kind, Delivery)> {
        let (mut deliveries, mut index) = (Vec::new(), 0);
        self.scenario.place.look(self, &mut |held| {
            if index >= from {
                deliveries.push((held.route, self.identified(&held)));
            }
            index += 1;
        });
        deliveries
    }

    /// How many messages the broker holds.
    pub fn held_count(&self) -> usize {
        let mut count = 0;
        self.scenario.place.look(self, &mut |_| count += 1);
        count
    }

    /// Whether what there is of a route ends in the middle of a message.
    pub fn is_torn(&self, kind: Kind) -> bool {
        self.scenario.place.is_torn(self, kind)
    }

    /// What a message is, unless it says to be something else.
    fn identified(&self, held: &Held<'_>) -> Delivery {
        let delivery = self.delivery(held.route, held.body);
        let is_named_so = match (&delivery, held.subject) {
            (_, None) | (Delivery::Former, Some(Subject::Record(_))) => true,
            (Delivery::Record(ordinal), Some(Subject::Record(named))) => named.0 == *ordinal,
            (Delivery::FileComplete(_), Some(subject)) => subject == Subject::FileComplete,
            (Delivery::ExtractionComplete(_), Some(subject)) => {
                subject == Subject::ExtractionComplete
            }
            _ => false,
        };
        match is_named_so {
            true => delivery,
            false => {
                let body = String::from_utf8_lossy(held.body);
                Delivery::Foreign(format!("{:?}: {body}", held.subject))
            }
        }
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
