//! The program's side of a broker, driven by hand.

use std::collections::BTreeSet;
use std::sync::Arc;

use discogs_extractor::broker::{Broker, Command, Disconnect, Event, Message, Session, Tag};
use discogs_extractor::dump::Kind;

use super::{Held, PATIENCE, Subject};

/// Sessions of the first process begin after this one, so that no broker can count along.
const SESSIONS_BEFORE: u64 = 40;

/// The program and the broker under test.
pub(super) struct Program<'a> {
    pub(super) subject: &'a mut dyn Subject,
    /// `None` only while the process is dead.
    broker: Option<Box<dyn Broker>>,
    sessions: u64,
    tags: u64,
}

impl<'a> Program<'a> {
    /// Not connected.
    pub(super) fn new(subject: &'a mut dyn Subject) -> Self {
        let broker = Some(subject.open());
        Self {
            subject,
            broker,
            sessions: SESSIONS_BEFORE,
            tags: 0,
        }
    }

    pub(super) fn connected(subject: &'a mut dyn Subject) -> Self {
        let mut program = Self::new(subject);
        program.connect();
        program
    }

    /// Dies without notice; the next process knows nothing of this one, and counts from 1.
    pub(super) fn die(&mut self) {
        self.broker = None;
        self.broker = Some(self.subject.open());
        (self.sessions, self.tags) = (0, 0);
    }

    pub(super) fn broker(&mut self) -> &mut dyn Broker {
        &mut **self.broker.as_mut().expect("the process is alive")
    }

    pub(super) fn submit_connect(&mut self) -> Session {
        self.sessions += 1;
        let session = Session(self.sessions);
        self.broker().submit(Command::Connect(session));
        session
    }

    pub(super) fn submit_disconnect(&mut self) {
        self.broker().submit(Command::Disconnect);
    }

    /// Connects, which nothing comes before: an alarm belongs to its connection.
    pub(super) fn connect(&mut self) {
        let session = self.submit_connect();
        let deadline = self.subject.now() + PATIENCE;
        let event = self.broker().poll(deadline);
        assert_eq!(event, Some(Event::Connected(session)));
    }

    /// Closes the session; what came before its end.
    pub(super) fn disconnect(&mut self) -> Vec<Event> {
        let session = Session(self.sessions);
        self.submit_disconnect();
        self.until_end_of(session)
    }

    /// The next event, which must come. Alarms are waited out: on a broker that is shared, others
    /// may cause them.
    pub(super) fn event(&mut self) -> Event {
        let deadline = self.subject.now() + PATIENCE;
        loop {
            match self.broker().poll(deadline) {
                Some(Event::Blocked(_) | Event::Unblocked) => {}
                Some(event) => return event,
                None => panic!("no event within {PATIENCE:?}"),
            }
        }
    }

    /// What comes before the end of `session`, which is no permanent one.
    pub(super) fn until_end_of(&mut self, session: Session) -> Vec<Event> {
        let mut before = Vec::new();
        loop {
            match self.event() {
                Event::Disconnected(of, Disconnect { permanent, why }) => {
                    assert_eq!(of, session, "{why}");
                    assert!(!permanent, "another attempt is not pointless: {why}");
                    return before;
                }
                event => before.push(event),
            }
        }
    }

    pub(super) fn publish(&mut self, messages: &[Arc<Message>]) -> Vec<Tag> {
        let publish_one = |message: &Arc<Message>| {
            self.tags += 1;
            let tag = Tag(self.tags);
            let command = Command::Publish(tag, Arc::clone(message));
            self.broker().submit(command);
            tag
        };
        messages.iter().map(publish_one).collect()
    }

    /// Publishes in one go, and waits for the confirm of each.
    pub(super) fn deliver(&mut self, messages: &[Arc<Message>]) {
        let tags = self.publish(messages);
        let confirmed: Vec<_> = tags.iter().map(|_| self.event()).collect();
        assert_eq!(self.confirmed(&tags, &confirmed).len(), tags.len());
    }

    /// Which of `tags` are confirmed by `events`, each at most once and by nothing else.
    pub(super) fn confirmed(&self, tags: &[Tag], events: &[Event]) -> BTreeSet<Tag> {
        let mut confirmed = BTreeSet::new();
        for event in events {
            let Event::Confirmed(tag) = event else {
                panic!("{event:?} and not a confirm");
            };
            assert!(tags.contains(tag), "{tag:?} was not published");
            assert!(confirmed.insert(*tag), "{tag:?} has two answers");
        }
        confirmed
    }

    /// Asserts that exactly these messages are held, each once, in order of their routes.
    pub(super) fn assert_held(&mut self, messages: &[Arc<Message>]) {
        for route in Kind::ALL {
            let held = self.subject.held(route);
            assert_same(&held.iter().collect::<Vec<_>>(), &of_route(messages, route));
        }
    }

    /// Asserts that these messages are held, and nothing else; in order, but for repeats. Where the
    /// subject holds a message once, there are none.
    pub(super) fn assert_delivered(&mut self, messages: &[Arc<Message>]) {
        if self.subject.is_exactly_once() {
            return self.assert_held(messages);
        }
        for route in Kind::ALL {
            let held = self.subject.held(route);
            assert_same(&without_repeats(&held), &of_route(messages, route));
        }
    }
}

/// The messages of a route, in order.
pub(super) fn of_route(messages: &[Arc<Message>], route: Kind) -> Vec<Arc<Message>> {
    let of_route = messages.iter().filter(|message| message.route == route);
    of_route.map(Arc::clone).collect()
}

/// What is held for the first time.
pub(super) fn without_repeats(held: &[Held]) -> Vec<&Held> {
    let is_first = |&(at, it): &(usize, &Held)| !held[..at].contains(it);
    let firsts = held.iter().enumerate().filter(is_first);
    firsts.map(|(_, it)| it).collect()
}

/// Asserts that the messages are these, and names the first that is not.
pub(super) fn assert_same(held: &[&Held], messages: &[Arc<Message>]) {
    for (held, message) in held.iter().zip(messages) {
        assert!(held.is(message), "{held:?} in the place of {message:?}");
    }
    let (actual, expected) = (held.len(), messages.len());
    assert_eq!(actual, expected, "so many messages are held");
}
