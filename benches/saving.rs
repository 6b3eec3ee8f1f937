//! The whole pipeline with a save whenever so many records were settled, beside runs that never
//! save: what saving costs. And one save, beside the least that replaces a file durably.

#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "the least is what the system does"
)]

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use discogs_extractor::dump::Kind;
use discogs_extractor::fs::OsFileSystem;
use discogs_extractor::marker::{Marker, Paths, Save};
use discogs_extractor::rabbitmq::QueueType;
use support::pairs::{compare, configure};
use support::{Corpus, SAVES, Target, extract, places, rabbitmq, rabbitmq_megabytes, timed};
use tempfile::TempDir;

const INTERVALS: [u64; 6] = [100, 500, 1_000, 5_000, 20_000, 100_000];

fn saving(criterion: &mut Criterion) {
    let corpus = Corpus::new(Kind::Artists);
    for (place, directory) in places() {
        for target in [Target::Null, Target::Spool] {
            saving_into(criterion, &corpus, target, place, directory);
        }
    }
    if rabbitmq::url().is_none() {
        eprintln!("saving beside RabbitMQ is left out: RABBITMQ_TEST_URL is not set");
        return;
    }
    let corpus = Corpus::sized(Kind::Artists, rabbitmq_megabytes());
    for (place, directory) in places() {
        let target = Target::RabbitMq(QueueType::Quorum);
        saving_into(criterion, &corpus, target, place, directory);
    }
    rabbitmq::clean();
}

/// A save, beside writing as many bytes, a sync, a rename and a sync of the directory: nothing less
/// survives a crash.
fn one_save(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("save");
    configure(&mut group);
    group.throughput(Throughput::Elements(SAVES));
    for (place, directory) in places() {
        let directory = TempDir::new_in(directory).unwrap();
        let directory = directory.path();
        let version = "20260801".parse().unwrap();
        let (paths, marker) = (Paths::new(directory, &version), Marker::new(&version));
        let save = |number| {
            let save = Save::new(&paths, number, &marker, Vec::new());
            save.finish(&OsFileSystem).unwrap();
        };
        save(0);
        let bytes = fs::read(paths.marker()).unwrap();
        compare(
            &mut group,
            "save",
            place,
            || timed(|| (1..=SAVES).for_each(save)),
            || timed(|| (1..=SAVES).for_each(|_| replace(directory, &bytes))),
        );
    }
    group.finish();
}

fn replace(directory: &Path, bytes: &[u8]) {
    let (new, present) = (directory.join("new"), directory.join("present"));
    let mut file = File::create(&new).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    fs::rename(&new, &present).unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
}

fn saving_into(
    criterion: &mut Criterion,
    corpus: &Corpus,
    target: Target,
    place: &str,
    directory: &Path,
) {
    let name = format!("saving-{}-{place}", target.name());
    let mut group = criterion.benchmark_group(&name);
    configure(&mut group);
    group.throughput(Throughput::Elements(corpus.records));
    for interval in INTERVALS {
        compare(
            &mut group,
            &name,
            &interval.to_string(),
            || extract(corpus, target, interval, directory),
            || extract(corpus, target, 0, directory),
        );
    }
    group.finish();
}

criterion_group!(benches, one_save, saving);
criterion_main!(benches);
