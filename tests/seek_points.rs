//! Reading on from a seek point: whatever form the gzip file has, every point that a reader leaves
//! leads to the same bytes, the same checks at the end and the same checksum as reading from the
//! start; and a source that begins at one yields the records of one that skips.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::io::{Cursor, Write};
use std::sync::Arc;

use discogs_extractor::dump::{Dump, Kind};
use discogs_extractor::fs::OsFileSystem;
use discogs_extractor::gzip::{GzipError, GzipReader};
use discogs_extractor::record::{ByteOffset, Position};
use discogs_extractor::seek_point::SeekPoint;
use discogs_extractor::source::{self, Item, Options, Read};
use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress, GzBuilder};
use proptest::prelude::*;
use sim::dumps::{Amount, Dumps, Form};

/// Text that compresses like a dump, with matches that reach far back.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("<id>{}</id><name>{:x}</name>\n", state >> 20, state)
    };
    let mut text = Vec::new();
    while text.len() < length {
        text.extend_from_slice(word().as_bytes());
    }
    text.truncate(length);
    text
}

/// One member with a flush behind every `piece` bytes, as pigz and servers write it.
fn flushed(content: &[u8], level: u32, piece: usize, flush: FlushCompress) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(level), false);
    let mut deflated = Vec::with_capacity(2 * content.len() + 10_000);
    let mut pieces = content.chunks(piece).peekable();
    while let Some(piece) = pieces.next() {
        let flush = if pieces.peek().is_some() {
            flush
        } else {
            FlushCompress::Finish
        };
        let until = compress.total_in() + piece.len() as u64;
        let mut rest = piece;
        loop {
            let before = compress.total_in();
            deflated.reserve(64 * 1024);
            compress.compress_vec(rest, &mut deflated, flush).unwrap();
            rest = &rest[usize::try_from(compress.total_in() - before).unwrap()..];
            if compress.total_in() == until && deflated.len() < deflated.capacity() {
                break;
            }
        }
    }
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (sum, length) = (crc.sum().to_le_bytes(), crc.amount().to_le_bytes());
    [&header, &*deflated, &sum, &length].concat()
}

fn member(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// With every field that a header can have before its CRC.
fn decorated(content: &[u8]) -> Vec<u8> {
    let builder = GzBuilder::new().extra(*b"ab\x02\x00xy").filename("a.xml");
    let mut encoder = builder
        .comment("c")
        .write(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// How reading went on from some place: the content, and how it ended.
#[derive(Debug, PartialEq)]
struct Rest {
    content: Vec<u8>,
    end: Result<String, String>,
    points: Vec<SeekPoint>,
}

fn reader(file: &[u8], spacing: u64) -> GzipReader {
    GzipReader::new(Box::new(Cursor::new(file.to_vec())), 1_000, spacing)
}

/// Reads on to the end.
fn rest(mut reader: GzipReader) -> Rest {
    let (mut content, mut points) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 3_000];
    let end = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Ok(reader.checksum()),
            Ok(count) => content.extend_from_slice(&buffer[..count]),
            Err(error) => break Err(error.to_string()),
        }
        points.extend(reader.seek_point_before(ByteOffset(u64::MAX)));
    };
    Rest {
        content,
        end,
        points,
    }
}

/// Enters `file` at a point, after it went through its own file.
fn enter(file: &[u8], point: &SeekPoint, spacing: u64) -> Result<GzipReader, GzipError> {
    let point = SeekPoint::from_bytes(&point.to_bytes("dump"), "dump").unwrap();
    let mut reader = reader(file, spacing);
    reader.enter(&point)?;
    Ok(reader)
}

/// Compares every point's continuation with a straight read; how many points there are.
fn check(name: &str, file: &[u8], spacing: u64) -> usize {
    let straight = rest(reader(file, spacing));
    let mut before = 0;
    for point in &straight.points {
        let case = format!("{name}, spacing {spacing}, {point:?}");
        assert!(point.compressed >= before + spacing, "{case}");
        before = point.compressed;
        let entered = rest(enter(file, point, spacing).unwrap());
        let from = usize::try_from(point.inflated).unwrap();
        assert!(entered.content == straight.content[from..], "{case}");
        assert_eq!(entered.end, straight.end, "{case}");
    }
    straight.points.len()
}

#[test]
fn every_point_of_every_form_leads_to_the_same_bytes() {
    let content = text(400_000);
    let halves = content.split_at(250_000);
    let small_members = |piece| content.chunks(piece).flat_map(|piece| member(piece, 6));
    let forms = [
        ("stored", member(&content, 0)),
        ("level 1", member(&content, 1)),
        ("level 6", member(&content, 6)),
        ("level 9", member(&content, 9)),
        ("header fields", decorated(&content)),
        ("synced", flushed(&content, 6, 5_000, FlushCompress::Sync)),
        (
            "partial",
            flushed(&content, 6, 3_001, FlushCompress::Partial),
        ),
        ("full", flushed(&content, 9, 40_000, FlushCompress::Full)),
        ("fixed", flushed(&content, 1, 30, FlushCompress::Partial)),
        (
            "members",
            [member(halves.0, 6), decorated(halves.1)].concat(),
        ),
        ("many members", small_members(7_000).collect()),
        ("padding", [member(&content, 6), vec![0; 700]].concat()),
    ];
    for (name, file) in &forms {
        assert!(check(name, file, 1) > 1, "{name}");
        check(name, file, 10_000);
    }
}

#[test]
fn points_lie_inside_of_bytes_and_at_their_ends() {
    let file = flushed(&text(100_000), 6, 1_000, FlushCompress::Partial);
    let points = rest(reader(&file, 1)).points;
    for bits in 0..8 {
        let has_bits = |point: &SeekPoint| point.unused_bits == bits;
        assert!(points.iter().any(has_bits), "{bits} bits");
    }
}

#[test]
fn damage_behind_a_point_is_found_by_a_reader_that_enters_there() {
    let content = text(200_000);
    let file = flushed(&content, 0, 20_000, FlushCompress::Sync);
    let points = rest(reader(&file, 1)).points;
    let point = &points[points.len() / 2];
    let changed = |index: usize| {
        let mut file = file.clone();
        file[index] ^= 1;
        rest(enter(&file, point, 1).unwrap()).end
    };
    let trailer = file.len() - 8;
    let crc = Err(format!("wrong CRC at byte {trailer}"));
    let begin = |end: Result<String, String>| {
        end.map_err(|error| error.split(':').next().unwrap().to_owned())
    };
    // A byte of the content, of the CRC and of the length.
    assert_eq!(begin(changed(trailer - 1_000)), crc);
    assert_eq!(begin(changed(trailer)), crc);
    let length = Err(format!("wrong length at byte {trailer}"));
    assert_eq!(begin(changed(trailer + 4)), length);
    // The trailer says so even if all that is damaged is what the point says of what lies before.
    let mut other = point.clone();
    other.member_crc ^= 1;
    assert_eq!(begin(rest(enter(&file, &other, 1).unwrap()).end), crc);
    let cut = &file[..trailer - 1_000];
    let end = rest(enter(cut, point, 1).unwrap()).end.unwrap_err();
    assert!(end.starts_with("truncated: the file ends at byte"), "{end}");
}

#[test]
fn a_point_behind_the_end_of_the_file_is_a_truncation() {
    let file = flushed(&text(10_000), 6, 1_000, FlushCompress::Partial);
    let points = rest(reader(&file, 1)).points;
    let inside = |point: &&SeekPoint| point.unused_bits > 0 && point.compressed > 100;
    let point = points.iter().find(inside).unwrap();
    let error = enter(&file[..100], point, 1).err().unwrap();
    assert!(error.to_string().starts_with("truncated"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_content_in_any_pieces_is_read_on_from_any_point(
        pieces in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 1..40), 1..200_usize, 0..10_u32, 1..20_000_usize),
            1..5,
        ),
        spacing in 1..3_000_u64,
    ) {
        let members = pieces.iter().map(|(bytes, times, level, piece)| {
            flushed(&bytes.repeat(*times), *level, *piece, FlushCompress::Sync)
        });
        let file: Vec<u8> = members.collect::<Vec<_>>().concat();
        check("any", &file, spacing);
    }
}

/// A dump on disk, and what a source yields of it.
struct World {
    _directory: tempfile::TempDir,
    dump: Dump,
    options: Options,
}

impl World {
    fn new(records: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("discogs_20260801_releases.xml.gz");
        let mut file = Vec::new();
        let dumps = Dumps::new(1, Form::Y2025);
        let amount = Amount::Records(records);
        let written = dumps.write(Kind::Releases, amount, &mut file, None);
        written.unwrap();
        #[expect(clippy::disallowed_methods, reason = "makes the dump")]
        std::fs::write(&path, file).unwrap();
        Self {
            dump: Dump::from_path(&path).unwrap(),
            _directory: directory,
            options: Options {
                seek_spacing_bytes: 10_000,
                buffer_bytes: 4_096,
                ..Options::default()
            },
        }
    }

    /// The items from a position on, how many pieces were skipped on the way, and the checksum.
    fn read(&self, from: Position, point: Option<SeekPoint>) -> (Vec<Item>, usize, String) {
        let source = source::open(&OsFileSystem, &self.dump, from, &self.options).unwrap();
        let (mut items, mut skipped) = (Vec::new(), 0);
        for read in source.with_seek_point(point) {
            match read.unwrap() {
                Read::Item(item) => items.push(item),
                Read::Skipped => skipped += 1,
                Read::End { checksum } => return (items, skipped, checksum),
            }
        }
        panic!("a source says how it ends");
    }
}

/// Without what depends on where reading began.
fn bare(items: &[Item]) -> Vec<Item> {
    let items = items.iter().cloned();
    let bare = items.map(|item| Item {
        compressed: ByteOffset(0),
        seek_point: None,
        ..item
    });
    bare.collect()
}

#[test]
fn a_source_yields_the_same_records_by_way_of_any_seek_point() {
    let world = World::new(400);
    let (items, _, checksum) = world.read(Position::START, None);
    let points: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, item.seek_point.clone()?)))
        .collect();
    assert!(points.len() > 5, "{points:?}");
    for (index, point) in &points {
        // The checkpoint may be behind this record, or some records later.
        for index in [*index, (index + 17).min(items.len() - 1)] {
            let from = items[index].position;
            assert!(point.inflated <= items[index].start.0);
            let seek_point = Some(SeekPoint::clone(point));
            let (entered, skipped, end) = world.read(from, seek_point);
            assert!(bare(&entered) == bare(&items[index + 1..]), "{point:?}");
            assert_eq!(end, checksum, "{point:?}");
            assert!(skipped <= 4, "{skipped} pieces from {point:?}");
        }
    }
    let (_, last) = points.last().unwrap();
    let early = items[1].position;
    let (behind, ..) = world.read(early, Some(Arc::unwrap_or_clone(last.clone())));
    assert!(
        bare(&behind) == bare(&items[2..]),
        "a point behind the position is passed over"
    );
    let (.., skipped, _) = world.read(items.last().unwrap().position, None);
    assert!(skipped > 5, "without a point all of the way is skipped");
}
