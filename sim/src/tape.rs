//! The decision tape: the one place where a simulated run gets its chance from.
//!
//! Every random choice of the world (does this write fail, which unsynced chunks survive, when does
//! the confirm come) is one call [`Tape::choose`]. Nothing else may be random, so the list of the
//! numbers chosen *is* the run: written down it repeats it, enumerated it proves things about all
//! runs, shortened it is a smaller failure. For that, 0 is always the benign choice (no fault, all
//! survives, prompt), and a recording that is too short goes on with zeros.
//!
//! A tape has one of three sources:
//!
//! - a **seed**: each component draws from a stream of its own, [forked](Tape::fork) by name, so
//!   that one more draw by the disk does not change what the broker does;
//! - a **recording**: the choices in the order in which they were made. Forks share one recorder,
//!   because a recording holds the choices of all components interleaved; the order is the program's
//!   own, so the same program asks in the same order;
//! - an **odometer**: recordings counted through depth first, until every vector of choices that the
//!   run can ask for has been tried ([`Odometer`]).

use std::sync::{Arc, Mutex, MutexGuard};

use crate::trace::Trace;

/// One choice that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What was decided, for people.
    pub label: &'static str,
    /// The number chosen; 0 is benign.
    pub chosen: u32,
    /// How many there were to choose from.
    pub of: u32,
}

/// A source of choices and the record of them. Clones and forks share both.
#[derive(Clone, Debug)]
pub struct Tape {
    shared: Arc<Mutex<Shared>>,
    /// Which stream of a seeded tape this handle draws from.
    stream: usize,
}

#[derive(Debug)]
struct Shared {
    source: Source,
    choices: Vec<Choice>,
    trace: Trace,
}

#[derive(Debug)]
enum Source {
    Seed { seed: u64, streams: Vec<Stream> },
    Recorded(Vec<u32>),
}

#[derive(Debug)]
struct Stream {
    name: &'static str,
    random: SplitMix,
}

impl Tape {
    /// A tape that draws from `seed`.
    pub fn seeded(seed: u64) -> Self {
        let streams = vec![Stream::new(seed, "")];
        Self::new(Source::Seed { seed, streams })
    }

    /// A tape that repeats `choices` and goes on with zeros.
    ///
    /// A number that is too large for its choice (the program changed since the recording, or a
    /// shrinker is at work) becomes the largest that is possible.
    pub fn recorded(choices: Vec<u32>) -> Self {
        Self::new(Source::Recorded(choices))
    }

    /// A tape on which every choice is the benign one.
    pub fn benign() -> Self {
        Self::recorded(Vec::new())
    }

    fn new(source: Source) -> Self {
        let shared = Shared {
            source,
            choices: Vec::new(),
            trace: Trace::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            stream: 0,
        }
    }

    /// The stream of the component called `name`; the same name gives the same stream again, so a
    /// component of the next process goes on where that of the dead one ended.
    pub fn fork(&self, name: &'static str) -> Self {
        let stream = match &mut self.lock().source {
            Source::Seed { seed, streams } => stream_of(*seed, streams, name),
            Source::Recorded(_) => 0,
        };
        Self {
            shared: Arc::clone(&self.shared),
            stream,
        }
    }

    /// Chooses one of `0..n`, each equally often. Nothing is drawn or recorded if there is no
    /// choice.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn choose(&self, label: &'static str, n: u32) -> u32 {
        self.decide(label, n, |random| random.below(n))
    }

    /// Chooses an index of `weights`, each as often as its weight says. Weights shape seeded runs
    /// only: a recording or an odometer can ask for any index.
    pub fn choose_weighted(&self, label: &'static str, weights: &[u32]) -> u32 {
        let n = u32::try_from(weights.len()).expect("choices are few");
        self.decide(label, n, |random| index_of(weights, random))
    }

    /// Whether something rare happens, once in `one_in` times in seeded runs.
    pub fn chance(&self, label: &'static str, one_in: u32) -> bool {
        self.choose_weighted(label, &[one_in.saturating_sub(1), 1]) == 1
    }

    fn decide(&self, label: &'static str, n: u32, draw: impl FnOnce(&mut SplitMix) -> u32) -> u32 {
        assert!(n > 0, "{label}: a choice among nothing");
        if n == 1 {
            return 0;
        }
        let mut shared = self.lock();
        let position = shared.choices.len();
        let chosen = match &mut shared.source {
            Source::Seed { streams, .. } => draw(&mut streams[self.stream].random),
            Source::Recorded(choices) => {
                choices.get(position).map_or(0, |&choice| choice.min(n - 1))
            }
        };
        shared.record(Choice {
            label,
            chosen,
            of: n,
        });
        chosen
    }

    /// Every choice so far, in order.
    pub fn choices(&self) -> Vec<Choice> {
        self.lock().choices.clone()
    }

    /// What [`Tape::recorded`] needs to repeat this run: the numbers so far, without the zeros at
    /// the end.
    pub fn recording(&self) -> Vec<u32> {
        let shared = self.lock();
        let numbers = shared.choices.iter().map(|choice| choice.chosen);
        let length = numbers.clone().rposition(|chosen| chosen != 0);
        numbers.take(length.map_or(0, |last| last + 1)).collect()
    }

    /// A hash over every choice so far and their order.
    pub fn hash(&self) -> u64 {
        self.lock().trace.value()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no choice panics half way")
    }
}

impl Shared {
    fn record(&mut self, choice: Choice) {
        self.trace.bytes(choice.label.as_bytes());
        self.trace.number(u64::from(choice.chosen));
        self.trace.number(u64::from(choice.of));
        self.choices.push(choice);
    }
}

fn stream_of(seed: u64, streams: &mut Vec<Stream>, name: &'static str) -> usize {
    if let Some(stream) = streams.iter().position(|stream| stream.name == name) {
        return stream;
    }
    streams.push(Stream::new(seed, name));
    streams.len() - 1
}

fn index_of(weights: &[u32], random: &mut SplitMix) -> u32 {
    let mut left = random.below(weights.iter().sum::<u32>().max(1));
    for (index, &weight) in (0..).zip(weights) {
        if left < weight {
            return index;
        }
        left -= weight;
    }
    0
}

impl Stream {
    /// The stream's own seed is mixed from the run's seed and the name, never drawn: the order in
    /// which components come to life must not matter.
    fn new(seed: u64, name: &'static str) -> Self {
        let mut trace = Trace::new();
        trace.number(seed);
        trace.bytes(name.as_bytes());
        Self {
            name,
            random: SplitMix(trace.value()),
        }
    }
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): our
/// own, so that a seed means the same run whatever versions of libraries are around.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`. The bias of the high-multiply method is below 2^-32 and does not matter here.
    const fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * n as u64) >> 32) as u32
    }
}

/// Every vector of choices that a run can ask for, depth first, each once.
///
/// It hands out a tape, looks at what the run recorded on it, and counts on:
///
/// ```
/// use sim::tape::Odometer;
///
/// let mut seen = Vec::new();
/// for tape in Odometer::new() {
///     let first = tape.choose("first", 2);
///     let second = if first == 1 { tape.choose("second", 3) } else { 0 };
///     seen.push((first, second));
/// }
/// assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2)]);
/// ```
///
/// The number of runs is the product of the choices, so it suits small runs, or
/// [a bound](Odometer::at_most) on how much may go wrong in one.
#[derive(Debug)]
pub struct Odometer {
    /// The tape handed out last, and the choices that it was told to begin with.
    last: Option<(Tape, Vec<Choice>)>,
    deviations_max: usize,
    finished: bool,
}

impl Odometer {
    /// All vectors.
    #[expect(clippy::new_without_default, reason = "it is an iterator, not a value")]
    pub fn new() -> Self {
        Self::at_most(usize::MAX)
    }

    /// All vectors in which at most `deviations_max` choices are not the benign one.
    pub fn at_most(deviations_max: usize) -> Self {
        Self {
            last: None,
            deviations_max,
            finished: false,
        }
    }

    /// The choices that the next run has to begin with; `None` when all have been tried.
    fn successor(&self, mut choices: Vec<Choice>) -> Option<Vec<Choice>> {
        while let Some(mut choice) = choices.pop() {
            let deviations = choices.iter().filter(|choice| choice.chosen != 0).count();
            if choice.chosen + 1 < choice.of && deviations < self.deviations_max {
                choice.chosen += 1;
                choices.push(choice);
                return Some(choices);
            }
        }
        None
    }

    fn prefix(&self) -> Option<Vec<Choice>> {
        let Some((tape, told)) = &self.last else {
            return Some(Vec::new());
        };
        let choices = tape.choices();
        assert!(
            choices.starts_with(told),
            "the run is not deterministic: it was told {told:?} and asked {choices:?}"
        );
        self.successor(choices)
    }
}

impl Iterator for Odometer {
    type Item = Tape;

    fn next(&mut self) -> Option<Tape> {
        if self.finished {
            return None;
        }
        let Some(prefix) = self.prefix() else {
            self.finished = true;
            return None;
        };
        let tape = Tape::recorded(prefix.iter().map(|choice| choice.chosen).collect());
        self.last = Some((tape.clone(), prefix));
        Some(tape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(tape: &Tape, count: usize) -> Vec<u32> {
        (0..count).map(|_| tape.choose("draw", 1000)).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_seed_does_not() {
        let first = draws(&Tape::seeded(7), 50);
        assert_eq!(first, draws(&Tape::seeded(7), 50));
        assert_ne!(first, draws(&Tape::seeded(8), 50));
    }

    /// The numbers of a seed are part of the interface: a bug report names a seed.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        assert_eq!(draws(&Tape::seeded(1), 4), A_SEED_OF_ONE);
    }

    const A_SEED_OF_ONE: [u32; 4] = [497, 762, 616, 594];

    #[test]
    fn one_component_does_not_shift_another() {
        let alone = Tape::seeded(3);
        let expected = draws(&alone.fork("broker"), 20);
        let both = Tape::seeded(3);
        let (disk, broker) = (both.fork("disk"), both.fork("broker"));
        let drawn: Vec<u32> = (0..20)
            .map(|_| {
                draws(&disk, 3);
                broker.choose("draw", 1000)
            })
            .collect();
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_recording_repeats_the_interleaving_of_all_components() {
        let run = |tape: &Tape| {
            let (disk, broker) = (tape.fork("disk"), tape.fork("broker"));
            for _ in 0..10 {
                if disk.chance("fault", 2) {
                    broker.choose("outcome", 5);
                }
            }
            tape.choices()
        };
        let seeded = Tape::seeded(11);
        let choices = run(&seeded);
        let replayed = Tape::recorded(seeded.recording());
        assert_eq!(run(&replayed), choices);
        assert_eq!(replayed.hash(), seeded.hash());
    }

    #[test]
    fn a_recording_goes_on_with_zeros_and_clamps() {
        let tape = Tape::recorded(vec![9, 1]);
        assert_eq!(tape.choose("clamped", 3), 2);
        assert_eq!(tape.choose("alone", 1), 0);
        assert_eq!(tape.choose("as recorded", 3), 1);
        assert_eq!(tape.choose("past the end", 3), 0);
        assert_eq!(tape.recording(), [2, 1]);
    }

    #[test]
    fn weights_shape_seeded_draws_only() {
        let tape = Tape::seeded(5);
        let rare = (0..10_000).filter(|_| tape.chance("rare", 100)).count();
        assert!((50..200).contains(&rare), "{rare} of 10,000");
        assert!(Tape::recorded(vec![1]).chance("rare", 1_000_000));
    }

    fn odometer_runs(odometer: Odometer) -> Vec<Vec<u32>> {
        odometer
            .map(|tape| [2, 3, 2].map(|n| tape.choose("digit", n)).to_vec())
            .collect()
    }

    #[test]
    fn the_odometer_enumerates_every_vector_once() {
        let runs = odometer_runs(Odometer::new());
        let mut distinct = runs.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!((runs.len(), distinct.len()), (12, 12));
        assert_eq!(runs.first(), Some(&vec![0, 0, 0]));
        assert_eq!(runs.last(), Some(&vec![1, 2, 1]));
    }

    #[test]
    fn the_odometer_keeps_to_its_bound() {
        // None; one of the first, two of the second, one of the third.
        assert_eq!(odometer_runs(Odometer::at_most(0)).len(), 1);
        assert_eq!(odometer_runs(Odometer::at_most(1)).len(), 5);
        assert_eq!(odometer_runs(Odometer::at_most(2)).len(), 10);
        assert_eq!(odometer_runs(Odometer::at_most(3)).len(), 12);
    }

    #[test]
    #[should_panic(expected = "not deterministic")]
    fn the_odometer_notices_a_run_that_is_not_deterministic() {
        for (run, tape) in Odometer::new().enumerate() {
            tape.choose(if run == 0 { "one" } else { "another" }, 2);
        }
    }
}
