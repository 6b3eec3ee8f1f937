//! The broker as the program sees it: a submission queue and a completion queue.
//!
//! [`Broker::submit`] never blocks and never fails; whatever becomes of a command comes back as
//! an [`Event`]. The life of a connection:
//!
//! ```text
//! Connect(s) ─→ Connected(s) ─→ Publish(tag) ─→ Confirmed | Rejected | Returned | Refused(tag)
//!      │              │   Blocked ⇄ Unblocked
//!      └──────────────┴─→ Disconnected(s, why)      (also the answer to Disconnect)
//! ```
//!
//! After `Disconnected` the fate of every message without an answer is unknown: it may be in the
//! broker or not. Answers of an earlier session may still arrive late; they carry a [`Tag`] or a
//! [`Session`] that nobody waits for any more, and are ignored.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::dump::{Kind, Version};
use crate::record::Ordinal;
use crate::time::Instant;

/// One attempt to publish one message. Never used again, not even by a retry of the same message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// One attempt to connect, and the connection that it led to. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A record of the dump.
    Record(Ordinal),
    /// Every record of the dump has been published.
    FileComplete,
    /// Every dump of the version has been published.
    ExtractionComplete,
}

/// A message: what is published, and under which identity.
///
/// Identity and body are the same on every attempt to publish the same record.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The version that it belongs to.
    pub version: Version,
    /// The route that it takes: one exchange, routing key or file for each kind.
    pub route: Kind,
    /// What it says.
    pub subject: Subject,
    /// 1-based number among the messages of this version and route, without gaps: what a broker
    /// that can recognise repeats recognises them by.
    pub sequence: u64,
    /// SHA-256 of the record's content, 64 lowercase hexadecimal digits; empty for control
    /// messages.
    pub sha256: String,
    /// JSON, UTF-8, on one line without a line end.
    pub body: Bytes,
}

impl Message {
    /// The identity: `20260801-artists-17`, `20260801-artists-file_complete`.
    pub fn id(&self) -> String {
        let Self { version, route, .. } = self;
        match self.subject {
            Subject::Record(ordinal) => format!("{version}-{route}-{ordinal}"),
            _ => format!("{version}-{route}-{}", self.type_name()),
        }
    }

    /// The value of the message's `type` field.
    pub const fn type_name(&self) -> &'static str {
        match self.subject {
            Subject::Record(_) => "data",
            Subject::FileComplete => "file_complete",
            Subject::ExtractionComplete => "extraction_complete",
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Message({}, sequence {}, {} bytes)",
            self.id(),
            self.sequence,
            self.body.len()
        )
    }
}

/// What the program asks of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Connect and make ready to publish with confirms: channel, exchanges, whatever it takes.
    Connect(Session),
    /// Publish a message; only sent while connected.
    Publish(Tag, Arc<Message>),
    /// Close the connection, or give up connecting: what has no answer may get one or not. Answered
    /// by the one `Disconnected` of the session, so not at all if that was told already. Commands
    /// that follow wait for it.
    Disconnect,
}

/// What a broker tells the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Ready to publish; also told, perhaps, if connecting was given up meanwhile.
    Connected(Session),
    /// The broker has taken responsibility for the message.
    Confirmed(Tag),
    /// The broker could not take the message (a nack); another attempt may succeed.
    Rejected(Tag, String),
    /// Nobody would have received the message; another attempt may succeed.
    Returned(Tag, String),
    /// The broker will never take this message, whatever else it takes (too large).
    Refused(Tag, String),
    /// The broker asks not to be sent anything (an alarm); confirms may be late without limit.
    /// Belongs to the present connection, ends with it, and is told again on the next.
    Blocked(String),
    /// The alarm is over.
    Unblocked,
    /// The connection is gone, or did not come about.
    Disconnected(Session, Disconnect),
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// For people: what happened, with which address, and what they can do.
    pub why: String,
    /// Whether another attempt is pointless without a change by somebody: wrong credentials, an
    /// exchange that exists with another type.
    pub permanent: bool,
}

/// A broker.
pub trait Broker {
    /// Queues a command. Never blocks, never fails.
    fn submit(&mut self, command: Command);

    /// The next event; waits for one until `deadline`. Returns at once, perhaps with `None`, when
    /// the deadline has passed or a [`Waker`] of this broker was used since the last call.
    ///
    /// The only wait in the program.
    fn poll(&mut self, deadline: Instant) -> Option<Event>;

    /// A handle by which other threads end the present or the next wait early.
    fn waker(&self) -> Waker;
}

/// Ends a broker's wait early, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Ends the present or the next wait.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
