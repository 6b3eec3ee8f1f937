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

use crate::broker::{Command, Session, Tag};
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
    connections: u64,
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
    /// The last attempt before the hold. A confirm of it or of one before it was on its way when
    /// the broker turned another message down, and says nothing of what it takes now.
    last: Option<Tag>,
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
            connections: 0,
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

    /// The connection is made. Whether it is of use: not if it was given up meanwhile.
    pub fn connected(&mut self) -> bool {
        let is_awaited = matches!(self.state, State::Connecting { .. });
        if is_awaited {
            self.state = State::Up { is_blocked: false };
            self.connections += 1;
        }
        is_awaited
    }

    /// Connections that were made after the first.
    pub fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
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

    /// The message of `tag` was confirmed: whatever was wrong with the connection is over, and so
    /// is a hold, unless the message was sent before it.
    pub fn confirmed(&mut self, tag: Tag) {
        self.failures = 0;
        if self.hold.last.is_none_or(|last| tag > last) {
            self.hold = Hold::default();
        }
    }

    /// A message was not taken; `last` is the last attempt so far. How long publishing is held,
    /// if it was not held before.
    pub fn not_taken(&mut self, now: Instant, last: Tag) -> Option<Duration> {
        if self.hold.until.is_some_and(|until| now < until) {
            return None;
        }
        let pause = self.pause(self.hold.failures);
        self.hold = Hold {
            until: Some(now + pause),
            is_probing: true,
            failures: self.hold.failures.saturating_add(1),
            last: Some(last),
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

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: LinkOptions = LinkOptions {
        connect_timeout: Duration::from_secs(15),
        confirm_timeout: Duration::from_secs(30),
        retry_min: Duration::from_millis(250),
        retry_max: Duration::from_secs(10),
    };

    const fn at(seconds: u64) -> Instant {
        Instant::from_nanoseconds(seconds * 1_000_000_000)
    }

    /// A link that connects at the origin.
    fn connecting() -> Link {
        let mut link = Link::new(OPTIONS);
        let command = link.connect(Instant::ORIGIN);
        assert_eq!(command, Some(Command::Connect(Session(1))));
        link
    }

    fn up() -> Link {
        let mut link = connecting();
        assert!(link.connected());
        link
    }

    fn blocked() -> Link {
        let mut link = up();
        assert!(link.blocked(true));
        link
    }

    fn closing() -> Link {
        let mut link = up();
        assert_eq!(link.close(Instant::ORIGIN), Some(Command::Disconnect));
        link
    }

    fn down() -> Link {
        let mut link = up();
        link.disconnected(Instant::ORIGIN);
        link
    }

    #[test]
    fn what_each_state_allows() {
        let new = || Link::new(OPTIONS);
        // Is it down, up, blocked, of a present session; may it publish, connect, close.
        type Make = fn() -> Link;
        let states: [(Make, [bool; 7]); 6] = [
            (new, [true, false, false, false, false, true, false]),
            (connecting, [false, false, false, true, false, false, true]),
            (up, [false, true, false, true, true, false, true]),
            (blocked, [false, true, true, true, false, false, true]),
            (closing, [false, false, false, true, false, false, false]),
            (down, [true, false, false, false, false, true, false]),
        ];
        for (make, expected) in states {
            let link = make();
            let actual = [
                link.is_down(),
                link.is_up(),
                link.is_blocked(),
                link.is_current(Session(link.session)),
                link.may_publish(at(1), 0),
                make().connect(at(1)).is_some(),
                make().close(at(1)).is_some(),
            ];
            assert_eq!(actual, expected, "{:?}", link.state);
        }
    }

    #[test]
    fn what_each_state_waits_for() {
        let sent = Some(at(2));
        for (link, idle, waiting) in [
            (connecting(), Some(at(15)), Some(at(15))),
            (up(), None, Some(at(32))),
            (blocked(), None, None),
            (closing(), Some(at(3)), Some(at(3))),
        ] {
            assert_eq!(link.wakeup(at(1), None), idle, "{:?}", link.state);
            assert_eq!(link.wakeup(at(1), sent), waiting, "{:?}", link.state);
        }
    }

    #[test]
    fn what_expires_in_each_state() {
        let nanosecond = Duration::from_nanos(1);
        for (mut link, deadline, expired) in [
            (connecting(), at(15), Some(Expired::Connect)),
            (up(), at(31), Some(Expired::Confirm)),
            (closing(), at(3), None),
        ] {
            let state = link.state;
            let before = Instant::from_nanoseconds(deadline.as_nanoseconds() - 1);
            assert_eq!(link.expire(before, Some(at(1))), None);
            assert_eq!(link.state, state);
            assert_eq!(link.expire(before + nanosecond, Some(at(1))), expired);
            assert_eq!(link.is_down(), expired.is_none(), "{state:?}");
        }
        assert_eq!(blocked().expire(at(1_000_000), Some(at(1))), None);
        assert_eq!(up().expire(at(1_000_000), None), None);
    }

    #[test]
    fn pauses_double_up_to_the_longest_until_a_confirm() {
        let mut link = connecting();
        let mut pauses = Vec::new();
        for number in 1..=40 {
            let now = at(100 * number);
            pauses.push(link.disconnected(now).as_millis());
            assert_eq!(link.connect(now), None, "not before the pause is over");
            assert!(link.connect(now + OPTIONS.retry_max).is_some());
            link.connected();
        }
        assert_eq!(pauses[..7], [250, 500, 1000, 2000, 4000, 8000, 10_000]);
        assert!(pauses[7..].iter().all(|pause| *pause == 10_000));
        link.confirmed(Tag(2));
        assert_eq!(link.disconnected(at(9_000)), OPTIONS.retry_min);
    }

    #[test]
    fn only_the_present_session_means_anything() {
        let mut link = down();
        assert!(
            !link.is_current(Session(1)),
            "a late end of a link that is down"
        );
        link.connect(at(1));
        assert!(!link.is_current(Session(1)));
        assert!(link.is_current(Session(2)));
    }

    #[test]
    fn a_connection_that_was_given_up_is_of_no_use() {
        let mut link = connecting();
        link.close(at(15));
        assert!(!link.connected());
        assert!(!link.is_up());
        assert_eq!(link.reconnects(), 0);
    }

    #[test]
    fn reconnects_are_connections_and_not_attempts() {
        let mut link = connecting();
        for number in 1..=3 {
            link.disconnected(at(100 * number));
            link.connect(at(100 * number + 50));
        }
        link.connected();
        assert_eq!(link.reconnects(), 0);
        link.disconnected(at(1_000));
        link.connect(at(1_050));
        link.connected();
        assert_eq!(link.reconnects(), 1);
    }

    #[test]
    fn an_alarm_is_news_once_and_ends_with_the_connection() {
        let mut link = up();
        assert!(link.blocked(true));
        assert!(!link.blocked(true));
        assert!(link.blocked(false));
        assert!(!link.blocked(false));
        assert!(!connecting().blocked(true));
        let mut link = blocked();
        link.disconnected(at(1));
        link.connect(at(2));
        link.connected();
        assert!(!link.is_blocked());
    }

    #[test]
    fn a_message_that_was_not_taken_holds_all_and_then_probes_with_one() {
        let mut link = up();
        assert_eq!(link.not_taken(at(1), Tag(1)), Some(OPTIONS.retry_min));
        assert_eq!(link.not_taken(at(1), Tag(1)), None, "held already");
        assert!(!link.may_publish(at(1), 0));
        let over = at(1) + OPTIONS.retry_min;
        assert_eq!(link.wakeup(at(1), None), Some(over));
        assert!(link.may_publish(over, 0));
        assert!(!link.may_publish(over, 1), "one probe at a time");
        assert_eq!(link.wakeup(over, None), None);
        assert_eq!(link.not_taken(over, Tag(1)), Some(OPTIONS.retry_min * 2));
        link.confirmed(Tag(2));
        assert!(
            link.may_publish(over, 1),
            "its confirm lets the rest follow"
        );
        assert_eq!(link.not_taken(at(9), Tag(1)), Some(OPTIONS.retry_min));
    }

    #[test]
    fn a_confirm_from_before_the_hold_does_not_end_it() {
        let mut link = up();
        link.not_taken(at(1), Tag(7));
        link.confirmed(Tag(7));
        assert!(!link.may_publish(at(1), 0));
        assert!(!link.may_publish(at(60), 1));
        link.confirmed(Tag(8));
        assert!(link.may_publish(at(1), 1));
    }

    #[test]
    fn probing_survives_a_reconnect() {
        let mut link = up();
        link.not_taken(at(1), Tag(1));
        link.disconnected(at(2));
        link.connect(at(3));
        link.connected();
        assert!(link.may_publish(at(3), 0));
        assert!(!link.may_publish(at(3), 1));
    }
}
