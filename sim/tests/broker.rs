//! The simulated broker keeps the contract of `Broker` under every combination of its faults, and
//! each fault does what it says. `tests/contract` at the top level has what holds of every broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{Broker, Command, Event, Message, Session, Subject, Tag};
use discogs_extractor::dump::Kind;
use discogs_extractor::record::Ordinal;
use discogs_extractor::time::{Clock, Instant};
use sim::broker::{Client, Server};
use sim::faults::{Fault, Faults};
use sim::tape::{Odometer, Tape};
use sim::world::{Moment, World};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn message(number: u64) -> Arc<Message> {
    Arc::new(Message {
        version: "20260801".parse().expect("a date"),
        route: Kind::Artists,
        subject: Subject::Record(Ordinal(number)),
        sequence: number,
        sha256: String::new(),
        body: format!("{{\"id\":{number}}}").into(),
    })
}

/// A program that can be driven by hand.
struct Bench {
    world: World,
    server: Server,
    client: Client,
}

impl Bench {
    fn new(tape: Tape, faults: Faults) -> Self {
        let world = World::logged(tape, faults);
        let server = Server::new();
        let client = server.client(&world);
        Self {
            world,
            server,
            client,
        }
    }

    /// With the choices of a recording.
    fn told(faults: &[Fault], choices: &[u32]) -> Self {
        Self::new(Tape::recorded(choices.to_vec()), Faults::only(faults))
    }

    /// Connected, the choice of which is the first of the recording if connecting can fail.
    fn connected(faults: &[Fault], choices: &[u32]) -> Self {
        let mut bench = Self::told(faults, choices);
        bench.client.submit(Command::Connect(Session(1)));
        assert_eq!(bench.events(MINUTE), ["Connected(Session(1))"]);
        bench
    }

    fn publish(&mut self, tags: std::ops::RangeInclusive<u64>) {
        for tag in tags {
            self.client.submit(Command::Publish(Tag(tag), message(tag)));
        }
    }

    /// Every event within a time, each in short.
    fn events(&mut self, within: Duration) -> Vec<String> {
        self.poll_all(within).iter().map(short).collect()
    }

    fn poll_all(&mut self, within: Duration) -> Vec<Event> {
        let deadline = self.world.now() + within;
        std::iter::from_fn(|| self.client.poll(deadline)).collect()
    }

    fn stored(&self) -> Vec<u64> {
        self.server
            .stored()
            .iter()
            .map(|stored| stored.tag.0)
            .collect()
    }

    /// The next life of the process, on a tape of its own.
    fn reborn(&self, faults: &[Fault], choices: &[u32]) -> Self {
        let tape = Tape::recorded(choices.to_vec());
        let world = self.world.branch(tape, Faults::only(faults));
        let server = self.server.branch();
        let client = server.client(&world);
        Self {
            world,
            server,
            client,
        }
    }
}

/// An event without what is for people.
fn short(event: &Event) -> String {
    match event {
        Event::Disconnected(session, _) => format!("Disconnected({session:?})"),
        Event::Rejected(tag, _) => format!("Rejected({tag:?})"),
        Event::Returned(tag, _) => format!("Returned({tag:?})"),
        Event::Refused(tag, _) => format!("Refused({tag:?})"),
        Event::Blocked(_) => "Blocked".to_owned(),
        other => format!("{other:?}"),
    }
}

fn confirmed(tags: impl IntoIterator<Item = u64>) -> Vec<String> {
    tags.into_iter()
        .map(|tag| format!("Confirmed(Tag({tag}))"))
        .collect()
}

#[test]
fn without_faults_everything_is_stored_and_confirmed_in_order() {
    let mut bench = Bench::connected(&[], &[]);
    bench.publish(1..=3);
    assert_eq!(bench.server.in_flight(), 3);
    assert_eq!(bench.events(MINUTE), confirmed(1..=3));
    assert_eq!(bench.stored(), [1, 2, 3]);
    assert_eq!(
        (bench.server.in_flight(), bench.server.in_flight_max()),
        (0, 3)
    );
    assert!(
        bench
            .server
            .stored()
            .iter()
            .all(|stored| stored.confirmed.is_some())
    );
    bench.publish(4..=4);
    assert_eq!(bench.events(MINUTE), confirmed(4..=4));
    assert_eq!(bench.server.in_flight_max(), 3, "the most, not the last");
    bench.client.submit(Command::Disconnect);
    assert_eq!(bench.events(MINUTE), ["Disconnected(Session(1))"]);
    assert_eq!(bench.server.violations(), [""; 0]);
}

/// One fault at the arrival of the first of two messages: the events, and what is stored.
fn check_arrival(fault: Fault, choices: &[u32], events: &[&str], stored: &[u64]) {
    let mut bench = Bench::connected(&[fault], choices);
    bench.publish(1..=2);
    assert_eq!(bench.events(HOUR), events, "{fault:?}");
    assert_eq!(bench.stored(), stored, "{fault:?}");
    assert_eq!(bench.world.fired(fault), 1, "{fault:?}");
}

#[test]
fn each_fault_at_arrival_does_what_it_says() {
    let (one, two) = ("Confirmed(Tag(1))", "Confirmed(Tag(2))");
    let gone = "Disconnected(Session(1))";
    check_arrival(Fault::Nack, &[1], &["Rejected(Tag(1))", two], &[2]);
    check_arrival(Fault::Return, &[1], &["Returned(Tag(1))", two], &[2]);
    check_arrival(Fault::Refuse, &[1], &["Refused(Tag(1))", two], &[2]);
    check_arrival(Fault::Drop, &[1], &[two], &[2]);
    check_arrival(Fault::LateConfirm, &[1, 0], &[one, two], &[1, 2]);
    check_arrival(Fault::LateConfirm, &[1, 2], &[two], &[1, 2]);
    check_arrival(Fault::MergedConfirm, &[1], &[one, two], &[1, 2]);
    check_arrival(Fault::Reordered, &[1], &[two, one], &[1, 2]);
    check_arrival(Fault::LinkLoss, &[1, 0], &[gone], &[]);
    check_arrival(Fault::LinkLoss, &[1, 1], &[gone], &[1]);
    let alarm = ["Blocked", "Unblocked", one, two];
    check_arrival(Fault::Blocked, &[1, 2], &alarm, &[1, 2]);
}

#[test]
fn late_confirms_hold_up_those_behind_them_for_minutes() {
    let mut bench = Bench::connected(&[Fault::LateConfirm], &[1, 1]);
    bench.publish(1..=2);
    assert_eq!(bench.events(10 * MINUTE), [""; 0]);
    assert_eq!(bench.stored(), [1, 2]);
    assert_eq!(bench.events(10 * MINUTE), confirmed(1..=2));
}

#[test]
fn merged_confirms_come_at_one_moment() {
    let mut bench = Bench::connected(&[Fault::MergedConfirm], &[1, 1, 0]);
    bench.publish(1..=3);
    assert_eq!(bench.events(MINUTE), confirmed(1..=3));
    let moments: BTreeSet<_> = bench
        .server
        .stored()
        .iter()
        .map(|stored| stored.confirmed)
        .collect();
    // Each poll takes a microsecond; the confirms themselves are not apart.
    let (first, last) = (
        moments.first().unwrap().unwrap(),
        moments.last().unwrap().unwrap(),
    );
    assert!(last.since(first) < Duration::from_micros(5), "{moments:?}");
}

#[test]
fn what_is_refused_once_is_refused_for_ever() {
    let mut bench = Bench::connected(&[Fault::Refuse], &[1]);
    bench.client.submit(Command::Publish(Tag(1), message(7)));
    bench.client.submit(Command::Publish(Tag(2), message(7)));
    assert_eq!(bench.events(MINUTE), ["Refused(Tag(1))", "Refused(Tag(2))"]);
}

#[test]
fn a_broken_link_is_noticed_late_and_swallows_what_is_published() {
    let mut bench = Bench::connected(&[Fault::LinkLoss], &[1, 0, 1]);
    bench.publish(1..=1);
    assert_eq!(bench.events(Duration::from_secs(10)), [""; 0]);
    bench.publish(2..=2);
    assert_eq!(bench.events(MINUTE), ["Disconnected(Session(1))"]);
    assert_eq!(bench.stored(), [0; 0]);
    assert_eq!(
        bench.server.in_flight(),
        0,
        "their fate is unknown, but over"
    );
    assert_eq!(bench.server.violations(), [""; 0]);
}

#[test]
fn answers_of_a_dead_session_may_come_late() {
    let faults = [Fault::LinkLoss, Fault::LateAnswers];
    // The confirm of 1 is on its way when the link breaks at the arrival of 2.
    let mut bench = Bench::connected(&faults, &[0, 1, 0, 0, 1]);
    bench.publish(1..=2);
    let expected = ["Disconnected(Session(1))", "Confirmed(Tag(1))"];
    assert_eq!(bench.events(MINUTE), expected);
}

#[test]
fn an_alarm_ends_with_its_connection() {
    let faults = [Fault::Blocked, Fault::LinkLoss, Fault::LateAnswers];
    // The link breaks when the alarm is over and the program has not been told yet.
    let mut bench = Bench::connected(&faults, &[2, 0, 1, 0, 0, 1]);
    bench.publish(1..=1);
    assert_eq!(bench.events(HOUR), ["Blocked", "Disconnected(Session(1))"]);
}

#[test]
fn answers_to_a_dead_process_reach_nobody() {
    let mut bench = Bench::connected(&[], &[]);
    bench.publish(1..=1);
    assert_eq!(bench.events(Duration::from_micros(1500)), [""; 0]);
    assert_eq!(bench.stored(), [1]);
    let mut next = bench.reborn(&[], &[]);
    next.client.submit(Command::Connect(Session(1)));
    assert_eq!(next.events(HOUR), ["Connected(Session(1))"]);
}

/// Tags begin again in each process, and a late frame of the dead one is not taken for the living.
#[test]
fn a_confirm_belongs_to_the_life_that_asked() {
    let mut bench = Bench::connected(&[], &[]);
    bench.publish(1..=1);
    let faults = [Fault::InFlight, Fault::LateFrames, Fault::LateConfirm];
    let mut next = bench.reborn(&faults, &[1, 2, 1, 1]);
    next.client.submit(Command::Connect(Session(1)));
    next.events(Duration::from_secs(1));
    next.publish(1..=1);
    assert_eq!(next.events(HOUR), confirmed(1..=1));
    let lives = next.server.stored();
    let lives: Vec<_> = lives
        .iter()
        .map(|it| (it.life, it.confirmed.is_some()))
        .collect();
    assert_eq!(lives, [(2, true), (1, false)]);
}

#[test]
fn frames_of_a_dead_process_may_be_accepted_late() {
    let mut bench = Bench::connected(&[], &[]);
    bench.publish(1..=3);
    let faults = [Fault::InFlight, Fault::LateFrames];
    // None in; two of them at once; two of them a minute later, behind the next process's.
    for (choices, expected) in [
        (&[][..], &[11][..]),
        (&[2], &[1, 2, 11]),
        (&[2, 2], &[11, 1, 2]),
    ] {
        let mut next = bench.reborn(&faults, choices);
        next.client.submit(Command::Connect(Session(2)));
        assert_eq!(next.events(Duration::from_secs(1)).len(), 1);
        next.publish(11..=11);
        assert_eq!(next.events(HOUR), confirmed(11..=11));
        assert_eq!(next.stored(), expected);
        assert_eq!(bench.stored(), [0; 0], "a branch is a server of its own");
    }
}

#[test]
fn closing_overtakes_what_is_in_flight() {
    // None in; two of them at once; two of them a minute later, in the next session.
    for (choices, expected) in [
        (&[][..], &[4][..]),
        (&[2], &[1, 2, 4]),
        (&[2, 2], &[4, 1, 2]),
    ] {
        let faults = [Fault::InFlight, Fault::LateFrames];
        let mut bench = Bench::connected(&faults, choices);
        bench.publish(1..=3);
        bench.client.submit(Command::Disconnect);
        bench.client.submit(Command::Connect(Session(2)));
        let expected_events = ["Disconnected(Session(1))", "Connected(Session(2))"];
        assert_eq!(bench.events(Duration::from_secs(1)), expected_events);
        bench.publish(4..=4);
        assert_eq!(bench.events(HOUR), confirmed(4..=4));
        assert_eq!(bench.stored(), expected, "{choices:?}");
        assert_eq!(bench.server.violations(), [""; 0]);
    }
}

#[test]
fn closing_loses_the_answers_that_come_after_it() {
    let mut bench = Bench::connected(&[], &[]);
    bench.publish(1..=1);
    assert_eq!(bench.events(Duration::from_micros(1500)), [""; 0]);
    bench.publish(2..=2);
    bench.client.submit(Command::Disconnect);
    let expected = ["Confirmed(Tag(1))", "Disconnected(Session(1))"];
    assert_eq!(bench.events(HOUR), expected);
    assert_eq!(bench.stored(), [1]);
}

#[test]
fn commands_wait_for_the_end_of_a_close() {
    let mut bench = Bench::connected(&[Fault::ConnectSilent], &[0, 1, 0]);
    for session in 2..=3 {
        bench.client.submit(Command::Disconnect);
        bench.client.submit(Command::Connect(Session(session)));
    }
    // Of session 2 nobody ever heard.
    let expected = [
        "Disconnected(Session(1))",
        "Disconnected(Session(2))",
        "Connected(Session(3))",
    ];
    assert_eq!(bench.events(MINUTE), expected);
    assert_eq!(bench.server.violations(), [""; 0]);
}

#[test]
fn a_connection_may_come_about_while_it_is_given_up() {
    let mut bench = Bench::told(&[], &[]);
    bench.client.submit(Command::Connect(Session(1)));
    bench.client.submit(Command::Disconnect);
    let expected = ["Connected(Session(1))", "Disconnected(Session(1))"];
    assert_eq!(bench.events(MINUTE), expected);
}

#[test]
fn settling_lets_the_last_late_frames_in() {
    let mut bench = Bench::connected(&[Fault::InFlight, Fault::LateFrames], &[2, 2]);
    bench.publish(1..=3);
    bench.server.settle(&bench.world);
    assert_eq!(bench.stored(), [1, 2]);
}

#[test]
fn connecting_fails_in_its_ways() {
    let faults = [Fault::ConnectRefused, Fault::ConnectSilent];
    let mut bench = Bench::told(&faults, &[1, 2, 0]);
    bench.client.submit(Command::Connect(Session(1)));
    assert_eq!(bench.events(MINUTE), ["Disconnected(Session(1))"]);
    bench.client.submit(Command::Connect(Session(2)));
    assert_eq!(bench.events(HOUR), [""; 0]);
    bench.client.submit(Command::Disconnect);
    assert_eq!(bench.events(MINUTE), ["Disconnected(Session(2))"]);
    bench.client.submit(Command::Connect(Session(3)));
    assert_eq!(bench.events(MINUTE), ["Connected(Session(3))"]);
}

#[test]
fn a_forbidden_connection_is_permanent() {
    let mut bench = Bench::told(&[], &[]);
    bench.server.forbid("access refused");
    bench.client.submit(Command::Connect(Session(1)));
    let events = bench.poll_all(MINUTE);
    assert!(
        matches!(&events[..], [Event::Disconnected(Session(1), it)] if it.permanent),
        "{events:?}"
    );
}

#[test]
fn what_is_published_during_an_alarm_waits_for_its_end() {
    let mut bench = Bench::connected(&[Fault::Blocked], &[1, 2]);
    bench.publish(1..=2);
    assert_eq!(bench.events(Duration::from_secs(1)), ["Blocked"]);
    bench.publish(3..=3);
    let mut expected = vec!["Unblocked".to_owned()];
    expected.extend(confirmed(1..=3));
    assert_eq!(bench.events(HOUR), expected);
}

#[test]
fn an_alarm_outlives_the_connection() {
    let mut bench = Bench::connected(&[Fault::Blocked], &[1, 2]);
    bench.publish(1..=1);
    assert_eq!(bench.events(Duration::from_secs(1)), ["Blocked"]);
    bench.client.submit(Command::Disconnect);
    bench.events(Duration::from_secs(1));
    bench.client.submit(Command::Connect(Session(2)));
    let expected = ["Connected(Session(2))", "Blocked", "Unblocked"];
    assert_eq!(bench.events(HOUR), expected);
}

#[test]
fn a_poll_ends_at_its_deadline() {
    let mut bench = Bench::told(&[], &[]);
    let deadline = bench.world.now() + MINUTE;
    assert_eq!(bench.client.poll(deadline), None);
    assert_eq!(bench.world.now(), deadline);
}

#[test]
fn what_is_due_comes_at_once() {
    let mut bench = Bench::told(&[], &[]);
    bench.client.submit(Command::Connect(Session(1)));
    bench.world.clock().advance(MINUTE);
    let due = bench.client.poll(Instant::ORIGIN);
    assert_eq!(due, Some(Event::Connected(Session(1))));
}

#[test]
fn misuse_of_the_contract_is_told() {
    let mut bench = Bench::told(&[], &[]);
    bench.publish(1..=1);
    bench.client.submit(Command::Connect(Session(1)));
    bench.client.submit(Command::Connect(Session(2)));
    bench.events(MINUTE);
    bench.publish(2..=2);
    bench.publish(2..=2);
    assert_eq!(
        bench.server.violations(),
        [
            "publish of Tag(1) while Idle",
            "connect of Session(2) while Connecting(Session(1))",
            "Tag(2) is used twice",
        ]
    );
}

#[test]
fn a_crash_falls_before_or_after_a_submission() {
    for (moment, expected) in [(Moment::Before, &[][..]), (Moment::After, &[5])] {
        let mut bench = Bench::connected(&[], &[]);
        bench.world.crash_at(bench.world.operations() + 1, moment);
        bench.publish(5..=6);
        assert_eq!(bench.events(MINUTE), [""; 0], "the process is dead");
        let next = bench.reborn(&[Fault::InFlight], &[1]);
        next.server.settle(&next.world);
        assert_eq!(next.stored(), expected, "{moment:?}");
    }
}

/// What holds whatever goes wrong.
fn check_contract(bench: &mut Bench) {
    bench.client.submit(Command::Connect(Session(1)));
    let mut events = bench.poll_all(MINUTE);
    if events.first() == Some(&Event::Connected(Session(1))) {
        bench.publish(1..=3);
        events.extend(bench.poll_all(HOUR));
    }
    let told_end = |events: &[Event]| {
        let is_end = |event: &&Event| matches!(event, Event::Disconnected(Session(1), _));
        events.iter().filter(is_end).count()
    };
    if told_end(&events) == 0 {
        bench.client.submit(Command::Disconnect);
        events.extend(bench.poll_all(HOUR));
    }
    assert_eq!(told_end(&events), 1, "{}", bench.world.timeline());
    assert!(bench.stored().is_sorted(), "the wire keeps the order");
    assert_eq!(bench.server.violations(), [""; 0]);
    check_answers(bench, &events);
}

/// Each tag has at most one answer, and the answer is true.
fn check_answers(bench: &Bench, events: &[Event]) {
    let stored: BTreeSet<Tag> = bench
        .server
        .stored()
        .iter()
        .map(|stored| stored.tag)
        .collect();
    let mut answers = BTreeMap::new();
    for event in events {
        let (tag, is_in) = match event {
            Event::Confirmed(tag) => (tag, true),
            Event::Rejected(tag, _) | Event::Returned(tag, _) | Event::Refused(tag, _) => {
                (tag, false)
            }
            _ => continue,
        };
        assert_eq!(answers.insert(*tag, is_in), None, "one answer for {tag:?}");
        assert_eq!(stored.contains(tag), is_in, "{}", bench.world.timeline());
    }
}

/// Up to three choices that are not benign (a fault, and how it goes on), at every place.
#[test]
fn the_contract_holds_under_every_few_faults() {
    let faults = Faults::all().without(Fault::Pause);
    let mut fired = BTreeSet::new();
    for tape in Odometer::at_most(3) {
        let mut bench = Bench::new(tape, faults);
        check_contract(&mut bench);
        fired.extend(
            Fault::ALL
                .into_iter()
                .filter(|&fault| bench.world.fired(fault) > 0),
        );
    }
    assert!(fired.contains(&Fault::LateAnswers), "the rarest: {fired:?}");
}

#[test]
fn the_contract_holds_under_swarms() {
    for seed in 0..500 {
        let tape = Tape::seeded(seed);
        let faults = Faults::swarm(&tape);
        check_contract(&mut Bench::new(tape, faults));
    }
}

#[test]
fn the_wall_clock_goes_with_the_world() {
    let mut bench = Bench::told(&[], &[]);
    let before = bench.world.clock().unix();
    bench.events(HOUR);
    assert!(bench.world.clock().unix() - before >= HOUR);
}
