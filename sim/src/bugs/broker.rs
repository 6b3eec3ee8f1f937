//! Bugs on the way to the broker: what is taken for a confirm, and what becomes of an answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{Broker, Command, Event, Message, Subject, Tag};

use super::tamper::{Twist, twisted};
use super::{Bug, Run, Search};
use crate::disk::Model;
use crate::extractor::Seams;
use crate::guarantee::Guarantee;
use crate::place;

const RUN: Run = Run::new(place::RABBITMQ, 3, 2, 2);
/// A window that holds all that a program sends which waits for nothing.
const WIDE: Run = Run::new(place::RABBITMQ, 3, 2, 16);
/// An interval that holds a dump: between two dumps everything is saved.
const RARE: Run = Run::new(place::RABBITMQ, 3, 10, 2);

/// A day without an answer, and more.
const FOR_EVER: Duration = Duration::from_secs(10_000 * 3600);

type Told = VecDeque<Event>;

fn planted(broker: fn(Box<dyn Broker>) -> Box<dyn Broker>) -> Seams {
    Seams {
        broker,
        ..Seams::default()
    }
}

pub(super) fn bugs() -> Vec<Bug> {
    [confirms(), answers(), ends(), waits()].concat()
}

/// What counts as confirmed.
fn confirms() -> Vec<Bug> {
    vec![
        Bug {
            name: "checkpoint-at-batching",
            what: "a record counts as published once it is in a batch, before the batch is sent",
            search: Search::Crashes(WIDE, Model::Full, 1),
            breaks: &[Guarantee::NeverAhead],
            seams: planted(|broker| twisted(broker, Batching::default())),
        },
        Bug {
            name: "checkpoint-before-confirm",
            what: "a record counts as published once it is sent",
            search: Search::Crashes(WIDE, Model::Full, 1),
            breaks: &[Guarantee::NeverAhead],
            seams: planted(|broker| twisted(broker, SentIsConfirmed)),
        },
        Bug {
            name: "frontier-is-highest-confirm",
            what: "a confirm counts for everything that was sent before it",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::NeverAhead, Guarantee::NothingLost],
            seams: planted(|broker| twisted(broker, Highest::default())),
        },
        Bug {
            name: "barrier-waits-for-the-last",
            what: "a batch counts as published once its last message is confirmed",
            search: Search::SingleFaults(RARE),
            breaks: &[Guarantee::NeverAhead, Guarantee::NothingLost],
            seams: planted(|broker| twisted(broker, Barrier::default())),
        },
        Bug {
            name: "confirms-lost-on-reconnect",
            what: "after a reconnect confirm mode is off, and what is sent counts as published",
            search: Search::Seeds(200),
            breaks: &[
                Guarantee::NeverAhead,
                Guarantee::NothingLost,
                Guarantee::BoundedWindow,
            ],
            seams: planted(|broker| twisted(broker, ConfirmsOnce::default())),
        },
        Bug {
            name: "publish-error-is-swallowed",
            what: "what is in flight when the link breaks counts as published",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::NeverAhead, Guarantee::NothingLost],
            seams: planted(|broker| twisted(broker, Swallowed::default())),
        },
        Bug {
            name: "full-queue-drops",
            what: "a publish that finds the queue to the broker full is dropped, and the error ignored",
            search: Search::Crashes(Run::new(place::RABBITMQ, 3, 2, 3), Model::Full, 0),
            breaks: &[Guarantee::NothingLost],
            seams: planted(|broker| twisted(broker, FullQueue::default())),
        },
    ]
}

/// What is made of answers.
fn answers() -> Vec<Bug> {
    vec![
        Bug {
            name: "nack-is-success",
            what: "a nack is taken for a confirm",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::NeverAhead, Guarantee::NothingLost],
            seams: planted(|broker| twisted(broker, NackIsSuccess)),
        },
        Bug {
            name: "unroutable-is-success",
            what: "a message that was returned as unroutable counts as published",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::NeverAhead, Guarantee::NothingLost],
            seams: planted(|broker| twisted(broker, ReturnIsSuccess)),
        },
        Bug {
            name: "return-of-another-record",
            what: "a return is attributed to another record in flight",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::NeverAhead, Guarantee::NothingLost],
            seams: planted(|broker| twisted(broker, WrongReturn::default())),
        },
        Bug {
            name: "tags-start-again",
            what: "tags are counted from 1 again after a reconnect, so that late answers fit new messages",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::BrokerContract],
            seams: planted(|broker| twisted(broker, TagsAgain::default())),
        },
        Bug {
            name: "late-answer-panics",
            what: "an answer of a dead session, which nobody waits for, ends the program",
            search: Search::Seeds(200),
            breaks: &[Guarantee::NoPanic],
            seams: planted(|broker| twisted(broker, PanicsOnLate::default())),
        },
        Bug {
            name: "republish-in-another-order",
            what: "after a reconnect messages are published again in another order than that of the records",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::InOrder],
            seams: planted(|broker| twisted(broker, Reversed::default())),
        },
    ]
}

/// The ends of dumps and of the version.
fn ends() -> Vec<Bug> {
    vec![
        Bug {
            name: "completed-before-its-end",
            what: "a dump counts as completed before its end message is confirmed",
            search: Search::Seeds(200),
            breaks: &[Guarantee::NeverAhead],
            seams: planted(|broker| twisted(broker, EndIsConfirmed)),
        },
        Bug {
            name: "failed-end-is-success",
            what: "an end message that the broker did not take does not keep the run from being complete",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::NeverAhead, Guarantee::TrueCounters],
            seams: planted(|broker| twisted(broker, EndFails::default())),
        },
        Bug {
            name: "end-overtakes-a-record",
            what: "the last record of a dump is published after the end of the dump",
            search: Search::Crashes(RUN, Model::Full, 0),
            breaks: &[Guarantee::EndsLast],
            seams: planted(|broker| twisted(broker, EndOvertakes::default())),
        },
        Bug {
            name: "end-names-another-dump",
            what: "an end message names a dump that does not exist",
            search: Search::Crashes(RUN, Model::Full, 0),
            breaks: &[Guarantee::NothingInvented],
            seams: planted(|broker| twisted(broker, WrongEnd)),
        },
    ]
}

/// Time limits and retries.
fn waits() -> Vec<Bug> {
    let with = |options| Seams {
        options,
        ..Seams::default()
    };
    vec![
        Bug {
            name: "no-confirm-timeout",
            what: "a confirm that does not come is waited for without end",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::Ends],
            seams: with(|mut options| {
                options.link.confirm_timeout = FOR_EVER;
                options
            }),
        },
        Bug {
            name: "no-connect-timeout",
            what: "a connection that is never answered is waited for without end",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::Ends],
            seams: with(|mut options| {
                options.link.connect_timeout = FOR_EVER;
                options
            }),
        },
        Bug {
            name: "backoff-never-retries",
            what: "after a failure the next attempt to connect never comes",
            search: Search::SingleFaults(RUN),
            breaks: &[Guarantee::Ends],
            seams: with(|mut options| {
                options.link.retry_min = FOR_EVER;
                options.link.retry_max = FOR_EVER;
                options
            }),
        },
        Bug {
            name: "broken-link-is-final",
            what: "a run ends by an error because the link broke once",
            search: Search::Seeds(200),
            breaks: &[Guarantee::FailsForAReason],
            seams: planted(|broker| twisted(broker, LossIsFinal)),
        },
        Bug {
            name: "window-off-by-one",
            what: "one message more than configured is sent without an answer",
            search: Search::Crashes(RUN, Model::Full, 0),
            breaks: &[Guarantee::BoundedWindow],
            seams: with(|mut options| {
                options.window_messages += 1;
                options
            }),
        },
    ]
}

/// Confirms at once, and sends when the program has nothing else to do.
#[derive(Default)]
struct Batching(Vec<Command>);

impl Batching {
    fn send(&mut self, broker: &mut dyn Broker) {
        self.0.drain(..).for_each(|command| broker.submit(command));
    }
}

impl Twist for Batching {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, told: &mut Told) {
        if let Command::Publish(tag, _) = command {
            told.push_back(Event::Confirmed(tag));
            self.0.push(command);
        } else {
            self.send(broker);
            broker.submit(command);
        }
    }

    fn waits(&mut self, broker: &mut dyn Broker) {
        self.send(broker);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        if !matches!(event, Event::Confirmed(_)) {
            told.push_back(event);
        }
    }
}

struct SentIsConfirmed;

impl Twist for SentIsConfirmed {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, told: &mut Told) {
        if let Command::Publish(tag, _) = command {
            told.push_back(Event::Confirmed(tag));
        }
        broker.submit(command);
    }
}

/// What was sent in the present session and has no answer.
#[derive(Default)]
struct Sent(BTreeSet<Tag>);

impl Sent {
    fn submit(&mut self, command: &Command) {
        if let Command::Publish(tag, _) = command {
            self.0.insert(*tag);
        }
    }

    fn hears(&mut self, event: &Event) {
        match event {
            Event::Confirmed(tag)
            | Event::Rejected(tag, _)
            | Event::Returned(tag, _)
            | Event::Refused(tag, _) => _ = self.0.remove(tag),
            Event::Disconnected(..) => self.0.clear(),
            Event::Connected(_) | Event::Blocked(_) | Event::Unblocked => {}
        }
    }
}

#[derive(Default)]
struct Highest(Sent);

impl Twist for Highest {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        self.0.submit(&command);
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        if let Event::Confirmed(highest) = event {
            let before = self.0.0.iter().filter(|&&tag| tag < highest);
            told.extend(before.map(|&tag| Event::Confirmed(tag)));
            self.0.0.retain(|&tag| tag > highest);
        }
        self.0.hears(&event);
        told.push_back(event);
    }
}

#[derive(Default)]
struct Barrier {
    sent: Sent,
    last: Option<Tag>,
}

impl Twist for Barrier {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        self.sent.submit(&command);
        if let Command::Publish(tag, _) = command {
            self.last = Some(tag);
        }
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        match event {
            Event::Confirmed(tag) if Some(tag) == self.last => {
                let batch = std::mem::take(&mut self.sent.0);
                told.extend(batch.into_iter().map(Event::Confirmed));
            }
            Event::Confirmed(_) => {}
            event => {
                self.sent.hears(&event);
                told.push_back(event);
            }
        }
    }
}

#[derive(Default)]
struct ConfirmsOnce {
    connections: u32,
}

impl Twist for ConfirmsOnce {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, told: &mut Told) {
        if let Command::Publish(tag, _) = command
            && self.connections > 1
        {
            told.push_back(Event::Confirmed(tag));
        }
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        self.connections += u32::from(matches!(event, Event::Connected(_)));
        told.push_back(event);
    }
}

#[derive(Default)]
struct Swallowed(Sent);

impl Twist for Swallowed {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        self.0.submit(&command);
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        if let Event::Disconnected(..) = event {
            told.extend(self.0.0.iter().map(|&tag| Event::Confirmed(tag)));
        }
        self.0.hears(&event);
        told.push_back(event);
    }
}

/// The queue holds two.
#[derive(Default)]
struct FullQueue(Sent);

impl Twist for FullQueue {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, told: &mut Told) {
        if let Command::Publish(tag, _) = command
            && self.0.0.len() == 2
        {
            told.push_back(Event::Confirmed(tag));
            return;
        }
        self.0.submit(&command);
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        self.0.hears(&event);
        told.push_back(event);
    }
}

struct NackIsSuccess;

impl Twist for NackIsSuccess {
    fn hears(&mut self, event: Event, told: &mut Told) {
        told.push_back(match event {
            Event::Rejected(tag, _) => Event::Confirmed(tag),
            event => event,
        });
    }
}

struct ReturnIsSuccess;

impl Twist for ReturnIsSuccess {
    fn hears(&mut self, event: Event, told: &mut Told) {
        told.push_back(match event {
            Event::Returned(tag, _) => Event::Confirmed(tag),
            event => event,
        });
    }
}

#[derive(Default)]
struct WrongReturn {
    sent: Sent,
    /// Whose confirm counts for whom.
    mistaken: BTreeMap<Tag, Tag>,
}

impl Twist for WrongReturn {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        self.sent.submit(&command);
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        self.sent.hears(&event);
        told.push_back(match event {
            Event::Returned(tag, why) => {
                let other = self.sent.0.first().copied().unwrap_or(tag);
                self.mistaken.insert(other, tag);
                Event::Returned(other, why)
            }
            Event::Confirmed(tag) => Event::Confirmed(self.mistaken.remove(&tag).unwrap_or(tag)),
            event => event,
        });
    }
}

#[derive(Default)]
struct TagsAgain {
    last: u64,
    /// What the program calls it.
    own: BTreeMap<Tag, Tag>,
}

impl Twist for TagsAgain {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        broker.submit(match command {
            Command::Publish(tag, message) => {
                self.last += 1;
                self.own.insert(Tag(self.last), tag);
                Command::Publish(Tag(self.last), message)
            }
            command => command,
        });
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        let own = |tag: Tag| self.own.get(&tag).copied().unwrap_or(tag);
        told.push_back(match event {
            Event::Confirmed(tag) => Event::Confirmed(own(tag)),
            Event::Rejected(tag, why) => Event::Rejected(own(tag), why),
            Event::Returned(tag, why) => Event::Returned(own(tag), why),
            Event::Refused(tag, why) => Event::Refused(own(tag), why),
            event => {
                if let Event::Connected(_) = event {
                    self.last = 0;
                }
                event
            }
        });
    }
}

#[derive(Default)]
struct PanicsOnLate(Sent);

impl Twist for PanicsOnLate {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        self.0.submit(&command);
        if command == Command::Disconnect {
            self.0.0.clear();
        }
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        if let Event::Confirmed(tag) = &event
            && !self.0.0.contains(tag)
        {
            // As a panic, but without its lines on the terminal.
            resume_unwind(Box::new("an answer to nothing"));
        }
        self.0.hears(&event);
        told.push_back(event);
    }
}

/// After a reconnect, sends two at a time, the later one first.
#[derive(Default)]
struct Reversed {
    connections: u32,
    held: Vec<Command>,
    /// How often the program has waited since it last published.
    waits: u32,
}

impl Twist for Reversed {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        match command {
            Command::Publish(..) if self.connections > 1 => {
                self.waits = 0;
                self.held.push(command);
            }
            command => broker.submit(command),
        }
    }

    fn waits(&mut self, broker: &mut dyn Broker) {
        self.waits += 1;
        if self.held.len() > 1 || self.waits > 2 {
            let later_first = self.held.drain(..).rev();
            later_first.for_each(|command| broker.submit(command));
        }
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        match event {
            Event::Connected(_) => self.connections += 1,
            Event::Disconnected(..) => self.held.clear(),
            _ => {}
        }
        told.push_back(event);
    }
}

struct EndIsConfirmed;

impl Twist for EndIsConfirmed {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, told: &mut Told) {
        if let Command::Publish(tag, message) = &command
            && message.subject == Subject::FileComplete
        {
            told.push_back(Event::Confirmed(*tag));
        }
        broker.submit(command);
    }
}

#[derive(Default)]
struct EndFails(BTreeSet<Tag>);

impl Twist for EndFails {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        if let Command::Publish(tag, message) = &command
            && !matches!(message.subject, Subject::Record(_))
        {
            self.0.insert(*tag);
        }
        broker.submit(command);
    }

    fn hears(&mut self, event: Event, told: &mut Told) {
        told.push_back(match event {
            Event::Rejected(tag, _) | Event::Returned(tag, _) if self.0.contains(&tag) => {
                Event::Confirmed(tag)
            }
            event => event,
        });
    }
}

/// Holds each record back until the next message.
#[derive(Default)]
struct EndOvertakes(Option<Command>);

impl Twist for EndOvertakes {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, told: &mut Told) {
        let subject = match &command {
            Command::Publish(_, message) => Some(message.subject),
            _ => None,
        };
        match (subject, &command) {
            (Some(Subject::Record(_)), Command::Publish(tag, _)) => {
                told.push_back(Event::Confirmed(*tag));
                if let Some(earlier) = self.0.replace(command) {
                    broker.submit(earlier);
                }
            }
            _ => {
                broker.submit(command);
                if let Some(last) = self.0.take() {
                    broker.submit(last);
                }
            }
        }
    }
}

struct WrongEnd;

impl Twist for WrongEnd {
    fn submit(&mut self, broker: &mut dyn Broker, command: Command, _: &mut Told) {
        broker.submit(match command {
            Command::Publish(tag, message) if message.subject == Subject::FileComplete => {
                let text = String::from_utf8_lossy(&message.body);
                let (route, body) = (message.route.name(), text.into_owned());
                let named = format!("\"data_type\":\"{route}\"");
                Command::Publish(
                    tag,
                    Arc::new(Message {
                        body: body.replace(&named, "\"data_type\":\"dump\"").into(),
                        ..Message::clone(&message)
                    }),
                )
            }
            command => command,
        });
    }
}

struct LossIsFinal;

impl Twist for LossIsFinal {
    fn hears(&mut self, event: Event, told: &mut Told) {
        told.push_back(match event {
            Event::Disconnected(session, mut disconnect) => {
                disconnect.permanent = true;
                Event::Disconnected(session, disconnect)
            }
            event => event,
        });
    }
}
