//! How a broker that works on threads of its own hands its events to the program.
//!
//! The broker's threads hold an [`EventSender`], the program's thread the [`EventQueue`]. Wakes
//! travel through the same channel as events: a wake that is sent before the program waits is
//! found by the wait, so none is lost.
//!
//! The channel has no bound of its own and needs none: the program has a window of unanswered
//! messages, and every message has one answer.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::broker::{Event, Waker};
use crate::time::{Clock, Instant};

/// An empty queue; deadlines are those of `clock`.
pub fn queue(clock: Arc<dyn Clock>) -> (EventSender, EventQueue) {
    let (sender, receiver) = channel();
    (EventSender(sender), EventQueue { receiver, clock })
}

/// What travels through the channel: an event, or the wish that a wait ends (`None`).
type Token = Option<Event>;

/// The broker's end of the queue.
#[derive(Clone)]
pub struct EventSender(Sender<Token>);

impl EventSender {
    /// Queues an event. Once the queue is gone nobody is interested, and the event is dropped.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(Some(event));
    }

    /// A handle that ends the present or the next wait of the queue.
    pub fn waker(&self) -> Waker {
        let sender = self.0.clone();
        Waker::new(move || {
            let _ = sender.send(None);
        })
    }
}

impl fmt::Debug for EventSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventSender")
    }
}

/// The program's end of the queue.
pub struct EventQueue {
    receiver: Receiver<Token>,
    clock: Arc<dyn Clock>,
}

impl EventQueue {
    /// The next event; waits for one until `deadline`. `None` means that the deadline has passed,
    /// that a waker was used, or that every sender is gone.
    pub fn poll(&mut self, deadline: Instant) -> Option<Event> {
        let left = deadline.since(self.clock.now());
        self.receiver.recv_timeout(left).ok().flatten()
    }
}

impl fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventQueue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Tag;
    use std::time::Duration;

    /// A clock that stands still, so that a deadline is in the past or an hour away.
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Instant {
            Instant::from_nanoseconds(1)
        }

        fn unix(&self) -> Duration {
            Duration::ZERO
        }
    }

    const PAST: Instant = Instant::ORIGIN;

    fn in_an_hour() -> Instant {
        Still.now() + Duration::from_secs(3600)
    }

    #[test]
    fn events_arrive_in_order_even_after_the_deadline() {
        let (sender, mut queue) = queue(Arc::new(Still));
        for tag in 1..=2 {
            sender.send(Event::Confirmed(Tag(tag)));
        }
        assert_eq!(queue.poll(PAST), Some(Event::Confirmed(Tag(1))));
        assert_eq!(queue.poll(in_an_hour()), Some(Event::Confirmed(Tag(2))));
        assert_eq!(queue.poll(PAST), None);
    }

    #[test]
    fn a_wake_ends_one_wait() {
        let (sender, mut queue) = queue(Arc::new(Still));
        sender.waker().wake();
        sender.send(Event::Unblocked);
        assert_eq!(queue.poll(in_an_hour()), None);
        assert_eq!(queue.poll(in_an_hour()), Some(Event::Unblocked));
    }

    #[test]
    fn nobody_waits_for_a_broker_that_is_gone() {
        let (sender, mut queue) = queue(Arc::new(Still));
        sender.send(Event::Unblocked);
        drop(sender);
        assert_eq!(queue.poll(in_an_hour()), Some(Event::Unblocked));
        assert_eq!(queue.poll(in_an_hour()), None);
    }
}
