//! What a run has to do, by what the marker says and what the dump holds.

use std::path::{Path, PathBuf};

use discogs_extractor::dump::{Dump, Kind, Selection};
use discogs_extractor::fs::{FileSystem, OsFileSystem};
use discogs_extractor::inflate::WINDOW_BYTES;
use discogs_extractor::marker::{
    Checkpoint, FileProgress, Frontier, Marker, Paths, Publisher, Status,
};
use discogs_extractor::plan::{self, Plan, PlanError, lock, plan};
use discogs_extractor::seek_point::SeekPoint;
use discogs_extractor::source::{checksum, fingerprint};

use crate::harness::{dump, name, paths, seek_point, version};
use crate::memory::Memory;

const BYTES: &[u8] = b"the bytes of a dump";

fn selection(kinds: &[Kind]) -> Selection {
    Selection {
        version: version(),
        dumps: kinds.iter().copied().map(dump).collect(),
        directory: PathBuf::from("dumps"),
    }
}

/// A file system with the dump of artists and a marker that says `entry` of it.
fn world(bytes: &[u8], entry: Option<FileProgress>) -> Memory {
    let fs = Memory::default();
    fs.put(&dump(Kind::Artists).path, bytes);
    if let Some(entry) = entry {
        let mut marker = Marker::new(&version());
        *marker.file_mut(&name(Kind::Artists)) = entry;
        put(&fs, &marker);
    }
    fs
}

fn put(fs: &Memory, marker: &Marker) {
    fs.put(&paths().marker(), &serde_json::to_vec(marker).unwrap());
}

/// A checkpoint behind record 7 of a dump of these bytes.
fn checkpoint(bytes: &[u8]) -> Checkpoint {
    let fs = world(bytes, None);
    let path = dump(Kind::Artists).path;
    Checkpoint {
        fingerprint: fingerprint(&fs, &path).unwrap(),
        file_bytes: bytes.len() as u64,
        frontier: Frontier {
            record: 7,
            xml_offset: 700,
            messages: 6,
            dead_letters: 1,
            dead_letter_bytes: 9,
            ..Frontier::default()
        },
    }
}

fn entry(status: Status, checkpoint: Option<Checkpoint>) -> FileProgress {
    FileProgress {
        status,
        records_extracted: 7,
        messages_published: 6,
        started_at: Some("2026-08-01T00:00:00Z".to_owned()),
        checkpoint,
        ..FileProgress::default()
    }
}

fn plan_artists(fs: &Memory, is_forced: bool) -> Plan {
    plan(fs, selection(&[Kind::Artists]), paths(), is_forced).unwrap()
}

/// Behind which record the dump of artists is read; `None` if it is skipped.
fn begins(plan: &Plan) -> Option<u64> {
    let planned = plan.dumps.first()?;
    Some(planned.checkpoint.frontier.record)
}

#[test]
fn what_the_marker_says_and_the_bytes_are_decides() {
    let same = || Some(checkpoint(BYTES));
    let other = || Some(checkpoint(b"other bytes"));
    use Status::{Completed, Failed, InProgress, Pending};
    for (status, checkpoint, begin, warning) in [
        (Pending, same(), Some(0), None),
        (InProgress, same(), Some(7), None),
        (
            InProgress,
            other(),
            Some(0),
            Some("not the file that was read before"),
        ),
        (InProgress, None, Some(0), Some("saved no checkpoint")),
        (Failed, same(), Some(7), None),
        (
            Failed,
            other(),
            Some(0),
            Some("not the file that was read before"),
        ),
        (Completed, same(), None, None),
        (
            Completed,
            other(),
            Some(0),
            Some("not the file that was read before"),
        ),
        (Completed, None, None, None),
    ] {
        let case = format!("{status:?} {checkpoint:?}");
        let entry = entry(status, checkpoint);
        let fs = world(BYTES, Some(entry.clone()));
        let plan = plan_artists(&fs, false);
        assert_eq!(begins(&plan), begin, "{case}");
        let only_asked = plan::checkpoint(&fs, &dump(Kind::Artists), &entry).unwrap();
        let planned = plan.dumps.first().map(|planned| planned.checkpoint.clone());
        assert_eq!(only_asked, planned, "{case}");
        assert_eq!(
            plan.warnings.len(),
            usize::from(warning.is_some()),
            "{case}"
        );
        for (told, expected) in plan.warnings.iter().zip(warning) {
            assert!(
                told.contains(expected) && told.contains(&name(Kind::Artists)),
                "{told}"
            );
        }
        assert_eq!(begins(&plan_artists(&fs, true)), Some(0), "forced: {case}");
    }
}

#[test]
fn a_dump_of_which_no_record_was_counted_begins_without_a_warning() {
    let nothing = FileProgress {
        status: Status::InProgress,
        ..FileProgress::default()
    };
    let plan = plan_artists(&world(BYTES, Some(nothing)), false);
    assert_eq!(begins(&plan), Some(0));
    assert_eq!(plan.warnings, Vec::<String>::new());
}

/// The seek point that a run begins at, by where it is in the XML, with this file of one.
fn seek_point_of(
    status: Status,
    checkpoint: &Checkpoint,
    file: &[u8],
) -> (Memory, Plan, Option<u64>) {
    let fs = world(BYTES, Some(entry(status, Some(checkpoint.clone()))));
    fs.put(&paths().seek_point(Kind::Artists), file);
    let plan = plan_artists(&fs, false);
    let planned = plan.dumps.first();
    let seek_point = planned.and_then(|planned| planned.seek_point.clone());
    (fs, plan, seek_point.map(|point| point.inflated))
}

#[test]
fn a_seek_point_is_used_if_it_is_whole_of_the_same_bytes_and_before_the_checkpoint() {
    let checkpoint = checkpoint(BYTES);
    let own = &*checkpoint.fingerprint.0;
    let whole = seek_point(700).to_bytes(own);
    let changed = |change: fn(&mut SeekPoint)| {
        let mut point = seek_point(7);
        change(&mut point);
        point.to_bytes(own)
    };
    for (file, used, why) in [
        (whole.clone(), Some(700), None),
        (seek_point(7).to_bytes(own), Some(7), None),
        (
            seek_point(701).to_bytes(own),
            None,
            Some("ahead of the checkpoint"),
        ),
        (
            seek_point(7).to_bytes("other"),
            None,
            Some("of another file"),
        ),
        (changed(|it| it.unused_bits = 7), Some(7), None),
        (changed(|it| it.unused_bits = 8), None, Some("damaged")),
        (changed(|it| it.compressed = 0), None, Some("damaged")),
        (
            changed(|it| it.window = vec![0; WINDOW_BYTES]),
            Some(7),
            None,
        ),
        (
            changed(|it| it.window = vec![0; WINDOW_BYTES + 1]),
            None,
            Some("damaged"),
        ),
        (changed(|it| it.sha256.truncate(3)), None, Some("damaged")),
        (Vec::new(), None, Some("damaged")),
    ] {
        let (fs, plan, seek_point) = seek_point_of(Status::InProgress, &checkpoint, &file);
        assert_eq!(seek_point, used, "{why:?}");
        assert_eq!(begins(&plan), Some(7), "{why:?}");
        assert_eq!(plan.warnings.len(), usize::from(why.is_some()));
        for (told, expected) in plan.warnings.iter().zip(why) {
            assert!(told.contains(expected), "{told}");
            assert!(told.contains("is inflated and skipped"), "{told}");
        }
        let kept = fs.content(&paths().seek_point(Kind::Artists));
        assert_eq!(kept.is_some(), used.is_some(), "of no use, so removed");
    }
    for length in 0..whole.len() {
        let (.., torn) = seek_point_of(Status::Failed, &checkpoint, &whole[..length]);
        assert_eq!(torn, None, "cut to {length} bytes");
    }
    for bit in 0..whole.len() * 8 {
        let mut rotten = whole.clone();
        rotten[bit / 8] ^= 1 << (bit % 8);
        let (.., rotten) = seek_point_of(Status::Failed, &checkpoint, &rotten);
        assert_eq!(rotten, None, "bit {bit}");
    }
}

#[test]
fn the_seek_point_of_a_dump_that_is_not_gone_on_with_is_removed() {
    let same = checkpoint(BYTES);
    let file = seek_point(7).to_bytes(&same.fingerprint.0);
    for (status, checkpoint) in [
        (Status::Completed, same),
        (Status::InProgress, checkpoint(b"other bytes")),
    ] {
        let (fs, plan, seek_point) = seek_point_of(status, &checkpoint, &file);
        assert_eq!(seek_point, None, "{status:?}");
        assert!(!plan.warnings.iter().any(|told| told.contains("seek point")));
        assert_eq!(fs.content(&paths().seek_point(Kind::Artists)), None);
    }
}

#[test]
fn without_a_marker_everything_is_read_in_order() {
    let fs = world(BYTES, None);
    for kind in Kind::ALL {
        fs.put(&dump(kind).path, BYTES);
    }
    let plan = plan(&fs, selection(&Kind::ALL), paths(), false).unwrap();
    let dumps: Vec<Dump> = plan
        .dumps
        .iter()
        .map(|planned| planned.dump.clone())
        .collect();
    assert_eq!(dumps, Kind::ALL.map(dump));
    let expected = Checkpoint {
        frontier: Frontier::default(),
        ..checkpoint(BYTES)
    };
    assert!(
        plan.dumps
            .iter()
            .all(|planned| planned.checkpoint == expected)
    );
    assert_eq!(plan.warnings, Vec::<String>::new());
}

#[test]
fn the_checksum_of_another_extractor_tells_whether_a_completed_dump_has_changed() {
    let path = dump(Kind::Artists).path;
    let right = checksum(&world(BYTES, None), &path).unwrap();
    for (source_checksum, begin) in [
        (right.to_uppercase(), None),
        (right, None),
        ("a1b2c3...".to_owned(), None),
        ("a1b2c3".to_owned(), None),
        ("x".repeat(64), None),
        ("0".repeat(64), Some(0)),
    ] {
        let source_checksum = Some(source_checksum);
        let entry = FileProgress {
            source_checksum,
            ..entry(Status::Completed, None)
        };
        let plan = plan_artists(&world(BYTES, Some(entry)), false);
        assert_eq!(begins(&plan), begin);
        assert_eq!(plan.warnings.len(), usize::from(begin.is_some()));
    }
}

#[test]
fn the_entry_of_a_dump_to_read_counts_what_its_checkpoint_counts() {
    let resumed = plan_artists(
        &world(BYTES, Some(entry(Status::Failed, Some(checkpoint(BYTES))))),
        false,
    );
    let expected = FileProgress {
        status: Status::InProgress,
        batches_sent: 6,
        ..entry(Status::Failed, Some(checkpoint(BYTES)))
    };
    assert_eq!(resumed.marker.file(&name(Kind::Artists)), Some(&expected));

    let restarted = plan_artists(&world(BYTES, Some(entry(Status::InProgress, None))), false);
    let expected = FileProgress::default();
    assert_eq!(restarted.marker.file(&name(Kind::Artists)), Some(&expected));
}

/// A dump whose end is reached and not completed yet will tell when that was; one that is read anew
/// will tell another time.
#[test]
fn the_end_of_a_dump_is_kept_as_long_as_the_dump_is() {
    let empty = Checkpoint {
        frontier: Frontier::default(),
        ..checkpoint(BYTES)
    };
    for (checkpoint, is_forced, is_kept) in [
        (checkpoint(BYTES), false, true),
        (empty, false, true),
        (checkpoint(b"other bytes"), false, false),
        (checkpoint(BYTES), true, false),
    ] {
        let ended = FileProgress {
            completed_at: Some("2026-08-01T01:00:00Z".to_owned()),
            ..entry(Status::InProgress, Some(checkpoint))
        };
        let plan = plan_artists(&world(BYTES, Some(ended.clone())), is_forced);
        let planned = plan.marker.file(&name(Kind::Artists)).unwrap();
        let kept = ended.completed_at.filter(|_| is_kept);
        assert_eq!(planned.completed_at, kept, "{:?}", ended.checkpoint);
    }
}

/// The publisher of artists by a plan in which the marker says `known` of a dump of `bytes`.
fn publisher(known: Option<Publisher>, rules: &str, is_forced: bool) -> (Publisher, Vec<String>) {
    let entry = FileProgress {
        publisher: known,
        ..entry(Status::InProgress, Some(checkpoint(BYTES)))
    };
    let mut plan = plan_artists(&world(BYTES, Some(entry)), is_forced);
    plan::assign_publishers(&mut plan, rules, is_forced, NOW_SECONDS);
    let file = plan.marker.file(&name(Kind::Artists)).unwrap();
    let publisher = file.publisher.clone();
    (publisher.expect("every dump has one"), plan.warnings)
}

const NOW_SECONDS: u64 = 1_785_542_400;

/// One that has published with these rules.
fn known(bytes: &[u8], generation: u64) -> Option<Publisher> {
    Some(Publisher {
        fingerprint: checkpoint(bytes).fingerprint,
        generation,
        rules: "rules".to_owned(),
        after: 2,
        is_claimed: true,
    })
}

#[test]
fn a_publisher_goes_on_with_its_bytes_and_rules_and_is_a_new_one_otherwise() {
    let new = |generation, rules: &str, after| Publisher {
        fingerprint: checkpoint(BYTES).fingerprint,
        generation,
        rules: rules.to_owned(),
        after,
        is_claimed: false,
    };
    let same = known(BYTES, 1).unwrap();
    for (known, rules, is_forced, expected, is_told) in [
        (None, "rules", false, new(1, "rules", 6), false),
        (None, "rules", true, new(NOW_SECONDS, "rules", 0), false),
        (known(BYTES, 1), "rules", false, same, false),
        (
            known(b"other", 9),
            "rules",
            false,
            new(1, "rules", 6),
            false,
        ),
        (
            known(BYTES, 1),
            "others",
            false,
            new(NOW_SECONDS, "others", 6),
            true,
        ),
        (
            known(BYTES, 1),
            "rules",
            true,
            new(NOW_SECONDS, "rules", 0),
            false,
        ),
        (
            known(BYTES, 1),
            "others",
            true,
            new(NOW_SECONDS, "others", 0),
            false,
        ),
        // However wrong the clock is, a generation is not used twice.
        (
            known(BYTES, NOW_SECONDS),
            "rules",
            true,
            new(NOW_SECONDS + 1, "rules", 0),
            false,
        ),
    ] {
        let case = format!("{known:?}, {rules}, forced: {is_forced}");
        let (publisher, warnings) = publisher(known, rules, is_forced);
        assert_eq!(publisher, expected, "{case}");
        assert_eq!(warnings.len(), usize::from(is_told), "{case}: {warnings:?}");
        assert!(
            warnings
                .iter()
                .all(|told| told.contains("record 7 may be in the stream twice"))
        );
    }
}

#[test]
fn a_complete_version_is_complete_until_a_dump_of_it_changes() {
    for (bytes, is_complete) in [(BYTES, true), (b"other".as_slice(), false)] {
        let fs = world(bytes, None);
        let mut marker = Marker::new(&version());
        marker.summary.overall_status = Status::Completed;
        *marker.file_mut(&name(Kind::Artists)) = entry(Status::Completed, Some(checkpoint(BYTES)));
        put(&fs, &marker);
        assert_eq!(plan_artists(&fs, false).marker.is_complete(), is_complete);
    }
}

#[test]
fn force_forgets_everything_but_the_download() {
    let fs = world(BYTES, None);
    let mut marker = Marker::new(&version());
    marker.download_phase.files_downloaded = 4;
    marker.processing_phase.started_at = Some("2026-08-01T00:00:00Z".to_owned());
    marker.summary.overall_status = Status::Completed;
    put(&fs, &marker);
    let mut expected = Marker::new(&version());
    expected.download_phase.files_downloaded = 4;
    expected.file_mut(&name(Kind::Artists));
    assert_eq!(plan_artists(&fs, true).marker, expected);
}

#[test]
fn force_keeps_what_is_done_of_dumps_that_are_not_selected() {
    let fs = world(BYTES, None);
    let mut marker = Marker::new(&version());
    marker.processing_phase.started_at = Some("2026-08-01T00:00:00Z".to_owned());
    for kind in [Kind::Artists, Kind::Labels] {
        *marker.file_mut(&name(kind)) = entry(Status::Completed, Some(checkpoint(BYTES)));
    }
    put(&fs, &marker);
    let forced = plan_artists(&fs, true);
    assert_eq!(forced.dumps.len(), 1);
    assert_eq!(
        forced.marker.file(&name(Kind::Labels)),
        marker.file(&name(Kind::Labels))
    );
    assert_eq!(
        forced.marker.processing_phase.started_at,
        marker.processing_phase.started_at
    );
}

#[test]
fn a_dump_that_cannot_be_read_is_named() {
    let error = plan(
        &Memory::default(),
        selection(&[Kind::Labels]),
        paths(),
        false,
    )
    .unwrap_err();
    assert!(error.to_string().contains(&name(Kind::Labels)), "{error}");
}

#[test]
fn a_second_extractor_is_told_who_is_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths::new(directory.path(), &version());
    let held = lock(&OsFileSystem, &paths, "process 17 on host a").unwrap();
    let error = lock(&OsFileSystem, &paths, "process 18").unwrap_err();
    assert!(matches!(error, PlanError::Locked { .. }));
    assert!(
        error.to_string().contains("process 17 on host a"),
        "{error}"
    );
    drop(held);
    lock(&OsFileSystem, &paths, "process 18").unwrap();
}

#[test]
fn the_present_directory_may_be_named_by_nothing() {
    // What the parent of `discogs_20260801_labels.xml.gz` is called.
    let here = OsFileSystem.list(Path::new("")).unwrap();
    assert!(here.iter().any(|path| path.ends_with("Cargo.toml")));
}
