//! Reading a dump file: records, dead letters and the verified end, from any boundary, through
//! every size of buffer, inline and on threads.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::io::Write;
use std::path::{Path, PathBuf};

use discogs_extractor::dump::{Dump, Kind};
use discogs_extractor::fs::{FileSystem, OsFileSystem};
use discogs_extractor::pool::pooled;
use discogs_extractor::record::{ByteOffset, Ordinal, Position};
use discogs_extractor::source::{
    Fingerprint, Item, Options, Outcome, Read, Reads, Source, checksum, fingerprint, open,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

/// The smallest pieces that there are, and those of production.
const SIZES: [usize; 4] = [1, 2, 7, 64 * 1024];

/// A directory with one dump in it.
struct World {
    _directory: TempDir,
    dump: Dump,
}

impl World {
    fn new(kind: &str, file: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("discogs_20260801_{kind}.xml.gz");
        let dump = Dump::from_path(&directory.path().join(name)).unwrap();
        let world = Self {
            _directory: directory,
            dump,
        };
        world.write(file);
        world
    }

    fn write(&self, file: &[u8]) {
        let mut writer = OsFileSystem.create(&self.dump.path).unwrap();
        writer.write_all(file).unwrap();
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint(&OsFileSystem, &self.dump.path).unwrap()
    }

    fn source(&self, from: Position, options: &Options) -> Source {
        open(&OsFileSystem, &self.dump, from, options).unwrap()
    }

    /// Everything from `from` on, inline.
    fn run(&self, from: Position, options: &Options) -> Run {
        collect(Box::new(self.source(from, options)))
    }
}

/// What a source yielded.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    items: Vec<Item>,
    /// The checksum, or the error.
    end: Result<String, String>,
}

/// Drains a source, and checks that it is fused and that progress goes forward. How much was read
/// for an item depends on the size of the buffer, so that is left out.
fn collect(mut reads: Reads) -> Run {
    let mut items = Vec::<Item>::new();
    let mut compressed = ByteOffset(0);
    let end = loop {
        match reads.next().expect("a source says how it ends") {
            Ok(Read::Item(mut item)) => {
                assert!(item.compressed >= compressed);
                compressed = std::mem::take(&mut item.compressed);
                items.push(item);
            }
            Ok(Read::Skipped) => assert!(items.is_empty()),
            Ok(Read::End { checksum }) => break Ok(checksum),
            Err(error) => break Err(error.to_string()),
        }
    };
    assert!(reads.next().is_none() && reads.next().is_none());
    Run { items, end }
}

fn options(buffer_bytes: usize) -> Options {
    Options {
        buffer_bytes,
        ..Options::default()
    }
}

fn member(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What an item must be: the id of a record, or the bytes of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected<'a> {
    Id(&'a str),
    Dead(&'a [u8]),
}

use Expected::{Dead, Id};

fn outcomes(items: &[Item]) -> Vec<Expected<'_>> {
    let outcome = |item| match item {
        &Item {
            outcome: Outcome::Content(ref content),
            ..
        } => Id(first_id(&content.body)),
        Item {
            outcome: Outcome::Malformed { raw, .. },
            ..
        } => Dead(raw),
    };
    items.iter().map(outcome).collect()
}

/// The first id in a message: the record's, where no field before it has one.
fn first_id(body: &[u8]) -> &str {
    let body = str::from_utf8(body).unwrap();
    let (_, rest) = body.split_once("\"id\":\"").unwrap();
    rest.split('"').next().unwrap()
}

/// Ordinals have no gaps, items don't overlap, and the reason of a dead letter names its place.
fn check_places(items: &[Item]) {
    let mut before = Position::START;
    for item in items {
        assert_eq!(item.position.ordinal, before.ordinal.next());
        assert!(before.xml <= item.start && item.start < item.position.xml);
        before = item.position;
        if let Outcome::Malformed { reason, .. } = &item.outcome {
            let place = format!("record {}, at byte ", before.ordinal);
            let rest = reason.strip_prefix(&place).expect(reason);
            let (byte, _) = rest.split_once(" of the XML: ").expect(reason);
            let byte = ByteOffset(byte.parse().unwrap());
            assert!(item.start <= byte && byte <= item.position.xml, "{reason}");
        }
    }
}

/// The records between the tags of the root come to `expected`: in every form of gzip, through
/// every size of buffer, inline and on a thread, from the start and from every boundary.
#[track_caller]
fn check_with(kind: &str, options: &Options, content: &[u8], expected: &[Expected<'_>]) {
    let (root, end) = (format!("<{kind}>"), format!("</{kind}>\n"));
    let xml = [root.as_bytes(), content, end.as_bytes()].concat();
    let (first, second) = xml.split_at(xml.len() / 2);
    let members = [
        member(first, 9),
        member(b"", 6),
        member(second, 0),
        vec![0; 9],
    ]
    .concat();
    for file in [member(&xml, 6), members] {
        let world = World::new(kind, &file);
        let whole = world.run(Position::START, options);
        assert_eq!(outcomes(&whole.items), expected);
        check_places(&whole.items);
        let digest = checksum(&OsFileSystem, &world.dump.path).unwrap();
        assert_eq!(whole.end, Ok(digest));

        for buffer_bytes in SIZES {
            let options = Options {
                buffer_bytes,
                ..options.clone()
            };
            check_suffixes(&world, &options, &whole);
        }
    }
}

/// From every boundary, inline and on threads, exactly what follows it is read.
#[track_caller]
fn check_suffixes(world: &World, options: &Options, whole: &Run) {
    let boundaries = whole.items.iter().map(|item| item.position);
    let boundaries = [Position::START].into_iter().chain(boundaries);
    for (index, from) in boundaries.enumerate() {
        let expected = Run {
            items: whole.items[index..].to_vec(),
            end: whole.end.clone(),
        };
        assert_eq!(world.run(from, options), expected, "from {from:?}");
        for threads in [1, 2, 5] {
            let reads = pooled(world.source(from, options), threads);
            assert_eq!(collect(reads), expected, "on {threads}, from {from:?}");
        }
    }
}

#[track_caller]
fn check(content: &str, expected: &[Expected<'_>]) {
    check_with("artists", &Options::default(), content.as_bytes(), expected);
}

#[test]
fn records_are_read_to_the_verified_end() {
    check("", &[]);
    check(
        "\n<artist><id>1</id></artist>\n<artist><id>2</id></artist>\n",
        &[Id("1"), Id("2")],
    );
}

#[test]
fn every_kind_has_its_names() {
    for (kind, record) in [
        ("labels", "<label><id>7</id></label>"),
        ("masters", "<master id=\"7\"><title>x</title></master>"),
        (
            "releases",
            "<release id=\"7\" status=\"x\"><released>1999</released></release>",
        ),
    ] {
        check_with(kind, &Options::default(), record.as_bytes(), &[Id("7")]);
    }
}

#[test]
fn odd_records_are_records() {
    for inner in [
        "<name>this & that</name>",
        "<name>bell \u{7} and \u{85}</name>",
        "<name><![CDATA[</artist>]]></name>",
        "<!-- </artist> --><name>x</name>",
        "<images><image uri=\"a>b\" type='/>'/></images>",
        "<name>line\r\nline&#13;\r\n</name>\r\n",
        "<name></name><profile/>",
    ] {
        let record = format!("<artist><id>1</id>{inner}</artist>");
        check(
            &format!("{record}<artist><id>2</id></artist>"),
            &[Id("1"), Id("2")],
        );
    }
}

#[test]
fn nested_elements_of_the_records_name_belong_to_it() {
    let record =
        "<label><id>1</id><sublabels>\n<label id=\"5\">x</label>\n<label/></sublabels></label>\n";
    let next = record.replace("<id>1", "<id>2");
    let content = format!("{record}{next}");
    let expected = [Id("1"), Id("2")];
    check_with("labels", &Options::default(), content.as_bytes(), &expected);
}

#[test]
fn a_byte_order_mark_and_a_declaration_may_come_first() {
    let xml =
        "\u{feff}<?xml version=\"1.0\"?>\r\n<artists>\r\n<artist><id>1</id></artist></artists>";
    let world = World::new("artists", &member(xml.as_bytes(), 6));
    let run = world.run(Position::START, &options(1));
    assert_eq!(outcomes(&run.items), [Id("1")]);
    check_suffixes(&world, &options(7), &run);
}

#[test]
fn invalid_utf8_is_repaired_and_said_to_be() {
    let xml = b"<artists><artist><id>1</id><name>\xff</name></artist></artists>";
    let world = World::new("artists", &member(xml, 6));
    let run = world.run(Position::START, &Options::default());
    let is_repaired = |item: &Item| match &item.outcome {
        Outcome::Content(content) => content.repaired,
        Outcome::Malformed { .. } => false,
    };
    assert!(run.items.iter().all(is_repaired));
    assert_eq!(run.items.len(), 1);
}

#[test]
fn malformed_records_are_dead_letters() {
    for broken in [
        "<artist><name>no id</name></artist>",
        "<artist><id>1</id><name>x</nom></artist>",
        "<artist><id>1</id></name></artist>",
        "<artist/>",
        "stray text",
        "<label><id>1</id></label>",
        "</artist>",
    ] {
        let good = "<artist><id>2</id></artist>";
        let dead = Dead(broken.as_bytes());
        check(&format!("{broken}{good}{broken}"), &[dead, Id("2"), dead]);
    }
}

#[test]
fn a_record_that_is_malformed_otherwise_is_not_cut() {
    let broken =
        "<label><name>no id</name><sublabels>\n<label id=\"5\">x</label></sublabels></label>";
    let content = format!("{broken}<label><id>2</id></label>");
    let expected = [Dead(broken.as_bytes()), Id("2")];
    check_with("labels", &Options::default(), content.as_bytes(), &expected);
}

#[test]
fn a_record_over_the_bound_is_a_dead_letter() {
    let bounded = Options {
        record_bytes_max: 60,
        ..Options::default()
    };
    let huge = format!("<artist><id>1</id><name>{}</name></artist>", "x".repeat(90));
    let content = format!("{huge}<artist><id>2</id></artist>");
    let expected = [Dead(&huge.as_bytes()[..60]), Id("2")];
    check_with("artists", &bounded, content.as_bytes(), &expected);
}

#[test]
fn a_huge_record_within_the_bound_is_a_record() {
    let name = "x".repeat(2 << 20);
    let xml = format!("<artists><artist><id>1</id><name>{name}</name></artist></artists>");
    let world = World::new("artists", &member(xml.as_bytes(), 1));
    let run = world.run(Position::START, &Options::default());
    assert_eq!(outcomes(&run.items), [Id("1")]);
    assert!(run.end.is_ok());
}

#[test]
fn a_missing_end_tag_costs_one_record() {
    let good = "<artist><id>2</id></artist>\n";
    let last = "<artist><id>3</id></artist>\n";
    // Nothing but the end of the root shows that an end tag is missing.
    let broken = "<artist><id>1</id>\n";
    let dead = Dead(broken.as_bytes());
    check(&format!("{broken}{good}{last}"), &[dead, Id("2"), Id("3")]);
    check(&format!("{good}{last}{broken}"), &[Id("2"), Id("3"), dead]);
    check(&format!("{broken}{broken}{good}"), &[dead, dead, Id("2")]);
    // An end tag too many comes later, so the record ends, but its tags don't match.
    let broken = "<artist><id>1</id><name>\n";
    let content = format!("{broken}{good}</artist>\n{last}");
    let expected = [
        Dead(broken.as_bytes()),
        Id("2"),
        Dead(b"</artist>\n"),
        Id("3"),
    ];
    check(&content, &expected);
    // The size bound shows it.
    let bounded = Options {
        record_bytes_max: 50,
        ..Options::default()
    };
    let content = format!("{broken}{}", good.repeat(3));
    let expected = [Dead(broken.as_bytes()), Id("2"), Id("2"), Id("2")];
    check_with("artists", &bounded, content.as_bytes(), &expected);
}

const SMALL: &str = "<artists>\n<artist><id>1</id><name>A &amp; B</name></artist>\n<artist><id>2</id></artist>\n<artist>no id</artist> stray <artist><id>3</id></artist>\n</artists>\n";

#[test]
fn members_may_be_split_anywhere() {
    let file = member(SMALL.as_bytes(), 6);
    let expected = World::new("artists", &file).run(Position::START, &options(64));
    assert_eq!(expected.items.len(), 5);
    let world = World::new("artists", &file);
    for split in 0..=SMALL.len() {
        let (first, second) = SMALL.as_bytes().split_at(split);
        world.write(&[member(first, 6), member(second, 1)].concat());
        let run = world.run(Position::START, &options(64));
        assert_eq!(run.items, expected.items, "split at {split}");
        assert!(run.end.is_ok(), "split at {split}");
    }
}

#[test]
fn a_cut_file_yields_its_whole_records_and_then_an_error() {
    let (first, second) = SMALL.as_bytes().split_at(100);
    for level in [0, 6] {
        let members = [member(first, level), member(second, level)];
        let boundary = members[0].len();
        let file = members.concat();
        let world = World::new("artists", &file);
        let whole = world.run(Position::START, &options(64));
        for cut in 0..file.len() {
            world.write(&file[..cut]);
            let run = world.run(Position::START, &options(64));
            assert!(whole.items.starts_with(&run.items), "cut at {cut}");
            let error = run.end.expect_err("a cut file has no end");
            let place = match cut {
                0 => "it is empty".to_owned(),
                _ if cut == boundary => format!("truncated at byte {} of the XML", first.len()),
                _ => format!("ends at byte {cut}, "),
            };
            assert!(error.contains(&place), "cut at {cut}: {error}");
            assert!(error.contains("discogs_20260801_artists.xml.gz"), "{error}");
        }
    }
}

#[test]
fn records_before_a_cut_are_not_held_back() {
    let file = member(SMALL.as_bytes(), 0);
    let content = file.len() - SMALL.len() - 8;
    let world = World::new("artists", &file);
    let whole = world.run(Position::START, &options(64));
    for item in &whole.items[..2] {
        let end = usize::try_from(item.position.xml.0).unwrap();
        world.write(&file[..content + end]);
        let run = world.run(Position::START, &options(64 * 1024));
        assert_eq!(run.items.last(), Some(item));
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_changes_nothing() {
    for level in [0, 6] {
        let file = member(SMALL.as_bytes(), level);
        let world = World::new("artists", &file);
        let whole = world.run(Position::START, &options(64));
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            world.write(&flipped);
            let run = world.run(Position::START, &options(64 * 1024));
            assert!(run.end.is_err() || run.items == whole.items, "bit {bit}");
        }
    }
}

#[test]
fn a_position_behind_the_end_is_an_error() {
    let world = World::new("artists", &member(b"<artists></artists>", 6));
    let from = Position {
        ordinal: Ordinal(3),
        xml: ByteOffset(100),
    };
    let error = world.run(from, &options(64)).end.unwrap_err();
    assert!(
        error.contains("ends at byte 19, before byte 100"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_dump_is_said_to_be() {
    for (file, message) in [
        (b"<artists>".to_vec(), "plain XML"),
        (
            member(b"<labels></labels>", 6),
            "a dump of labels, not of artists",
        ),
        (
            member(b"<artists></artists>x", 6),
            "more content after the end of the root, at byte 19",
        ),
    ] {
        let world = World::new("artists", &file);
        let error = world.run(Position::START, &options(64)).end.unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_missing_file_is_an_error_at_once() {
    let world = World::new("artists", b"");
    OsFileSystem.remove(&world.dump.path).unwrap();
    let opened = open(
        &OsFileSystem,
        &world.dump,
        Position::START,
        &Options::default(),
    );
    let error = opened.err().expect("it was removed").to_string();
    let path = world.dump.path.display();
    assert!(
        error.starts_with(&format!("cannot open {path}: ")),
        "{error}"
    );
}

#[test]
fn a_fingerprint_sees_the_length_the_head_the_tail_and_samples_between() {
    const LENGTH: usize = 3 << 20;
    let world = World::new("artists", &vec![0; LENGTH]);
    let original = world.fingerprint();
    assert_eq!(original, world.fingerprint());
    let samples = (0..16).map(|sample| (LENGTH - 64 * 1024) * sample / 15);
    let seen = samples.flat_map(|start| [start, start + 64 * 1024 - 1]);
    for changed in seen {
        let mut file = vec![0; LENGTH];
        file[changed] = 1;
        world.write(&file);
        assert_ne!(world.fingerprint(), original, "byte {changed}");
    }
    world.write(&vec![0; LENGTH + 1]);
    assert_ne!(world.fingerprint(), original);
}

#[test]
fn a_fingerprint_sees_every_byte_of_a_small_file() {
    let world = World::new("artists", b"");
    // SHA-256 of eight zeros: the length, and nothing.
    let empty = "sampled-sha256:af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc";
    assert_eq!(world.fingerprint().0, empty);
    for length in [1, 100, 1 << 20] {
        let mut file = vec![0; length];
        world.write(&file);
        let original = world.fingerprint();
        for changed in [0, length / 2, length - 1] {
            file[changed] ^= 1;
            world.write(&file);
            assert_ne!(world.fingerprint(), original, "byte {changed} of {length}");
            file[changed] ^= 1;
        }
    }
}

#[test]
fn a_checksum_is_sha256() {
    let world = World::new("artists", b"abc");
    assert_eq!(
        checksum(&OsFileSystem, &world.dump.path).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

/// A folder of real excerpts that stands beside the project on some machines.
fn samples() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    if OsFileSystem.metadata(&path).is_err() {
        println!("the samples are absent: nothing is checked");
        return None;
    }
    Some(path)
}

fn run_sample(path: PathBuf, kind: Kind) -> Run {
    let version = "20200806".parse().unwrap();
    let dump = Dump {
        path,
        kind,
        version,
    };
    let source = || open(&OsFileSystem, &dump, Position::START, &Options::default()).unwrap();
    let run = collect(Box::new(source()));
    assert_eq!(collect(pooled(source(), 3)), run);
    run
}

#[test]
fn real_dumps_are_read() {
    let Some(samples) = samples() else { return };
    for kind in Kind::ALL {
        let name = format!("dumps/discogs_20200806_{kind}.xml.gz");
        let run = run_sample(samples.join(name), kind);
        let ids = outcomes(&run.items);
        assert_eq!(ids.len(), 1000, "{kind}");
        assert!(ids.iter().all(|id| matches!(id, Id(_))), "{kind}");
        assert!(run.end.is_ok(), "{kind}");
    }
}

#[test]
fn real_damage_is_seen() {
    let Some(samples) = samples() else { return };
    let cut = samples.join("odd/masters_2025_cut_inside_a_record.xml.gz");
    let run = run_sample(cut, Kind::Masters);
    assert_eq!(run.items.len(), 3267);
    let error = run.end.unwrap_err();
    assert!(
        error.contains("inside record 3268 which begins at byte"),
        "{error}"
    );

    let tar = samples.join("odd/not_gz_xml_but_a_tar.xml.gz");
    let error = run_sample(tar, Kind::Artists).end.unwrap_err();
    assert!(error.contains("a tar archive"), "{error}");
}
