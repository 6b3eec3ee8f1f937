//! The broker that takes everything and keeps nothing: the upper bound in benchmarks.

use std::sync::Arc;

use crate::broker::{Broker, Command, Disconnect, Event, Session, Waker};
use crate::queue::{EventQueue, EventSender, queue};
use crate::time::{Clock, Instant};

/// Confirms every message at once.
#[derive(Debug)]
pub struct Null {
    sender: EventSender,
    queue: EventQueue,
    session: Option<Session>,
}

impl Null {
    /// A broker whose deadlines are those of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (sender, queue) = queue(clock);
        Self {
            sender,
            queue,
            session: None,
        }
    }
}

impl Broker for Null {
    fn submit(&mut self, command: Command) {
        match command {
            Command::Connect(session) => {
                self.session = Some(session);
                self.sender.send(Event::Connected(session));
            }
            Command::Publish(tag, _) => self.sender.send(Event::Confirmed(tag)),
            Command::Disconnect => {
                if let Some(session) = self.session.take() {
                    let why = "closed on request".to_owned();
                    let permanent = false;
                    let disconnect = Disconnect { why, permanent };
                    self.sender.send(Event::Disconnected(session, disconnect));
                }
            }
        }
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.queue.poll(deadline)
    }

    fn waker(&self) -> Waker {
        self.sender.waker()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Message, Subject, Tag};
    use crate::dump::Kind;
    use crate::record::Ordinal;
    use crate::time::SystemClock;

    #[test]
    fn every_command_is_answered_at_once() {
        let message = Message {
            version: "20260801".parse().unwrap(),
            route: Kind::Artists,
            subject: Subject::Record(Ordinal(1)),
            sequence: 1,
            sha256: String::new(),
            body: b"{}".as_slice().into(),
        };
        let mut null = Null::new(Arc::new(SystemClock::new()));
        null.submit(Command::Disconnect);
        null.submit(Command::Connect(Session(1)));
        null.submit(Command::Publish(Tag(7), Arc::new(message)));
        null.submit(Command::Disconnect);
        let events: Vec<_> = std::iter::from_fn(|| null.poll(Instant::ORIGIN)).collect();
        let closed = Disconnect {
            why: "closed on request".to_owned(),
            permanent: false,
        };
        let expected = [
            Event::Connected(Session(1)),
            Event::Confirmed(Tag(7)),
            Event::Disconnected(Session(1), closed),
        ];
        assert_eq!(events, expected);
    }
}
