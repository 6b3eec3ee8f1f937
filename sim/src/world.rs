//! The world of one life of the process: time, chance, and death.
//!
//! # Death
//!
//! A real SIGKILL runs no `Drop`. Rust drops everything when a test drops its program, and a
//! destructor that still reaches the disk (a buffered writer, a "final save in `Drop`") would make
//! the crash kinder than it is. So a crash has three steps, in this order:
//!
//! 1. **freeze**: from now on every operation of this life, on any handle, fails and has no effect;
//! 2. **image**: what the disk holds is looked at ([`crate::disk::Disk::images`]);
//! 3. **drop**: only then is the program dropped.
//!
//! [`World::crash_at`] freezes the world before or after an operation with a given number. Numbered
//! are the operations that change something outside the program: changes of the disk, and the
//! broker's `submit` and `poll`. Looking (open, read, list) is not numbered, since a crash there
//! leaves what a crash before the next change leaves; it fails after death like everything else.
//!
//! A program that goes on for ever after the end of its world would hang the search, so it is told
//! by a panic after [`CALLS_AFTER_DEATH_MAX`] calls.
//!
//! # Lives
//!
//! A [`World`] *is* a life: what holds on to the world of a dead process can never touch the next
//! one. [`World::next_life`] begins the next, later on the same tape and with the same log;
//! [`World::branch`] begins one on another tape, which is how one crash is followed by each of its
//! disk images.

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use discogs_extractor::time::{Clock, Instant};

use crate::clock::VirtualClock;
use crate::faults::{Fault, Faults};
use crate::tape::Tape;
use crate::trace::Trace;

/// How often a program may call its dead world before it is stopped by a panic.
pub const CALLS_AFTER_DEATH_MAX: u32 = 100_000;

/// How long an operation takes. Not zero, so that a program that never waits still lives in time.
const OPERATION_TAKES: Duration = Duration::from_micros(1);

/// On which side of an operation a crash falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The operation has no effect.
    Before,
    /// The operation has its effect, but the program does not live to see the result.
    After,
}

/// The world is frozen: nothing works any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frozen;

impl From<Frozen> for io::Error {
    fn from(_: Frozen) -> Self {
        Self::other("the process is dead")
    }
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Instant,
    /// Which life of the process, from 1.
    pub life: u32,
    /// The number of the last operation begun.
    pub operation: u64,
    /// What was done: `disk.rename`, `broker.poll`.
    pub what: &'static str,
    /// To what, with which result.
    pub text: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, life, operation) = (self.at, self.life, self.operation);
        write!(
            f,
            "{at:>16}  {life}#{operation:<5} {:<16} {}",
            self.what, self.text
        )
    }
}

/// The log of several lives that followed one another.
type Log = Arc<Mutex<Vec<Entry>>>;

/// One life of the process. Clones are handles of the same life.
#[derive(Clone, Debug)]
pub struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tape: Tape,
    process_tape: Tape,
    clock: VirtualClock,
    faults: Faults,
    life: u32,
    began: Instant,
    log: Option<Log>,
    state: Mutex<State>,
}

/// Where a life is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// At the operation with a number, counted from 1 in each life.
    At(u64, Moment),
    /// After an operation with a name, counted from 1: after the third `disk.write`.
    After(&'static str, u64),
}

#[derive(Clone, Debug)]
struct State {
    operations: u64,
    crash: Option<Crash>,
    frozen: bool,
    calls_after_death: u32,
    trace: Trace,
    fired: [u64; Fault::ALL.len()],
}

impl World {
    /// The first life.
    pub fn new(tape: Tape, faults: Faults) -> Self {
        let state = State {
            operations: 0,
            crash: None,
            frozen: false,
            calls_after_death: 0,
            trace: Trace::new(),
            fired: [0; Fault::ALL.len()],
        };
        Self::of(tape, VirtualClock::default(), faults, 1, None, state)
    }

    /// The first life, with a [timeline](Self::timeline) kept. It costs a few strings for each
    /// operation, so searches do without and repeat a failure with it.
    pub fn logged(tape: Tape, faults: Faults) -> Self {
        let world = Self::new(tape, faults);
        let state = world.lock().clone();
        Self::of(
            world.0.tape.clone(),
            world.clock(),
            faults,
            1,
            Some(Log::default()),
            state,
        )
    }

    fn of(
        tape: Tape,
        clock: VirtualClock,
        faults: Faults,
        life: u32,
        log: Option<Log>,
        state: State,
    ) -> Self {
        Self(Arc::new(Inner {
            process_tape: tape.fork("process"),
            tape,
            began: clock.now(),
            clock,
            faults,
            life,
            log,
            state: Mutex::new(state),
        }))
    }

    /// The life after this one, with the same tape and log. This one is frozen.
    pub fn next_life(&self, faults: Faults) -> Self {
        self.freeze();
        let clock = VirtualClock::at(self.now());
        self.successor(self.0.tape.clone(), clock, faults, self.0.log.clone())
    }

    /// A life after this one on a tape of its own. Time and log are copied, so that any number of
    /// branches can follow one crash. This one is frozen.
    pub fn branch(&self, tape: Tape, faults: Faults) -> Self {
        self.freeze();
        let log = self
            .0
            .log
            .as_ref()
            .map(|_| Arc::new(Mutex::new(self.log())));
        self.successor(tape, VirtualClock::at(self.now()), faults, log)
    }

    fn successor(&self, tape: Tape, clock: VirtualClock, faults: Faults, log: Option<Log>) -> Self {
        let state = State {
            operations: 0,
            crash: None,
            frozen: false,
            calls_after_death: 0,
            ..self.lock().clone()
        };
        Self::of(tape, clock, faults, self.0.life + 1, log, state)
    }

    /// Arranges for the world to freeze.
    pub fn crash(&self, crash: Crash) {
        self.lock().crash = Some(crash);
    }

    /// Arranges for the world to freeze at operation `number`.
    pub fn crash_at(&self, number: u64, moment: Moment) {
        self.crash(Crash::At(number, moment));
    }

    /// Freezes the world now.
    pub fn freeze(&self) {
        self.lock().freeze();
    }

    /// Whether the process is dead: the runner takes the image and drops the program.
    pub fn frozen(&self) -> bool {
        self.lock().frozen
    }

    /// How many operations this life has begun.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Which life of the process this is, from 1.
    pub fn life(&self) -> u32 {
        self.0.life
    }

    /// The clock of this life.
    pub fn clock(&self) -> VirtualClock {
        self.0.clock.clone()
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// How long this life has lasted.
    pub fn lived(&self) -> Duration {
        self.now().since(self.0.began)
    }

    /// The tape that this life draws from.
    pub fn tape(&self) -> &Tape {
        &self.0.tape
    }

    /// The kinds of faults that exist in this life.
    pub fn faults(&self) -> Faults {
        self.0.faults
    }

    /// How often a kind of fault has happened, in this life and those before it.
    pub fn fired(&self, fault: Fault) -> u64 {
        self.lock().fired[fault as usize]
    }

    /// A hash over every operation, its result and every choice so far, in their order.
    pub fn trace_hash(&self) -> u64 {
        let mut trace = self.lock().trace;
        trace.number(self.0.tape.hash());
        trace.number(self.now().as_nanoseconds());
        trace.value()
    }

    /// Whether a timeline is kept.
    pub fn logs(&self) -> bool {
        self.0.log.is_some()
    }

    /// What happened so far, oldest first; empty if no timeline is kept.
    pub fn log(&self) -> Vec<Entry> {
        let Some(log) = &self.0.log else {
            return Vec::new();
        };
        log.lock().expect("no entry panics half way").clone()
    }

    /// The timeline for people, one operation a line.
    pub fn timeline(&self) -> String {
        self.log().iter().fold(String::new(), |mut text, entry| {
            writeln!(text, "{entry}").expect("a string takes everything");
            text
        })
    }

    /// Adds a line to the timeline, if one is kept. For a runner's own remarks too.
    pub fn note(&self, what: &'static str, text: impl FnOnce() -> String) {
        if let Some(log) = &self.0.log {
            let entry = Entry {
                at: self.now(),
                life: self.0.life,
                operation: self.operations(),
                what,
                text: text(),
            };
            log.lock().expect("no entry panics half way").push(entry);
        }
    }

    /// Begins a numbered operation, unless the process is dead or dies here.
    pub(crate) fn begin(&self, what: &'static str) -> Result<(), Frozen> {
        self.pause();
        let mut state = self.lock();
        state.alive()?;
        state.operations += 1;
        if let Some(Crash::After(name, left)) = &mut state.crash
            && *name == what
        {
            *left = left.saturating_sub(1);
        }
        self.0.clock.advance(OPERATION_TAKES);
        let dies = state.dies(Moment::Before);
        drop(state);
        self.die_if(dies, "before the operation")
    }

    /// Ends the operation begun last: its effect has taken place.
    pub(crate) fn end(&self) -> Result<(), Frozen> {
        let dies = self.lock().dies(Moment::After);
        self.die_if(dies, "after the operation")
    }

    /// Begins something that changes nothing outside.
    pub(crate) fn look(&self) -> Result<(), Frozen> {
        self.lock().alive()
    }

    fn die_if(&self, dies: bool, moment: &str) -> Result<(), Frozen> {
        if dies {
            self.freeze();
            self.note("process.dies", || moment.to_owned());
            return Err(Frozen);
        }
        Ok(())
    }

    /// Takes an operation and what became of it into the trace hash.
    pub(crate) fn trace(&self, what: &'static str, subject: &[u8], result: u64) {
        let mut state = self.lock();
        state.trace.bytes(what.as_bytes());
        state.trace.bytes(subject);
        state.trace.number(result);
    }

    /// Whether a fault that exists in this run happens now; counted if so.
    pub(crate) fn strikes(&self, fault: Fault, tape: &Tape, label: &'static str) -> bool {
        let faults = self.0.faults;
        let strikes = faults.has(fault) && tape.chance(label, faults.rarity());
        if strikes {
            self.fire(fault);
        }
        strikes
    }

    /// Which of several kinds of faults happens now, if any; one choice for all that exist. It is
    /// counted.
    pub(crate) fn pick(&self, kinds: &[Fault], tape: &Tape, label: &'static str) -> Option<Fault> {
        let mut possible = [None; Fault::ALL.len() + 1];
        let mut weights = [1; Fault::ALL.len() + 1];
        let mut count = 1;
        for &kind in kinds.iter().filter(|&&kind| self.0.faults.has(kind)) {
            possible[count] = Some(kind);
            count += 1;
        }
        weights[0] = self
            .0
            .faults
            .rarity()
            .saturating_sub(count as u32 - 1)
            .max(1);
        let picked = possible[tape.choose_weighted(label, &weights[..count]) as usize];
        picked.inspect(|&fault| self.fire(fault))
    }

    /// Counts a fault that happened.
    pub(crate) fn fire(&self, fault: Fault) {
        self.lock().fired[fault as usize] += 1;
    }

    fn pause(&self) {
        if !self.frozen() && self.strikes(Fault::Pause, &self.0.process_tape, "process.pause") {
            let seconds =
                [1, 20, 300][self.0.process_tape.choose("process.pause.length", 3) as usize];
            self.0.clock.advance(Duration::from_secs(seconds));
            self.note("process.pause", || format!("{seconds} s"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A program that was stopped by the panic below is dropped while it unwinds.
        self.0
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn freeze(&mut self) {
        self.frozen = true;
        self.crash = None;
    }

    fn dies(&self, moment: Moment) -> bool {
        match self.crash {
            Some(Crash::At(number, at)) => (number, at) == (self.operations, moment),
            Some(Crash::After(_, left)) => left == 0 && moment == Moment::After,
            None => false,
        }
    }

    fn alive(&mut self) -> Result<(), Frozen> {
        if !self.frozen {
            return Ok(());
        }
        self.calls_after_death += 1;
        assert!(
            self.calls_after_death <= CALLS_AFTER_DEATH_MAX,
            "the program goes on after its world was frozen: ask `World::frozen` after each step"
        );
        Err(Frozen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        World::logged(Tape::benign(), Faults::none())
    }

    fn operation(world: &World, effect: &mut u32) -> Result<(), Frozen> {
        world.begin("test")?;
        *effect += 1;
        world.end()
    }

    /// Crashes at operation 2 of 3: which effects took place, and how many succeeded.
    fn check(moment: Moment, expected: (u32, usize)) {
        let world = world();
        world.crash_at(2, moment);
        let mut effects = 0;
        let succeeded = (0..3)
            .filter(|_| operation(&world, &mut effects).is_ok())
            .count();
        assert_eq!((effects, succeeded), expected);
        assert!(world.frozen());
        assert_eq!(world.look(), Err(Frozen));
    }

    #[test]
    fn a_crash_falls_before_or_after_an_operation() {
        check(Moment::Before, (1, 1));
        check(Moment::After, (2, 1));
    }

    #[test]
    fn a_crash_falls_after_an_operation_with_a_name() {
        let world = world();
        world.crash(Crash::After("test", 2));
        world
            .begin("other")
            .and_then(|()| world.end())
            .expect("alive");
        let mut effects = 0;
        operation(&world, &mut effects).expect("alive");
        assert_eq!(operation(&world, &mut effects), Err(Frozen));
        assert_eq!((effects, world.operations()), (2, 3));
    }

    #[test]
    fn the_next_life_goes_on_where_the_dead_one_ended() {
        let first = world();
        operation(&first, &mut 0).expect("alive");
        let second = first.next_life(Faults::none());
        assert!(first.frozen() && !second.frozen());
        assert_eq!((second.life(), second.operations()), (2, 0));
        assert_eq!(second.now(), first.now());
        second.note("test", || "hello".to_owned());
        assert!(first.timeline().ends_with("hello\n"));
    }

    #[test]
    fn branches_know_nothing_of_each_other() {
        let first = world();
        let (one, other) = [1, 2]
            .map(|_| first.branch(Tape::benign(), Faults::none()))
            .into();
        operation(&one, &mut 0).expect("alive");
        one.note("test", String::new);
        assert_eq!(other.operations(), 0);
        assert_eq!(other.log(), first.log());
        assert!(other.now() < one.now());
    }

    #[test]
    #[should_panic(expected = "ask `World::frozen`")]
    fn a_program_that_ignores_its_death_is_stopped() {
        let world = world();
        world.freeze();
        while world.look().is_err() {}
    }

    #[test]
    fn pauses_are_drawn_and_counted() {
        let world = World::new(Tape::recorded(vec![1, 2]), Faults::only(&[Fault::Pause]));
        operation(&world, &mut 0).expect("alive");
        assert_eq!(world.now().since(Instant::ORIGIN).as_secs(), 300);
        assert_eq!(world.fired(Fault::Pause), 1);
    }

    #[test]
    fn the_trace_hash_is_of_operations_choices_and_time() {
        let hash = |what| {
            let world = world();
            world.trace(what, b"subject", 0);
            world.trace_hash()
        };
        assert_eq!(hash("one"), hash("one"));
        assert_ne!(hash("one"), hash("other"));
    }
}
