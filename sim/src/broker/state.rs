//! What the server holds, what is on the wire, and what will happen when.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use discogs_extractor::broker::{Command, Disconnect, Event, Message, Session, Tag};
use discogs_extractor::dump::Kind;
use discogs_extractor::time::Instant;

use crate::broker::Stored;
use crate::faults::Fault;
use crate::tape::Tape;
use crate::world::World;

const MILLISECOND: Duration = Duration::from_millis(1);
/// How long a frame is on the wire: usually, and with [`Fault::Latency`].
const LATENCIES: [Duration; 3] = [
    MILLISECOND,
    Duration::from_millis(20),
    Duration::from_millis(500),
];
/// How long it takes to connect.
const CONNECT_TAKES: Duration = Duration::from_millis(10);
/// How long the server holds confirms back to send them together, if nothing else comes.
const MERGE_WAIT: Duration = Duration::from_secs(2);
/// By how much a confirm lets others overtake it.
const OVERTAKEN_BY: Duration = Duration::from_millis(50);
/// How late confirms, late frames and the ends of alarms and broken links are. The long ones are
/// longer than any sensible time-out, the short ones shorter.
const CONFIRM_LATE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(11 * 60)];
const FRAMES_LATE: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(60),
];
const ALARM_LASTS: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(60),
    Duration::from_secs(300),
];
const LOSS_NOTICED: [Duration; 2] = [Duration::ZERO, Duration::from_secs(20)];
/// How long answers come after the end of their session: not at all, and with
/// [`Fault::LateAnswers`].
const ANSWERS_LATE: [Duration; 2] = [Duration::ZERO, Duration::from_secs(3)];

/// The life of the process in which something happens: its time and its chance.
#[derive(Clone, Copy)]
pub(super) struct Life<'a> {
    pub(super) world: &'a World,
    pub(super) tape: &'a Tape,
}

impl Life<'_> {
    fn now(self) -> Instant {
        self.world.now()
    }

    /// One of several durations, the first of which is benign.
    fn duration(self, label: &'static str, durations: &[Duration]) -> Duration {
        let n = u32::try_from(durations.len()).expect("choices are few");
        durations[self.tape.choose(label, n) as usize]
    }

    /// The same if the fault exists in this run, else the first.
    fn duration_by(self, fault: Fault, label: &'static str, durations: &[Duration]) -> Duration {
        if !self.world.faults().has(fault) {
            return durations[0];
        }
        let duration = self.duration(label, durations);
        if duration != durations[0] {
            self.world.fire(fault);
        }
        duration
    }
}

/// Something that will happen.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A message arrives at the server.
    Arrives(Frame),
    /// The program's wish to close arrives at the server.
    Closes(Session),
    /// The server confirms what it has held back.
    Flushes(Session),
    /// The alarm ends.
    Unblocks,
    /// Something reaches the program.
    Tells(Session, Event),
}

/// A message on the wire.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    life: u32,
    session: Session,
    tag: Tag,
    message: Arc<Message>,
}

/// What the program knows of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Idle,
    Connecting(Session),
    Connected(Session),
    /// It asked to close, and has no answer yet.
    Closing(Session),
}

/// The server, the wire, and what the present process may still be told.
#[derive(Clone)]
pub(super) struct State {
    stored: Vec<Stored>,
    refused: BTreeSet<String>,
    /// Routes on which nobody would receive anything.
    unbound: BTreeSet<Kind>,
    blocked_until: Option<Instant>,
    forbidden: Option<String>,
    happenings: BTreeMap<(Instant, u64), Happening>,
    numbers: u64,
    in_flight_max: usize,
    violations: Vec<String>,
    connection: Connection,
}

/// The present process's side. A new one for each life.
#[derive(Clone)]
struct Connection {
    life: u32,
    view: View,
    /// Submitted while a close has no answer yet; done once it has.
    waiting: VecDeque<Command>,
    /// The session that the server knows to be up.
    up: Option<Session>,
    /// Nothing arrives before this: the wire keeps the order.
    arrives_from: Instant,
    /// No answer comes before this, unless it overtakes.
    answers_from: Instant,
    /// Confirms held back.
    held: Vec<Tag>,
    /// Published without an answer.
    unanswered: BTreeSet<Tag>,
    tags: BTreeSet<Tag>,
    sessions: BTreeSet<Session>,
}

impl Connection {
    const fn new(life: u32) -> Self {
        Self {
            life,
            view: View::Idle,
            waiting: VecDeque::new(),
            up: None,
            arrives_from: Instant::ORIGIN,
            answers_from: Instant::ORIGIN,
            held: Vec::new(),
            unanswered: BTreeSet::new(),
            tags: BTreeSet::new(),
            sessions: BTreeSet::new(),
        }
    }
}

impl State {
    pub(super) const fn new() -> Self {
        Self {
            stored: Vec::new(),
            refused: BTreeSet::new(),
            unbound: BTreeSet::new(),
            blocked_until: None,
            forbidden: None,
            happenings: BTreeMap::new(),
            numbers: 0,
            in_flight_max: 0,
            violations: Vec::new(),
            connection: Connection::new(0),
        }
    }

    pub(super) fn stored(&self) -> &[Stored] {
        &self.stored
    }

    pub(super) fn in_flight(&self) -> usize {
        self.connection.unanswered.len()
    }

    pub(super) const fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn refused(&self) -> Vec<String> {
        self.refused.iter().cloned().collect()
    }

    pub(super) fn on_the_wire(&self) -> usize {
        let happenings = self.happenings.values();
        happenings
            .filter(
                |it| matches!(it, Happening::Arrives(frame) if frame.life == self.connection.life),
            )
            .count()
    }

    pub(super) fn forbid(&mut self, why: &str) {
        self.forbidden = Some(why.to_owned());
    }

    pub(super) fn set_bound(&mut self, route: Kind, is_bound: bool) {
        if is_bound {
            self.unbound.remove(&route);
        } else {
            self.unbound.insert(route);
        }
    }

    pub(super) fn cut(&mut self, life: Life<'_>) {
        if let Some(session) = self.connection.up {
            self.lose_link(life, session, life.now() + MILLISECOND);
        }
    }

    /// A new process comes; nothing reaches the old one any more.
    pub(super) fn begin_life(&mut self, life: Life<'_>) {
        self.hang_up(life);
        self.connection = Connection::new(life.world.life());
    }

    pub(super) fn settle(&mut self, life: Life<'_>) {
        self.hang_up(life);
        let end = Instant::from_nanoseconds(u64::MAX);
        while let Some((at, happening)) = self.next_until(end) {
            life.world.clock().advance_to(at);
            self.happens(life, happening);
        }
    }

    fn hang_up(&mut self, life: Life<'_>) {
        self.connection.held.clear();
        self.happenings
            .retain(|_, it| matches!(it, Happening::Arrives(_) | Happening::Unblocks));
        if let Some(session) = self.connection.up.take() {
            self.cut_off(life, session);
        }
    }

    /// Decides what becomes of the frames in flight of a session of the present process that is
    /// gone. Frames of sessions that ended earlier have been decided on.
    fn cut_off(&mut self, life: Life<'_>, session: Session) {
        let sender = self.connection.life;
        let frames = self.take_frames(|frame| frame.life == sender && frame.session == session);
        if frames.is_empty() || !life.world.faults().has(Fault::InFlight) {
            return;
        }
        let n = u32::try_from(frames.len()).expect("a window fits in memory");
        let arriving = life.tape.choose("broker.in_flight", n + 1) as usize;
        if arriving == 0 {
            return;
        }
        life.world.fire(Fault::InFlight);
        let late = life.duration_by(Fault::LateFrames, "broker.in_flight.late", &FRAMES_LATE);
        for (at, frame) in frames.into_iter().take(arriving) {
            self.schedule(at.max(life.now()) + late, Happening::Arrives(frame));
        }
    }

    /// Takes frames off the wire, in the order in which they would have arrived.
    fn take_frames(&mut self, taken: impl Fn(&Frame) -> bool) -> Vec<(Instant, Frame)> {
        let arrives = |_: &_, it: &mut Happening| match it {
            Happening::Arrives(frame) => taken(frame),
            _ => false,
        };
        let frames = self.happenings.extract_if(.., arrives);
        frames
            .filter_map(|((at, _), it)| match it {
                Happening::Arrives(frame) => Some((at, frame)),
                _ => None,
            })
            .collect()
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.happenings.insert((at, self.numbers), happening);
        self.numbers += 1;
    }

    /// What happens next, if that is not after `end`.
    pub(super) fn next_until(&mut self, end: Instant) -> Option<(Instant, Happening)> {
        let entry = self.happenings.first_entry()?;
        let at = entry.key().0;
        (at <= end).then(|| (at, entry.remove()))
    }

    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Adapters take one command after the other: while one closes, the next ones wait. What is
    /// published then is misuse all the same.
    pub(super) fn submit(&mut self, life: Life<'_>, command: Command) {
        let is_closing = matches!(self.connection.view, View::Closing(_));
        match command {
            Command::Connect(_) | Command::Disconnect if is_closing => {
                self.connection.waiting.push_back(command);
            }
            Command::Connect(session) => self.connect(life, session),
            Command::Publish(tag, message) => self.publish(life, tag, message),
            Command::Disconnect => self.disconnect(life),
        }
    }

    fn connect(&mut self, life: Life<'_>, session: Session) {
        if self.connection.view != View::Idle {
            let view = self.connection.view;
            return self.violation(format!("connect of {session:?} while {view:?}"));
        }
        if !self.connection.sessions.insert(session) {
            self.violation(format!("{session:?} is used twice"));
        }
        self.connection.view = View::Connecting(session);
        if let Some(event) = self.connect_answer(life, session) {
            self.tell(life.now() + CONNECT_TAKES, session, event);
        }
    }

    fn connect_answer(&self, life: Life<'_>, session: Session) -> Option<Event> {
        let disconnected = |why: &str, permanent| {
            let why = why.to_owned();
            Some(Event::Disconnected(session, Disconnect { why, permanent }))
        };
        if let Some(why) = &self.forbidden {
            return disconnected(why, true);
        }
        match life
            .world
            .pick(&Fault::AT_CONNECT, life.tape, "broker.connect")
        {
            Some(Fault::ConnectRefused) => disconnected("connection refused", false),
            Some(_) => None,
            None => Some(Event::Connected(session)),
        }
    }

    fn publish(&mut self, life: Life<'_>, tag: Tag, message: Arc<Message>) {
        let View::Connected(session) = self.connection.view else {
            let view = self.connection.view;
            return self.violation(format!("publish of {tag:?} while {view:?}"));
        };
        if !self.connection.tags.insert(tag) {
            self.violation(format!("{tag:?} is used twice"));
        }
        self.connection.unanswered.insert(tag);
        self.in_flight_max = self.in_flight_max.max(self.in_flight());
        if self.connection.up == Some(session) {
            let at = self.arrival(life);
            let life = life.world.life();
            let frame = Frame {
                life,
                session,
                tag,
                message,
            };
            self.schedule(at, Happening::Arrives(frame));
        }
    }

    /// When what is sent now arrives: never before what was sent earlier.
    fn arrival(&mut self, life: Life<'_>) -> Instant {
        let latency = life.duration_by(Fault::Latency, "broker.latency", &LATENCIES);
        let at = self.connection.arrives_from.max(life.now() + latency);
        self.connection.arrives_from = at;
        at
    }

    fn disconnect(&mut self, life: Life<'_>) {
        match self.connection.view {
            // Its answer has been given, or is on its way: there is one for each session.
            View::Idle | View::Closing(_) => {}
            View::Connecting(session) => self.give_up(life, session),
            View::Connected(session) => self.close(life, session),
        }
    }

    /// A connection that is being made is made, and closed then: the adapter had nothing to give up
    /// any more when it was told to. An attempt that has failed, or has no answer, ends here.
    fn give_up(&mut self, life: Life<'_>, session: Session) {
        self.connection.view = View::Closing(session);
        let mut told = life.now() + MILLISECOND;
        if self.untell(session) == [Event::Connected(session)] {
            told = life.now() + CONNECT_TAKES;
            self.tell(told, session, Event::Connected(session));
        }
        self.tell_disconnected(told, session, "gave up connecting");
    }

    /// Closing overtakes what the adapter has not written yet: of what is in flight, a prefix gets in
    /// or nothing, as with a broken link.
    fn close(&mut self, life: Life<'_>, session: Session) {
        self.connection.view = View::Closing(session);
        if self.connection.up == Some(session) {
            self.cut_off(life, session);
            self.schedule(life.now() + MILLISECOND, Happening::Closes(session));
        }
    }

    /// Lets something happen; returns what reaches the program by it.
    pub(super) fn happens(&mut self, life: Life<'_>, happening: Happening) -> Option<Event> {
        match happening {
            Happening::Arrives(frame) => self.arrives(life, frame),
            Happening::Closes(session) => {
                if self.connection.up == Some(session) {
                    self.end_session(life, session, life.now() + MILLISECOND, "closed as asked");
                }
            }
            Happening::Flushes(session) => {
                if self.connection.up == Some(session) {
                    self.flush(life, session, life.now());
                }
            }
            Happening::Unblocks => self.unblock(life),
            Happening::Tells(session, event) => return self.told(life, session, event),
        }
        None
    }

    fn arrives(&mut self, life: Life<'_>, frame: Frame) {
        assert!(
            self.blocked_until.is_none(),
            "nothing arrives during an alarm"
        );
        let connected =
            self.connection.life == frame.life && self.connection.up == Some(frame.session);
        if !connected {
            return self.store(life, &frame);
        }
        if !self.refused.is_empty() && self.refused.contains(&frame.message.id()) {
            return self.refuse(life, &frame);
        }
        if self.unbound.contains(&frame.message.route) {
            return self.give_back(life, &frame);
        }
        match life
            .world
            .pick(&Fault::AT_ARRIVAL, life.tape, "broker.arrival")
        {
            None => self.confirm(life, &frame),
            Some(fault) => self.strikes(life, fault, frame),
        }
    }

    /// A fault meets a message that arrives.
    fn strikes(&mut self, life: Life<'_>, fault: Fault, frame: Frame) {
        let Frame { session, tag, .. } = frame;
        match fault {
            Fault::Nack => {
                self.answer(
                    life,
                    session,
                    Event::Rejected(tag, "nack by the broker".to_owned()),
                );
            }
            Fault::Return => self.give_back(life, &frame),
            Fault::Refuse => self.refuse(life, &frame),
            Fault::Drop => {}
            Fault::LateConfirm => self.confirm_late(life, &frame),
            Fault::MergedConfirm => self.confirm_merged(life, &frame),
            Fault::Reordered => self.confirm_overtaken(life, &frame),
            Fault::LinkLoss => self.break_link(life, &frame),
            Fault::Blocked => self.block(life, frame),
            _ => unreachable!("{fault:?} does not meet messages"),
        }
    }

    fn store(&mut self, life: Life<'_>, frame: &Frame) {
        life.world.note("server.stores", || frame.message.id());
        self.stored.push(Stored {
            message: Arc::clone(&frame.message),
            tag: frame.tag,
            session: frame.session,
            life: frame.life,
            at: life.now(),
            confirmed: None,
        });
    }

    /// Answers in order.
    fn answer(&mut self, life: Life<'_>, session: Session, event: Event) {
        let at = self.answer_time(life, Duration::ZERO);
        self.tell(at, session, event);
    }

    fn answer_time(&mut self, life: Life<'_>, late: Duration) -> Instant {
        let at = self.connection.answers_from.max(life.now() + MILLISECOND) + late;
        self.connection.answers_from = at;
        at
    }

    fn refuse(&mut self, life: Life<'_>, frame: &Frame) {
        self.refused.insert(frame.message.id());
        let why = "the message is larger than the broker takes".to_owned();
        self.answer(life, frame.session, Event::Refused(frame.tag, why));
    }

    fn give_back(&mut self, life: Life<'_>, frame: &Frame) {
        let why = "no queue is bound for this route".to_owned();
        self.answer(life, frame.session, Event::Returned(frame.tag, why));
    }

    fn confirm(&mut self, life: Life<'_>, frame: &Frame) {
        self.store(life, frame);
        let at = self.answer_time(life, Duration::ZERO);
        self.flush(life, frame.session, at);
        self.tell(at, frame.session, Event::Confirmed(frame.tag));
    }

    /// Late, with everything after it, or never.
    fn confirm_late(&mut self, life: Life<'_>, frame: &Frame) {
        self.store(life, frame);
        let late = life.tape.choose("broker.confirm.late", 3) as usize;
        if let Some(&late) = CONFIRM_LATE.get(late) {
            let at = self.answer_time(life, late);
            self.tell(at, frame.session, Event::Confirmed(frame.tag));
        }
    }

    /// Together with the next one, or after a while.
    fn confirm_merged(&mut self, life: Life<'_>, frame: &Frame) {
        self.store(life, frame);
        self.connection.held.push(frame.tag);
        self.schedule(life.now() + MERGE_WAIT, Happening::Flushes(frame.session));
    }

    fn confirm_overtaken(&mut self, life: Life<'_>, frame: &Frame) {
        self.store(life, frame);
        let at = self.connection.answers_from.max(life.now() + MILLISECOND);
        self.tell(
            at + OVERTAKEN_BY,
            frame.session,
            Event::Confirmed(frame.tag),
        );
    }

    fn flush(&mut self, life: Life<'_>, session: Session, at: Instant) {
        let at = at.max(self.connection.answers_from).max(life.now());
        for tag in std::mem::take(&mut self.connection.held) {
            self.tell(at, session, Event::Confirmed(tag));
        }
    }

    /// The link breaks before or after the message is in.
    fn break_link(&mut self, life: Life<'_>, frame: &Frame) {
        if life.tape.choose("broker.link.after", 2) == 1 {
            self.store(life, frame);
        } else {
            // What comes behind a frame that was lost is lost too: TCP leaves no gaps.
            self.take_frames(|other| other.life == frame.life && other.session == frame.session);
        }
        let noticed = life.duration("broker.link.noticed", &LOSS_NOTICED);
        let at = life.now() + MILLISECOND + noticed;
        self.lose_link(life, frame.session, at);
    }

    /// Breaks the link: what is on the wire is lost, and the program is told at `told`.
    fn lose_link(&mut self, life: Life<'_>, session: Session, told: Instant) {
        self.end_session(life, session, told, "connection reset by peer");
        self.cut_off(life, session);
    }

    /// Ends a session: answers are lost, and the program is told at `told`.
    fn end_session(&mut self, life: Life<'_>, session: Session, told: Instant, why: &str) {
        life.world
            .note("server.ends", || format!("{session:?}: {why}"));
        self.connection.up = None;
        self.connection.held.clear();
        let mut answers = self.untell(session);
        // An alarm belongs to its connection; only what names a tag may come late.
        answers.retain(|it| !matches!(it, Event::Blocked(_) | Event::Unblocked));
        self.tell_disconnected(told, session, why);
        if answers.is_empty() {
            return;
        }
        let late = life.duration_by(Fault::LateAnswers, "broker.answers.late", &ANSWERS_LATE);
        if !late.is_zero() {
            for answer in answers {
                self.tell(told + late, session, answer);
            }
        }
    }

    /// An alarm: the server does not read until it ends, so everything on the wire waits.
    fn block(&mut self, life: Life<'_>, frame: Frame) {
        let until = life.now() + life.duration("broker.blocked", &ALARM_LASTS);
        self.blocked_until = Some(until);
        let why = Event::Blocked("memory alarm".to_owned());
        self.tell(life.now() + MILLISECOND, frame.session, why);
        let waiting = self.take_frames(|_| true);
        self.schedule(until, Happening::Unblocks);
        self.schedule(until, Happening::Arrives(frame));
        for (at, frame) in waiting {
            self.schedule(at.max(until), Happening::Arrives(frame));
        }
        self.connection.arrives_from = self.connection.arrives_from.max(until);
    }

    fn unblock(&mut self, life: Life<'_>) {
        self.blocked_until = None;
        if let Some(session) = self.connection.up {
            self.tell(life.now() + MILLISECOND, session, Event::Unblocked);
        }
    }

    fn tell(&mut self, at: Instant, session: Session, event: Event) {
        self.schedule(at, Happening::Tells(session, event));
    }

    fn tell_disconnected(&mut self, at: Instant, session: Session, why: &str) {
        let why = why.to_owned();
        let disconnect = Disconnect {
            why,
            permanent: false,
        };
        self.tell(at, session, Event::Disconnected(session, disconnect));
    }

    /// Takes back what was on its way to the program in a session.
    fn untell(&mut self, session: Session) -> Vec<Event> {
        let told = self.happenings.extract_if(
            ..,
            |_, it| matches!(it, Happening::Tells(of, _) if *of == session),
        );
        told.filter_map(|(_, it)| match it {
            Happening::Tells(_, event) => Some(event),
            _ => None,
        })
        .collect()
    }

    /// Something reaches the program.
    fn told(&mut self, life: Life<'_>, session: Session, event: Event) -> Option<Event> {
        match &event {
            Event::Connected(_) => self.connected(life, session),
            Event::Disconnected(..) => self.disconnected(life),
            Event::Confirmed(tag) => {
                self.connection.unanswered.remove(tag);
                self.mark_confirmed(life, *tag);
            }
            Event::Rejected(tag, _) | Event::Returned(tag, _) | Event::Refused(tag, _) => {
                self.connection.unanswered.remove(tag);
            }
            Event::Blocked(_) | Event::Unblocked => {}
        }
        Some(event)
    }

    fn disconnected(&mut self, life: Life<'_>) {
        self.connection.view = View::Idle;
        self.connection.unanswered.clear();
        // One of them may begin to close again, and then the rest waits for that.
        for command in std::mem::take(&mut self.connection.waiting) {
            self.submit(life, command);
        }
    }

    fn connected(&mut self, life: Life<'_>, session: Session) {
        if self.connection.view == View::Closing(session) {
            return;
        }
        self.connection.view = View::Connected(session);
        self.connection.up = Some(session);
        self.connection.arrives_from = self.blocked_until.unwrap_or(life.now());
        self.connection.answers_from = life.now();
        if self.blocked_until.is_some() {
            let why = Event::Blocked("memory alarm".to_owned());
            self.tell(life.now(), session, why);
        }
    }

    /// The message is found from the end: it is among the latest.
    fn mark_confirmed(&mut self, life: Life<'_>, tag: Tag) {
        let present = self.connection.life;
        let of = |stored: &&mut Stored| stored.life == present && stored.tag == tag;
        if let Some(stored) = self.stored.iter_mut().rev().find(of) {
            stored.confirmed = Some(life.now());
        }
    }
}
