//! The checks.

use std::sync::Arc;

use discogs_extractor::broker::{Event, Message, Session, Tag};
use discogs_extractor::dump::Kind;
use discogs_extractor::time::Instant;

use super::bodies::{
    delicate, endings, large, records, records_of_all_routes, records_of_two_versions,
};
use super::program::{Program, assert_same};
use super::{Check, PATIENCE, Subject};

/// Where checks publish that need one route.
const ROUTE: Kind = Kind::Labels;

/// A table of checks from their names.
macro_rules! checks {
    ($($check:ident,)*) => {
        /// Every check, by a name that says what holds of a broker that passes it.
        pub const CHECKS: &[(&str, Check)] = &[$((stringify!($check), $check),)*];
    };
}

checks! {
    connecting_is_answered_with_its_session,
    what_is_confirmed_is_held,
    a_route_keeps_its_order,
    bodies_are_kept_byte_for_byte,
    a_large_message_is_taken,
    control_messages_take_every_route,
    versions_are_apart,
    each_of_two_thousand_in_flight_has_one_answer,
    a_disconnect_is_answered,
    giving_up_connecting_is_answered,
    a_session_ends_once,
    a_connect_waits_for_the_close_before_it,
    what_is_confirmed_while_closing_is_held,
    nothing_is_told_of_a_session_after_its_end,
    a_new_session_finds_what_the_last_one_left,
    a_new_process_finds_what_a_dead_one_left,
    repeats_change_nothing_but_the_count,
    a_broken_link_ends_the_session,
    a_disconnect_may_cross_the_end_of_its_session,
    an_unroutable_message_is_returned_until_it_is_routable,
    a_return_concerns_no_other_message,
    a_deadline_in_the_past_does_not_wait,
    a_waker_ends_a_wait_and_hides_nothing,
}

fn connecting_is_answered_with_its_session(subject: &mut dyn Subject) {
    let mut program = Program::new(subject);
    for _ in 0..3 {
        program.connect();
        program.disconnect();
    }
}

/// Message by message, each right after its confirm. The first is the first thing that ever happens.
fn what_is_confirmed_is_held(subject: &mut dyn Subject) {
    let mut program = Program::connected(subject);
    let messages = records(ROUTE, 1..=3);
    for count in 1..=messages.len() {
        program.deliver(&messages[count - 1..count]);
        program.assert_held(&messages[..count]);
    }
}

fn a_route_keeps_its_order(subject: &mut dyn Subject) {
    check_delivery(subject, &records(ROUTE, 1..=100));
}

fn bodies_are_kept_byte_for_byte(subject: &mut dyn Subject) {
    check_delivery(subject, &delicate(ROUTE));
}

fn a_large_message_is_taken(subject: &mut dyn Subject) {
    check_delivery(subject, &large(ROUTE));
}

fn control_messages_take_every_route(subject: &mut dyn Subject) {
    check_delivery(subject, &endings());
}

/// Sequences and ordinals begin again with each version.
fn versions_are_apart(subject: &mut dyn Subject) {
    check_delivery(subject, &records_of_two_versions(ROUTE, 5));
}

/// More than a batch of any broker here, and over all routes.
fn each_of_two_thousand_in_flight_has_one_answer(subject: &mut dyn Subject) {
    check_delivery(subject, &records_of_all_routes(500));
}

/// Messages in flight together are confirmed, each once, and held in order.
fn check_delivery(subject: &mut dyn Subject, messages: &[Arc<Message>]) {
    let mut program = Program::connected(subject);
    program.deliver(messages);
    assert_eq!(program.disconnect(), [], "everything was answered before");
    program.assert_held(messages);
}

fn a_disconnect_is_answered(subject: &mut dyn Subject) {
    let mut program = Program::connected(subject);
    assert_eq!(program.disconnect(), []);
}

/// The connection may come about before the broker hears that it is given up.
fn giving_up_connecting_is_answered(subject: &mut dyn Subject) {
    let mut program = Program::new(subject);
    let session = program.submit_connect();
    program.submit_disconnect();
    let before = program.until_end_of(session);
    assert!(
        before.is_empty() || before == [Event::Connected(session)],
        "{before:?}"
    );
    program.connect();
}

fn a_session_ends_once(subject: &mut dyn Subject) {
    let mut program = Program::new(subject);
    program.submit_disconnect();
    program.connect();
    program.submit_disconnect();
    assert_eq!(program.disconnect(), []);
    program.submit_disconnect();
    program.connect();
}

/// A program gives a close up that takes too long, and goes on.
fn a_connect_waits_for_the_close_before_it(subject: &mut dyn Subject) {
    let mut program = Program::connected(subject);
    let messages = records(ROUTE, 1..=2);
    program.deliver(&messages[..1]);
    program.submit_disconnect();
    let next = program.submit_connect();
    assert_eq!(program.until_end_of(Session(next.0 - 1)), []);
    assert_eq!(program.event(), Event::Connected(next));
    program.deliver(&messages[1..]);
    program.assert_held(&messages);
}

/// A close does not wait for confirms, or does. What has none may be held.
fn what_is_confirmed_while_closing_is_held(subject: &mut dyn Subject) {
    let mut program = Program::connected(subject);
    let messages = records(ROUTE, 1..=100);
    let tags = program.publish(&messages);
    let events = program.disconnect();
    let confirmed = program.confirmed(&tags, &events);
    let held = program.subject.held(ROUTE);
    for (message, tag) in messages.iter().zip(&tags) {
        let is_held = held.iter().any(|held| held.is(message));
        let is_lost = confirmed.contains(tag) && !is_held;
        assert!(!is_lost, "{message:?} is confirmed and not held");
    }
    let held: Vec<_> = held.iter().collect();
    assert_same(&held, &messages[..held.len().min(messages.len())]);
    program.connect();
    program.deliver(without_confirmed(&messages, &tags, &events));
    program.assert_delivered(&messages);
}

/// The messages from the first on that is not confirmed.
fn without_confirmed<'a>(
    messages: &'a [Arc<Message>],
    tags: &[Tag],
    events: &[Event],
) -> &'a [Arc<Message>] {
    let is_confirmed = |tag: &&Tag| events.contains(&Event::Confirmed(**tag));
    &messages[tags.iter().take_while(is_confirmed).count()..]
}

fn nothing_is_told_of_a_session_after_its_end(subject: &mut dyn Subject) {
    let mut program = Program::connected(subject);
    let messages = records(ROUTE, 1..=20);
    for _ in 0..5 {
        let tags = program.publish(&messages);
        let events = program.disconnect();
        program.confirmed(&tags, &events);
        program.connect();
    }
    program.deliver(&messages);
    assert_eq!(program.disconnect(), []);
}

fn a_new_session_finds_what_the_last_one_left(subject: &mut dyn Subject) {
    let mut program = Program::new(subject);
    let messages = records_of_all_routes(9);
    for third in messages.chunks(3 * Kind::ALL.len()) {
        program.connect();
        program.deliver(third);
        program.disconnect();
    }
    program.assert_held(&messages);
}

/// It goes on at the last checkpoint, which is behind the confirms.
fn a_new_process_finds_what_a_dead_one_left(subject: &mut dyn Subject) {
    let mut program = Program::connected(subject);
    let messages = records(ROUTE, 1..=9);
    program.deliver(&messages[..6]);
    program.die();
    program.assert_held(&messages[..6]);
    program.connect();
    program.deliver(&messages[3..]);
    program.assert_delivered(&messages);
}

fn repeats_change_nothing_but_the_count(subject: &mut dyn Subject) {
    let mut program = Program::connected(subject);
    let messages = records(ROUTE, 1..=15);
    program.deliver(&messages[..10]);
    for from in [0, 5, 9] {
        program.disconnect();
        program.connect();
        program.deliver(&messages[from..10]);
        program.assert_delivered(&messages[..10]);
    }
    program.deliver(&messages[10..]);
    program.assert_delivered(&messages);
}

fn a_broken_link_ends_the_session(subject: &mut dyn Subject) {
    check_broken_link(subject, |_| {});
}

fn a_disconnect_may_cross_the_end_of_its_session(subject: &mut dyn Subject) {
    check_broken_link(subject, |program| program.submit_disconnect());
}

/// Breaks the link with messages in flight, publishes and does something more before that is told,
/// and connects again.
fn check_broken_link(subject: &mut dyn Subject, and: fn(&mut Program<'_>)) {
    let mut program = Program::new(subject);
    let session = program.submit_connect();
    assert_eq!(program.event(), Event::Connected(session));
    let messages = records(ROUTE, 1..=60);
    program.deliver(&messages[..20]);
    let mut tags = program.publish(&messages[20..40]);
    if !program.subject.break_link() {
        return cannot("break its link");
    }
    tags.extend(program.publish(&messages[40..]));
    and(&mut program);
    let events = program.until_end_of(session);
    program.confirmed(&tags, &events);
    program.connect();
    program.deliver(without_confirmed(&messages[20..], &tags, &events));
    assert_eq!(program.disconnect(), []);
    program.assert_delivered(&messages);
}

fn cannot(what: &str) {
    println!("not checked, because this broker cannot {what}");
}

fn an_unroutable_message_is_returned_until_it_is_routable(subject: &mut dyn Subject) {
    if !subject.set_bound(ROUTE, false) {
        return cannot("have an unroutable message");
    }
    let mut program = Program::connected(subject);
    let messages = records(ROUTE, 1..=20);
    for _ in 0..2 {
        let tags = program.publish(&messages);
        let events: Vec<_> = tags.iter().map(|_| program.event()).collect();
        assert_eq!(returned(&events), tags);
    }
    program.assert_held(&[]);
    program.subject.set_bound(ROUTE, true);
    program.deliver(&messages);
    program.assert_held(&messages);
}

/// The tags of `events`, all of which are returns, in order.
fn returned(events: &[Event]) -> Vec<Tag> {
    let tag = |event: &Event| match event {
        Event::Returned(tag, _) => *tag,
        event => panic!("{event:?} and not a return"),
    };
    let mut tags: Vec<_> = events.iter().map(tag).collect();
    tags.sort_unstable();
    tags
}

/// Pipelined, an answer can be given to a neighbour.
fn a_return_concerns_no_other_message(subject: &mut dyn Subject) {
    if !subject.set_bound(ROUTE, false) {
        return cannot("have an unroutable message");
    }
    let mut program = Program::connected(subject);
    let messages = records_of_all_routes(300);
    let tags = program.publish(&messages);
    let events: Vec<_> = tags.iter().map(|_| program.event()).collect();
    let (returns, confirms): (Vec<_>, Vec<_>) = events
        .into_iter()
        .partition(|event| matches!(event, Event::Returned(..)));
    let (unroutable, routable): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .zip(tags)
        .partition(|(message, _)| message.route == ROUTE);
    let tags = |of: &[(Arc<Message>, Tag)]| of.iter().map(|(_, tag)| *tag).collect::<Vec<_>>();
    assert_eq!(returned(&returns), tags(&unroutable));
    let confirmed = program.confirmed(&tags(&routable), &confirms);
    assert_eq!(confirmed.len(), routable.len());
    let routable: Vec<_> = routable.into_iter().map(|(message, _)| message).collect();
    program.assert_held(&routable);
}

fn a_deadline_in_the_past_does_not_wait(subject: &mut dyn Subject) {
    let mut program = Program::new(subject);
    assert_does_not_wait(&mut program, Instant::ORIGIN);
    program.connect();
    assert_does_not_wait(&mut program, Instant::ORIGIN);
    let now = program.subject.now();
    assert_does_not_wait(&mut program, now);
}

/// Asserts that a poll comes back, with nothing, before patience is lost.
fn assert_does_not_wait(program: &mut Program<'_>, deadline: Instant) {
    let before = program.subject.now();
    assert_eq!(program.broker().poll(deadline), None);
    let waited = program.subject.now().since(before);
    assert!(waited < PATIENCE, "waited for {waited:?}");
}

fn a_waker_ends_a_wait_and_hides_nothing(subject: &mut dyn Subject) {
    let mut program = Program::new(subject);
    wake(&mut program, 3);
    let deadline = program.subject.now() + PATIENCE;
    assert_does_not_wait(&mut program, deadline);
    let session = program.submit_connect();
    wake(&mut program, 1);
    assert_eq!(event_despite_wake(&mut program), Event::Connected(session));
    let tags = program.publish(&records(ROUTE, 1..=1));
    wake(&mut program, 1);
    let event = event_despite_wake(&mut program);
    assert_eq!(event, Event::Confirmed(tags[0]));
}

/// Wakes so many times from another thread.
fn wake(program: &mut Program<'_>, times: u32) {
    let waker = program.broker().waker();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..times).for_each(|_| waker.wake()));
    });
}

/// The next event; a wait may have been ended once before it comes.
fn event_despite_wake(program: &mut Program<'_>) -> Event {
    let deadline = program.subject.now() + PATIENCE;
    let event = program.broker().poll(deadline);
    event.unwrap_or_else(|| program.event())
}
