//! How a broker that works on threads of its own hands its events to the program, and how a broker
//! that blocks is given such a thread: [`Threaded`].
//!
//! The broker's threads hold an [`EventSender`], the program's thread the [`EventQueue`]. Wakes
//! travel through the same channel as events: a wake that is sent before the program waits is
//! found by the wait, so none is lost.
//!
//! The channel has no bound of its own and needs none: the program has a window of unanswered
//! messages, and every message has one answer.

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use crate::broker::{Broker, Command, Event, Waker};
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
    ///
    /// A wake ends the wait and not the queue: events that are there already come before it.
    pub fn poll(&mut self, deadline: Instant) -> Option<Event> {
        match self.next(deadline)? {
            None => self.receiver.try_iter().flatten().next(),
            event => event,
        }
    }

    /// The next token. The clock is read only if there is none: a run polls several times for each
    /// record, and would spend much of its time on that.
    fn next(&self, deadline: Instant) -> Option<Token> {
        match self.receiver.try_recv() {
            Err(TryRecvError::Empty) => {
                let left = deadline.since(self.clock.now());
                let wait = |left| self.receiver.recv_timeout(left).ok();
                (!left.is_zero()).then_some(left).and_then(wait)
            }
            token => token.ok(),
        }
    }
}

impl fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventQueue")
    }
}

/// A broker that blocks while it works, on a thread of its own.
///
/// The inner broker must have nothing to wait for but commands: its `poll` works until nothing is
/// left to do and then returns `None`, whatever the deadline. It is given the end of time as the
/// deadline, which tells it to finish what it holds back. The thread takes all commands that have
/// arrived before each poll. So a group commit takes in whatever was submitted during the last
/// one, and an idle thread sleeps until the next command.
///
/// Dropping this ends the thread after the operation that it is in, without a commit, as a crash
/// would: submit [`Command::Disconnect`] first and wait for its answer to close in good order.
/// A panic of the inner broker goes on in the program's thread.
pub struct Threaded {
    /// `None` only while this is dropped.
    commands: Option<Sender<Command>>,
    events: EventQueue,
    waker: Waker,
    /// Set by the thread when it ends.
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Threaded {
    /// Runs the broker that `make` returns; `make` runs on the new thread. Deadlines are those of
    /// `clock`.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the adapter that gives a broker a thread"
    )]
    pub fn new<B: Broker>(
        make: impl FnOnce() -> B + Send + 'static,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (commands, inbox) = channel();
        let (outbox, events) = queue(clock);
        let waker = outbox.waker();
        let ended = Arc::new(AtomicBool::new(false));
        let end = End {
            ended: Arc::clone(&ended),
            waker: waker.clone(),
        };
        let work = move || {
            let _end = end;
            run(make(), &inbox, &outbox);
        };
        let thread = thread::Builder::new()
            .name("broker".to_owned())
            .spawn(work)
            .expect("the system can run one more thread");
        Self {
            commands: Some(commands),
            events,
            waker,
            ended,
            thread: Some(thread),
        }
    }

    /// Goes on with the panic of a thread that ended by itself.
    fn check_thread(&mut self) {
        if self.ended.load(Ordering::Acquire)
            && let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            resume_unwind(panic);
        }
    }
}

impl Broker for Threaded {
    fn submit(&mut self, command: Command) {
        if let Some(commands) = &self.commands {
            // Only a thread that panicked does not listen, which the next poll finds out.
            let _ = commands.send(command);
        }
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        let event = self.events.poll(deadline);
        if event.is_none() {
            self.check_thread();
        }
        event
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic here would abort while the program unwinds; the thread has printed its own.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Threaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Threaded")
    }
}

/// Tells the program that the thread has ended, also by a panic.
struct End {
    ended: Arc<AtomicBool>,
    waker: Waker,
}

impl Drop for End {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The end of time: a deadline that is always in the future.
const NEVER: Instant = Instant::from_nanoseconds(u64::MAX);

/// Works until the program hangs up.
fn run(mut broker: impl Broker, commands: &Receiver<Command>, events: &EventSender) {
    while let Ok(command) = commands.recv() {
        broker.submit(command);
        loop {
            if !take_all(commands, &mut broker) {
                return;
            }
            let Some(event) = broker.poll(NEVER) else {
                break;
            };
            events.send(event);
        }
    }
}

/// Submits all commands that have arrived; false if the program has hung up.
fn take_all(commands: &Receiver<Command>, broker: &mut impl Broker) -> bool {
    loop {
        match commands.try_recv() {
            Ok(command) => broker.submit(command),
            Err(error) => return error == TryRecvError::Empty,
        }
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
        assert_eq!(queue.poll(in_an_hour()), None);
        assert_eq!(queue.poll(PAST), None);
    }

    #[test]
    fn a_wake_does_not_hide_the_events_behind_it() {
        let (sender, mut queue) = queue(Arc::new(Still));
        sender.waker().wake();
        sender.send(Event::Unblocked);
        sender.waker().wake();
        assert_eq!(queue.poll(in_an_hour()), Some(Event::Unblocked));
        assert_eq!(queue.poll(in_an_hour()), None);
    }

    /// Confirms what it was sent when it is asked to finish; panics at a `Disconnect`.
    #[derive(Default)]
    struct Inner(std::collections::VecDeque<Event>);

    impl Broker for Inner {
        fn submit(&mut self, command: Command) {
            match command {
                Command::Connect(session) => self.0.push_back(Event::Connected(session)),
                Command::Publish(tag, _) => self.0.push_back(Event::Confirmed(tag)),
                Command::Disconnect => panic!("as planned"),
            }
        }

        fn poll(&mut self, deadline: Instant) -> Option<Event> {
            assert!(deadline > in_an_hour(), "it must not hold anything back");
            self.0.pop_front()
        }

        fn waker(&self) -> Waker {
            Waker::new(|| ())
        }
    }

    fn threaded() -> Threaded {
        Threaded::new(Inner::default, Arc::new(Still))
    }

    #[test]
    fn a_thread_answers_every_command_and_sleeps_between_them() {
        let mut broker = threaded();
        for session in (1..=3).map(crate::broker::Session) {
            broker.submit(Command::Connect(session));
            assert_eq!(broker.poll(in_an_hour()), Some(Event::Connected(session)));
        }
    }

    #[test]
    fn a_wake_ends_the_wait_for_a_thread() {
        let mut broker = threaded();
        broker.waker().wake();
        assert_eq!(broker.poll(in_an_hour()), None);
    }

    #[test]
    #[should_panic(expected = "as planned")]
    fn a_panic_of_the_thread_goes_on_in_the_program() {
        let mut broker = threaded();
        broker.submit(Command::Disconnect);
        broker.poll(in_an_hour());
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
