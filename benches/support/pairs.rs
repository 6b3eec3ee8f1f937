//! Measurements of two things by turns.
//!
//! What saving costs is less than what a machine's speed changes within a minute. So each run is
//! measured beside one of what it is held against, and the ratio of the two counts. Criterion takes
//! the time of the first; both are kept for the summary.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use serde_json::{Value, json};

/// What was measured of `group` and `name`: seconds of the one and of the other.
pub(crate) struct Pairs {
    pairs: Vec<(f64, f64)>,
}

impl Pairs {
    /// What was measured last, if anything was.
    pub(crate) fn load(group: &str, name: &str) -> Option<Self> {
        let text = fs::read_to_string(path(group, name)).ok()?;
        let value: Value = serde_json::from_str(&text).unwrap();
        let seconds = |pair: &Value, index: usize| pair[index].as_f64().unwrap();
        let pairs = value.as_array().unwrap().iter();
        let pairs = pairs.map(|pair| (seconds(pair, 0), seconds(pair, 1)));
        Some(Self {
            pairs: pairs.collect(),
        })
    }

    /// Keeps them for the summary.
    fn save(&self, group: &str, name: &str) {
        let path = path(group, name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pairs: Vec<_> = self
            .pairs
            .iter()
            .map(|(one, other)| json!([one, other]))
            .collect();
        fs::write(path, Value::Array(pairs).to_string()).unwrap();
    }

    /// The median of the one, in seconds.
    pub(crate) fn one(&self) -> f64 {
        quartiles(self.pairs.iter().map(|pair| pair.0))[1]
    }

    /// The median of the other, in seconds.
    pub(crate) fn other(&self) -> f64 {
        quartiles(self.pairs.iter().map(|pair| pair.1))[1]
    }

    /// The quartiles of one : other.
    pub(crate) fn ratio(&self) -> [f64; 3] {
        quartiles(self.pairs.iter().map(|(one, other)| one / other))
    }
}

/// The values a quarter, half and three quarters of the way up.
fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    [1, 2, 3].map(|quarter| {
        let (below, rest) = (last * quarter / 4, last * quarter % 4);
        let above = (below + 1).min(last);
        values[below] + (values[above] - values[below]) * rest as f64 / 4.0
    })
}

fn path(group: &str, name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pairs");
    folder.join(group).join(format!("{name}.json"))
}

/// A criterion group for [`compare`]: as few runs as its statistics need.
pub(crate) fn configure(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10);
    group.sampling_mode(criterion::SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(1));
    group.measurement_time(Duration::from_millis(1));
}

/// Measures `one` and `other` by turns, as the bench `name` of `group`.
pub(crate) fn compare(
    group: &mut BenchmarkGroup<'_, WallTime>,
    group_name: &str,
    name: &str,
    one: impl Fn() -> Duration,
    other: impl Fn() -> Duration,
) {
    let pairs = RefCell::new(Vec::new());
    let is_first = Cell::new(true);
    let pair = || {
        let first = is_first.replace(!is_first.get());
        let early = first.then(&other);
        let taken = one();
        let taken_by_other = early.unwrap_or_else(&other);
        let seconds = (taken.as_secs_f64(), taken_by_other.as_secs_f64());
        pairs.borrow_mut().push(seconds);
        taken
    };
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| pair()).sum());
    });
    let pairs = pairs.into_inner();
    // As a test it runs once and in another profile, which is no measurement.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    if is_measured && !pairs.is_empty() {
        Pairs { pairs }.save(group_name, name);
    }
}
