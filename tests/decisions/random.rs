//! Random worlds: whatever brokers, saves and stop requests do to two runs, a third without
//! faults completes the work, and nothing was lost, repeated in vain or miscounted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use discogs_extractor::broker::{Message, Subject};
use discogs_extractor::dead_letter::DeadLetter;
use discogs_extractor::dump::Kind;
use discogs_extractor::extraction::Ending;
use discogs_extractor::marker::{Marker, Status};
use discogs_extractor::record::Ordinal;
use proptest::prelude::*;

use crate::harness::{Answer, Welcome, World, body, marker_on_disk, milliseconds, name, paths};

/// What goes wrong, and how small everything is.
#[derive(Clone, Debug)]
struct Weather {
    records: Vec<u64>,
    malformed: Vec<BTreeSet<u64>>,
    interval: u64,
    window: usize,
    save_step: u64,
    runs: [Faults; 2],
}

/// What goes wrong in one run.
#[derive(Clone, Debug)]
struct Faults {
    answers: BTreeMap<u64, Answer>,
    welcomes: Vec<Welcome>,
    closes: bool,
    failing_saves: BTreeMap<u64, u64>,
    stop_at: Option<u64>,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => (1_u64..100).prop_map(Answer::Late),
        1 => (1_u64..40_000).prop_map(Answer::Late),
        2 => Just(Answer::Nack),
        2 => Just(Answer::Return),
        1 => Just(Answer::Refuse),
        1 => Just(Answer::Silence),
        2 => Just(Answer::Disconnect),
        2 => Just(Answer::StoreThenDisconnect),
        1 => (1_u64..60_000).prop_map(Answer::Block),
        1 => Just(Answer::Permanent),
        1 => Just(Answer::ConfirmThenPermanent),
    ]
}

fn faults() -> impl Strategy<Value = Faults> {
    let welcome = prop_oneof![
        Just(Welcome::Connect),
        Just(Welcome::Refuse),
        Just(Welcome::Silence)
    ];
    (
        prop::collection::btree_map(1_u64..70, answer(), 0..12),
        prop::collection::vec(welcome, 0..3),
        any::<bool>(),
        prop::collection::btree_map(1_u64..12, 1_u64..14, 0..6),
        prop::option::of(1_u64..400),
    )
        .prop_map(
            |(answers, welcomes, closes, failing_saves, stop_at)| Faults {
                answers,
                welcomes,
                closes,
                failing_saves,
                stop_at,
            },
        )
}

fn weather() -> impl Strategy<Value = Weather> {
    (
        prop::collection::vec(0_u64..25, 1..=4),
        prop::collection::vec(prop::collection::btree_set(1_u64..25, 0..3), 4),
        1_u64..8,
        1_usize..6,
        0_u64..200,
        [faults(), faults()],
    )
        .prop_map(
            |(records, malformed, interval, window, save_step, runs)| Weather {
                records,
                malformed,
                interval,
                window,
                save_step,
                runs,
            },
        )
}

fn world(weather: &Weather) -> World {
    let mut world = World::new(&weather.records);
    for (script, malformed) in world.dumps.values_mut().zip(&weather.malformed) {
        let records = script.records;
        let inside = malformed.iter().copied();
        script.malformed = inside.filter(|record| *record <= records).collect();
    }
    world.options.save.interval = weather.interval;
    world.options.window_messages = weather.window;
    world.options.dead_letters_max = 1_000;
    world.save_step = milliseconds(weather.save_step);
    world
}

impl Faults {
    fn befall(&self, world: &mut World) {
        world.answers = self.answers.clone();
        world.welcomes = self.welcomes.clone().into();
        world.closes = self.closes;
        world.failing_saves = self.failing_saves.clone();
        world.stop_in_poll = self.stop_at;
    }
}

/// Everything that all runs have put into the broker.
#[derive(Default)]
struct Delivered(Vec<Arc<Message>>);

impl Delivered {
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Message> {
        let messages = self.0.iter().map(|message| &**message);
        messages.filter(move |message| message.route == kind)
    }

    fn records(&self, kind: Kind) -> Vec<u64> {
        let ordinal = |message: &Message| match message.subject {
            Subject::Record(Ordinal(record)) => Some(record),
            _ => None,
        };
        self.of(kind).filter_map(ordinal).collect()
    }

    fn first_deliveries(&self, kind: Kind) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        let mut records = self.records(kind);
        records.retain(|record| seen.insert(*record));
        records
    }
}

/// One run; what it publishes lies behind what was saved before it.
fn run(world: &mut World, delivered: &mut Delivered) -> Ending {
    let saved = marker_on_disk(&world.fs).unwrap_or_default();
    let ended = world.run();
    for message in &ended.record.stored {
        let file = saved.file(&name(message.route));
        if let (Subject::Record(Ordinal(record)), Some(file)) = (message.subject, file) {
            assert_ne!(file.status, Status::Completed, "{}", message.id());
            let checkpoint = file.checkpoint.as_ref();
            assert!(
                record > checkpoint.map_or(0, |checkpoint| checkpoint.frontier.record),
                "{} was saved before",
                message.id()
            );
        }
    }
    let stored = ended.record.stored.iter();
    stored.for_each(|message| check_identity(world, message));
    delivered.0.extend(ended.record.stored);
    ended.ending
}

/// Sequence and body follow from the record alone, whatever happened before.
fn check_identity(world: &World, message: &Message) {
    let script = &world.dumps[&message.route];
    let records = script.records;
    let before = |record| record - script.malformed.range(..=record).count() as u64;
    let sequence = match message.subject {
        Subject::Record(Ordinal(record)) => {
            assert_eq!(message.body, body(record));
            before(record)
        }
        Subject::FileComplete => before(records) + 1,
        Subject::ExtractionComplete => before(records) + 2,
    };
    assert_eq!(message.sequence, sequence, "{}", message.id());
}

fn letters(world: &World, kind: Kind) -> Vec<u64> {
    let lines = world.fs.content(&paths().dead_letters(kind));
    let lines = lines.unwrap_or_default();
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| serde_json::from_slice::<DeadLetter>(line).unwrap().record)
        .collect()
}

/// Nothing is lost, and the marker counts what is true.
fn check_dump(world: &World, marker: &Marker, delivered: &Delivered, kind: Kind, may_refuse: bool) {
    let records = world.dumps[&kind].records;
    let letters = letters(world, kind);
    assert!(letters.is_sorted_by(|a, b| a < b), "{letters:?}");
    let malformed = &world.dumps[&kind].malformed;
    assert!(malformed.iter().all(|record| letters.contains(record)));
    let present: BTreeSet<_> = delivered.records(kind).into_iter().collect();
    let kept: BTreeSet<_> = present
        .union(&letters.iter().copied().collect())
        .copied()
        .collect();
    assert!(kept.into_iter().eq(1..=records), "a record is lost");

    let file = marker.file(&name(kind)).unwrap();
    let frontier = file.checkpoint.as_ref().unwrap().frontier;
    let skipped = letters.len() as u64;
    assert_eq!(file.status, Status::Completed);
    assert_eq!(file.records_extracted, records);
    assert_eq!(file.messages_published, records - skipped);
    assert_eq!(frontier.messages, records - malformed.len() as u64);
    assert_eq!(frontier.dead_letters, skipped);
    let bytes = world.fs.content(&paths().dead_letters(kind));
    assert_eq!(
        frontier.dead_letter_bytes,
        bytes.map_or(0, |bytes| bytes.len() as u64)
    );
    let repaired = (1..=records).filter(|record| record % 7 == 0 && !malformed.contains(record));
    assert_eq!(frontier.repaired, repaired.count() as u64);

    let subjects: Vec<_> = delivered.of(kind).map(|message| message.subject).collect();
    let is_end = |subject: &Subject| *subject == Subject::FileComplete;
    // A record that was refused, and lost with a failed save, may be taken by the next run.
    let end = match may_refuse {
        true => subjects.iter().rposition(is_end),
        false => subjects.iter().position(is_end),
    };
    let end = end.expect("the end of the dump was published");
    let place = |subject| subjects.iter().position(|present| *present == subject);
    let mut first = (1..=records).filter_map(|record| place(Subject::Record(Ordinal(record))));
    assert!(first.all(|place| place < end), "{kind} ended too early");
    let last = delivered
        .of(kind)
        .filter(|message| message.subject == Subject::FileComplete);
    let end: serde_json::Value = serde_json::from_slice(&last.last().unwrap().body).unwrap();
    assert_eq!(end["total_processed"], records - skipped);
}

/// Whether the broker keeps what it is given in order, if it keeps it.
fn keeps_order(faults: &Faults) -> bool {
    let breaks = [
        Answer::Nack,
        Answer::Return,
        Answer::Refuse,
        Answer::Silence,
    ];
    !faults
        .answers
        .values()
        .any(|answer| breaks.contains(answer))
}

fn check(weather: &Weather) {
    let mut world = world(weather);
    let mut delivered = Delivered::default();
    for faults in &weather.runs {
        faults.befall(&mut world);
        run(&mut world, &mut delivered);
    }
    let calm = World::new(&[]);
    world.answers = calm.answers;
    world.welcomes = calm.welcomes;
    world.failing_saves = calm.failing_saves;
    world.closes = calm.closes;
    world.stop_in_poll = None;
    let ending = run(&mut world, &mut delivered);
    let is_whole = world.dumps.len() == Kind::ALL.len();
    assert_eq!(
        ending,
        match is_whole {
            true => Ending::Complete,
            false => Ending::SelectionComplete,
        }
    );
    let mut answers = weather
        .runs
        .iter()
        .flat_map(|faults| faults.answers.values());
    let may_refuse = answers.any(|answer| *answer == Answer::Refuse);
    let marker = marker_on_disk(&world.fs).unwrap();
    assert_eq!(marker.is_complete(), is_whole);
    for kind in world.dumps.keys() {
        check_dump(&world, &marker, &delivered, *kind, may_refuse);
        if weather.runs.iter().all(keeps_order) {
            assert!(delivered.first_deliveries(*kind).is_sorted());
        }
    }
    assert!(!world.fs.names().iter().any(|name| name.ends_with(".tmp")));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_third_run_completes_what_two_stormy_ones_began(weather in weather()) {
        check(&weather);
    }
}
