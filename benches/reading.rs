//! From a dump file to its messages: each step alone, all together, and what they are held against.

#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use discogs_extractor::dump::Kind;
use discogs_extractor::gzip::GzipReader;
use discogs_extractor::message::{Profile, Reading, Transcoder};
use discogs_extractor::pool::pooled;
use discogs_extractor::record::Position;
use support::{Corpus, split, tree};

const PIECE: usize = 128 * 1024;

/// Each step of every kind of dump. `limit` is inflating alone, with the same library; `tree` is a
/// tree of values per record, inflated and split by us.
fn reading(criterion: &mut Criterion) {
    for kind in Kind::ALL {
        let corpus = Corpus::new(kind);
        let xml = corpus.xml();
        let mut group = criterion.benchmark_group(kind.to_string());
        group.sample_size(10);
        group.throughput(Throughput::Bytes(corpus.xml_bytes));
        group.bench_function("limit", |bencher| {
            bencher.iter(|| corpus.inflate());
        });
        group.bench_function("inflate", |bencher| {
            bencher.iter(|| {
                let mut reader = GzipReader::new(Box::new(corpus.file()), PIECE, 1 << 20);
                let mut piece = vec![0; PIECE];
                while reader.read(&mut piece).unwrap() > 0 {}
            });
        });
        group.bench_function("split", |bencher| {
            bencher.iter(|| split(kind, &xml, |record| assert!(!black_box(record).is_empty())));
        });
        for (name, reading) in [
            ("transcode", Reading::Fast),
            ("reference", Reading::Reference),
        ] {
            let mut transcoder = Transcoder::with_reading(kind, Profile::Normalised, reading);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    split(kind, &xml, |record| {
                        drop(black_box(transcoder.transcode(record)));
                    });
                });
            });
        }
        group.bench_function("tree", |bencher| {
            bencher.iter(|| {
                let xml = corpus.xml();
                split(kind, &xml, |record| {
                    drop(black_box(tree::transcode(
                        kind,
                        str::from_utf8(record).unwrap(),
                    )));
                });
            });
        });
        for threads in [1, 2, 3] {
            group.bench_function(format!("source-{threads}"), |bencher| {
                bencher.iter(|| {
                    let source = corpus.source(Position::START, None);
                    pooled(source, threads).count()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, reading);
criterion_main!(benches);
