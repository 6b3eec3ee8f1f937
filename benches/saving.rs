//! The whole pipeline with a save whenever so many records were settled, beside runs that never
//! save: what saving costs.

mod support;

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::QueueType;
use support::pairs::{compare, configure};
use support::{Corpus, Target, extract, places, rabbitmq, xml_megabytes};

const INTERVALS: [u64; 6] = [100, 500, 1_000, 5_000, 20_000, 100_000];

/// A broker takes fewer records a second than reading gives.
const RABBITMQ_SHARE: u64 = 3;

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
    let corpus = Corpus::sized(Kind::Artists, xml_megabytes().div_ceil(RABBITMQ_SHARE));
    for (place, directory) in places() {
        let target = Target::RabbitMq(QueueType::Quorum);
        saving_into(criterion, &corpus, target, place, directory);
    }
    rabbitmq::clean();
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

criterion_group!(benches, saving);
criterion_main!(benches);
