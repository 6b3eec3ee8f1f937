//! The whole pipeline with a save whenever so many records were settled: what saving costs.

#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]

mod support;

use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use discogs_extractor::dump::Kind;
use support::{Corpus, Target, extract};
use tempfile::TempDir;

/// 0 is never.
const INTERVALS: [u64; 7] = [100, 500, 1_000, 5_000, 20_000, 100_000, 0];

fn saving(criterion: &mut Criterion) {
    let corpus = Corpus::new(Kind::Artists);
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let memory = Path::new("/dev/shm");
    for (name, directory) in [("disk", disk), ("tmpfs", memory)] {
        if !directory.is_dir() {
            continue;
        }
        for target in [Target::Null, Target::Spool] {
            let mut group = criterion.benchmark_group(format!("{target:?}-{name}").to_lowercase());
            group.sample_size(10);
            group.throughput(Throughput::Bytes(corpus.xml_bytes));
            for interval in INTERVALS {
                group.bench_function(interval.to_string(), |bencher| {
                    bencher.iter_batched_ref(
                        || TempDir::new_in(directory).unwrap(),
                        |state| extract(&corpus, target, interval, state.path()),
                        BatchSize::PerIteration,
                    );
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, saving);
criterion_main!(benches);
