//! The contract of [`Broker`], as checks that any broker can be run through.
//!
//! Who brings a broker of their own implements [`Subject`] for it and asks [`broken`] which checks
//! it does not pass. The simulated broker passes the same checks as the real ones: that is what
//! makes a simulation say anything about reality.
//!
//! # What a check asks for
//!
//! - Every command is answered as [`Command`](discogs_extractor::broker::Command) says.
//! - What is confirmed is held: this message, these bytes, in the order of the route. *Held* is what
//!   a reader finds that does not go through the broker under test.
//! - A session ends once, and after its end nothing of it is told. In this the checks are stricter
//!   than the trait, whose users have to bear late answers: no adapter needs to give any.
//!
//! Each check begins with a new subject that holds nothing, and keeps to what a program owes a
//! broker: tags and sessions are used once, and in a session the messages of a route come in
//! sequence, beginning with the lowest that has no confirm, or before.
//!
//! # Time
//!
//! No check asserts how long anything takes, except that nothing takes as long as [`PATIENCE`]; a
//! broker that passes never makes one wait for that.
//!
//! # Abilities
//!
//! A check that needs an ability that the subject does not have says so, and passes.

mod bodies;
mod checks;
mod program;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use discogs_extractor::broker::{Broker, Message};
use discogs_extractor::dump::Kind;
use discogs_extractor::time::Instant;

pub use checks::CHECKS;

/// No event within this time, of the subject's clock, is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A check: panics if the subject breaks the contract.
pub type Check = fn(&mut dyn Subject);

/// A broker under test: the place that keeps messages, which holds none at first, and the program's
/// access to it.
pub trait Subject {
    /// The program's access, not connected. Each further call is a new process's, after the access
    /// of the one before was dropped without notice.
    fn open(&mut self) -> Box<dyn Broker>;

    /// The time that deadlines are of.
    fn now(&self) -> Instant;

    /// Every message of a route that is held, repeats included, in the order in which a consumer
    /// gets them; where versions are kept apart, version by version. Not read through the broker
    /// under test.
    fn held(&mut self, route: Kind) -> Vec<Held>;

    /// Whether a message is held once, however often it was published.
    fn is_exactly_once(&self) -> bool {
        false
    }

    /// Breaks the connection, so that what is in flight gets no confirm and the next attempt to
    /// connect succeeds; false if it cannot.
    fn break_link(&mut self) -> bool {
        false
    }

    /// Says whether anybody would receive the messages of a route, which is so at first; false if
    /// that makes no difference to this broker.
    fn set_bound(&mut self, route: Kind, is_bound: bool) -> bool {
        let _ = (route, is_bound);
        false
    }
}

/// A message that is held.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// Which one it is.
    pub identity: Identity,
    /// Its body.
    pub body: Vec<u8>,
}

/// By what a consumer tells the messages of a route and version apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By [`Message::id`].
    Id(String),
    /// By [`Message::sequence`], which is told by the place where it is held.
    Sequence(u64),
}

impl Held {
    /// Whether it is this message, byte for byte.
    fn is(&self, message: &Message) -> bool {
        let is_named_so = match &self.identity {
            Identity::Id(id) => *id == message.id(),
            Identity::Sequence(sequence) => *sequence == message.sequence,
        };
        is_named_so && self.body == message.body
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({:?}, {} bytes)", self.identity, self.body.len())
    }
}

/// The names of the checks that a broker does not pass. `make` gives each check, by its name, a
/// subject that holds nothing. What was wrong is printed.
pub fn broken(mut make: impl FnMut(&'static str) -> Box<dyn Subject>) -> Vec<&'static str> {
    let is_broken = |(name, check): &(&'static str, Check)| {
        println!("check {name}");
        !passes(*check, &mut *make(name))
    };
    let broken = CHECKS.iter().copied().filter(is_broken);
    broken.map(|(name, _)| name).collect()
}

/// Whether a subject that holds nothing passes a check. What was wrong is printed.
pub fn passes(check: Check, subject: &mut dyn Subject) -> bool {
    // Nothing is looked at after a panic but the fact.
    catch_unwind(AssertUnwindSafe(|| check(subject))).is_ok()
}
