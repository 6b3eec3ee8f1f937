//! Dumps of many batches on any number of threads: the same sequence as inline, also where the tags
//! of a record don't match and the pool has to go back.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::io::Write;

use discogs_extractor::dump::{Dump, Kind};
use discogs_extractor::fs::{FileSystem, OsFileSystem};
use discogs_extractor::pool::pooled;
use discogs_extractor::record::Position;
use discogs_extractor::seek_point::SeekPoint;
use discogs_extractor::source::{self, Item, Options, Outcome, Read, Reads, Source};
use flate2::Compression;
use flate2::write::GzEncoder;
use sim::dumps::{Dumps, Form};
use tempfile::TempDir;

const RECORDS: usize = 4000;

/// Records of labels, about 1 MB; `spoil` may change each.
fn xml(spoil: impl Fn(usize, &mut String)) -> String {
    let mut xml = "<labels>\n".to_owned();
    let records = Dumps::new(7, Form::Y2025).records(Kind::Labels);
    for (index, mut record) in records.take(RECORDS).enumerate() {
        spoil(index, &mut record.xml);
        xml.push_str(&record.xml);
        xml.push('\n');
    }
    xml + "</labels>\n"
}

struct World {
    _directory: TempDir,
    dump: Dump,
    options: Options,
}

impl World {
    fn new(xml: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("discogs_20260801_labels.xml.gz");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        for piece in xml.chunks(20_000) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        let mut file = OsFileSystem.create(&path).unwrap();
        file.write_all(&encoder.finish().unwrap()).unwrap();
        Self {
            _directory: directory,
            dump: Dump::from_path(&path).unwrap(),
            options: Options {
                seek_spacing_bytes: 10_000,
                ..Options::default()
            },
        }
    }

    fn source(&self, from: Position, seek_point: Option<SeekPoint>) -> Source {
        let source = source::open(&OsFileSystem, &self.dump, from, &self.options).unwrap();
        source.with_seek_point(seek_point)
    }
}

/// All items, and the checksum or the error. Where seek points lie depends on where reading began.
fn collect(reads: Reads) -> (Vec<Item>, Result<String, String>) {
    let mut items = Vec::<Item>::new();
    for read in reads {
        match read {
            Ok(Read::Item(item)) => items.push(item),
            Ok(Read::Skipped) => assert!(items.is_empty(), "news of the way to the start only"),
            Ok(Read::End { checksum }) => return (items, Ok(checksum)),
            Err(error) => return (items, Err(error.to_string())),
        }
    }
    panic!("a source says how it ends")
}

fn plain(mut run: (Vec<Item>, Result<String, String>)) -> (Vec<Item>, Result<String, String>) {
    for item in &mut run.0 {
        (item.seek_point, item.compressed) = (None, Default::default());
    }
    run
}

/// From the start, and from the middle with and without a seek point, on any number of threads.
fn check(world: &World) -> Vec<Item> {
    let whole = collect(Box::new(world.source(Position::START, None)));
    let middle = whole.0.len() / 2;
    let from = whole.0[middle - 1].position;
    let points = whole.0[..middle].iter().rev();
    let point = points
        .filter_map(|item| item.seek_point.as_deref().cloned())
        .next();
    assert!(point.is_some(), "there are seek points");
    let whole = plain(whole);
    let rest = (whole.0[middle..].to_vec(), whole.1.clone());
    for threads in [1, 2, 3, 8] {
        let run = |from, point| plain(collect(pooled(world.source(from, point), threads)));
        assert_eq!(run(Position::START, None), whole, "{threads}");
        assert_eq!(run(from, None), rest, "{threads}");
        assert_eq!(run(from, point.clone()), rest, "{threads}");
    }
    whole.0
}

fn is_malformed(item: &Item) -> bool {
    matches!(item.outcome, Outcome::Malformed { .. })
}

#[test]
fn the_sequence_is_the_same_on_any_number_of_threads() {
    let items = check(&World::new(xml(|_, _| ()).as_bytes()));
    assert_eq!(items.len(), RECORDS);
    assert!(!items.iter().any(is_malformed));
}

#[test]
fn records_whose_tags_do_not_match_are_cut_where_they_are_inline() {
    let xml = xml(|index, record| match index % 500 {
        // Swallows the next record, and its end tag is at the end of that.
        100 => *record = record.replacen("</label>", "", 1),
        300 => *record = record.replacen("<id>", "<id", 1),
        301 => *record = record.replacen("</name>", "", 1),
        _ => (),
    });
    let items = check(&World::new(xml.as_bytes()));
    assert!(items.iter().filter(|item| is_malformed(item)).count() >= 16);
}

#[test]
fn what_is_no_utf_8_is_repaired_as_inline_and_where_it_is_only() {
    let xml = xml(|index, record| {
        if index % 1500 == 700 {
            *record = record.replacen("</name>", "\x1A</name>", 1);
        }
    });
    let mut xml = xml.into_bytes();
    let bytes = xml.iter_mut().filter(|byte| **byte == 0x1A);
    bytes.for_each(|byte| *byte = 0xFF);
    let items = check(&World::new(&xml));
    let is_repaired =
        |item: &&Item| matches!(&item.outcome, Outcome::Content(content) if content.repaired);
    let repaired = items.iter().filter(is_repaired);
    let ordinals: Vec<_> = repaired.map(|item| item.position.ordinal.0).collect();
    assert_eq!(ordinals, [701, 2201, 3701]);
}

#[test]
fn a_cut_file_yields_the_same_records_and_the_same_error() {
    let xml = xml(|_, _| ());
    let world = World::new(&xml.as_bytes()[..xml.len() / 2]);
    let whole = plain(collect(Box::new(world.source(Position::START, None))));
    assert!(whole.1.is_err());
    for threads in [1, 4] {
        let run = pooled(world.source(Position::START, None), threads);
        assert_eq!(plain(collect(run)), whole);
    }
}
