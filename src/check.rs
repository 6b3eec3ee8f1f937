//! Reads dumps to their end without publishing anything, and says what a run would do.
//!
//! Reads only: neither the state nor the dumps are touched, so it may run beside an extractor.
//!
//! # The JSON
//!
//! One object; `null` is what is not known. Fields may be added, never renamed or removed. Sizes
//! are in bytes, records are named by their ordinal.
//!
//! | field | |
//! |---|---|
//! | `format`, `version` | 1, and the version of the dumps |
//! | `is_sound` | whether a run would complete all dumps |
//! | `messages_to_publish` | how many a run that began now would publish, control messages included |
//! | `seconds` | what reading took |
//! | `dumps` | for each dump: |
//! | `kind`, `file`, `file_bytes` | what it is |
//! | `records`, `malformed`, `repaired` | how many; without a message; with bytes that are not UTF-8 |
//! | `malformed_first` | what is wrong, and where, with the first ten |
//! | `messages`, `message_bytes` | of its records |
//! | `largest_record` | `record` and `xml_bytes` |
//! | `sha256`, `is_published` | of the file; whether the CHECKSUM file beside it says so |
//! | `damage` | why it can't be read to its end |
//! | `drift` | `new` and `missing` fields, unless the messages are raw |
//! | `begins_at` | the first record that a run would read; `null` if it would skip the dump |
//! | `seconds` | what reading took |

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::drift::{Drift, Fields};
use crate::dump::{self, Dump, Kind, Selection};
use crate::fs::{self, FileSystem};
use crate::human::{count, counted, duration, size};
use crate::marker::{Marker, Paths};
use crate::message::Profile;
use crate::plan;
use crate::pool;
use crate::record::Position;
use crate::run::{self, RunError};
use crate::source::{self, Item, Outcome, Read};
use crate::status;
use crate::telemetry::Telemetry;
use crate::time::Clock;

/// How many malformed records of a dump are told one by one.
const MALFORMED_TOLD: usize = 10;

/// Messages a second that a broker is supposed to take, to say what a run takes with it.
const RATE_SUPPOSED: u64 = 10_000;

/// What the dumps of a version hold, and what a run would do with them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    format: u32,
    version: String,
    is_sound: bool,
    messages_to_publish: u64,
    seconds: f64,
    dumps: Vec<DumpReport>,
    #[serde(skip)]
    dead_letters_max: u64,
}

/// What one dump holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct DumpReport {
    kind: Kind,
    file: String,
    file_bytes: u64,
    records: u64,
    malformed: u64,
    malformed_first: Vec<String>,
    repaired: u64,
    messages: u64,
    message_bytes: u64,
    largest_record: Option<Largest>,
    sha256: Option<String>,
    is_published: Option<bool>,
    damage: Option<String>,
    drift: Option<Drift>,
    begins_at: Option<u64>,
    seconds: f64,
    #[serde(skip)]
    messages_to_publish: u64,
}

/// A large record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Largest {
    record: u64,
    xml_bytes: u64,
}

/// Reads what `config` selects. The first `samples` messages of each dump go to `sample`.
///
/// # Errors
/// There is nothing to read, or a run could not begin. Damage of a dump is in the report.
pub fn check(
    fs: &dyn FileSystem,
    clock: &dyn Clock,
    config: &Config,
    telemetry: &Telemetry,
    samples: u64,
    sample: &mut dyn FnMut(&[u8]),
) -> Result<Report, RunError> {
    let selection = run::select(fs, config)?;
    let marker = saved_marker(fs, config, &selection);
    let published = published_checksums(fs, &selection);
    let mut dumps = Vec::new();
    for dump in &selection.dumps {
        let begins_at = begins_at(fs, config, &marker, dump)?;
        let file_bytes = fs.metadata(&dump.path).map_or(0, |found| found.length);
        let mut bar = telemetry.reading(dump.kind, file_bytes);
        let mut reading = Reading::new(config.profile, begins_at);
        let began = clock.now();
        let reads = source::open(fs, dump, Position::START, &run::source_options(config));
        let end = reads.and_then(|source| {
            let mut reads = pool::pooled(source, config.source_threads);
            reads.try_for_each(|read| {
                let read = read?;
                if let Some(message) = reading.add(&read)
                    && reading.messages <= samples
                {
                    sample(message);
                }
                bar.show(clock.now(), reading.compressed, reading.records);
                Ok(())
            })
        });
        let published = published.get(&dump.file_name());
        let seconds = clock.now().since(began).as_secs_f64();
        let damage = end.err().map(|damage| damage.to_string());
        dumps.push(reading.into_report(dump, file_bytes, published, damage, seconds));
    }
    Ok(Report::new(config, &selection, dumps))
}

/// The first record of `dump` that a run would read, if it would read any.
fn begins_at(
    fs: &dyn FileSystem,
    config: &Config,
    marker: &Marker,
    dump: &Dump,
) -> Result<Option<u64>, RunError> {
    if config.is_forced {
        return Ok(Some(1));
    }
    let entry = marker.file(&dump.file_name()).cloned().unwrap_or_default();
    let checkpoint = plan::checkpoint(fs, dump, &entry)?;
    Ok(checkpoint.map(|checkpoint| checkpoint.frontier.record + 1))
}

/// The state that a run would go on from. One that can't be read is told by the run.
fn saved_marker(fs: &dyn FileSystem, config: &Config, selection: &Selection) -> Marker {
    let paths = Paths::new(&run::state_directory(config, selection), &selection.version);
    let read = status::read(fs, &paths).ok().flatten();
    read.map_or_else(|| Marker::new(&selection.version), |(_, marker)| marker)
}

/// The checksums of the version's CHECKSUM file, by file name; none if it is not there.
fn published_checksums(fs: &dyn FileSystem, selection: &Selection) -> BTreeMap<String, String> {
    let name = dump::checksums_name(&selection.version);
    let bytes = fs::read(fs, &selection.directory.join(name)).unwrap_or_default();
    dump::checksums(&String::from_utf8_lossy(&bytes))
}

/// A dump as far as it was read.
struct Reading {
    /// `None` for messages whose fields are not those that are known.
    fields: Option<Fields>,
    begins_at: Option<u64>,
    compressed: u64,
    records: u64,
    malformed: u64,
    malformed_first: Vec<String>,
    repaired: u64,
    messages: u64,
    message_bytes: u64,
    messages_to_publish: u64,
    largest: Option<Largest>,
    sha256: Option<String>,
}

impl Reading {
    fn new(profile: Profile, begins_at: Option<u64>) -> Self {
        Self {
            fields: (profile == Profile::Normalised).then(Fields::default),
            begins_at,
            compressed: 0,
            records: 0,
            malformed: 0,
            malformed_first: Vec::new(),
            repaired: 0,
            messages: 0,
            message_bytes: 0,
            messages_to_publish: 0,
            largest: None,
            sha256: None,
        }
    }

    /// Counts what was read, and returns its message if it has one.
    fn add<'read>(&mut self, read: &'read Read) -> Option<&'read [u8]> {
        match read {
            Read::Item(item) => self.add_item(item),
            Read::Skipped => None,
            Read::End { checksum } => {
                self.sha256 = Some(checksum.clone());
                None
            }
        }
    }

    fn add_item<'read>(&mut self, item: &'read Item) -> Option<&'read [u8]> {
        let record = item.position.ordinal.0;
        let xml_bytes = item.position.xml.0 - item.start.0;
        if self
            .largest
            .is_none_or(|largest| xml_bytes > largest.xml_bytes)
        {
            self.largest = Some(Largest { record, xml_bytes });
        }
        self.records = record;
        self.compressed = item.compressed.0;
        match &item.outcome {
            Outcome::Content(content) => {
                self.messages += 1;
                self.message_bytes += content.body.len() as u64;
                self.repaired += u64::from(content.repaired);
                self.messages_to_publish +=
                    u64::from(self.begins_at.is_some_and(|at| record >= at));
                if let Some(fields) = &mut self.fields {
                    fields.observe(record, &content.body);
                }
                Some(&content.body)
            }
            Outcome::Malformed { reason, .. } => {
                self.malformed += 1;
                if self.malformed_first.len() < MALFORMED_TOLD {
                    self.malformed_first.push(reason.clone());
                }
                None
            }
        }
    }

    fn into_report(
        self,
        dump: &Dump,
        file_bytes: u64,
        published: Option<&String>,
        damage: Option<String>,
        seconds: f64,
    ) -> DumpReport {
        let is_published = published
            .zip(self.sha256.as_ref())
            .map(|(published, actual)| published == actual);
        // A dump that was read in part would be said to miss fields.
        let fields = self.fields.filter(|_| damage.is_none());
        // Behind the records comes `file_complete`.
        let completes = u64::from(self.begins_at.is_some() && damage.is_none());
        DumpReport {
            kind: dump.kind,
            file: dump.file_name(),
            file_bytes,
            records: self.records,
            malformed: self.malformed,
            malformed_first: self.malformed_first,
            repaired: self.repaired,
            messages: self.messages,
            message_bytes: self.message_bytes,
            largest_record: self.largest,
            sha256: self.sha256,
            is_published,
            damage,
            drift: fields.map(|fields| fields.drift(dump.kind)),
            begins_at: self.begins_at,
            seconds,
            messages_to_publish: self.messages_to_publish + completes,
        }
    }
}

impl Report {
    fn new(config: &Config, selection: &Selection, dumps: Vec<DumpReport>) -> Self {
        let dead_letters_max = config.extraction.dead_letters_max;
        let is_sound = dumps.iter().all(|dump| dump.is_sound(dead_letters_max));
        let is_whole = is_sound && dumps.len() == Kind::ALL.len();
        let announces = is_whole && config.extraction.announces_completion;
        let mut messages_to_publish: u64 = dumps.iter().map(|dump| dump.messages_to_publish).sum();
        if announces && messages_to_publish > 0 {
            messages_to_publish += Kind::ALL.len() as u64;
        }
        Self {
            format: 1,
            version: selection.version.to_string(),
            is_sound,
            messages_to_publish,
            seconds: dumps.iter().map(|dump| dump.seconds).sum(),
            dumps,
            dead_letters_max,
        }
    }

    /// Whether a run would complete all dumps.
    pub const fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// As JSON, with a line end.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("every key of a report is a string");
        json + "\n"
    }

    fn conclusion(&self) -> String {
        let reading = Duration::from_secs_f64(self.seconds);
        let publishing = Duration::from_secs(self.messages_to_publish / RATE_SUPPOSED);
        if self.messages_to_publish == 0 {
            return "a run has nothing to do".to_owned();
        }
        format!(
            "a run publishes {}: {} with a broker that takes {} a second, and as long as reading \
             took, {}, with a faster one",
            counted(self.messages_to_publish, "message"),
            duration(publishing),
            count(RATE_SUPPOSED),
            duration(reading)
        )
    }
}

impl DumpReport {
    fn is_sound(&self, dead_letters_max: u64) -> bool {
        self.damage.is_none()
            && self.is_published != Some(false)
            && self.malformed <= dead_letters_max
    }

    fn will(&self) -> String {
        match self.begins_at {
            None => "a run skips it: it is complete".to_owned(),
            Some(1) => "a run reads it from record 1".to_owned(),
            Some(record) => format!("a run goes on at record {}", count(record)),
        }
    }

    fn checksum(&self) -> Option<String> {
        let sha256 = self.sha256.as_ref()?;
        Some(match self.is_published {
            Some(true) => format!("sha256 {sha256}, as published"),
            Some(false) => format!(
                "sha256 {sha256} is not the published one: download it again, a run would publish \
                 something else"
            ),
            None => format!("sha256 {sha256}"),
        })
    }

    fn write_trouble(&self, f: &mut fmt::Formatter<'_>, dead_letters_max: u64) -> fmt::Result {
        if let Some(damage) = &self.damage {
            writeln!(f, "  damaged: {damage}")?;
        }
        for reason in &self.malformed_first {
            writeln!(f, "  malformed: {reason}")?;
        }
        let told = self.malformed_first.len() as u64;
        if self.malformed > told {
            writeln!(f, "  malformed: {} more", count(self.malformed - told))?;
        }
        if self.malformed > dead_letters_max {
            writeln!(
                f,
                "  a run stops at them: it allows {}, see --dead-letters-max",
                counted(dead_letters_max, "dead letter")
            )?;
        }
        self.drift
            .as_ref()
            .map_or(Ok(()), |drift| write_drift(f, drift))
    }
}

fn write_drift(f: &mut fmt::Formatter<'_>, drift: &Drift) -> fmt::Result {
    for new in &drift.new {
        let (times, first) = (counted(new.occurrences, "time"), count(new.first_record));
        writeln!(
            f,
            "  new field: {}, {times}, first in record {first}",
            new.field
        )?;
    }
    if !drift.missing.is_empty() {
        writeln!(
            f,
            "  without the known fields: {}",
            drift.missing.join(", ")
        )?;
    }
    Ok(())
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version {}", self.version)?;
        for dump in &self.dumps {
            let (records, messages) = (dump.records, dump.messages);
            writeln!(
                f,
                "{}: {}, {}, {} of JSON, read in {}",
                dump.file,
                counted(records, "record"),
                counted(messages, "message"),
                size(dump.message_bytes),
                duration(Duration::from_secs_f64(dump.seconds))
            )?;
            if let Some(Largest { record, xml_bytes }) = dump.largest_record {
                let (record, bytes) = (count(record), size(xml_bytes));
                writeln!(f, "  the largest record is {record}, with {bytes} of XML")?;
            }
            if dump.repaired > 0 {
                let records = counted(dump.repaired, "record");
                writeln!(f, "  bytes that are not UTF-8 were replaced in {records}")?;
            }
            if let Some(checksum) = dump.checksum() {
                writeln!(f, "  {checksum}")?;
            }
            dump.write_trouble(f, self.dead_letters_max)?;
            writeln!(f, "  {}", dump.will())?;
        }
        if !self.is_sound {
            writeln!(
                f,
                "a run would end with an error; what it would have published by then:"
            )?;
        }
        writeln!(f, "{}", self.conclusion())
    }
}
