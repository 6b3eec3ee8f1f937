//! The state marker: what it keeps, what is loaded, and what every failure of a save leaves.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use discogs_extractor::dump::{Kind, Version};
use discogs_extractor::fs::FileSystem;
use discogs_extractor::marker::read as read_marker;
use discogs_extractor::marker::{
    self, Checkpoint, DeadLetters, Frontier, Loaded, Marker, Publisher, Save, SaveError,
    SeekPoints, Status, Stepped,
};
use discogs_extractor::source::Fingerprint;
use serde_json::{Value, json};

use crate::harness::{name, paths, version};
use crate::memory::Memory;

/// A marker that can be told from others by `records`.
fn sample(records: u64) -> Marker {
    let mut marker = Marker::new(&version());
    let file = marker.file_mut(&name(Kind::Artists));
    file.status = Status::InProgress;
    file.records_extracted = records;
    file.checkpoint = Some(Checkpoint {
        fingerprint: Fingerprint("bytes".to_owned()),
        file_bytes: 1_000,
        frontier: Frontier {
            record: records,
            messages: records,
            ..Frontier::default()
        },
    });
    marker.summarize(&version());
    marker
}

fn letters(saved_bytes: u64, lines: &str) -> Vec<DeadLetters> {
    vec![DeadLetters {
        path: paths().dead_letters(Kind::Artists),
        saved_bytes,
        lines: lines.as_bytes().to_vec(),
    }]
}

fn save(fs: &Memory, number: u64, records: u64) -> Result<(), SaveError> {
    Save::new(&paths(), number, &sample(records), Vec::new()).finish(fs)
}

/// How many records the marker at `path` has; `None` if there is no such file.
fn records(fs: &Memory, path: &Path) -> Option<u64> {
    let marker: Marker = serde_json::from_slice(&fs.content(path)?).expect("it is whole");
    Some(marker.processing_phase.records_extracted)
}

fn load(fs: &Memory) -> Loaded {
    marker::load(fs, &paths()).unwrap()
}

fn loaded(fs: &Memory) -> Option<u64> {
    let marker = load(fs).marker?;
    Some(marker.processing_phase.records_extracted)
}

mod format {
    use super::*;

    #[test]
    fn every_field_and_every_unknown_field_is_kept() {
        let file = name(Kind::Artists);
        let text = json!({
            "metadata_version": "9.9",
            "last_updated": "2026-08-02T00:00:00Z",
            "current_version": "20260801",
            "a": 1,
            "download_phase": {
                "status": "completed",
                "started_at": "x",
                "completed_at": "y",
                "files_downloaded": 4,
                "files_total": 4,
                "bytes_downloaded": 5,
                "downloads_by_file": {
                    &file: {
                        "status": "completed",
                        "bytes_downloaded": 5,
                        "started_at": null,
                        "completed_at": null,
                        "checksum": "c",
                        "c": {"deep": [1, null]},
                    },
                },
                "errors": [{"any": "thing"}],
                "b": "text",
            },
            "processing_phase": {
                "status": "failed",
                "started_at": "x",
                "completed_at": null,
                "files_processed": 1,
                "files_total": 4,
                "records_extracted": 3,
                "current_file": &file,
                "progress_by_file": {
                    &file: {
                        "status": "in_progress",
                        "records_extracted": 3,
                        "messages_published": 3,
                        "batches_sent": 3,
                        "started_at": "x",
                        "completed_at": null,
                        "source_checksum": null,
                        "checkpoint": {
                            "fingerprint": "f",
                            "file_bytes": 10,
                            "record": 3,
                            "xml_offset": 30,
                            "compressed_offset": 9,
                            "messages": 3,
                            "dead_letters": 0,
                            "dead_letter_bytes": 0,
                            "repaired": 1,
                        },
                        "e": true,
                    },
                },
                "errors": ["text"],
                "d": 1.5,
            },
            "publishing_phase": {
                "status": "in_progress",
                "messages_published": 3,
                "batches_sent": 3,
                "errors": [],
                "last_amqp_heartbeat": "z",
                "f": [],
            },
            "summary": {
                "overall_status": "in_progress",
                "total_duration_seconds": 1.5,
                "files_by_type": {"artists": "in_progress", "others": "pending"},
                "g": {},
            },
        });
        let marker: Marker = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&marker).unwrap(), text);
    }

    #[test]
    fn every_field_may_be_missing() {
        let marker: Marker = serde_json::from_str("{}").unwrap();
        assert_eq!(marker, Marker::default());
        let file = r#"{"processing_phase": {"progress_by_file": {"x": {}}}}"#;
        let marker: Marker = serde_json::from_str(file).unwrap();
        assert_eq!(marker.file("x").unwrap().status, Status::Pending);
    }

    #[test]
    fn readers_of_every_generation_find_their_fields() {
        let value = serde_json::to_value(sample(7)).unwrap();
        let required: [(&str, &[&str]); 5] = [
            (
                "",
                &[
                    "metadata_version",
                    "last_updated",
                    "current_version",
                    "summary",
                ],
            ),
            (
                "/download_phase",
                &[
                    "status",
                    "downloads_by_file",
                    "files_downloaded",
                    "files_total",
                    "bytes_downloaded",
                    "started_at",
                    "completed_at",
                    "errors",
                ],
            ),
            (
                "/processing_phase",
                &[
                    "status",
                    "files_processed",
                    "files_total",
                    "records_extracted",
                    "current_file",
                    "progress_by_file",
                    "started_at",
                    "completed_at",
                    "errors",
                ],
            ),
            (
                "/processing_phase/progress_by_file/discogs_20260801_artists.xml.gz",
                &[
                    "status",
                    "records_extracted",
                    "messages_published",
                    "batches_sent",
                    "started_at",
                    "completed_at",
                    "source_checksum",
                ],
            ),
            (
                "/publishing_phase",
                &[
                    "status",
                    "messages_published",
                    "batches_sent",
                    "errors",
                    "last_amqp_heartbeat",
                ],
            ),
        ];
        for (pointer, fields) in required {
            for field in fields {
                let path = format!("{pointer}/{field}");
                assert!(value.pointer(&path).is_some(), "{path}");
            }
        }
        let types = &value["summary"]["files_by_type"];
        let pending = "pending";
        assert_eq!(
            types,
            &json!({"artists": "in_progress", "labels": pending, "masters": pending, "releases": pending})
        );
    }

    #[test]
    fn errors_are_bounded_and_the_newest_stay() {
        let mut marker = Marker::default();
        (0..250).for_each(|number| marker.add_error(number.to_string()));
        let errors = &marker.processing_phase.errors;
        assert_eq!((errors.len(), &errors[99]), (100, &Value::from("249")));
    }
}

mod loading {
    use super::*;

    const GARBAGE: [&[u8]; 5] = [b"", b"\0\0\0\0", b"{\"summary\":", b"[]x", b"\xff\xfe"];

    #[test]
    fn the_present_generation_goes_before_the_previous() {
        let fs = Memory::default();
        assert_eq!(loaded(&fs), None);
        assert_eq!(load(&fs).warnings, Vec::<String>::new());
        save(&fs, 1, 1).unwrap();
        save(&fs, 2, 2).unwrap();
        assert_eq!(loaded(&fs), Some(2));
        assert_eq!(records(&fs, &paths().previous()), Some(1));
        assert_eq!(load(&fs).warnings, Vec::<String>::new());
    }

    #[test]
    fn a_broken_marker_is_set_aside_and_the_previous_one_used() {
        for garbage in GARBAGE {
            let fs = Memory::default();
            save(&fs, 1, 1).unwrap();
            save(&fs, 2, 2).unwrap();
            fs.put(&paths().marker(), garbage);
            let Loaded {
                marker, warnings, ..
            } = load(&fs);
            assert_eq!(marker.unwrap().processing_phase.records_extracted, 1);
            let aside = ".extraction_status_20260801.json.broken-1";
            assert!(warnings[0].contains(aside), "{warnings:?}");
            assert!(
                warnings[1].contains("previous state marker"),
                "{warnings:?}"
            );
            assert_eq!(
                fs.content(&Path::new("state").join(aside)).unwrap(),
                garbage
            );
            assert_eq!(loaded(&fs), Some(1), "the next start finds the same");
            save(&fs, 1, 3).unwrap();
            assert_eq!(records(&fs, &paths().previous()), Some(1));
        }
    }

    #[test]
    fn a_missing_marker_is_replaced_by_the_previous_one() {
        let fs = Memory::default();
        save(&fs, 1, 1).unwrap();
        save(&fs, 2, 2).unwrap();
        fs.remove(&paths().marker()).unwrap();
        assert_eq!(loaded(&fs), Some(1));
        assert_eq!(load(&fs).warnings.len(), 1);
    }

    #[test]
    fn when_nothing_can_be_read_everything_is_set_aside_and_said() {
        let fs = Memory::default();
        for number in 1..=2 {
            fs.put(&paths().marker(), b"broken");
            fs.put(&paths().previous(), b"too");
            let Loaded {
                marker, warnings, ..
            } = load(&fs);
            assert_eq!((marker, warnings.len()), (None, 3));
            assert!(
                warnings[2].contains("starts again at record 1"),
                "{warnings:?}"
            );
            let aside = format!(".extraction_status_20260801.json.broken-{number}");
            assert!(fs.names().contains(&aside), "{:?}", fs.names());
        }
    }

    /// The first start of a version: what else lies in its directory is nobody's broken marker.
    #[test]
    fn files_of_others_are_no_reason_to_warn() {
        let fs = Memory::default();
        let others = [
            paths().dead_letters(Kind::Artists),
            Path::new("state").join(name(Kind::Artists)),
            Path::new("state/.extraction_status_20260701.json.broken-1").to_owned(),
        ];
        others.iter().for_each(|path| fs.put(path, b"{}"));
        assert_eq!(load(&fs).warnings, Vec::<String>::new());
        assert_eq!(fs.names().len(), others.len());
    }

    /// A marker that can't be read now may be readable tomorrow: starting over at record 1 would
    /// publish everything again.
    #[test]
    fn an_error_of_the_file_system_is_no_missing_marker() {
        let fs = Memory::default();
        save(&fs, 1, 1).unwrap();
        for (failing, operation) in [(1, "list"), (2, "open")] {
            fs.fail(failing);
            let error = marker::load(&fs, &paths()).expect_err(operation);
            assert_eq!(error.to_string(), "injected");
            assert_eq!(fs.names(), [".extraction_status_20260801.json"]);
        }
        assert_eq!(loaded(&fs), Some(1));
    }

    /// A start that fails after it has set the markers aside tells nobody.
    #[test]
    fn what_an_earlier_start_set_aside_is_said_until_there_is_a_marker() {
        let fs = Memory::default();
        fs.put(&paths().marker(), b"broken");
        load(&fs);
        for _ in 0..2 {
            let warnings = load(&fs).warnings;
            assert!(warnings[0].contains(".broken-1"), "{warnings:?}");
            assert!(warnings[1].contains("starts again"), "{warnings:?}");
        }
        save(&fs, 1, 5).unwrap();
        assert_eq!(load(&fs).warnings, Vec::<String>::new());
    }

    #[test]
    fn temporary_files_of_a_dead_process_are_removed_and_only_those() {
        let fs = Memory::default();
        save(&fs, 1, 1).unwrap();
        let other = Path::new("state/.extraction_status_20260701.json.1.tmp");
        for path in [&paths().temporary(7), other, Path::new("state/x.tmp")] {
            fs.put(path, b"half");
        }
        load(&fs);
        assert_eq!(
            fs.names(),
            [
                ".extraction_status_20260701.json.1.tmp",
                ".extraction_status_20260801.json",
                "x.tmp"
            ]
        );
    }
}

mod saving {
    use super::*;

    /// The steps of a save, the last included, each of which is one operation.
    fn steps(fs: &Memory, mut save: Save) -> u64 {
        for number in 1.. {
            let before = fs.operations();
            let stepped = save.step(fs);
            assert_eq!(fs.operations() - before, 1, "one operation a step");
            if stepped == Stepped::Done(Ok(())) {
                return number;
            }
            assert_eq!(stepped, Stepped::More);
        }
        unreachable!("a save ends")
    }

    #[test]
    fn every_step_is_one_operation() {
        let fs = Memory::default();
        let save = |letters| Save::new(&paths(), 1, &sample(1), letters);
        assert_eq!(steps(&fs, save(Vec::new())), 6, "without a present marker");
        assert_eq!(steps(&fs, save(Vec::new())), 8);
        assert_eq!(steps(&fs, save(letters(0, "a\n"))), 13, "with a new name");
        assert_eq!(steps(&fs, save(letters(2, "b\n"))), 12);
        fs.limit_writes(100);
        let bytes = fs.content(&paths().marker()).unwrap().len() as u64;
        assert_eq!(steps(&fs, save(Vec::new())), 7 + bytes.div_ceil(100));
    }

    /// A new seek point for labels, and none any more for artists.
    fn seek_points() -> SeekPoints {
        SeekPoints::from([(Kind::Artists, None), (Kind::Labels, Some(b"new".to_vec()))])
    }

    fn save_seek_points(fs: &Memory) -> Save {
        fs.put(&paths().seek_point(Kind::Artists), b"old");
        fs.put(&paths().seek_point(Kind::Labels), b"old");
        Save::new(&paths(), 2, &sample(2), Vec::new()).with_seek_points(seek_points())
    }

    #[test]
    fn seek_points_are_changed_with_the_marker_one_operation_a_step() {
        let fs = Memory::default();
        save(&fs, 1, 1).unwrap();
        assert_eq!(steps(&fs, save_seek_points(&fs)), 8 + 1 + 3);
        assert_eq!(fs.content(&paths().seek_point(Kind::Artists)), None);
        let labels = fs.content(&paths().seek_point(Kind::Labels));
        assert_eq!(labels, Some(b"new".to_vec()));
        assert_eq!(load(&fs).seek_points, [Kind::Labels]);
    }

    #[test]
    fn a_seek_point_is_whole_however_little_each_write_takes() {
        let fs = Memory::default();
        fs.limit_writes(2);
        save_seek_points(&fs).finish(&fs).unwrap();
        let labels = fs.content(&paths().seek_point(Kind::Labels));
        assert_eq!(labels, Some(b"new".to_vec()));
    }

    #[test]
    fn what_a_crash_leaves_of_a_seek_point_is_removed_on_the_next_start() {
        for steps in 0..12 {
            let fs = Memory::default();
            save(&fs, 1, 1).unwrap();
            let mut save = save_seek_points(&fs);
            for _ in 0..steps {
                save.step(&fs);
            }
            load(&fs);
            let names = fs.names();
            assert!(
                !names.iter().any(|name| name.ends_with(".tmp")),
                "after {steps} steps: {names:?}"
            );
        }
    }

    #[test]
    fn a_seek_point_that_cannot_be_changed_fails_no_save() {
        // The marker takes seven operations before, the last sync one behind.
        for failing in 8..=11 {
            let fs = Memory::default();
            save(&fs, 1, 1).unwrap();
            let save = save_seek_points(&fs);
            fs.fail(failing);
            assert_eq!(save.finish(&fs), Ok(()), "operation {failing}");
            assert_eq!(records(&fs, &paths().marker()), Some(2));
            let names = fs.names();
            assert!(
                !names.iter().any(|name| name.ends_with(".tmp")),
                "{names:?}"
            );
            let labels = fs.content(&paths().seek_point(Kind::Labels)).unwrap();
            let expected: &[u8] = if failing > 8 { b"old" } else { b"new" };
            assert_eq!(labels, expected, "operation {failing}");
        }
    }

    #[test]
    fn a_failure_leaves_a_whole_marker_and_the_next_save_succeeds() {
        let operations = [
            ("look for", "artists.dead_letters.jsonl"),
            ("open", "artists.dead_letters.jsonl"),
            ("write", "artists.dead_letters.jsonl"),
            ("sync", "artists.dead_letters.jsonl"),
            ("sync the directory of", "artists.dead_letters.jsonl"),
            ("create", ".json.3.tmp"),
            ("write", ".json.3.tmp"),
            ("sync", ".json.3.tmp"),
            ("look for", ".json"),
            ("remove", ".json.previous"),
            ("link", ".json.previous"),
            ("rename", ".json.3.tmp"),
            ("sync", "state"),
        ];
        for (failing, (operation, path)) in (1..).zip(operations) {
            let fs = Memory::default();
            save(&fs, 1, 1).unwrap();
            save(&fs, 2, 2).unwrap();
            fs.fail(failing);
            let result = Save::new(&paths(), 3, &sample(3), letters(0, "a\n")).finish(&fs);
            let error = result.unwrap_err();
            assert_eq!(error.operation, operation);
            assert!(error.path.to_str().unwrap().ends_with(path), "{error}");
            assert_eq!(error.reason, "injected");
            assert_eq!(error.kept_dead_letters(), failing > 5, "{error}");

            // Only when the name was switched already is the new one there, and it is whole.
            let present = if operation == "sync" && path == "state" {
                3
            } else {
                2
            };
            assert_eq!(records(&fs, &paths().marker()), Some(present), "{error}");
            // Only between the removal and the link is there no older one.
            let previous = match operation {
                "link" => None,
                _ if failing <= 10 => Some(1),
                _ => Some(2),
            };
            assert_eq!(records(&fs, &paths().previous()), previous, "{error}");
            assert!(
                !fs.names().iter().any(|name| name.ends_with(".tmp")),
                "{error}"
            );

            save(&fs, 4, 4).unwrap();
            assert_eq!(loaded(&fs), Some(4));
            assert_eq!(records(&fs, &paths().previous()), Some(present));
        }
    }

    #[test]
    fn a_write_that_a_signal_interrupts_is_made_again() {
        let fs = Memory::default();
        fs.fail_with(2, ErrorKind::Interrupted);
        save(&fs, 1, 1).unwrap();
        assert_eq!(loaded(&fs), Some(1));
    }

    #[test]
    fn a_disk_that_takes_no_bytes_fails_the_save() {
        let fs = Memory::default();
        fs.limit_writes(0);
        let mut save = Save::new(&paths(), 1, &sample(1), Vec::new());
        let mut steps = (0..10).map(|_| save.step(&fs));
        let over = steps.find(|stepped| *stepped != Stepped::More);
        let Some(Stepped::Done(Err(error))) = over else {
            panic!("{over:?}");
        };
        assert_eq!(error.operation, "write");
    }

    #[test]
    fn a_file_system_without_links_has_no_previous_generation() {
        for error in [ErrorKind::Unsupported, ErrorKind::PermissionDenied] {
            let fs = Memory::default();
            fs.refuse_links(error);
            (1..=3).for_each(|number| save(&fs, number, number).unwrap());
            assert_eq!(loaded(&fs), Some(3));
            assert_eq!(fs.names(), [".extraction_status_20260801.json"]);
        }
    }

    #[test]
    fn what_a_failed_clean_up_leaves_is_removed_on_the_next_start() {
        let fs = Memory::default();
        fs.fail(2);
        fs.fail(3);
        let error = save(&fs, 1, 1).unwrap_err();
        assert_eq!(
            error.operation, "write",
            "the first failure is the one that is told"
        );
        assert_eq!(fs.names().len(), 1);
        load(&fs);
        assert_eq!(fs.names().len(), 0);
    }

    #[test]
    fn dead_letters_are_cut_to_what_is_saved_before_they_grow() {
        for (present, saved_bytes, lines, expected) in [
            ("", 0, "a\n", "a\n"),
            ("a\n", 2, "b\n", "a\nb\n"),
            ("a\nb\nhal", 2, "b\nc\n", "a\nb\nc\n"),
            ("of another run\n", 0, "a\n", "a\n"),
            ("a\nof a save that never was\n", 2, "", "a\n"),
            ("a\n", 2, "", "a\n"),
            ("edited\n", 100, "b\n", "edited\nb\n"),
        ] {
            let fs = Memory::default();
            let path = paths().dead_letters(Kind::Artists);
            fs.put(&path, present.as_bytes());
            let save = Save::new(&paths(), 1, &sample(1), letters(saved_bytes, lines));
            save.finish(&fs).unwrap();
            assert_eq!(fs.content(&path).unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn a_marker_with_any_flipped_bit_is_not_believed() {
        let fs = Memory::default();
        save(&fs, 1, 1).unwrap();
        let bytes = fs.content(&paths().marker()).unwrap();
        for index in 0..bytes.len() {
            let mut rotten = bytes.clone();
            rotten[index] ^= 1;
            fs.put(&paths().marker(), &rotten);
            let read = read_marker(&fs, &paths().marker()).unwrap();
            // A flip in the name of the checksum's field makes it a foreign marker without one.
            let is_foreign = read.as_ref().is_ok_and(|marker| {
                let marker = marker.as_ref().unwrap();
                marker
                    .unknown
                    .keys()
                    .any(|key| key.len() == "checksum".len())
            });
            assert!(read.is_err() || is_foreign, "byte {index}");
        }
    }

    #[test]
    fn the_marker_is_text_for_people() {
        let fs = Memory::default();
        save(&fs, 1, 1).unwrap();
        let text = String::from_utf8(fs.content(&paths().marker()).unwrap()).unwrap();
        assert!(
            text.starts_with("{\n  \"metadata_version\": \"1.0\",\n"),
            "{text}"
        );
        assert!(text.ends_with("}\n"));
        let read = read_marker(&fs, &paths().marker()).unwrap();
        assert_eq!(read, Ok(Some(sample(1))));
    }
}

/// The stream compares names, so they must not change between versions of this program.
#[test]
fn the_name_of_a_publisher_tells_apart_kinds_versions_bytes_and_generations() {
    let publisher = |bytes: &str, generation| Publisher {
        fingerprint: Fingerprint(bytes.to_owned()),
        generation,
        rules: String::new(),
        after: 0,
        is_claimed: false,
    };
    let first = publisher("bytes", 1);
    let other: Version = "20260901".parse().unwrap();
    let names = [
        first.name(&version(), Kind::Artists),
        first.name(&version(), Kind::Labels),
        first.name(&other, Kind::Artists),
        publisher("other bytes", 1).name(&version(), Kind::Artists),
        publisher("bytes", 1_785_542_400).name(&version(), Kind::Artists),
    ];
    assert_eq!(
        names[0],
        "discogs-extractor-20260801-artists-1-277089d91c0bdf4f"
    );
    let different: BTreeSet<&String> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
    assert!(names.iter().all(|name| name.len() <= 255));
}
