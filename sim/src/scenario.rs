//! What a search runs on: tiny dumps of all four kinds with the messages that must come of them,
//! the options of a run, and where the messages go.
//!
//! The records are as small as records can be, because a search repeats the run thousands of times.
//! Among them are those that no message can be made of: some lack an id, some are no XML. Each
//! dump exists in two variants with other bytes, so that a search can change a dump between two
//! lives; which one is on the disk, the [image](Image) knows.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use discogs_extractor::broker::{Message, Subject};
use discogs_extractor::dump::{Kind, Version, file_name};
use discogs_extractor::extraction::Options;
use discogs_extractor::marker::Paths;
use discogs_extractor::record::Ordinal;
use discogs_extractor::saves::SaveOptions;
use discogs_extractor::spool;
use flate2::read::MultiGzDecoder;
use serde_json::json;

use crate::disk::{Image, Planned};
use crate::dumps::element::Element;
use crate::dumps::{gzip, gzip_blocks, truth};
use crate::place::Place;
use crate::program::Done;

/// Where the dumps and the state are.
pub const DATA: &str = "data";

/// What must come of a dump: the message of each record, none for a record that is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    messages: Vec<Option<Vec<u8>>>,
}

impl Truth {
    /// How many records the dump has.
    pub const fn records(&self) -> u64 {
        self.messages.len() as u64
    }

    /// The message of a record; `None` if it has none, or if there is no such record.
    pub fn message(&self, ordinal: u64) -> Option<&[u8]> {
        let index = usize::try_from(ordinal.checked_sub(1)?).ok()?;
        self.messages.get(index)?.as_deref()
    }

    /// How many messages there are up to a record: its sequence number, if it has a message.
    pub fn sequence(&self, ordinal: u64) -> u64 {
        let up_to = usize::try_from(ordinal).unwrap_or(usize::MAX);
        self.messages.iter().take(up_to).flatten().count() as u64
    }

    /// How many messages there are.
    pub fn messages(&self) -> u64 {
        self.sequence(self.records())
    }

    /// The ordinals of the records without a message.
    pub fn skipped(&self) -> impl Iterator<Item = u64> {
        (1..)
            .zip(&self.messages)
            .filter_map(|(ordinal, message)| message.is_none().then_some(ordinal))
    }

    /// The ordinals and messages of the records that have one, in order.
    pub fn published(&self) -> impl Iterator<Item = (u64, &[u8])> {
        (1..)
            .zip(&self.messages)
            .filter_map(|(ordinal, message)| Some((ordinal, message.as_deref()?)))
    }
}

/// A dump with its truth.
#[derive(Debug)]
struct Variant {
    bytes: Arc<Vec<u8>>,
    truth: Truth,
}

/// How many variants of each dump there are.
pub const VARIANTS: usize = 2;

/// The dumps of a version, in all variants. Made once, shared by all runs.
#[derive(Clone, Debug)]
pub struct Dumps(Arc<[[Variant; VARIANTS]; Kind::ALL.len()]>);

impl Dumps {
    /// Dumps of so many records each, some of which have no message.
    pub fn new(records: u64) -> Self {
        Self::of(records, record)
    }

    /// Dumps of so many records each, all of which have a message: for programs that know no dead
    /// letters.
    pub fn well_formed(records: u64) -> Self {
        Self::of(records, Record::well_formed)
    }

    fn of(records: u64, record: fn(Kind, usize, u64) -> Record) -> Self {
        let variants = |kind| [0, 1].map(|variant| Variant::new(kind, variant, records, record));
        Self(Arc::new(Kind::ALL.map(variants)))
    }

    fn variants(&self, kind: Kind) -> &[Variant; VARIANTS] {
        &self.0[kind as usize]
    }
}

impl Variant {
    fn new(
        kind: Kind,
        variant: usize,
        records: u64,
        record: fn(Kind, usize, u64) -> Record,
    ) -> Self {
        let mut blocks = vec![format!("<{kind}>\n")];
        let mut messages = Vec::new();
        for ordinal in 1..=records {
            let record = record(kind, variant, ordinal);
            messages.push(record.message);
            blocks.push(record.xml + "\n");
        }
        blocks.push(format!("</{kind}>\n"));
        Self {
            bytes: Arc::new(gzip_blocks(blocks.iter().map(String::as_bytes))),
            truth: Truth { messages },
        }
    }
}

/// A record as it stands in the dump, and its message.
struct Record {
    xml: String,
    message: Option<Vec<u8>>,
}

impl Record {
    fn well_formed(kind: Kind, variant: usize, ordinal: u64) -> Self {
        let element = element(kind, variant, ordinal);
        Self {
            xml: xml(&element),
            message: Some(message(kind, &element)),
        }
    }
}

/// Of four records one has no message: it lacks an id, or it is no XML. In the first dump it is
/// not the first record, in the last one not the last, so that both ends are of either kind.
fn record(kind: Kind, variant: usize, ordinal: u64) -> Record {
    let Record { xml, message } = Record::well_formed(kind, variant, ordinal);
    match (ordinal + kind as u64) % 8 {
        2 => Record {
            message: None,
            xml: xml.replace("id", "no"),
        },
        6 => Record {
            message: None,
            xml: xml.replacen("name", "na<me", 1),
        },
        _ => Record { xml, message },
    }
}

fn element(kind: Kind, variant: usize, ordinal: u64) -> Element {
    let id = (ordinal * 7).to_string();
    let name = Element::leaf("name", format!("{kind} {ordinal} & {variant}"));
    let record = kind.record_name();
    match kind {
        Kind::Artists | Kind::Labels => {
            Element::parent(record, vec![Element::leaf("id", id), name])
        }
        Kind::Masters | Kind::Releases => Element::parent(record, vec![name]).with("id", id),
    }
}

fn xml(element: &Element) -> String {
    let name = element.name;
    let attributes = element.attributes.iter();
    let attributes: String = attributes
        .map(|(key, value)| format!(" {key}=\"{value}\""))
        .collect();
    let children: String = element.children.iter().map(xml).collect();
    let text = element.text.replace('&', "&amp;");
    format!("<{name}{attributes}>{text}{children}</{name}>")
}

/// The message as bytes: the envelope first, then the record.
fn message(kind: Kind, element: &Element) -> Vec<u8> {
    let mut message = truth::message(kind, element).expect("the record has an id");
    let fields = message.as_object_mut().expect("a message is an object");
    fields.remove("type");
    let sha256 = fields.remove("sha256").expect("a message has a hash");
    let record = message.to_string();
    format!("{{\"type\":\"data\",\"sha256\":{sha256},{}", &record[1..]).into_bytes()
}

/// What the dump files are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// One gzip member each.
    #[default]
    Whole,
    /// Two gzip members each, which meet in the middle of the content.
    TwoMembers,
    /// The last dump ends with its root open.
    RootOpen,
    /// The last dump has a wrong checksum in its gzip trailer.
    WrongChecksum,
}

impl Shape {
    fn of(self, kind: Kind, whole: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        let unzipped = MultiGzDecoder::new(whole).read_to_end(&mut content);
        unzipped.expect("a dump that was just made");
        match self {
            Self::TwoMembers => {
                let (first, second) = content.split_at(content.len() / 2);
                [gzip(first), gzip(second)].concat()
            }
            Self::RootOpen if kind == DAMAGED => {
                let end = format!("</{kind}>\n");
                gzip(&content[..content.len() - end.len()])
            }
            Self::WrongChecksum if kind == DAMAGED => {
                let mut bytes = whole.to_vec();
                let checksum = bytes.len() - 8;
                bytes[checksum] ^= 1;
                bytes
            }
            _ => whole.to_vec(),
        }
    }
}

/// The dump that is damaged, if one is: the last, so that a run that passes over it looks complete.
const DAMAGED: Kind = Kind::Releases;

/// What a search runs on.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The dumps.
    pub dumps: Dumps,
    /// Where the messages go.
    pub place: &'static dyn Place,
    /// The options of every life.
    pub options: Options,
    /// The bounds of the spool.
    pub spool: spool::Options,
    /// How many bytes of a dump are read at once.
    pub buffer_bytes: usize,
    /// How many compressed bytes lie between two seek points, at least.
    pub seek_spacing_bytes: u64,
    /// Failures of the first life's disk.
    pub planned: Vec<Planned>,
    shape: Shape,
}

impl Scenario {
    /// A scenario with a save every `interval` records and `window` messages without an answer.
    pub fn new(dumps: &Dumps, place: &'static dyn Place, interval: u64, window: usize) -> Self {
        Self {
            dumps: dumps.clone(),
            place,
            options: options(interval, window),
            spool: spool::Options {
                segment_bytes_max: 400,
                commit_bytes_max: 300,
                commit_messages_max: 3,
                owner: "the simulator".to_owned(),
            },
            buffer_bytes: 64,
            seek_spacing_bytes: 40,
            planned: Vec::new(),
            shape: Shape::default(),
        }
    }

    /// This with dumps of a shape.
    #[must_use]
    pub fn shaped(mut self, shape: Shape) -> Self {
        let variants = |kind| {
            let variant = |variant: &Variant| Variant {
                bytes: Arc::new(shape.of(kind, &variant.bytes)),
                truth: variant.truth.clone(),
            };
            self.dumps.variants(kind).each_ref().map(variant)
        };
        self.dumps = Dumps(Arc::new(Kind::ALL.map(variants)));
        self.shape = shape;
        self
    }

    /// The dump that no run can complete.
    pub const fn damaged(&self) -> Option<Kind> {
        match self.shape {
            Shape::Whole | Shape::TwoMembers => None,
            Shape::RootOpen | Shape::WrongChecksum => Some(DAMAGED),
        }
    }

    /// The arguments of `sim` that make this scenario.
    pub fn arguments(&self) -> String {
        let records = self.dumps.variants(Kind::Artists)[0].truth.records();
        let (interval, window) = (self.options.save.interval, self.options.window_messages);
        let place = self.place.name();
        format!("--broker {place} --records {records} --interval {interval} --window {window}")
    }

    /// The version of the dumps.
    pub fn version() -> Version {
        "20260801".parse().expect("a date")
    }

    /// Where the state is.
    pub fn paths() -> Paths {
        Paths::new(Path::new(DATA), &Self::version())
    }

    /// Where the dump of a kind is.
    pub fn dump_path(kind: Kind) -> PathBuf {
        Path::new(DATA).join(file_name(&Self::version(), kind))
    }

    /// The disk before the first life: the dumps, and nothing else.
    pub fn image(&self) -> Image {
        let empty = Image::new().with_directory(DATA);
        Kind::ALL
            .into_iter()
            .fold(empty, |image, kind| self.with_dump(image, kind, 0))
    }

    /// `image` with a variant of a dump in it.
    ///
    /// # Panics
    ///
    /// If there is no such variant.
    pub fn with_dump(&self, image: Image, kind: Kind, variant: usize) -> Image {
        let bytes = &self.dumps.variants(kind)[variant].bytes;
        image.with_file(Self::dump_path(kind), Arc::clone(bytes))
    }

    /// Which variant of a dump an image holds.
    ///
    /// # Panics
    ///
    /// If it holds none: nothing in the simulation writes to dumps.
    pub fn variant(&self, image: &Image, kind: Kind) -> usize {
        let bytes = image.read(Self::dump_path(kind));
        let holds = |variant: &Variant| bytes == Some(variant.bytes.as_slice());
        let variant = self.dumps.variants(kind).iter().position(holds);
        variant.expect("nothing writes to dumps")
    }

    /// What must come of the dump of a kind that an image holds.
    pub fn truth(&self, image: &Image, kind: Kind) -> &Truth {
        self.variant_truth(kind, self.variant(image, kind))
    }

    /// What must come of a variant.
    pub fn variant_truth(&self, kind: Kind, variant: usize) -> &Truth {
        &self.dumps.variants(kind)[variant].truth
    }

    /// Everything that is published if nothing goes wrong, in order: of each dump on the first disk
    /// its records and its end, then on every route the end of the version. For programs that bring
    /// a marker protocol of their own, and leave reading dumps to others.
    pub fn messages(&self) -> Vec<Arc<Message>> {
        let counts = Kind::ALL.map(|kind| self.variant_truth(kind, 0).messages());
        let records = Kind::ALL
            .iter()
            .zip(counts)
            .map(|(kind, count)| (kind.name().to_owned(), count));
        let record_counts: serde_json::Map<_, _> =
            records.map(|(name, count)| (name, count.into())).collect();
        let dump = |kind: Kind| {
            let truth = self.variant_truth(kind, 0);
            let records = truth.published().map(move |(ordinal, body)| {
                let sequence = truth.sequence(ordinal);
                sent(
                    kind,
                    Subject::Record(Ordinal(ordinal)),
                    sequence,
                    body.to_vec(),
                )
            });
            let end = json!({"type": "file_complete", "data_type": kind.name(), "total_processed": truth.messages()});
            records.chain([sent(
                kind,
                Subject::FileComplete,
                truth.messages() + 1,
                end.to_string().into_bytes(),
            )])
        };
        let end = json!({"type": "extraction_complete", "record_counts": record_counts});
        let version_ends = Kind::ALL.into_iter().zip(counts).map(|(kind, count)| {
            sent(
                kind,
                Subject::ExtractionComplete,
                count + 2,
                end.to_string().into_bytes(),
            )
        });
        Kind::ALL
            .into_iter()
            .flat_map(dump)
            .chain(version_ends)
            .collect()
    }

    /// How far everything is once the first `count` of [all messages](Self::messages) are settled.
    pub fn done(&self, count: usize) -> Done {
        let messages = self.messages();
        let mut done = Done {
            is_announced: count >= messages.len(),
            ..Done::default()
        };
        for message in messages.iter().take(count) {
            let dump = &mut done.dumps[message.route as usize];
            match message.subject {
                Subject::Record(ordinal) => dump.records = ordinal.0,
                Subject::FileComplete => dump.is_completed = true,
                Subject::ExtractionComplete => {}
            }
        }
        done
    }

    /// The most records that a crash may repeat, and that may be unsaved.
    pub const fn repeats_max(&self) -> u64 {
        self.options.save.interval + self.options.window_messages as u64
    }
}

fn sent(route: Kind, subject: Subject, sequence: u64, body: Vec<u8>) -> Arc<Message> {
    Arc::new(Message {
        version: Scenario::version(),
        route,
        subject,
        sequence,
        sha256: String::new(),
        body: body.into(),
    })
}

/// The product's defaults, on a small scale.
fn options(interval: u64, window: usize) -> Options {
    let defaults = Options::default();
    Options {
        save: SaveOptions {
            interval,
            ..defaults.save
        },
        window_messages: window,
        dead_letters_max: 1_000,
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use discogs_extractor::dump::Dump;
    use discogs_extractor::record::Position;
    use discogs_extractor::source::{self, Outcome, Read};

    use super::*;
    use crate::disk::Disk;
    use crate::faults::Faults;
    use crate::place;
    use crate::tape::Tape;
    use crate::world::World;

    /// What the product makes of a dump on the disk.
    fn extracted(image: &Image, kind: Kind) -> Vec<Option<Vec<u8>>> {
        let world = World::new(Tape::benign(), Faults::none());
        let disk = Disk::mount(&world, image);
        let dump = Dump::from_path(&Scenario::dump_path(kind)).unwrap();
        let source = source::open(&disk, &dump, Position::START, &source::Options::default());
        let reads = source.unwrap().map(Result::unwrap);
        reads
            .filter_map(|read| match read {
                Read::Item(item) => Some(item.outcome),
                Read::Skipped | Read::End { .. } => None,
            })
            .map(|outcome| match outcome {
                Outcome::Content(content) => Some(content.body.into()),
                Outcome::Malformed { .. } => None,
            })
            .collect()
    }

    #[test]
    fn the_truth_is_what_the_product_makes_without_faults() {
        let scenario = Scenario::new(&Dumps::new(9), place::SPOOL, 2, 2);
        for kind in Kind::ALL {
            for variant in 0..VARIANTS {
                let image = scenario.with_dump(scenario.image(), kind, variant);
                assert_eq!(scenario.variant(&image, kind), variant);
                let truth = scenario.truth(&image, kind);
                assert_eq!(extracted(&image, kind), truth.messages, "{kind}");
                assert!(truth.skipped().count() > 0, "{kind}");
            }
        }
    }
}
