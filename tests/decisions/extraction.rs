//! Whole runs of [`discogs_extractor::extraction`] under the real driver.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use discogs_extractor::broker::Subject;
use discogs_extractor::dead_letter::DeadLetter;
use discogs_extractor::dump::Kind;
use discogs_extractor::extraction::{Ending, Failure, Notice, Progress};
use discogs_extractor::marker::{Frontier, Marker, Status};
use discogs_extractor::record::Ordinal;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Ended, Record, STARTED, Welcome, World, XML_BYTES, body, marker_on_disk, milliseconds,
    name, paths,
};

const ARTISTS: &[u64] = &[10];

/// `artists-1`, `artists-2` and so on.
fn ids(kind: Kind, records: impl IntoIterator<Item = u64>) -> Vec<String> {
    let id = |record| format!("{kind}-{record}");
    records.into_iter().map(id).collect()
}

fn whole(kind: Kind, records: u64) -> Vec<String> {
    let mut ids = ids(kind, 1..=records);
    ids.push(format!("{kind}-file_complete"));
    ids
}

fn announcements() -> Vec<String> {
    Kind::ALL
        .map(|kind| format!("{kind}-extraction_complete"))
        .to_vec()
}

fn bodies(ended: &Ended, subject: Subject) -> Vec<Value> {
    let stored = ended.record.stored.iter();
    stored
        .filter(|message| message.subject == subject)
        .map(|message| serde_json::from_slice(&message.body).unwrap())
        .collect()
}

fn letters(world: &World, kind: Kind) -> Vec<DeadLetter> {
    let lines = world
        .fs
        .content(&paths().dead_letters(kind))
        .unwrap_or_default();
    lines
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// The ordinals of the first delivery of every record of a kind.
fn first_deliveries(ended: &Ended, kind: Kind) -> Vec<u64> {
    let mut first = Vec::new();
    for message in &ended.record.stored {
        if let Subject::Record(Ordinal(record)) = message.subject
            && message.route == kind
            && !first.contains(&record)
        {
            first.push(record);
        }
    }
    first
}

mod completing {
    use super::*;

    #[test]
    fn four_dumps_are_published_in_order_and_announced() {
        let ended = World::new(&[7, 0, 1, 12]).run();
        assert_eq!(ended.ending, Ending::Complete);
        let mut expected = Vec::new();
        for (kind, records) in Kind::ALL.into_iter().zip([7, 0, 1, 12]) {
            expected.extend(whole(kind, records));
        }
        expected.extend(announcements());
        assert_eq!(ended.record.published(), expected);
        for kind in Kind::ALL {
            let route = ended.record.stored.iter().filter(|m| m.route == kind);
            let sequences: Vec<_> = route.map(|message| message.sequence).collect();
            let numbers: Vec<_> = (1..=sequences.len() as u64).collect();
            assert_eq!(sequences, numbers, "{kind}");
        }
        assert_eq!(ended.record.stored[0].body, body(1));
        assert!(ended.marker().is_complete());
    }

    #[test]
    fn control_messages_say_what_consumers_expect() {
        let mut world = World::new(&[7, 0, 1, 12]).malformed(Kind::Artists, &[2]);
        let ended = world.run();
        let marker = ended.marker();
        let artists = marker.file(&name(Kind::Artists)).unwrap();
        let completed_at = artists.completed_at.as_ref();
        assert_eq!(
            bodies(&ended, Subject::FileComplete)[0],
            json!({
                "type": "file_complete",
                "data_type": "artists",
                "timestamp": completed_at.expect("the dump is complete"),
                "total_processed": 6,
                "file": "discogs_20260801_artists.xml.gz",
            })
        );
        let announced = bodies(&ended, Subject::ExtractionComplete);
        let completed_at = marker.processing_phase.completed_at.as_ref();
        let expected = json!({
            "type": "extraction_complete",
            "version": "20260801",
            "timestamp": completed_at.expect("the version is complete"),
            "started_at": STARTED,
            "record_counts": {"artists": 6, "labels": 0, "masters": 1, "releases": 12},
        });
        assert_eq!(announced, vec![expected; 4]);
    }

    #[test]
    fn the_marker_tells_the_truth_in_every_field() {
        let ended = World::new(&[7, 0, 1, 12])
            .malformed(Kind::Artists, &[2])
            .answers(&[(1, Answer::Late(5_000))])
            .run();
        let marker = ended.marker();
        let file = marker.file(&name(Kind::Artists)).unwrap();
        assert_eq!(file.status, Status::Completed);
        assert_eq!((file.records_extracted, file.messages_published), (7, 6));
        assert_eq!(file.started_at.as_deref(), Some(STARTED));
        assert_eq!(file.source_checksum.as_deref(), Some("c0de"));
        let frontier = ended.frontier(Kind::Artists);
        let expected = Frontier {
            record: 7,
            xml_offset: 700,
            compressed_offset: 70,
            messages: 6,
            dead_letters: 1,
            dead_letter_bytes: frontier.dead_letter_bytes,
            repaired: 1,
        };
        assert_eq!(frontier, expected);
        let processing = &marker.processing_phase;
        assert_eq!(processing.status, Status::Completed);
        assert_eq!(processing.started_at.as_deref(), Some(STARTED));
        assert_eq!((processing.files_processed, processing.files_total), (4, 4));
        assert_eq!(
            (
                processing.records_extracted,
                processing.current_file.as_ref()
            ),
            (20, None)
        );
        assert_eq!(marker.publishing_phase.messages_published, 19);
        assert!(marker.publishing_phase.last_amqp_heartbeat.is_some());
        let (took, told) = (ended.took, marker.summary.total_duration_seconds);
        let last_save = 0.1;
        let expected = took.as_secs_f64() - last_save..took.as_secs_f64();
        assert!(expected.contains(&told.unwrap()), "{told:?} of {took:?}");
        assert!(
            marker
                .summary
                .files_by_type
                .values()
                .all(|s| *s == Status::Completed)
        );
    }

    #[test]
    fn a_complete_version_is_left_alone() {
        let mut world = World::new(&[1, 1, 1, 1]);
        world.run();
        let operations = world.fs.content(&paths().marker());
        let again = world.run();
        assert_eq!(again.ending, Ending::Complete);
        assert_eq!((again.record.connects, again.record.saves.len()), (0, 0));
        assert_eq!(world.fs.content(&paths().marker()), operations);
    }

    #[test]
    fn a_selection_is_completed_without_announcement() {
        let mut world = World::new(ARTISTS);
        let ended = world.run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        assert_eq!(ended.record.published(), whole(Kind::Artists, 10));
        assert_eq!(ended.marker().summary.overall_status, Status::InProgress);
        let again = world.run();
        assert_eq!(again.ending, Ending::SelectionComplete);
        assert_eq!(again.record.published(), Vec::<String>::new());
    }

    #[test]
    fn the_last_selection_announces_the_version_with_true_totals() {
        let mut world = World::new(ARTISTS);
        world.run();
        world.dumps = World::new(&[10, 1, 2, 3]).dumps;
        let ended = world.run();
        assert_eq!(ended.ending, Ending::Complete);
        let announced = &bodies(&ended, Subject::ExtractionComplete)[0];
        assert_eq!(
            announced["record_counts"],
            json!({"artists": 10, "labels": 1, "masters": 2, "releases": 3})
        );
        assert_eq!(announced["started_at"], STARTED);
    }

    #[test]
    fn what_was_not_announced_is_announced_by_the_next_run() {
        let mut world = World::new(&[1, 1, 1, 1]).answers(&[(10, Answer::Permanent)]);
        assert!(matches!(
            world.run().ending,
            Ending::Failed(Failure::Broker(_))
        ));
        world.answers.clear();
        let ended = world.run();
        assert_eq!(ended.ending, Ending::Complete);
        assert_eq!(ended.record.published(), announcements());
        assert_eq!(
            bodies(&ended, Subject::ExtractionComplete)[0]["started_at"],
            STARTED
        );
    }

    #[test]
    fn consumers_that_know_no_announcement_get_none() {
        let mut world = World::new(&[1, 1, 1, 1]);
        world.options.announces_completion = false;
        let ended = world.run();
        assert_eq!(ended.ending, Ending::Complete);
        assert!(bodies(&ended, Subject::ExtractionComplete).is_empty());
        assert!(ended.marker().is_complete());
    }

    #[test]
    fn a_version_of_an_older_extractor_is_announced_with_its_own_counts_and_start() {
        let mut world = World::new(&[9, 9, 9, 3]);
        let mut marker = Marker::default();
        marker.processing_phase.started_at = Some("2026-08-01T07:00:00Z".to_owned());
        for kind in [Kind::Artists, Kind::Labels, Kind::Masters] {
            let file = marker.file_mut(&name(kind));
            file.status = Status::Completed;
            file.records_extracted = 9;
            file.messages_published = 1;
        }
        world
            .fs
            .put(&paths().marker(), &serde_json::to_vec(&marker).unwrap());
        let ended = world.run();
        assert_eq!(ended.ending, Ending::Complete);
        let announced = &bodies(&ended, Subject::ExtractionComplete)[0];
        assert_eq!(
            announced["record_counts"],
            json!({"artists": 9, "labels": 9, "masters": 9, "releases": 3})
        );
        assert_eq!(announced["started_at"], "2026-08-01T07:00:00Z");
    }

    #[test]
    fn without_a_known_start_consumers_delete_only_what_is_older_than_the_version() {
        // Labels were begun long after artists, whose start nobody noted.
        let mut world = World::new(&[1, 1, 1, 1]);
        let mut marker = Marker::default();
        marker.file_mut(&name(Kind::Artists)).status = Status::Completed;
        let labels = marker.file_mut(&name(Kind::Labels));
        labels.status = Status::Completed;
        labels.started_at = Some("2026-08-01T23:00:00Z".to_owned());
        world
            .fs
            .put(&paths().marker(), &serde_json::to_vec(&marker).unwrap());
        let announced = &bodies(&world.run(), Subject::ExtractionComplete)[0];
        assert_eq!(announced["started_at"], "2026-08-01T00:00:00.000Z");
    }

    #[test]
    fn announcements_keep_to_the_window() {
        let mut world = World::new(&[1, 1, 1, 1]);
        world.options.window_messages = 1;
        assert_eq!(world.run().ending, Ending::Complete);
    }
}

mod watching {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// What somebody who watches a run is shown in its last moment with a dump.
    #[test]
    fn progress_counts_what_happened() {
        let last = Rc::new(RefCell::new(Progress::default()));
        let seen = last.clone();
        let mut world = World::new(ARTISTS)
            .malformed(Kind::Artists, &[9])
            .answers(&[
                (2, Answer::Nack),
                (7, Answer::Disconnect),
                (9, Answer::Refuse),
            ])
            .stop_when(move |extraction, _| {
                let progress = extraction.progress();
                if progress.dump.is_some() {
                    *seen.borrow_mut() = progress;
                }
                false
            });
        world.failing_saves.insert(2, 1);
        let ended = world.run();
        let progress = last.take();
        // Nine records, one of them refused, and the end of the dump, which waits for its confirm.
        let once = 9 + 1;
        let expected = Progress {
            dump: Some((Kind::Artists, 1_000)),
            compressed: 100,
            read: 10,
            frontier: ended.frontier(Kind::Artists),
            read_in_run: 10,
            bytes_in_run: 100,
            confirmed: 8,
            unsaved: progress.unsaved,
            in_flight: 1,
            is_connected: true,
            is_blocked: false,
            reconnects: 1,
            retried: ended.record.attempts.len() as u64 - once,
            saves: progress.saves,
            saves_failed: 1,
        };
        assert_eq!(progress, expected);
        assert!(progress.retried >= 2, "{progress:?}");
    }
}

mod resuming {
    use super::*;

    /// Stops a run after so many attempts, and runs again.
    fn stop_and_resume(world: World, attempts: usize) -> (Ended, Ended) {
        let mut world = world.stop_when(move |_, record| record.attempts.len() >= attempts);
        let first = world.run();
        assert_eq!(first.ending, Ending::Stopped);
        (first, world.run())
    }

    #[test]
    fn a_run_goes_on_behind_the_checkpoint() {
        for attempts in 1..=10 {
            let (first, second) = stop_and_resume(World::new(ARTISTS), attempts);
            let frontier = first.frontier(Kind::Artists).record;
            assert_eq!(frontier, attempts as u64);
            let mut expected = ids(Kind::Artists, frontier + 1..=10);
            expected.push("artists-file_complete".to_owned());
            assert_eq!(second.record.published(), expected);
            let sequences = second.record.stored.iter().map(|m| m.sequence);
            assert!(sequences.eq(frontier + 1..=11));
        }
    }

    #[test]
    fn a_run_goes_on_by_way_of_the_last_seek_point_before_the_checkpoint() {
        for attempts in 1..=10 {
            let mut world = World::new(&[10, 2]);
            for script in world.dumps.values_mut() {
                script.seek_spacing = 3;
            }
            let (first, second) = stop_and_resume(world, attempts);
            let position = second.record.opened[0].1;
            // The point before record 3 goes with the checkpoint behind it.
            let expected = position.ordinal.0.checked_sub(3);
            let expected = expected.map(|behind| (behind / 3 * 3 + 2) * XML_BYTES);
            assert_eq!(second.record.seek_points, [expected, None], "{position:?}");
            assert_eq!(first.record.seek_points, [None]);
        }
    }

    #[test]
    fn the_seek_point_of_a_completed_dump_is_removed() {
        let mut world = World::new(&[10, 2, 0, 1]);
        world.dump(Kind::Artists).seek_spacing = 1;
        world.dump(Kind::Labels).seek_spacing = 1;
        assert_eq!(world.run().ending, Ending::Complete);
        let names = world.fs.names();
        assert!(!names.iter().any(|name| name.contains("seek")), "{names:?}");
    }

    #[test]
    fn totals_and_start_are_those_of_all_runs_together() {
        for attempts in 1..=8 {
            let world = World::new(ARTISTS).malformed(Kind::Artists, &[2, 9]);
            let (first, second) = stop_and_resume(world, attempts);
            let sequences = second.record.stored.iter().map(|m| m.sequence);
            assert!(sequences.eq(first.frontier(Kind::Artists).messages + 1..=9));
            assert_eq!(
                bodies(&second, Subject::FileComplete)[0]["total_processed"],
                8
            );
            assert_eq!(second.frontier(Kind::Artists).dead_letters, 2);
            assert_eq!(second.frontier(Kind::Artists).repaired, 1);
            let started = &second.marker().processing_phase.started_at;
            assert_eq!(started.as_deref(), Some(STARTED));
            let file = second.marker().file(&name(Kind::Artists)).unwrap();
            assert_eq!(file.started_at.as_deref(), Some(STARTED));
        }
    }

    #[test]
    fn dead_letters_are_kept_once() {
        for attempts in 1..=8 {
            let mut world = World::new(ARTISTS)
                .malformed(Kind::Artists, &[2, 9])
                .stop_when(move |_, record| record.attempts.len() >= attempts);
            world.run();
            world.run();
            let records: Vec<_> = letters(&world, Kind::Artists)
                .iter()
                .map(|l| l.record)
                .collect();
            assert_eq!(records, [2, 9]);
        }
    }
}

mod refusing {
    use super::*;

    /// Runs ten artists; the answers are to attempts by number. Checks what was attempted.
    fn check(answers: &[(u64, Answer)], attempts: &[u64]) -> Ended {
        let ended = World::new(ARTISTS).answers(answers).run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        let published = ended.record.published();
        let (end, records) = published.split_last().unwrap();
        assert_eq!(end, "artists-file_complete");
        assert_eq!(records, ids(Kind::Artists, attempts.iter().copied()));
        ended
    }

    #[test]
    fn what_was_not_taken_is_tried_again_lowest_first() {
        for answer in [Answer::Nack, Answer::Return] {
            // The window of four is out when the first is refused.
            check(&[(1, answer)], &[1, 2, 3, 4, 1, 5, 6, 7, 8, 9, 10]);
            check(&[(4, answer)], &[1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10]);
            check(
                &[(1, answer), (2, answer), (3, answer), (4, answer)],
                &[1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            );
        }
    }

    #[test]
    fn a_missing_queue_costs_one_message_a_pause() {
        let answers: Vec<_> = (1..=7).map(|number| (number, Answer::Return)).collect();
        let ended = check(
            &answers,
            &[1, 2, 3, 4, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        );
        let times: Vec<_> = ended.record.attempts.iter().map(|(at, _)| *at).collect();
        let pauses: Vec<_> = (4..8).map(|i| times[i].since(times[i - 1])).collect();
        assert_eq!(pauses, [260, 510, 1010, 2010].map(milliseconds));
        let told = ended.record.notices.iter();
        let told = told.filter(|notice| matches!(notice, Notice::NotTaken { .. }));
        assert_eq!(told.count(), 4, "one notice a pause");
    }

    #[test]
    fn an_end_message_that_is_not_taken_is_tried_again() {
        let ended = World::new(&[1])
            .answers(&[(2, Answer::Nack), (3, Answer::Return)])
            .run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        let end = "artists-file_complete".to_owned();
        assert_eq!(ended.record.published()[1..], vec![end; 3]);
    }

    #[test]
    fn a_refused_message_is_a_dead_letter() {
        let mut world = World::new(ARTISTS).answers(&[(3, Answer::Refuse)]);
        let ended = world.run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        let expected = DeadLetter {
            kind: Kind::Artists,
            record: 3,
            xml_start: 201,
            xml_end: 300,
            reason: "the broker refused the message: too large".to_owned(),
            raw: String::from_utf8(body(3)).unwrap(),
        };
        assert_eq!(letters(&world, Kind::Artists), [expected]);
        let frontier = ended.frontier(Kind::Artists);
        assert_eq!((frontier.messages, frontier.dead_letters), (10, 1));
        assert_eq!(
            bodies(&ended, Subject::FileComplete)[0]["total_processed"],
            9
        );
    }

    #[test]
    fn a_refused_end_message_leaves_the_dump_incomplete() {
        let mut world = World::new(&[1]).answers(&[(2, Answer::Refuse)]);
        let ended = world.run();
        assert!(matches!(ended.ending, Ending::Failed(Failure::Broker(_))));
        assert_eq!(ended.status(Kind::Artists), Status::Failed);
        world.answers.clear();
        let again = world.run();
        assert_eq!(again.record.published(), ["artists-file_complete"]);
        assert_eq!(again.status(Kind::Artists), Status::Completed);
    }

    /// The confirm of record 1 settles three dead letters at once, where one is allowed.
    #[test]
    fn one_failure_is_told_and_not_its_consequences() {
        let mut world = World::new(ARTISTS)
            .malformed(Kind::Artists, &[2, 3, 4])
            .answers(&[(1, Answer::Late(100))]);
        world.options.dead_letters_max = 1;
        let ended = world.run();
        let Ending::Failed(failure) = &ended.ending else {
            panic!("{:?}", ended.ending);
        };
        let errors = &ended.marker().processing_phase.errors;
        assert_eq!(errors, &[failure.to_string()]);
        assert_eq!(letters(&world, Kind::Artists).len(), 3, "all are kept");
    }

    #[test]
    fn too_many_dead_letters_end_the_run_and_keep_all_of_them() {
        let mut world = World::new(ARTISTS)
            .malformed(Kind::Artists, &[2, 4])
            .answers(&[(4, Answer::Refuse)]);
        let ended = world.run();
        let Ending::Failed(failure @ Failure::DeadLetters { max: 2, .. }) = &ended.ending else {
            panic!("{:?}", ended.ending);
        };
        assert!(
            failure
                .to_string()
                .contains("discogs_20260801_artists.dead_letters.jsonl")
        );
        let records: Vec<_> = letters(&world, Kind::Artists)
            .iter()
            .map(|l| l.record)
            .collect();
        assert_eq!(records, [2, 4, 6]);
        assert_eq!(ended.status(Kind::Artists), Status::Failed);
        world.options.dead_letters_max = 3;
        world.answers.clear();
        assert_eq!(world.run().ending, Ending::SelectionComplete);
    }
}

mod disconnecting {
    use super::*;

    #[test]
    fn what_was_not_confirmed_is_published_again_in_order() {
        for answer in [Answer::Disconnect, Answer::StoreThenDisconnect] {
            for number in 1..=11 {
                let ended = World::new(ARTISTS).answers(&[(number, answer)]).run();
                assert_eq!(ended.ending, Ending::SelectionComplete);
                assert_eq!(ended.record.connects, 2);
                assert_eq!(
                    first_deliveries(&ended, Kind::Artists),
                    (1..=10).collect::<Vec<_>>()
                );
                // The confirms of a dead connection come too late.
                let attempts = ended.record.attempts.len();
                assert!(attempts <= 11 + 4, "{attempts}");
            }
        }
    }

    #[test]
    fn what_was_confirmed_is_not_published_again() {
        let ended = World::new(ARTISTS)
            .answers(&[
                (8, Answer::Late(5_000)),
                (9, Answer::Late(10)),
                (10, Answer::Late(10)),
                (11, Answer::Disconnect),
            ])
            .run();
        let mut expected = ids(Kind::Artists, 1..=10);
        expected.push("artists-file_complete".to_owned());
        expected.push("artists-file_complete".to_owned());
        assert_eq!(ended.record.published(), expected);
    }

    #[test]
    fn connecting_is_tried_again_ever_more_slowly() {
        for (welcome, timeout) in [(Welcome::Refuse, 0), (Welcome::Silence, 15_000)] {
            let mut world = World::new(ARTISTS);
            world.welcomes = vec![welcome; 4].into();
            let ended = world.run();
            assert_eq!(ended.ending, Ending::SelectionComplete);
            let waits = milliseconds(4 * timeout + 250 + 500 + 1_000 + 2_000);
            let publishing = milliseconds(200);
            assert!((waits..waits + publishing).contains(&ended.took));
            let pauses = ended
                .record
                .notices
                .iter()
                .filter_map(|notice| match notice {
                    Notice::Disconnected { retry, .. } => Some(*retry),
                    _ => None,
                });
            assert_eq!(
                pauses.collect::<Vec<_>>(),
                [250, 500, 1000, 2000].map(milliseconds)
            );
        }
    }

    #[test]
    fn a_broker_that_does_not_even_close_is_given_up() {
        let mut world = World::new(ARTISTS);
        world.welcomes = vec![Welcome::Silence; 2].into();
        world.closes = false;
        let ended = world.run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        assert_eq!(ended.record.connects, 3);
    }

    /// The first connection was given up, and its broker tells of it all the same: that it is
    /// made while the second one is being made, and that it is lost while the second one is used.
    #[test]
    fn a_connection_that_was_given_up_means_nothing_to_the_next() {
        let mut world = World::new(ARTISTS);
        let closing = 3_000;
        let given_up = 15_000 + closing + 250;
        world.welcomes = vec![Welcome::LateThenLost(given_up + 5)].into();
        world.closes = false;
        world.otherwise = Answer::Late(1_000);
        let ended = world.run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        assert_eq!(ended.record.connects, 2);
        assert_eq!(ended.record.published(), whole(Kind::Artists, 10));
    }

    #[test]
    fn a_confirm_that_does_not_come_ends_the_connection() {
        let ended = World::new(ARTISTS).answers(&[(2, Answer::Silence)]).run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        let told = &ended.record.notices;
        assert!(told.contains(&Notice::Unanswered {
            why: "no confirm within 20s".to_owned()
        }));
        assert_eq!(ended.record.connects, 2);
        assert_eq!(ended.record.published()[5], "artists-2");
    }

    #[test]
    fn an_alarm_suspends_the_time_limit_of_confirms() {
        let ended = World::new(ARTISTS)
            .answers(&[(2, Answer::Block(600_000))])
            .run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        assert_eq!(ended.record.connects, 1);
        assert!(ended.took > Duration::from_secs(600));
        assert!(ended.record.notices.contains(&Notice::Unblocked));
    }

    #[test]
    fn an_alarm_ends_with_its_connection() {
        let answers = [
            (2, Answer::Block(600_000)),
            (4, Answer::StoreThenDisconnect),
        ];
        let ended = World::new(ARTISTS).answers(&answers).run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
    }

    #[test]
    fn a_broker_that_will_not_have_us_fails_the_run_after_a_last_save() {
        let mut world = World::new(ARTISTS);
        world.welcomes = vec![Welcome::Permanent].into();
        let ended = world.run();
        assert_eq!(
            ended.ending,
            Ending::Failed(Failure::Broker("scripted".to_owned()))
        );
        assert_eq!(ended.record.connects, 1);
        for number in 1..=11 {
            let ended = World::new(ARTISTS)
                .answers(&[(number, Answer::Permanent)])
                .run();
            assert_eq!(
                ended.ending,
                Ending::Failed(Failure::Broker("scripted".to_owned()))
            );
            assert_eq!(ended.status(Kind::Artists), Status::Failed);
            assert_eq!(ended.marker().summary.overall_status, Status::Failed);
            assert_eq!(ended.marker().processing_phase.errors, ["scripted"]);
        }
    }
}

mod failing {
    use super::*;

    #[test]
    fn a_broker_that_leaves_when_everything_is_confirmed_fails_nothing() {
        let answers = [(8, Answer::ConfirmThenPermanent)];
        let ended = World::new(&[1, 1, 1, 1])
            .answers(&[(12, answers[0].1)])
            .run();
        assert_eq!(ended.ending, Ending::Complete);
        assert!(ended.marker().is_complete());
        let ended = World::new(&[7]).answers(&answers).run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        assert_eq!(ended.status(Kind::Artists), Status::Completed);
    }

    #[test]
    fn a_damaged_dump_is_published_and_saved_up_to_the_damage() {
        for damaged_after in 0..=10 {
            let mut world = World::new(&[10, 3]);
            world.dump(Kind::Artists).damaged_after = Some(damaged_after);
            let ended = world.run();
            assert!(
                matches!(&ended.ending, Ending::Failed(Failure::Source(why)) if why.contains("damaged"))
            );
            assert_eq!(ended.record.stored(), ids(Kind::Artists, 1..=damaged_after));
            assert_eq!(ended.frontier(Kind::Artists).record, damaged_after);
            assert_eq!(ended.status(Kind::Artists), Status::Failed);
            world.dump(Kind::Artists).damaged_after = None;
            let again = world.run();
            assert_eq!(again.ending, Ending::SelectionComplete);
            let mut expected = ids(Kind::Artists, damaged_after + 1..=10);
            expected.push("artists-file_complete".to_owned());
            expected.extend(whole(Kind::Labels, 3));
            assert_eq!(again.record.stored(), expected);
        }
    }

    #[test]
    fn a_dump_that_cannot_be_opened_fails_the_run() {
        let mut world = World::new(ARTISTS);
        world.dump(Kind::Artists).is_missing = true;
        assert!(matches!(
            world.run().ending,
            Ending::Failed(Failure::Source(_))
        ));
    }

    #[test]
    fn the_failure_is_told_even_if_it_cannot_be_saved() {
        let mut world = World::new(ARTISTS);
        world.dump(Kind::Artists).damaged_after = Some(3);
        world.fs.set_broken(true);
        assert!(matches!(
            world.run().ending,
            Ending::Failed(Failure::Source(_))
        ));
    }

    #[test]
    fn a_failed_run_waits_for_its_confirms_even_if_nothing_can_be_saved() {
        // The second message gets lost. That is noticed long after saving was given up.
        let mut world = World::new(ARTISTS).answers(&[(2, Answer::Silence)]);
        world.dump(Kind::Artists).damaged_after = Some(3);
        world.fs.set_broken(true);
        let ended = world.run();
        assert!(matches!(ended.ending, Ending::Failed(Failure::Source(_))));
        let stored: BTreeSet<String> = ended.record.stored().into_iter().collect();
        assert_eq!(stored, ids(Kind::Artists, 1..=3).into_iter().collect());
    }

    #[test]
    fn a_broker_that_will_not_have_us_ends_a_failed_run_too() {
        // The damage is found while the broker still owes confirms; then it leaves for good.
        let mut world = World::new(ARTISTS).answers(&[(3, Answer::Permanent)]);
        world.dump(Kind::Artists).damaged_after = Some(3);
        world.otherwise = Answer::Late(1_000);
        let ended = world.run();
        assert!(matches!(ended.ending, Ending::Failed(Failure::Source(_))));
        assert_eq!(ended.record.connects, 1, "no other attempt makes sense");
    }
}

mod stopping {
    use super::*;

    /// Everything that the run has asked of the broker is answered, or the deadline has passed.
    fn check(world: World, at_step: u32) -> Ended {
        let mut steps = 0;
        let mut world = world.stop_when(move |_, _| {
            steps += 1;
            steps >= at_step
        });
        let close = Duration::from_secs(3);
        let bound = world.options.stop_timeout + close + milliseconds(100);
        let ended = world.run();
        assert!(ended.stopping_took <= bound, "{:?}", ended.stopping_took);
        let is_complete = ended.marker().is_complete();
        assert_eq!(ended.ending == Ending::Complete, is_complete);
        world.answers.clear();
        world.welcomes.clear();
        world.otherwise = Answer::Confirm;
        let again = world.run();
        assert_eq!(again.ending, Ending::Complete);
        let mut first = first_deliveries(&ended, Kind::Artists);
        first.extend(first_deliveries(&again, Kind::Artists));
        first.dedup();
        assert!(first.iter().all(|record| (1..=10).contains(record)));
        let saved = ended.marker().file(&name(Kind::Artists));
        let saved = saved.and_then(|file| file.checkpoint.as_ref());
        let saved = saved.map_or(0, |checkpoint| checkpoint.frontier.record);
        assert!(
            first_deliveries(&again, Kind::Artists)
                .iter()
                .all(|record| *record > saved)
        );
        ended
    }

    #[test]
    fn a_stop_at_any_step_saves_and_the_next_run_completes() {
        let mut endings = Vec::new();
        for step in 1..=240 {
            let ended = check(World::new(&[10, 2, 0, 1]), step);
            if ended.ending == Ending::Stopped && ended.status(Kind::Artists) == Status::InProgress
            {
                let stored = first_deliveries(&ended, Kind::Artists).len() as u64;
                assert_eq!(ended.frontier(Kind::Artists).record, stored, "step {step}");
            }
            endings.push(ended.ending);
        }
        assert!(endings.contains(&Ending::Stopped));
        assert!(endings.contains(&Ending::Complete));
    }

    #[test]
    fn a_stop_does_not_wait_for_a_silent_broker() {
        for step in 1..=40 {
            for otherwise in [
                Answer::Silence,
                Answer::Late(60_000),
                Answer::Return,
                Answer::Block(3_000_000),
            ] {
                let mut world = World::new(&[10, 2, 0, 1]);
                world.otherwise = otherwise;
                assert_eq!(check(world, step).ending, Ending::Stopped);
            }
            for welcome in [Welcome::Silence, Welcome::Refuse] {
                let mut world = World::new(&[10, 2, 0, 1]);
                world.welcomes = vec![welcome; 10].into();
                assert_eq!(check(world, step).ending, Ending::Stopped);
            }
        }
    }

    #[test]
    fn a_stop_request_that_comes_while_the_program_is_busy_is_not_lost() {
        for poll in 1..=60 {
            let mut world = World::new(ARTISTS);
            world.otherwise = Answer::Late(15_000);
            world.options.stop_timeout = Duration::from_secs(1);
            world.stop_in_poll = Some(poll);
            let ended = world.run();
            assert_eq!(ended.ending, Ending::Stopped);
            assert!(ended.stopping_took < Duration::from_secs(5), "poll {poll}");
        }
    }

    /// The state is saved, and the connection is being closed: the next run tells of the refusal.
    #[test]
    fn what_fails_after_the_last_save_does_not_undo_the_stop() {
        let refused = (2, Answer::RefuseLate(11_000));
        let mut world = World::new(&[1])
            .answers(&[refused])
            .stop_when(|_, record| record.attempts.len() >= 2);
        world.closes = false;
        let ended = world.run();
        assert_eq!(ended.ending, Ending::Stopped);
        assert_eq!(ended.status(Kind::Artists), Status::InProgress);
    }

    #[test]
    fn a_stop_is_noticed_while_a_resumed_run_skips() {
        let mut world = World::new(ARTISTS);
        world.dump(Kind::Artists).skipped_pieces = usize::MAX;
        world = world.stop_when(|_, record| record.skipped.load(Ordering::Relaxed) >= 3);
        let ended = world.run();
        assert_eq!(ended.ending, Ending::Stopped);
        assert!(ended.record.skipped.load(Ordering::Relaxed) < 10);
    }

    #[test]
    fn a_failure_while_stopping_does_not_undo_the_deadline() {
        // The third dead letter settles only when the stop waits for confirms; the alarm that
        // follows would keep the rest waiting for an hour.
        let mut world = World::new(&[10, 2, 0, 1]).malformed(Kind::Artists, &[2, 3, 4]);
        world.options.window_messages = 6;
        world.otherwise = Answer::Block(3_000_000);
        world = world.answers(&[(1, Answer::Late(1_000)), (2, Answer::Block(3_000_000))]);
        world = world.stop_when(|_, record| record.attempts.len() >= 2);
        let ended = world.run();
        assert!(matches!(
            ended.ending,
            Ending::Failed(Failure::DeadLetters { .. })
        ));
        assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    }
}

mod saving {
    use super::*;

    /// How many saves a run of so many records makes, with this interval.
    fn saves(records: u64, interval: u64) -> usize {
        let mut world = World::new(&[records]);
        world.options.save.interval = interval;
        world.save_step = Duration::ZERO;
        world.run().record.saves.len()
    }

    #[test]
    fn the_cadence_is_a_threshold() {
        // The first one notes the start, two the end before it is announced, the last one the
        // completion.
        assert_eq!(saves(4, 5), 4);
        assert_eq!(saves(50, 1_000), 4);
        assert!((4 + 6..=4 + 12).contains(&saves(50, 4)), "{}", saves(50, 4));
        assert!((4 + 4..=4 + 10).contains(&saves(50, 5)), "{}", saves(50, 5));
    }

    #[test]
    fn a_moved_frontier_is_saved_when_it_is_old_enough() {
        let mut world = World::new(ARTISTS).answers(&[(3, Answer::Block(100_000))]);
        world.options.save.interval = 1_000;
        let ended = world.run();
        let (at, is_ok) = ended.record.saves[1];
        assert!(is_ok);
        let age = at.since(ended.record.saves[0].0);
        assert!(
            (Duration::from_secs(30)..Duration::from_secs(31)).contains(&age),
            "{age:?}"
        );
    }

    #[test]
    fn a_failed_save_is_told_and_does_not_stop_the_run() {
        // A save with dead letters has twelve operations: each fails once in each of four saves.
        for save in 1..=4 {
            for operation in 1..=12 {
                let mut world = World::new(ARTISTS).malformed(Kind::Artists, &[2, 5]);
                world.failing_saves.insert(save, operation);
                let ended = world.run();
                assert_eq!(ended.ending, Ending::SelectionComplete);
                assert_eq!(ended.status(Kind::Artists), Status::Completed);
                let records: Vec<_> = letters(&world, Kind::Artists)
                    .iter()
                    .map(|letter| letter.record)
                    .collect();
                assert_eq!(records, [2, 5], "save {save}, operation {operation}");
                assert!(world.fs.names().iter().all(|name| !name.ends_with(".tmp")));
            }
        }
    }

    /// Only the end is not announced, since what it says could not be repeated.
    #[test]
    fn publishing_goes_on_while_saves_fail_and_the_end_says_so() {
        let mut world = World::new(&[50, 1]);
        world.fs.set_broken(true);
        let ended = world.run();
        let Ending::Failed(Failure::Save(error)) = &ended.ending else {
            panic!("{:?}", ended.ending);
        };
        assert_eq!(error.operation, "create");
        assert_eq!(ended.record.stored(), ids(Kind::Artists, 1..=50));
        assert_eq!(ended.marker, None);
        let failed = |notice: &&Notice| matches!(notice, Notice::SaveFailed { .. });
        assert!(ended.record.notices.iter().filter(failed).count() >= 3);
        world.fs.set_broken(false);
        let expected = [whole(Kind::Artists, 50), whole(Kind::Labels, 1)].concat();
        assert_eq!(world.run().record.stored(), expected);
    }

    #[test]
    fn a_save_that_succeeded_is_told_with_the_time_that_it_took() {
        let mut world = World::new(ARTISTS);
        world.failing_saves.insert(2, 1);
        let ended = world.run();
        let succeeded = ended.record.saves.iter().filter(|(_, is_ok)| *is_ok);
        let took = ended
            .record
            .notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Saved { took } => Some(*took),
                _ => None,
            });
        let took: Vec<_> = took.collect();
        assert_eq!(took.len(), succeeded.count());
        // Without a previous generation to keep: six operations of a millisecond.
        assert_eq!(took[0], milliseconds(6));
        assert!(
            took[1..].iter().all(|took| *took > milliseconds(6)),
            "{took:?}"
        );
    }

    #[test]
    fn a_dump_is_completed_by_a_save_that_succeeded() {
        let mut world = World::new(&[4]);
        for save in 2..=3 {
            world.failing_saves.insert(save, 1);
        }
        let ended = world.run();
        assert_eq!(ended.ending, Ending::SelectionComplete);
        let results: Vec<_> = ended.record.saves.iter().map(|(_, is_ok)| *is_ok).collect();
        assert_eq!(results, [true, false, false, true, true, true]);
        let notices = ended.record.notices.iter();
        let recovered = notices.filter(|notice| **notice == Notice::SaveRecovered);
        assert_eq!(
            recovered.count(),
            1,
            "told once, by the first that succeeds"
        );
        assert_eq!(marker_on_disk(&world.fs).as_ref(), Some(ended.marker()));
    }

    /// The bodies of the attempts to announce an end.
    fn announced(ended: &Ended) -> Vec<Vec<u8>> {
        let attempts = ended.record.attempts.iter();
        let ends = attempts.filter(|(_, message)| !matches!(message.subject, Subject::Record(_)));
        ends.map(|(_, message)| message.body.to_vec()).collect()
    }

    /// Stops a run when its first message of `subject` was sent, which nobody answers, and runs
    /// again a while later: how often that message went out, and in how many forms.
    fn repeated(records: &[u64], subject: Subject, meanwhile: fn(&World)) -> (usize, usize) {
        let is_sent =
            move |record: &Record| record.attempts.iter().any(|(_, it)| it.subject == subject);
        let mut world = World::new(records).stop_when(move |_, record| is_sent(record));
        let number = 1 + records.iter().sum::<u64>() as usize;
        let number = match subject {
            Subject::ExtractionComplete => number + Kind::ALL.len(),
            _ => number,
        };
        world = world.answers(&[(number as u64, Answer::Silence)]);
        world.options.window_messages = 1;
        let mut bodies = announced(&world.run());
        bodies.drain(..bodies.len() - 1);
        meanwhile(&world);
        world.answers.clear();
        let ended = world.run();
        assert_eq!(ended.ending, Ending::Complete);
        bodies.push(announced(&ended).swap_remove(0));
        let count = bodies.len();
        bodies.dedup();
        (count, bodies.len())
    }

    fn damage_present(world: &World) {
        world.fs.put(&paths().marker(), b"damaged");
    }

    /// The message may be in the broker, with or without a confirm, and the program dead.
    #[test]
    fn an_end_that_is_announced_again_is_the_same_message() {
        for meanwhile in [|_: &World| {}, damage_present] {
            for records in [&[3, 0, 0, 0], &[0, 0, 0, 0]] {
                let ends = repeated(records, Subject::FileComplete, meanwhile);
                assert_eq!(ends, (2, 1), "{records:?}");
            }
            let ends = repeated(&[3, 2, 0, 1], Subject::ExtractionComplete, meanwhile);
            assert_eq!(ends, (2, 1));
        }
    }

    /// It is saved before it is announced, in both generations.
    #[test]
    fn an_end_tells_the_time_that_the_marker_has() {
        let ended = World::new(&[7, 0, 1, 12]).run();
        let processing = &ended.marker().processing_phase;
        let times = Kind::ALL.map(|kind| {
            processing.progress_by_file[&name(kind)]
                .completed_at
                .clone()
        });
        let told = |subject| {
            bodies(&ended, subject)
                .into_iter()
                .map(|body| body["timestamp"].clone())
        };
        assert!(told(Subject::FileComplete).eq(times.iter().map(|time| json!(time))));
        let last = json!(processing.completed_at);
        assert!(told(Subject::ExtractionComplete).all(|time| time == last));
        assert!(times.is_sorted() && times[3] < processing.completed_at);
    }

    #[test]
    fn slow_saves_bound_what_is_read() {
        // The world checks the bound after every step.
        let mut world = World::new(&[200]);
        world.save_step = Duration::from_secs(1);
        assert_eq!(world.run().ending, Ending::SelectionComplete);
    }
}
