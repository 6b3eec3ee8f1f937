//! The oracles: each a function that says how one promise was broken.
//!
//! They come in three groups, by what they look at:
//!
//! - **every image**: what a crash can leave at any moment ([`image`]). `never ahead` and `durable`
//!   are two oracles and must stay so: one that says "stale is fine" passes code that forgets;
//! - **every life**: what the program did, and claimed, between its start and its exit ([`life`]);
//! - **every end**: what is there once a run said that it is complete ([`end`]).
//!
//! What an oracle compares with is the [`Truth`](crate::scenario::Truth) of the dumps and the
//! [`History`] of the lives so far, never what the program says of itself. Where a documented
//! contract allows an exception, the oracle's documentation says which, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use discogs_extractor::broker::{Message, Subject};
use discogs_extractor::dump::Kind;

use crate::guarantee::{Guarantee, Violation};
use crate::place::Promise;
use crate::program::{Done, End, Exit, Record, Sight};
use crate::scenario::Scenario;
use crate::scene::{Delivery, Scene};

pub mod state;

/// What the lives so far oblige the next ones to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct History {
    /// The furthest that was reported as saved.
    pub reported: Done,
    /// Whether one was, and nothing has damaged it since.
    pub has_saved: bool,
    /// Whether the disk has damaged a file since the last save.
    pub is_rotten: bool,
    /// By kind, the highest record that was submitted since its dump has its present bytes.
    pub submitted: [u64; Kind::ALL.len()],
    /// Whether a save failed, or the disk took one away: then repeats have no bound.
    pub has_lost_saves: bool,
    /// By kind, how many messages the broker held when the dump got its present bytes.
    pub since: [usize; Kind::ALL.len()],
    /// How often a dump was changed.
    pub changes: u64,
    /// Whether messages were turned down or dropped one by one.
    pub has_turned_down: bool,
    /// The ends that were announced, with the body of the first attempt.
    pub ends: Ends,
}

/// The bodies of announced ends, of a dump or of the version, by route.
pub type Ends = BTreeMap<(Kind, Subject), Vec<u8>>;

impl History {
    /// Adds a life.
    pub fn add(&mut self, record: &Record) {
        if let Some(reported) = record.reported {
            // Whoever goes back, and says so, has still lost what was reported before.
            self.reported = self.reported.joined(&reported);
            self.has_saved = true;
            self.is_rotten = false;
        }
        self.has_lost_saves |= record.saves_failed > 0;
        for (kind, ordinal) in record
            .attempts
            .iter()
            .filter_map(|message| of_record(message))
        {
            let submitted = &mut self.submitted[kind as usize];
            *submitted = ordinal.max(*submitted);
        }
        for end in record.attempts.iter().filter(|message| is_end(message)) {
            let first = self.ends.entry((end.route, end.subject));
            first.or_insert_with(|| end.body.to_vec());
        }
    }

    /// The dump of a kind is extracted anew: its end will be another one, and so will that of the
    /// version.
    pub fn forget_end(&mut self, kind: Kind) {
        self.ends
            .retain(|(route, subject), _| *route != kind && *subject == Subject::FileComplete);
    }

    const fn sight(&self, end: End) -> Sight {
        Sight {
            has_saved: self.has_saved,
            is_rotten: self.is_rotten,
            end,
        }
    }
}

/// Whether a message announces the end of a dump or of the version.
fn is_end(message: &Message) -> bool {
    matches!(
        message.subject,
        Subject::FileComplete | Subject::ExtractionComplete
    )
}

/// The kind and ordinal of a record's message.
fn of_record(message: &Message) -> Option<(Kind, u64)> {
    match message.subject {
        Subject::Record(ordinal) => Some((message.route, ordinal.0)),
        _ => None,
    }
}

type Violations = Vec<Violation>;

fn broken(guarantee: Guarantee, what: impl Into<String>) -> Violation {
    Violation::new(guarantee, what)
}

/// Everything that must hold of every image; `done` is what the program would go on from.
pub fn image(scene: &Scene<'_>, history: &History, done: Done) -> Violations {
    let mut violations = never_ahead(scene, done);
    violations.extend(durable(history, done));
    violations
}

/// What the oracles of a program's own files are told.
pub const fn sight(history: &History, end: End) -> Sight {
    history.sight(end)
}

/// Every record up to the checkpoint is in the broker, or is a dead letter that is in this image;
/// of a completed dump so is the end, and of an announced version the announcement.
pub fn never_ahead(scene: &Scene<'_>, done: Done) -> Violations {
    let ahead = |kind| never_ahead_of(scene, kind, done);
    Kind::ALL.into_iter().filter_map(ahead).collect()
}

fn never_ahead_of(scene: &Scene<'_>, kind: Kind, done: Done) -> Option<Violation> {
    let dump = done.dump(kind);
    if dump.records == 0 && !dump.is_completed {
        return None;
    }
    let held = scene.deliveries(kind);
    let letters = scene.letters(kind);
    let refused = scene.refused(kind);
    let truth = scene.truth(kind);
    let missing = |&ordinal: &u64| match truth.message(ordinal) {
        Some(_) => {
            let is_kept = refused.contains(&ordinal) && letters.contains(&ordinal);
            !is_kept && !held.contains(&Delivery::Record(ordinal))
        }
        None => !letters.contains(&ordinal),
    };
    let what = match (1..=dump.records).find(missing) {
        Some(record) => {
            let records = dump.records;
            Some(format!(
                "{kind}: the checkpoint is at record {records}, record {record} is nowhere"
            ))
        }
        None if dump.is_completed
            && !held
                .iter()
                .any(|it| matches!(it, Delivery::FileComplete(_))) =>
        {
            Some(format!("{kind} is completed, its end is not in the broker"))
        }
        None if done.is_announced
            && !held
                .iter()
                .any(|it| matches!(it, Delivery::ExtractionComplete(_))) =>
        {
            Some(format!("the version is complete, {kind} was not told"))
        }
        None => None,
    };
    what.map(|what| broken(Guarantee::NeverAhead, what))
}

/// What the program would go on from is not behind any checkpoint that it reported.
pub fn durable(history: &History, done: Done) -> Option<Violation> {
    let reported = history.reported;
    (history.has_saved && !done.covers(&reported)).then(|| {
        broken(
            Guarantee::Durable,
            format!("reported {reported:?}, the disk has {done:?}"),
        )
    })
}

/// Everything that must hold of a life; `history` is of the lives before it.
pub fn life(
    scene: &Scene<'_>,
    history: &History,
    from: Done,
    record: &Record,
    exit: &Exit,
) -> Violations {
    let mut violations = record.violations.clone();
    violations.extend(stable_identity(scene, record));
    violations.extend(stable_ends(history, record));
    violations.extend(never_again(from, record));
    violations.extend(bounded_repeats(scene, history, from, record));
    violations.extend(bounded_window(scene, record));
    violations.extend(broker_contract(scene));
    violations.extend(no_panic(exit));
    violations
}

/// Each attempt to publish a record has the sequence and the bytes that the truth says, so all
/// attempts have the same. The ends of dumps and versions have the sequence that the truth says.
pub fn stable_identity(scene: &Scene<'_>, record: &Record) -> Option<Violation> {
    let differs = |message: &&Arc<Message>| {
        let truth = scene.truth(message.route);
        match message.subject {
            Subject::Record(ordinal) => {
                truth.message(ordinal.0) != Some(&message.body)
                    || truth.sequence(ordinal.0) != message.sequence
            }
            Subject::FileComplete => message.sequence != truth.messages() + 1,
            Subject::ExtractionComplete => message.sequence != truth.messages() + 2,
        }
    };
    let message = record.attempts.iter().find(differs)?;
    Some(broken(
        Guarantee::StableIdentity,
        format!("{message:?} is not what the dump has"),
    ))
}

/// The end of a dump or of the version has the same bytes on every attempt, in all lives, although
/// there is a time in it. Not so once its dump is extracted anew.
pub fn stable_ends(history: &History, record: &Record) -> Option<Violation> {
    let mut known = History {
        ends: history.ends.clone(),
        ..History::default()
    };
    known.add(record);
    let ends = record.attempts.iter().filter(|message| is_end(message));
    let differs = |end: &&Arc<Message>| known.ends[&(end.route, end.subject)] != end.body;
    let end = ends.into_iter().find(differs)?;
    let (first, now) = (&known.ends[&(end.route, end.subject)], &end.body);
    Some(broken(
        Guarantee::StableIdentity,
        format!(
            "{} was {}, and is {} now",
            end.id(),
            String::from_utf8_lossy(first),
            String::from_utf8_lossy(now)
        ),
    ))
}

/// No record at or before the checkpoint that a life went on from is published in it, nor the end
/// of a dump that was completed by then, nor anything if the version was announced.
pub fn never_again(from: Done, record: &Record) -> Option<Violation> {
    let again = |message: &&Arc<Message>| {
        let done = from.dump(message.route);
        match message.subject {
            Subject::Record(ordinal) => done.is_completed || ordinal.0 <= done.records,
            Subject::FileComplete => done.is_completed,
            Subject::ExtractionComplete => from.is_announced,
        }
    };
    let message = record.attempts.iter().find(again)?;
    Some(broken(
        Guarantee::NeverAgain,
        format!("{message:?} although {:?}", from.dump(message.route)),
    ))
}

/// Of what earlier lives submitted, a life submits at most an interval and a window of records
/// again; once more for each dump that was changed, since that interrupts the dump at hand, and
/// leaves two to be gone on with. Not so after a save has failed, which must not stop processing, or after the disk has
/// destroyed one.
pub fn bounded_repeats(
    scene: &Scene<'_>,
    history: &History,
    from: Done,
    record: &Record,
) -> Option<Violation> {
    let mut again = [0; Kind::ALL.len()];
    for (kind, ordinal) in record
        .attempts
        .iter()
        .filter_map(|message| of_record(message))
    {
        if ordinal <= history.submitted[kind as usize] {
            again[kind as usize] = ordinal
                .saturating_sub(from.dump(kind).records)
                .max(again[kind as usize]);
        }
    }
    let max = scene.scenario.repeats_max() * (1 + history.changes);
    let repeats: u64 = again.iter().sum();
    let what = || format!("{repeats} records were published again, {max} at most are allowed");
    (repeats > max && !history.has_lost_saves).then(|| broken(Guarantee::BoundedRepeats, what()))
}

/// Never are more messages without an answer than the window holds.
pub fn bounded_window(scene: &Scene<'_>, record: &Record) -> Option<Violation> {
    let (most, window) = (record.in_flight_max, scene.scenario.options.window_messages);
    (most > window).then(|| {
        broken(
            Guarantee::BoundedWindow,
            format!("{most} messages were unanswered, the window is {window}"),
        )
    })
}

/// The server has nothing to complain of.
pub fn broker_contract(scene: &Scene<'_>) -> Option<Violation> {
    let complaint = scene.server.violations().into_iter().next()?;
    Some(broken(Guarantee::BrokerContract, complaint))
}

/// No life ends by a panic.
pub fn no_panic(exit: &Exit) -> Option<Violation> {
    match exit {
        Exit::Panicked(message) => Some(broken(Guarantee::NoPanic, message.clone())),
        _ => None,
    }
}

/// A run over a damaged dump fails, names the file, and has saved every record before the damage.
pub fn told_damage(
    scene: &Scene<'_>,
    damaged: Kind,
    exit: &Exit,
    record: &Record,
) -> Option<Violation> {
    let path = Scenario::dump_path(damaged);
    let is_told = matches!(exit, Exit::Failed(error) if error.contains(&*path.to_string_lossy()));
    if !is_told {
        let what = format!(
            "{} is damaged, and the run ended as {exit:?}",
            path.display()
        );
        return Some(broken(Guarantee::ToldDamage, what));
    }
    let saved = record.reported.unwrap_or_default().dump(damaged).records;
    let whole = scene.truth(damaged).records();
    (saved != whole).then(|| {
        let what = format!("{damaged}: {saved} records were saved, {whole} are whole");
        broken(Guarantee::NothingLost, what)
    })
}

/// Everything that must hold once a run is complete.
pub fn end(scene: &Scene<'_>, history: &History) -> Violations {
    let mut violations = Vec::new();
    for kind in Kind::ALL {
        let held = scene.deliveries(kind);
        violations.extend(nothing_lost(scene, kind, &held));
        violations.extend(nothing_invented(kind, &held));
        violations.extend(true_ends(scene, kind, &held));
        match scene.scenario.place.promise() {
            Promise::ExactlyOnce => violations.extend(exactly_once(scene, kind, &held)),
            Promise::AtLeastOnce => {
                violations.extend(in_order(scene, history, kind));
                violations.extend(ends_last(scene, history, kind));
            }
        }
    }
    violations
}

/// Every record is in the broker with the bytes of a run without faults, or it is a dead letter,
/// each once and in order: one without a message, or one that the broker refused.
pub fn nothing_lost(scene: &Scene<'_>, kind: Kind, held: &[Delivery]) -> Option<Violation> {
    let (truth, refused) = (scene.truth(kind), scene.refused(kind));
    let is_lost =
        |ordinal: &u64| !held.contains(&Delivery::Record(*ordinal)) && !refused.contains(ordinal);
    if let Some(lost) = truth.published().map(|(ordinal, _)| ordinal).find(is_lost) {
        return Some(broken(
            Guarantee::NothingLost,
            format!("{kind}: record {lost} of {}", truth.records()),
        ));
    }
    let is_skipped = |ordinal: &u64| truth.message(*ordinal).is_none() || refused.contains(ordinal);
    let expected: Vec<u64> = (1..=truth.records()).filter(is_skipped).collect();
    let letters = scene.letters(kind);
    (letters != expected).then(|| {
        broken(
            Guarantee::NothingLost,
            format!("{kind}: the dead letters are {letters:?}, not {expected:?}"),
        )
    })
}

/// The broker holds nothing but what a dump has.
pub fn nothing_invented(kind: Kind, held: &[Delivery]) -> Option<Violation> {
    held.iter().find_map(|delivery| match delivery {
        Delivery::Foreign(what) => Some(broken(
            Guarantee::NothingInvented,
            format!("{kind}: {what}"),
        )),
        _ => None,
    })
}

/// The last announcements tell how many messages there are.
pub fn true_ends(scene: &Scene<'_>, kind: Kind, held: &[Delivery]) -> Option<Violation> {
    let expected = Some(scene.truth(kind).messages() - scene.refused(kind).len() as u64);
    let last = |is_wanted: fn(&&Delivery) -> bool| held.iter().rev().find(is_wanted);
    let file = last(|it| matches!(it, Delivery::FileComplete(_)));
    let version = last(|it| matches!(it, Delivery::ExtractionComplete(_)));
    let is_true = file == Some(&Delivery::FileComplete(expected))
        && version == Some(&Delivery::ExtractionComplete(expected));
    (!is_true).then(|| {
        broken(
            Guarantee::TrueCounters,
            format!("{kind}: {file:?} and {version:?}, not {expected:?}"),
        )
    })
}

/// The spool holds every message exactly once and in order, and nothing else.
pub fn exactly_once(scene: &Scene<'_>, kind: Kind, held: &[Delivery]) -> Option<Violation> {
    let truth = scene.truth(kind);
    let records = truth
        .published()
        .map(|(ordinal, _)| Delivery::Record(ordinal));
    let count = Some(truth.messages());
    let ends = [
        Delivery::FileComplete(count),
        Delivery::ExtractionComplete(count),
    ];
    let expected: Vec<Delivery> = records.chain(ends).collect();
    let is_so = held == expected && !scene.is_torn(kind);
    (!is_so).then(|| broken(Guarantee::ExactlyOnce, format!("{kind}: {held:?}")))
}

/// The first deliveries of a dump are in the order of its records. Not so after the broker has
/// turned down or dropped a single message: what is behind it in the window is on the way already.
pub fn in_order(scene: &Scene<'_>, history: &History, kind: Kind) -> Option<Violation> {
    let mut highest = 0;
    for delivery in since(scene, history, kind) {
        let Delivery::Record(ordinal) = delivery else {
            continue;
        };
        let skips =
            (highest + 1..ordinal).any(|record| scene.truth(kind).message(record).is_some());
        if skips && !history.has_turned_down {
            return Some(broken(
                Guarantee::InOrder,
                format!("{kind}: record {ordinal} after {highest}"),
            ));
        }
        highest = highest.max(ordinal);
    }
    None
}

/// The end of a dump comes after the first delivery of each of its records, the end of the version
/// after the end of each dump.
pub fn ends_last(scene: &Scene<'_>, history: &History, kind: Kind) -> Option<Violation> {
    let held = since(scene, history, kind);
    let refused = scene.refused(kind);
    let end = held
        .iter()
        .position(|it| matches!(it, Delivery::FileComplete(_)))?;
    let early = |ordinal: &u64| {
        !held[..end].contains(&Delivery::Record(*ordinal)) && !refused.contains(ordinal)
    };
    let late = scene
        .truth(kind)
        .published()
        .map(|(ordinal, _)| ordinal)
        .find(early);
    if let Some(late) = late {
        return Some(broken(
            Guarantee::EndsLast,
            format!("{kind}: record {late} comes after the end"),
        ));
    }
    let held = scene.held(0);
    let from = history.since.iter().copied().max().unwrap_or(0);
    let is_announced = |it: &(Kind, Delivery)| matches!(it.1, Delivery::ExtractionComplete(_));
    let announced = held[from..].iter().position(is_announced);
    let is_early = announced.filter(|announced| {
        let before = &held[history.since[kind as usize]..from + announced];
        let is_end =
            |it: &(Kind, Delivery)| it.0 == kind && matches!(it.1, Delivery::FileComplete(_));
        !before.iter().any(is_end)
    });
    is_early.map(|_| {
        broken(
            Guarantee::EndsLast,
            format!("the version is announced before {kind} ends"),
        )
    })
}

/// What the broker holds of a route since the dump has its present bytes.
fn since(scene: &Scene<'_>, history: &History, kind: Kind) -> Vec<Delivery> {
    let held = scene.held(history.since[kind as usize]).into_iter();
    held.filter(|(route, _)| *route == kind)
        .map(|(_, delivery)| delivery)
        .collect()
}
