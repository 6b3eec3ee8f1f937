//! Brokers that break the contract, each in one way: the simulated broker behind a wrapper with a
//! planted bug. Each check finds the one that it is there for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{
    Broker, Command, Disconnect, Event, Message, Session, Subject as About, Tag, Waker,
};
use discogs_extractor::dump::Kind;
use discogs_extractor::time::Instant;
use sim::broker::{Client, Stored};
use sim::contract::{CHECKS, Held, Subject, passes};
use sim::world::World;

use crate::simulated::{self, Simulated};

/// How a broker breaks the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// It counts sessions itself.
    NamesAnotherSession,
    /// It confirms and keeps nothing.
    ConfirmsWhatItDrops,
    /// It lets a message overtake another.
    SwapsMessages,
    /// It takes bytes for ASCII.
    ReplacesUmlauts,
    /// It sends the first frame only.
    CutsLargeBodies,
    /// It knows records only.
    ConfirmsControlMessagesUnsent,
    /// It recognises repeats by the sequence alone.
    TakesVersionsForRepeats,
    /// It loses one answer in a thousand.
    LosesAnswers,
    /// It gives one answer in a thousand twice.
    RepeatsAnswers,
    /// It takes a close on request for a failure for good.
    ClosesForEver,
    /// It hears of a disconnect only while it is connected.
    ConnectsRegardless,
    /// It answers each disconnect, even when nothing is open.
    ClosesTwice,
    /// It answers a disconnect, though it has told that the session is over.
    ClosesWhatIsLost,
    /// It ignores a connect while it closes.
    ForgetsToConnect,
    /// It confirms what it throws away when it closes.
    ConfirmsWhatItThrowsAway,
    /// It answers when the session is over.
    AnswersLate,
    /// It begins anew with each session.
    ForgetsSessions,
    /// It keeps in memory what it confirms.
    ForgetsInDeath,
    /// It says that it recognises repeats.
    ClaimsExactlyOnce,
    /// It does not tell that the link is gone.
    HidesLosses,
    /// It takes the confirm of an unroutable message for one.
    ConfirmsReturned,
    /// It attributes the return of a message to its neighbour as well.
    ReturnsNeighbours,
    /// It waits although the deadline has passed.
    WaitsInThePast,
    /// It does not wake up.
    IgnoresItsWaker,
}

/// Each bug, and the check that finds it.
const FOUND: [(Bug, &str); 24] = {
    use Bug::*;
    [
        (
            NamesAnotherSession,
            "connecting_is_answered_with_its_session",
        ),
        (ConfirmsWhatItDrops, "what_is_confirmed_is_held"),
        (SwapsMessages, "a_route_keeps_its_order"),
        (ReplacesUmlauts, "bodies_are_kept_byte_for_byte"),
        (CutsLargeBodies, "a_large_message_is_taken"),
        (
            ConfirmsControlMessagesUnsent,
            "control_messages_take_every_route",
        ),
        (TakesVersionsForRepeats, "versions_are_apart"),
        (
            LosesAnswers,
            "each_of_two_thousand_in_flight_has_one_answer",
        ),
        (
            RepeatsAnswers,
            "each_of_two_thousand_in_flight_has_one_answer",
        ),
        (ClosesForEver, "a_disconnect_is_answered"),
        (ConnectsRegardless, "giving_up_connecting_is_answered"),
        (ClosesTwice, "a_session_ends_once"),
        (
            ClosesWhatIsLost,
            "a_disconnect_may_cross_the_end_of_its_session",
        ),
        (ForgetsToConnect, "a_connect_waits_for_the_close_before_it"),
        (
            ConfirmsWhatItThrowsAway,
            "what_is_confirmed_while_closing_is_held",
        ),
        (AnswersLate, "nothing_is_told_of_a_session_after_its_end"),
        (
            ForgetsSessions,
            "a_new_session_finds_what_the_last_one_left",
        ),
        (ForgetsInDeath, "a_new_process_finds_what_a_dead_one_left"),
        (ClaimsExactlyOnce, "repeats_change_nothing_but_the_count"),
        (HidesLosses, "a_broken_link_ends_the_session"),
        (
            ConfirmsReturned,
            "an_unroutable_message_is_returned_until_it_is_routable",
        ),
        (ReturnsNeighbours, "a_return_concerns_no_other_message"),
        (WaitsInThePast, "a_deadline_in_the_past_does_not_wait"),
        (IgnoresItsWaker, "a_waker_ends_a_wait_and_hides_nothing"),
    ]
};

#[test]
fn a_broker_that_breaks_the_contract_is_found() {
    for (bug, name) in FOUND {
        let (_, check) = CHECKS.iter().find(|(of, _)| *of == name).unwrap();
        assert!(
            !passes(*check, &mut Place::new(bug)),
            "{name} misses {bug:?}"
        );
    }
}

#[test]
fn every_check_finds_something() {
    for (name, _) in CHECKS {
        assert!(FOUND.iter().any(|(_, by)| by == name), "{name}");
    }
}

/// The simulated broker, with a bug.
struct Place {
    simulated: Simulated,
    bug: Bug,
}

impl Place {
    fn new(bug: Bug) -> Self {
        Self {
            simulated: Simulated::new(),
            bug,
        }
    }

    /// Whether the bug has lost what was stored; `last` is the last that was.
    fn is_forgotten(&self, stored: &Stored, last: &Stored) -> bool {
        match self.bug {
            Bug::ForgetsSessions => stored.session != last.session,
            Bug::ForgetsInDeath => stored.life != self.simulated.world.life(),
            _ => false,
        }
    }
}

impl Subject for Place {
    fn open(&mut self) -> Box<dyn Broker> {
        Box::new(Broken {
            bug: self.bug,
            inner: self.simulated.client(),
            world: self.simulated.world.clone(),
            events: VecDeque::new(),
            kept_back: Vec::new(),
            session: None,
            state: State::Down,
            counted: 0,
        })
    }

    fn now(&self) -> Instant {
        self.simulated.world.now()
    }

    fn held(&mut self, route: Kind) -> Vec<Held> {
        let stored = self.simulated.server.stored();
        let of_route = stored.iter().filter(|it| it.message.route == route);
        let kept = of_route.filter(|it| !self.is_forgotten(it, stored.last().unwrap()));
        kept.map(simulated::held).collect()
    }

    fn is_exactly_once(&self) -> bool {
        self.bug == Bug::ClaimsExactlyOnce
    }

    fn break_link(&mut self) -> bool {
        self.simulated.break_link()
    }

    fn set_bound(&mut self, route: Kind, is_bound: bool) -> bool {
        self.simulated.set_bound(route, is_bound)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Connecting,
    Up,
    Closing,
}

/// The program's access to a [`Place`].
struct Broken {
    bug: Bug,
    inner: Client,
    world: World,
    /// Told before anything else.
    events: VecDeque<Event>,
    /// Not submitted yet.
    kept_back: Vec<Command>,
    session: Option<Session>,
    state: State,
    /// Whatever a bug counts.
    counted: u64,
}

impl Broken {
    fn publish(&mut self, tag: Tag, message: Arc<Message>) {
        let mut changed = Message::clone(&message);
        match self.bug {
            Bug::ConfirmsWhatItDrops => return self.events.push_back(Event::Confirmed(tag)),
            Bug::ConfirmsControlMessagesUnsent if !matches!(message.subject, About::Record(_)) => {
                return self.events.push_back(Event::Confirmed(tag));
            }
            Bug::TakesVersionsForRepeats if message.sequence <= self.counted => {
                return self.events.push_back(Event::Confirmed(tag));
            }
            Bug::TakesVersionsForRepeats => self.counted = message.sequence,
            Bug::SwapsMessages if message.sequence == 2 => {
                return self.kept_back.push(Command::Publish(tag, message));
            }
            Bug::ConfirmsWhatItThrowsAway => {
                return self.kept_back.push(Command::Publish(tag, message));
            }
            Bug::ReplacesUmlauts => {
                let ascii = changed.body.iter().copied().filter(u8::is_ascii);
                changed.body = ascii.collect();
            }
            Bug::CutsLargeBodies => changed.body.truncate(65_536),
            Bug::AnswersLate => self.counted = tag.0,
            _ => {}
        }
        self.inner.submit(Command::Publish(tag, Arc::new(changed)));
        self.submit_kept_back();
    }

    fn submit_kept_back(&mut self) {
        for command in self.kept_back.drain(..) {
            self.inner.submit(command);
        }
    }

    fn connect(&mut self, session: Session) {
        if self.bug == Bug::ForgetsToConnect && self.state == State::Closing {
            return;
        }
        (self.session, self.state) = (Some(session), State::Connecting);
        self.inner.submit(Command::Connect(session));
    }

    fn disconnect(&mut self) {
        match (self.bug, self.state) {
            (Bug::ConnectsRegardless, State::Connecting) => return,
            (Bug::ClosesTwice, State::Down | State::Closing) => {
                let again = self.session.map(closed);
                self.events.extend(again);
            }
            (Bug::ConfirmsWhatItThrowsAway, _) => {
                let tags = self
                    .kept_back
                    .drain(..)
                    .filter_map(|command| match command {
                        Command::Publish(tag, _) => Some(tag),
                        _ => None,
                    });
                self.events.extend(tags.map(Event::Confirmed));
            }
            _ => {}
        }
        self.state = State::Closing;
        self.inner.submit(Command::Disconnect);
    }

    /// What the program is told instead of an event.
    fn distort(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Connected(session) => Some(self.connected(session)),
            Event::Disconnected(session, why) => self.disconnected(session, why),
            Event::Confirmed(tag) => self.confirmed(tag),
            Event::Returned(tag, _) if self.bug == Bug::ConfirmsReturned => {
                Some(Event::Confirmed(tag))
            }
            Event::Returned(tag, why) => {
                self.counted += 1;
                Some(Event::Returned(tag, why))
            }
            event => Some(event),
        }
    }

    fn connected(&mut self, session: Session) -> Event {
        self.state = State::Up;
        match self.bug {
            Bug::NamesAnotherSession => Event::Connected(Session(1)),
            _ => Event::Connected(session),
        }
    }

    fn disconnected(&mut self, session: Session, mut why: Disconnect) -> Option<Event> {
        let was_asked_to = self.state == State::Closing;
        self.state = State::Down;
        match self.bug {
            Bug::HidesLosses if !was_asked_to => return None,
            Bug::ClosesWhatIsLost if was_asked_to && why.why.contains("reset") => {
                self.events.push_back(closed(session));
            }
            Bug::ClosesForEver => why.permanent = true,
            Bug::AnswersLate => self.events.push_back(Event::Confirmed(Tag(self.counted))),
            _ => {}
        }
        Some(Event::Disconnected(session, why))
    }

    fn confirmed(&mut self, tag: Tag) -> Option<Event> {
        let is_one_in_a_thousand = tag.0 % 1_000 == 999;
        match self.bug {
            Bug::LosesAnswers if is_one_in_a_thousand => return None,
            Bug::RepeatsAnswers if is_one_in_a_thousand => {
                self.events.push_back(Event::Confirmed(tag));
            }
            Bug::ReturnsNeighbours if self.counted == 100 => {
                self.counted += 1;
                return Some(Event::Returned(tag, "no queue".to_owned()));
            }
            _ => {}
        }
        Some(Event::Confirmed(tag))
    }
}

fn closed(session: Session) -> Event {
    let why = "closed".to_owned();
    let permanent = false;
    Event::Disconnected(session, Disconnect { why, permanent })
}

impl Broker for Broken {
    fn submit(&mut self, command: Command) {
        match command {
            Command::Publish(tag, message) => self.publish(tag, message),
            Command::Connect(session) => self.connect(session),
            Command::Disconnect => self.disconnect(),
        }
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.submit_kept_back();
        let mut deadline = deadline;
        if self.bug == Bug::WaitsInThePast {
            deadline = deadline.max(self.world.now() + Duration::from_secs(3600));
        }
        while self.events.is_empty() {
            let event = self.inner.poll(deadline)?;
            let told = self.distort(event);
            if told.is_some() {
                return told;
            }
        }
        self.events.pop_front()
    }

    fn waker(&self) -> Waker {
        match self.bug {
            Bug::IgnoresItsWaker => Waker::new(|| ()),
            _ => self.inner.waker(),
        }
    }
}
