//! The link to the broker: when to connect, when to give a connection up, when to publish.
//!
//! ```text
//!   Down ──retry_at──→ Connecting ──Connected──→ Up ⇄ blocked
//!    ↑                     │                      │
//!    ├──── Disconnected ───┴──────────────────────┤
//!    └──── Disconnected or deadline ── Closing ←──┘ no confirm in time
//! ```
//!
//! Whatever fails is tried again after a pause that doubles with each failure in a row, and is
//! forgotten with the first confirm: not with the connection, because a broker that lets us
//! connect and then fails every publish must not be hammered.
//!
//! A message that was rejected or returned *holds* publishing for such a pause too. After it a
//! single message, the lowest that waits, goes out as a probe; only its confirm lets the rest
//! follow. So a missing queue costs one message a pause and not a window of them, and the order
//! of first deliveries survives it.

use std::time::Duration;

use crate::broker::{Command, Session};
use crate::time::Instant;

/// Time limits of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// The longest that connecting may take.
    pub connect_timeout: Duration,
    /// The longest that a confirm may take while the broker is not blocked.
    pub confirm_timeout: Duration,
    /// The pause after the first failure.
    pub retry_min: Duration,
    /// The longest pause.
    pub retry_max: Duration,
}

/// How long a broker may take to close a connection before we go on without its answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The link.
#[derive(Debug)]
pub struct Link {
    options: LinkOptions,
    state: State,
    session: u64,
    failures: u32,
    hold: Hold,
    /// Connections that were made after the first.
    pub reconnects: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down { retry_at: Instant },
    Connecting { deadline: Instant },
    Up { is_blocked: bool },
    Closing { deadline: Instant },
}

/// Whether publishing is held back after a message was not taken.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    until: Option<Instant>,
    is_probing: bool,
    failures: u32,
}

impl Link {
    /// A link that is down and may connect at once.
    pub fn new(options: LinkOptions) -> Self {
        Self {
            options,
            state: State::Down {
                retry_at: Instant::ORIGIN,
            },
            session: 0,
            failures: 0,
            hold: Hold::default(),
            reconnects: 0,
        }
    }

    /// Whether `session` is the present one; events of any other come too late to mean anything.
    pub fn is_current(&self, session: Session) -> bool {
        session.0 == self.session && !matches!(self.state, State::Down { .. })
    }

    /// Whether there is no connection, nor one being made or closed.
    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// Whether messages can be published.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Whether the broker has asked not to be sent anything.
    pub fn is_blocked(&self) -> bool {
        self.state == State::Up { is_blocked: true }
    }

    /// Whether a message may be published now, with `in_flight` of them unanswered.
    pub fn may_publish(&self, now: Instant, in_flight: usize) -> bool {
        let is_held = self.hold.until.is_some_and(|until| now < until);
        let is_probed = self.hold.is_probing && in_flight > 0;
        self.state == State::Up { is_blocked: false } && !is_held && !is_probed
    }

    /// Connects if the link is down and its pause is over.
    pub fn connect(&mut self, now: Instant) -> Option<Command> {
        match self.state {
            State::Down { retry_at } if retry_at <= now => {
                self.session += 1;
                self.state = State::Connecting {
                    deadline: now + self.options.connect_timeout,
                };
                Some(Command::Connect(Session(self.session)))
            }
            _ => None,
        }
    }

    /// Closes what is open or being opened.
    pub fn close(&mut self, now: Instant) -> Option<Command> {
        match self.state {
            State::Connecting { .. } | State::Up { .. } => {
                self.state = State::Closing {
                    deadline: now + CLOSE_TIMEOUT,
                };
                Some(Command::Disconnect)
            }
            State::Down { .. } | State::Closing { .. } => None,
        }
    }

    /// Gives up what has taken too long; `oldest_sent` is when the message was sent that has
    /// waited longest for its confirm. Says what took too long.
    pub fn expire(&mut self, now: Instant, oldest_sent: Option<Instant>) -> Option<Expired> {
        match self.state {
            State::Connecting { deadline } if deadline <= now => Some(Expired::Connect),
            State::Up { is_blocked: false } => {
                let deadline = oldest_sent? + self.options.confirm_timeout;
                (deadline <= now).then_some(Expired::Confirm)
            }
            State::Closing { deadline } if deadline <= now => {
                self.fail(now);
                None
            }
            _ => None,
        }
    }

    /// The connection is made.
    pub fn connected(&mut self) {
        if matches!(self.state, State::Connecting { .. }) {
            self.state = State::Up { is_blocked: false };
            self.reconnects += u64::from(self.session > 1);
        }
    }

    /// The connection is gone; how long until the next attempt.
    pub fn disconnected(&mut self, now: Instant) -> Duration {
        self.fail(now)
    }

    /// The broker asks for silence, or allows to go on. Whether that is news.
    pub fn blocked(&mut self, is_blocked: bool) -> bool {
        match &mut self.state {
            State::Up {
                is_blocked: present,
            } => std::mem::replace(present, is_blocked) != is_blocked,
            _ => false,
        }
    }

    /// A message was confirmed: whatever was wrong is over.
    pub fn confirmed(&mut self) {
        self.failures = 0;
        self.hold = Hold::default();
    }

    /// A message was not taken. How long publishing is held, if it was not held before.
    pub fn not_taken(&mut self, now: Instant) -> Option<Duration> {
        if self.hold.until.is_some_and(|until| now < until) {
            return None;
        }
        let pause = self.pause(self.hold.failures);
        self.hold = Hold {
            until: Some(now + pause),
            is_probing: true,
            failures: self.hold.failures.saturating_add(1),
        };
        Some(pause)
    }

    /// When something is to be done next, if nothing happens before.
    pub fn wakeup(&self, now: Instant, oldest_sent: Option<Instant>) -> Option<Instant> {
        match self.state {
            State::Down { retry_at } => Some(retry_at),
            State::Connecting { deadline } | State::Closing { deadline } => Some(deadline),
            State::Up { is_blocked: true } => None,
            State::Up { is_blocked: false } => {
                let confirm = oldest_sent.map(|sent| sent + self.options.confirm_timeout);
                let hold = self.hold.until.filter(|until| now < *until);
                confirm.into_iter().chain(hold).min()
            }
        }
    }

    fn fail(&mut self, now: Instant) -> Duration {
        let pause = self.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Down {
            retry_at: now + pause,
        };
        pause
    }

    /// The pause after `failures` failures in a row before this one.
    fn pause(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.options
            .retry_min
            .saturating_mul(factor)
            .min(self.options.retry_max)
    }
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Connecting.
    Connect,
    /// A confirm.
    Confirm,
}
