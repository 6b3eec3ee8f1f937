//! The spool holds every message exactly once and in order, whatever happens to it.
//!
//! A crash of the process is a spool that is dropped without notice: what it holds in memory is
//! gone. A crash of the machine is acted out on the files: what was not confirmed is cut off or
//! overwritten. Unless a test is about the inside, it runs inline and on a thread.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use discogs_extractor::broker::{
    Broker, Command, Disconnect, Event, Message, Session, Subject, Tag,
};
use discogs_extractor::dump::Kind;
use discogs_extractor::fs::{self, FileRead, FileSystem, FileWrite, Lock, Metadata, OsFileSystem};
use discogs_extractor::queue::Threaded;
use discogs_extractor::record::Ordinal;
use discogs_extractor::spool::{Options, Spool};
use discogs_extractor::time::{Clock, Instant};
use proptest::prelude::*;
use tempfile::TempDir;

// What happens in order.

#[test]
fn every_route_has_its_messages_in_order_in_bounded_segments() {
    for mut world in World::inline_and_threaded() {
        let messages: Vec<_> = (1..=10)
            .flat_map(|sequence| Kind::ALL.map(|route| message(route, sequence, "ordinary")))
            .collect();
        world.connect_and_publish(&messages);
        world.crash();
        for route in Kind::ALL {
            let bodies = bodies(messages.iter().filter(|message| message.route == route));
            assert_eq!(world.lines(route), bodies, "{route}");
        }
        let segments = world.segments(Kind::Labels);
        assert!(segments.len() > 2, "{segments:?}");
        for (path, bytes) in segments {
            assert!(bytes.len() as u64 <= SEGMENT_BYTES_MAX, "{path:?}");
        }
    }
}

#[test]
fn a_segment_is_named_by_its_first_message_and_holds_at_least_one() {
    let mut world = World::new(Mode::Inline);
    let long = "long".repeat(SEGMENT_BYTES_MAX as usize);
    let texts = ["short", "short", &long, &long, "short"];
    let messages = (1..).zip(texts).map(|(n, text)| artist(n, text));
    world.connect_and_publish(&messages.collect::<Vec<_>>());
    let segments = world.segments(Kind::Artists);
    let names: Vec<_> = segments.iter().map(|(path, _)| file_name(path)).collect();
    let expected = [1, 3, 4, 5].map(|base| format!("artists-{base:012}.jsonl"));
    assert_eq!(names, expected);
}

#[test]
fn a_disconnect_commits_first() {
    for mut world in World::inline_and_threaded() {
        let messages = artists(1..=3, "ordinary");
        world.connect().unwrap();
        let tags = world.submit(&messages);
        world.broker().submit(Command::Disconnect);
        for tag in tags {
            assert_eq!(world.event(), Event::Confirmed(tag));
        }
        let why = "closed on request".to_owned();
        let permanent = false;
        let disconnect = Disconnect { why, permanent };
        let closed = Event::Disconnected(world.session, disconnect);
        assert_eq!(world.event(), closed);
        assert_eq!(world.lines(Kind::Artists), bodies(&messages));
    }
}

#[test]
fn a_commit_waits_until_the_caller_waits_or_the_batch_is_full() {
    let mut world = World::new(Mode::Inline);
    world.options.commit_messages_max = 3;
    world.options.commit_bytes_max = 1_000;
    world.connect().unwrap();

    let tags = world.submit(&artists(1..=2, "ordinary"));
    for deadline in [PAST, NOW] {
        assert_eq!(world.broker().poll(deadline), None, "not full");
    }
    assert_eq!(world.lines(Kind::Artists), Vec::<String>::new());
    assert_eq!(world.event(), Event::Confirmed(tags[0]), "waited for");
    assert_eq!(world.event(), Event::Confirmed(tags[1]));

    let tags = world.submit(&artists(3..=6, "ordinary"));
    assert_eq!(
        confirmed_without_waiting(&mut world),
        tags[..3],
        "3 messages"
    );
    assert_eq!(world.event(), Event::Confirmed(tags[3]));

    let tags = world.submit(&[artist(7, &"long".repeat(250))]);
    assert_eq!(confirmed_without_waiting(&mut world), tags, "1,000 bytes");
}

#[test]
fn without_a_batch_every_message_is_committed_at_once() {
    let mut world = World::new(Mode::Inline);
    world.options.commit_messages_max = 0;
    world.options.commit_bytes_max = 0;
    world.connect().unwrap();
    let tags = world.submit(&artists(1..=3, "ordinary"));
    assert_eq!(confirmed_without_waiting(&mut world), tags);
}

fn confirmed_without_waiting(world: &mut World) -> Vec<Tag> {
    let mut tags = Vec::new();
    while let Some(event) = world.broker().poll(PAST) {
        let Event::Confirmed(tag) = event else {
            panic!("{event:?}");
        };
        tags.push(tag);
    }
    tags
}

// What is synced, and when.

#[test]
fn a_message_is_confirmed_after_its_bytes_and_its_name_are_durable() {
    let mut world = World::new(Mode::Inline);
    world.connect().unwrap();
    world.fs.take_trace();
    world.publish(&artists(1..=1, "ordinary"));
    assert_eq!(
        world.fs.take_trace(),
        [
            "create_dir 20260801",
            "sync_dir spool",
            "remove artists.recovering",
            "list 20260801",
            "append artists-000000000001.jsonl",
            "write artists-000000000001.jsonl",
            "sync artists-000000000001.jsonl",
            "sync_dir 20260801",
        ]
    );
    world.publish(&artists(2..=2, "ordinary"));
    assert_eq!(
        world.fs.take_trace(),
        [
            "write artists-000000000001.jsonl",
            "sync artists-000000000001.jsonl",
        ]
    );
}

#[test]
fn a_segment_begins_after_the_one_before_it_is_durable() {
    let mut world = World::new(Mode::Inline);
    world.options.segment_bytes_max = 1;
    world.connect().unwrap();
    world.fs.take_trace();
    world.publish(&artists(1..=2, "ordinary"));
    assert_eq!(
        world.fs.take_trace()[4..],
        [
            "append artists-000000000001.jsonl",
            "write artists-000000000001.jsonl",
            "sync artists-000000000001.jsonl",
            "sync_dir 20260801",
            "append artists-000000000002.jsonl",
            "write artists-000000000002.jsonl",
            "sync artists-000000000002.jsonl",
            "sync_dir 20260801",
        ]
    );
}

#[test]
fn a_repeat_is_made_durable_by_a_copy_and_not_written_again() {
    let mut world = World::new(Mode::Inline);
    world.connect_and_publish(&artists(1..=2, "ordinary"));
    world.crash();
    world.connect().unwrap();
    world.fs.take_trace();
    world.publish(&artists(1..=2, "ordinary"));
    assert_eq!(
        world.fs.take_trace(),
        [
            "create_dir 20260801",
            "sync_dir spool",
            "remove artists.recovering",
            "list 20260801",
            "open artists-000000000001.jsonl",
            "create artists.recovering",
            "write artists.recovering",
            "sync artists.recovering",
            "rename artists.recovering",
            "sync_dir 20260801",
            "open artists-000000000001.jsonl",
        ]
    );
}

#[test]
fn later_segments_go_newest_first_and_a_cut_is_synced_before_the_next_segment() {
    let mut world = World::new(Mode::Inline);
    world.options.segment_bytes_max = LINE_BYTES;
    world.connect_and_publish(&artists(1..=4, "ordinary"));
    world.crash();
    world.connect().unwrap();
    world.publish(&artists(1..=1, "ordinary"));
    world.fs.take_trace();
    world.publish(&artists(2..=2, "different"));
    assert_eq!(
        world.fs.take_trace(),
        [
            "open artists-000000000002.jsonl",
            "remove artists-000000000004.jsonl",
            "sync_dir 20260801",
            "remove artists-000000000003.jsonl",
            "sync_dir 20260801",
            "append artists-000000000002.jsonl",
            "truncate artists-000000000002.jsonl",
            "write artists-000000000002.jsonl",
            "sync artists-000000000002.jsonl",
        ]
    );

    // The segment is full where it is cut: no line follows that would bring the sync with it.
    world.crash();
    world.options.segment_bytes_max = 3 * LINE_BYTES;
    world.connect_and_publish(&artists(2..=4, "ordinary"));
    world.crash();
    world.options.segment_bytes_max = LINE_BYTES;
    world.connect().unwrap();
    world.publish(&artists(3..=3, "ordinary"));
    world.fs.take_trace();
    world.publish(&artists(4..=4, "different"));
    assert_eq!(
        world.fs.take_trace(),
        [
            "append artists-000000000002.jsonl",
            "truncate artists-000000000002.jsonl",
            "sync artists-000000000002.jsonl",
            "append artists-000000000004.jsonl",
            "write artists-000000000004.jsonl",
            "sync artists-000000000004.jsonl",
            "sync_dir 20260801",
        ]
    );
}

/// A failed sync leaves pages that look whole, are not on the disk, and are not written by a
/// later sync. The process that saw the failure may die before it does anything about it.
#[test]
fn lines_whose_sync_failed_are_not_confirmed_by_a_later_sync() {
    for dies in [false, true] {
        let mut world = World::new(Mode::Inline);
        world.options.segment_bytes_max = 1_000;
        let messages = artists(1..=6, "ordinary");
        world.connect_and_publish(&messages[..3]);
        world.fs.fail_next("sync");
        world.submit(&messages[3..]);
        assert!(matches!(world.event(), Event::Disconnected(..)));
        if dies {
            world.crash();
        }
        world.connect_and_publish(&messages[3..]);
        world.crash();
        world.fs.lose_power();
        assert_eq!(world.lines(Kind::Artists), bodies(&messages));
    }
}

// Crashes.

#[test]
fn a_process_may_die_after_any_message_and_go_on_from_any_checkpoint() {
    const MESSAGES: usize = 9;
    let messages = artists(1..=MESSAGES as u64, "ordinary");
    for confirmed in 0..=MESSAGES {
        for checkpoint in 0..=confirmed {
            let mut world = World::new(Mode::Inline);
            world.connect_and_publish(&messages[..confirmed]);
            world.submit(&messages[confirmed..]);
            world.crash();
            world.connect_and_publish(&messages[checkpoint..]);
            world.crash();
            let case = format!("{confirmed} confirmed, {checkpoint} saved");
            assert_eq!(world.lines(Kind::Artists), bodies(&messages), "{case}");
        }
    }
}

#[test]
fn a_machine_may_lose_or_damage_any_byte_that_was_not_confirmed() {
    const CONFIRMED: usize = 2;
    let messages = artists(1..=6, "ordinary");
    let ends = [Damage::Cut, Damage::CutWithName]
        .into_iter()
        .chain([0, b'\n', b'{', b'x'].map(Damage::Overwrite));
    for damage in ends {
        for from in CONFIRMED as u64 * LINE_BYTES..=6 * LINE_BYTES {
            let mut world = World::new(Mode::Inline);
            world.connect_and_publish(&messages);
            world.crash();
            world.damage(damage, from);
            world.connect_and_publish(&messages[CONFIRMED..]);
            world.crash();
            let case = format!("{damage:?} from byte {from} of all");
            assert_eq!(world.lines(Kind::Artists), bodies(&messages), "{case}");
        }
    }
}

#[test]
fn a_thread_may_be_dropped_while_it_works() {
    let messages = artists(1..=500, "ordinary");
    let mut world = World::new(Mode::Threaded);
    world.connect().unwrap();
    world.submit(&messages);
    world.crash();
    world.connect_and_publish(&messages);
    world.crash();
    assert_eq!(world.lines(Kind::Artists), bodies(&messages));
}

#[test]
fn any_operation_may_fail_with_or_without_effect() {
    let messages: Vec<_> = artists(1..=4, "ordinary")
        .into_iter()
        .chain([message(Kind::Labels, 1, "ordinary")])
        .collect();
    for mode in [Mode::Inline, Mode::Threaded] {
        for effect in [false, true] {
            let mut failures = 0;
            while fails_at(mode, &messages, failures + 1, effect) {
                failures += 1;
            }
            assert!(failures > 30, "only {failures} operations were tried");
        }
    }
}

/// Publishes over an older spool of other content, so that every path is taken, and lets one
/// operation fail; false if there was no such operation.
fn fails_at(mode: Mode, messages: &[Arc<Message>], operation: u64, effect: bool) -> bool {
    let mut world = World::new(mode);
    let mut old = artists(1..=1, "ordinary");
    old.extend(artists(2..=4, "different"));
    world.connect_and_publish(&old);
    world.crash();

    world.fs.fail_at(operation, effect);
    let failed = match world.connect() {
        Ok(()) => world.try_publish(messages),
        Err(why) => (0, Some(why)),
    };
    let (confirmed, Some(disconnect)) = failed else {
        assert_eq!(confirmed_lines(&world, messages), bodies(messages));
        return false;
    };
    assert!(!disconnect.permanent, "{disconnect:?}");
    assert!(disconnect.why.contains("free some space"), "{disconnect:?}");
    world.connect_and_publish(&messages[confirmed..]);
    world.crash();
    let case = format!("operation {operation}, {effect}: {disconnect:?}");
    assert_eq!(
        confirmed_lines(&world, messages),
        bodies(messages),
        "{case}"
    );
    true
}

/// What the files hold of the routes of `messages`, route by route.
fn confirmed_lines(world: &World, messages: &[Arc<Message>]) -> Vec<String> {
    let mut routes: Vec<_> = messages.iter().map(|message| message.route).collect();
    routes.dedup();
    routes
        .iter()
        .flat_map(|route| world.lines(*route))
        .collect()
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Cut),
        Just(Damage::CutWithName),
        any::<u8>().prop_map(Damage::Overwrite),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any run of crashes, each after some messages were confirmed and some more submitted, with
    /// any damage behind what was confirmed, leaves the same files' content.
    #[test]
    fn any_history_of_crashes_leaves_every_message_once(
        lengths in prop::collection::vec(0..40_usize, 1..30),
        segment_bytes_max in 1..200_u64,
        crashes in prop::collection::vec((0..10_usize, 0..10_usize, 0..10_usize, any_damage(), 0..200_u64), 0..5),
    ) {
        let messages: Vec<_> = (1..).zip(&lengths).map(|(n, length)| artist(n, &"x".repeat(*length))).collect();
        let mut world = World::new(Mode::Inline);
        world.options.segment_bytes_max = segment_bytes_max;
        let mut checkpoint = 0;
        for (confirms, submits, saved, damage, at) in crashes {
            let confirmed = (checkpoint + confirms).min(messages.len());
            world.connect_and_publish(&messages[checkpoint..confirmed]);
            world.submit(&messages[confirmed..(confirmed + submits).min(messages.len())]);
            let _ = world.broker().poll(PAST);
            world.crash();
            checkpoint = (checkpoint + saved).min(confirmed);
            let safe: usize = messages[..confirmed].iter().map(|message| message.body.len() + 1).sum();
            world.damage(damage, safe as u64 + at);
        }
        world.connect_and_publish(&messages[checkpoint..]);
        world.crash();
        prop_assert_eq!(world.lines(Kind::Artists), bodies(&messages));
    }
}

// Starting over.

#[test]
fn starting_over_keeps_what_is_equal_and_rewrites_the_rest() {
    let old = artists(1..=7, "ordinary");
    for mode in [Mode::Inline, Mode::Threaded] {
        for different in 0..=7 {
            for text in [
                "",
                "o",
                "ordinarily",
                "different and much longer than a segment is",
            ] {
                let mut world = World::new(mode);
                world.connect_and_publish(&old);
                world.crash();
                let mut new = old[..different].to_vec();
                new.extend(artists(different as u64 + 1..=8, text));
                world.connect_and_publish(&new);
                world.crash();
                let case = format!("`{text}` from {different} on");
                assert_eq!(world.lines(Kind::Artists), bodies(&new), "{case}");
            }
        }
    }
}

#[test]
fn consumed_segments_may_be_removed() {
    let messages = artists(1..=8, "ordinary");
    let mut world = World::new(Mode::Inline);
    world.connect_and_publish(&messages[..6]);
    world.crash();
    let (first, _) = world.segments(Kind::Artists).swap_remove(0);
    OsFileSystem.remove(&first).unwrap();

    world.connect_and_publish(&messages[5..]);
    world.crash();
    let left = bodies(&messages[LINES_PER_SEGMENT..]);
    assert_eq!(world.lines(Kind::Artists), left, "goes on");

    world.connect_and_publish(&messages);
    world.crash();
    assert_eq!(world.lines(Kind::Artists), bodies(&messages), "starts over");
}

#[test]
fn files_that_are_no_segments_are_left_alone() {
    let mut world = World::new(Mode::Inline);
    let directory = world.spool().join("20260801");
    OsFileSystem.create_dir(&directory).unwrap();
    let foreign = ["artists-2", "artists-000000000000", "artists-of-note"]
        .map(|name| directory.join(format!("{name}.jsonl")));
    for path in &foreign {
        overwrite(path, b"foreign");
    }

    for text in ["ordinary", "different"] {
        world.connect_and_publish(&artists(1..=6, text));
        world.crash();
    }
    for path in &foreign {
        let bytes = fs::read(&OsFileSystem, path).unwrap();
        assert_eq!(bytes, b"foreign", "{path:?}");
        OsFileSystem.remove(path).unwrap();
    }
    let expected = bodies(&artists(1..=6, "different"));
    assert_eq!(world.lines(Kind::Artists), expected);
}

#[test]
fn a_copy_that_was_left_is_removed() {
    for segments in [0, 1] {
        let messages = artists(1..=2, "ordinary");
        let mut world = World::new(Mode::Inline);
        world.connect_and_publish(&messages[..segments]);
        world.crash();
        let directory = world.spool().join("20260801");
        OsFileSystem.create_dir(&directory).unwrap();
        overwrite(&directory.join("artists.recovering"), b"half a co");
        world.connect_and_publish(&messages[segments..]);
        world.crash();
        assert_eq!(world.lines(Kind::Artists), bodies(&messages));
    }
}

// What is told to the user.

#[test]
fn confirmed_messages_that_are_gone_are_an_error() {
    let line = LINE_BYTES;
    for (damage, from, first, held) in [
        (Damage::CutWithName, 0, 2, 0),
        (Damage::Cut, 0, 2, 0),
        (Damage::Cut, 3 * line - 1, 4, 2),
        (Damage::CutWithName, 4 * line, 6, 4),
        (Damage::Cut, 5 * line, 7, 5),
        (Damage::Cut, 6 * line, 9, 6),
    ] {
        let mut world = World::new(Mode::Inline);
        world.connect_and_publish(&artists(1..=6, "ordinary"));
        world.crash();
        world.damage(damage, from);
        world.connect().unwrap();
        let (_, disconnect) = world.try_publish(&artists(first..=first, "ordinary"));
        let disconnect = disconnect.expect("something is missing");
        let expected = format!(
            "the spool {} holds only {held} messages of 20260801 artists, but the state marker says that {} were confirmed; somebody removed or cut its files: restore them, or start over with --reprocess",
            world.spool().display(),
            first - 1
        );
        assert_eq!(disconnect.why, expected);
        assert!(disconnect.permanent);
    }
}

#[test]
fn a_second_writer_is_told_about_the_first() {
    for mut world in World::inline_and_threaded() {
        world.options.owner = "extractor 17".to_owned();
        world.connect().unwrap();
        let mut second = World::new(Mode::Inline);
        second.root = world.root.clone();
        let disconnect = second.connect().unwrap_err();
        let expected = "is in use by extractor 17; wait for it to end";
        assert!(disconnect.why.contains(expected), "{disconnect:?}");
        assert!(disconnect.permanent);
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_error_with_a_hint() {
    let mut world = World::new(Mode::Inline);
    OsFileSystem.create(&world.spool()).unwrap();
    let disconnect = world.connect().unwrap_err();
    let start = format!(
        "the spool cannot make directory {}: ",
        world.spool().display()
    );
    assert!(disconnect.why.starts_with(&start), "{disconnect:?}");
    assert!(disconnect.why.ends_with("as in file:DIR"), "{disconnect:?}");
    assert!(disconnect.permanent);
}

/// The spool may lie below a directory of others, such as `/home`.
#[test]
fn only_a_directory_that_may_be_listed_has_to_be_synced() {
    for (error, connects) in [
        (io::ErrorKind::PermissionDenied, true),
        (io::ErrorKind::StorageFull, false),
    ] {
        let mut world = World::new(Mode::Inline);
        world.fs.fail_next_with("sync_dir", error);
        assert_eq!(world.connect().is_ok(), connects, "{error}");
    }
}

#[test]
fn an_error_says_what_the_user_can_do_and_whether_to_try_again() {
    use io::ErrorKind::{
        IsADirectory, NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull, TimedOut,
    };
    for (error, hint, permanent) in [
        (StorageFull, "free some space, nothing", false),
        (QuotaExceeded, "free some space, nothing", false),
        (NotADirectory, "name a directory that can be made", true),
        (IsADirectory, "name a directory that can be made", true),
        (PermissionDenied, "let this user write there", true),
        (ReadOnlyFilesystem, "let this user write there", true),
        (TimedOut, "check the disk, nothing", false),
    ] {
        let mut world = World::new(Mode::Inline);
        world.fs.fail_next_with("lock", error);
        let disconnect = world.connect().unwrap_err();
        assert!(disconnect.why.contains(hint), "{disconnect:?}");
        assert_eq!(disconnect.permanent, permanent, "{disconnect:?}");
    }
}

/// Every read of a recovery fails once: a signal interrupts it, or the disk does not answer.
#[test]
fn only_an_interrupted_read_is_made_again() {
    let messages = artists(1..=4, "ordinary");
    for (error, succeeds) in [
        (io::ErrorKind::Interrupted, true),
        (io::ErrorKind::TimedOut, false),
    ] {
        for read in 1.. {
            let mut world = World::new(Mode::Inline);
            world.connect_and_publish(&messages);
            world.crash();
            world.connect().unwrap();
            world.fs.fail_nth("read", read, error);
            let (confirmed, disconnect) = world.try_publish(&messages[3..]);
            if world.fs.take_fault().is_some() {
                assert!(read > 3, "a recovery reads a segment twice");
                break;
            }
            assert_eq!(confirmed == 1, succeeds, "read {read}: {disconnect:?}");
        }
    }
}

#[test]
fn publishes_that_a_failure_overtook_are_dropped() {
    for mut world in World::inline_and_threaded() {
        let messages = artists(1..=4, "ordinary");
        world.connect_and_publish(&messages[..1]);
        world.fs.fail_next("write");
        world.submit(&messages[1..2]);
        assert!(matches!(world.event(), Event::Disconnected(..)));
        world.submit(&messages[2..]);
        world.connect_and_publish(&messages[1..]);
        world.crash();
        assert_eq!(world.lines(Kind::Artists), bodies(&messages));
    }
}

#[test]
fn what_is_submitted_without_a_session_is_neither_kept_nor_confirmed() {
    let mut world = World::new(Mode::Inline);
    let messages = artists(1..=2, "ordinary");
    world.connect_and_publish(&messages[..1]);
    world.broker().submit(Command::Disconnect);
    assert!(matches!(world.event(), Event::Disconnected(..)));
    world.submit(&messages[1..]);
    assert_eq!(world.broker().poll(IN_A_MINUTE), None);
    assert_eq!(world.lines(Kind::Artists), bodies(&messages[..1]));
}

#[test]
#[should_panic(expected = "the messages of a route come in sequence")]
fn a_gap_in_the_sequence_is_a_bug_of_the_caller() {
    let mut world = World::new(Mode::Threaded);
    world.connect_and_publish(&artists(1..=1, "ordinary"));
    world.publish(&artists(3..=3, "ordinary"));
}

// Messages.

const TEXT_BYTES: u64 = "ordinary".len() as u64;
/// Of a line with the text `ordinary` (or one as long) and a sequence of one digit.
const LINE_BYTES: u64 = r#"{"n":1,"text":""}"#.len() as u64 + TEXT_BYTES + 1;
const LINES_PER_SEGMENT: usize = 2;
const SEGMENT_BYTES_MAX: u64 = LINES_PER_SEGMENT as u64 * LINE_BYTES + 7;

fn message(route: Kind, sequence: u64, text: &str) -> Arc<Message> {
    Arc::new(Message {
        version: "20260801".parse().unwrap(),
        route,
        subject: Subject::Record(Ordinal(sequence)),
        sequence,
        sha256: String::new(),
        body: format!(r#"{{"n":{sequence},"text":"{text}"}}"#).into(),
    })
}

fn artist(sequence: u64, text: &str) -> Arc<Message> {
    message(Kind::Artists, sequence, text)
}

fn artists(sequences: std::ops::RangeInclusive<u64>, text: &str) -> Vec<Arc<Message>> {
    sequences.map(|sequence| artist(sequence, text)).collect()
}

fn bodies<'a>(messages: impl IntoIterator<Item = &'a Arc<Message>>) -> Vec<String> {
    let body = |message: &Arc<Message>| String::from_utf8(message.body.to_vec()).unwrap();
    messages.into_iter().map(body).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

// The world around a spool.

const PAST: Instant = Instant::ORIGIN;
const NOW: Instant = Instant::from_nanoseconds(1);
const IN_A_MINUTE: Instant = Instant::from_nanoseconds(60_000_000_000);

/// Stands still, so that a deadline is in the past or a minute away.
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        NOW
    }

    fn unix(&self) -> Duration {
        Duration::ZERO
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Inline,
    Threaded,
}

/// What the machine does to everything from some byte on, counted over all segments.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    /// It is gone; a segment that begins there is left with its name.
    Cut,
    /// It is gone; a segment that begins there is gone as well.
    CutWithName,
    /// It is there with another content.
    Overwrite(u8),
}

struct World {
    root: Arc<TempDir>,
    mode: Mode,
    options: Options,
    fs: Arc<TestFileSystem>,
    broker: Option<Box<dyn Broker>>,
    session: Session,
    tag: Tag,
}

impl World {
    fn new(mode: Mode) -> Self {
        Self {
            root: Arc::new(temporary_directory()),
            mode,
            options: Options {
                segment_bytes_max: SEGMENT_BYTES_MAX,
                ..Options::default()
            },
            fs: Arc::default(),
            broker: None,
            session: Session(0),
            tag: Tag(0),
        }
    }

    fn inline_and_threaded() -> [Self; 2] {
        [Mode::Inline, Mode::Threaded].map(Self::new)
    }

    fn spool(&self) -> PathBuf {
        self.root.path().join("spool")
    }

    fn broker(&mut self) -> &mut dyn Broker {
        let (fs, options) = (Arc::clone(&self.fs), self.options.clone());
        let directory = self.spool();
        let mode = self.mode;
        let make = move || Spool::new(fs, Arc::new(Still), directory, options);
        let broker = self.broker.get_or_insert_with(|| match mode {
            Mode::Inline => Box::new(make()),
            Mode::Threaded => Box::new(Threaded::new(make, Arc::new(Still))),
        });
        &mut **broker
    }

    fn event(&mut self) -> Event {
        let event = self.broker().poll(IN_A_MINUTE);
        event.expect("something happens within a minute")
    }

    fn connect(&mut self) -> Result<(), Disconnect> {
        self.session = Session(self.session.0 + 1);
        let session = self.session;
        self.broker().submit(Command::Connect(session));
        match self.event() {
            Event::Disconnected(of, why) if of == session => Err(why),
            event => {
                assert_eq!(event, Event::Connected(session));
                Ok(())
            }
        }
    }

    fn submit(&mut self, messages: &[Arc<Message>]) -> Vec<Tag> {
        let submit_one = |message: &Arc<Message>| {
            self.tag = Tag(self.tag.0 + 1);
            let tag = self.tag;
            let publish = Command::Publish(tag, Arc::clone(message));
            self.broker().submit(publish);
            tag
        };
        messages.iter().map(submit_one).collect()
    }

    /// Publishes and waits; how many were confirmed, and why no more were.
    fn try_publish(&mut self, messages: &[Arc<Message>]) -> (usize, Option<Disconnect>) {
        let tags = self.submit(messages);
        for (confirmed, tag) in tags.iter().enumerate() {
            match self.event() {
                Event::Disconnected(session, why) => {
                    assert_eq!(session, self.session);
                    return (confirmed, Some(why));
                }
                event => assert_eq!(event, Event::Confirmed(*tag)),
            }
        }
        (tags.len(), None)
    }

    fn publish(&mut self, messages: &[Arc<Message>]) {
        assert_eq!(self.try_publish(messages), (messages.len(), None));
    }

    fn connect_and_publish(&mut self, messages: &[Arc<Message>]) {
        self.connect().unwrap();
        self.publish(messages);
    }

    /// Ends the process without notice.
    fn crash(&mut self) {
        self.broker = None;
    }

    /// The segments of a route in order, with their content.
    fn segments(&self, route: Kind) -> Vec<(PathBuf, Vec<u8>)> {
        let directory = self.spool().join("20260801");
        let mut paths = OsFileSystem.list(&directory).unwrap_or_default();
        paths.retain(|path| file_name(path).starts_with(route.name()));
        paths
            .into_iter()
            .map(|path| (path.clone(), fs::read(&OsFileSystem, &path).unwrap()))
            .collect()
    }

    /// The lines of a route. Nothing but segments may be there, each with whole lines only.
    fn lines(&self, route: Kind) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, bytes) in self.segments(route) {
            assert!(file_name(&path).ends_with(".jsonl"), "{path:?}");
            let text = String::from_utf8(bytes).unwrap();
            for line in text.split_inclusive('\n') {
                let line = line.strip_suffix('\n').expect("the last line is whole");
                lines.push(line.to_owned());
            }
        }
        lines
    }

    fn damage(&self, damage: Damage, from: u64) {
        let mut start = 0;
        for (path, mut bytes) in self.segments(Kind::Artists) {
            let kept = usize::try_from(from.saturating_sub(start))
                .unwrap()
                .min(bytes.len());
            let name_is_gone = match damage {
                Damage::Overwrite(_) => false,
                Damage::Cut => from < start,
                Damage::CutWithName => from <= start,
            };
            start += bytes.len() as u64;
            match damage {
                Damage::Overwrite(byte) => bytes[kept..].fill(byte),
                Damage::Cut | Damage::CutWithName => bytes.truncate(kept),
            }
            if name_is_gone {
                OsFileSystem.remove(&path).unwrap();
            } else {
                overwrite(&path, &bytes);
            }
        }
    }
}

/// In memory if possible: on a disk, some file systems flush a file when it is renamed over another.
fn temporary_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = OsFileSystem.create(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// The real file system, with three differences: reads and writes are short; operations are
/// recorded and can fail; and a sync is only noted, so that the loss of power can be acted out.
/// (Names are durable at once here.)
#[derive(Clone, Default)]
struct TestFileSystem(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    /// Operations with an effect, the same one only once in a row: what and on which name.
    trace: Vec<String>,
    fault: Option<Fault>,
    files: BTreeMap<PathBuf, Durable>,
}

struct Fault {
    /// What fails; anything if empty.
    what: &'static str,
    /// How many of those succeed before.
    after: u64,
    /// Whether it is done all the same.
    effect: bool,
    /// What the caller is told.
    error: io::ErrorKind,
}

/// How much of a file would survive a loss of power.
#[derive(Default)]
struct Durable {
    length: u64,
    /// What a failed sync left clean and not durable.
    lost: Option<Range<u64>>,
}

/// Whether an operation fails, and then, whether it is done all the same.
enum Fate {
    Succeeds,
    Fails { effect: bool, error: io::ErrorKind },
}

impl TestFileSystem {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Lets the operation number `operation` from now fail, 1-based.
    fn fail_at(&self, operation: u64, effect: bool) {
        self.disk().fault = Some(Fault {
            what: "",
            after: operation - 1,
            effect,
            error: io::ErrorKind::StorageFull,
        });
    }

    /// Lets the next operation of a name fail.
    fn fail_next(&self, what: &'static str) {
        self.fail_next_with(what, io::ErrorKind::StorageFull);
    }

    fn fail_next_with(&self, what: &'static str, error: io::ErrorKind) {
        self.fail_nth(what, 1, error);
    }

    /// Lets the operation number `nth` of a name from now fail, 1-based.
    fn fail_nth(&self, what: &'static str, nth: u64, error: io::ErrorKind) {
        self.disk().fault = Some(Fault {
            what,
            after: nth - 1,
            effect: false,
            error,
        });
    }

    /// What was to fail and has not.
    fn take_fault(&self) -> Option<Fault> {
        self.disk().fault.take()
    }

    fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.disk().trace)
    }

    /// Leaves of each file what was synced.
    fn lose_power(&self) {
        for (path, durable) in &self.disk().files {
            let mut bytes = fs::read(&OsFileSystem, path).unwrap();
            bytes.truncate(durable.length as usize);
            if let Some(lost) = &durable.lost {
                bytes[lost.start as usize..lost.end as usize].fill(0);
            }
            overwrite(path, &bytes);
        }
    }

    fn attempt<T>(
        &self,
        what: &'static str,
        path: &Path,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let fate = self.disk().fate(what, path);
        match fate {
            Fate::Succeeds => act(),
            Fate::Fails { effect, error } => {
                if effect {
                    drop(act());
                }
                Err(error.into())
            }
        }
    }

    fn writer(&self, path: &Path, file: Box<dyn FileWrite>) -> Box<dyn FileWrite> {
        Box::new(TestWriter {
            fs: self.clone(),
            path: path.to_owned(),
            file,
        })
    }
}

impl Disk {
    fn fate(&mut self, what: &'static str, path: &Path) -> Fate {
        let line = format!("{what} {}", path.file_name().unwrap_or_default().display());
        if what != "read" && self.trace.last() != Some(&line) {
            self.trace.push(line);
        }
        match &mut self.fault {
            Some(fault) if what.starts_with(fault.what) => match fault.after.checked_sub(1) {
                Some(left) => {
                    fault.after = left;
                    Fate::Succeeds
                }
                None => {
                    let (effect, error) = (fault.effect, fault.error);
                    self.fault = None;
                    Fate::Fails { effect, error }
                }
            },
            _ => Fate::Succeeds,
        }
    }
}

impl FileSystem for TestFileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileRead>> {
        let file = self.attempt("open", path, || OsFileSystem.open(path))?;
        Ok(Box::new(TestReader {
            fs: self.clone(),
            path: path.to_owned(),
            file,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let file = self.attempt("create", path, || {
            self.disk()
                .files
                .insert(path.to_owned(), Durable::default());
            OsFileSystem.create(path)
        })?;
        Ok(self.writer(path, file))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let file = self.attempt("append", path, || {
            self.disk().files.entry(path.to_owned()).or_default();
            OsFileSystem.append(path)
        })?;
        Ok(self.writer(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt("rename", from, || {
            let durable = self.disk().files.remove(from).expect("it was created");
            self.disk().files.insert(to.to_owned(), durable);
            OsFileSystem.rename(from, to)
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt("link", from, || OsFileSystem.link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.attempt("remove", path, || {
            self.disk().files.remove(path);
            OsFileSystem.remove(path)
        })
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        self.attempt("create_dir", directory, || {
            OsFileSystem.create_dir(directory)
        })
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.attempt("sync_dir", directory, || Ok(()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.attempt("list", directory, || OsFileSystem.list(directory))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.attempt("metadata", path, || OsFileSystem.metadata(path))
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        self.attempt("free_space", directory, || {
            OsFileSystem.free_space(directory)
        })
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>> {
        self.attempt("lock", path, || OsFileSystem.lock(path, owner))
    }
}

struct TestReader {
    fs: TestFileSystem,
    path: PathBuf,
    file: Box<dyn FileRead>,
}

impl Read for TestReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = buffer.len().min(50);
        let act = || self.file.read(&mut buffer[..some]);
        self.fs.attempt("read", &self.path, act)
    }
}

impl Seek for TestReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

struct TestWriter {
    fs: TestFileSystem,
    path: PathBuf,
    file: Box<dyn FileWrite>,
}

impl TestWriter {
    fn length(&self) -> u64 {
        OsFileSystem.metadata(&self.path).unwrap().length
    }
}

impl Write for TestWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.len().min(20);
        let act = || self.file.write(&bytes[..some]);
        self.fs.attempt("write", &self.path, act)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FileWrite for TestWriter {
    fn sync(&mut self) -> io::Result<()> {
        let synced = self.fs.attempt("sync", &self.path, || Ok(()));
        let length = self.length();
        let mut disk = self.fs.disk();
        let durable = disk.files.get_mut(&self.path).expect("it was opened");
        if synced.is_err() {
            durable.lost = Some(durable.length..length);
        }
        durable.length = length;
        synced
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let act = || self.file.truncate(length);
        self.fs.attempt("truncate", &self.path, act)?;
        let mut disk = self.fs.disk();
        let durable = disk.files.get_mut(&self.path).expect("it was opened");
        durable.length = durable.length.min(length);
        durable.lost.take_if(|lost| lost.start >= length);
        Ok(())
    }
}
