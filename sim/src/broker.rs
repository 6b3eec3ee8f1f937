//! The simulated broker: a RabbitMQ-like server that outlives the process, and the program's
//! connection to it.
//!
//! # Fault model
//!
//! *Between submission and arrival.* A message is first in flight. If the link or the process dies,
//! or the program closes the connection, a prefix of what is in flight may get in all the same (TCP
//! keeps the order and loses a tail), at once or late, when the next session or the next process is
//! already at work.
//!
//! *At arrival* the server decides, by the tape, one of: stored and confirmed; stored, and confirmed
//! late or never although the link is up; nacked, returned or refused, and not stored; dropped
//! without a word; the link breaks before or after the message is stored; an alarm begins.
//! What was refused once is refused for ever, since it is a property of the message.
//!
//! *Between the server's answer and the program.* Confirms come one by one, or together, or overtake
//! each other; those of a broken link are lost, or come late, after the program was told that the
//! link is gone.
//!
//! A broken link is noticed at once or after a heartbeat's time; until then the program publishes
//! into the void. An attempt to connect succeeds, is refused, or is never answered until the program
//! gives up. An alarm (`Blocked`) stops everything that arrives, for seconds or minutes, and
//! outlives connections.
//!
//! A session ends once and is told once: whoever asks to close a link that has just broken gets the
//! one `Disconnected`. Closing waits for no answers; what has none then never gets one. Whoever gives
//! up connecting may hear first that the connection has come about. A `Connect` that does not wait
//! for the answer to the `Disconnect` before it is done after that answer.
//!
//! # Time
//!
//! Whatever will happen stands in one queue, by time. `poll` jumps the clock to what happens next or
//! to its deadline; nothing else makes the server go on. So the server does nothing while the
//! process is dead, and what was due then happens at the next poll.
//!
//! # What is asked of the program
//!
//! Misuse of the contract of [`Broker`] (a tag or a session used twice, a publish while not
//! connected) is kept as a [violation](Server::violations): an oracle of its own.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use discogs_extractor::broker::{Broker, Command, Event, Message, Session, Tag, Waker};
use discogs_extractor::dump::Kind;
use discogs_extractor::time::Instant;

use crate::broker::state::{Life, State};
use crate::tape::Tape;
use crate::world::World;

mod state;

/// A message that the broker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The message.
    pub message: Arc<Message>,
    /// The attempt by which it came.
    pub tag: Tag,
    /// The session on which it came.
    pub session: Session,
    /// The life of the process that sent it.
    pub life: u32,
    /// When it was stored.
    pub at: Instant,
    /// When the program was told, if it was.
    pub confirmed: Option<Instant>,
}

/// The broker itself. Clones are handles of the same server.
#[derive(Clone)]
pub struct Server(Arc<Mutex<State>>);

impl Server {
    /// A server that holds nothing.
    #[expect(
        clippy::new_without_default,
        reason = "a server is a place, not a value"
    )]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State::new())))
    }

    /// A server of its own with the same content, for another branch of the search.
    #[must_use]
    pub fn branch(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// The program's access in one life of the process. The one before is dead from now on; what it
    /// had in flight gets in or does not, by the tape.
    pub fn client(&self, world: &World) -> Client {
        let tape = world.tape().fork("broker");
        self.lock().begin_life(Life { world, tape: &tape });
        Client {
            server: self.clone(),
            world: world.clone(),
            tape,
            woken: Arc::default(),
        }
    }

    /// Every message held, in the order of arrival, repeats included.
    pub fn stored(&self) -> Vec<Stored> {
        self.lock().stored().to_vec()
    }

    /// Looks at every message held without copying them.
    pub fn with_stored<T>(&self, look: impl FnOnce(&[Stored]) -> T) -> T {
        look(self.lock().stored())
    }

    /// How many messages the present process has published without an answer so far.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// The most messages without an answer that any process ever had.
    pub fn in_flight_max(&self) -> usize {
        self.lock().in_flight_max()
    }

    /// How the program broke the contract of [`Broker`], in words; empty if it kept it.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations().to_vec()
    }

    /// The identities of the messages that the server refuses for ever.
    pub fn refused(&self) -> Vec<String> {
        self.lock().refused()
    }

    /// How many messages of the process that died last are on the wire: some of them may still
    /// arrive ([`Fault::InFlight`](crate::faults::Fault::InFlight)).
    pub fn on_the_wire(&self) -> usize {
        self.lock().on_the_wire()
    }

    /// Refuses every connection for good from now on, as with wrong credentials.
    pub fn forbid(&self, why: &str) {
        self.lock().forbid(why);
    }

    /// Says whether anybody would receive what is published on a route, which is so at first. What
    /// arrives while nobody does is returned.
    pub fn set_bound(&self, route: Kind, is_bound: bool) {
        self.lock().set_bound(route, is_bound);
    }

    /// Breaks the connection, if there is one, which is noticed at once. What is in flight gets in
    /// or does not, by the tape.
    pub fn cut(&self, world: &World) {
        let tape = world.tape().fork("broker");
        self.lock().cut(Life { world, tape: &tape });
    }

    /// Lets everything happen that is still to happen, without a client: the last late frames are
    /// in. The client, if there is one, is treated as dead.
    pub fn settle(&self, world: &World) {
        let tape = world.tape().fork("broker");
        self.lock().settle(Life { world, tape: &tape });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic of the program the server is still looked at.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = self.lock().stored().len();
        write!(f, "Server({stored} messages)")
    }
}

/// The program's access to the [`Server`] in one life of the process.
#[derive(Debug)]
pub struct Client {
    server: Server,
    world: World,
    tape: Tape,
    woken: Arc<AtomicBool>,
}

impl Client {
    const fn life(&self) -> Life<'_> {
        Life {
            world: &self.world,
            tape: &self.tape,
        }
    }

    /// Lets things happen until one concerns the program, or until the deadline.
    fn wait(&self, deadline: Instant) -> Option<Event> {
        let mut server = self.server.lock();
        let clock = self.world.clock();
        let end = deadline.max(self.world.now());
        while let Some((at, happening)) = server.next_until(end) {
            clock.advance_to(at);
            if let Some(event) = server.happens(self.life(), happening) {
                return Some(event);
            }
        }
        clock.advance_to(deadline);
        None
    }

    fn report(&self, event: Option<&Event>) {
        let (name, number) = event.map_or(("nothing", 0), summary);
        self.world.trace("broker.poll", name.as_bytes(), number);
        self.world.note("broker.poll", || match event {
            Some(event) => format!("{event:?}"),
            None => "nothing".to_owned(),
        });
    }
}

/// The event's name and the tag or session in it, for the trace hash.
const fn summary(event: &Event) -> (&'static str, u64) {
    match event {
        Event::Connected(session) => ("connected", session.0),
        Event::Confirmed(tag) => ("confirmed", tag.0),
        Event::Rejected(tag, _) => ("rejected", tag.0),
        Event::Returned(tag, _) => ("returned", tag.0),
        Event::Refused(tag, _) => ("refused", tag.0),
        Event::Blocked(_) => ("blocked", 0),
        Event::Unblocked => ("unblocked", 0),
        Event::Disconnected(session, _) => ("disconnected", session.0),
    }
}

impl Broker for Client {
    fn submit(&mut self, command: Command) {
        if self.world.begin("broker.submit").is_err() {
            return;
        }
        self.world.note("broker.submit", || format!("{command:?}"));
        match &command {
            Command::Connect(session) => self.world.trace("broker.connect", &[], session.0),
            Command::Publish(tag, message) => {
                self.world.trace("broker.publish", &message.body, tag.0);
            }
            Command::Disconnect => self.world.trace("broker.disconnect", &[], 0),
        }
        self.server.lock().submit(self.life(), command);
        // A crash here leaves nothing to tell the program: `submit` has no result.
        _ = self.world.end();
    }

    fn poll(&mut self, deadline: Instant) -> Option<Event> {
        self.world.begin("broker.poll").ok()?;
        let woken = self.woken.swap(false, Ordering::Relaxed);
        let event = self.wait(if woken { Instant::ORIGIN } else { deadline });
        self.report(event.as_ref());
        self.world.end().ok()?;
        event
    }

    fn waker(&self) -> Waker {
        let woken = Arc::clone(&self.woken);
        Waker::new(move || woken.store(true, Ordering::Relaxed))
    }
}
