//! From a dump file to a broker, each beside its limit.
//!
//! | into | limit |
//! |---|---|
//! | nothing | inflating alone, with the same library; `gzip -dc` |
//! | files | writing the same bodies to a file, and syncing it |
//! | RabbitMQ | a publisher that does nothing but publish the same bodies |

#![expect(
    clippy::disallowed_methods,
    reason = "the limits use the machine as it is"
)]
#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]

mod support;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use discogs_extractor::dump::Kind;
use discogs_extractor::message::Content;
use discogs_extractor::rabbitmq::QueueType;
use support::pairs::{compare, configure};
use support::{Corpus, Target, extract, places, rabbitmq, rabbitmq_megabytes, timed};
use tempfile::TempDir;

/// As often as a run saves by default.
const INTERVAL: u64 = 5_000;

fn end_to_end(criterion: &mut Criterion) {
    for kind in [Kind::Artists, Kind::Releases] {
        into_machine(criterion, &Corpus::new(kind));
    }
    if rabbitmq::url().is_none() {
        eprintln!("RabbitMQ is left out: RABBITMQ_TEST_URL is not set");
        return;
    }
    for kind in [Kind::Artists, Kind::Releases] {
        into_rabbitmq(criterion, &Corpus::sized(kind, rabbitmq_megabytes()));
    }
    rabbitmq::clean();
}

fn into_machine(criterion: &mut Criterion, corpus: &Corpus) {
    let name = format!("end-to-end-{}", corpus.dump.kind);
    let messages = corpus.messages();
    let (_, disk) = places()[0];
    let mut group = criterion.benchmark_group(&name);
    configure(&mut group);
    group.throughput(Throughput::Bytes(corpus.xml_bytes));
    let run = |target| move || extract(corpus, target, INTERVAL, disk);
    compare(&mut group, &name, "null", run(Target::Null), || {
        timed(|| corpus.inflate())
    });
    compare(&mut group, &name, "gzip", run(Target::Null), || {
        gzip(corpus)
    });
    compare(&mut group, &name, "spool", run(Target::Spool), || {
        write(&messages, disk)
    });
    group.finish();
}

fn into_rabbitmq(criterion: &mut Criterion, corpus: &Corpus) {
    let kind = corpus.dump.kind;
    let name = format!("end-to-end-{kind}");
    let messages = corpus.messages();
    let (_, disk) = places()[0];
    let mut group = criterion.benchmark_group(format!("{name}-rabbitmq"));
    configure(&mut group);
    group.throughput(Throughput::Bytes(corpus.xml_bytes));
    for queue_type in [QueueType::Quorum, QueueType::Classic] {
        let target = Target::RabbitMq(queue_type);
        compare(
            &mut group,
            &name,
            target.name(),
            || extract(corpus, target, INTERVAL, disk),
            || rabbitmq::publish_bare(kind, queue_type, &messages),
        );
    }
    group.finish();
}

/// What the installed `gzip` takes.
fn gzip(corpus: &Corpus) -> Duration {
    let mut gzip = Command::new("gzip");
    gzip.arg("-dc").arg(&corpus.dump.path).stdout(Stdio::null());
    timed(|| assert!(gzip.status().unwrap().success()))
}

/// What writing the bodies and one sync takes.
fn write(messages: &[Content], directory: &Path) -> Duration {
    let directory = TempDir::new_in(directory).unwrap();
    timed(|| {
        let file = File::create(directory.path().join("messages")).unwrap();
        let mut file = BufWriter::with_capacity(128 * 1024, file);
        for message in messages {
            file.write_all(&message.body).unwrap();
            file.write_all(b"\n").unwrap();
        }
        file.into_inner().unwrap().sync_all().unwrap();
    })
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
