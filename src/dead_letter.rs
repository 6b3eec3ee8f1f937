//! Dead letters: the records that were skipped, each with its reason and its bytes, so that
//! nothing is lost without a trace and people can repair and publish it.
//!
//! One JSON object a line. The file grows only with a save of the state marker
//! ([`crate::marker`]), and the checkpoint says how long it is: after a crash it is cut to that
//! length, and holds every dead letter once.

use serde::{Deserialize, Serialize};

use crate::dump::Kind;

/// The most of a record that is kept, in bytes; the dump has the rest at the given place.
pub const RAW_BYTES_MAX: usize = 1 << 20;

/// A record that was not published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// What it was.
    pub kind: Kind,
    /// Its ordinal in the dump.
    pub record: u64,
    /// Where it begins in the XML of the dump, in bytes.
    pub xml_start: u64,
    /// Where it ends.
    pub xml_end: u64,
    /// Why it was not published.
    pub reason: String,
    /// Its XML, or its message if it was the broker that refused it; bytes that are not UTF-8
    /// are replaced, and what is longer than [`RAW_BYTES_MAX`] is cut.
    pub raw: String,
}

impl DeadLetter {
    /// The text that is kept of a record's bytes.
    pub fn raw(bytes: &[u8]) -> String {
        String::from_utf8_lossy(&bytes[..bytes.len().min(RAW_BYTES_MAX)]).into_owned()
    }

    /// As a line of the file, with its line end.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("every key of a dead letter is a string");
        line.push(b'\n');
        line
    }
}
